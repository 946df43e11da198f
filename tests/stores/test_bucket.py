"""A project in an object store is the one on the local disk, bit for bit, from import to export and to the page."""

import shutil
import threading

import numpy as np
import pytest
import xarray as xr
import zarr
from alike import assert_identical
from object_store import KEY, SECRET

from pickcal.dashboard.controller import Inspector, close_shared, shared_inspector
from pickcal.dashboard.saved.drafts import Draft, Drafts
from pickcal.dashboard.saved.saving import Conflict, load, save
from pickcal.dashboard.views.page import prepare
from pickcal.engine.executors import SerialExecutor, explain
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.project import Project
from pickcal.settings import CalibrateSettings, ExportSettings, ImportSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.export import export
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.select import select
from pickcal.stages.status import status
from pickcal.stores import bucket as buckets
from pickcal.stores import objects

FIT = CalibrateSettings(bootstrap=0)
THRESHOLDS = SelectSettings(min_ncc=0.3)


def columns_of(count, fill="x"):
    text = np.full(count, fill, dtype=object)
    return {"name": text, "source": text, "status": np.ones(count, np.int8), "pixel_size": np.full(count, 5.0)}


def small_project(url, count=4):
    return Project.create(url, {"micrograph": count, "y": 16, "x": 16}, 2, columns_of(count), {"made": "by hand"})


@pytest.fixture
def there(s3):
    """Place for a project in a bucket of its own."""
    return s3.bucket() / "session/p.zarr"


def copied(project, there, s3):
    """A project in a bucket, with what it has there beside its groups."""
    s3.send(project, there)
    found = Project.open(there, "r+")
    found._require_unlisted()
    return found


@pytest.fixture
def picked_there(there, picked, s3):
    """The small set's project, copied into a bucket."""
    return copied(picked, there, s3)


@pytest.fixture
def selected_there(there, selected, s3):
    """The small set's project with a fit and the selection `first`, copied into a bucket."""
    return copied(selected, there, s3)


JOB = """
    project = "{where}/p.zarr"
    [cluster]
    {cluster}
    [import]
    sources = ["{where}/data/micrographs_ctf.star"]
    batch = 2
    [pick]
    method = "template"
    templates = "{where}/data/templates.mrcs"
    diameter = 150
    rotation_step = 30
    [calibrate]
    bootstrap = 20
    [select]
    name = "first"
    min_ncc = 0.3
    [export]
    format = "relion"
    path = "{where}/out"
    """


