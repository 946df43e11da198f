"""Calibration and montage in a real browser: what is drawn is what is stored, and what is clicked is gone to."""

import json
import sys
import threading
from contextlib import contextmanager

import numpy as np
import panel as pn
import pytest
from browsing import PATIENCE, answers, eventually, needs_chromium, server_process, watched
from lab import free_port
from small_project import add_calibration, failed, make_project, outlying

from pickcal.calibration.medians import medians_above_decoys
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.calibration import CalibrationView
from pickcal.dashboard.views.look import Look
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.select import Judge

pytestmark = needs_chromium
COUNT = 12
LOW, HIGH = -1.0, 2.0

SERVER = """
import faulthandler, json, signal, sys
import panel as pn
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.calibration import CalibrationView
from pickcal.dashboard.views.look import Look
from pickcal.dashboard.views.montage import MontageView
from pickcal.dashboard.views.posting import Posted

VIEWS = {"calibration": CalibrationView, "montage": MontageView}
faulthandler.register(signal.SIGUSR1)
port, paths = int(sys.argv[1]), sys.argv[2:]
inspectors = {f"/{i}/{tab}": Inspector(path) for i, path in enumerate(paths) for tab in VIEWS}

def page(route):
    pn.extension(design="bootstrap")
    document, tab = pn.state.curdoc, route.split("/")[2]
    post = Posted(document)
    session = Session(inspectors[route], post)
    session.choose_picks("template")
    session.look(tab=tab)
    view = VIEWS[tab](session, Look(False))
    session.show_montage()
    state = pn.pane.HTML("")

    def refresh(changes):
        document.hold("combine")
        view.refresh(changes)
        document.unhold()
        seen = session.view
        facts = {"row": seen.row, "cursor": seen.cursor, "tab": seen.tab, "method": session.method,
                 "reject": [h.micrograph for h in session.settings.reject], "version": session.version}
        state.object = f"<p id='state'>{json.dumps(facts)}</p>"

    session.listen(lambda changes: post(lambda: refresh(changes)))
    session.tell("notes")
    strict = pn.widgets.Button(name="stricter")
    strict.on_click(lambda _: session.set_threshold("min_ncc", 0.35))
    contrast = pn.widgets.Button(name="contrast")
    contrast.on_click(lambda _: session.look(low=-1.0, high=2.0))
    smooth = pn.widgets.Button(name="smoother")
    smooth.on_click(lambda _: session.look(lowpass=60.0))
    return pn.Column(pn.Row(strict, contrast, smooth), state, view.layout, sizing_mode="stretch_width")

pn.serve({route: (lambda route=route: page(route)) for route in inspectors}, port=port, show=False,
         address="127.0.0.1", websocket_origin=[f"127.0.0.1:{port}"])
"""

