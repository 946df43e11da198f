"""Probabilities from one score alone, without decoys and power, on made-up picks after other programs' scores.

python tests/benchmarks/foreign_scores.py [--seeds 3] [--only topaz]

Prints a Markdown table. Each set has 40 micrographs from 0.8 to 2.5 µm, its list cut off at a floor as pickers cut it;
particles fall with defocus. F1 is at probability 0.5, beside the best that one threshold on the raw or the
line-calibrated score reaches; then the true false discovery rate at 5 and 10 %, the mean departure of probabilities
from the fraction of true picks over tenths, and how many seeds are refused with a reason.
"""

from __future__ import annotations

import argparse

import numpy as np
import xarray as xr
from scipy.special import expit

from pickcal.calibration.mixture import NotFitted, fit_mixture, mixture_columns, probabilities
from pickcal.settings import CalibrateSettings

MICROGRAPHS = 40
SLOPE = -0.3
"""Mean of the particles per µm, in their deviations."""

FOM = {"kind": "figure of merit", "floor": 1e-4}
TOPAZ = {"kind": "Topaz"}
CRYOLO = {"kind": "crYOLO", "noise": 300}
SETS = {
    "figure of merit, half noise": {**FOM, "noise": 200, "particles": 200},
    "the same with a tail of 3 %": {**FOM, "noise": 200, "particles": 200, "tail": 0.03},
    "figure of merit, 80 % noise, tail": {**FOM, "noise": 500, "particles": 120, "tail": 0.03},
    "figure of merit, cut off at 0.8": {**FOM, "floor": 0.8, "noise": 200, "particles": 200, "tail": 0.03},
    "Topaz, cut off at -6": {**TOPAZ, "floor": -6.0},
    "Topaz, cut off at -6, 85 % noise": {**TOPAZ, "floor": -6.0, "noise": 450, "particles": 80},
    "Topaz, cut off at -3": {**TOPAZ, "floor": -3.0},
    "Topaz, cut off at -1.5": {**TOPAZ, "floor": -1.5},
    "Topaz, cut off at 0": {**TOPAZ, "floor": 0.0},
    "crYOLO, cut off at 0.02": {**CRYOLO, "floor": 0.02},
    "crYOLO, cut off at 0.1": {**CRYOLO, "floor": 0.1},
    "crYOLO, cut off at 0.3": {**CRYOLO, "floor": 0.3, "noise": 400},
    "particles alone, Topaz": {**TOPAZ, "floor": -6.0, "noise": 0, "particles": 250},
    "particles alone, crYOLO": {**CRYOLO, "noise": 0, "particles": 250, "floor": 0.3},
    "noise alone, figure of merit": {**FOM, "noise": 500, "particles": 0},
}


def scores(rng, kind, noise, particles, um):
    """Scores of noise and of particles of one micrograph, at a defocus in µm about the middle of the range."""
    if kind == "figure of merit":
        return rng.normal(0, 0.3, noise), rng.gamma(6.25, 1 / 6.25, particles) * 0.95 + 0.15 + SLOPE * 0.4 * um
    if kind == "Topaz":
        return rng.normal(-3, 1.5, noise), rng.normal(1.5, 1.6, particles) + SLOPE * 1.6 * um
    return expit(rng.normal(-2.5, 1.0, noise)), expit(rng.normal(1.4, 0.75, particles) + SLOPE * 0.75 * um)


