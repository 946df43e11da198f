"""Installs the wheel of dist/ into a fresh environment of every supported Python, outside the checkout, and runs a job.

    python tools/try_wheel.py [VERSION ...]

Versions are those of the classifiers in pyproject.toml, looked for on the PATH and among pyenv's; what is not on this
machine is named and left out, unless it was asked for by name. Needs the standard library only. With CONSTRAINTS=
in the environment the newest versions are installed, instead of those of constraints.txt.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST_F1 = 0.8


def supported() -> list[str]:
    """Versions of Python that pyproject.toml names."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    return [found[1] for text in classifiers if (found := re.fullmatch(r"Programming Language .* (3\.\d+)", text))]


def interpreter(version: str) -> str | None:
    """Path of a Python of this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [f"python{version}", sys.executable, *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))]
    for place in places:
        if shutil.which(place) is None:
            continue
        # a shim of pyenv is on the PATH also where no such Python is chosen, and fails
        done = subprocess.run(
            [place, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if done.stdout.strip() == version:
            return place
    return None


def check_contents(wheel: Path) -> None:
    """Refuse a wheel that lacks a file of the package, or brings another package along."""
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pickcal").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if inside != wanted:
        sys.exit(f"{wheel.name}: lacks {sorted(wanted - inside)}, has besides {sorted(inside - wanted)}")
    print(f"{wheel.name}: {len(inside)} files, all of pickcal/ and nothing else")


def try_it(wheel: Path, python: str, version: str) -> None:
    """Install and run the smoke job."""
    constraints = os.environ.get("CONSTRAINTS", str(ROOT / "constraints.txt"))
    with tempfile.TemporaryDirectory(prefix="pickcal-wheel-") as folder:
        work = Path(folder)
        # what runs must be the wheel: neither this folder nor what else is on the path of whoever calls
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

        def run(*command: str) -> str:
            return subprocess.run(
                command, cwd=work, env=environment, check=True, stdout=subprocess.PIPE, text=True
            ).stdout

        run(python, "-m", "venv", "venv")
        there = str(work / "venv" / "bin" / "python")
        limits = ("--constraint", constraints) if constraints else ()
        run(there, "-m", "pip", "install", "--quiet", *limits, str(wheel))
        where = Path(run(there, "-c", "import pickcal; print(pickcal.__file__)").strip())
        if not where.is_relative_to(work):
            sys.exit(f"expected the pickcal of the wheel, found {where}")
        shutil.copy(ROOT / "jobs" / "smoke.toml", work)
        out = json.loads(run(str(work / "venv/bin/pickcal"), "run", "smoke.toml", "--json").splitlines()[-1])
        if out["pick"]["done"] != 4 or out["evaluate"]["f1"] <= LEAST_F1:
            sys.exit(f"Python {version}: expected 4 micrographs and F1 above {LEAST_F1}, found {out}")
        print(f"Python {version}: the wheel ran jobs/smoke.toml, F1 {out['evaluate']['f1']:.3f}", flush=True)


def main() -> None:
    """Find the wheel and the Pythons."""
    wheels = sorted((ROOT / "dist").glob("pickcal-*.whl"))
    if len(wheels) != 1:
        sys.exit(f"expected one wheel in dist/, found {len(wheels)}; make wheel")
    check_contents(wheels[0])
    asked = sys.argv[1:]
    found = {version: interpreter(version) for version in asked or supported()}
    for version, python in found.items():
        if python is not None:
            try_it(wheels[0], python, version)
        elif asked:
            sys.exit(f"Python {version} is not on this machine")
        else:
            print(f"Python {version}: not on this machine, not tried")
    if not any(found.values()):
        sys.exit(f"none of Python {', '.join(found)} is on this machine")


if __name__ == "__main__":
    main()
