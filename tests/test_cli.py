"""The command line as a user has it: commands in processes of their own, their words and exit codes.

What does not hang on the process is asked of `pickcal.cli.main` in this one, which starts twenty times faster.
"""

import json
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from handmade import noise, write_set
from ran import in_this_process
from scipy.optimize import linear_sum_assignment

import pickcal
from pickcal.present import render

JOBS = sorted((Path(__file__).parents[1] / "jobs").glob("*.toml"))
JOBS = [job for job in JOBS if not job.name.startswith("calibrate_")]  # those run in test_foreign_jobs.py
TRUTH = "sim/truth_particles.star"
SERIAL = "--cluster=serial"
SIDE = 400
SMALL = {"micrographs": 4, "seed": 1, "height": SIDE, "width": SIDE, "pixel-size": 4, "templates": 3}
SMALL |= {"particles-min": 12, "particles-max": 20}
SMALL |= dict.fromkeys(("empty", "crowded", "carbon", "ice-crystals", "aggregates"), 0)
SIMULATE = [f"--{name}={value}" for name, value in SMALL.items()]
FIGURES = {"precision", "recall", "f1", "average_precision"}


IN_PROCESSES = ("simulate", "import", "export")
"""Commands of the session that have processes of their own."""


@pytest.fixture(scope="module")
def session(cli, tmp_path_factory):
    """The commands of the README in order, the import on a real local cluster. Folder and results."""
    folder = tmp_path_factory.mktemp("session")
    commands = {
        "simulate": ["simulate", "sim", *SIMULATE, SERIAL],
        "import": ["import", "sim/micrographs_ctf.star", "--project", "p.zarr", "--workers=2"],
        "template": ["pick", "template", "p.zarr", "--templates", "sim/templates.mrcs", "--diameter", "150", SERIAL],
        "blob": ["pick", "blob", "p.zarr", "--diameter-min", "120", "--diameter-max", "160", SERIAL],
        "calibrate": ["calibrate", "p.zarr", "--picks", "template"],
        "select": ["select", "p.zarr", "--picks", "template", "--min-ncc", "0.3", "--name", "first"],
        "control": ["control", "p.zarr", "--picks", "template", "--selection", "first", "--seed", "3", SERIAL],
        "export": ["export", "p.zarr", "--selection", "first", "--format", "relion", "out/"],
        "picks": ["evaluate", "p.zarr", "--picks", "template", "--truth", "sim/truth_particles.star"],
        "selection": ["evaluate", "p.zarr", "--selection", "first", "--truth", "sim/truth_particles.star"],
    }
    results = {}
    for name, words in commands.items():
        run = partial(cli, code=0) if name in IN_PROCESSES else in_this_process
        results[name] = run(*words, "--json", cwd=folder)
    return folder, results


@pytest.fixture
def here(in_process, monkeypatch):
    """Run a command in this process, in a folder."""

    def run(*words, cwd):
        monkeypatch.chdir(cwd)
        return in_process(*words)

    return run


def test_every_command_ends_with_one_json_object(session):
    """And nothing else on standard output; progress is on standard error."""
    _, results = session
    for name, ran in results.items():
        assert isinstance(ran.json, dict), name
        assert len(ran.out.splitlines()) == 1, name
    assert "relative to" in results["import"].err
    assert "pick template: 4 of 4" in results["template"].err


@pytest.mark.parametrize("stage", ["import", "template", "blob"])
def test_stages_count_micrographs(session, stage):
    """All done, none failed."""
    result = session[1][stage].json
    assert (result["ran"], result["done"], result["failed"], result["pending"]) == (4, 4, 0, 0)
    assert result["errors"] == []


