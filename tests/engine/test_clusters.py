"""Kinds of clusters: which there are, what they refuse, and what they ask of Dask's own packages.

Queues of PBS and LSF, Kubernetes and the clouds cannot run here: for them a stand-in takes the place of the class that
would start workers, and the test looks at what it was given. SLURM runs for real in tests/deploy.
"""

import os
import subprocess
import sys
import types
from contextlib import contextmanager

import pytest

from pickcal.engine.clusters import _dask, _jobqueue, address, local
from pickcal.engine.executors import open_executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings, cluster_kinds, validated


def refusal(settings):
    with pytest.raises(InputError) as error, open_executor(settings):
        pass
    return str(error.value)


def test_every_kind_is_a_module():
    """A new one needs no change elsewhere."""
    kinds = {"local", "serial", "slurm", "pbs", "lsf", "kubernetes", "aws", "gcp", "azure"}
    assert set(cluster_kinds()) == kinds
    for kind in kinds:
        assert ClusterSettings(kind=kind).kind == kind


def test_the_flag_and_the_key_are_one_setting():
    """`--cluster`, `kind` and the older `cluster`; an address with its kind beside it."""
    assert ClusterSettings(cluster="serial") == ClusterSettings(kind="serial")
    assert ClusterSettings(kind="address", address="tls://host:8786").kind == "tls://host:8786"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "sge"}, "cluster: expected 'local', 'serial' or an address"),
        ({"kind": "address"}, "expects address ="),
        ({"workers_min": 1}, "workers_min: expected workers"),
        ({"workers": 1, "workers_min": 2}, "workers_min: expected at most workers"),
        ({"memory": "much"}, "memory: expected"),
        ({"tls_ca": "ca.pem"}, "tls: expected tls_ca, tls_cert and tls_key together, got only tls_ca"),
        ({"wait": 0}, "wait: expected greater than 0"),
    ],
)
def test_wrong_settings_are_refused(values, said):
    with pytest.raises(InputError) as error:
        validated(ClusterSettings, values, "job.toml")
    assert said in str(error.value)


def _intervals(dask_worker):
    import dask

    tick, memory = (dask_worker.periodic_callbacks[name].callback_time for name in ("tick", "memory_monitor"))
    return tick, memory, dask.config.get("distributed.admin.system-monitor.interval")


def test_processes_of_a_local_cluster_look_after_themselves_seldom():
    """It takes from the work. Milliseconds between two looks, as the running callbacks have them."""
    with open_executor(ClusterSettings(kind="local", workers=1)) as executor:
        client = executor.started.client
        found = client.run(_intervals)
        scheduler = client.cluster.scheduler
        assert list(found.values()) == [(500.0, 500.0, "2s")]
        assert scheduler.periodic_callbacks["tick"].callback_time == 500.0


def test_dask_understands_the_environment_of_workers():
    code = f"import dask, distributed; print([dask.config.get(key) for key in {list(_dask.SELDOM)}])"
    environment = {**os.environ, **_dask.WORKER_ENVIRONMENT}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(list(_dask.SELDOM.values()))


GIVEN = {
    "workers": 2, "workers_min": 1, "memory": "4 GB", "wait": 60.0, "batch_limit": 60.0, "listen": "lo",
    "tls_ca": "ca.pem", "tls_cert": "c.pem", "tls_key": "k.pem", "options": {"image": "r/p:1"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "used"),
    [
        ("serial", ""),
        ("local", "workers workers_min memory wait batch_limit listen tls_ca tls_cert tls_key"),
        ("tls://host:1", "workers wait batch_limit tls_ca tls_cert tls_key"),
        ("slurm", " ".join(GIVEN)),
        ("pbs", " ".join(GIVEN)),
        ("lsf", " ".join(GIVEN)),
        ("kubernetes", "workers workers_min memory wait batch_limit options"),
        ("aws", "workers workers_min wait batch_limit options"),
        ("gcp", "workers workers_min wait batch_limit options"),
        ("azure", "workers workers_min wait batch_limit options"),
    ],
)
def test_settings_belong_to_kinds_that_use_them(kind, used):
    """All that a kind uses together; each of the others is refused by name, with what to do."""
    ClusterSettings(kind=kind, **{name: GIVEN[name] for name in used.split()})
    for name in set(GIVEN).difference(used.split()):
        with pytest.raises(InputError, match=rf"{name}: expected none for cluster '{kind}': .*; leave it out, or"):
            validated(ClusterSettings, {"kind": kind, name: GIVEN[name]}, "job.toml")


