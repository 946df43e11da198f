"""Job files: the sections that `pickcal run` does one after the other, each with the settings of its stage."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pickcal.errors import InputError
from pickcal.settings import (
    CalibrateSettings,
    ClusterSettings,
    EvaluateSettings,
    ExportSettings,
    ImportPicksSettings,
    ImportSettings,
    Name,
    PickSettings,
    ScoreSettings,
    SelectSettings,
    Settings,
    SimulateSettings,
    WatchSettings,
    read_toml,
    validated,
)
from pickcal.settings.cluster import UNUSED
from pickcal.stores.places import PlaceField

KEPT = ("wait", "batch_limit")
"""What a job's [cluster] says that counts for a cluster of another kind too."""


class ImportJob(ImportSettings):
    """The `[import]` section of a job file."""

    sources: tuple[PlaceField, ...] = Field(
        min_length=1, description="Table of micrographs (RELION, cryoSPARC, CTFFIND, Gctf, CSV), or MRC and TIFF files."
    )


class ImportPicksJob(ImportPicksSettings):
    """The `[import_picks]` section of a job file."""

    files: tuple[Path, ...] = Field(min_length=1, description="Files or folders of picks, or RELION's index of them.")


class ScoreJob(ScoreSettings):
    """The `[score]` section of a job file: later sections work on the picks that it makes."""

    name: Name | None = Field(None, description="Name of the scored picks; default: that of the picks with -scored.")


class SelectJob(SelectSettings):
    """The `[select]` section of a job file."""

    name: Name = Field("selected", description="Name of the selection.")
    auto: bool = Field(False, description="Fill in the probability and the power maximum that the mixture proposes.")
    thresholds: Path | None = Field(None, description="Thresholds file to replay.")

    @model_validator(mode="after")
    def _file_or_values(self) -> SelectJob:
        values = sorted(self.model_fields_set - {"name", "thresholds"})
        if self.thresholds is not None and values:
            raise ValueError(f"select: expected thresholds = FILE or values, got both (also {', '.join(values)})")
        return self


class ExportJob(ExportSettings):
    """The `[export]` section of a job file."""

    path: PlaceField = Field(
        description="Folder (RELION, crYOLO, EMAN) or file (cryoSPARC, Topaz, CSV, Parquet) to write."
    )


class EvaluateJob(EvaluateSettings):
    """The `[evaluate]` section of a job file."""

    truth: Path = Field(description="STAR file of true particles or hand picks.")


class WatchJob(WatchSettings):
    """The `[watch]` section of a job file: the source of `[import]` is followed while a session runs."""


class Job(Settings):
    """A whole job file: what `pickcal run` does, stage by stage; sections left out are not run."""

    project: PlaceField = Field(description="The project store: a folder ending in .zarr, or its URL.")
    picks: Name | None = Field(None, description="Name of the picks; default: the method of picking, or 'imported'.")
    report: Path | None = Field(None, description="HTML report to write.")
    cluster: ClusterSettings = ClusterSettings()
    simulate: SimulateSettings | None = None
    import_: ImportJob | None = Field(None, alias="import")
    watch: WatchJob | None = None
    import_picks: ImportPicksJob | None = None
    pick: Annotated[PickSettings, Field(discriminator="method")] | None = None
    score: ScoreJob | None = None
    calibrate: CalibrateSettings | None = None
    select: SelectJob | None = None
    export: ExportJob | None = None
    evaluate: EvaluateJob | None = None

    @model_validator(mode="after")
    def _complete(self) -> Job:
        if self.simulate is not None and self.import_ is None:
            raise ValueError(
                "simulate: expected an [import] section beside it, whose sources tell where to simulate to"
            )
        if self.export is not None and self.select is None:
            raise ValueError("export: expected a [select] section beside it, whose picks are written")
        return self

    @model_validator(mode="after")
    def _watched(self) -> Job:
        if self.watch is None:
            return self
        if self.import_ is None or len(self.import_.sources) != 1 or self.import_.tables_only:
            raise ValueError("watch: expected one source with its images in [import], which is followed")
        if self.pick is None:
            raise ValueError("watch: expected a [pick] section: what is followed is picked on the way")
        if self.import_picks is not None or self.score is not None:
            raise ValueError("watch: expected neither [import_picks] nor [score] beside it; run them once it has ended")
        return self

    @property
    def picks_name(self) -> str:
        """Name of the picks that this job makes or takes in."""
        if self.picks:
            return self.picks
        return self.pick.method if self.pick else "imported" if self.import_picks else "template"

    @property
    def has_tasks(self) -> bool:
        """Whether there is work for worker processes: tables are read by the process that runs the job."""
        images = self.import_ is not None and not self.import_.tables_only
        return images or any(section is not None for section in (self.simulate, self.pick, self.score))

    @property
    def scored_name(self) -> str:
        """Name of the picks that are calibrated: those scored anew, else those made or taken in."""
        if self.score is None:
            return self.picks_name
        return self.score.name or f"{self.picks_name}-scored"


def load_job(path: Path, overrides: tuple[str, ...] = (), cluster: str | None = None) -> Job:
    """Read a job file.

    Parameters
    ----------
    path
        TOML file.
    overrides
        `section.key=value` strings that replace values of the file; the value is read as TOML, else as text.
    cluster
        Kind of cluster instead of the file's. Of another kind's cluster `KEPT` is kept, and `workers` unless work comes
        to this machine, but nothing by 'serial', which has no use for them; the rest is left out.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there, is not TOML, or holds a wrong setting.
    """
    values = read_toml(path, "job file")
    if cluster is not None:
        _move(values, cluster)
    for override in overrides:
        _override(values, override)
    return validated(Job, values, str(path))


def _move(values: dict[str, Any], kind: str) -> None:
    """Take a job to a cluster; options, memory and certificates of another kind of cluster are of no use there.

    The help of `pickcal run --cluster` says what is kept.
    """
    found = values.get("cluster", {})
    if not isinstance(found, dict):
        return  # refused with the other settings
    stored = str(found.get("kind", found.get("cluster", "local")))
    before, after = ("address" if "://" in name else name for name in (stored, kind))
    if before != after:
        kept = KEPT if after == "local" else (*KEPT, "workers")
        found = {name: value for name, value in found.items() if name in kept and name not in UNUSED.get(after, {})}
    dropped = {"cluster", "address"} if "://" in kind else {"cluster"}
    values["cluster"] = {name: value for name, value in found.items() if name not in dropped} | {"kind": kind}


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set: expected section.key=value, got {override!r}")
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {override}: {section!r} is a value, not a section")
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text