def made(seed, kind, floor, noise=200, particles=150, tail=0.0):
    """Padded tables of picks and micrographs, and which picks are particles; the tail counts as such."""
    rng = np.random.default_rng(seed)
    um = rng.permutation(np.linspace(-0.85, 0.85, MICROGRAPHS))
    rows = []
    for value in um:
        numbers = rng.poisson(noise * rng.lognormal(0, 0.3)), rng.poisson(particles * rng.lognormal(0, 0.4))
        low, high = scores(rng, kind, *numbers, value)
        more = rng.poisson(tail * (len(low) + len(high)))
        score = np.concatenate([low, high, 1.5 * np.exp(rng.exponential(0.7, more)) + 0.5])
        true = np.arange(len(score)) >= len(low)
        order = np.argsort(-score)
        kept = order[score[order] >= floor]
        rows.append((score[kept], true[kept]))
    width = max(len(score) for score, _ in rows)
    ncc = np.full((MICROGRAPHS, width), np.nan)
    true = np.zeros((MICROGRAPHS, width), dtype=bool)
    for i, (score, particle) in enumerate(rows):
        ncc[i, : len(score)], true[i, : len(score)] = score, particle
    place = np.where(np.isfinite(ncc), rng.uniform(0, 40_000, (2, *ncc.shape)), np.nan)
    defocus = 16_500 + 1e4 * um
    picks = xr.Dataset(
        {
            **{name: (("micrograph", "pick"), v) for name, v in {"x": place[0], "y": place[1], "ncc": ncc}.items()},
            "power": (("micrograph", "pick"), np.full_like(ncc, np.nan)),
            "count": ("micrograph", np.isfinite(ncc).sum(axis=1).astype(np.int32)),
            "status": ("micrograph", np.ones(MICROGRAPHS, dtype=np.int8)),
        }
    )
    micrographs = xr.Dataset(
        {
            "defocus_u": ("micrograph", defocus),
            "defocus_v": ("micrograph", defocus),
            "exposure_group": ("micrograph", np.ones(MICROGRAPHS, dtype=np.int32)),
        }
    )
    return picks, micrographs, true


def f1(accepted, true):
    return 2 * (accepted & true).sum() / max(accepted.sum() + true.sum(), 1)


def best_f1(score, true):
    found = np.cumsum(true[np.argsort(-score)])
    return float((2 * found / (np.arange(1, len(found) + 1) + true.sum())).max())


def measured(picks, micrographs, true):
    """Figures of one set, or None where the fit is refused."""
    try:
        model = fit_mixture(picks, micrographs, 150.0, CalibrateSettings(bootstrap=0))
    except NotFitted:
        return None
    stored = model.to_dataset()
    stored = stored.merge(mixture_columns(picks, micrographs, model)).assign_attrs(stored.attrs)
    found = probabilities(picks, micrographs, stored)
    there = np.isfinite(picks["ncc"].values)
    true = true[there]
    chance, q_value = (found[name].values[there].astype(float) for name in ("probability", "q_value"))
    um = 1e-4 * (micrographs["defocus_u"].values - 16_500)
    slope = np.polyfit(um, np.nanmedian(picks["ncc"].values, axis=1), 1)[0]
    calibrated = (picks["ncc"].values - slope * um[:, None])[there]
    best = max(best_f1(calibrated, true), best_f1(picks["ncc"].values[there], true))
    rates = [((q_value <= rate) & ~true).sum() / max((q_value <= rate).sum(), 1) for rate in (0.05, 0.1)]
    tenth = np.clip((10 * chance).astype(int), 0, 9)
    away = [(abs(chance[tenth == i].mean() - true[tenth == i].mean()), (tenth == i).mean()) for i in np.unique(tenth)]
    return f1(chance > 0.5, true), best, *rates, sum(distance * weight for distance, weight in away)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    print("| set | F1 at 0.5 | best F1 | FDR at 5 % | at 10 % | departure | refused |\n|---|---|---|---|---|---|---|")
    for name, settings in SETS.items():
        if given.only not in name:
            continue
        rows = [measured(*made(seed, **settings)) for seed in range(given.seeds)]
        fitted = np.array([row for row in rows if row is not None])
        refused = f"{len(rows) - len(fitted)} of {len(rows)}"
        if len(fitted):
            a, b, five, ten, away = fitted.mean(axis=0)
            print(f"| {name} | {a:.3f} | {b:.3f} | {100 * five:.1f} % | {100 * ten:.1f} % | {away:.3f} | {refused} |")
        else:
            print(f"| {name} | | | | | | {refused} |", flush=True)


if __name__ == "__main__":
    main()
