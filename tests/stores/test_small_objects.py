"""Small objects in a folder: made once, replaced only by who knows them, and never half written."""

import threading

import pytest

from pickcal.stores.folder_objects import FolderObjects
from pickcal.stores.small_objects import beside


@pytest.fixture
def place(tmp_path):
    return beside(tmp_path / "p.zarr")


def test_the_place_is_beside_the_project(place, tmp_path):
    """A folder of the project's name with an ending; nothing is made before it is needed."""
    assert isinstance(place, FolderObjects)
    assert place.where == tmp_path / "p.zarr.events"
    assert place.names() == [] and place.read("a") is None
    assert list(tmp_path.iterdir()) == []


def test_an_object_is_created_once(place):
    assert place.create("a", b"one")
    assert not place.create("a", b"two")
    assert place.read("a")[0] == b"one"
    assert place.names() == ["a"]


def test_only_who_knows_the_object_replaces_it(place):
    """The tag changes with the content."""
    place.create("a", b"one")
    tag = place.read("a")[1]
    assert place.replace("a", b"two", tag)
    assert not place.replace("a", b"three", tag)
    assert not place.replace("b", b"three", tag)
    assert place.read("a")[0] == b"two"


def test_only_who_knows_the_object_removes_it(place):
    """What is removed last takes the folder with it."""
    place.create("a", b"one")
    assert not place.remove("a", "another tag")
    assert place.remove("a", place.read("a")[1])
    assert not place.remove("a")
    assert not place.where.exists()


def test_appending_makes_the_object(place):
    place.append("a.jsonl", b"1\n")
    place.append("a.jsonl", b"2\n")
    assert place.read("a.jsonl")[0] == b"1\n2\n"


def test_of_many_at_once_one_creates_and_one_replaces(tmp_path):
    """Also while the folder comes and goes."""
    for _ in range(20):
        place, won = beside(tmp_path / "p.zarr"), []
        barrier = threading.Barrier(8)

        def create(n, barrier=barrier, won=won):
            barrier.wait()
            if beside(tmp_path / "p.zarr").create("a", str(n).encode()):
                won.append(n)

        threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(won) == 1
        assert place.read("a")[0] == str(won[0]).encode()
        place.remove("a")
