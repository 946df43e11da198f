"""Counts from bins against judging every pick."""

import shutil

import numpy as np
import pytest
from small_project import make_project

from pickcal.dashboard.binned import binning, changes, reading
from pickcal.dashboard.binned.binning import Binning, defocus_bins
from pickcal.dashboard.binned.grids import Grid, border_grid, power_grid, probability_grid, rate_grid, score_grid
from pickcal.dashboard.methods import MAIN, fixed_of
from pickcal.dashboard.truth import TrueRow
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, REASONS, Columns, rejection_reasons
from pickcal.settings import HandPick, SelectSettings
from pickcal.stages.select import Judge, automatic

METHODS = ("raw", "line", "probability", "fdr")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A calibrated project with scores and powers that are not known, and a micrograph without defocus."""
    project = make_project(tmp_path_factory.mktemp("cube") / "p.zarr", micrographs=12)
    for name, places in (("ncc", (3, 40)), ("power", (7, 50, 90))):
        array = project._array("picks/template", name)
        values = array[...]
        values[2:6, list(places)] = np.nan
        array[...] = values
    for name in ("defocus_u", "defocus_v"):
        project._array("micrographs", name)[5] = np.nan
    return project.path


@pytest.fixture
def project(path):
    return Project.open(path)


@pytest.fixture
def copied(path, tmp_path):
    """A copy that may be changed."""
    return Project.open(shutil.copytree(path, tmp_path / "p.zarr"), mode="r+")


def binned(project, method, extra=None, truth=None, **fixed):
    """A finished binning."""
    settings = SelectSettings(raw=method == "raw", **fixed)
    out = Binning(project, "template", method, fixed_of(settings, method), extra, truth)
    for _ in out.steps():
        pass
    return out


@pytest.fixture(scope="module")
def cubes(path):
    found = {}

    def get(method):
        if method not in found:
            found[method] = binned(Project.open(path), method).cube
        return found[method]

    return get


STAGES = {}


def stage_of(project):
    """All picks as the stage reads them, with calibration and likelihood; read once."""
    key = project.path, project.done("picks/template").tobytes()
    if key not in STAGES:
        found = Judge(project, "template", SelectSettings()).block(0, project.count)
        STAGES[key] = found.picks, found.calibration, project.table(), found.likelihood
    return STAGES[key]


def columns_of(project, method):
    """All picks in plain arrays."""
    return Columns.of(*stage_of(project), raw=method == "raw")


class Truth:
    """What the stages say of every pick."""

    def __init__(self, project, settings):
        picks, calibration, micrographs, likely = stage_of(project)
        self.reasons = rejection_reasons(picks, calibration, micrographs, settings, likely)
        self.accepted = self.reasons == ACCEPTED
        self.totals = np.array([(self.reasons == i).sum() for i in range(len(REASONS))])
        if likely is not None:
            sure, self.junk = (np.nansum(likely[name].values[self.accepted]) for name in ("probability", "junk"))
            self.noise = self.accepted.sum() - sure - self.junk

    def per_bin(self, project, bins):
        defocus = 0.5 * (project.read("micrographs", "defocus_u") + project.read("micrographs", "defocus_v"))
        _, of = defocus_bins(defocus * 1e-4)
        return np.array([self.accepted[of == i].sum() for i in range(bins)])


def check(project, cube, settings):
    """Counts equal what judging every pick gives."""
    found, truth = cube.counts(settings), Truth(project, settings)
    assert found.reasons.tolist() == truth.totals.tolist(), settings
    assert found.accepted.tolist() == truth.per_bin(project, len(found.accepted)).tolist(), settings
    np.testing.assert_allclose([found.noise, found.junk], [truth.noise, truth.junk], rtol=1e-5, atol=1e-3)
    assert found.exact
    return found


def some_settings(cube, rng, project, hands=False):
    """Thresholds on edges, each there or not."""
    powers = np.sort(rng.choice(cube.power.edges, 2))
    values = {
        MAIN[cube.method]: rng.choice(cube.main.edges),
        "min_power": powers[0],
        "max_power": powers[1],
        "edge": rng.choice(cube.border.edges),
    }
    chosen = {name: float(value) for name, value in values.items() if rng.random() < 0.7}
    if hands:
        names = [str(name) for name in project.read("micrographs", "name")]
        x, y = (project.read("picks/template", name) for name in ("x", "y"))
        picks = [HandPick(micrograph=names[i], x=float(x[i, k]), y=float(y[i, k])) for i, k in BY_HAND]
        chosen |= {"accept": tuple(picks[:4]), "reject": tuple(picks[4:])}
        chosen["exclude"] = (names[8], names[3], names[11])
    return SelectSettings(raw=cube.method == "raw", **chosen)


BY_HAND = ((1, 10), (1, 100), (4, 60), (8, 3), (1, 11), (4, 5), (2, 3), (3, 9))
"""Micrograph and place of picks that are accepted and then of some that are rejected; two on excluded micrographs."""


@pytest.mark.parametrize("method", METHODS)
def test_counts_on_edges_are_those_of_the_stage(project, cubes, method):
    rng = np.random.default_rng(METHODS.index(method))
    cube = cubes(method)
    seen = sum(check(project, cube, some_settings(cube, rng, project)).reasons for _ in range(15))
    main = {"probability": "probability", "fdr": "false discovery rate"}.get(method, "low score")
    assert all(seen[REASONS.index(name)] for name in ("accepted", "edge", "low power", "high power", main))


@pytest.mark.parametrize("method", METHODS)
def test_excluded_micrographs_and_decisions_by_hand(project, cubes, method):
    rng = np.random.default_rng(7)
    cube = cubes(method)
    settings = some_settings(cube, rng, project, hands=True)
    for _ in cube.prepare(settings):
        pass
    seen = check(project, cube, settings).reasons
    for _ in range(8):
        seen = seen + check(project, cube, some_settings(cube, rng, project, hands=True)).reasons
    assert seen[REASONS.index("micrograph")] and seen[REASONS.index("by hand")]


def test_a_pick_accepted_and_rejected_is_refused(project, cubes):
    x, y = (float(project.read("picks/template", name)[1, 2]) for name in ("x", "y"))
    hand = HandPick(micrograph=str(project.read("micrographs", "name")[1]), x=x, y=y)
    with pytest.raises(InputError, match="in both"):
        cubes("line").counts(SelectSettings(accept=(hand,), reject=(hand,)))
    far = hand.model_copy(update={"x": -500.0})
    with pytest.raises(InputError, match="no pick of"):
        cubes("line").counts(SelectSettings(accept=(far,)))


def test_many_excluded_micrographs_are_read_in_the_background(project, monkeypatch):
    monkeypatch.setattr(changes, "MOST_LISTED", 10)
    cube = binned(project, "line").cube
    names = tuple(str(name) for name in project.read("micrographs", "name")[:7])
    settings = SelectSettings(exclude=names, min_ncc=cube.main.snap(0.3))
    assert not cube.counts(settings).exact and cube.pending(settings) == 3
    assert list(cube.prepare(settings))[-1] == 1.0
    check(project, cube, settings)
    few = settings.model_copy(update={"exclude": names[:2]})
    total = cube.plane(few).accepted.sum(), Truth(project, few).accepted.sum()
    assert abs(total[0] - total[1]) < 20


@pytest.mark.parametrize("method", ["raw", "probability"])
def test_more_excluded_micrographs_than_are_kept_are_counted_exactly(project, monkeypatch, method):
    """The picks of two micrographs are kept at most: others are read once, and again where they are taken back in."""
    monkeypatch.setattr(changes, "MOST_LISTED", 500)
    monkeypatch.setattr(changes, "MOST_CELLS", 400)
    read, original = [], Binning._read_row
    monkeypatch.setattr(Binning, "_read_row", lambda self, row: [read.append(row), original(self, row)][1])
    cube = binned(project, method, probability=0.2 if method == "raw" else None).cube
    names = [str(name) for name in project.read("micrographs", "name")]
    rng = np.random.default_rng(5)

    def decided(rows, hands=False):
        settings = some_settings(cube, rng, project, hands)
        if method == "raw":
            settings = settings.model_copy(update={"probability": 0.2})
        settings = settings.model_copy(update={"exclude": tuple(names[row] for row in rows)})
        list(cube.prepare(settings))
        assert cube.pending(settings) == 0
        check(project, cube, settings)
        accepted = cube.plane(settings).ncc_accepted.sum()
        assert abs(accepted - Truth(project, settings).accepted.sum()) <= 40
        for row in rows:
            left = cube.counts(settings.model_copy(update={"exclude": tuple(names[i] for i in rows if i != row)}))
            assert left.exact

    decided(range(8))
    read.clear()
    settings = SelectSettings(raw=method == "raw", probability=0.2, exclude=tuple(names[:9]))
    list(cube.prepare(settings))
    check(project, cube, settings)
    assert read == [8]
    for rows in (range(9), range(2, 9), (), (1,), range(10), (9, 0, 3, 4, 8, 6)):
        decided(rows, hands=True)


@pytest.mark.parametrize(
    ("method", "fixed"),
    [
        ("line", {"probability": 0.6}),
        ("raw", {"fdr": 0.03, "probability": 0.2}),
        ("probability", {"min_ncc": 0.33, "fdr": 0.1}),
        ("fdr", {"min_ncc": 0.3}),
    ],
)
def test_fixed_thresholds_count_under_their_own_reason(project, method, fixed):
    cube = binned(project, method, **fixed).cube
    rng = np.random.default_rng(3)
    for hands in (False, True) * 4:
        settings = some_settings(cube, rng, project, hands).model_copy(update=fixed)
        list(cube.prepare(settings))
        check(project, cube, settings)
    with pytest.raises(AssertionError, match="other fixed"):
        cube.counts(SelectSettings(raw=method == "raw"))


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_that_are_equal_to_a_pick_are_exact(project, method):
    columns = columns_of(project, method)
    main = {"probability": columns.probability, "fdr": columns.q_value}.get(method, columns.ncc)
    rng = np.random.default_rng(0)

    def some(values):
        values = values[columns.valid & np.isfinite(values) & (values > 0)]
        return [float(value) for value in rng.choice(values, 6, replace=False)]

    # scores in single precision are compared with the threshold in single precision
    between = [float(np.nextafter(value, 2.0)) for value in some(main)]
    extra = {MAIN[method]: some(main) + between, "min_power": some(columns.power), "edge": some(columns.border)}
    cube = binned(project, method, extra).cube
    for value in extra[MAIN[method]]:
        check(project, cube, SelectSettings(raw=method == "raw", **{MAIN[method]: value}))
    for value in extra["min_power"]:
        low = check(project, cube, SelectSettings(raw=method == "raw", min_power=value))
        high = check(project, cube, SelectSettings(raw=method == "raw", max_power=value))
        assert (low.reasons + high.reasons)[ACCEPTED] > low.reasons.sum(), "the pick itself passes both"
    for value in extra["edge"]:
        check(project, cube, SelectSettings(raw=method == "raw", edge=value))


def test_the_proposal_of_the_mixture_is_exact(project, cubes):
    settings = automatic(project, "template", SelectSettings())
    assert settings.max_power is not None
    check(project, cubes("probability"), settings)


def test_between_edges_counts_are_estimates_between_those_of_the_edges(project, cubes):
    for method in METHODS:
        cube = cubes(method)
        i = cube.main.index(0.37 if method in ("raw", "line") else 0.02 if method == "fdr" else 0.8)
        low, high = (float(cube.main.edges[k]) for k in (i, i + 1))
        counts = [
            cube.counts(SelectSettings(raw=method == "raw", **{MAIN[method]: value}))
            for value in (low, 0.5 * (low + high), high)
        ]
        accepted = [int(found.reasons[ACCEPTED]) for found in counts]
        assert [found.exact for found in counts] == [True, False, True]
        assert abs(accepted[1] - 0.5 * (accepted[0] + accepted[2])) <= 1
    cube = cubes("line")
    total = cube.counts(SelectSettings()).reasons.sum()
    for settings in (SelectSettings(min_ncc=1.5), SelectSettings(min_ncc=-1.5), SelectSettings(max_power=1e6)):
        found = check(project, cube, settings)
        assert found.reasons.sum() == total
    edges = [float(cube.border.edges[i]) for i in (8, 9)]
    found = [cube.counts(SelectSettings(edge=value)) for value in (edges[0], sum(edges) / 2, edges[1])]
    accepted = [int(counts.reasons[ACCEPTED]) for counts in found]
    assert accepted[0] > accepted[1] > accepted[2] and not found[1].exact


@pytest.mark.parametrize("method", METHODS)
def test_the_curve_gives_accepted_picks_per_micrograph_of_each_class(project, cubes, method):
    cube = cubes(method)
    names = [str(name) for name in project.read("micrographs", "name")]
    others = {"min_power": float(cube.power.edges[10]), "exclude": (names[0],), "raw": method == "raw"}
    curve, left = cube.curve(SelectSettings(**others)), cube.counts(SelectSettings(**others)).micrographs
    assert left.sum() == cube.micrographs.sum() - 1 and (left <= cube.micrographs).all()
    assert curve.shape == (3, len(cube.main.edges))
    assert [(part.start, part.stop) for part in cube.classes] == [(0, 3), (3, 7), (7, 10)]
    done = project.done("picks/template") == Status.DONE
    for i in range(0, len(cube.main.edges), 60):
        settings = SelectSettings(**others, **{MAIN[method]: float(cube.main.edges[i])})
        accepted = Truth(project, settings).per_bin(project, len(cube.micrographs))
        for k, part in enumerate(cube.classes):
            defocus = 0.5e-4 * (project.read("micrographs", "defocus_u") + project.read("micrographs", "defocus_v"))
            _, of = defocus_bins(defocus)
            inside = np.isin(of, np.arange(part.start, part.stop)) & done
            inside[0] = False
            assert curve[k, i] == pytest.approx(accepted[part].sum() / inside.sum())


@pytest.mark.parametrize("method", METHODS)
def test_the_plane_holds_the_accepted_picks(project, cubes, method):
    cube = cubes(method)
    main = {"raw": 0.35, "line": 0.35, "probability": 0.7, "fdr": 0.03}[method]
    names = [str(name) for name in project.read("micrographs", "name")]
    settings = SelectSettings(
        raw=method == "raw",
        min_power=float(cube.power.edges[12]),
        max_power=float(cube.power.edges[-6]),
        exclude=(names[1],),
        **{MAIN[method]: cube.main.snap(main)},
    )
    plane, reasons = cube.plane(settings), Truth(project, settings).reasons
    columns = columns_of(project, method)

    def naive(chosen):
        return np.histogram2d(columns.power[chosen], columns.ncc[chosen], (plane.power, plane.ncc))[0]

    assert len(plane.ncc) <= 165 and len(plane.power) == 64
    np.testing.assert_array_equal(plane.all, naive(columns.valid))
    np.testing.assert_array_equal(plane.power_all, _whole(columns.power[columns.valid], plane.power))
    np.testing.assert_array_equal(plane.ncc_all, _whole(columns.ncc[columns.valid], plane.ncc))
    assert plane.beyond == columns.valid.sum() - plane.all.sum()
    accepted = reasons == ACCEPTED
    np.testing.assert_allclose(plane.power_accepted, _whole(columns.power[accepted], plane.power), atol=1e-3)
    if method in ("raw", "line"):
        np.testing.assert_array_equal(plane.accepted, naive(accepted))
        np.testing.assert_array_equal(plane.ncc_accepted, _whole(columns.ncc[accepted], plane.ncc))
    else:
        assert np.abs(plane.accepted - naive(accepted)).max() < 1.5
        assert plane.accepted.sum() > 100


def _whole(values, edges):
    """Numbers in bins that hold their lower edge, the last too."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)[1 : len(edges)]


