"""Workers as pods of a Kubernetes cluster with the Dask operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pickcal.engine.clusters._dask import (
    DEFAULT_MEMORY,
    PRELOAD,
    WORKER_ENVIRONMENT,
    first_workers,
    known_options,
    optional,
    running,
)
from pickcal.engine.executors import Executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings

OURS = ("n_workers", "resources", "worker_command", "shutdown_on_close", "jupyter", "quiet")


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Ask the operator for a scheduler and workers, and take them away afterwards.

    Raises
    ------
    InputError
        If dask-kubernetes is missing, an option is unknown, or no image is given.
    """
    operator = optional("dask_kubernetes.operator", "kubernetes", settings.kind)
    options = known_options(settings, (operator.KubeCluster,), OURS)
    if "image" not in options and "custom_cluster_spec" not in options:
        raise InputError(
            "cluster.options.image: expected the container image that has this version of pickcal (deploy/Dockerfile)"
        )
    with running(settings, note, lambda: operator.KubeCluster(**arguments(settings), **options)) as executor:
        yield executor


def arguments(settings: ClusterSettings) -> dict[str, Any]:
    """Arguments of `KubeCluster` that follow from the settings."""
    out: dict[str, Any] = {
        "n_workers": first_workers(settings),
        "worker_command": ["dask", "worker", "--nthreads", "1", "--preload", PRELOAD],
        "shutdown_on_close": True,
        "quiet": True,
    }
    memory = quantity(settings.memory or DEFAULT_MEMORY)
    out["resources"] = {"requests": {"cpu": "1", "memory": memory}, "limits": {"cpu": "1", "memory": memory}}
    if "env" not in settings.options:
        out["env"] = dict(WORKER_ENVIRONMENT)
    return out


def quantity(memory: str) -> str:
    """Memory as Kubernetes writes it: '4 GB' is '4G', '4 GiB' is '4Gi'."""
    return memory.replace(" ", "").removesuffix("B")
