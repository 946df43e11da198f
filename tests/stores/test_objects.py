"""Objects over HTTP: conditions, copies of parts, credentials, errors in plain words, bounded waits.

What all kinds of stores must do is tried on every kind (`store`); the rest on the S3-compatible one.
"""

import json
import threading
import time

import numpy as np
import pytest
from handmade import noise, write_mrc

from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.formats.images import image_info, read_measured
from pickcal.stores import bucket_objects, lease, objects
from pickcal.stores.bucket_objects import BucketObjects
from pickcal.stores.fetching import HEAD, fetched, fetched_image
from pickcal.stores.lease import held
from pickcal.stores.objects import Changed
from pickcal.stores.places import place


@pytest.fixture
def bucket(s3):
    return s3.bucket()


def test_an_object_is_written_only_where_it_is_expected(store):
    url = store.bucket() / "a/b c+d~.json"
    first = objects.write(url, b"1", "none")
    with pytest.raises(Changed):
        objects.write(url, b"2", "none")
    second = objects.write(url, b"22", first)
    with pytest.raises(Changed):
        objects.write(url, b"3", first)
    assert objects.read(url) == b"22"
    seen = objects.stat(url)
    assert (seen.mark, seen.version) == (second.mark, second.version) and seen.mark != first.mark
    assert objects.listed(url.parent)[url.name].mark == second.mark
    third = objects.write(url, b"333", seen)
    assert objects.read(url) == b"333" and third.mark != second.mark
    objects.remove(url)
    objects.remove(url)
    assert objects.stat(url) is None
    with pytest.raises(Changed):
        objects.write(url, b"4", third)
    with pytest.raises(MissingFileError, match=r"a/b c\+d~\.json.*: no such object"):
        objects.read(url)


def test_parts_of_an_object_are_read(store):
    url = store.bucket() / "x"
    objects.write(url, b"0123456789")
    assert objects.read_start(url, 4) == (b"0123", 10) and objects.read_start(url, 20) == (b"0123456789", 10)
    assert objects.read_range(url, 7, 2) == b"78"
    objects.write(url, b"")
    assert objects.read_start(url, 4) == (b"", 0) and objects.stat(url).size == 0


def test_listing_and_removing_within_a_place(store):
    bucket = store.bucket()
    for name in ("p/a", "p/b/c", "p2/d"):
        objects.write(bucket / name, b"x")
    assert set(objects.listed(bucket / "p")) == {"a", "b/c"}
    objects.remove_within(bucket / "p", keep=("a",))
    assert set(objects.listed(bucket)) == {"p/a", "p2/d"}


@pytest.mark.parametrize("store", ["az", "gs"], indirect=True)  # moto does not look at keys
def test_a_store_that_refuses_says_so(store, monkeypatch):
    """Keys that are not the store's: refused at once, without a word of them."""
    url = store.bucket() / "x"
    name = {"az": "AZURE_STORAGE_ACCOUNT_KEY", "gs": "GOOGLE_BEARER_TOKEN"}[store.scheme]
    monkeypatch.setenv(name, "d3Jvbmcta2V5LW9mLW5vYm9keQ==")
    for asked in (lambda: objects.read(url), lambda: objects.write(url, b"x")):
        with pytest.raises((InputError, ProjectError), match=r"refuses access \(40[13]") as refused:
            asked()
        assert "d3Jvbmcta2V5" not in str(refused.value)


def test_endpoints_and_keys_are_given_in_more_than_one_way(store, monkeypatch, tmp_path):
    """The address as an option of the URL; Google's credentials in a file, as those of a service account are."""
    url = store.bucket() / "x"
    endpoint = {"s3": "AWS_ENDPOINT_URL", "az": "AZURE_STORAGE_ENDPOINT", "gs": "GOOGLE_BASE_URL"}[store.scheme]
    allowed = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP"}[store.scheme]
    options = f"endpoint={store.environment[endpoint]}"
    monkeypatch.delenv(endpoint)
    monkeypatch.delenv(allowed)
    if store.scheme == "az":
        monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
        options += "&account=lab"
    if store.scheme == "gs":
        monkeypatch.delenv("GOOGLE_BEARER_TOKEN")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        (tmp_path / "key.json").write_text(json.dumps(store.account))
    objects.write(place(f"{url}?{options}"), b"here")
    assert objects.read(place(f"{url}?{options}")) == b"here"


def test_a_bucket_that_is_not_there(s3):
    nowhere = place("s3://no-such-bucket/p.zarr")
    assert objects.stat(nowhere) is None
    with pytest.raises(InputError, match=r"no-such-bucket/p\.zarr: there is no such bucket; make it first"):
        objects.listed(nowhere)
    with pytest.raises(ProjectError, match="there is no"):
        objects.write(nowhere / "zarr.json", b"x")


def test_of_an_mrc_file_only_what_is_needed_is_fetched(bucket, s3, tmp_path):
    """Of a stack of 2 MB its header and one slice; and the whole of an image."""
    stack = np.stack([noise((256, 512), seed) for seed in range(4)])
    file = tmp_path / "stack.mrcs"
    write_mrc(file, stack, pixel_size=2.0)
    size = file.stat().st_size
    objects.write(bucket / "stack.mrcs", file.read_bytes())
    s3.counted()
    with fetched_image(bucket / "stack.mrcs", 2, pixels=False) as path:
        assert path.stat().st_size == size
        assert image_info(path, 2).height == 256
    assert s3.counted()["sent"] < 1.2 * HEAD
    with fetched_image(bucket / "stack.mrcs", 2) as path:
        assert np.array_equal(read_measured(image_info(path, 2))[0], stack[2].astype(np.float32))
    assert s3.counted()["sent"] < 1.2 * HEAD + size / 4
    assert not path.exists()
    with fetched(bucket / "stack.mrcs") as path:
        assert path.read_bytes() == file.read_bytes()


