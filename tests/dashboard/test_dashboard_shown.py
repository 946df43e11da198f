"""Picks on the screen, their images and cutouts, and the exact counts of all micrographs."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage
from small_project import DIAMETER, FAILED_REASON, HEIGHT, PIXEL_SIZE, WIDTH, failed, make_project, outlying

from pickcal.calibration import calibrated_scores
from pickcal.dashboard.micrographs import tally as tally_module
from pickcal.dashboard.micrographs.images import LIMIT, Images, Recent
from pickcal.dashboard.micrographs.montage import montage_job, sampled_rows
from pickcal.dashboard.micrographs.shown import SHARED_ROWS, PickRows, Shown
from pickcal.dashboard.micrographs.tally import SHARED_BROWSER, Browser, Tally, micrograph_table, sorted_rows, tally_job
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.selection import ACCEPTED, REASONS
from pickcal.settings import CalibrateSettings, HandPick, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.select import Judge

COUNT = 12
PICKS = "template"
FAILED, SKIPPED = failed(COUNT), COUNT - 1
ROWS = (5, 0, SKIPPED, 3, FAILED)
SETTINGS = {
    "nothing": {},
    "raw": {"raw": True, "min_ncc": 0.3, "min_power": 0.8, "max_power": 2.5},
    "line": {"min_ncc": 0.33, "min_power": 1.0, "max_power": 3.0, "edge": 120.0},
    "probability": {"probability": 0.7, "max_power": 3.0, "edge": 100.0},
    "fdr": {"fdr": 0.02, "min_power": 1.0},
    "both": {"min_ncc": 0.15, "probability": 0.3, "fdr": 0.2},
}


@pytest.fixture(scope="module")
def own_project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("shown") / "p.zarr", COUNT)


@pytest.fixture
def copied(own_project, tmp_path):
    path = shutil.copytree(own_project.path, tmp_path / "copy.zarr")
    return Project.open(path, "r+")


@pytest.fixture(scope="module")
def images(own_project):
    return Images(own_project)


def judged(project, settings):
    """Reasons of all micrographs from the stage itself."""
    judge = Judge(project, PICKS, settings)
    return np.concatenate([judge.block(start, stop).reasons for start, stop in judge.blocks()])


def finished(job):
    """Result of a job and the progress it gave."""
    progress = []
    while True:
        try:
            progress.append(next(job))
        except StopIteration as end:
            return end.value, progress


def hand(project, row, place, dx=0.0):
    x, y = (float(project.read(f"picks/{PICKS}", axis, row, row + 1)[0, place]) for axis in "xy")
    return HandPick(micrograph=Judge(project, PICKS, SelectSettings()).names[row], x=x + dx, y=y)


def assert_as_judged(project, shown, settings):
    found, expected = shown.judge(settings), judged(project, settings)[list(shown.rows)]
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected[:, : found.shape[1]])
    assert (expected[:, found.shape[1] :] == -1).all()
    counts = shown.counts(settings)
    assert counts.tolist() == [[int((row == reason).sum()) for row in expected] for reason in range(len(REASONS))]


# picks on the screen


@pytest.mark.parametrize("name", SETTINGS)
def test_picks_shown_are_judged_exactly_as_by_the_stage(own_project, name):
    shown = Shown(own_project, PICKS, ROWS)
    settings = SelectSettings(**SETTINGS[name])
    assert_as_judged(own_project, shown, settings)
    reasons = shown.judge(settings)
    assert (reasons[[2, 4]] == -1).all()
    assert name == "nothing" or len(np.unique(reasons)) > 2


def test_thresholds_at_the_very_scores_of_picks_accept_them(own_project):
    shown = Shown(own_project, PICKS, ROWS)
    for name, field in (("calibrated_ncc", "min_ncc"), ("calibrated_power", "max_power"), ("q_value", "fdr")):
        value = float(np.sort(shown.columns(0)[name])[len(shown.columns(0)["x"]) // 2])
        assert_as_judged(own_project, shown, SelectSettings(**{field: value}))


def reason_by_hand(columns, place, settings):
    """What the documentation says of one pick, threshold by threshold."""
    value = {name: float(values[place]) for name, values in columns.items()}
    score, power = (value[name if settings.raw else f"calibrated_{name}"] for name in ("ncc", "power"))
    for reason, limit, fails in (
        ("edge", settings.edge, lambda limit: value["border"] < limit),
        ("low score", settings.min_ncc, lambda limit: score < limit),
        ("low power", settings.min_power, lambda limit: power < limit),
        ("high power", settings.max_power, lambda limit: power > limit),
        ("probability", settings.probability, lambda limit: value["probability"] < limit),
        ("false discovery rate", settings.fdr, lambda limit: value["q_value"] > limit),
    ):
        if limit is not None and fails(limit):
            return reason
    return "accepted"


@pytest.mark.parametrize("name", SETTINGS)
def test_reasons_are_those_of_the_thresholds_one_by_one(own_project, name):
    shown = Shown(own_project, PICKS, ROWS)
    given = dict(SETTINGS[name])
    columns = shown.columns(0)
    # a threshold at the very value of a pick accepts it
    at = {"edge": "border", "probability": "probability", "fdr": "q_value"}
    given |= {field: float(columns[at[field]][60]) for field in given if field in at}
    settings = SelectSettings(**given)
    reasons = shown.judge(settings)
    for i in range(len(ROWS)):
        columns = shown.columns(i)
        expected = [reason_by_hand(columns, place, settings) for place in range(len(columns["x"]))]
        assert [REASONS[reason] for reason in reasons[i, : len(expected)]] == expected
        assert (reasons[i, len(expected) :] == -1).all()


def test_decisions_by_hand_and_excluded_micrographs_count_as_in_the_stage(own_project):
    shown = Shown(own_project, PICKS, ROWS)
    names = Judge(own_project, PICKS, SelectSettings()).names
    settings = SelectSettings(
        min_ncc=0.33,
        exclude=(names[3], names[8]),
        accept=(hand(own_project, 5, 170), hand(own_project, 0, 150, dx=0.4 * PIXEL_SIZE), hand(own_project, 7, 100)),
        reject=(hand(own_project, 5, 0), hand(own_project, 8, 0)),
    )
    assert_as_judged(own_project, shown, settings)
    reasons = shown.judge(settings)
    assert reasons[0, 170] == ACCEPTED and REASONS[reasons[0, 0]] == "by hand"
    assert set(reasons[3]) <= {-1, REASONS.index("micrograph")}
    assert_as_judged(own_project, shown, settings.model_copy(update={"accept": settings.accept[:1], "reject": ()}))


def test_what_does_not_fit_is_refused_as_by_the_stage(own_project, copied):
    shown = Shown(own_project, PICKS, ROWS)
    far = HandPick(micrograph=shown.names[0], x=-500.0, y=0.0)
    for settings in (
        SelectSettings(exclude=("other.mrc",)),
        SelectSettings(accept=(HandPick(micrograph="other.mrc", x=0.0, y=0.0),)),
        SelectSettings(min_ncc=3.0),
        SelectSettings(reject=(far,)),
        SelectSettings(reject=(hand(own_project, 5, 3),), accept=(hand(own_project, 5, 3),)),
    ):
        with pytest.raises(InputError) as expected:
            judged(own_project, settings)
        with pytest.raises(InputError) as found:
            shown.judge(settings)
        assert str(found.value) == str(expected.value)
    with pytest.raises(InputError, match="row from 0 to 11, got 12"):
        Shown(own_project, PICKS, [12])
    with pytest.raises(ProjectError, match="no picks named 'others'"):
        Shown(own_project, "others", [0])
    copied.remove(f"calibration/{PICKS}")
    with pytest.raises(InputError, match="not calibrated"):
        Shown(copied, PICKS, [0]).judge(SelectSettings(probability=0.5))


def test_columns_are_the_stored_and_the_calibrated_scores(own_project):
    shown = Shown(own_project, PICKS, ROWS)
    stored, fit = own_project.picks(PICKS).load(), own_project.calibration(PICKS)
    calibrated = calibrated_scores(stored, fit)
    likelihood = Judge(own_project, PICKS, SelectSettings()).block(0, COUNT).likelihood
    right, bottom = (WIDTH - 1) * PIXEL_SIZE, (HEIGHT - 1) * PIXEL_SIZE
    for i, row in enumerate(ROWS):
        count, columns = int(stored["count"][row]), shown.columns(i)
        assert (count == 0) == (row in (FAILED, SKIPPED))
        expected = {name: stored[name] for name in ("x", "y", "ncc", "power")}
        expected |= {f"calibrated_{name}": calibrated[name] for name in ("ncc", "power")}
        expected |= {name: likelihood[name] for name in ("probability", "junk", "q_value")}
        assert set(columns) == {*expected, "border"}
        for name, values in expected.items():
            np.testing.assert_array_equal(columns[name], values.values[row, :count], err_msg=name)
        for x, y, border in zip(columns["x"], columns["y"], columns["border"], strict=True):
            assert border == pytest.approx(min(x, y, right - x, bottom - y))


def test_without_calibration_the_scores_are_raw_ones(copied):
    copied.remove(f"calibration/{PICKS}")
    columns = Shown(copied, PICKS, [0]).columns(0)
    assert "probability" not in columns
    np.testing.assert_array_equal(columns["calibrated_ncc"], columns["ncc"])
    assert_as_judged(copied, Shown(copied, PICKS, [0, 4]), SelectSettings(min_ncc=0.4, max_power=2.0))


def test_nothing_shown_is_judged_too(own_project):
    shown = Shown(own_project, PICKS, [])
    assert shown.judge(SelectSettings(min_ncc=0.3, edge=10.0)).shape == (0, 0)
    assert shown.counts(SelectSettings()).shape == (len(REASONS), 0)


def test_the_nearest_pick_is_found_within_reach(own_project):
    shown = Shown(own_project, PICKS, ROWS)
    columns, rng = shown.columns(1), np.random.default_rng(1)
    for x, y in zip(rng.uniform(0, WIDTH * PIXEL_SIZE, 40), rng.uniform(0, HEIGHT * PIXEL_SIZE, 40), strict=True):
        away = [float(np.hypot(a - x, b - y)) for a, b in zip(columns["x"], columns["y"], strict=True)]
        closest = min(range(len(away)), key=away.__getitem__)
        assert shown.nearest(1, x, y, away[closest] + 1e-3) == closest
        assert shown.nearest(1, x, y, away[closest] - 1e-3) is None
    assert shown.nearest(2, 100.0, 100.0, 1e6) is None


@pytest.mark.parametrize(
    ("settings", "name", "threshold"),
    [
        ({"min_ncc": 0.33}, "calibrated_ncc", 0.33),
        ({"min_ncc": 0.3, "raw": True}, "ncc", 0.3),
        ({"min_ncc": 0.3, "probability": 0.6}, "probability", 0.6),
        ({"fdr": 0.05}, "q_value", 0.05),
    ],
)
def test_a_review_begins_at_the_threshold(own_project, settings, name, threshold):
    shown = Shown(own_project, PICKS, ROWS)
    order = shown.cycle(0, SelectSettings(**settings))
    distances = [abs(float(shown.columns(0)[name][place]) - threshold) for place in order]
    assert sorted(order) == list(range(len(distances)))
    assert distances == sorted(distances) and distances[0] < distances[-1]
    assert len(shown.cycle(4, SelectSettings(**settings))) == 0


def test_a_review_without_threshold_begins_at_the_lowest_accepted(own_project):
    shown, settings = Shown(own_project, PICKS, ROWS), SelectSettings(edge=150.0)
    order, reasons = shown.cycle(0, settings), shown.judge(settings)[0]
    accepted = int((reasons == ACCEPTED).sum())
    assert 0 < accepted < len(order)
    assert (reasons[order[:accepted]] == ACCEPTED).all()
    assert (np.diff(shown.columns(0)["ncc"][order[:accepted]]) >= 0).all()


def test_a_row_is_read_without_the_chunks_of_others(copied):
    names = ("x", "y", "ncc", "power", "count", "status", "template")
    for name in names:
        for chunk in (copied.path / "picks" / PICKS / name / "c").glob("[12]*"):
            shutil.rmtree(chunk) if chunk.is_dir() else chunk.unlink()
            chunk.write_bytes(b"damaged")
    reader = Project.open(copied.path)
    assert len(Shown(reader, PICKS, [1, 3]).columns(0)["x"]) > 0
    with pytest.raises((OSError, RuntimeError, ValueError)):
        Shown(reader, PICKS, [5])


def test_rows_are_kept_for_all_visitors_within_some_memory(own_project):
    source = PickRows(own_project, PICKS)
    (first,) = source.read([2])
    assert source.read([2])[0] is first
    per_row = sum(value.nbytes for name, value in first.items() if name != "status")
    small = PickRows(own_project, PICKS, most=int(2.5 * per_row))
    kept = [small.read([row])[0] for row in (0, 1, 2, 3)]
    assert small._recent.bytes <= small._recent.most
    assert small.read([3])[0] is kept[3] and small.read([0])[0] is not kept[0]
    np.testing.assert_array_equal(small.read([0])[0]["ncc"], kept[0]["ncc"])
    assert SHARED_ROWS.of(own_project, PICKS) is SHARED_ROWS.of(own_project, PICKS)


def test_pending_micrographs_appear_once_they_are_done(copied):
    path = f"picks/{PICKS}"
    status = copied.read(path, "status", 0, 4)
    copied._array(path, "status")[0:4] = np.zeros(4, np.int8)
    assert (Shown(copied, PICKS, [0, 1]).judge(SelectSettings()) == -1).all()
    copied._array(path, "status")[0:4] = status
    assert_as_judged(copied, Shown(copied, PICKS, [0, 1]), SelectSettings(min_ncc=0.3))
    assert (Shown(copied, PICKS, [0, 1]).judge(SelectSettings()) == ACCEPTED).any()


def test_a_new_calibration_is_taken_up(copied):
    before = Shown(copied, PICKS, [0, 1])
    calibrate(copied, PICKS, CalibrateSettings(bootstrap=0, ncc="none", probability="none"))
    after = Shown(copied, PICKS, [0, 1])
    assert not np.allclose(before.columns(0)["calibrated_ncc"], after.columns(0)["calibrated_ncc"])
    assert "probability" in before.columns(0) and "probability" not in after.columns(0)
    assert_as_judged(copied, after, SelectSettings(min_ncc=0.33, edge=80.0))


def test_visitors_in_many_threads_see_the_same(own_project):
    source, settings = PickRows(own_project, PICKS, most=40_000), SelectSettings(probability=0.5, edge=90.0)
    expected = judged(own_project, settings)

    def visit(seed):
        rows = np.random.default_rng(seed).permutation(FAILED)[:3]
        found = Shown(own_project, PICKS, rows, source).judge(settings)
        return np.array_equal(found, expected[rows, : found.shape[1]])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(visit, range(12)))


# images


def smoothed(project, row, resolution):
    """Low-pass in real space, mirrored at the borders: half the amplitude at the resolution."""
    sigma = resolution * np.sqrt(np.log(2) / 2) / np.pi / PIXEL_SIZE
    return ndimage.gaussian_filter(project.image(row).astype(np.float64), sigma, mode="reflect", truncate=8)


def grey(picture):
    """Values that grey levels stand for, in deviations of the working image."""
    per_level = (picture.high - picture.low) / 255
    return (picture.low + picture.pixels * per_level) * picture.deviation + picture.mean


def test_a_picture_is_the_low_passed_image_in_grey_levels(own_project, images):
    picture = images.picture(0, 50.0)
    expected = smoothed(own_project, 0, 50.0)
    assert picture.pixels.dtype == np.uint8 and picture.pixels.shape == (HEIGHT, WIDTH)
    limited = np.clip(
        expected, expected.mean() - LIMIT * picture.deviation, expected.mean() + LIMIT * picture.deviation
    )
    assert np.abs(grey(picture) - limited).max() < picture.deviation * (0.51 * 2 * LIMIT / 255 + 0.01)
    assert 0.5 < picture.deviation / expected.std() < 1.5
    edge = PIXEL_SIZE / 2
    assert picture.extent == (-edge, WIDTH * PIXEL_SIZE - edge, -edge, HEIGHT * PIXEL_SIZE - edge)


def replaced(project, row, image):
    values = np.full((HEIGHT + 8, WIDTH), np.nan, np.float16)
    values[:HEIGHT] = image
    project._array("micrographs", "image")[row] = values


def test_half_the_amplitude_is_left_at_the_resolution(copied):
    """A wave of 30 Å keeps a half under a low-pass at 30 Å, and a sixteenth at 60 Å."""
    steps = round(2 * WIDTH * PIXEL_SIZE / 30.0)
    wave = np.cos(np.pi * steps * (np.arange(WIDTH) + 0.5) / WIDTH)
    length = 2 * WIDTH * PIXEL_SIZE / steps
    replaced(copied, 0, np.broadcast_to(wave, (HEIGHT, WIDTH)))
    images = Images(copied)
    whole = grey(images.picture(0)).std()
    assert grey(images.picture(0, length)).std() / whole == pytest.approx(0.5, rel=0.02)
    assert grey(images.picture(0, 2 * length)).std() / whole == pytest.approx(1 / 16, rel=0.02)


def test_binned_pictures_keep_places_and_do_not_alias(copied):
    def waves(y, x):
        return 2 * np.sin(2 * np.pi * x / 800.0 + 1) + 1.5 * np.cos(2 * np.pi * y / 1100.0 + 0.4)

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plain = waves(y * PIXEL_SIZE, x * PIXEL_SIZE)
    replaced(copied, 0, plain)
    replaced(copied, 1, plain + np.where(x % 2, 3.0, -3.0))
    images, shape = Images(copied), (round(HEIGHT * 100 / WIDTH), 100)
    binned, striped = images.picture(0, None, most=100), images.picture(1, None, most=100)
    assert binned.pixels.shape == shape == striped.pixels.shape
    assert binned.extent == images.picture(0).extent
    down = binned.top + (np.arange(shape[0]) + 0.5) * (binned.bottom - binned.top) / shape[0]
    across = binned.left + (np.arange(shape[1]) + 0.5) * (binned.right - binned.left) / shape[1]
    inner = (slice(3, -3), slice(3, -3))
    assert np.abs(grey(binned) - waves(down[:, None], across))[inner].max() < 0.1
    # stripes of one pixel are finer than what the wider pixels can show
    assert np.abs(grey(striped) - grey(binned))[inner].max() < 0.2


def test_cutouts_are_centred_on_their_place(own_project, images):
    row, x, y, size = 2, 702.0, 611.0, 230.0
    expected = smoothed(own_project, row, 40.0)
    tile, picture = images.cutout(row, x, y, size, 40.0), images.picture(row, 40.0)
    assert tile.shape == (64, 64) and tile.dtype == np.uint8
    per_level = 2 * LIMIT / 255 * picture.deviation
    for i, j in ((0, 0), (10, 50), (32, 31), (63, 63)):
        across, down = (x + (j - 31.5) * size / 64) / PIXEL_SIZE, (y + (i - 31.5) * size / 64) / PIXEL_SIZE
        left, top = int(across), int(down)
        a, b = across - left, down - top
        four = expected[top : top + 2, left : left + 2]
        value = (1 - b) * ((1 - a) * four[0, 0] + a * four[0, 1]) + b * ((1 - a) * four[1, 0] + a * four[1, 1])
        assert (tile[i, j] - 127.5) * per_level + picture.mean == pytest.approx(value, abs=1.1 * per_level)


def test_particles_are_dark_in_the_middle_of_their_cutouts(own_project, images):
    shown, settings = Shown(own_project, PICKS, [1]), SelectSettings(probability=0.9)
    columns, accepted = shown.columns(0), shown.judge(settings)[0] == ACCEPTED
    places = list(zip(columns["x"][accepted], columns["y"][accepted], strict=True))
    mean = images.cutouts(1, places, 2 * DIAMETER).mean(axis=0)
    assert len(places) > 20
    assert mean[24:40, 24:40].mean() < mean[:, :4].mean() - 10


def test_beyond_the_border_cutouts_have_the_mean(images):
    tile = images.cutout(0, 0.0, 0.0, 200.0, 30.0)
    assert set(np.unique(tile[:31])) <= {127, 128} and set(np.unique(tile[:, :31])) <= {127, 128}
    assert tile[33:, 33:].std() > 10
    assert set(np.unique(images.cutout(0, -5000.0, 100.0, 200.0))) <= {127, 128}


def test_cutouts_at_once_are_those_one_by_one(own_project):
    places = [(400.0, 500.0), (0.0, 30.0), (400.0, 500.0)]
    at_once = Images(own_project).cutouts(3, places, 300.0, 25.0, 32)
    images = Images(own_project)
    assert at_once.shape == (3, 32, 32)
    for tile, (x, y) in zip(at_once, places, strict=True):
        np.testing.assert_array_equal(tile, images.cutout(3, x, y, 300.0, 25.0, 32))
    assert Images(own_project).cutouts(3, [], 300.0).shape == (0, 64, 64)


def test_pictures_are_drawn_once(own_project, monkeypatch):
    images, reads = Images(own_project), []
    image = own_project.image
    monkeypatch.setattr(own_project, "image", lambda row: reads.append(row) or image(row))
    first = images.picture(0, 30.0)
    assert images.picture(0, 30.0) is first
    assert images.picture(0, 60.0) is not first
    images.cutout(0, 100.0, 100.0, 100.0, 45.0)
    assert reads == [0]


def test_what_is_no_picture_is_refused(images, copied):
    with pytest.raises(InputError, match="row from 0 to 11, got 12"):
        images.picture(12)
    with pytest.raises(InputError, match="skipped"):
        images.picture(SKIPPED)
    with pytest.raises(InputError, match="above 0 Å, got 0"):
        images.picture(0, 0.0)
    with pytest.raises(InputError, match="side above 0"):
        images.cutout(0, 0.0, 0.0, 0.0)
    copied._group("micrographs").create_array("image", shape=(COUNT, 0, 0), dtype="f2", overwrite=True)
    tables = Images(Project.open(copied.path))
    assert images.has_images and not tables.has_images
    for call in (lambda: tables.picture(0), lambda: tables.cutout(0, 0.0, 0.0, 100.0)):
        with pytest.raises(ProjectError, match="tables only"):
            call()


def test_recent_results_fit_into_their_memory():
    recent = Recent(10, len)
    for key, size in (("a", 4), ("b", 4), ("c", 2)):
        recent.keep(key, "x" * size)
    assert recent.bytes == 10 and recent.find("a") == "xxxx"
    recent.keep("d", "xxx")
    assert recent.find("b") is None and recent.find("a") == "xxxx" and recent.bytes == 9
    recent.keep("a", "x")
    assert recent.find("a") == "x" and recent.bytes == 6
    recent.keep("large", "x" * 11)
    assert recent.find("large") is None and recent.bytes == 6
    assert recent.get("new", lambda: "xx") == "xx" and recent.find("new") == "xx"


# montage


def expected_montage(project, settings, rows, each):
    """Every pick of the rows, ranked one by one."""
    reasons, found = judged(project, settings), {"above": [], "below": [], "power": []}
    for row in rows:
        columns = Shown(project, PICKS, [row]).columns(0)
        for place in range(len(columns["x"])):
            reason = REASONS[reasons[row, place]]
            if settings.probability is not None:
                over, word = float(columns["probability"][place]) - settings.probability, "probability"
            elif settings.fdr is not None:
                over, word = settings.fdr - float(columns["q_value"][place]), "false discovery rate"
            else:
                score = float(columns["ncc" if settings.raw else "calibrated_ncc"][place])
                over, word = score - (settings.min_ncc or 0.0), "low score"
            bare = (settings.min_ncc, settings.probability, settings.fdr) == (None, None, None)
            if reason == "accepted" and (over >= 0 or bare):
                found["above"].append((over, row, place))
            if reason == word:
                found["below"].append((-over, row, place))
            if reason == "accepted":
                power = float(columns["power" if settings.raw else "calibrated_power"][place])
                found["power"].append((-power, row, place))
    return {group: [pick[1:] for pick in sorted(picks)[:each]] for group, picks in found.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_montage_shows_the_picks_on_which_the_threshold_decides(own_project, images, name):
    settings = SelectSettings(**SETTINGS[name])
    rows = [0, 2, 5, 7]
    montage, progress = finished(montage_job(own_project, images, PICKS, settings, 30.0, each=7, rows=rows))
    assert progress == sorted(progress) and progress[-1] == 1 and len(progress) > len(rows)
    assert montage.size == 1.5 * DIAMETER and montage.micrographs == tuple(rows)
    for group, expected in expected_montage(own_project, settings, rows, 7).items():
        tiles = getattr(montage, group)
        assert list(zip(tiles.rows.tolist(), tiles.places.tolist(), strict=True)) == expected
        assert tiles.pixels.shape == (len(expected), 64, 64) and tiles.pixels.dtype == np.uint8
        for i, (row, place) in enumerate(expected):
            columns = Shown(own_project, PICKS, [row]).columns(0)
            assert {key: values[i] for key, values in tiles.columns.items()} == {
                k: v[place] for k, v in columns.items()
            }
            x, y = float(columns["x"][place]), float(columns["y"][place])
            np.testing.assert_array_equal(tiles.pixels[i], images.cutout(row, x, y, montage.size, 30.0))
    assert len(montage.above.rows) == 7
    assert (len(montage.below.rows) == 0) == (name == "nothing")


def test_what_was_accepted_by_hand_below_the_threshold_is_not_just_above_it(own_project, images):
    settings = SelectSettings(min_ncc=0.33)
    low = int(finished(montage_job(own_project, images, PICKS, settings, each=1, rows=[5]))[0].below.places[0])
    settings = SelectSettings(min_ncc=0.33, accept=(hand(own_project, 5, low),))
    assert judged(own_project, settings)[5, low] == ACCEPTED
    montage, _ = finished(montage_job(own_project, images, PICKS, settings, each=300, rows=[5]))
    assert low not in montage.above.places and low not in montage.below.places
    assert low in montage.power.places


def test_a_montage_of_nothing_is_empty(own_project, images):
    montage, _ = finished(montage_job(own_project, images, PICKS, SelectSettings(min_ncc=1.9, edge=1e5), each=5))
    assert [len(getattr(montage, group).rows) for group in ("above", "below", "power")] == [0, 0, 0]
    assert montage.above.pixels.shape == (0, 64, 64)


def test_micrographs_looked_through_are_spread_over_defocus(own_project):
    browser = Browser(own_project, PICKS)
    order = sorted(range(FAILED), key=lambda row: browser.defocus[row])
    few = sampled_rows(browser, spread=3, powerful=0)
    assert few[0] == order[0] and few[-1] == order[-1] and few[1] in order[4:6]
    strongest = sorted(range(FAILED), key=lambda row: -browser.power[row])
    assert set(sampled_rows(browser, spread=1, powerful=2)) == {order[0], *strongest[:2]}
    assert sorted(sampled_rows(browser)) == list(range(FAILED))
    assert sorted(sampled_rows(browser, exclude=(browser.names[4],))) == [row for row in range(FAILED) if row != 4]


# exact counts


@pytest.mark.parametrize(
    ("name", "places"), [("nothing", 40_000), ("raw", 500), ("line", 1), ("probability", 1200), ("fdr", 900)]
)
def test_counts_of_every_micrograph_are_those_of_the_stage(own_project, monkeypatch, name, places):
    monkeypatch.setattr(tally_module, "BLOCK_PLACES", places)
    settings = SelectSettings(**SETTINGS[name])
    tally, progress = finished(tally_job(own_project, PICKS, settings))
    reasons = judged(own_project, settings)
    assert tally.complete and tally.counted.all() and tally.counts.dtype == np.int32
    assert tally.counts.tolist() == [[int((row == reason).sum()) for row in reasons] for reason in range(len(REASONS))]
    assert tally.totals() == {word: int((reasons == i).sum()) for i, word in enumerate(REASONS)}
    noise, junk = Judge(own_project, PICKS, settings).block(0, COUNT).expected_false()
    assert tally.noise.sum() == pytest.approx(noise) and tally.junk.sum() == pytest.approx(junk)
    assert progress == sorted(progress) and progress[0] == 0 and progress[-1] == 1


def test_rows_on_the_screen_are_counted_first(own_project, monkeypatch):
    monkeypatch.setattr(tally_module, "BLOCK_PLACES", 500)
    settings, tally = SelectSettings(min_ncc=0.33), Tally(COUNT)
    expected = (judged(own_project, settings) == ACCEPTED).sum(axis=1)
    job = tally_job(own_project, PICKS, settings, np.array([7, 2, 7]), tally)
    seen = []
    for _ in job:
        assert not tally.complete
        np.testing.assert_array_equal(tally.accepted, np.where(tally.counted, expected, -1))
        seen.append(set(np.flatnonzero(tally.counted).tolist()))
    assert seen[:5] == [set(), {7}, {7, 2}, {7, 2, 0, 1}, {7, 2, 0, 1, 3}]
    assert tally.complete


def test_the_list_of_micrographs_tells_what_is_known(own_project):
    settings, tally = SelectSettings(min_ncc=0.33), Tally(COUNT)
    job = tally_job(own_project, PICKS, settings, [4, 6], tally)
    [next(job) for _ in range(3)]
    names = Judge(own_project, PICKS, settings).names
    table = micrograph_table(own_project, PICKS, tally, exclude=(names[6],))
    assert list(table) == [
        *("name", "defocus", "picks", "accepted", "particles", "residual", "power", "status", "excluded")
    ]
    assert table["name"].tolist() == list(names)
    accepted = (judged(own_project, settings) == ACCEPTED).sum(axis=1)
    assert table["accepted"].dropna().to_dict() == {4: accepted[4], 6: accepted[6]}
    assert table["excluded"].tolist() == [row == 6 for row in range(COUNT)]
    both = [own_project.read("micrographs", f"defocus_{axis}") for axis in "uv"]
    np.testing.assert_allclose(table["defocus"], (both[0] + both[1]) / 2e4)
    np.testing.assert_array_equal(table["picks"], own_project.read(f"picks/{PICKS}", "count"))
    fit = own_project.calibration(PICKS)
    np.testing.assert_array_equal(table["residual"], fit["residual"].sel(score="ncc"))
    np.testing.assert_array_equal(table["power"], fit["median"].sel(score="power"))
    np.testing.assert_array_equal(table["particles"], fit["particles"])
    assert table["residual"].idxmin() == outlying(COUNT)
    assert table["status"][outlying(COUNT)] == "done, outlying"
    assert table["status"][FAILED] == f"failed: {FAILED_REASON}" and table["status"][SKIPPED] == "skipped: not imported"
    part = micrograph_table(own_project, PICKS, tally, rows=np.array([5, 1]))
    assert part.index.tolist() == [5, 1] and part["name"].tolist() == [names[5], names[1]]


def test_without_calibration_the_list_has_no_estimates(copied):
    copied.remove(f"calibration/{PICKS}")
    table = micrograph_table(copied, PICKS, Tally(COUNT))
    assert table[["particles", "residual", "power", "accepted"]].isna().all().all()
    assert table["picks"].sum() > 1000
    calibrate(copied, PICKS, CalibrateSettings(bootstrap=0))
    assert micrograph_table(copied, PICKS, Tally(COUNT))["residual"].notna().sum() == FAILED


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("key", ["name", "defocus", "picks", "accepted", "particles", "residual", "power", "status"])
def test_rows_are_sorted_with_unknown_ones_last(own_project, key, descending):
    settings, tally = SelectSettings(min_ncc=0.33), Tally(COUNT)
    job = tally_job(own_project, PICKS, settings, [9, 1, 4, 6], tally)
    [next(job) for _ in range(5)]
    values = micrograph_table(own_project, PICKS, tally)[key]
    known = [row for row in range(COUNT) if values.notna()[row]]
    expected = sorted(known, key=lambda row: values[row], reverse=descending)
    if descending:  # sorted keeps equal ones in order either way
        assert [values[row] for row in expected] == sorted((values[row] for row in known), reverse=True)
    expected += [row for row in range(COUNT) if row not in known]
    assert sorted_rows(own_project, PICKS, tally, key, descending).tolist() == expected


def test_an_unknown_key_is_refused(own_project):
    with pytest.raises(InputError, match=r"expected one of accepted, name.*got 'colour'"):
        sorted_rows(own_project, PICKS, Tally(COUNT), "colour")


def test_names_are_searched_by_words_in_any_case(own_project):
    browser = SHARED_BROWSER.of(own_project, PICKS)
    assert browser.search("").tolist() == list(range(COUNT))
    assert browser.search("STACK_1").tolist() == [9, 10, 11]
    assert browser.search("mrc _07").tolist() == [6]
    assert browser.search("nothing").tolist() == []
    tally = Tally(COUNT)
    assert sorted_rows(own_project, PICKS, tally, "name", True, "stack_1").tolist() == [11, 10, 9]
    assert sorted_rows(own_project, PICKS, tally, "accepted", True, "nothing").tolist() == []
