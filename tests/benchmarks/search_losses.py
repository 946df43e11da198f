"""Measure what each shortcut of the search costs in accuracy, and print a table.

python tests/benchmarks/search_losses.py [--seeds 8] [--signals 0.8 0.35] [--set SET --work WORK]

A set: four micrographs of 820 x 820 pixels of 5 Å, 0.9 to 2.7 µm, 260 particles of 150 Å each, no junk; 8 templates
every 5 degrees, whitened as `pickcal pick` does. Scores are raw; F1 is that of the best single threshold. Differences
are from every entry at every pixel of 5 Å, with their standard errors over the sets.

SET is a set that `make bench` takes as well: both its halves are searched with its 50 templates, each a set of its own,
instead of the simulated ones. WORK is the folder for their projects.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))

from pickcal.formats.images import read_stack
from pickcal.picking import refine as refining
from pickcal.picking import search as searching
from pickcal.picking.bank import Bank, bank_from_templates
from pickcal.picking.ctf import Ctf, electron_wavelength
from pickcal.picking.filters import RadialFilter, noise_spectrum, whitening_filter
from pickcal.picking.grid import search_ratio
from pickcal.picking.peaks import local_maxima, thin_out
from pickcal.picking.projection import even_angles, project
from pickcal.picking.screening import extreme_scores
from pickcal.picking.search import SearchParameters, prepare, search
from pickcal.project import Project
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate_micrograph, simulate_particle
from pickcal.stages.search import image_of, load_bank, stored_search, suited
from tests.benchmarks.pickers.pickcal_runs import job, picking
from tests.benchmarks.pickers.sets import Half, given_set
from tests.exhaustive import accuracy, judged

PIXEL, DIAMETER, LOW_PASS, STEP, TEMPLATES, DEEPEST = 5.0, 150.0, 20.0, 5.0, 8, 27_000.0
VOLTAGE = 300.0
PARAMETERS = SearchParameters(DIAMETER, DIAMETER, DIAMETER, LOW_PASS, 450.0, -1.0, 75.0, 4000)

Floats = NDArray[np.floating]
Found = tuple[Floats, Floats]


@dataclass(frozen=True)
class Image:
    """One micrograph, where its particles are (`(n, 2)`, y and x, Å), and how to look at it."""

    pixels: NDArray[np.float32]
    truth: Floats
    ctf: Ctf
    whitening: RadialFilter | None


@dataclass(frozen=True)
class Searched:
    """Micrographs of one set, templates `(n, y, x)` and their pixel size, Å."""

    images: list[Image]
    templates: Floats
    template_pixel: float


def simulated(seed: int, signal: float) -> Searched:
    """Simulate one set."""
    settings = SimulateSettings(
        micrographs=4, pixel_size=PIXEL, height=820, width=820, defocus=(9000, 14000, 20000, DEEPEST),
        particles_min=260, particles_max=260, empty=0, crowded=0, ice_crystals=0, aggregates=0,
        signal=signal, seed=seed,
    )  # fmt: skip
    volume = simulate_particle(settings)
    templates = np.stack([project(volume, angles, 64, 4.0) for angles in even_angles(TEMPLATES)])
    made = [simulate_micrograph(settings, i) for i in range(4)]
    tile = round(2 * DIAMETER / PIXEL)
    white = whitening_filter([noise_spectrum(m.image, PIXEL, LOW_PASS, tile) for m in made], 1 / (tile * PIXEL))
    images = [Image(m.image, m.scene.positions[:, ::-1] * PIXEL, m.scene.ctf, white) for m in made]
    return Searched(images, templates, 4.0)


def imported(half: Half, work: Path) -> Searched:
    """Import one half of a given set, with the whitening and the CTF that `pickcal pick` finds for it."""
    made = job(half, len(half.files), work)
    made.pick(picking(half, "template"), "t")
    project = Project.open(made.folder / "p.zarr")
    found, table = stored_search(project, "t"), project.micrographs().load()
    bank, white = load_bank(found)
    images = []
    for i, truth in enumerate(half.truths):
        row = table.isel(micrograph=i)
        image = image_of(project, i, row)
        images.append(Image(image, truth.particles, suited(image, row, bank, found), white))
    stack, pixel = read_stack(half.templates[50])
    return Searched(images, stack, float(pixel or 1.0))


def every_score(image: Image, bank: Bank) -> Found:
    """Peaks of the best of all entries at all pixels of the bank, thinned at the least distance, not refined."""
    plain = replace(bank, group=None, turned=None)
    maps = prepare(image.pixels, PIXEL, plain, PARAMETERS, image.ctf, image.whitening)
    best = extreme_scores(maps.responses, maps.valid)[0].score
    y, x = local_maxima(best)
    border = 0.5 * DIAMETER / maps.pixel_size
    inside = (np.minimum(y, x) >= border) & (y <= best.shape[0] - 1 - border) & (x <= best.shape[1] - 1 - border)
    y, x = y[inside], x[inside]
    kept = thin_out(y, x, best[y, x], PARAMETERS.min_distance / maps.pixel_size)
    return np.column_stack([y, x])[kept] * maps.pixel_size, best[y, x][kept]


def as_picked(image: Image, bank: Bank) -> Found:
    """What `pickcal pick` finds."""
    picks, _ = search(image.pixels, PIXEL, bank, PARAMETERS, image.ctf, image.whitening)
    return np.column_stack([picks.y, picks.x]).astype(float), picks.ncc.astype(float)


@contextmanager
def no_screening() -> Iterator[None]:
    """Look at every pixel."""
    before = searching.worth_a_look
    searching.worth_a_look = lambda *_: None  # type: ignore[assignment, return-value]
    try:
        yield
    finally:
        searching.worth_a_look = before


@contextmanager
def one_place() -> Iterator[None]:
    """Look for the best entry at the peak of the groups' means alone."""
    before = refining.NEAR, refining.TRIED
    refining.NEAR, refining.TRIED = 0, 1
    try:
        yield
    finally:
        refining.NEAR, refining.TRIED = before


