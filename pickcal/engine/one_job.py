"""One job at a time on a stage of a project: its lease is a small object beside the project."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from pickcal.stores import lease
from pickcal.stores.lease import Lease
from pickcal.stores.places import Place
from pickcal.stores.small_objects import beside

LEASE_SECONDS = 60.0
"""Seconds after which the lease of a job that does not renew it is over."""


def only_job(project: Place | str, group: str, wait: float = 0.0) -> AbstractContextManager[Lease]:
    """Be the only job that works on a group of a project until the block ends; may be nested in one thread.

    Parameters
    ----------
    project
        Folder of the project or its address; need not exist.
    group
        Group that the stage writes: "micrographs", "picks/NAME", "calibration/NAME".
    wait
        Seconds to wait for another job; default: none.

    Raises
    ------
    ProjectError
        If another job works on it, and does so for as long as one waits: at once if that can be known, else after
        `LEASE_SECONDS` at the latest.
    """
    return lease.held(beside(project), _name(group), f"{project}: {group}", LEASE_SECONDS, wait)


def job_at_work(project: Place | str, group: str) -> dict[str, Any] | None:
    """Who works on a group now, as far as its lease tells, as of `stores.lease.living_holder`; None if nobody."""
    return lease.living_holder(beside(project), _name(group), LEASE_SECONDS)


def _name(group: str) -> str:
    return group.replace("/", ".") + ".lease"