@pytest.mark.parametrize("what", ["picks", "selection"])
def test_evaluate_has_all_figures(session, what):
    """Every figure of the issue, as numbers in their range; the set is easy, so picking must be good."""
    result = session[1][what].json
    assert {*FIGURES, "raw", "per_micrograph_best_f1", "transfer_loss", "rho_defocus"} <= set(result)
    assert set(result["raw"]) >= FIGURES
    losses = result["transfer_loss"]
    assert set(losses) == set(result["rho_defocus"]) == {"raw", "calibrated", "probability"}
    for kind in losses:
        assert set(losses[kind]) == {"from_lowest_defocus", "from_highest_defocus"}
        assert all(-1 <= loss <= 1 for loss in losses[kind].values())
        assert -1 <= result["rho_defocus"][kind] <= 1
    assert all(0 <= result[name] <= 1 for name in (*FIGURES, "per_micrograph_best_f1"))
    assert result["average_precision"] > 0.9
    assert result["f1"] <= result["per_micrograph_best_f1"] + 1e-9
    if what == "picks":
        assert result["f1"] > 0.9


def test_figures_of_the_selection_follow_from_the_exported_files(session):
    """Precision and recall counted again from the particles file and the truth, with the best assignment."""
    folder, results = session
    found, true = (starfile.read(folder / name)["particles"] for name in ("out/particles.star", TRUTH))
    matches = counted = wanted = 0
    for name in true["rlnMicrographName"].unique():
        picks, particles = (_inner(table[table["rlnMicrographName"] == name]) for table in (found, true))
        near = np.linalg.norm(picks[:, None] - particles[None], axis=2) <= 0.35 * 150
        matches += near[linear_sum_assignment(near, maximize=True)].sum()
        counted, wanted = counted + len(picks), wanted + len(particles)
    result = results["selection"].json
    assert result["particles"] == wanted
    assert result["precision"] == pytest.approx(matches / counted, abs=0.03)
    assert result["recall"] == pytest.approx(matches / wanted, abs=0.03)


def _inner(table):
    """Positions in Å, at least half a diameter within a micrograph."""
    positions = table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy() * 4.0
    return positions[((positions >= 75) & (positions <= (SIDE - 1) * 4.0 - 75)).all(axis=1)]


def test_radius_changes_the_matching(session, here):
    """A hair's breadth finds less than 0.35 diameters."""
    folder, results = session
    words = ["evaluate", "p.zarr", "--picks", "template", "--truth", TRUTH, "--radius", "0.005", "--json"]
    code, out, _ = here(*words, cwd=folder)
    assert code == 0
    assert json.loads(out)["f1"] < results["picks"].json["f1"]


def test_selection_counts_agree_with_what_is_exported(session):
    """The same number in `select`, `export`, and the files; every accepted score is above the threshold."""
    folder, results = session
    accepted = results["select"].json["accepted"]
    assert accepted > 10
    assert results["export"].json["picks"] == accepted
    particles = starfile.read(folder / "out/particles.star")["particles"]
    assert len(particles) == accepted
    assert (particles["pickcalCalibratedNccScore"] >= 0.3).all()
    index = starfile.read(folder / "out/autopick.star")
    tables = [starfile.read(folder / path, always_dict=False) for path in index["rlnMicrographCoordinates"]]
    assert sum(len(table) for table in tables) == accepted
    assert all((folder / file).is_file() for file in results["export"].json["files"])


def test_control_in_words_and_in_json(session, here):
    """The same numbers both ways; real counts are those of the selection."""
    folder, results = session
    words = ["control", "p.zarr", "--picks", "template", "--selection", "first", "--seed", "3", SERIAL]
    result = results["control"].json
    assert result["real_accepted"] == pytest.approx(results["select"].json["accepted"] / 4)
    assert (result["micrographs"], result["of"], result["seed"]) == (4, 4, 3)
    _, out, _ = here(*words, cwd=folder)
    assert f"accepts {result['control_accepted']:.1f} picks a micrograph" in " ".join(out.split())
    assert f"in the real micrographs {result['real_accepted']:.1f}" in " ".join(out.split())
    _, out, _ = here(*words, "--micrographs", "2", "--json", cwd=folder)
    assert (json.loads(out)["micrographs"], json.loads(out)["of"]) == (2, 4)
    _, out, _ = here("status", "p.zarr", "--json", cwd=folder)
    assert "selection 'first' accepts" in json.loads(out)["control"]["template"]["verdict"]


