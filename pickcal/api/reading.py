"""What a workbench hands out of its project: xarray objects with units, long names and the micrographs' names."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pickcal.api.words import DEFOCUS, FIT, score_words, with_words
from pickcal.calibration import calibrated_scores
from pickcal.calibration.trends import mean_defocus
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.selection import ACCEPTED, NO_PICK, REASONS
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge, Judged
from pickcal.stages.select_result import stored_selection

Rows = slice | int | str | None


class Reading:
    """Tables, picks and fits of a project."""

    project: Project

    def micrographs(self) -> xr.Dataset:
        """Open the table of micrographs, with their working images (lazy); `name` and `defocus` (Å) are coordinates."""
        return self._placed(self.project.micrographs())

    def image(self, micrograph: int | str) -> xr.DataArray:
        """Load one working image: (y, x) in Å, mean 0 and deviation 1.

        Parameters
        ----------
        micrograph
            Its number from 0, or its name.
        """
        self.project.require_images("an image")
        index = self._index(micrograph)
        values = self.project.image(index)
        pixel = float(self.project.read("micrographs", "pixel_size", index, index + 1)[0])
        axes = {
            axis: (axis, np.arange(length) * pixel, {"units": "Å", "long_name": f"{axis} from the first pixel"})
            for axis, length in zip(("y", "x"), values.shape, strict=True)
        }
        name = str(self.project.read("micrographs", "name", index, index + 1)[0])
        words = {"long_name": "working image", "units": "image deviations"}
        return xr.DataArray(
            values, dims=("y", "x"), coords={**axes, "micrograph_name": name}, name="image", attrs=words
        )

    def picks(self, name: str) -> xr.Dataset:
        """Open picks as they are stored (lazy), best first and padded: `count` says how many each micrograph has.

        `micrograph_name` and `defocus` (Å) are coordinates; the main score is `ncc`, whatever program it is of.

        Parameters
        ----------
        name
            Name of the picks.
        """
        self.project.require("picks", name)
        return self._placed(self.project.picks(name))

    def scores(self, picks: str, micrographs: Rows = None) -> xr.Dataset:
        """Load positions and scores, raw and calibrated, with the probability of being a particle.

        Parameters
        ----------
        picks
            Name of the picks.
        micrographs
            A slice of them, or one by its number or name; default: all.

        Returns
        -------
        Dataset
            Over (micrograph, pick), NaN where there is no pick: `x`, `y`, `ncc`, `power`, and where the picks are
            calibrated `calibrated_ncc`, `calibrated_power`; with a mixture `probability`, `junk`, `q_value`.
        """
        self.project.require("picks", picks)
        return self._scored(Judge(self.project, picks, SelectSettings()), picks, micrographs)[0]

    def selected(self, selection: str, micrographs: Rows = None) -> xr.Dataset:
        """Load scores as `scores` does, with what a stored selection says of every pick.

        Returns
        -------
        Dataset
            With `accepted` (bool) and `reason` (number of `pickcal.selection.REASONS`, -1 where there is no pick).
        """
        picks, settings = stored_selection(self.project, selection)
        out, judged = self._scored(Judge(self.project, picks, settings), picks, micrographs)
        out["accepted"] = (("micrograph", "pick"), judged.reasons == ACCEPTED)
        out["reason"] = (("micrograph", "pick"), judged.reasons)
        out = with_words(out, score_words(out.attrs))
        out["reason"].attrs |= {"flag_values": [NO_PICK, *range(len(REASONS))], "flag_meanings": ["no pick", *REASONS]}
        return out.assign_attrs(selection=selection)

    def fit(self, picks: str) -> xr.Dataset:
        """Return the stored lines through the scores of some picks: parameters, verdicts, columns of micrographs."""
        return self._described(picks, self._calibration(picks))

    def mixture(self, picks: str) -> xr.Dataset:
        """Return the stored mixture that gives some picks their probabilities."""
        lines, found = self._calibration(picks), self.project.mixture(picks)
        if found is None:
            reason = lines.attrs.get("probability", "not fitted")
            raise ProjectError(f"{self.project.path}: picks {picks!r} have no mixture ({reason})")
        return self._placed(found)

    def _calibration(self, picks: str) -> xr.Dataset:
        self.project.require("picks", picks)
        found = self.project.calibration(picks)
        if found is None:
            raise ProjectError(
                f"{self.project.path}: picks {picks!r} are not calibrated; calibrate({picks!r}) fits them"
            )
        return found

    def _described(self, picks: str, fit: xr.Dataset) -> xr.Dataset:
        """Give a fit its words, and the names of its micrographs."""
        return with_words(self._placed(fit), FIT)

    def _scored(self, judge: Judge, picks: str, micrographs: Rows) -> tuple[xr.Dataset, Judged]:
        start, stop = self._range(micrographs)
        found = judge.block(start, stop)
        out = found.picks[["x", "y", "ncc", "power", "count"]]
        if found.calibration is not None:
            laid = calibrated_scores(found.picks[["ncc", "power"]], found.calibration)
            out = out.assign(calibrated_ncc=laid["ncc"], calibrated_power=laid["power"])
        if found.likelihood is not None:
            out = out.assign(dict(found.likelihood.data_vars))
        out = out.assign_attrs({**self.project.attributes(f"picks/{picks}"), "picks": picks})
        return self._placed(with_words(out, score_words(out.attrs)), start), found

    def _placed(self, dataset: xr.Dataset, start: int = 0) -> xr.Dataset:
        """Add name and defocus of the micrographs, which begin with the one numbered `start`."""
        count = dataset.sizes["micrograph"]
        part = {key: self.project.read("micrographs", key, start, start + count) for key in ("defocus_u", "defocus_v")}
        table = xr.Dataset({key: ("micrograph", values) for key, values in part.items()})
        names = np.asarray(self.project.read("micrographs", "name", start, start + count), dtype=object)
        coordinates: dict[str, Any] = {
            "micrograph_name": ("micrograph", names, {"long_name": "name of the micrograph"}),
            "defocus": ("micrograph", mean_defocus(table), DEFOCUS),
        }
        return dataset.drop_vars("defocus", errors="ignore").assign_coords(coordinates)

    def _range(self, micrographs: Rows) -> tuple[int, int]:
        if micrographs is None:
            return 0, self.project.count
        if isinstance(micrographs, slice):
            start, stop, step = micrographs.indices(self.project.count)
            if step != 1 or stop <= start:
                raise InputError(f"micrographs: expected a slice that is not empty, with step 1; got {micrographs!r}")
            return start, stop
        index = self._index(micrographs)
        return index, index + 1

    def _index(self, micrograph: int | str) -> int:
        count = self.project.count
        if isinstance(micrograph, str):
            names = [str(name) for name in self.project.read("micrographs", "name")]
            exact = [i for i, name in enumerate(names) if name == micrograph]
            found = exact or [i for i, name in enumerate(names) if name.rsplit("/", 1)[-1] == micrograph]
            if len(found) != 1:
                many = "several" if found else "none"
                raise InputError(f"{micrograph}: expected the name of one micrograph, found {many}; e.g. {names[0]!r}")
            return found[0]
        index = int(micrograph)
        if not -count <= index < count:
            raise InputError(f"micrograph: expected a number from 0 to {count - 1}, got {index}")
        return index % count
