"""Errors say what to do next, wrong names suggest the right one, quiet and verbose mean it."""

import errno
import json

import pytest
from handmade import noise, write_set
from obstore.exceptions import GenericError, PermissionDeniedError
from small_project import make_project

from pickcal.cli import entry


@pytest.fixture
def here(in_process, monkeypatch, tmp_path):
    """Run a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return in_process


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["pick", "template", "p.zarr", "--templates", "t.mrcs", "--diamter", "150"],
            "--diamter: no such flag; did you mean --diameter?",
        ),
        (["calibrate", "p.zarr", "--picks", "a", "--degre", "2"], "--degre: no such flag; did you mean --degree?"),
        (
            ["export", "p.zarr", "out", "--selection", "a", "--fdr", "0.05"],
            "--fdr: no such flag; it is a flag of 'select'",
        ),
        (["selct", "p.zarr", "--picks", "a"], "selct: no such command; did you mean 'pickcal select'?"),
        (["template", "p.zarr"], "template: no such command; did you mean 'pickcal pick template'?"),
        (["pick", "tmplate"], "tmplate: no such command; did you mean 'pickcal pick template'?"),
        (["pick", "xyz"], "xyz: no such command; expected template, blob"),
        (["export", "p.zarr", "out", "--selection", "a", "--format", "relon"], "relion"),
        (["pick", "template", "p.zarr", "--diameter", "150"], "'pickcal pick template --help'"),
        (["calibrate", "p.zarr"], "'pickcal calibrate --help'"),
        (["calibrate", "p.zarr"], "--picks is missing; as in: pickcal calibrate p.zarr --picks template"),
        (["calibrate", "p.zarr", "--picks"], "--picks: expected a value after it, got none"),
        (["calibrate"], "PROJECT is missing; as in: pickcal calibrate p.zarr"),
        (["import", "a b.star"], "type: pickcal import 'a b.star' --project p.zarr"),
        (["import", "p.zarr"], "type: pickcal import micrographs_ctf.star --project p.zarr"),
    ],
)
def test_wrong_words_suggest_the_right_ones(here, words, said):
    """And say where all of them are; code 2, nothing on standard output."""
    code, out, err = here(*words)
    assert said in err
    assert "--help' tells" in err
    assert (code, out) == (2, "")


JOB = """
project = "p.zarr"
[import]
sources = ["a.star"]
[pick]
method = "blob"
diameter_min = 120
diameter_max = 160
"""


@pytest.mark.parametrize(
    ("more", "override", "said"),
    [
        ("", "pick.diamter_min=150", "pick.diamter_min: no such setting; did you mean 'diameter_min'?"),
        ("", "pick.templates=t.mrcs", "pick.templates: no such setting; it is a setting of method 'template'"),
        ("", "pik.diameter_min=150", "pik: no such setting; did you mean 'pick'?"),
        ("[calibrate]\ndegre = 2\n", "project=q.zarr", "calibrate.degre: no such setting; did you mean 'degree'?"),
        ("[select]\nmin_scor = 2\n", "project=q.zarr", "select.min_scor: no such setting; did you mean 'min_score'?"),
        ("[calibrate]\nfdr = 0.1\n", "project=q.zarr", "calibrate.fdr: no such setting; it is a setting of [select]"),
        ("[cluster]\nworker = 3\n", "project=q.zarr", "cluster.worker: no such setting; did you mean 'workers'?"),
        ("[cluster]\nclster = 'local'\n", "project=q.zarr", "did you mean 'cluster'?"),
        ("[calibrate]\nxyzzy = 3\n", "project=q.zarr", "there are ncc, power, median_of"),
    ],
)
def test_wrong_names_in_job_files_suggest_those_of_their_section(here, tmp_path, more, override, said):
    """A name of another section is sent there; one like nothing is answered with all there are."""
    (tmp_path / "job.toml").write_text(JOB + more)
    code, _, err = here("run", "job.toml", "--set", override)
    assert said in err
    assert code == 1


def test_the_project_of_an_import_may_stand_first(here, tmp_path):
    """As every other command takes it; with the flag before or after, nothing changes."""
    star = write_set(tmp_path, [noise(seed=1)])
    code, out, _ = here("import", "p.zarr", star, "--cluster=serial", "--json")
    assert (code, json.loads(out)["done"]) == (0, 1)
    code, out, _ = here("import", star, "--project", "p.zarr", "--cluster=serial", "--json")
    assert (code, json.loads(out)["ran"]) == (0, 0)


def test_a_selection_says_what_it_rejects_for(here, tmp_path):
    """Counts of reasons in one line, of all picks; the JSON has them apart."""
    make_project(tmp_path / "p.zarr")
    words = ["select", "p.zarr", "--picks", "template", "--min-score", "0.3", "--name", "a"]
    _, text, _ = here(*words)
    counts = json.loads(here(*words, "--json")[1])
    rejected = {reason: counts[reason] for reason in ("edge", "low score", "by hand")}
    assert rejected["low score"] > 0 and rejected["by hand"] == 0
    assert f"accepted: {counts['accepted']} of {counts['accepted'] + sum(rejected.values())} picks\n" in text
    assert f"rejected for: low score {rejected['low score']}\n" in f"{text}\n"
    assert "by hand" not in text


def test_quiet_and_verbose(here, tmp_path):
    """Quiet names failures and nothing else; verbose tells of every batch; both at once are refused."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(3)])
    broken = tmp_path / "mics/m2.mrc"
    broken.write_bytes(broken.read_bytes()[:50_000])
    words = ["import", star, "--cluster=serial", "--batch=1", "--json"]
    code, out, err = here(*words, "--project=a.zarr", "--quiet")
    assert (code, json.loads(out)["failed"]) == (3, 1)
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["failed"]
    code, out, err = here(*words, "--project=b.zarr", "-v")
    assert (code, json.loads(out)["failed"]) == (3, 1)
    assert len([line for line in err.splitlines() if line.startswith("stage.batch: ")]) == 3
    code, out, err = here(*words, "--project=c.zarr", "-q", "-v")
    assert (code, out) == (1, "")
    assert "expected at most one of them" in err