def test_missing_certificates_are_named(tmp_path):
    files = {name: tmp_path / name for name in ("tls_ca", "tls_cert", "tls_key")}
    files["tls_ca"].touch()
    assert f"tls_cert: expected a file, found none at {tmp_path}" in refusal(ClusterSettings(kind="tls://h:1", **files))


def test_no_scheduler_at_the_address(monkeypatch):
    """The message says how to start one; a shorter wait than a user's for one that is just starting."""
    monkeypatch.setattr(address, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(address, "STEP_SECONDS", 1.0)
    assert "expected a running Dask scheduler" in refusal(ClusterSettings(kind="tcp://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("slurm", "dask_jobqueue", "jobqueue"),
        ("kubernetes", "dask_kubernetes", "kubernetes"),
        ("aws", "dask_cloudprovider", "aws"),
        ("gcp", "dask_cloudprovider", "gcp"),
        ("azure", "dask_cloudprovider", "azure"),
    ],
)
def test_a_missing_package_names_its_extra(kind, module, extra, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert f"pip install 'pickcal[{extra}]'" in refusal(ClusterSettings(kind=kind))


@pytest.mark.parametrize("kind", ["slurm", "pbs", "lsf"])
def test_queues_say_where_the_scheduler_listens(kind):
    """Never by default where others reach it; and only options that the queue's class knows."""
    assert "expects listen" in refusal(ClusterSettings(kind=kind))
    settings = ClusterSettings(kind=kind, listen="127.0.0.1", options={"que": "long"})
    assert "no such option of" in (said := refusal(settings)) and "queue" in said
    assert "no such option" in refusal(ClusterSettings(kind=kind, listen="lo", options={"n_workers": 3}))


@pytest.mark.parametrize(("kind", "lines"), [
    ("slurm", ["#SBATCH -p long", "#SBATCH --mem=3G", "#SBATCH -t 00:30:00"]),
    ("pbs", ["#PBS -q long", "#PBS -l select=1:ncpus=1:mem=2862MB", "#PBS -l walltime=00:30:00"]),
    ("lsf", ["#BSUB -q long", "#BSUB -W 00:30"]),
])  # fmt: skip
def test_job_scripts_of_queues(kind, lines):
    """As dask-jobqueue writes them: one process with one thread, our preload, and no BLAS threads."""
    import dask_jobqueue

    settings = ClusterSettings(
        kind=kind, listen="127.0.0.1", memory="3 GB", options={"queue": "long", "walltime": "00:30:00"}
    )
    options = dict(settings.options) | ({"walltime": "00:30"} if kind == "lsf" else {})
    arguments = {**_jobqueue.arguments(settings), "n_workers": 0}
    with getattr(dask_jobqueue, f"{kind.upper()}Cluster")(**arguments, **options) as cluster:
        script = cluster.job_script()
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        assert "127.0.0.1" in cluster.dashboard_link
    quiet = "export DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL=500ms"
    for line in [*lines, "export OPENBLAS_NUM_THREADS=1", quiet]:
        assert line in script, script
    assert "--nthreads 1" in script and "--preload pickcal.engine.worker" in script and sys.executable in script


class Given:
    """Stands for a cluster class: keeps what it is given and starts nothing."""

    def __init__(self, image=None, docker_image=None, region=None, env=None, **kwargs):
        self.given = {"image": image or docker_image, "region": region, **kwargs}
        Given.last = self

    def close(self, timeout):
        self.closed = True


@pytest.fixture
def stand_in(monkeypatch):
    """Put a class in the place of every cloud's, and an executor that starts nothing in the place of Dask's."""
    for name in ("aws", "gcp", "azure"):
        module = types.ModuleType(f"dask_cloudprovider.{name}")
        module.EC2Cluster = module.GCPCluster = module.AzureVMCluster = Given
        monkeypatch.setitem(sys.modules, f"dask_cloudprovider.{name}", module)
    operator = types.ModuleType("dask_kubernetes.operator")
    operator.KubeCluster = Given
    monkeypatch.setitem(sys.modules, "dask_cloudprovider", types.ModuleType("dask_cloudprovider"))
    monkeypatch.setitem(sys.modules, "dask_kubernetes", types.ModuleType("dask_kubernetes"))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)

    @contextmanager
    def nothing(cluster, settings, note, check):
        yield cluster

    monkeypatch.setattr(_dask, "executor_of", nothing)


@pytest.mark.parametrize("kind", ["aws", "gcp", "azure"])
def test_clouds_are_asked_for_what_the_settings_say(kind, stand_in):
    options = {"docker_image": "registry/pickcal:1", "region": "eu-west-1"}
    with open_executor(ClusterSettings(kind=kind, workers=40, options=options)):
        pass
    assert Given.last.closed
    given = Given.last.given
    assert (given["image"], given["region"], given["n_workers"]) == ("registry/pickcal:1", "eu-west-1", 40)
    assert given["security"] is True and given["worker_options"] == {"nthreads": 1}
    assert given["env_vars"] == _dask.WORKER_ENVIRONMENT
    assert "expected the container image" in refusal(ClusterSettings(kind=kind))
    assert "no such option" in refusal(ClusterSettings(kind=kind, options={"service_account_credentials": {}}))


def test_kubernetes_is_asked_for_what_the_settings_say(stand_in):
    settings = ClusterSettings(kind="kubernetes", workers=8, workers_min=2, memory="6 GiB", options={"image": "r/p:1"})
    with open_executor(settings):
        pass
    given = Given.last.given
    assert (given["image"], given["n_workers"]) == ("r/p:1", 2)
    assert given["resources"]["limits"] == {"cpu": "1", "memory": "6Gi"}
    assert given["worker_command"][:2] == ["dask", "worker"] and "pickcal.engine.worker" in given["worker_command"]
    assert "cluster.options.image: expected" in refusal(ClusterSettings(kind="kubernetes"))


def test_the_local_cluster_listens_on_this_machine_only():
    """Scheduler, workers and dashboard; the dashboard's address is told."""
    notes = []
    with open_executor(ClusterSettings(workers=1), notes.append) as executor:
        info = executor.started.client.scheduler_info(n_workers=-1)
        assert info["address"].startswith("tcp://127.0.0.1:")
        assert all(address.startswith("tcp://127.0.0.1:") for address in info["workers"])
    assert [note for note in notes if note.startswith("Dask dashboard: http://127.0.0.1:")]


def _began(name):
    return os.getppid(), name in sys.modules


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker loads all of it anew")
def test_workers_of_this_machine_are_copies_of_one_that_has_loaded_what_they_need():
    with open_executor(ClusterSettings(workers=2)) as executor:
        found = {outcome.result for outcome in executor.run(_began, ["pickcal.stages.pick"] * 8)}
        assert len(executor.started.client.scheduler_info(n_workers=-1)["workers"]) == 2
    ((parent, loaded),) = found
    assert loaded and parent != os.getpid()


def test_workers_have_the_environment_as_it_is_when_they_start(monkeypatch):
    """Credentials may be set between two clusters of one process."""
    for value in ("one", "other"):
        monkeypatch.setenv("PICKCAL_SEEN_BY_WORKERS", value)
        with open_executor(ClusterSettings(workers=1)) as executor:
            (outcome,) = executor.run(os.getenv, ["PICKCAL_SEEN_BY_WORKERS"])
        assert outcome.result == value


def test_workers_begin_where_temporary_files_have_long_paths(tmp_path):
    """A socket's path has at most 107 characters."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    code = (
        "from pickcal.engine.executors import open_executor\n"
        "from pickcal.settings import ClusterSettings\n"
        "if __name__ == '__main__':\n"
        "    with open_executor(ClusterSettings(workers=1)) as executor:\n"
        "        print([outcome.result for outcome in executor.run(abs, [-1])])\n"
    )
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[1]\n"), done.stderr


def test_what_workers_are_copied_with_starts_no_thread():
    """Threads do not come along to a copy, but the locks that they hold do."""
    code = f"import importlib, threading; [importlib.import_module(name) for name in {local.LOADED}]"
    subprocess.run([sys.executable, "-c", f"{code}; assert threading.active_count() == 1"], check=True)


def test_workers_come_and_go_with_the_work():
    """None at first; as many as there is work for, at most; none in the end is waited for."""
    with open_executor(ClusterSettings(workers=2, workers_min=0)) as executor:
        assert executor.started.count_workers() == 0
        outcomes = list(executor.run(abs, range(-4, 0)))
    assert sorted(outcome.result for outcome in outcomes) == [1, 2, 3, 4]