FIND = """
const views = []
const walk = (view) => { views.push(view); for (const child of view.child_views || []) walk(child) }
for (const root of Bokeh.index.roots) walk(root)
const plot = views.find((view) => view.model.name === `medians_${score}`)
const points = [...plot.renderer_views.values()].find((view) => view.model.name === `points_${score}`)
const frame = plot.frame
"""
POINTS = f"(score) => {{ {FIND} return Array.from(points.glyph.sy, (sy) => frame.y_scale.invert(sy)) }}"
PLACE = f"""([score, row]) => {{ {FIND}
  const box = plot.el.getBoundingClientRect()
  return [box.x + points.glyph.sx[row], box.y + points.glyph.sy[row]]
}}"""


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Two exposure groups with a line each."""
    project = make_project(tmp_path_factory.mktemp("groups") / "g.zarr", calibrate=False)
    project._array("micrographs", "exposure_group")[:] = 1 + np.arange(COUNT) % 2
    add_calibration(project, CalibrateSettings(bootstrap=0, per_group=True))
    return project


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("raw") / "r.zarr", calibrate=False)


@pytest.fixture(scope="module")
def address(project, grouped, raw):
    port = free_port()
    command = [sys.executable, "-c", SERVER, str(port), *(str(p.path) for p in (project, grouped, raw))]
    address = f"http://127.0.0.1:{port}"
    with server_process(command, stacks=True) as server:
        server.wait_for(lambda _: answers(f"{address}/static/js/bokeh.min.js"))
        yield address


@contextmanager
def browsing(browser, address, width=1280):
    """Open a page of its own, with no console errors and no requests to other hosts at its end."""
    page = browser.new_page(viewport={"width": width, "height": 1000})
    errors, strangers = watched(page)
    try:
        page.goto(address)
        page.locator("#state").wait_for()
        yield page
        assert (errors, strangers) == ([], [])
    finally:
        page.close()


def state(page):
    return json.loads(page.locator("#state").inner_text())


def medians_of(project):
    """Medians of the stored picks, micrograph by micrograph, power as its logarithm."""
    picks = project.picks("template").load()
    found = np.full((2, COUNT), np.nan)
    for i in range(failed(COUNT)):
        count, decoys = int(picks["count"][i]), int(picks["decoy_count"][i])
        columns = [picks[name].values[i, :count] for name in ("ncc", "power")]
        columns += [picks[name].values[i, :decoys] for name in ("decoy_ncc", "decoy_power")]
        median = medians_above_decoys(*columns)
        found[:, i] = median.ncc, np.log(median.power)
    return found


def test_points_are_the_medians_of_the_stored_picks_before_and_after(browser, address, project):
    before, fit = medians_of(project), project.calibration("template")
    after = before - fit["shift"].values
    pivot = float(fit.attrs["pivot"])
    after[0] = pivot + (before[0] - fit["shift"].values[0] - pivot) * fit["gain"].values
    assert np.nanmax(np.abs(after - before)) > 0.01
    with browsing(browser, f"{address}/0/calibration") as page:
        page.get_by_text("After (calibrated)").wait_for()

        def drawn(expected):
            found = [page.evaluate(POINTS, score) for score in ("ncc", "power")]
            return all(
                np.allclose([np.nan if value is None else value for value in values], wanted, atol=2e-5, equal_nan=True)
                for values, wanted in zip(found, expected, strict=True)
            )

        assert eventually(page, lambda: drawn(before))
        page.get_by_text("After (calibrated)").click()
        assert eventually(page, lambda: drawn(after))
        page.get_by_text("Before (raw scores)").click()
        assert eventually(page, lambda: drawn(before))
        assert page.get_by_text("Micrographs not shown: 2 without a median, 1 without defocus.").is_visible()


@pytest.mark.parametrize("click", [True, False], ids=["mouse", "keyboard"])
def test_an_outlying_micrograph_is_gone_to(browser, address, click):
    with browsing(browser, f"{address}/0/calibration") as page:
        page.get_by_text("After (calibrated)").wait_for()
        start = state(page)
        assert (start["row"] != outlying(COUNT), start["tab"]) == (True, "calibration")
        if click:
            page.wait_for_timeout(300)
            x, y = page.evaluate(PLACE, ["ncc", outlying(COUNT)])
            page.mouse.click(x + 30, y - 30)
            page.wait_for_timeout(300)
            assert state(page) == start
            page.mouse.click(x, y)
        else:
            choice = page.get_by_label("Outlying micrographs, worst first (1)")
            assert "stack_05: NCC score -" in choice.inner_text()
            choice.focus()
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
        assert eventually(page, lambda: (state(page)["row"], state(page)["tab"]) == (outlying(COUNT), "all"))
        assert page.get_by_text("Now: mics/stack_05.mrc").is_visible()


def test_verdicts_methods_and_further_plots(browser, address, project):
    with browsing(browser, f"{address}/0/calibration", 1000) as page:
        fit = project.calibration("template")
        verdict = str(fit["verdict"].sel(score="ncc").values[0]).split(". ")[0]
        assert page.get_by_text(verdict.replace("slope", "Slope")).is_visible()
        assert state(page)["method"] == "line"
        for name, method in (
            ("None (raw score)", "raw"),
            ("False discovery rate", "fdr"),
            ("Probability", "probability"),
        ):
            page.get_by_role("button", name=name).click()
            assert eventually(page, lambda method=method: state(page)["method"] == method)
        page.get_by_text("In use. Picks are accepted by their probability").wait_for()
        assert page.locator("img").count() == 0
        page.get_by_label("More plots").select_option("Residuals")
        page.get_by_alt_text("Residuals of picks template").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_micrographs_do_not_wait_for_a_plot(project, monkeypatch):
    inspector = Inspector(project.path)
    session = Session(inspector)
    session.choose_picks("template")
    layout = CalibrationView(session, Look()).layout
    begun, go, drawn = threading.Event(), threading.Event(), threading.Event()
    plot = inspector.picture

    def long(*of):
        begun.set()
        assert go.wait(PATIENCE)
        return plot(*of)

    monkeypatch.setattr(inspector, "picture", long)
    next(w for w in layout.select(pn.widgets.Select) if "residuals" in w.values).value = "residuals"
    assert begun.wait(PATIENCE)
    inspector.background.submit("micrograph", lambda: iter(()), lambda _: drawn.set())
    assert drawn.wait(PATIENCE)
    go.set()
    assert inspector.background.wait(PATIENCE)
    assert any("Residuals of picks template" in pane.alt_text for pane in layout.select(pn.pane.PNG))


def test_one_exposure_group_is_chosen(browser, address, grouped):
    groups = grouped.read("micrographs", "exposure_group")
    with browsing(browser, f"{address}/1/calibration") as page:
        choice = page.get_by_label("Exposure group")
        choice.wait_for()
        assert len(page.evaluate(POINTS, "ncc")) == COUNT
        choice.select_option("Group 2")
        assert eventually(page, lambda: len(page.evaluate(POINTS, "ncc")) == int((groups == 2).sum()))
        assert page.get_by_text("NCC score, group 1", exact=True).is_visible()
        x, y = page.evaluate(PLACE, ["power", 1])
        page.mouse.click(x, y)
        assert eventually(page, lambda: state(page)["row"] == int(np.flatnonzero(groups == 2)[1]))


def test_picks_without_calibration_say_which_command_to_give(browser, address, raw):
    with browsing(browser, f"{address}/2/calibration") as page:
        assert page.get_by_text(f"pickcal calibrate {raw.path} --picks template").is_visible()
        assert page.get_by_role("button", name="Probability").is_disabled()
        assert page.get_by_text("Not for these picks: they are not calibrated.").count() == 3


def tiles(page, group):
    return page.locator(f"[data-group={group}] .tile")


def test_tiles_are_the_picks_next_to_the_threshold_and_lead_there(browser, address, project):
    picks, fit = project.picks("template").load(), project.calibration("template")
    reasons = Judge(project, "template", SelectSettings(min_ncc=0.3, edge=100.0)).block(0, COUNT).reasons
    pivot = float(fit.attrs["pivot"])
    shift, gain = fit["shift"].values[0][:, None], fit["gain"].values[:, None]
    score = pivot + (picks["ncc"].values - shift - pivot) * gain
    power = picks["power"].values / np.exp(fit["shift"].values[1])[:, None]
    accepted, low = reasons == 0, reasons == 3
    with browsing(browser, f"{address}/0/montage") as page:
        tiles(page, "power").first.wait_for()
        for group, values in (
            ("above", np.sort(score[accepted])[:12]),
            ("below", np.sort(score[low])[::-1][:12]),
            ("power", np.sort(power[accepted])[::-1][:12]),
        ):
            digits = 2 if group == "power" else 4
            shown = [text.split("\n")[0] for text in tiles(page, group).all_inner_texts()]
            assert shown == [f"{value:.{digits}f}" for value in values]
            assert set(tiles(page, group).evaluate_all("all => all.map((tile) => tile.dataset.accepted)")) == {
                "false" if group == "below" else "true"
            }
        nearest = np.where(low, score, -np.inf)
        row, place = (int(i) for i in np.unravel_index(nearest.argmax(), nearest.shape))
        tile = tiles(page, "below").first.locator(".go")
        assert f"stack_{row + 1:02d}.mrc" in tile.get_attribute("title")
        assert "rejected: low score" in tile.get_attribute("aria-label")
        tile.click()
        assert eventually(page, lambda: [state(page)[k] for k in ("row", "cursor", "tab")] == [row, place, "all"])


def test_tiles_follow_the_keyboard_and_decisions_by_hand(browser, address):
    with browsing(browser, f"{address}/0/montage") as page:
        first = tiles(page, "above").first
        first.wait_for()
        scores = tiles(page, "above").all_inner_texts()
        first.locator(".toggle").click()
        assert eventually(
            page, lambda: len(state(page)["reject"]) == 1 and first.get_attribute("data-accepted") == "false"
        )
        page.wait_for_timeout(500)
        assert tiles(page, "above").all_inner_texts()[1:] == scores[1:]
        assert "rejected by hand" in first.locator(".go").get_attribute("title")
        first.locator(".toggle").click()
        assert eventually(page, lambda: state(page)["reject"] == [] and first.get_attribute("data-accepted") == "true")
        page.locator("[data-group=above] .go").first.focus()
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        name = tiles(page, "above").nth(2).locator(".go").get_attribute("title").split("\n")[0]
        page.keyboard.press("Enter")
        assert eventually(page, lambda: state(page)["tab"] == "all")
        assert (f"mics/stack_{state(page)['row'] + 1:02d}.mrc", state(page)["cursor"] >= 0) == (name, True)


def test_tiles_follow_threshold_contrast_and_low_pass(browser, address):
    pixels = (
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, 64, 64).data).filter((_, i) => i % 4 === 0)"
    )
    with browsing(browser, f"{address}/0/montage") as page:
        canvas = tiles(page, "power").first.locator("canvas")
        canvas.wait_for()
        before = np.array(canvas.evaluate(pixels))
        page.get_by_role("button", name="contrast").click()
        # what was black at -3 and white at 3 standard deviations; tiles come in 256 steps of 10 / 255 of them
        wanted = 255 * ((before / 255 * 6 - 3) - LOW) / (HIGH - LOW)
        inside = (before > 0) & (before < 255)

        def stretched():
            found = np.array(canvas.evaluate(pixels))
            return np.abs(found - np.clip(wanted, 0, 255))[inside].max() <= 3

        assert eventually(page, stretched)
        sharp = np.array(canvas.evaluate(pixels))
        page.get_by_role("button", name="smoother").click()

        def smoother():
            found = np.array(canvas.evaluate(pixels)).reshape(64, 64)
            rough = [np.abs(np.diff(image.astype(float), axis=1)).mean() for image in (found, sharp.reshape(64, 64))]
            return rough[0] < 0.7 * rough[1]

        assert eventually(page, smoother)
        page.get_by_role("button", name="stricter").click()

        def stricter():
            text = page.locator("[data-group=above] p").inner_text()
            least = float(tiles(page, "above").first.inner_text().split("\n")[0])
            return "threshold 0.3500" in text and least >= 0.35

        assert eventually(page, stricter)
        component = page.locator(".montage")
        assert eventually(page, lambda: int(component.get_attribute("data-painted")) == state(page)["version"])
        assert component.locator(".status").inner_text().startswith("From 10 micrographs of all defocus")
