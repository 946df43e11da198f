"""A scheduler that wants certificates: jobs with them run, and without them or with others they are refused."""

import json
import os
import socket
import subprocess
import sys

import pytest
from distributed.security import Security
from handmade import noise, write_set
from lab import Lab, free_port, until

from pickcal.engine.clusters import address
from pickcal.engine.executors import open_executor
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.settings import ClusterSettings

COUNT = 4
BLOBS = ["--diameter-min", "140", "--diameter-max", "140", "--shapes", "disc"]
SECONDS = 90
"""Longest time to wait for a job that is refused."""


def certificate(folder, name):
    """Write a certificate that is its own authority; its three files by the names of pickcal's settings."""
    made = Security.temporary()
    contents = {"tls_ca": made.tls_ca_file, "tls_cert": made.tls_client_cert, "tls_key": made.tls_client_key}
    for setting, content in contents.items():
        (folder / f"{name}.{setting}.pem").write_text(content)
    return {setting: folder / f"{name}.{setting}.pem" for setting in contents}


def flags(files):
    return [word for name, path in files.items() for word in (f"--{name.replace('_', '-')}", str(path))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tls")
    write_set(made, [noise(seed=i) for i in range(COUNT)])
    return made


@pytest.fixture(scope="module")
def certificates(folder):
    return {name: certificate(folder, name) for name in ("ours", "others")}


@pytest.fixture(scope="module")
def lab(folder, certificates):
    """A scheduler and a worker that speak to nobody without the certificate."""
    ours = certificates["ours"]
    tls = ["--tls-ca-file", ours["tls_ca"], "--tls-cert", ours["tls_cert"], "--tls-key", ours["tls_key"]]
    with Lab(dict(os.environ), folder=folder, tls=[str(word) for word in tls]) as running:
        running.start_scheduler().start_worker("--preload", "pickcal.engine.worker")
        yield running


def run(folder, *arguments, seconds=180):
    command = [sys.executable, "-m", "pickcal", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)


def test_a_job_from_end_to_end(folder, certificates, lab):
    """A job file names the certificates, or flags do; the scheduler's worker did the work."""
    tls = "\n".join(f'{name} = "{path.name}"' for name, path in certificates["ours"].items())
    (folder / "job.toml").write_text(
        f"""
        project = "p.zarr"
        [cluster]
        kind = "{lab.address}"
        {tls}
        [import]
        sources = ["micrographs_ctf.star"]
        batch = 2
        [pick]
        method = "blob"
        diameter_min = 140.0
        diameter_max = 140.0
        """
    )
    done = run(folder, "run", "job.toml", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["import"]["done"], result["pick"]["done"]) == (COUNT, COUNT)
    again = ["--name", "flags", "--cluster", lab.address, *flags(certificates["ours"]), "--json"]
    done = run(folder, "pick", "blob", "p.zarr", *BLOBS, *again)
    assert done.returncode == 0, done.stderr
    assert Project.open(folder / "p.zarr").done("picks/flags").tolist() == [1] * COUNT
    until(lambda: lab.worker_processes())
    worker = {p.pid for p in lab.worker_processes()}
    records = [json.loads(line) for file in (folder / "p.zarr.events").glob("*.jsonl") for line in file.open()]
    workers = {int(record["worker"].rpartition(":")[2]) for record in records if record["event"] == "batch"}
    assert workers == worker


@pytest.mark.parametrize(
    ("scheme", "given", "words"),
    [
        pytest.param("tls", {}, "expects certificates, found none: give --tls-ca", id="without any"),
        pytest.param("tcp", {}, "that is --cluster tls://127.0.0.1:", id="without TLS"),
        pytest.param("tcp", {"ours": "tls_ca tls_cert tls_key"}, "begins with tls://", id="plain address"),
        pytest.param("tls", {"others": "tls_ca tls_cert tls_key"}, "that takes these certificates", id="of others"),
        pytest.param(
            "tls",
            {"ours": "tls_ca", "others": "tls_cert tls_key"},
            "is tls_cert signed by the one that the scheduler was started with",
            id="signed by others",
        ),
        pytest.param(
            "tls", {"ours": "tls_ca tls_cert", "others": "tls_key"}, "a certificate in tls_cert and its key", id="key"
        ),
    ],
)
def test_who_has_no_certificate_is_refused(folder, certificates, lab, scheme, given, words):
    """In words, with exit code 1, and soon; nothing is made."""
    files = {name: certificates[whose][name] for whose, names in given.items() for name in names.split()}
    address = lab.address.replace("tls", scheme)
    until(lambda: lab.worker_processes())
    command = ["import", "micrographs_ctf.star", "--project", "q.zarr", "--cluster", address, *flags(files)]
    done = run(folder, *command, seconds=SECONDS)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert words in done.stderr, done.stderr
    assert not (folder / "q.zarr").exists()


def test_a_scheduler_without_tls_is_told_apart(certificates, dask_executor):
    """Its address with tls:// and certificates: refused with what to give instead, at the first try."""
    where = dask_executor.client.scheduler.address.removeprefix("tcp://")
    with (
        pytest.raises(InputError, match=rf"found one without; give tcp://{where} and no certificates"),
        open_executor(ClusterSettings(kind=f"tls://{where}", **certificates["ours"])),
    ):
        pass


def test_how_others_speak_is_not_guessed(lab, dask_executor, monkeypatch):
    """Whoever says nothing even when greeted, and nobody at all, may be a scheduler that is just starting."""
    assert address.spoken(lab.address) == "tls"
    assert address.spoken(dask_executor.client.scheduler.address) == "plain"
    assert address.spoken(f"tcp://127.0.0.1:{free_port()}") is None
    assert address.spoken("tcp://host-without-port") is None
    monkeypatch.setattr(address, "SPEAKS_WITHIN", 0.1)
    monkeypatch.setattr(address, "GREETED_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert address.spoken(f"tcp://127.0.0.1:{mute.getsockname()[1]}") is None