def test_a_sample_comes_first_and_nothing_is_binned_twice(project, monkeypatch):
    monkeypatch.setattr(binning, "SAMPLE", 300)
    monkeypatch.setattr(reading, "PLACES", 400)
    out = Binning(project, "template", "line", SelectSettings(), {})
    cubes, parts = [], []
    for part in out.steps():
        parts.append(part)
        if out.cube is not None and (not cubes or cubes[-1] is not out.cube):
            cubes.append(out.cube)
    assert parts == sorted(parts) and parts[-1] == 1.0 and len(parts) > 8
    first, last = cubes[0], cubes[-1]
    assert not first.complete and first.binned < last.binned and last.complete
    total = int(project.read("picks/template", "count").sum())
    found = first.counts(SelectSettings())
    assert abs(int(found.reasons.sum()) - total) <= 1 and not found.exact
    settings = SelectSettings(min_ncc=last.main.snap(0.32))
    estimate, exact = (cube.counts(settings).reasons[ACCEPTED] for cube in (first, last))
    assert 0.7 < estimate / exact < 1.4
    curves = [cube.curve(settings)[:, last.main.index(0.32)] for cube in (first, last)]
    known = np.isfinite(curves[0])
    np.testing.assert_allclose(curves[0][known], curves[1][known], rtol=0.3)
    check(project, last, settings)