def test_verbose_says_where_an_error_arose(here):
    """The trace of calls, and below it the same message as ever."""
    code, _, err = here("status", "nowhere.zarr", "--verbose")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1] == "pickcal: nowhere.zarr: no such project; make one with 'pickcal import'"
    assert "Traceback" not in here("status", "nowhere.zarr")[2]


def test_missing_things_are_answered_with_those_that_are_there(here, tmp_path):
    """A job file or picks of nearly that name; of nothing like it, what there is, or how to make it."""
    (tmp_path / "templates.toml").write_text(JOB)
    assert "no such job file; did you mean 'templates.toml'?" in here("run", "templtes.toml")[2]
    make_project(tmp_path / "p.zarr", micrographs=4, calibrate=False)
    _, _, err = here("calibrate", "p.zarr", "--picks", "tmplate")
    assert "no picks named 'tmplate'; it has: template; did you mean 'template'?" in err
    _, _, err = here("export", "p.zarr", "out", "--selection", "auto")
    assert "no selection named 'auto'; it has: none; 'pickcal select' makes one" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "p.zarr"), "No space left on device: p.zarr: make room and"),
        (OSError(errno.EROFS, "Read-only file system", "p.zarr"), "pickcal: Read-only file system: p.zarr\n"),
        (GenericError("no answer"), "the object store failed (no answer); the same command goes on when it answers"),
        (PermissionDeniedError("403"), "the object store refuses access (403); are credentials where they are looked"),
    ],
)
def test_errors_from_below_are_told_in_words(monkeypatch, capsys, error, said):
    """Of disks and object stores, wherever they come from; what is no matter of the user's is not swallowed."""

    def fail(*given, **options):
        raise error

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(SystemExit) as ended:
        entry.main([])
    assert ended.value.code == 1 and said in capsys.readouterr().err
    error = RuntimeError("a fault of the program")
    with pytest.raises(RuntimeError, match="a fault of the program"):
        entry.main([])
