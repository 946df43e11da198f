"""Damaged files, given to every reader: README.md beside this file says what is asserted and how to run more."""

import importlib
import io
import math
import os
import pickle
import time
import warnings

import numpy as np
import pytest
from harness import Hung, run, watched
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from mutations import build
from readers import READERS, Reader

from pickcal.errors import InputError, PickcalError

DEFAULT = 2000
INPUTS = int(os.environ.get("PICKCAL_FUZZ_INPUTS", DEFAULT))
NIGHTLY = INPUTS != DEFAULT
# inputs of one example: hypothesis takes about as long for one as a quick reader does for its file
EACH = 4
INTEGERS = st.integers(0, 2**32 - 1)

every_reader = pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))


@every_reader
# each input has its own alarm, which would stop that of pytest-timeout
@pytest.mark.timeout(0)
def test_damaged_files(reader, tmp_path):
    path = tmp_path / f"input{reader.suffix}"
    seeds = reader.seeds()

    # the suite tries the same inputs every time: what turns red is due to a change; the nightly run tries new ones
    @settings(
        max_examples=math.ceil(INPUTS * (1 if NIGHTLY else reader.share) / EACH),
        derandomize=not NIGHTLY,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(INTEGERS, st.lists(INTEGERS, min_size=EACH, max_size=EACH))
    def end_well(index, codes):
        for data in build(seeds, reader.odd, index, codes):
            try:
                run(reader, path, data)
            except BaseException:
                note(f"{reader.name}, {len(data)} bytes, kept in {path}: {data[:300]!r}")
                raise

    with watched():
        end_well()


@every_reader
def test_seeds_are_read_and_nothing_is_remembered(reader, tmp_path):
    path = tmp_path / f"input{reader.suffix}"
    with watched():
        for seed in reader.seeds():
            assert run(reader, path, seed) == "", "a valid file was refused"
            assert run(reader, path, b"\x00\x01junk\xff") != "", "junk was read as the file before it"
            assert run(reader, path, seed) == ""


@every_reader
def test_missing_files_and_folders(reader, tmp_path):
    for path in (tmp_path / f"none{reader.suffix}", tmp_path):
        with watched(), pytest.raises(PickcalError) as caught:
            reader.read(importlib.import_module(f"pickcal.formats.{reader.module}"), path)
        assert str(path) in str(caught.value)


@every_reader
def test_pickles_are_refused(reader, tmp_path):
    evil = io.BytesIO()
    np.save(evil, np.array([(Evil(),)], dtype=[("uid", "O")]), allow_pickle=True)
    path = tmp_path / f"input{reader.suffix}"
    for data in (evil.getvalue(), pickle.dumps(Evil()), pickle.dumps({"x": 1}, 0)):
        with watched():
            assert run(reader, path, data) != ""


def fake(read):
    return Reader("fake", "foreign", ".txt", list, lambda module, path: read(path))


class Evil:
    def __reduce__(self):
        return os.getpid, ()


def numpy_pickle(path):
    file = io.BytesIO()
    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    return np.load(io.BytesIO(file.getvalue()), allow_pickle=True)


def swallow(read):
    def reader(path):
        try:
            return read(path)
        except Exception:
            raise InputError(f"{path}: bad") from None

    return reader


def sleep(path):
    time.sleep(60)


def spin(path):
    while True:
        pass


def unnamed(path):
    raise InputError("this file is bad")


def endless(path):
    raise InputError(f"{path}: {'x' * 20_000}")


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda path: 1 / 0, ZeroDivisionError),
        (lambda path: warnings.warn("careful", UserWarning, stacklevel=1), UserWarning),
        (unnamed, AssertionError),
        (endless, AssertionError),
        (swallow(lambda path: pickle.loads(pickle.dumps(1))), AssertionError),
        (swallow(lambda path: pickle.Unpickler(io.BytesIO(pickle.dumps(Evil()))).load()), AssertionError),
        (swallow(numpy_pickle), AssertionError),
        (swallow(lambda path: os.system("true")), AssertionError),
        (lambda path: np.ones(1 << 40), MemoryError),
    ],
)
def test_the_harness_sees_every_fault(read, expected, tmp_path):
    with watched(), pytest.raises(expected):
        run(fake(read), tmp_path / "input.txt", b"x")


@pytest.mark.timeout(0)
@pytest.mark.parametrize("read", [sleep, spin])
def test_the_harness_ends_what_hangs(read, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.SECONDS", 0.2)
    with watched(), pytest.raises(Hung):
        run(fake(swallow(read)), tmp_path / "input.txt", b"x")


def test_pickles_are_allowed_again_afterwards(tmp_path):
    with watched():
        run(fake(lambda path: None), tmp_path / "input.txt", b"x")
    assert pickle.loads(pickle.dumps(Evil())) == os.getpid()
