"""Secrets are planted in the environment, in errors and addresses: nothing that pickcal writes or says holds them."""

import logging

import numpy as np
import pytest
from handmade import noise, write_set
from object_store import KEY, SECRET

from pickcal.engine.executors import SerialExecutor, explain
from pickcal.engine.logs import LOGGER, open_log, told
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, PickcalError
from pickcal.project import Project
from pickcal.settings import BlobSettings, ImportSettings
from pickcal.stages import ingest as importing
from pickcal.stages import pick as picking
from pickcal.stages.status import status
from pickcal.stores.credentials import redacted

PASSWORD = "hunter2hunter2"
PLANTED = (KEY, SECRET, PASSWORD)
TALE = f"{KEY} {SECRET}: no answer from http://someone:{PASSWORD}@store.lab/x"
BLOBS = BlobSettings(diameter_min=140.0, diameter_max=140.0)


class Tattling:
    """An image that cannot be read, and a batch that fails: both with words that hold the secrets."""

    def __init__(self, error, original):
        self.error, self.original, self.calls = error, original, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self.calls == 1:
            raise self.error
        return self.original(*arguments)


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def assert_silent(content, where):
    for secret in PLANTED:
        assert secret.encode() not in content, (secret, where)


@pytest.mark.parametrize("kind", [ValueError, InputError, PickcalError])
def test_nothing_that_a_job_leaves_holds_them(kind, planted, monkeypatch, tmp_path, caplog):
    """Micrographs that fail, batches that fail: project, event records, log, words and status are without."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(4)])
    said = []
    with open_log(tmp_path / "log.jsonl"), told(said.append), monkeypatch.context() as patched:
        patched.setattr(importing, "working_image", Tattling(kind(TALE), importing.working_image))
        result = importing.ingest([star], tmp_path / "p.zarr", ImportSettings(batch=2), SerialExecutor(), Silent())
        assert (result.done, result.failed) == (3, 1)
        said += [reason for _, reason in result.errors]
        failing = Tattling(kind(TALE), picking.pick_batch)
        patched.setattr(picking, "pick_batch", failing)
        result = picking.pick(Project.open(tmp_path / "p.zarr", "r+"), "blob", BLOBS, SerialExecutor(), Silent())
        assert failing.calls == 2 and result.failed
        said += [reason for _, reason in result.errors]
    said.append(str(status(Project.open(tmp_path / "p.zarr"))))
    assert sum("http://***@store.lab/x" in text for text in said) >= 4
    assert_silent("\n".join(said).encode(), "words")
    files = [file for name in ("p.zarr", "p.zarr.events") for file in (tmp_path / name).rglob("*") if file.is_file()]
    assert any(b"***" in file.read_bytes() for file in files if file.suffix == ".jsonl")
    for file in [*files, tmp_path / "log.jsonl"]:
        assert_silent(file.read_bytes(), file)
    # texts of a project are compressed
    project = Project.open(tmp_path / "p.zarr")
    for group in ("micrographs", "picks/blob"):
        assert_silent("\n".join(np.asarray(project.read(group, "error")).tolist()).encode(), group)


def test_logs_hold_none_whoever_writes_them(planted, tmp_path):
    """Facts of an event that nobody looked at before."""
    said = []
    with open_log(tmp_path / "log.jsonl"), told(said.append):
        LOGGER.log(logging.WARNING, "event", extra={"facts": {"error": ValueError(TALE), "task": {"of": TALE}}})
    written = (tmp_path / "log.jsonl").read_bytes()
    assert_silent(written + said[0].encode(), "log")
    assert written.count(b"http://***@store.lab/x") == said[0].count("http://***@store.lab/x") == 2


@pytest.mark.parametrize(
    "error",
    [ValueError(TALE), InputError(TALE), OSError(5, TALE), FileNotFoundError(2, "No such file", f"s3://{TALE}")],
)
def test_words_for_errors_hold_none(error, planted):
    assert_silent(explain(error).encode(), error)


def test_addresses_without_secrets_stay_as_they_are():
    for text in (
        "s3://bucket/a@b.mrc",
        "tcp://10.0.0.1:8786",
        "000001@stack.mrcs",
        "mail to a@b.org, http://h/?list=2",
    ):
        assert redacted(text) == text


def test_a_table_with_credentials_in_a_name_is_not_repeated(planted, tmp_path):
    """Such a micrograph is refused like a URL of the command line; its name is neither said nor stored."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(2)])
    star.write_text(star.read_text().replace("mics/m1.mrc", f"s3://{KEY}:{PASSWORD}@bucket/m1.mrc"))
    result = importing.ingest([star], tmp_path / "p.zarr", ImportSettings(batch=2), SerialExecutor(), Silent())
    ((name, reason),) = result.errors
    assert "expected no user name or password in a URL" in reason and (result.done, result.failed) == (1, 1)
    assert_silent(f"{name} {reason}".encode(), "words")
    project = Project.open(tmp_path / "p.zarr")
    for column in ("name", "source", "error"):
        assert_silent("\n".join(np.asarray(project.read("micrographs", column)).tolist()).encode(), column)
