"""What a user types: paths stay paths, URLs name objects and never hold secrets."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from pickcal.errors import InputError
from pickcal.settings import ImportSettings, validated
from pickcal.stores.fetching import split_place
from pickcal.stores.places import PlaceField, Url, place


@pytest.mark.parametrize(
    "text", ["p.zarr", "/data/p.zarr", "../p.zarr", "a:b/c", "C:/data", "s3:/x", "odd:name", "a@b/c?d=e", "~x", ""]
)
def test_paths_stay_paths(text):
    assert place(text) == Path(text)


def test_file_urls_are_paths():
    assert place("file:///data/p.zarr") == Path("/data/p.zarr")


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "key"),
    [
        ("s3://bucket/p.zarr", "s3", "bucket", "p.zarr"),
        ("gs://my-bucket/a/b/p.zarr/", "gs", "my-bucket", "a/b/p.zarr"),
        ("az://container/./a//b", "az", "container", "a/b"),
        ("S3://bucket", "s3", "bucket", ""),
    ],
)
def test_urls_name_bucket_and_key(text, scheme, bucket, key):
    found = place(text)
    assert found == Url(scheme, bucket, key)
    assert place(str(found)) == found


def test_options_travel_with_the_url_in_one_order():
    one = place("s3://bucket/p.zarr?region=eu-west-1&endpoint=http://127.0.0.1:9000")
    assert str(one) == "s3://bucket/p.zarr?endpoint=http://127.0.0.1:9000&region=eu-west-1"
    assert place(str(one)) == one
    assert str(one / "picks" / "x") == "s3://bucket/p.zarr/picks/x?endpoint=http://127.0.0.1:9000&region=eu-west-1"
    assert (one.name, one.suffix, one.parent.key, one.with_name("q").key) == ("p.zarr", ".zarr", "", "q")


def test_a_path_made_of_a_url_is_still_that_url():
    """`Path` takes one of the two slashes away."""
    assert place(Path("s3://bucket/p.zarr")) == Url("s3", "bucket", "p.zarr")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://host/p.zarr", "s3://"),
        ("s3:///p.zarr", "found no bucket"),
        ("s3://b/p.zarr", "found no bucket"),
        ("s3://bucket/a/../../b", "'..'"),
        ("s3://bucket/p.zarr#x", "'#'"),
        ("s3://bucket/p.zarr?timeout=soon", "whole number"),
        ("s3://bucket/p.zarr?anonymous=yes", "true or false"),
        ("s3://bucket/p.zarr?endpoint=ftp://h", "http(s)://HOST"),
        ("gs://bucket/p.zarr?region=eu", "with s3:// alone"),
        ("s3://bucket/p.zarr?account=me", "with az:// alone"),
    ],
)
def test_refused_with_what_was_expected(text, words):
    with pytest.raises(InputError) as refused:
        place(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hunter2hunter2@bucket/p.zarr",
        "s3://hunter2hunter2@bucket/p.zarr",
        "az://container/p.zarr?sig=hunter2hunter2",
        "s3://bucket/p.zarr?aws_secret_access_key=hunter2hunter2",
        "s3://bucket/p.zarr?endpoint=http://user:hunter2hunter2@host",
        "s3://bucket/p.zarr?endpoint=http://host/?token=hunter2hunter2",
    ],
)
def test_secrets_in_urls_are_refused_and_not_repeated(text):
    with pytest.raises(InputError) as refused:
        place(text)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InputError) as refused:
        validated(ImportSettings, {"root": text}, "job.toml")
    assert "hunter2" not in str(refused.value)


def test_joined_names_cannot_leave_the_place():
    root = place("s3://bucket/session")
    assert (root / "/mics/a.mrc").key == "session/mics/a.mrc"
    with pytest.raises(InputError, match=r"'\.\.'"):
        root / "../other/a.mrc"


def test_settings_store_places_as_they_are_typed():
    class Some(BaseModel):
        there: PlaceField

    assert Some(there="gs://bucket/x").model_dump(mode="json") == {"there": "gs://bucket/x"}
    assert Some(there=Path("x")).there == Path("x")


def test_slices_of_stacks_at_urls():
    assert split_place("000003@s3://bucket/a.mrcs") == (2, Url("s3", "bucket", "a.mrcs"))
    assert split_place("000003@a.mrcs") == (2, Path("a.mrcs"))
    assert split_place("s3://bucket/a.mrcs") == (None, Url("s3", "bucket", "a.mrcs"))
    with pytest.raises(InputError, match="counted from 1"):
        split_place("000000@s3://bucket/a.mrcs")
