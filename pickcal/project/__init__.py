"""The project: one Zarr format 3 store that xarray opens as a DataTree.

Layout in `pickcal.schema`. A project is made of layers, one module each: `groups` (what is where), `reading`,
`writing` (batches of tasks), `results` (small groups that appear whole), and opening here; `creating` makes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import zarr
from numpy.typing import NDArray

from pickcal.errors import MissingFileError, PickcalError, ProjectError
from pickcal.project.backing import zarr_store
from pickcal.project.checks import check_name, differing, mended, stage_counts
from pickcal.project.creating import new_project
from pickcal.project.groups import KINDS, Kind
from pickcal.project.results import Block, Results
from pickcal.schema import FORMAT_VERSION
from pickcal.stores.homes import UNLISTED, home_of
from pickcal.stores.places import Url

__all__ = ["KINDS", "UNLISTED", "Block", "Kind", "Project", "check_name", "differing", "mended", "stage_counts"]


class Project(Results):
    """One open project.

    Use `Project.create` or `Project.open`. Reading gives xarray objects that load lazily; writing goes through
    `write_batch` for tasks and `write_whole` for small results.
    """

    @classmethod
    def create(
        cls,
        path: Path | Url | str,
        sizes: Mapping[str, int],
        batch: int,
        columns: Mapping[str, NDArray[Any]],
        settings: Mapping[str, Any],
        growing: bool = False,
    ) -> Project:
        """Create a project with its table of micrographs, all or nothing; `creating.new_project` takes it in parts.

        Parameters
        ----------
        path
            Folder or URL; nothing may be there.
        sizes
            Lengths of the dimensions `micrograph`, `y`, `x`.
        batch
            Micrographs per task.
        columns
            Static columns of `schema.MICROGRAPHS`, and `status` and `error`.
        settings
            Settings of the import, kept for later comparison.
        growing
            More micrographs will be appended; default False.

        Raises
        ------
        ProjectError
            If something is at `path` already, or the store cannot be written.
        """
        with new_project(path, sizes["micrograph"], batch, growing) as made:
            made.write(0, sizes["micrograph"], columns)
            made.finish((sizes["y"], sizes["x"]), settings)
        return cls.open(path, mode="r+")

    @classmethod
    def open(cls, path: Path | Url | str, mode: Literal["r", "r+"] = "r", whole: bool = False) -> Project:
        """Open a project.

        Parameters
        ----------
        path
            Folder, or URL of an object store (`s3://bucket/p.zarr`).
        mode
            "r" (default) for reading, "r+" for writing too.
        whole
            See micrographs as well that have arrived and are still in work; default False: only those of finished
            rounds of `pickcal watch`.

        Raises
        ------
        MissingFileError, ProjectError
            If there is nothing at `path`, it is no pickcal project, or another version of the format wrote it.
        """
        home = home_of(path)
        where = home.place
        if isinstance(where, Path) and not where.exists():
            raise MissingFileError(f"{where}: no such project; make one with 'pickcal import'")
        try:
            with home.plainly():
                root = zarr.open_group(zarr_store(home.backing(), mode == "r"), mode=mode, zarr_format=3)
            version = root.attrs.get("format_version")
        except PickcalError:  # which says more, of the store's credentials for one
            raise
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ProjectError(
                f"{where}: expected a pickcal project, found a zarr.json that is damaged ({error}); put that of a copy "
                "in its place"
            ) from None
        except (FileNotFoundError, FileExistsError, NotADirectoryError, ValueError) as error:
            if isinstance(where, Url) and isinstance(error, FileNotFoundError):
                raise MissingFileError(f"{where}: no such project; make one with 'pickcal import'") from None
            raise ProjectError(f"{where}: expected a pickcal project, found something else ({error})") from None
        if version is None:
            raise ProjectError(f"{where}: expected a pickcal project, found a Zarr group without format_version")
        if version != FORMAT_VERSION:
            raise ProjectError(
                f"{where}: expected project format {FORMAT_VERSION}, found {version!r} written by pickcal "
                f"{root.attrs.get('pickcal_version', '?')}; use that version of pickcal, or import again"
            )
        return cls(home, root, whole)