def test_report_is_one_page(session):
    """The last of the README's commands: it is where it was asked for."""
    folder, _ = session
    ran = in_this_process("report", "p.zarr", "out/report.html", "--json", cwd=folder)
    assert ran.json["report"] == "out/report.html"
    page = folder / "out/report.html"
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")


def test_status_says_what_there_is_and_what_is_left(session, here):
    """For programs and for people."""
    folder, results = session
    status = in_this_process("status", "p.zarr", "--json", cwd=folder).json
    assert status["micrographs"]["done"] == 4
    assert set(status["picks"]) == {"template", "blob"}
    assert status["picks"]["template"]["done"] == 4
    assert list(status["calibration"]) == ["template"]
    assert status["selection"]["first"]["accepted"] == results["select"].json["accepted"]
    assert status["left"] == ["calibrate blob"]
    assert status["failures"] == []
    _, text, _ = here("status", "p.zarr", cwd=folder)
    assert "left: calibrate blob" in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


HEAVY = ("scipy", "numba", "xarray", "pandas", "dask", "distributed", "matplotlib", "panel")
"""What takes longer to import than a status takes."""


def test_status_starts_without_what_only_computing_takes(session):
    """Of a project with calibrated and other picks, a selection and a control: no datasets, no Dask, no plots."""
    folder, results = session
    code = (
        "import sys, json, zarr; theirs = set(sys.modules); project, *heavy = sys.argv[1:];"
        "from pickcal.project import Project; from pickcal.stages.status import status;"
        "print(json.dumps(status(Project.open(project))));"
        "print(*sorted(set(heavy) & set(sys.modules) - theirs))"
    )
    words = [sys.executable, "-c", code, str(folder / "p.zarr"), *HEAVY]
    said, heavy = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    found = json.loads(said)
    assert found["calibration"]["template"]["probability"]["verdict"]
    assert found["selection"]["first"]["accepted"] == results["select"].json["accepted"]
    assert "selection 'first' accepts" in found["control"]["template"]["verdict"]
    assert heavy == ""


def test_finished_stages_do_nothing_and_say_so(session, here):
    """The same commands once more."""
    folder, _ = session
    _, out, _ = here("import", "sim/micrographs_ctf.star", "--project", "p.zarr", SERIAL, "--json", cwd=folder)
    assert (json.loads(out)["ran"], json.loads(out)["done"]) == (0, 4)
    words = ["pick", "blob", "p.zarr", "--diameter-min", "120", "--diameter-max", "160", SERIAL]
    code, out, _ = here(*words, cwd=folder)
    assert code == 0
    assert "nothing to do" in out


def test_thresholds_replay(session, here, tmp_path):
    """A saved file gives the same selection; a file and values together are refused."""
    folder, results = session
    file = tmp_path / "thresholds.toml"
    words = ["select", "p.zarr", "--picks", "template"]
    here(*words, "--min-ncc", "0.3", "--name", "saved", "--save", file, cwd=folder)
    assert tomllib.loads(file.read_text())["thresholds"]["min_ncc"] == 0.3
    _, out, _ = here(*words, "--name", "replayed", "--thresholds", file, "--json", cwd=folder)
    assert json.loads(out)["accepted"] == results["select"].json["accepted"]
    code, _, err = here(*words, "--name", "both", "--thresholds", file, "--min-ncc", "0.4", cwd=folder)
    assert code == 1
    assert "expected a file or values, got both" in err


