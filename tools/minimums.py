"""Prints the lowest versions that pyproject.toml allows, one `name==version` a line: constraints for pip.

    python tools/minimums.py > constraints

Of what pickcal itself names; what those packages bring is left to pip. A bound that is no release, or that another
package of the list rules out, makes pip fail: it was never true. Needs the standard library only.
"""

import re
import tomllib
from pathlib import Path

EXTRAS = ("test",)
LOWER_BOUND = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z0-9,]+\])?>=([0-9.]+)")


def minimums(pyproject: Path) -> dict[str, str]:
    """Lowest version by package.

    Raises
    ------
    ValueError
        If a dependency has no lower bound, or more than that.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *(item for extra in EXTRAS for item in project["optional-dependencies"][extra])]
    out = {}
    for item in named:
        found = LOWER_BOUND.fullmatch(item)
        if found is None:
            raise ValueError(f"{pyproject}: expected a lower bound as in 'numpy>=2.0', got {item!r}")
        out[found[1]] = found[2]
    return out


if __name__ == "__main__":
    for name, version in minimums(Path(__file__).resolve().parents[1] / "pyproject.toml").items():
        print(f"{name}=={version}")
