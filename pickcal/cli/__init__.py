"""The command line: one command per stage. No logic: commands read settings, call a stage and show its result."""

from pickcal.cli import completion, deciding, jobs, picking, results, taking_in
from pickcal.cli.app import app
from pickcal.cli.entry import main

__all__ = ["app", "completion", "deciding", "jobs", "main", "picking", "results", "taking_in"]