def test_figures_that_do_not_exist_are_null(session, here, tmp_path):
    """One micrograph has no correlation with defocus; the line of JSON is valid all the same."""
    sim = session[0] / "sim"
    star = tmp_path / "one.star"
    lines = (sim / "micrographs_ctf.star").read_text().splitlines(keepends=True)
    star.write_text("".join(line for line in lines if not any(f"mic_000{i}" in line for i in (2, 3, 4))))
    steps = [
        ["import", star, "--project", "p.zarr", "--root", sim, SERIAL],
        ["pick", "blob", "p.zarr", "--diameter-min", "140", "--diameter-max", "140", SERIAL],
        ["calibrate", "p.zarr", "--picks", "blob"],
        ["evaluate", "p.zarr", "--picks", "blob", "--truth", sim / "truth_particles.star"],
    ]
    for words in steps:
        code, out, err = here(*words, "--json", cwd=tmp_path)
        assert code == 0, err
        result = json.loads(out, parse_constant=pytest.fail)
    assert result["micrographs"] == 1
    assert result["transfer_loss"]["raw"]["from_lowest_defocus"] in (0, None)


def test_csv_export(session, here, tmp_path):
    """As many rows as picks, with both kinds of score."""
    folder, results = session
    here("export", "p.zarr", "--selection", "first", "--format", "csv", tmp_path / "picks.csv", cwd=folder)
    table = pd.read_csv(tmp_path / "picks.csv")
    assert len(table) == results["select"].json["accepted"]
    assert {"micrograph", "x_px", "y_px", "ncc", "calibrated_ncc", "power", "calibrated_power"} <= set(table)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status", "nowhere.zarr"], 1, "nowhere.zarr: no such project"),
        (["import", "nowhere.star", "--project", "q.zarr", SERIAL], 1, "nowhere.star"),
        (["import", "sim/micrographs_ctf.star", "--project", "p.zarr", "--clip", "9", SERIAL], 1, "clip: stored 6.0"),
        (["calibrate", "p.zarr", "--picks", "none"], 1, "no picks named 'none'; it has: blob, template"),
        (["export", "p.zarr", "out2", "--selection", "none"], 1, "no selection named 'none'; it has: first"),
        (["evaluate", "p.zarr", "--truth", "sim/truth_particles.star"], 1, "expected one of --picks NAME"),
        (["control", "p.zarr", "--picks", "none", SERIAL], 1, "no picks named 'none'; it has: blob, template"),
        (["control", "p.zarr", "--picks", "blob", "--selection", "first", SERIAL], 1, "is of picks 'template'"),
        (["control", "p.zarr", "--picks", "template", "--micrographs", "-1"], 2, "micrographs: expected greater"),
        (["select", "p.zarr", "--picks", "template", "--name", "first", "--min-ncc", "0.4"], 1, "min_ncc: stored 0.3"),
        (["select", "p.zarr", "--picks", "template", "--name", "../x"], 1, "expected a name"),
        (["run", "nowhere.toml"], 1, "nowhere.toml: no such job file"),
        (["pick", "blob", "p.zarr", "--diameter-min", "160", "--diameter-max", "120"], 2, "diameter_min: expected at"),
        (["pick", "blob", "p.zarr", "--diameter-min", "wide", "--diameter-max", "120"], 2, "wide"),
        (["pick", "template", "p.zarr", "--diameter", "150"], 2, "templates"),
        (["pick", "blob", "p.zarr", "--diameter-min", "5", "--diameter-max", "9"], 2, "diameter_min: expected greater"),
        (["status", "p.zarr", "--cluster", "serial"], 2, "--cluster"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_refusals(session, here, words, code, said):
    """The code, and a message of few lines that names the value; standard output stays empty."""
    found, out, err = here(*words, cwd=session[0])
    assert said in err
    assert (found, out) == (code, "")
    assert len(err.splitlines()) <= 4
    assert "pickcal: " in err
    assert not (session[0] / "q.zarr").exists()
    assert not (session[0] / "out2").exists()


def test_one_broken_micrograph_has_its_own_exit_code(cli, here, tmp_path):
    """3 from the import and from `status`, the micrograph named; 0 after it is repaired and imported again."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(3)])
    broken = tmp_path / "mics/m2.mrc"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50_000])
    words = ["import", star, "--project", tmp_path / "p.zarr", SERIAL, "--json"]
    first = cli(*words, code=3)
    assert first.json["failed"] == 1
    assert f"failed: mics/m2.mrc: {broken}: truncated" in first.err
    status = cli("status", tmp_path / "p.zarr", "--json", code=3).json
    assert [failure["micrograph"] for failure in status["failures"]] == ["mics/m2.mrc"]
    assert status["micrographs"] == {"total": 3, "pending": 0, "done": 2, "failed": 1, "skipped": 0}
    broken.write_bytes(whole)
    code, out, _ = here(*words, cwd=tmp_path)
    assert (code, json.loads(out)["ran"]) == (0, 1)
    code, out, _ = here("status", tmp_path / "p.zarr", "--json", cwd=tmp_path)
    assert (code, json.loads(out)["failures"]) == (0, [])


def test_refusal_of_a_real_process(cli, tmp_path):
    """As `here` sees them in this process, 1 and 2; nothing on standard output."""
    for words, code in ((["status", tmp_path / "nowhere.zarr"], 1), (["nonsense"], 2)):
        ran = cli(*words, code=code)
        assert ran.err.startswith("pickcal: ")
        assert ran.out == ""


def test_help_and_version(cli, here, tmp_path):
    """Exit codes are explained; the version is the package's."""
    assert cli("--version", code=0).out.strip() == pickcal.__version__
    code, text, _ = here("--help", cwd=tmp_path)
    assert code == 0
    assert "Exit codes" in text
    commands = ("simulate", "import", "pick", "calibrate", "select", "control", "export", "evaluate", "status")
    commands += ("report", "run")
    assert [command for command in commands if command not in text] == []


def write_job(folder, star, truth, templates):
    (folder / "job.toml").write_text(
        f'project = "{folder}/p.zarr"\nreport = "{folder}/report.html"\n'
        '[cluster]\ncluster = "serial"\n'
        f'[import]\nsources = ["{star}"]\n'
        f'[pick]\nmethod = "template"\ntemplates = "{templates}"\ndiameter = 150\n'
        "[calibrate]\n[select]\nmin_ncc = 0.3\n"
        f'[export]\npath = "{folder}/out"\n[evaluate]\ntruth = "{truth}"\n'
    )
    return folder / "job.toml"


def test_a_job_file_does_all_of_it(session, here, tmp_path):
    """The same numbers as the commands one by one; a second run does no stage again."""
    sim, results = session[0] / "sim", session[1]
    job = write_job(tmp_path, sim / "micrographs_ctf.star", sim / "truth_particles.star", sim / "templates.mrcs")
    result = in_this_process("run", job, "--json", cwd=tmp_path).json
    assert {"import", "pick", "calibrate", "select", "export", "evaluate", "report"} <= set(result)
    assert result["select"]["accepted"] == results["select"].json["accepted"]
    for figure in FIGURES:
        assert result["evaluate"][figure] == results["selection"].json[figure]
    assert (tmp_path / "report.html").is_file()
    job.write_text(job.read_text().replace(f'report = "{tmp_path}/report.html"', ""))
    _, out, _ = here("run", job, "--json", cwd=tmp_path)
    assert (json.loads(out)["import"]["ran"], json.loads(out)["pick"]["ran"]) == (0, 0)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pick.diameter=tall", "pick.diameter: expected a valid number"),
        ("pick.diamter=150", "did you mean 'diameter'?"),
        ("pick.diameter", "expected section.key=value, got 'pick.diameter'"),
        ("project.name=1", "'project' is a value, not a section"),
        ("cluster.cluster=elsewhere", "expected 'local', 'serial' or an address"),
        ("select.fdr=9", "select.fdr: expected less than 1, got 9"),
    ],
)
def test_wrong_overrides_are_refused_before_any_work(here, tmp_path, override, said):
    """The setting, what was expected and what was got."""
    job = write_job(tmp_path, "a.star", "b.star", "c.mrcs")
    code, _, err = here("run", job, "--set", override, cwd=tmp_path)
    assert code == 1
    assert said in err
    assert list(tmp_path.iterdir()) == [job]