def test_micrographs_finished_later_are_added(copied):
    project = copied
    status = project._array("picks/template", "status")
    before = status[...]
    status[4:9] = Status.PENDING
    out = binned(project, "probability")
    assert out.up_to_date and out.cube.complete
    assert out.cube.binned == int((before == Status.DONE).sum()) - 5
    settings = SelectSettings(probability=0.5, edge=float(out.cube.border.edges[5]))
    check(project, out.cube, settings)
    status[...] = before
    assert not out.up_to_date
    old = out.cube
    for _ in out.job():
        pass
    assert out.up_to_date and out.cube is not old
    check(project, out.cube, settings)
    assert out.cube.micrographs.sum() == out.cube.binned == int((before == Status.DONE).sum())


def test_a_cache_gives_the_same_and_a_damaged_one_is_ignored(project, tmp_path, monkeypatch):
    monkeypatch.setattr(binning, "WORTH_KEEPING", 1)
    first = binned(project, "line", {"min_ncc": [0.31234]}, probability=0.2)
    for _ in first.job(tmp_path):
        pass
    first.save_cache(tmp_path)
    (file,) = tmp_path.iterdir()
    again = Binning(project, "template", "line", SelectSettings(probability=0.2), {"min_ncc": [0.31234]})
    assert again.load_cache(tmp_path)
    rng = np.random.default_rng(1)
    for hands in (False, True):
        settings = some_settings(again.cube, rng, project, hands).model_copy(update={"probability": 0.2})
        list(again.cube.prepare(settings))
        check(project, again.cube, settings)
    np.testing.assert_array_equal(again.cube.frames, first.cube.frames)
    assert again.up_to_date
    other = Binning(project, "template", "line", SelectSettings(probability=0.2), {"min_ncc": [0.31235]})
    assert not other.load_cache(tmp_path), "it lacks an edge"
    assert not Binning(project, "template", "line", SelectSettings(probability=0.3)).load_cache(tmp_path)
    assert not Binning(project, "template", "fdr", SelectSettings(probability=0.2)).load_cache(tmp_path)
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:5000] + b"\0" * 50 + whole[5050:], b"x" * 999):
        file.write_bytes(damaged)
        fresh = Binning(project, "template", "line", SelectSettings(probability=0.2), {})
        assert not fresh.load_cache(tmp_path) and fresh.cube is None
    for _ in fresh.job(tmp_path):
        pass
    check(project, fresh.cube, SelectSettings(probability=0.2))
    assert Binning(project, "template", "line", SelectSettings(probability=0.2)).load_cache(tmp_path), "written anew"