@pytest.fixture(scope="module")
def job_here(small_set, cli, tmp_path_factory):
    """A whole job on the local disk: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("here")
    shutil.copytree(small_set.folder, folder / "data")
    (folder / "job.toml").write_text(JOB.format(where=folder, cluster='cluster = "serial"'))
    return folder, cli("run", folder / "job.toml", "--json", cwd=folder, code=0).json


@pytest.fixture(scope="module")
def selected(job_here):
    """The project of that job, calibrated and with the selection `first`; read only."""
    return job_here[0] / "p.zarr"


ELSEWHERE = pytest.mark.nightly  # what is particular to these stores is in test_objects.py


@pytest.mark.parametrize(
    "store", ["s3", pytest.param("az", marks=ELSEWHERE), pytest.param("gs", marks=ELSEWHERE)], indirect=True
)
def test_a_whole_job_gives_what_it_gives_on_the_local_disk(small_set, store, job_here, cli, tmp_path):
    """`pickcal run` with sources, templates, project and export at URLs, on two worker processes; then the page."""
    folder, said = job_here
    where = store.bucket() / "session"
    store.send(small_set.folder, where / "data")
    (tmp_path / "job.toml").write_text(JOB.format(where=where, cluster="workers = 2"))
    ran = cli("run", tmp_path / "job.toml", "--json", cwd=tmp_path, code=0)
    for section in ("calibrate", "select"):
        assert ran.json[section] == said[section]
    here, away = Project.open(folder / "p.zarr"), Project.open(where / "p.zarr")
    for group in ("micrographs", "picks/template", "calibration/template"):
        one, other = here.dataset(group).load(), away.dataset(group).load()
        if group == "micrographs":
            assert [str(s) for s in other["source"].values] == [
                str(s).replace(str(folder), str(where)) for s in one["source"].values
            ]
            one, other = one.drop_vars("source"), other.drop_vars("source")
        assert_identical(one.drop_attrs(deep=False), other.drop_attrs(deep=False))
    assert_identical(here.mixture("template"), away.mixture("template"))
    assert here.dataset("selection/first")["counts"].equals(away.dataset("selection/first")["counts"])
    exported = store.content(where / "out")
    files = {file.relative_to(folder / "out").as_posix(): file for file in (folder / "out").rglob("*.star")}
    assert set(exported) == set(files) and len(files) > 6
    for name, file in files.items():
        assert exported[name].decode().splitlines()[3:] == file.read_text().splitlines()[3:], name
    stored = store.content(where / "p.zarr") | {"said": (ran.out + ran.err).encode()}
    for name, content in stored.items():
        assert not any(secret.encode() in content for secret in store.planted), name
    assert_page_opens(where / "p.zarr")


def assert_page_opens(where):
    """All views of the page are built with their first pictures, as the first visitor gets them."""
    try:
        prepare(where)
        inspector = shared_inspector(where)
        assert inspector.project.path == where
        assert inspector.picks() == ["template"] and inspector.selections("template") == ["first"]
    finally:
        close_shared()


def test_a_project_is_there_as_a_whole_or_not_at_all(there, monkeypatch, s3):
    """What fails while a project is made leaves nothing; who died on the way leaves what the next one clears away."""
    with monkeypatch.context() as patched:
        patched.setattr("pickcal.project.creating.make_unlisted", lambda home: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small_project(there)
    assert objects.listed(there) == {}
    objects.write(there / "micrographs/zarr.json", b"{}")
    with pytest.raises(ProjectError, match=r"found objects that are no project's, such as 'micrographs/"):
        small_project(there)
    objects.write(there / buckets.LOCK, b'{"owner": "x", "machine": "another", "host": "node7", "pid": 1}')
    monkeypatch.setattr(buckets, "LEASE_SECONDS", 0.5)
    assert small_project(there).count == 4
    with pytest.raises(ProjectError, match="exists already"):
        small_project(there)
    with pytest.raises(MissingFileError, match="no such project"):
        Project.open(there.parent / "q.zarr")
    with pytest.raises(InputError, match="name of a project within the bucket"):
        Project.open(str(there).partition("session")[0])


def test_why_a_project_cannot_be_opened_is_said(there, monkeypatch, tmp_path):
    """Damaged metadata, a profile that is not there, a damaged file of profiles: none is a project yet to be made."""
    objects.write(there / "zarr.json", b"{")
    with pytest.raises(ProjectError, match=r"p\.zarr: expected a pickcal project, found a zarr\.json that is damaged"):
        Project.open(there)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(InputError, match="found no 'nobody'"):
        Project.open(there)
    (tmp_path / "config").write_text("no section")
    with pytest.raises(InputError, match=r"config: cannot be read as a file of AWS profiles"):
        Project.open(there)


def test_two_who_make_the_same_project_do_not_mix_it(there):
    outcomes = []

    def make(fill):
        try:
            size = {"micrograph": 4, "y": 16, "x": 16}
            Project.create(there, size, 2, columns_of(4, fill), {"by": fill})
            outcomes.append(fill)
        except ProjectError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=make, args=(fill,)) for fill in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [outcome for outcome in outcomes if len(outcome) == 1]
    assert len(made) == 1 and all("exists already" in o for o in outcomes if len(o) > 1)
    project = Project.open(there)
    assert project.settings("micrographs") == {"by": made[0]}
    assert set(project.read("micrographs", "name")) == {made[0]}


def test_the_store_opens_with_xarray_alone(selected_there):
    """Nothing but zarr, xarray and obstore; no group that they do not know."""
    select(selected_there, "template", "first", THRESHOLDS)
    store = zarr.storage.ObjectStore(objects.client_of(selected_there.path), read_only=True)
    tree = xr.open_datatree(store, engine="zarr", consolidated=False)
    assert tree["picks/template"]["ncc"].dims == ("micrograph", "pick")
    version = tree["selection/first"].attrs["version"]
    assert tree[f"selection/first/{version}"]["counts"].sizes["micrograph"] == 6


def test_selections_are_replaced_whole_and_never_by_two(selected_there, monkeypatch):
    """A reader of the old one reads on; one who lost the lock, or knows an older one, replaces nothing."""
    where = selected_there.path
    stamp = save(where, "template", "mine", THRESHOLDS, None, "Ann")
    reader = Project.open(where).dataset("selection/mine")
    second = save(where, "template", "mine", SelectSettings(min_ncc=0.4), stamp, "Ann")
    assert int(reader["counts"].sum()) > 0
    with pytest.raises(Conflict, match="saved by Ann"):
        save(where, "template", "mine", SelectSettings(min_ncc=0.5), stamp, "Ben")

    fill = Project._fill

    def overtaken(self, *given):
        fill(self, *given)
        found = objects.read(where / "selection/mine/zarr.json")
        objects.write(where / "selection/mine/zarr.json", found + b" ")

    monkeypatch.setattr(Project, "_fill", overtaken)
    with pytest.raises(ProjectError, match="saved by somebody else meanwhile"):
        save(where, "template", "mine", SelectSettings(min_ncc=0.5), second, "Ben")
    monkeypatch.setattr(Project, "_fill", fill)
    assert load(Project.open(where), "mine").settings == SelectSettings(min_ncc=0.4)
    versions = {name.split("/")[0] for name in objects.listed(where / "selection/mine") if "/" in name}
    assert len(versions) == 2  # what is there, and the one before for those who read it


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("ending", [KeyboardInterrupt, ProjectError])
def test_a_save_that_got_no_answer_loses_nothing(there, monkeypatch, ending, carried_out):
    """Ctrl-C, or a store that went away, when the last request was on its way: what is named is whole either way."""
    project = small_project(there)
    write = objects.write

    def save_counts(project, value):
        counts = xr.Dataset({"counts": ("micrograph", np.full(4, value))})
        project.write_whole("selection", "mine", counts, {"value": value})

    def unanswered(url, data, *more):
        if url != there / "selection/mine/zarr.json":
            return write(url, data, *more)
        if carried_out:
            write(url, data, *more)
        raise ending

    save_counts(project, 1)
    with monkeypatch.context() as patched:
        patched.setattr(objects, "write", unanswered)
        with pytest.raises(ending):
            save_counts(project, 2)
    project, named = Project.open(there, "r+"), 2 if carried_out else 1
    assert project.settings("selection/mine") == {"value": named}
    assert project.dataset("selection/mine")["counts"].values.tolist() == [named] * 4
    save_counts(project, 3)
    assert project.dataset("selection/mine")["counts"].values.tolist() == [3] * 4
    versions = {name.split("/")[0] for name in objects.listed(there / "selection/mine") if "/" in name}
    assert len(versions) == 2  # what is there, and the one before for those who read it


def test_drafts_are_kept(picked_there):
    drafts = Drafts(picked_there.path)
    key = drafts.new_key()
    assert drafts.write(key, Draft("template", "", None, THRESHOLDS)) == ""
    assert drafts.read(key).settings == THRESHOLDS
    assert drafts.prune() == 0 and drafts.prune(days=-1) == 1
    assert drafts.read(key) is None


def test_the_dashboard_follows_what_is_written(picked_there):
    """Controller: bins, pictures and counts of a project in a bucket; a new fit and a new selection are seen."""
    inspector = Inspector(picked_there.path)
    try:
        assert inspector.calibration("template") is None
        before = inspector.look("template")
        calibrate(picked_there, "template", FIT)
        save(picked_there.path, "template", "mine", THRESHOLDS, None)
        after = inspector.look("template")
        assert before["picks"] != after["picks"] and before["saved"] != after["saved"]
        assert before["finished"] == after["finished"]
        assert inspector.calibration("template") is not None
        assert inspector.selections("template") == ["mine"]
        assert inspector.picture("template", "medians").startswith(b"\x89PNG")
        assert inspector.counts("template")["done"] == 6
    finally:
        inspector.background.close()


def test_no_secret_leaves_the_process(picked_there, small_settings, monkeypatch, s3, capfd):
    """Keys are planted in the environment: tasks, errors of a store that refuses, and messages are without them."""
    import cloudpickle

    from pickcal.stages.pick import PickTask
    from pickcal.stages.search import search_of

    made = search_of(picked_there, "template", small_settings)
    sent = cloudpickle.dumps(PickTask(made, 0, 2))
    assert str(picked_there.path).encode() in sent
    for secret in (SECRET, KEY):
        assert secret.encode() not in sent
    for error in (ValueError(f"Authorization: {SECRET}"), ProjectError(f"{KEY}/{SECRET}")):
        assert SECRET not in explain(error) and KEY not in explain(error)
    s3.faults(share=1.0)
    monkeypatch.setattr(objects, "RETRIES", 1)
    objects._client.cache_clear()
    with pytest.raises(ProjectError) as refused:
        Project.open(picked_there.path)
    s3.faults(share=0)
    objects._client.cache_clear()
    told = str(refused.value) + "".join(capfd.readouterr())
    assert "503" in told and SECRET not in told and KEY not in told


def test_requests_that_fail_or_hang_change_nothing(there, small_set, small_settings, picked, s3, monkeypatch):
    """One of fifty requests fails, half of them after the time that they may take: the picks are the same."""
    monkeypatch.setattr(objects, "TIMEOUT", 0.7)
    objects._client.cache_clear()
    s3.faults(share=0.02, hang=1.0, seed=5)
    result = ingest([small_set.micrographs], there, ImportSettings(batch=2), SerialExecutor(), Silent())
    assert (result.done, result.failed) == (6, 0), result.errors
    result = pick(Project.open(there, "r+"), "template", small_settings, SerialExecutor(), Silent())
    faults = s3.counted()["faults"]
    s3.faults(0)
    objects._client.cache_clear()
    assert (result.done, result.failed) == (6, 0) and faults > 10, result.errors
    assert_identical(
        Project.open(there).picks("template").load().drop_attrs(deep=False),
        Project.open(picked).picks("template").load().drop_attrs(deep=False),
    )


def test_a_stage_knows_what_is_left(picked_there, there, small_settings):
    """A batch that was lost is done again, and no other."""
    group = picked_there._array("picks/template", "status")
    group[2:4] = 0
    told = status(Project.open(there))
    assert told["picks"]["template"]["pending"] == 2
    result = pick(Project.open(there, "r+"), "template", small_settings, SerialExecutor(), Silent())
    assert (result.ran, result.done) == (2, 6)


def test_exports_go_to_urls_too(selected_there, there):
    settings = ExportSettings(format="csv", rejected=True)
    done = export(Project.open(there), "first", settings, there.parent / "out/picks.csv")
    assert done["files"] == [str(there.parent / "out/picks.csv")]
    assert done["rejected_files"] == [str(there.parent / "out/picks_rejected.csv")]
    assert objects.read(there.parent / "out/picks.csv").count(b"\n") == done["picks"] + 1


def test_missing_and_broken_sources_fail_alone(small_set, there, s3):
    data = there.parent / "data"
    s3.send(small_set.folder, data)
    names = sorted(name for name in objects.listed(data) if name.endswith(".mrc"))
    objects.remove(data / names[0])
    objects.write(data / names[1], objects.read(data / names[1])[:5000])
    result = ingest([data / "micrographs_ctf.star"], there, ImportSettings(batch=2), SerialExecutor(), Silent())
    assert (result.done, result.failed) == (4, 2)
    reasons = " ".join(reason for _, reason in result.errors)
    assert "no such object" in reasons and "truncated" in reasons and "/tmp" not in reasons
    with pytest.raises(MissingFileError, match="none of its micrographs found"):
        settings = ImportSettings(root=there.parent / "elsewhere")
        ingest([data / "micrographs_ctf.star"], there.parent / "q.zarr", settings, SerialExecutor(), Silent())