@pytest.mark.parametrize("job", JOBS or [pytest.param(None, marks=pytest.mark.skip(reason="no files in jobs/"))])
def test_ready_jobs_run(session, here, tmp_path, monkeypatch, job):
    """Every file in jobs/ on the small set: paths, sizes and the cluster changed, the drawing left out for its time."""
    monkeypatch.setattr("pickcal.job_run.write_report", lambda _, path, plots: [path])
    values = tomllib.loads(job.read_text(encoding="utf-8"))
    sim = session[0] / "sim"
    given = {"project": tmp_path / "p.zarr", "cluster.cluster": "serial"}
    if "report" in values:
        given["report"] = tmp_path / "report.html"
    if "import" in values:
        given["import.sources"] = [str(sim / "micrographs_ctf.star")]
        if "root" in values["import"]:
            given["import.root"] = sim
    if values.get("pick", {}).get("method") == "template":
        given["pick.templates"] = sim / "templates.mrcs"
        given["pick.diameter"] = 150
    if values.get("pick", {}).get("method") == "blob":
        given |= {"pick.diameter_min": 120, "pick.diameter_max": 160}
    if "export" in values:
        suffix = {"csv": ".csv", "parquet": ".parquet"}.get(values["export"].get("format"), "")
        given["export.path"] = tmp_path / f"out{suffix}"
    if "simulate" in values:  # as the small set was, which is there already
        made = json.loads((sim / "settings.json").read_text())
        given |= {f"simulate.{key}": value for key, value in made.items() if value is not None}
    if "evaluate" in values:
        given["evaluate.truth"] = sim / "truth_particles.star"
    if "thresholds" in values.get("select", {}):
        given["select.thresholds"] = job.parent / Path(values["select"]["thresholds"]).name
    if "watch" in values:
        given |= {"watch.patience": 1, "watch.settle": 0, "watch.interval": 1, "watch.first": 2}
    overrides = [word for key, value in given.items() for word in ("--set", f"{key}={_toml(value)}")]
    code, out, err = here("run", job, *overrides, "--json", cwd=tmp_path)
    assert code == 0, err
    assert json.loads(out)["watch" if "watch" in values else "pick"]["done"] == 4
    assert [path.name for path in job.parent.iterdir() if path.suffix != ".toml"] == []


def _toml(value):
    return json.dumps(value if isinstance(value, (int, float, list)) else str(value))


def test_long_lists_of_files_are_counted():
    """An export of thousands of micrographs names its last file, not all; what is few is listed."""
    files = [f"out/m{i}.star" for i in range(500)]
    assert render({"picks": 3, "files": files}) == "picks: 3\nfiles: 500, the last out/m499.star"
    assert render({"files": files[:2]}) == "files: out/m0.star, out/m1.star"


def test_figures_are_told_with_their_units():
    """A bare 17107 might be anything; keys of `--json` stay without units."""
    said = render({"reference_defocus": 17107.0, "slope_per_um": [0.1], "particle_score_interval": [0.1, 0.2]})
    assert said == "reference defocus, Å: 17107\nslope per µm: 0.1000\nparticle score interval: 0.1000 to 0.2000"
    slow = [{"micrograph": "a.mrc", "seconds": 0.25}, {"micrograph": "b.mrc", "seconds": 2.0}]
    assert render({"slowest": slow, "peak_memory_mb": 344}) == (
        "slowest: a.mrc in 0.250 s, b.mrc in 2.000 s\npeak memory, MB: 344"
    )