def test_few_picks_are_not_kept(project, tmp_path):
    for _ in Binning(project, "template", "line", SelectSettings()).job(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_cache_of_picks_that_changed_is_not_read(copied, tmp_path):
    project = copied
    binned(project, "raw").save_cache(tmp_path / "c")
    fresh = Binning(project, "template", "raw", SelectSettings(raw=True))
    assert fresh.load_cache(tmp_path / "c")
    project._array("picks/template", "count")[1] = 100
    fresh = Binning(project, "template", "raw", SelectSettings(raw=True))
    assert not fresh.load_cache(tmp_path / "c")


def test_a_folder_that_cannot_be_written_does_no_harm(project, tmp_path):
    (tmp_path / "file").write_text("")
    out = binned(project, "line")
    out.save_cache(tmp_path / "file")
    assert not Binning(project, "template", "line", SelectSettings()).load_cache(tmp_path / "file")


def test_truth_is_counted_among_the_accepted(project):
    rng = np.random.default_rng(4)
    places = int(project.picks("template").sizes["pick"])
    truth = {
        row: TrueRow(counted := rng.random(places) < 0.8, counted & (rng.random(places) < 0.4), 60) for row in (0, 4, 7)
    }
    cube = binned(project, "line", None, truth).cube
    for threshold in (0.2, 0.3, 0.4):
        names = [str(name) for name in project.read("micrographs", "name")]
        settings = SelectSettings(min_ncc=cube.main.snap(threshold), exclude=(names[4],))
        accepted, found = Truth(project, settings).accepted, cube.counts(settings)
        assert found.true == sum(int(accepted[row, entry.true].sum()) for row, entry in truth.items())
        assert found.counted == sum(int(accepted[row, entry.counted].sum()) for row, entry in truth.items())
        assert found.particles == 180 and found.true > 0


def test_frames_lead_from_raw_to_calibrated_scores(project, cubes):
    for method in ("line", "raw"):
        cube = cubes(method)
        plane = cube.plane(SelectSettings(raw=method == "raw"))
        own = -1 if method == "line" else 0
        assert cube.frames.shape == (9, *plane.all.shape)
        assert np.abs(cube.frames[own] - plane.all).sum() < 0.01 * plane.all.sum()
        assert np.abs(cube.frames[4] - plane.all).sum() > 0.1 * plane.all.sum()
    other = stage_of(project)[0]
    edges = cubes("line").plane(SelectSettings())
    valid = np.arange(other.sizes["pick"])[None] < other["count"].values[:, None]
    raw = np.histogram2d(other["power"].values[valid], other["ncc"].values[valid], (edges.power, edges.ncc))[0]
    assert np.abs(cubes("line").frames[0] - raw).sum() < 0.01 * raw.sum()


def test_picks_without_a_fit_without_power_and_of_unknown_size(copied):
    project = copied
    project.remove("calibration/template")
    power = project._array("picks/template", "power")
    power[...] = np.full(power.shape, np.nan, np.float32)
    project._group("picks/template").attrs["scores"] = ["ncc"]
    project._array("micrographs", "width")[...] = np.zeros(12, np.int32)
    project = Project.open(project.path)
    cube = binned(project, "raw").cube
    settings = SelectSettings(raw=True, min_ncc=cube.main.snap(0.3))
    found, truth = cube.counts(settings), Truth(project, settings)
    assert found.reasons.tolist() == truth.totals.tolist()
    assert np.isnan(found.noise) and np.isnan(found.junk) and cube.power is None and cube.frames is None
    plane = cube.plane(settings)
    assert plane.all.shape[0] == 0 and plane.ncc_accepted.sum() == truth.accepted.sum()
    with pytest.raises(InputError, match="no power score"):
        cube.counts(SelectSettings(raw=True, max_power=2.0))
    with pytest.raises(InputError, match="size of some micrographs"):
        cube.counts(SelectSettings(raw=True, edge=50.0))


def test_a_project_with_nothing_picked_yet(copied):
    project = copied
    project._array("picks/template", "status")[...] = np.zeros(12, np.int8)
    out = binned(project, "raw")
    assert out.cube.binned == 0 and out.cube.complete
    assert out.cube.counts(SelectSettings(raw=True, min_ncc=0.3)).reasons.sum() == 0
    assert np.isnan(out.cube.curve(SelectSettings(raw=True))).all()


def test_stepping_thresholds(cubes):
    line, rate = cubes("line"), cubes("fdr")
    assert line.stepped(line.main.edges[10], 3) == line.main.edges[13]
    assert line.stepped(line.main.edges[10] + 1e-6, 1) == line.main.edges[11]
    assert line.stepped(line.main.edges[10] + 1e-6, -1) == line.main.edges[10]
    assert line.stepped(None, 1) == line.main.edges[0] and line.stepped(9.0, 1) == line.main.edges[-1]
    assert rate.stepped(0.05, 1) == 0.049 and rate.stepped(0.05, -2) == 0.052 and rate.stepped(None, 1) == 0.5


def test_bins_of_defocus_hold_equal_numbers_of_micrographs():
    rng = np.random.default_rng(0)
    defocus = rng.uniform(0.5, 3.0, 1000)
    defocus[::50] = np.nan
    edges, bins = defocus_bins(defocus)
    counts = np.bincount(bins, minlength=13)
    assert counts[12] == 20 and counts[:12].min() >= 81 and counts[:12].max() <= 82
    known = np.isfinite(defocus)
    np.testing.assert_array_equal(np.digitize(defocus[known], edges[1:-1]), bins[known])
    edges, bins = defocus_bins(np.full(4, np.nan))
    assert len(edges) == 2 and (bins == 1).all()
    edges, bins = defocus_bins(np.array([2.0, 1.0]))
    assert edges.tolist() == [1.0, 1.5, 2.0] and bins.tolist() == [1, 0]


def test_grids_are_round_numbers():
    rng = np.random.default_rng(0)
    grid = score_grid(rng.normal(0.3, 0.05, 20_000), [0.31234567])
    steps = np.diff(grid.even)
    assert 200 <= len(steps) <= 502 and np.allclose(steps, 0.001)
    assert all(len(f"{value:.10g}") <= 6 for value in grid.even)
    assert grid.holds(0.31234567) and grid.holds(0.312) and not grid.holds(0.3121)
    assert grid.snap(0.31236) == 0.31234567 and grid.snap(-9) == grid.edges[0] and grid.snap(9) == grid.edges[-1]
    assert grid.index(grid.edges[7]) == 7 and 0.31234567 not in grid.even
    power = power_grid(np.append(np.exp(rng.normal(0.5, 0.3, 20_000)), 5e4))
    assert power.edges[-1] >= 5e4 and len(power.even) == 64 and len(power.edges) <= 64 + 17
    assert all(float(f"{value:.3g}") == value for value in power.edges)
    assert np.ptp(np.diff(np.log(power.even))) < 0.02
    assert border_grid(150.0).edges.tolist() == [float(round(150 * i / 8)) for i in range(17)]
    assert {0.0, 0.5, 0.995, 0.999, 1.0} <= set(probability_grid().edges.tolist())
    assert {0.001, 0.05, 0.01, 0.5} <= set(rate_grid().edges.tolist())
    for values in ([], [2.0], [0.0, np.nan, -1.0], [1e-9, 1e9], [-40.0, 300.0]):
        for made in (score_grid(np.array(values)), power_grid(np.array(values))):
            assert (np.diff(made.edges) > 0).all() and np.isfinite(made.edges).all()
    assert Grid.of([1.0]).index(5.0) == 0
