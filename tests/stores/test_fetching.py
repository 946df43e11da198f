"""Files of the local disk that are read into the system's cache before they are asked for."""

import os

import numpy as np
import pytest
from handmade import noise, write_mrc

from pickcal.stages.ingest import read_ahead
from pickcal.stores.fetching import into_cache


def out_of_cache(path):
    """Let the system forget a file; skip where it does not, as of one in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(cached(path, at) for at in range(0, path.stat().st_size, 2**20)):
        pytest.skip("the system keeps this disk's files in its cache")


def cached(path, at):
    """Whether a byte of a file can be read without the disk."""
    with path.open("rb", buffering=0) as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], at, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False


def test_a_file_comes_into_the_cache_whole(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, noise((1500, 1500)), 1.0)
    out_of_cache(path)
    into_cache(path)
    assert all(cached(path, at) for at in range(0, path.stat().st_size, 4096))
    into_cache(tmp_path / "none.mrc")


def test_of_a_stack_only_the_slice_comes(tmp_path):
    """The system may read some MB more than it is asked for."""
    path = tmp_path / "a.mrcs"
    write_mrc(path, np.stack([noise((2000, 2000))] * 6), 1.0)
    size = 2000 * 2000 * 4
    out_of_cache(path)
    into_cache(path, 2)
    assert all(cached(path, at) for at in range(1024 + 2 * size, 1024 + 3 * size, 4096))
    assert not cached(path, 1024 + 5 * size + size // 2)


@pytest.mark.parametrize("lacking", ["RWF_NOWAIT", "preadv", "sendfile", "flags"])
def test_systems_that_lack_a_call_read_all_the_same(tmp_path, monkeypatch, lacking):
    """macOS and Windows lack names of `os`, and an old C library has `preadv` without flags."""
    image = noise((90, 80))
    write_mrc(tmp_path / "a.mrc", image, 2.0)
    if lacking == "flags":

        def preadv(file, buffers, at, flags=0):
            raise NotImplementedError("preadv: flags")

        monkeypatch.setattr(os, "preadv", preadv)
    else:
        monkeypatch.delattr(os, lacking)
        monkeypatch.delattr(os, "RWF_NOWAIT", raising=False)  # else the file is seen to be in the cache already
    [read] = read_ahead([str(tmp_path / "a.mrc")])
    np.testing.assert_array_equal(read()[0], image)


def test_images_of_all_shapes_are_read_one_after_the_other(tmp_path):
    """Each as it is stored; one that is not there and one that is no image fail alone."""
    images = [noise(shape, seed) for seed, shape in enumerate([(90, 80), (90, 80), (70, 120)])]
    for i, image in enumerate(images):
        write_mrc(tmp_path / f"{i}.mrc", image, 2.0)
    (tmp_path / "text.mrc").write_text("no image")
    names = ["0.mrc", "none.mrc", "1.mrc", "text.mrc", "2.mrc"]
    found = []
    for read in read_ahead([str(tmp_path / name) for name in names]):
        try:
            found.append(read()[0].copy())
        except Exception as error:
            found.append(type(error).__name__)
    assert found[1::2] == ["MissingFileError", "InputError"]
    for image, one in zip(images, found[::2], strict=True):
        np.testing.assert_array_equal(one, image)