def test_errors_name_the_object_and_not_its_copy(bucket):
    objects.write(bucket / "bad.mrc", b"not an image" * 10)
    with pytest.raises(InputError) as refused, fetched_image(bucket / "bad.mrc") as path:
        image_info(path)
    assert str(refused.value).startswith(f"{bucket}bad.mrc: expected an MRC or TIFF file")
    with pytest.raises(MissingFileError, match=r"gone\.mrc: no such object"), fetched_image(bucket / "gone.mrc"):
        pass
    objects.write(bucket / "empty.mrc", b"")
    with pytest.raises(InputError, match=r"empty\.mrc"), fetched_image(bucket / "empty.mrc", pixels=False) as path:
        image_info(path)


def test_the_shared_files_of_aws_are_read(s3, monkeypatch, tmp_path):
    """Keys, region and endpoint of a profile serve where the environment has none; the environment goes before."""
    url = s3.bucket() / "x"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = profile-secret\n"
    )
    (tmp_path / "config").write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3.address}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    objects.write(url, b"by profile")
    assert objects.read(url) == b"by profile"
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InputError, match=r"AWS_PROFILE: .*'nobody'"):
        objects.read(url)
    (tmp_path / "credentials").write_text("profile-secret\n")
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(InputError) as refused:
        objects.read(url)
    assert "credentials: cannot be read" in str(refused.value) and "profile-secret" not in str(refused.value)


def test_a_profile_that_needs_boto3_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    (tmp_path / "config").write_text("[profile sso]\nsso_session = lab\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    monkeypatch.setitem(__import__("sys").modules, "boto3.session", None)
    with pytest.raises(InputError, match="pip install boto3"):
        objects.client_of(place("s3://bucket/x"))


def test_a_store_that_does_not_answer_is_given_up(monkeypatch):
    """Nobody listens at the address: the error comes after the retries, in plain words."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    url = place("s3://bucket/x?endpoint=http://127.0.0.1:9&retries=1&timeout=2&region=us-east-1")
    with pytest.raises(InputError) as refused:
        objects.read(url)
    assert "the object store failed" in str(refused.value)
    assert "\n" not in str(refused.value) and "planted-secret" not in str(refused.value)


def test_requests_that_fail_are_sent_again(bucket, s3):
    s3.faults(share=0.3, seed=3)
    for i in range(30):
        objects.write(bucket / f"{i}", bytes([i]))
    assert [objects.read(bucket / f"{i}") for i in range(30)] == [bytes([i]) for i in range(30)]
    assert s3.counted()["faults"] > 5


def test_what_is_added_is_seen_although_nothing_follows(bucket, monkeypatch):
    """The first at once, the next a while later without another one; what waits longer than the test with `flush`."""
    among = BucketObjects(bucket)
    monkeypatch.setattr(bucket_objects, "FLUSH_SECONDS", 0.5)
    among.append("a", b"1")
    assert objects.read(bucket / "a") == b"1"
    among.append("a", b"2")
    among.append("a", b"3")
    end = time.monotonic() + 60
    while objects.read(bucket / "a") != b"123":
        assert time.monotonic() < end, "it was never written"
        time.sleep(0.05)
    monkeypatch.setattr(bucket_objects, "FLUSH_SECONDS", 1000)
    among.append("a", b"4")
    waiting = among._later
    among.append("b", b"5")
    assert objects.read(bucket / "a") == b"1234" and objects.stat(bucket / "b") is None
    among.flush()
    assert objects.read(bucket / "b") == b"5"
    assert among._later is None
    waiting.join(60)
    assert not waiting.is_alive()


def test_only_one_holds_a_lease(store):
    """Eight threads add to a number in an object, which none of them could do at once without losing some."""
    bucket = store.bucket()
    number = bucket / "number"
    objects.write(number, b"0")

    def add():
        for _ in range(3):
            with held(BucketObjects(bucket), "lock", "project", seconds=20, wait=60):
                value = int(objects.read(number))
                time.sleep(0.002)
                objects.write(number, str(value + 1).encode())

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert objects.read(number) == b"24"
    assert objects.stat(bucket / "lock") is None


def test_the_lease_of_the_dead_is_taken_over_and_they_learn_of_it(bucket, monkeypatch):
    """A holder elsewhere that stops renewing is dead to the others; if it wakes up, it is told."""
    among = BucketObjects(bucket)
    with monkeypatch.context() as patched:
        patched.setattr(lease, "_machine", lambda: "another")
        asleep = lease.Lease(among, "lock", "p", seconds=0.6)
        asleep.take()
    with pytest.raises(ProjectError, match=r"p: another job works on it.* process \d+, since .*, waited for 1.5 s"):
        lease.Lease(among, "lock", "p", seconds=0.6).take(wait=1.5)  # longer than a lease: it is seen to be renewed
    asleep._over.set()
    asleep._thread.join()
    with held(among, "lock", "p", seconds=0.6, wait=10) as mine:
        asleep._renew()
        with pytest.raises(ProjectError, match="another may have taken over"):
            asleep.check()
        mine.check()
        asleep.release()
        assert objects.stat(bucket / "lock") is not None  # it is not its own any more
    assert objects.stat(bucket / "lock") is None


@pytest.mark.parametrize("text", ["gs://bucket/x?anonymous=true", "az://container/x?account=me&anonymous=true"])
def test_clients_are_kept_and_bounded(text):
    client = objects.client_of(place(text))
    assert client is objects.client_of(place(text))
    assert client.prefix == "x"
    assert client.retry_config["max_retries"] == objects.RETRIES
