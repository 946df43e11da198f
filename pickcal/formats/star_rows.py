"""Rows of large STAR tables, read and written some at a time.

`formats.star` reads whole files strictly and through `starfile`, at about 5 µs and 100 bytes a value. Tables of
picks have millions of rows: here `pandas` reads their rows straight from the file, in chunks. Whatever is not plain
(quotes, missing or surplus values) goes the strict way, which reads it or says what is wrong with it.
"""

from __future__ import annotations

import io
import mmap
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.delimited_write import joined_rows
from pickcal.formats.foreign import ROWS, Column, categorical
from pickcal.formats.star import TEXT_LABEL, UNWRITABLE, read_star

BLOCK = re.compile(rb"^[ \t]*data_(\S*)", re.MULTILINE)
LABEL = re.compile(rb"[ \t]*_(\S+)[^\r\n]*\r?\n?")
SKIP = re.compile(rb"(?:[ \t]*(?:#[^\r\n]*)?\r?\n)*")
LOOP = re.compile(rb"[ \t]*loop_[^\r\n]*\r?\n")
PADDED = re.compile(r"-?0\d+")
SAMPLE = 16_384
"""Bytes at the beginning of the rows that tell how they are to be read."""
SMALL = 1_000_000
"""Bytes up to which a table of numbers is read without pandas."""
MISSING = ("nan", "NaN", "-nan", "<NA>")


@dataclass(frozen=True)
class Loop:
    """A table of a STAR file.

    Attributes
    ----------
    path, name
        File, and block without `data_`.
    labels
        Labels without underscore.
    start, stop
        Where its rows are, bytes.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    start: int
    stop: int

    @property
    def where(self) -> str:
        """File and block, for messages."""
        return f"{self.path}: block data_{self.name}"

    def rows(self, count: int = ROWS) -> Iterator[dict[str, Column]]:
        """Read the rows, at most `count` at a time.

        Yields
        ------
        dict
            By label, in the file's order: int64 or float64 (NaN where missing), or text as categories. Labels that
            name files, and numbers written with leading zeros, are text. A table without rows yields once.

        Raises
        ------
        InputError
            If a row has too few or too many values, or numbers turn into text after `count` rows.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            body = _Slice(file, self.stop - self.start)
            sample = body.peek(SAMPLE)
            if b'"' in sample or b"'" in sample or self.stop - self.start < 1:
                yield self._strictly()
                return
            text = [label for label in self.labels if TEXT_LABEL.search(label)] + self._padded(sample)
            if not text and self.stop - self.start < SMALL:
                numbers = _numbers(body.peek(SMALL), self.labels)
                if numbers is not None and len(numbers[self.labels[0]]) <= count:
                    yield numbers
                    return
            given: list[dict[str, Column]] = []
            try:
                for frame in self._frames(body, text, count):
                    columns = {label: _column(frame[label]) for label in self.labels}
                    if given:
                        _same_kinds(self.where, given[0], columns)
                    else:
                        given.append({label: values[:0] for label, values in columns.items()})
                    yield columns
            except (ValueError, pd.errors.ParserWarning, UnicodeDecodeError, OverflowError) as error:
                if isinstance(error, InputError):
                    raise
                if given:  # rows were handed out: only the strict reader's words are wanted
                    self._strictly()
                    raise InputError(f"{self.where}: cannot be read ({error})") from None
                yield self._strictly()

    def _frames(self, body: _Slice, text: list[str], count: int) -> Iterator[pd.DataFrame]:
        """Read plain rows with pandas; whatever it raises, and ValueError, say that they are not plain."""
        reader = pd.read_csv(
            io.BufferedReader(body, 2**20),
            sep=r"\s+",
            header=None,
            names=[*self.labels, ""],
            index_col=False,
            dtype=dict.fromkeys(text, "str"),
            comment="#",
            chunksize=count,
            keep_default_na=False,
            na_values=[*MISSING, ""],
            low_memory=False,
            encoding="utf-8",
        )
        even = False  # whether all rows are known to have the same number of values
        with reader:
            while (frame := _next(reader)) is not None:
                even = even or (bool(frame[self.labels[-1]].isna().any()) and self._even())
                if _doubtful(frame, self.labels, text, even):
                    raise ValueError("not plain")
                yield frame

    def _even(self) -> bool:
        """Whether every row has as many values as there are labels: then a missing last one was written as `nan`."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            for line in io.BufferedReader(_Slice(file, self.stop - self.start), 2**20):
                values = line.partition(b"#")[0].split()
                if values and len(values) != len(self.labels):
                    return False
        return True

    def _padded(self, sample: bytes) -> list[str]:
        rows = [line.split() for line in sample.decode("utf-8", "replace").splitlines()[:200]]
        found = {i for row in rows for i, value in enumerate(row) if PADDED.fullmatch(value)}
        return [label for i, label in enumerate(self.labels) if i in found]

    def _strictly(self) -> dict[str, Column]:
        table = read_star(self.path).get(self.name)
        if table is None or not set(self.labels) <= set(table.columns):
            raise InputError(f"{self.where}: expected labels of plain letters, found {self.labels}")
        return {label: _column(table[label]) for label in self.labels}


def star_loops(path: Path) -> list[Loop]:
    """Find the tables of a STAR file without reading their rows.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of Loop
        In the file's order; blocks of single values are left out.

    Raises
    ------
    MissingFileError, InputError
        If there is no such file, or it is not STAR.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a STAR file, found a folder")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such STAR file")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            loops = _loops(path, data)
    except (OSError, ValueError):  # empty, or not a plain file: the strict reader says what it is
        loops = []
    if not loops:
        read_star(path)
        raise InputError(f"{path}: expected a STAR file with a table (loop_), found single values only")
    return loops


