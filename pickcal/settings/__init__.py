"""Settings of every stage: one definition each for command-line flag, job-file key and Python argument.

A wrong value is refused before any work.
Lengths are Å, angles degrees, voltage kV, Cs mm, unless a name says otherwise.
"""

from pickcal.settings.base import NAME_PATTERN, Name, PixelCount, Settings
from pickcal.settings.calibration import CalibrateSettings, Covariate
from pickcal.settings.checking import read_toml, validated
from pickcal.settings.cluster import ClusterSettings, cluster_kinds
from pickcal.settings.evaluation import ControlSettings, EvaluateSettings
from pickcal.settings.exporting import ExportSettings
from pickcal.settings.importing import ImportPicksSettings, ImportSettings
from pickcal.settings.picking import BlobSettings, FilterSettings, PickSettings, SearchSettings, TemplateSettings
from pickcal.settings.scoring import ScoreSettings
from pickcal.settings.selection import HandPick, SelectSettings
from pickcal.settings.simulation import SimulateSettings
from pickcal.settings.watching import WatchPickSettings, WatchSettings

__all__ = [
    "NAME_PATTERN",
    "BlobSettings",
    "CalibrateSettings",
    "ClusterSettings",
    "ControlSettings",
    "Covariate",
    "EvaluateSettings",
    "ExportSettings",
    "FilterSettings",
    "HandPick",
    "ImportPicksSettings",
    "ImportSettings",
    "Name",
    "PickSettings",
    "PixelCount",
    "ScoreSettings",
    "SearchSettings",
    "SelectSettings",
    "Settings",
    "SimulateSettings",
    "TemplateSettings",
    "WatchPickSettings",
    "WatchSettings",
    "cluster_kinds",
    "read_toml",
    "validated",
]
