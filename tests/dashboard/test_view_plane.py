"""The score plane and the curves: pictures against naive counts, and thresholds dragged in a real browser."""

import shutil
import threading
from contextlib import contextmanager

import numpy as np
import panel as pn
import pytest
import zarr
from browsing import act_in_page, eventually, needs_chromium, serving, watched

from pickcal.dashboard.binned.cube import Plane
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.curve import CurveView
from pickcal.dashboard.views.dragging import ordered
from pickcal.dashboard.views.look import Look
from pickcal.dashboard.views.plane import LEVELS, OF_PLANE, SHARES, PlaneView, _Picture, colours, ticks
from pickcal.dashboard.views.posting import Posted
from pickcal.selection import reason_counts
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge

# the figure of a name, a place in it in pixels of the page, and lines by what they show
SCRIPT = """
window.figure = name => {
  const seen = new Set();
  const walk = view => {
    if (seen.has(view)) return null;
    seen.add(view);
    if (view.model.name === name && view.frame) return view;
    for (const child of view.children ? view.children() : []) {
      const found = walk(child);
      if (found) return found;
    }
    return null;
  };
  for (const root of Bokeh.index.roots) {
    const found = walk(root);
    if (found) return found;
  }
  return null;
};
window.pixel = (name, x, y) => {
  const view = figure(name), box = view.canvas_view.el.getBoundingClientRect();
  const {frame} = view;
  const sx = x === null ? frame.bbox.x_center : frame.x_scale.compute(x);
  const sy = y === null ? frame.bbox.y_center : frame.y_scale.compute(y);
  return [box.x + sx, box.y + sy];
};
// the oldest version that is painted on one of the two plots with lines that are seen; -1 while one is missing
window.painted = () => {
  const seen = names => names.map(figure).find(view => view !== null && view.el.getClientRects().length > 0);
  const plots = [seen(["plane", "main margin"]), seen(["curve", "rates"])];
  return Math.min(...plots.map(view => Number(view?.el.dataset.painted ?? -1)));
};
window.drawn = (name, type) => figure(name).model.center.filter(m => m.type === type && !m.editable)
  .map(m => ({visible: m.visible, location: m.location, left: m.left, bottom: m.bottom, top: m.top}));
"""


class Visit:
    """One visitor whose session and page a test sees."""

    def __init__(self, session, cube):
        self.session = session
        self.asked, self.version, self.cube = [], session.version, cube
        usual = session.set_threshold

        def asked(name, value, final=True):
            usual(name, value, final)
            self.asked.append((name, value, final))

        session.set_threshold = asked

    def do(self, act):
        act_in_page(self.post, act)


def page_of(inspector, visits):
    def build():
        pn.extension()
        document = pn.state.curdoc
        post = Posted(document)
        session = Session(inspector, post, read_only=True)
        session.follow({})
        cube = session.cube
        made = [view(session, Look()) for view in (PlaneView, CurveView)]
        visit = Visit(session, cube)
        pending, lock = set(), threading.Lock()

        def refresh():
            with lock:
                changes = frozenset(pending)
                pending.clear()
            document.hold("combine")
            for view in made:
                view.refresh(changes)
            document.unhold()
            visit.cube = session.cube

        def changed(changes):
            if changes & OF_PLANE:
                visit.version = session.version
            with lock:
                first = not pending
                pending.update(changes)
            if first:
                post(refresh)

        session.listen(changed)
        visit.post = post
        pn.state.on_session_destroyed(lambda _: session.close())
        visits.append(visit)
        return pn.Row(*(view.layout for view in made), sizing_mode="stretch_width")

    return build


