"""Select: apply thresholds to calibrated scores and store what they leave, with reasons."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.mixture import PICK_VARIABLES, power_limit, probabilities
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.selection import (
    ACCEPTED,
    REASONS,
    check_names,
    reason_counts,
    rejection_reasons,
    settings_of,
    write_thresholds,
)
from pickcal.settings import SelectSettings, validated
from pickcal.stages.calibrate import blocks_of
from pickcal.stages.calibrate_result import doubts, fingerprint


def select(
    project: Project,
    picks: str,
    name: str,
    settings: SelectSettings,
    save: Path | None = None,
    overwrite: bool = False,
    by: str = "",
    check: Callable[[], None] | None = None,
) -> xr.Dataset:
    """Store a selection: thresholds and counts per rejection reason; picks are judged again on reading.

    Attributes tell when it was stored (`saved`, ISO time), by whom (`by`), give it a `stamp` that no other has, and a
    `caution` where the calibration doubts that what it takes for particles are any.

    Parameters
    ----------
    project
        Opened for writing.
    picks, name
        Names of the picks and of the selection.
    settings
        Thresholds.
    save
        Thresholds file to write as well.
    overwrite
        Replace a selection of this name that holds other thresholds.
    by
        Who stores it; default: not known.
    check
        Raises what speaks against storing it; called before the picks are judged, and again while nobody else can
        store anything.

    Raises
    ------
    ProjectError
        If there are no such picks, or the name is taken by other thresholds.
    """
    project.require("picks", picks)
    stored = {"picks": picks, **settings.stored()}

    def allowed() -> None:
        if check is not None:
            check()
        if name in project.names("selection") and not overwrite:
            project.check_same(f"selection/{name}", stored, "choose another --name, or give --overwrite to replace it")

    allowed()
    dataset = counted(project, picks, settings)
    with project.locked():
        allowed()
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        dataset = dataset.assign_attrs(stamp=secrets.token_hex(8), saved=now, by=by)
        project.write_whole("selection", name, dataset, stored)
    if save is not None:
        write_thresholds(save, settings, picks)
    return dataset


def counted(project: Project, picks: str, settings: SelectSettings) -> xr.Dataset:
    """Count picks per reason and micrograph, and the false ones to expect; what `select` stores, without storing it."""
    judge = Judge(project, picks, settings)
    counts, noise, junk = [], 0.0, 0.0
    for start, stop in judge.blocks():
        found = judge.block(start, stop)
        counts.append(reason_counts(found.reasons))
        more = found.expected_false()
        noise, junk = noise + more[0], junk + more[1]
    expected = {"expected_noise": noise, "expected_junk": junk} if judge.mixture is not None else {}
    return xr.Dataset(
        {"counts": (("reason", "micrograph"), np.concatenate(counts, axis=1))},
        coords={"reason": list(REASONS)},
        attrs={
            "picks": picks,
            "calibrated": judge.calibration is not None and not settings.raw,
            "fingerprint": fingerprint(project, picks),
            **expected,
            **judge.caution(),
        },
    )


@dataclass(frozen=True)
class Judged:
    """Picks of some micrographs and what a selection says of them.

    Attributes
    ----------
    picks
        Scores and positions, over (micrograph, pick).
    calibration
        The lines of these micrographs, or None.
    reasons
        int8 (micrograph, pick), see `selection.rejection_reasons`.
    likelihood
        `probability`, `junk` and `q_value`, or None where there is no mixture.
    """

    picks: xr.Dataset
    calibration: xr.Dataset | None
    reasons: NDArray[np.int8]
    likelihood: xr.Dataset | None

    def expected_false(self) -> tuple[float, float]:
        """Noise and junk to expect among the accepted picks."""
        if self.likelihood is None:
            return 0.0, 0.0
        accepted = self.reasons == ACCEPTED
        # a pick without a score has no probability: it counts as noise
        junk = float(np.nansum(self.likelihood["junk"].values[accepted], dtype=np.float64))
        sure = float(np.nansum(self.likelihood["probability"].values[accepted], dtype=np.float64))
        return int(accepted.sum()) - sure - junk, junk


class Judge:
    """Thresholds on some picks, applied to blocks of micrographs, so that memory does not grow with their number.

    Parameters
    ----------
    project, picks
        Where the picks are.
    settings
        The thresholds.

    Raises
    ------
    InputError
        If a micrograph to exclude does not exist.
    """

    def __init__(self, project: Project, picks: str, settings: SelectSettings) -> None:
        self.settings = settings
        self.calibration, self.mixture = project.calibration(picks), project.mixture(picks)
        self.micrographs = project.table()
        self.names = np.array([str(name) for name in self.micrographs["name"].values], dtype=object)
        check_names(settings, set(self.names))
        self._picks = project.picks(picks)

    def blocks(self) -> list[tuple[int, int]]:
        """Blocks of micrographs that hold about half a million places for picks each."""
        return blocks_of(len(self.names), int(self._picks.sizes["pick"]))

    def caution(self) -> dict[str, str]:
        """Say why what is accepted by probability may be no particles; {} where nothing speaks for that."""
        found = doubts(self.mixture) if self.settings.probability is not None or self.settings.fdr is not None else ""
        return {"caution": found} if found else {}

    def block(self, start: int, stop: int, columns: Sequence[str] = ()) -> Judged:
        """Judge the picks of some micrographs.

        Parameters
        ----------
        start, stop
            Which micrographs.
        columns
            Variables of the picks to read beside those that judging takes.
        """
        rows = slice(start, stop)
        picks = self._picks[list(dict.fromkeys((*PICK_VARIABLES, *columns)))].isel(micrograph=rows).load()
        micrographs = self.micrographs.isel(micrograph=rows)
        calibration = None if self.calibration is None else self.calibration.isel(micrograph=rows)
        likelihood = None
        if self.mixture is not None:
            likelihood = probabilities(picks, micrographs, self.mixture.isel(micrograph=rows))
        settings = settings_of(self.settings, set(self.names[rows]))
        reasons = rejection_reasons(picks, calibration, micrographs, settings, likelihood)
        return Judged(picks, calibration, reasons, likelihood)


def judge(project: Project, picks: str, settings: SelectSettings) -> NDArray[np.int8]:
    """Reason for every pick of all micrographs, int8 (micrograph, pick); see `selection.rejection_reasons`."""
    found = Judge(project, picks, settings)
    return np.concatenate([found.block(start, stop).reasons for start, stop in found.blocks()])


def likelihoods(project: Project, picks: str, dataset: xr.Dataset, micrographs: xr.Dataset) -> xr.Dataset | None:
    """Probability, junk and q-value of every pick of all micrographs; None where the calibration has no mixture."""
    mixture = project.mixture(picks)
    return None if mixture is None else probabilities(dataset, micrographs, mixture)


def automatic(project: Project, picks: str, settings: SelectSettings) -> SelectSettings:
    """Fill in the thresholds that the mixture proposes where none are given.

    Parameters
    ----------
    project, picks
        Calibrated picks.
    settings
        What is given stays: a probability or a false discovery rate, a power maximum, excluded micrographs.

    Returns
    -------
    SelectSettings
        With probability 0.5 unless something else is asked, and the power above which junk is likelier than particles.

    Raises
    ------
    ProjectError, InputError
        If there are no such picks, they have no probabilities, or the thresholds are to be on raw scores.
    """
    project.require("picks", picks)
    mixture, lines = project.mixture(picks), project.calibration(picks)
    if mixture is None or lines is None:
        reason = "they are not calibrated" if lines is None else str(lines.attrs.get("probability", "no mixture"))
        raise InputError(f"auto: picks {picks!r} have no probabilities ({reason}); run 'pickcal calibrate' first")
    if settings.raw:
        raise InputError("auto: thresholds are on calibrated scores, found raw; leave out --raw")
    found = settings.model_dump()
    if settings.probability is None and settings.fdr is None:
        found["probability"] = 0.5
    if settings.max_power is None:
        found["max_power"] = power_limit(mixture, lines, project.table())
    return validated(SelectSettings, found, "auto")
