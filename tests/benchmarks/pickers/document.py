"""docs/benchmarks.md from saved results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from . import tables

Results = Mapping[str, Any]

WIDTH = 118

HEAD = """# Benchmarks: cost and accuracy of picking

`make bench` measures in minutes what does not take long, `make bench BENCH=--full` all of it, on micrographs that it
simulates first; `BENCH="--set FOLDER"` takes others, as the set of `make_set.py` below, which is not part of
pickcal. RELION is installed where that is allowed (`make system`), Topaz
is compared where it is on the PATH. This page is written from the saved results:
`python -m tests.benchmarks.pickers --saved bench/*.json --docs docs/benchmarks.md`.

CPU seconds are user and system time of a process and of all processes it starts, one thread each, a micrograph:
the difference between a job of {few} micrographs and one of {many}, so that start-up is told apart (pickcal's is the
median of three in a full run; RELION's templates tell it themselves, by when they start to pick). Sources are in the
page cache for all. The floor is one read of a 4096 x 4096 float32 file and one real Fourier transform of it. Memory is
that of the largest process.

Accuracy is of one threshold for all four micrographs of a half, the best one; picks match particles one to one within a
quarter of the diameter. "Hard" is the same at a fifth of the signal's power. Ice: blobs with an accepted pick that is
no particle within half a diameter of their centre. Å: median distance of true picks from their particle.
RELION runs with `--ctf --ang 5 --shrink 0 --lowpass 20 --min_distance 100`, references in the grey scale of the set's
own contrast; Topaz with its pretrained network after its own `preprocess`. pickcal has three scores: raw and calibrated
NCC and the probability of being a particle; `select --auto` takes no threshold from the truth.
"""


def document(several: Sequence[Results]) -> str:
    """Write the page from the results of one or more sets."""
    first = several[0]
    counts = first["counts"]
    parts = [HEAD.format(few=counts[0], many=counts[1])]
    for results in several:
        parts.append(section(results))
    return "\n".join(parts)


def section(results: Results) -> str:
    """Tables of one set."""
    description = results["set"]["description"]
    title = {"own": "pickcal's own simulation", "given": "The set of make_set.py"}[results["set"]["name"]]
    parts = [f"## {title}", f"{description[0].upper()}{description[1:]}.", machine(results)]
    parts.append(tables.goals_table(results))
    if results["costs"]:
        parts += ["Cost of a micrograph." + _floor(results) + _warm_up(results), tables.cost_table(results)]
    if results["accuracy"]:
        parts += ["Accuracy.", tables.accuracy_table(results)]
    if "memory" in results:
        told = ", ".join(f"{mb:.0f} MB at {side} x {side}" for side, mb in results["memory"].items())
        parts.append(f"Largest memory of a process while one worker imports and picks: {told}.")
    if "workers" in results:
        found = results["workers"]
        gains = ", ".join(f"{gain:.2f}" for gain in found["gains"])
        parts += [
            f"Import and picking with 50 templates on one worker and on two, in turn, {len(found['gains'])} times: two "
            f"workers did {gains} times the work of one. Two processes that only read and transform did "
            f"{found['attainable']:.2f} times the work of one meanwhile. Medians; after start-up is from a stage's "
            "first batch to the end of its last, by its events; workers are at work while they have a batch.",
            tables.workers_table(results),
        ]
    if "numbers" in results:
        parts.append(
            "From few to many small micrographs (384 x 384 at 5 Å, 10 templates, two workers): seconds of each whole "
            "command, and CPU milliseconds a micrograph."
        )
        parts.append(tables.numbers_table(results))
    if results["skipped"]:
        parts.append("Not measured: " + "; ".join(f"{step}: {why}" for step, why in results["skipped"].items()) + ".")
    return "\n\n".join(part if "\n" in part else fill(part, WIDTH) for part in parts) + "\n"


def machine(results: Results) -> str:
    """When and on what it was measured."""
    found = results["machine"]
    others = [f"{name} {found[key]}" for key, name in (("relion", "RELION"), ("topaz", "Topaz")) if found[key]]
    packages = [f"{name} {version}" for name, version in found["packages"].items()]
    return (
        f"Measured on {results['date']}: {found['processor']}, {found['cores']} cores, {found['memory']} GB, "
        f"{found['system']}, Python {found['python']}, {', '.join([*packages, *others])}."
    )


def _floor(results: Results) -> str:
    if "floor" not in results:
        return ""
    found = results["floor"]
    return (
        f" Floor: {found['floor']:.3f} CPU s (read {found['read']:.3f}, transform by {found['library']} "
        f"{found['fft']:.3f})."
    )


def _warm_up(results: Results) -> str:
    """Say what compiling cost, where it was seen."""
    found = results.get("warm_up")
    if found is None or found["first"] < found["second"] + 2.0:
        return ""
    return f" The first run of all compiles kernels and keeps them: {found['first'] - found['second']:.0f} CPU s, once."