def plain_loops(path: Path) -> dict[str, Loop]:
    """Find the tables of a STAR file that holds nothing but tables, by their names.

    Raises
    ------
    MissingFileError, InputError
        As `star_loops`, and if blocks of single values are among them.
    """
    loops = star_loops(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        blocks = sum(1 for _ in BLOCK.finditer(data))
    if blocks > len(loops):
        raise InputError(f"{path}: expected tables (loop_) alone, found {blocks - len(loops)} blocks of single values")
    return {each.name: each for each in loops}


def frame_of(rows: dict[str, Column]) -> pd.DataFrame:
    """Rows as `formats.star.read_star` gives them."""
    texts = {label: values.astype("str") for label, values in rows.items() if isinstance(values, pd.Categorical)}
    return pd.DataFrame({**rows, **texts})


def star_lines(where: str, columns: Mapping[str, Column]) -> bytes:
    """Rows of a STAR table, each ending in a line feed.

    Parameters
    ----------
    where
        File, for the message.
    columns
        By label. Floats get the fewest digits that read back to the same value; text with spaces and empty text gets
        quotes.

    Raises
    ------
    InputError
        If a text holds quotes, `#`, tabs or line breaks, which a STAR value cannot.
    """
    return joined_rows([_values(where, label, column) for label, column in columns.items()], " ")


def star_head(name: str, labels: Iterable[str]) -> bytes:
    """Head of a STAR table: block, loop and labels."""
    numbered = "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, start=1))
    return f"\n# version 30001\n\ndata_{name}\n\nloop_\n{numbered}".encode()


def _values(where: str, label: str, column: Column) -> Any:
    if not isinstance(column, pd.Categorical):
        if column.dtype.kind in "iuf":
            return pa.array(column).cast(pa.string())
        column = categorical(column)
    words = []
    for word in map(str, column.categories):
        if UNWRITABLE.search(word):
            raise InputError(
                f"{where}: column {label}: {word!r} cannot stand in a STAR file; rename it without quotes, # and line "
                "breaks"
            )
        words.append(f'"{word}"' if not word or any(letter.isspace() for letter in word) else word)
    codes = np.where(column.codes < 0, len(words), column.codes)
    return pa.array([*words, '""'], pa.string()).take(pa.array(codes))


def _loops(path: Path, data: mmap.mmap) -> list[Loop]:
    if data.find(b"\x00", 0, SAMPLE) >= 0:
        return []
    starts = list(BLOCK.finditer(data))
    loops = []
    for match, end in zip(starts, [*(m.start() for m in starts[1:]), len(data)], strict=True):
        name = match[1].decode("utf-8", "replace")
        line = data.find(b"\n", match.end())
        at = end if line < 0 else min(line + 1, end)
        at = _after(SKIP, data, at, end)
        found = LOOP.match(data, at, end)
        if found is None:
            continue
        at = _after(SKIP, data, found.end(), end)
        labels = []
        while (label := LABEL.match(data, at, end)) is not None:
            labels.append(label[1].decode("utf-8", "replace"))
            at = label.end()
        if len(set(labels)) < len(labels) or not labels:
            read_star(path)  # says which label is there twice, or that there is none
        loops.append(Loop(path, name, tuple(labels), at, end))
    names = [loop.name for loop in loops]
    if len(set(names)) < len(names):
        read_star(path)
    return loops


def _after(pattern: re.Pattern[bytes], data: mmap.mmap, at: int, end: int) -> int:
    found = pattern.match(data, at, end)
    return at if found is None else found.end()


def _numbers(body: bytes, labels: tuple[str, ...]) -> dict[str, Column] | None:
    """Numbers of a small table, for which pandas needs ten times as long; None if it is not plain.

    RELION writes a file per micrograph, and there are tens of thousands.
    """
    rows = [row for row in (line.split() for line in body.splitlines()) if row]
    if not rows or any(len(row) != len(labels) for row in rows) or b"_" in body:
        return None
    out: dict[str, Column] = {}
    try:
        for label, column in zip(labels, zip(*rows, strict=True), strict=True):
            whole = b"".join(column).replace(b"-", b"").isdigit()
            out[label] = np.array([int(value) if whole else float(value) for value in column])
    except (ValueError, OverflowError):
        return None
    return out if all(values.dtype.kind in "if" for values in out.values()) else None


def _next(reader: Any) -> pd.DataFrame | None:
    """Next rows, or None at the end; a surplus value is an error, of which pandas only warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        found: pd.DataFrame | None = next(reader, None)
    return found


def _doubtful(frame: pd.DataFrame, labels: tuple[str, ...], text: list[str], even: bool) -> bool:
    """Whether a row may have had too few or too many values: then the last column is missing, or one more is not."""
    return bool(
        frame[""].notna().any()
        or (frame[labels[-1]].isna().any() and not even)
        or any(label not in text and frame[label].dtype.kind not in "iufb" and _mixed(frame[label]) for label in labels)
    )


def _mixed(column: pd.Series) -> bool:
    kinds = set(column.map(type))
    return kinds != {str} or bool(column.str.contains("[\"']", regex=True).any())


def _column(values: pd.Series) -> Column:
    if values.dtype.kind in "iuf":
        return np.asarray(values)
    if isinstance(values.dtype, pd.StringDtype):
        codes, known = pd.factorize(values.fillna(""))
        return pd.Categorical.from_codes(codes, categories=pd.Index(known, dtype="str"))
    if values.dtype.kind == "b":
        return categorical(values.map(str).to_numpy())
    return categorical(values.fillna("").map(str).to_numpy(dtype=object))


def _same_kinds(where: str, first: dict[str, Column], later: dict[str, Column]) -> None:
    for label, values in later.items():
        if isinstance(values, pd.Categorical) and not isinstance(first[label], pd.Categorical):
            raise InputError(
                f"{where}: column {label}: expected numbers as in its first {ROWS} rows, found "
                f"{values.categories[0]!r} further on"
            )
        if isinstance(first[label], pd.Categorical) and not isinstance(values, pd.Categorical):
            later[label] = categorical(np.asarray(values).astype(str).astype(object))


class _Slice(io.RawIOBase):
    """A part of an open file as a file of its own."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        super().__init__()
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        at = self._file.tell()
        found = self._file.read(min(size, self._left))
        self._file.seek(at)
        return found

    def readinto(self, buffer: Any) -> int:
        found = self._file.read(min(len(buffer), self._left))
        buffer[: len(found)] = found
        self._left -= len(found)
        return len(found)
