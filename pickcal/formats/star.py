"""STAR files, read and written with `starfile`, behind checks that it does not make.

`starfile` fills truncated rows with NaN, merges an empty block with the next one and turns `0001` into 1; the text is
therefore looked through first, and what `starfile` returns must match what was counted.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import starfile

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.atomic import atomic_path

TEXT_LABEL = re.compile(r"(Name|Image|Coordinates|Metadata|File|Path|Label)$")
NEW_LINE = re.compile(r"\r\n|\r|\n")
TOKEN = re.compile(r"\"[^\"]*\"|'[^']*'|\S+")
UNWRITABLE = re.compile(r"[\"'#\t\r\n]|^data_|^_")


@dataclass
class _Block:
    name: str
    line: int
    kind: Literal["", "values", "loop"] = ""
    labels: list[str] = field(default_factory=list)
    rows: int = 0
    in_labels: bool = False


def read_star(path: Path) -> dict[str, pd.DataFrame]:
    """Read all blocks of a STAR file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict of DataFrame
        By block name without `data_` (it may be empty). Columns are the labels without underscore. Columns of names
        (label ends in Name, Image, Coordinates, Metadata, File, Path or Label) stay text as written, with a missing
        value empty; others are numbers if all their values are. A block of single values is a table of one row.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If the file is empty, binary or not STAR, or a row has too few or too many values; with the line number.

    Notes
    -----
    As everywhere in `starfile`, `nan`, `NaN` and `<NA>` are missing values, also among names, and `#` starts a
    comment anywhere outside quotes.
    """
    blocks = _scan(path, _text(path))
    strings = sorted({label for block in blocks for label in block.labels if TEXT_LABEL.search(label)})
    try:
        found = starfile.read(path.absolute(), always_dict=True, parse_as_string=strings)
    except Exception as error:  # starfile raises whatever its own parsing and pandas raise
        raise InputError(f"{path}: cannot be read as STAR ({type(error).__name__}: {error})") from None
    finally:
        # starfile reads through linecache and, when it fails, leaves the lines there for the next reading
        linecache.clearcache()
    tables = {}
    for block in blocks:
        table = found.get(block.name)
        frame = pd.DataFrame([table]) if isinstance(table, dict) else table
        if frame is None or list(frame.columns) != block.labels or len(frame) != block.rows:
            raise InputError(
                f"{path}: block data_{block.name} at line {block.line}: expected {block.rows} rows of "
                f"{len(block.labels)} values, which could not be read reliably; write the file again"
            )
        text = [label for label in block.labels if label in strings]
        tables[block.name] = frame.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, ""))
    return {name: _plain_text(table, strings) for name, table in tables.items()}


def write_star(path: Path, blocks: Mapping[str, pd.DataFrame]) -> None:
    """Write a STAR file, whole or not at all.

    Parameters
    ----------
    path
        File to write; folders are created, an existing file is replaced.
    blocks
        Tables by block name without `data_` (it may be empty); columns are labels without underscore. Floats are
        written with nine significant digits, NaN as `nan`.

    Raises
    ------
    InputError
        If a text holds quotes, `#`, tabs or line breaks, which a STAR value cannot.
    """
    parts = []
    for name, table in blocks.items():
        _refuse_unwritable(path, name, table)
        text = starfile.to_string({name: table}, float_format="%.9g", na_rep="nan")
        # the first line is starfile's date, which would make every copy differ; RELION looks for its own version
        parts.append("\n# version 30001\n\n" + text.partition("\n")[2].strip("\n") + "\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8", newline="\n")


def _text(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: expected a STAR file, found a folder")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such STAR file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if b"\x00" in data:
        raise InputError(f"{path}: expected a STAR file (text), found a binary file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a STAR file (UTF-8 text), found a byte {error.object[error.start]:#x} at {error.start}"
        ) from None
    if not text.strip():
        raise InputError(f"{path}: expected a STAR file, found an empty file")
    return text


def _scan(path: Path, text: str) -> list[_Block]:
    blocks: list[_Block] = []
    for number, line in enumerate(NEW_LINE.split(text), start=1):
        stripped = line.strip()
        if stripped.startswith("data_"):
            if any(block.name == stripped[5:] for block in blocks):
                raise InputError(f"{path}: line {number}: {stripped} appears a second time; keep one of them")
            blocks.append(_Block(stripped[5:], number))
        elif blocks:
            _scan_line(f"{path}: line {number}", stripped, blocks[-1])
    if not blocks:
        first = text.strip().splitlines()[0][:60]
        raise InputError(f"{path}: expected a STAR file (a line starting with data_), found {first!r}")
    for block in blocks:
        if not block.labels:
            raise InputError(f"{path}: line {block.line}: block data_{block.name} holds no table")
        twice = sorted({label for label in block.labels if block.labels.count(label) > 1})
        if twice:
            raise InputError(f"{path}: block data_{block.name} has the column {', '.join(twice)} more than once")
    return blocks


def _scan_line(where: str, line: str, block: _Block) -> None:
    if block.in_labels and line.startswith("_"):
        block.labels.append(line.split()[0][1:])
        return
    block.in_labels = False
    if not line or line.startswith("#"):
        return
    if block.kind == "" and line.startswith("loop_"):
        block.kind, block.in_labels = "loop", True
    elif block.kind == "loop":
        found = _count(where, line)
        if found != len(block.labels):
            comment = "; '#' starts a comment" if "#" in line else ""
            raise InputError(
                f"{where}: expected {len(block.labels)} values in block data_{block.name}, found {found}{comment}; "
                "the file is truncated or damaged"
            )
        block.rows += 1
    elif line.startswith("_") and _count(where, line) == 2:
        block.kind, block.rows = "values", 1
        block.labels.append(line.split()[0][1:])
    else:
        raise InputError(
            f"{where}: expected loop_ or a label with a value in block data_{block.name}, found {line[:60]!r}"
        )


def _count(where: str, line: str) -> int:
    if '"' not in line and "'" not in line:
        return len(line.partition("#")[0].split())
    count = 0
    for token in TOKEN.findall(line):
        if token.startswith("#"):
            break
        if token[0] not in "\"'" and ('"' in token or "'" in token):
            raise InputError(
                f"{where}: expected no quotes inside a value, found {token[:60]}; rename the file it names"
            )
        count += 1
    return count


def _plain_text(table: pd.DataFrame, strings: list[str]) -> pd.DataFrame:
    for label in table.columns:
        if label in strings:
            table[label] = table[label].map(str).astype("str")
    return table


def _refuse_unwritable(path: Path, name: str, table: pd.DataFrame) -> None:
    for label in table.columns:
        column: pd.Series[Any] = table[label]
        if column.dtype.kind in "biuf":
            continue
        for value in column.unique():
            if isinstance(value, str) and UNWRITABLE.search(value):
                raise InputError(
                    f"{path}: block data_{name}, column {label}: {value!r} cannot stand in a STAR file; "
                    "rename it without quotes, # and line breaks"
                )
