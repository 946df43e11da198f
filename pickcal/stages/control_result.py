"""What a stored control says: counts of micrographs and their copies, in numbers and in words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.trends import mean_defocus
from pickcal.project import Project
from pickcal.schema import Columns, Status
from pickcal.stages.calibrate_result import fingerprint
from pickcal.stages.select_result import thresholds_of

COUNTS = {
    "control_accepted": "picks accepted on the phase-randomised copy, -1 if not tried",
    "real_accepted": "picks accepted on the micrograph, -1 if not tried",
    "control_found": "picks found on the phase-randomised copy, -1 if not tried",
    "real_found": "picks found on the micrograph, -1 if not tried",
}
MOST_NOISE = 0.1
"""Part of the accepted picks that noise may make up before a warning."""


def stored_defocus(project: Project) -> NDArray[np.floating]:
    """Mean of both defoci of every micrograph, Å, of the two columns alone."""
    return mean_defocus(project.read_rows("micrographs", ("defocus_u", "defocus_v"), 0, project.count))


def is_stale(project: Project, picks: str, status: NDArray[np.int8] | None = None) -> bool:
    """Whether the picks of a stored control, their calibration, or the thresholds it tried have changed since.

    `status` is that of every micrograph in the picks, where it is known.
    """
    if picks not in project.names("picks"):
        return True
    if project.attributes(f"control/{picks}")["fingerprint"] != fingerprint(project, picks, status):
        return True
    stored = project.settings(f"control/{picks}")
    name = stored["selection"]
    if not name:
        return False  # the automatic thresholds follow from the calibration
    if name not in project.names("selection"):
        return True
    return bool(thresholds_of(project, name).stored() != json.loads(stored["thresholds"]))


def stored_control(project: Project, picks: str, status: NDArray[np.int8] | None = None) -> dict[str, Any] | None:
    """Give the result of the control of some picks, or None if there is none that holds for their calibration.

    Parameters
    ----------
    project, picks
        Where it is stored, and of which picks.
    status
        Of every micrograph in these picks, where it is known; default: read.

    Returns
    -------
    dict
        `picks`, `selection` ("" for the automatic thresholds), `thresholds`, `seed`; `micrographs` tried, `of` so many
        that could be; `control_accepted` and `real_accepted`, `control_found` and `real_found`: means per micrograph;
        `control_least` and `control_most`: fewest and most accepted on a copy; `share`: copies' part of the real
        number, None where nothing was accepted; `terciles` of defocus (Å) with the same means; `verdict` in words and
        `warning` ("" for none); `per_micrograph`; `errors` and `skipped` with reasons.
    """
    if picks not in project.names("control") or is_stale(project, picks, status):
        return None
    return summary(project, picks)


def summary(project: Project, picks: str) -> dict[str, Any]:
    """Give the result of the stored control of some picks, as of `stored_control`, whether it still holds or not."""
    stored = project.stored(f"control/{picks}")
    settings = project.settings(f"control/{picks}")
    names = [str(name) for name in project.read("micrographs", "name")]
    defocus = stored_defocus(project)
    status, errors = stored["status"], stored["error"]
    done = np.flatnonzero(status == Status.DONE)
    done = done[np.argsort(defocus[done], kind="stable")]
    reasons = {
        key: [{"micrograph": names[i], "error": str(errors[i])} for i in np.flatnonzero(status == code)]
        for key, code in (("errors", Status.FAILED), ("skipped", Status.SKIPPED))
    }
    out: dict[str, Any] = {
        "control": picks,
        "picks": picks,
        "selection": settings["selection"],
        "thresholds": {k: v for k, v in json.loads(settings["thresholds"]).items() if v not in (None, [], False)},
        "seed": int(settings["seed"]),
        "micrographs": len(done),
        "of": int((status != Status.SKIPPED).sum()),
        **_means(stored, done),
    }
    accepted = stored["control_accepted"][done]
    out["control_least"] = int(accepted.min()) if len(done) else None
    out["control_most"] = int(accepted.max()) if len(done) else None
    out["share"] = out["control_accepted"] / out["real_accepted"] if out["real_accepted"] else None
    out["terciles"] = _terciles(stored, done[np.isfinite(defocus[done])], defocus)
    out["verdict"], out["warning"] = _words(out)
    out["per_micrograph"] = [{"micrograph": names[i], **{name: int(stored[name][i]) for name in COUNTS}} for i in done]
    return {**out, **reasons}


def _terciles(stored: Columns, rows: NDArray[np.intp], defocus: NDArray[np.floating]) -> list[dict[str, Any]]:
    """Means at low, middle and high defocus of micrographs in order of it; none for fewer than three."""
    return [
        {
            "defocus_low": float(defocus[part[0]]),
            "defocus_high": float(defocus[part[-1]]),
            "micrographs": len(part),
            **_means(stored, part),
        }
        for part in (np.array_split(rows, 3) if len(rows) >= 3 else ())
    ]


def _means(stored: Columns, rows: NDArray[np.intp]) -> dict[str, float | None]:
    return {name: float(stored[name][rows].mean()) if len(rows) else None for name in COUNTS}


def _words(result: dict[str, Any]) -> tuple[str, str]:
    """Verdict and warning; the warning is empty where there is nothing to warn of."""
    if not result["micrographs"]:
        return "no copy could be searched", ""
    who = f"selection {result['selection']!r} accepts" if result["selection"] else "the automatic thresholds accept"
    noise, real = result["control_accepted"], result["real_accepted"]
    verdict = (
        f"on noise with the same spectrum {who} {noise:.1f} picks a micrograph "
        f"({result['control_least']} to {result['control_most']}), in the real micrographs {real:.1f}"
    )
    if noise <= MOST_NOISE * real:
        return verdict, ""
    part = f"{100 * noise / real:.0f} % as many picks as" if real else "picks where there are none in"
    return verdict, (
        f"noise alone gives {part} the real micrographs: the thresholds let in what the search makes out of noise, or "
        "the particles' own power, which stays in the noise, makes up most of it (low defocus, crowded micrographs); "
        "look at the picks, and if they are noise ask for a higher probability or a lower false discovery rate"
    )
