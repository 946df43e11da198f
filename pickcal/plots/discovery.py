"""Plot of what a threshold on the probability costs: expected false picks and accepted picks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.special import expit, logit

from pickcal.calibration.mixture.observations import valid_places
from pickcal.plots.style import BLUE, GREY, ORANGE, YELLOW, Floats, new_figure, nothing_figure, tidy
from pickcal.schema import Status

RATES = (0.01, 0.05, 0.10)
THRESHOLDS = (0.01, 0.999)


def false_discovery_figure(picks: xr.Dataset, mixture: xr.Dataset, likelihood: xr.Dataset) -> Figure:
    """Draw the expected false discovery rate and accepted picks against the least probability.

    Parameters
    ----------
    picks
        `ncc`, `count`, `status`.
    mixture, likelihood
        The same micrographs of the stored mixture and of the probabilities.

    Returns
    -------
    Figure
        Above the expected part of noise and, if any is expected, of junk among the accepted picks, stacked, and, where
        noise comes from decoys, the number of decoys that pass the same threshold over the number of picks that do: a
        control that does not ask whether the probabilities are right. Below accepted picks per micrograph. Dots are at
        rates of 1, 5 and 10 % over all accepted picks together.
    """
    valid = valid_places(picks)
    probability, junk = (likelihood[name].values[valid].astype(np.float64) for name in ("probability", "junk"))
    if not len(probability):
        return nothing_figure("no finished micrograph with picks")
    done = max(int((picks["status"].values == Status.DONE).sum()), 1)
    figure = new_figure(9, 6.4)
    rate, accepted = panels = figure.subplots(2, 1, sharex=True)
    order = np.argsort(-probability, kind="stable")
    probability, junk = probability[order], junk[order]
    sums = np.stack([np.arange(1, len(order) + 1), np.cumsum(1 - probability - junk), np.cumsum(junk)])
    x = expit(np.linspace(float(logit(THRESHOLDS[0])), float(logit(THRESHOLDS[1])), 400))
    places = np.searchsorted(-probability, -x, side="right") - 1
    number, noise, dirt = np.where(places >= 0, sums[:, np.maximum(places, 0)], 0.0)
    with np.errstate(invalid="ignore"):
        shares = [100 * part / number for part in (noise, dirt)]
    kinds = (("noise", ORANGE, noise), ("junk", YELLOW, dirt))[: 2 if junk.any() else 1]
    words, colours, numbers = zip(*kinds, strict=True)
    rate.stackplot(x, *np.nan_to_num(shares)[: len(kinds)], colors=colours, alpha=0.6, labels=words, linewidth=0)
    accepted.plot(x, number / done, color=BLUE, linewidth=1.8, label="accepted picks")
    for part, colour, word in zip(numbers, colours, words, strict=True):
        accepted.plot(x, part / done, color=colour, linewidth=1.6, label=f"{word} among them")
    if mixture.attrs["noise_from"] == "decoys":
        _draw_control(panels, mixture)
    _mark_rates(panels, probability, (sums[1] + sums[2]) / sums[0], done)
    _finish_rates(panels)
    return figure


def _draw_control(panels: Sequence[Any], mixture: xr.Dataset) -> None:
    picks, decoys = mixture["picks_above"].values, mixture["decoys_above"].values
    x = expit(mixture["level"].values)
    seen = (picks > 0) & (x >= THRESHOLDS[0]) & (x <= THRESHOLDS[1])
    style: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.3}
    panels[0].plot(x[seen], 100 * decoys[seen] / picks[seen], label="decoys per pick (control)", **style)
    fitted = max(int(json.loads(mixture.attrs["report"])["micrographs"]), 1)
    panels[1].plot(x[seen], np.where(decoys > 0, decoys, np.nan)[seen] / fitted, label="decoys", **style)


def _mark_rates(panels: Sequence[Any], probability: Floats, rates: Floats, done: int) -> None:
    for wanted in RATES:
        count = int(np.searchsorted(rates, wanted, side="right"))
        if not 0 < count < len(probability) or not THRESHOLDS[0] <= probability[count - 1] <= THRESHOLDS[1]:
            continue
        x = float(probability[count - 1])
        for axes, y, text in (
            (panels[0], 100 * rates[count - 1], f"{100 * wanted:g} % at {x:.2f}"),
            (panels[1], count / done, f"{count / done:.1f}"),
        ):
            axes.axvline(x, color=GREY, linestyle=":", linewidth=1)
            axes.plot([x], [y], "o", color=GREY, markersize=5, zorder=4)
            axes.annotate(text, (x, y), textcoords="offset points", xytext=(6, 6), fontsize=9)


def _finish_rates(panels: Sequence[Any]) -> None:
    rate, accepted = panels
    tidy(rate, "", "expected false picks\n(% of those accepted)")
    tidy(accepted, "least probability of being a particle", "picks per micrograph")
    rate.set_ylim(0, max(rate.get_ylim()[1], 1.0))  # where nothing is expected to be false there is no range
    accepted.set_yscale("log")
    accepted.set_ylim(bottom=max(accepted.get_ylim()[0], 0.01))
    accepted.yaxis.set_major_formatter("{x:g}")
    accepted.set_xscale("logit")
    accepted.set_xlim(*THRESHOLDS)
    ticks = (0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
    accepted.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    accepted.xaxis.set_minor_locator(NullLocator())
    for axes in panels:
        axes.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
