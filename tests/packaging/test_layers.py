"""Imports run one way: what each part of the package may know is listed here, and nothing else is found in the code."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pickcal"

ON_TOP = {"api", "cli", "dashboard", "report"}
FORBIDDEN = {
    "picking": {*ON_TOP, "calibration", "engine", "formats", "plots", "project", "stages", "stores"},
    "calibration": {*ON_TOP, "engine", "formats", "picking", "plots", "project", "stages", "stores"},
    "formats": {*ON_TOP, "calibration", "engine", "picking", "plots", "project", "stages", "stores"},
    "stores": {*ON_TOP, "calibration", "engine", "picking", "plots", "project", "stages"},
    "engine": {*ON_TOP, "calibration", "formats", "picking", "plots", "project", "stages"},
    "project": {*ON_TOP, "calibration", "engine", "picking", "plots", "stages"},
    "simulation": {*ON_TOP, "plots", "project", "stages"},
    "stages": {*ON_TOP, "plots", "job_file", "job_run"},
    "plots": ON_TOP,
    "dashboard": {"api", "cli", "report"},
}
"""Parts of pickcal that a part must not import."""

HOMES = {
    "zarr": {"project"},
    "dask": {"engine"},
    "distributed": {"engine"},
    "panel": {"dashboard"},
    "bokeh": {"dashboard"},
    "tornado": {"dashboard"},
    "matplotlib": {"plots", "dashboard"},
    "obstore": {"stores"},
    "numba": {"picking", "pixel_loops"},
}
"""Parts of pickcal that may import a package."""


def imported(path):
    """Modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module
            if node.module == "pickcal":
                yield from (f"pickcal.{name.name}" for name in node.names)


@pytest.mark.parametrize("part", sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}))
def test_imports_run_one_way(part):
    place = PACKAGE / part
    part = place.stem
    for path in place.rglob("*.py") if place.is_dir() else [place]:
        for module in imported(path):
            names = module.split(".")
            if names[0] == "pickcal" and len(names) > 1:
                assert names[1] not in FORBIDDEN.get(part, ()), f"{path}: {part} must not import {module}"
            else:
                assert part in HOMES.get(names[0], {part}), f"{path}: only {HOMES[names[0]]} import {module}"
