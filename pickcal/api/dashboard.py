"""Inspect Picks beside a notebook: a server in a process of its own, as `pickcal inspect` starts it."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.errors import PickcalError
from pickcal.settings import validated
from pickcal.stores.places import Place

END_SECONDS = 10.0


class Dashboard:
    """A running page.

    Attributes
    ----------
    url
        Its address.
    """

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self._process = process
        atexit.register(self.stop)

    @property
    def running(self) -> bool:
        """Whether the server still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server; again, it does nothing."""
        atexit.unregister(self.stop)
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __repr__(self) -> str:
        """Say where it is."""
        return f"Inspect Picks at {self.url}" if self.running else "Inspect Picks, ended"

    def _repr_html_(self) -> str:
        if not self.running:
            return "Inspect Picks, ended"
        address = escape(self.url, quote=True)
        return f'Inspect Picks at <a href="{address}" target="_blank" rel="noopener">{address}</a>'


def start(project: Place, truth: Path | str | None, settings: dict[str, Any]) -> Dashboard:
    """Start the server and wait until it answers.

    Parameters
    ----------
    project
        Where the project is.
    truth
        STAR file of true particles, or None.
    settings
        Of `ServeSettings`. No browser is opened unless `show` is True.

    Raises
    ------
    InputError
        If a setting is wrong.
    PickcalError
        If the server does not start; its words are in the message.
    """
    chosen = validated(ServeSettings, {"show": False, **settings}, "inspect()")
    command = [sys.executable, "-m", "pickcal", "inspect", str(project), "--json", *flags(chosen)]
    if truth is not None:
        command += ["--truth", str(truth)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            process.stdout.close()
            said.seek(0)
            raise PickcalError(
                said.read().strip().removeprefix("pickcal: ") or f"inspect ended with {process.returncode}"
            )
    return Dashboard(str(json.loads(line)["dashboard"]), process)


def flags(settings: ServeSettings) -> list[str]:
    """Return the flags of the command line that give these settings, without those that are the default."""
    out = []
    for name, field in ServeSettings.model_fields.items():
        value = getattr(settings, name)
        flag = name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            out.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            out += [f"--{flag}", *map(str, value)]
        else:
            out.append(f"--{flag}={value}")
    return out
