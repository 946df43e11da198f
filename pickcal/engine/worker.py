"""Loaded by the workers of this machine, of queues and of deploy/ when they start (a Dask preload module)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the driver: a terminal sends it to workers too, which would die with a traceback.

    Parameters
    ----------
    worker
        The Dask worker; not used.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
