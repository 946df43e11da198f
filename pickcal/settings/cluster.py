"""Where tasks run: on this machine, on a Dask scheduler, on a queue, on Kubernetes or in a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import Field, model_validator

from pickcal.settings.base import Settings, ordered

TLS = ("tls_ca", "tls_cert", "tls_key")
_CLOUD = {
    "memory": "memory comes with the type of machine in cluster.options",
    "listen": "its scheduler is a machine of the cloud",
    **dict.fromkeys(TLS, "its scheduler makes its own certificates"),
}
_THERE = "the workers of a running scheduler are what they are"
UNUSED = {
    "serial": dict.fromkeys(
        ("workers", "workers_min", "memory", "wait", "batch_limit", "listen", *TLS, "options"),
        "all work is done in this process, without workers",
    ),
    "local": {"options": "workers are processes of this machine, of which workers, memory and listen say all"},
    "address": dict.fromkeys(("workers_min", "memory", "listen", "options"), _THERE),
    "kubernetes": dict.fromkeys(("listen", *TLS), "its scheduler is a service within Kubernetes"),
    "aws": _CLOUD,
    "gcp": _CLOUD,
    "azure": _CLOUD,
}
"""Settings that a kind of cluster has no use for, and why; they are refused, since who gives them expects something."""


class ClusterSettings(Settings):
    """Where tasks run."""

    kind: Annotated[str, Parameter(name="--cluster")] = Field(
        "local",
        description="'local' (processes on this machine), 'serial', the address of a Dask scheduler, 'slurm', 'pbs', "
        "'lsf', 'kubernetes', 'aws', 'gcp' or 'azure'.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Worker processes; the most of them with --workers-min, or that may come to a running scheduler. "
        "Default: all cores, elsewhere 1.",
    )
    workers_min: int | None = Field(
        None, ge=0, description="Scale between this number of workers and --workers with the work that is left."
    )
    memory: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)? ?([kKMGT]i?)?B$",
        description="Memory of one worker, such as '4 GB'; default: an even share of this machine, elsewhere 4 GB.",
    )
    wait: float = Field(
        300.0, gt=0, description="Seconds without any worker, or without the scheduler, after which a job gives up."
    )
    batch_limit: float = Field(
        3600.0, gt=0, description="Seconds after which a batch that does not end is taken from its worker."
    )
    listen: str | None = Field(
        None,
        description="Address or network interface at which the scheduler listens for workers on other machines; "
        "default: this machine only.",
    )
    tls_ca: Path | None = Field(None, description="TLS: file of the authority that signed the certificates.")
    tls_cert: Path | None = Field(None, description="TLS: certificate file.")
    tls_key: Path | None = Field(None, description="TLS: file of the certificate's key.")
    options: Annotated[dict[str, Any], Parameter(parse=False)] = Field(
        default_factory=dict, description="Job files: further settings of the kind, such as queue, account, image."
    )

    @model_validator(mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        """Take `cluster` for `kind`, as the flag is called, and `kind = "address"` with the address beside it."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if "cluster" in values:
            values["kind"] = values.pop("cluster")
        if values.get("kind") == "address":
            if not isinstance(values.get("address"), str):
                raise ValueError('cluster: kind = "address" expects address = "tcp://host:8786" beside it')
            values["kind"] = values.pop("address")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSettings:
        if "://" not in self.kind and self.kind not in cluster_kinds():
            raise ValueError(
                f"cluster: expected 'local', 'serial' or an address such as tcp://host:8786, or one of "
                f"{', '.join(kind for kind in cluster_kinds() if kind not in ('local', 'serial'))}, got {self.kind!r}"
            )
        self._refuse_unused()
        if self.workers_min is not None and self.workers is None:
            raise ValueError("workers_min: expected workers, the largest number, as well")
        if self.workers_min is not None and self.workers is not None:
            ordered(self, "workers_min", "workers")
        given = [name for name in TLS if getattr(self, name) is not None]
        if given and len(given) < 3:
            raise ValueError(f"tls: expected tls_ca, tls_cert and tls_key together, got only {', '.join(given)}")
        return self

    def _refuse_unused(self) -> None:
        kind = "address" if "://" in self.kind else self.kind
        fields = type(self).model_fields
        for name, why in UNUSED.get(kind, {}).items():
            if getattr(self, name) == fields[name].get_default(call_default_factory=True):
                continue
            others = [other for other in (*cluster_kinds(), "address") if name not in UNUSED.get(other, {})]
            raise ValueError(
                f"{name}: expected none for cluster {self.kind!r}: {why}; leave it out, or choose a kind that uses it: "
                f"{', '.join(others)}"
            )


def cluster_kinds() -> tuple[str, ...]:
    """Kinds of clusters: the modules of `pickcal.engine.clusters`, one each."""
    folder = Path(__file__).parents[1] / "engine" / "clusters"
    return tuple(sorted(path.stem for path in folder.glob("[a-z]*.py") if path.stem != "address"))