def everywhere(image: Image, bank: Bank) -> Found:
    """What would be found if every pixel were worth a look."""
    with no_screening():
        return as_picked(image, bank)


def there(image: Image, bank: Bank) -> Found:
    """What would be found if the best entry were the best one at the coarse peak."""
    with one_place():
        return as_picked(image, bank)


WAYS: dict[str, tuple[Callable[[Image, Bank], Found], bool]] = {
    "every entry at every pixel of 5 Å": (every_score, True),
    "the same on the search's grid of 9 Å": (every_score, False),
    "screened and refined, grid of 5 Å": (as_picked, True),
    "refined, 9 Å, every pixel looked at": (everywhere, False),
    "screened and refined, 9 Å, the best entry at the coarse peak": (there, False),
    "as it is: the best entries about it, each at its own peak": (as_picked, False),
}


def main() -> None:
    """Print a table for each signal, or for each half of a given set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--signals", type=float, nargs="+", default=[0.8, 0.35])
    parser.add_argument("--set", type=Path, dest="given", help="a set that another program made")
    parser.add_argument("--work", type=Path, help="folder for its projects")
    options = parser.parse_args()
    if options.given is None:
        for signal in options.signals:
            compare(f"Signal {signal:g}", [simulated(seed, signal) for seed in range(11, 11 + options.seeds)])
        return
    if options.work is None:
        parser.error("--set: expected --work as well")
    options.work.mkdir(parents=True, exist_ok=True)
    for kind, half in given_set(options.given, options.work, None).halves.items():
        compare(f"{kind} half", [imported(half, options.work / kind)])


def compare(title: str, sets: list[Searched]) -> None:
    """Search some sets in all ways and print the table."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    spent = dict.fromkeys(WAYS, 0.0)
    ratio = search_ratio(PIXEL, LOW_PASS)
    for one in sets:
        reach = electron_wavelength(VOLTAGE) * max(image.ctf.defocus_u for image in one.images) / LOW_PASS
        of = (DIAMETER, LOW_PASS, STEP, reach)
        fine = bank_from_templates(one.templates, one.template_pixel, PIXEL, *of)
        coarse = bank_from_templates(one.templates, one.template_pixel, PIXEL * ratio[0] / ratio[1], *of, ratio)
        for way, (pick, on_fine) in WAYS.items():
            start = time.process_time()
            picked = [pick(image, fine if on_fine else coarse) for image in one.images]
            spent[way] += time.process_time() - start
            hits = [judged(*p, image.truth, DIAMETER / 4) for p, image in zip(picked, one.images, strict=True)]
            scores, true = (np.concatenate(part) for part in zip(*hits, strict=True))
            found[way].append(accuracy(scores, true, sum(len(image.truth) for image in one.images)))
    show(title, found, spent)


def show(title: str, found: dict[str, list[tuple[float, float]]], spent: dict[str, float]) -> None:
    """Print means and differences from the first way."""
    first = np.array(next(iter(found.values())))
    print(f"\n{title}, {len(first)} sets:\n", flush=True)
    print("| search | F1 | average precision | difference of F1 | of average precision | CPU, relative |")
    print("|---|---|---|---|---|---|")
    usual = spent[list(WAYS)[-1]]
    for way, values in found.items():
        each = np.array(values)
        mean, gap = each.mean(axis=0), each - first
        error = gap.std(axis=0, ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.full(2, np.nan)
        apart = [f"{a:+.4f} ± {b:.4f}" for a, b in zip(gap.mean(axis=0), error, strict=True)]
        print(f"| {way} | {mean[0]:.4f} | {mean[1]:.4f} | {apart[0]} | {apart[1]} | {spent[way] / usual:.1f} |")


if __name__ == "__main__":
    main()
