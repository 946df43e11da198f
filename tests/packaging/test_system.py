"""`make system` installs what tests run beside pickcal, whatever of it can be had, and says what cannot.

The package manager is a stand-in: this machine's is not to be touched.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "relion": "relion_autopick", "chromium": "chromium", "shellcheck": "shellcheck", "slurm-wlm": "sbatch",
    "munge": "munged", "iproute2": "ip", "docker-compose": "docker-compose", "openssl": "openssl",
}  # fmt: skip
INSTALLER = """#!/bin/sh
[ "$1" = install ] || exit 0
for package; do :; done
echo "$package" >>{here}/asked
case " $NONE_OF " in *" $package "*) exit 100;; esac
case "$package" in
{cases}
esac
"""


@pytest.fixture
def machine(tmp_path):
    """A machine without any of the programs: `make system` with a package manager that lacks some packages."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def add(name, text):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    for name in ("sh", "make", "cp"):
        (programs / name).symlink_to(shutil.which(name))
    add("nothing", "#!/bin/sh\n")
    cases = "\n".join(f"{k}) cp {programs}/nothing {programs}/{v};;" for k, v in PROGRAMS.items())
    add("apt-get", INSTALLER.format(here=tmp_path, cases=cases))

    def make(user=0, without=""):
        add("id", f"#!/bin/sh\necho {user}\n")
        (tmp_path / "asked").unlink(missing_ok=True)
        env = {"PATH": str(programs), "NONE_OF": without, "HOME": os.environ.get("HOME", "/")}
        command = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "system"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
        asked = (tmp_path / "asked").read_text().split() if (tmp_path / "asked").exists() else []
        return done.stdout, asked

    return make


def test_all_is_installed_once(machine):
    assert machine() == ("", list(PROGRAMS))
    assert machine() == ("", [])


def test_what_cannot_be_had_keeps_nothing_else_away(machine):
    """And is named; the next time it alone is asked for."""
    said = "missing, could not be installed: relion docker-compose; their tests will be skipped\n"
    assert machine(without="relion docker-compose") == (said, list(PROGRAMS))
    assert machine(without="relion docker-compose") == (said, ["relion", "docker-compose"])


def test_who_is_not_root_is_told_what_is_missing(machine):
    said = f"missing, not root to install them: {' '.join(PROGRAMS)}; their tests will be skipped\n"
    assert machine(user=1000) == (said, [])
