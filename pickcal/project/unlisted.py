"""The place for files within a project that neither Zarr nor xarray lists, such as drafts."""

from __future__ import annotations

import shutil
from pathlib import PurePosixPath

import zarr

from pickcal.project.backing import zarr_store
from pickcal.stores.homes import UNLISTED, Home
from pickcal.stores.places import Url


def new_group(home: Home, name: str) -> zarr.Group:
    """Make a group without the root above it: the root is written last."""
    return zarr.create_group(zarr_store(home.backing(name)), zarr_format=3)


def make_unlisted(home: Home) -> None:
    """Make the array in whose folder nothing is listed, with its group."""
    group, array = PurePosixPath(UNLISTED).parts
    if isinstance(home.place, Url):
        new_group(home, group).create_array(array, shape=(), dtype="i1", dimension_names=())
        return
    # elsewhere out of sight, and renamed: zarr warns of what is half made
    made = home.place / "micrographs" / "status" / f".{group}"
    shutil.rmtree(made, ignore_errors=True)
    zarr.open_group(made, mode="w", zarr_format=3).create_array(array, shape=(), dtype="i1", dimension_names=())
    made.rename(home.place / group)