@pytest.fixture(scope="module")
def served(project, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        inspector, visits = Inspector(project.path, read_only=True), []
        with serving(page_of(inspector, visits)) as address:
            yield address, visits


@contextmanager
def visiting(browser, served, method="line", **options):
    """Open the page; yields it with its visit, once all picks are binned for a method."""
    address, visits = served
    before = len(visits)
    page = browser.new_page(viewport={"width": 1280, "height": 600}, **options)
    errors, strangers = watched(page)
    page.goto(address)
    page.add_script_tag(content=SCRIPT)
    assert eventually(page, lambda: len(visits) > before)
    visit = visits[-1]
    choose(page, visit, method)
    visit.asked.clear()
    yield page, visit
    assert (errors, strangers) == ([], [])
    page.close()


def choose(page, visit, method):
    """Choose a method and wait until all its picks are on the screen."""
    session = visit.session
    visit.do(lambda: session.set_method(method))
    assert eventually(page, lambda: visit.cube is session.cube is not None and visit.cube.complete)
    settled(page, visit)


def settled(page, visit):
    """Wait until the newest version is painted."""
    assert eventually(page, lambda: page.evaluate("painted()") >= visit.version)


def set_threshold(page, visit, name, value):
    visit.do(lambda: visit.session.set_threshold(name, value))
    settled(page, visit)


def drag(page, name, start, *stops, hold=0):
    """Drag from a place of a figure over others, after holding still (ms); None is the middle of the frame."""
    page.mouse.move(*page.evaluate("([n, x, y]) => pixel(n, x, y)", [name, *start]))
    page.mouse.down()
    page.wait_for_timeout(hold)
    for stop in stops:
        page.mouse.move(*page.evaluate("([n, x, y]) => pixel(n, x, y)", [name, *stop]), steps=4)
    page.mouse.up()


def drawn(page, name, kind):
    return [one for one in page.evaluate("([n, t]) => drawn(n, t)", [name, kind]) if one["visible"]]


def steps(visit):
    """How many moves were one step for undo each."""
    return sum(final for _, _, final in visit.asked)


@needs_chromium
def test_edges_of_the_box_are_dragged_and_snap(browser, served):
    with visiting(browser, served) as (page, visit):
        session, cube = visit.session, visit.session.cube
        set_threshold(page, visit, "min_ncc", cube.main.snap(0.3))
        set_threshold(page, visit, "min_power", None)
        visit.asked.clear()
        drag(page, "plane", (session.settings.min_ncc, None), (0.33, None), (0.36131, None), hold=400)
        assert eventually(page, lambda: steps(visit) == 1)
        # also on the way
        assert len({value for _, value, _ in visit.asked}) > 2
        assert abs(session.settings.min_ncc - 0.36131) < 0.01
        assert cube.main.holds(session.settings.min_ncc)
        assert session.settings.min_power is None
        settled(page, visit)
        (box,) = drawn(page, "plane", "BoxAnnotation")
        (line,) = drawn(page, "main margin", "Span")
        (curve,) = drawn(page, "curve", "Span")
        assert box["left"] == line["location"] == curve["location"] == session.settings.min_ncc
        visit.do(session.undo)
        assert session.settings.min_ncc == cube.main.snap(0.3)

        # beyond the first edge there is no limit
        settled(page, visit)
        drag(page, "plane", (session.settings.min_ncc, None), (cube.main.edges[0] - 1, None))
        assert eventually(page, lambda: session.settings.min_ncc is None)
        settled(page, visit)
        (box,) = drawn(page, "plane", "BoxAnnotation")
        assert box["left"] == pytest.approx(cube.plane(session.settings).ncc[0])


@needs_chromium
def test_power_limits_are_dragged_in_the_margin_and_as_a_whole(browser, served):
    with visiting(browser, served) as (page, visit):
        session, cube = visit.session, visit.session.cube
        edges = cube.power.even
        low, high, wanted = edges[10], edges[50], edges[20]
        set_threshold(page, visit, "min_ncc", 0.3)
        set_threshold(page, visit, "max_power", high)
        set_threshold(page, visit, "min_power", low)
        visit.asked.clear()
        drag(page, "power margin", (None, low), (None, wanted))
        assert eventually(page, lambda: steps(visit) == 1)
        assert (session.settings.min_power, session.settings.max_power) == (wanted, high)
        settled(page, visit)
        (box,) = drawn(page, "plane", "BoxAnnotation")
        assert (box["bottom"], box["top"]) == (wanted, high)

        # the inside of the box takes both along
        visit.asked.clear()
        inside = 0.4
        drag(page, "plane", (inside, edges[35]), (inside, edges[40]))
        assert eventually(page, lambda: steps(visit) == 1)
        moved = [
            int(np.flatnonzero(edges == value)[0]) for value in (session.settings.min_power, session.settings.max_power)
        ]
        assert moved == [25, 55]
        assert session.settings.min_ncc == 0.3

        settled(page, visit)
        visit.asked.clear()
        drag(page, "power margin", (None, session.settings.max_power), (None, edges[-1] * 3))
        assert eventually(page, lambda: steps(visit) == 1)
        assert session.settings.max_power is None


@needs_chromium
def test_moves_by_a_program_are_no_moves_by_hand(browser, served):
    with visiting(browser, served) as (page, visit):
        value = visit.session.cube.main.snap(0.35)
        set_threshold(page, visit, "min_ncc", value)
        set_threshold(page, visit, "max_power", None)
        page.wait_for_timeout(500)
        assert len(visit.asked) == 2
        (box,) = drawn(page, "plane", "BoxAnnotation")
        assert box["left"] == value


@needs_chromium
def test_the_line_of_the_curve_is_dragged_for_every_method(browser, served):
    with visiting(browser, served, "probability") as (page, visit):
        session = visit.session
        for method, name, end in (("probability", "probability", 0.8), ("fdr", "fdr", 0.01)):
            choose(page, visit, method)
            assert drawn(page, "main margin", "Span") == []
            visit.asked.clear()
            figure = "rates" if method == "fdr" else "curve"
            drag(page, figure, (getattr(session.settings, name), None), (end, None))
            assert eventually(page, lambda: steps(visit) == 1)
            assert getattr(session.settings, name) == pytest.approx(end, rel=0.15)
            assert session.cube.main.holds(getattr(session.settings, name))
        # the plot of another method is not seen
        assert page.evaluate("figure('curve')?.el.offsetParent === null || figure('curve') === null")
        bins = np.flatnonzero(session.cube.micrographs[:-1])
        expected = list(session.counts.accepted[bins] / session.cube.micrographs[bins])
        shown = "Array.from(figure('defocus').model.renderers[0].data_source.data.y)"
        assert eventually(page, lambda: page.evaluate(shown) == pytest.approx(expected))


PLAYED = "!('frame' in figure('plane').el.dataset)"
FRAMES = """
() => {
  window.frames_seen = [];
  const element = figure('plane').el;
  const note = () => { if ('frame' in element.dataset) frames_seen.push(Number(element.dataset.frame)); };
  new MutationObserver(note).observe(element, {attributes: true, attributeFilter: ['data-frame']});
}
"""


@needs_chromium
@pytest.mark.parametrize("still", [False, True])
def test_the_picture_moves_between_raw_and_calibrated(browser, served, still):
    options = {"reduced_motion": "reduce"} if still else {}
    with visiting(browser, served, "raw", **options) as (page, visit):
        choose(page, visit, "line")
        assert eventually(page, lambda: page.evaluate(PLAYED))
        page.evaluate(FRAMES)
        choose(page, visit, "raw")
        assert eventually(page, lambda: page.evaluate(PLAYED))
        backwards = page.evaluate("frames_seen.splice(0)")
        choose(page, visit, "line")
        assert eventually(page, lambda: page.evaluate(PLAYED))
        forwards = page.evaluate("frames_seen.splice(0)")
        if still:
            assert backwards == forwards == []
        else:
            assert len(set(forwards)) > 2
            assert forwards == sorted(forwards)
            assert backwards == sorted(backwards, reverse=True)
        image = page.evaluate("Array.from(figure('plane').model.renderers[0].data_source.data.image[0])")
        picture = _Picture(visit.session.cube.plane(visit.session.settings))
        expected = picture.state(visit.session.cube.plane(visit.session.settings))["image"]
        np.testing.assert_array_equal(np.array(image).reshape(expected.shape), expected)


@needs_chromium
def test_without_a_power_score_there_is_the_histogram_alone(browser, project, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(project.path, tmp_path / "p.zarr")
    shutil.rmtree(tmp_path / "p.zarr" / "calibration")
    shutil.rmtree(tmp_path / "p.zarr" / "selection")
    group = zarr.open_group(tmp_path / "p.zarr", mode="r+")["picks/template"]
    group.attrs["scores"] = ["ncc"]
    visits = []
    with (
        serving(page_of(Inspector(tmp_path / "p.zarr", read_only=True), visits)) as address,
        visiting(browser, (address, visits), "raw") as (page, visit),
    ):
        session = visit.session
        assert session.cube.power is None
        assert eventually(page, lambda: page.evaluate("figure('plane') === null"))
        set_threshold(page, visit, "min_ncc", session.cube.main.snap(0.3))
        drag(page, "main margin", (session.settings.min_ncc, None), (0.4, None))
        assert eventually(page, lambda: abs(session.settings.min_ncc - 0.4) < 0.01)


def test_the_curve_against_defocus_leaves_out_excluded_micrographs(project):
    """With one micrograph a bin the line has the accepted picks of each; an excluded one is no dip to 0."""
    inspector = Inspector(project.path)
    session = Session(inspector)
    session.follow({})
    assert inspector.background.wait(120)
    view = CurveView(session, Look())
    session.toggle_excluded(2)
    view.refresh(frozenset(["decisions"]))
    settings = SelectSettings(min_ncc=0.3, edge=100.0)
    accepted = reason_counts(Judge(project, "template", settings).block(0, project.count).reasons)[0]
    left = np.setdiff1d(np.flatnonzero(inspector.finished("template")), [2])
    assert view._bins.data["y"].tolist() == accepted[left][np.argsort(inspector.defocus[left])].tolist()
    inspector.background.close()


def test_cells_have_the_colour_of_their_accepted_part():
    rng = np.random.default_rng(0)
    every = rng.integers(0, 50, (7, 9)).astype(np.float32) ** 2
    accepted = np.floor(every * rng.choice([0.0, 0.01, 0.3, 0.9, 1.0], every.shape)).astype(np.float32)
    accepted[0, 0], every[0, 0] = 1, 2000
    plane = Plane(
        np.linspace(0, 1, 10), np.geomspace(1, 10, 8), every, accepted, every.sum(0), accepted.sum(0), every.sum(1),
        accepted.sum(1), 0,
    )  # fmt: skip
    picture = _Picture(plane)
    image = picture.state(plane)["image"]
    least, most = every[every > 0].min(), every.max()
    for place, index in np.ndenumerate(image):
        total, some = float(every[place]), float(accepted[place])
        if total == 0:
            assert index == 0
            continue
        share, level = divmod(int(index) - 1, LEVELS)
        assert level == pytest.approx(np.log(total / least) / np.log(most / least) * (LEVELS - 1), abs=0.51)
        assert (share > 0) == (some > 0)
        assert share == pytest.approx(some / total * (SHARES - 1), abs=0.51 if share > 1 or some == 0 else 1.01)
    neutral = picture.neutral(every)
    assert (neutral[every > 0] > LEVELS * SHARES).all()
    assert int(neutral.max()) < len(colours(Look())) <= 256


def test_limits_do_not_cross_on_the_way():
    session_order = SelectSettings(min_power=2.0, max_power=3.0)
    assert ordered([("min_power", 4.0), ("max_power", 5.0)], session_order.min_power)[0][0] == "max_power"
    assert ordered([("min_power", 0.5), ("max_power", 1.0)], session_order.min_power)[0][0] == "min_power"


def test_ticks_are_few_and_round():
    assert ticks(np.array([0.44, 13.0])) == [0.5, 1.0, 2.0, 5.0, 10.0]
    assert ticks(np.array([0.01, 1e5])) == [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0, 100000.0]
