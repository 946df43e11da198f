"""Machines of a cloud through dask-cloudprovider: rented when work starts, given back when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pickcal.engine.clusters._dask import WORKER_ENVIRONMENT, first_workers, known_options, optional, running
from pickcal.engine.executors import Executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings

OURS = (
    "n_workers", "security", "worker_options", "scheduler_options", "worker_class", "scheduler_class", "silence_logs",
    "service_account_credentials",  # from the standard places, never from a job file
)  # fmt: skip


@contextmanager
def opened(
    module: str, name: str, image: str, settings: ClusterSettings, note: Callable[[str], None]
) -> Iterator[Executor]:
    """Rent a scheduler and workers.

    Parameters
    ----------
    module, name
        Module of `dask_cloudprovider` and class in it.
    image
        The class's name for the container image.
    settings
        `options` go to the class: image, region, instance type, credentials' profile, disks.
    note
        Told the dashboard's address.

    Raises
    ------
    InputError
        If dask-cloudprovider or the cloud's own package is missing, an option is unknown, or no image is given.
    """
    provider = optional(f"dask_cloudprovider.{module}", settings.kind, settings.kind)
    kind = getattr(provider, name)
    options = known_options(settings, (kind,), OURS)
    if image not in options:
        raise InputError(
            f"cluster.options.{image}: expected the container image with this pickcal in it (deploy/Dockerfile)"
        )
    with running(settings, note, lambda: kind(**arguments(settings), **options)) as executor:
        yield executor


def arguments(settings: ClusterSettings) -> dict[str, Any]:
    """Arguments of dask-cloudprovider's classes that follow from the settings."""
    out: dict[str, Any] = {
        "n_workers": first_workers(settings),
        "worker_options": {"nthreads": 1},
        "security": True,
        "silence_logs": "critical",
    }
    if "env_vars" not in settings.options:
        out["env_vars"] = dict(WORKER_ENVIRONMENT)
    return out
