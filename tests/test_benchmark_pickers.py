"""The harness of the pickers' benchmark: what it computes from costs and picks must be right; it times nothing here."""

import math
import sys

import numpy as np
import pytest
from benchmarks.pickers import goals, measure, processes, scaling, tables
from benchmarks.pickers.accuracy import Picked, Truth, accuracy, ice_picked
from benchmarks.pickers.document import document
from benchmarks.pickers.processes import Cost, ProcessFailedError, Slope, added, slope
from benchmarks.pickers.sets import BenchmarkSet

FAR = (4095.0, 4095.0)


def grid(count):
    """Places 300 Å apart, none near the border."""
    side = math.ceil(math.sqrt(count))
    return np.array([(300.0 + 300.0 * (i // side), 300.0 + 300.0 * (i % side)) for i in range(count)])


def test_a_line_tells_start_up_from_micrographs():
    found = slope({4: Cost(2.0 + 4 * 0.3, 5.0 + 4 * 0.5, 300.0), 24: Cost(2.0 + 24 * 0.3, 5.0 + 24 * 0.5, 420.0)})
    assert found.cpu == pytest.approx(0.3)
    assert found.wall == pytest.approx(0.5)
    assert found.start == pytest.approx(2.0)
    assert found.memory == 420.0


def test_one_length_of_job_tells_no_line():
    with pytest.raises(ValueError, match="at least two lengths"):
        slope({4: Cost(1.0, 1.0, 1.0)})


def test_stages_add_up_but_their_memory_does_not():
    both = added([Slope(0.1, 0.2, 1.0, 300.0), Slope(0.2, 0.3, 2.0, 200.0)])
    assert both == Slope(pytest.approx(0.3), pytest.approx(0.5), pytest.approx(3.0), 300.0)


def test_repeats_are_judged_by_their_middle_one():
    found = processes.median([Slope(0.3, 0.5, 2.0, 400.0), Slope(0.9, 0.4, 1.0, 410.0), Slope(0.2, 9.0, 3.0, 390.0)])
    assert found == Slope(0.3, 0.5, 2.0, 400.0)


def test_a_step_that_fails_stops_no_other_and_an_update_keeps_the_rest(monkeypatch, tmp_path):
    def works(run):
        run.add_cost("ours", Slope(0.2, 0.3, 1.0, 100.0))

    def fails(run):
        raise measure.NotMeasuredError("it is not installed")

    monkeypatch.setattr(measure, "STEPS", {"other": fails, "costs": works})
    monkeypatch.setattr(measure, "describe", lambda: {})
    known = {"costs": [{"program": "theirs", "cpu": 33.0}, {"program": "ours", "cpu": 9.0}]}
    run = measure.Run(BenchmarkSet("own", "made up", {}), tmp_path, False, (4, 24), known)
    saved = []
    found = measure.measure(run, ("other", "costs"), lambda line: None, lambda results: saved.append(dict(results)))
    assert len(saved) == 2
    assert found["skipped"] == {"other": "it is not installed"}
    assert [(row["program"], row["cpu"]) for row in found["costs"]] == [("theirs", 33.0), ("ours", 0.2)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_cpu_of_orphans_is_counted(tmp_path):
    """A child that outlives its parent, as workers of a fork server do, spends half a second that must not be lost."""
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {busy!r}])"
    assert processes.run([sys.executable, "-c", parent], tmp_path).cpu > 0.5


def test_memory_is_that_of_the_command_however_large_this_process_is(tmp_path):
    here = np.ones(400 * 2**17)
    script = "x = bytearray(100 * 2**20); x[::4096] = b'1' * len(x[::4096]); print('started'); print('done')"
    found = processes.run([sys.executable, "-c", script], tmp_path)
    assert here.nbytes > 300 * 2**20
    assert 100.0 < found.memory < 200.0
    assert found.output.split() == ["started", "done"]


def test_start_up_ends_at_the_mark(tmp_path):
    script = "import time\nwhile time.process_time() < 0.4: pass\nprint('picking', flush=True)\ntime.sleep(1)\n"
    script += "while time.process_time() < 1.0: pass"
    found = processes.run([sys.executable, "-c", script], tmp_path, mark="picking")
    assert 0.35 < found.before < found.cpu
    assert found.cpu > 1.0
    assert found.wall_before < found.wall


def test_a_command_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(ProcessFailedError, match=r"exit code 3: .*no such map"):
        processes.run([sys.executable, "-c", "import sys; print('no such map'); sys.exit(3)"], tmp_path)


def test_figures_of_known_picks():
    """Nine particles: eight found at 3 Å, one missed, a second pick on one of them, one blob of ice taken of two."""
    particles = grid(9)
    ice = np.array([[2000.0, 2000.0], [2600.0, 2600.0]])
    found = np.add(particles[:8], [3.0, 0.0])
    points = np.concatenate([found, [particles[0] + [30.0, 0.0]], [ice[0] + [40.0, 40.0]], [ice[1] + [60.0, 60.0]]])
    scores = np.concatenate([np.linspace(0.9, 0.8, 8), [0.7, 0.6, 0.1]])
    truth = Truth(particles, ice, FAR)
    best = accuracy([Picked(points, scores)], [truth], 150.0)
    assert best.f1 == pytest.approx(16 / 17)
    assert best.error == pytest.approx(3.0)
    assert (best.ice, best.ice_blobs) == (0, 2)
    assert best.average_precision == pytest.approx(8 / 9)
    lower = accuracy([Picked(points, scores)], [truth], 150.0, 0.5)
    assert lower.f1 == pytest.approx(2 * 8 / (9 + 10))
    assert lower.ice == 1


def test_the_radius_is_a_quarter_of_the_diameter():
    particles = grid(2)
    points = np.add(particles, [[37.4, 0.0], [37.6, 0.0]])
    found = accuracy([Picked(points, np.array([1.0, 1.0]))], [Truth(particles, np.zeros((0, 2)), FAR)], 150.0)
    assert found.f1 == pytest.approx(0.5)


def test_one_threshold_serves_all_micrographs():
    """Each micrograph alone would reach 1; their scores do not meet, so together they cannot."""
    particles = grid(4)
    junk = np.add(particles, [120.0, 120.0])
    truth = Truth(particles, np.zeros((0, 2)), FAR)
    points = np.concatenate([particles, junk])
    low = Picked(points, np.array([0.3] * 4 + [0.2] * 4))
    high = Picked(points, np.array([0.6] * 4 + [0.5] * 4))
    assert accuracy([low], [truth], 150.0).f1 == accuracy([high], [truth], 150.0).f1 == 1.0
    assert accuracy([low, high], [truth, truth], 150.0).f1 == pytest.approx(16 / 20)


def test_a_particle_beside_ice_is_no_ice():
    particles = grid(1)
    truth = Truth(particles, np.add(particles, [20.0, 0.0]), FAR)
    assert accuracy([Picked(particles, np.ones(1))], [truth], 150.0).ice == 0


def test_blobs_of_ice_count_once_each():
    ice = np.array([[0.0, 0.0], [500.0, 0.0], [1000.0, 0.0]])
    points = np.array([[10.0, 0.0], [-10.0, 0.0], [560.0, 0.0], [1100.0, 0.0]])
    assert ice_picked(points, ice, 75.0) == 2
    assert ice_picked(np.zeros((0, 2)), ice, 75.0) == 0
    assert ice_picked(points, np.zeros((0, 2)), 75.0) == 0


def results():
    """Results as a run saves them, made up."""
    figures = {"f1": 0.99, "average_precision": 0.98, "ice": 2, "ice_blobs": 48, "error": 1.2, "threshold": 0.5}
    cost = {"wall": 0.4, "start": 2.0, "memory": 350.0}
    stage = {"cpu": 12.0, "wall": 8.0, "memory": 250.0}
    return {
        "date": "2026-01-02",
        "counts": [4, 24],
        "machine": {
            "processor": "A processor of some family",
            **{"cores": 2, "memory": 16, "system": "Linux", "python": "3.11.1", "packages": {"numpy": "2.4.0"}},
            **{"relion": "3.1.3", "topaz": None},
        },
        "set": {"name": "given", "description": "a set of four micrographs"},
        "floor": {"read": 0.01, "fft": 0.05, "library": "scipy", "floor": 0.06},
        "costs": [
            {"program": goals.MAIN, "cpu": 0.30, **cost},
            {"program": "pickcal, 200 templates", "cpu": 0.60, **cost},
            {"program": goals.RELION, "cpu": 33.0, **cost},
        ],
        "accuracy": [
            {"program": f"{goals.MAIN}: probability", "easy": figures, "hard": {**figures, "error": None}},
            {"program": goals.LOG, "easy": figures},
        ],
        "memory": {"4096": 500.4, "8192": 1200.0},
        "workers": {
            "micrographs": 240,
            **{str(n): {"wall": 60.0 / n, "throughput": 4.0 * n, "busy": 0.995} for n in (1, 2)},
            **{"gain": 2.0, "gains": [1.96, 2.0, 2.04], "gain_with_start": 2.0, "attainable": 1.9},
        },
        "numbers": {str(n): dict.fromkeys(("import", "pick", "calibrate"), stage) for n in (10, 10_000)},
        "skipped": {"topaz": "it is not on the PATH"},
    }


def test_goals_are_judged_on_their_side_of_the_bound():
    judged = {text.rsplit(":", 1)[0]: (value, met) for text, value, met in goals.verdicts(results())}
    assert judged["CPU of RELION / of pickcal, 50 templates"] == ("110", "yes")
    assert judged["CPU / floor, 50 templates"] == ("5.0", "yes")
    assert judged["cost of 200 templates / of 50"] == ("2.00", "no")
    assert judged["memory of a worker at 8192 x 8192, MB"] == ("1200", "no")
    assert judged["CPU s, blobs again from the store"] == ("-", "not measured")
    assert judged["median centre error, Å"] == ("1.20", "yes")


def test_goals_of_the_given_set_are_not_asked_of_ours():
    ours = {**results(), "set": {"name": "own", "description": "ours"}}
    left_out = {text for text, _, _ in goals.verdicts(results())} - {text for text, _, _ in goals.verdicts(ours)}
    assert left_out == {"F1, 50 templates: at least 0.985", "F1 at a fifth of the signal: at least 0.82"}


def test_a_stage_takes_from_its_first_batch_to_the_end_of_its_last():
    """Whatever the order in which they ended, and whatever other events lie around them."""
    times = [("batch", 12.0, 15.0), ("batch", 11.0, 16.5), ("batch", 15.0, 16.0)]
    records = [{"event": event, "began": began, "ended": ended} for event, began, ended in times]
    batches = scaling.batches_of([{"event": "begin", "at": 1.0}, *records, {"event": "end", "at": 20.0}])
    assert batches == records
    assert scaling.span_of(batches) == 5.5


def test_every_table_fits_a_hundred_columns_and_is_whole():
    text = document([results()])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, text.splitlines())) <= 120
    assert max(map(len, rows)) <= 100
    assert "Not measured: topaz: it is not on the PATH." in text
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [goals.RELION, "33.000", "0.400", "2.0", "350", "550.0"] in cells
    assert [goals.LOG, "0.990", "0.980", "2/48", "1.2", "-", "-", "-", "-"] in cells
    assert ["2 workers", "30.0", "8.00", "99.5%"] in cells and "1.96, 2.00, 2.04 times" in text.replace("\n", " ")


def test_columns_are_aligned():
    lines = tables.table(["", "F1"], [["a", "0.5"], ["longer", "10.25"]]).splitlines()
    assert lines == ["|        |    F1 |", "| :----- | ----: |", "| a      |   0.5 |", "| longer | 10.25 |"]
