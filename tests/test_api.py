"""The Python API of notebooks: xarray objects with units, plain keyword arguments, nothing written unless asked for."""

import builtins
import json
import re
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from small_project import PARTICLES, make_project

import pickcal
from pickcal.api.dashboard import flags
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.selection import REASONS
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.calibrate import calibrate as calibrate_stage
from pickcal.stages.select import judge

UNSAFE = "mics/<script>alert(1)</script>&_03.mrc"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Path of a calibrated project of 12 micrographs with one selection. Read only: copy it to write."""
    names = [f"mics/stack_{i:02d}.mrc" for i in range(12)]
    names[10] = UNSAFE  # the one that failed
    path = tmp_path_factory.mktemp("api") / "p.zarr"
    make_project(path, names=names)
    return path


@pytest.fixture
def p(small):
    """The project, open for reading."""
    return pickcal.open(small)


def tree(path):
    """Names, sizes and times of all files of a project."""
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in path.rglob("*") if file.is_file()}


def test_import_is_light():
    """`import pickcal` loads neither arrays nor plots, and names what there is all the same."""
    text = (
        "import sys, pickcal; heavy = {'numpy', 'xarray', 'zarr', 'pandas', 'matplotlib', 'dask', 'panel', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)), 'open' in dir(pickcal))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_star_import_leaves_open_alone():
    """`from pickcal import *` does not hide Python's own `open`."""
    assert "open" not in pickcal.__all__
    assert pickcal.open is not builtins.open


def test_what_is_read_has_units_and_long_names(p):
    """Every variable that is a quantity; with names and defocus of the micrographs beside it."""
    scores = p.scores("template")
    for dataset in (p.micrographs(), p.picks("template"), scores, p.selected("strict"), p.fit("template")):
        unnamed = [name for name, variable in dataset.variables.items() if "long_name" not in variable.attrs]
        assert unnamed == []
        assert dataset["defocus"].attrs["units"] == "Å"
        assert dataset["micrograph_name"].values[0] == "mics/stack_00.mrc"
    units = {
        name: scores[name].attrs.get("units") for name in ("x", "y", "ncc", "power", "calibrated_ncc", "probability")
    }
    assert units == {
        "x": "Å",
        "y": "Å",
        "ncc": "1",
        "power": "noise variances",
        "calibrated_ncc": "1",
        "probability": "1",
    }
    assert scores["calibrated_power"].attrs["units"] == "noise variances"
    assert p.image(0).attrs["units"] == "image deviations"


def test_images_by_number_and_name(p, small):
    """Axes are in Å; a name without its folder is enough; others are refused with an example."""
    image = p.image("stack_04.mrc")
    assert image.dims == ("y", "x")
    assert float(image["x"][1] - image["x"][0]) == 5.0
    np.testing.assert_array_equal(image, pickcal.Project.open(small).image(4))
    np.testing.assert_array_equal(p.image(-1), p.image(11))
    with pytest.raises(InputError, match=r"nothing.mrc: expected the name of one micrograph, found none; e.g. 'mics"):
        p.image("nothing.mrc")
    with pytest.raises(InputError, match="expected a number from 0 to 11, got 12"):
        p.image(12)


def test_scores_of_a_part_are_those_of_the_whole(p):
    """Slices, numbers and names; probabilities are in [0, 1] and high for about as many picks as were planted."""
    whole, part, one = p.scores("template"), p.scores("template", slice(4, 7)), p.scores("template", "stack_05.mrc")
    xr.testing.assert_equal(whole.isel(micrograph=slice(4, 7)), part)
    xr.testing.assert_equal(whole.isel(micrograph=[5]), one)
    probability = whole["probability"].values
    assert np.nanmin(probability) >= 0
    assert np.nanmax(probability) <= 1
    assert np.median(np.nansum(probability, axis=1)[:10]) == pytest.approx(PARTICLES, rel=0.1)
    with pytest.raises(InputError, match="slice that is not empty"):
        p.scores("template", slice(5, 5))


def test_selected_is_what_the_selection_accepts(p, small):
    """The same picks as the stage judges, with the reasons by their names."""
    found = p.selected("strict")
    reasons = judge(pickcal.Project.open(small), "template", SelectSettings(min_ncc=0.3, edge=100.0))
    np.testing.assert_array_equal(found["reason"], reasons)
    np.testing.assert_array_equal(found["accepted"], reasons == 0)
    assert found["reason"].attrs["flag_meanings"] == ["no pick", *REASONS]
    assert p.status()["selection"]["strict"]["accepted"] == int(found["accepted"].sum())


def test_open_for_reading_changes_nothing(p, small, capsys, tmp_path):
    """Fits and selections are made and given, but not stored; stages that only store are refused with the remedy."""
    before = tree(small)
    fit = p.calibrate("template", degree=2, bootstrap=0)
    assert fit.attrs["degree"] == 2
    assert "the fit is not stored" in capsys.readouterr().out
    counts = p.select("template", min_ncc=0.3, edge=100.0)
    assert int(counts["counts"].sel(reason="accepted").sum()) == p.status()["selection"]["strict"]["accepted"]
    assert counts.attrs["min_ncc"] == 0.3
    for call in (
        lambda: p.pick_blob(diameter_min=100, diameter_max=150),
        lambda: p.score("template", diameter=150),
        lambda: p.control("template"),
        lambda: p.import_picks(tmp_path / "a.star", "a"),
    ):
        with pytest.raises(ProjectError, match=r"open it with pickcal.open\(.*write=True\)"):
            call()
    assert p.fit("template").attrs["degree"] == 1
    assert tree(small) == before


def test_a_trial_is_what_would_be_stored(p, small, own):
    """The fit that is not stored equals the stored one of the same settings, column by column."""
    tried = p.calibrate("template", degree=2, bootstrap=0)
    stored = pickcal.open(own(small), write=True).calibrate("template", degree=2, bootstrap=0)
    xr.testing.assert_allclose(stored, tried)
    assert stored.attrs == {**tried.attrs, "settings": stored.attrs["settings"], "pickcal_version": pickcal.__version__}


def test_open_for_writing_stores(small, own):
    """As the stage does with settings objects; a selection needs a name; what it stored is read at once."""
    one, other = own(small, "a.zarr"), own(small, "b.zarr")
    p = pickcal.open(one, write=True, quiet=True)
    fit = p.calibrate("template", degree=2, bootstrap=0)
    calibrate_stage(pickcal.Project.open(other, "r+"), "template", CalibrateSettings(degree=2, bootstrap=0))
    again = pickcal.open(other).fit("template")
    np.testing.assert_allclose(fit["coefficients"].values, again["coefficients"].values)
    assert fit["term"].values.tolist() == again["term"].values.tolist()
    p.select("template", "auto", auto=True)
    assert pickcal.open(one).status()["selection"]["auto"]["accepted"] > 0
    with pytest.raises(InputError, match="expected a name"):
        p.select("template", min_ncc=0.2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda p: p.calibrate("template", degre=2),
            r"calibrate\(\): no such argument 'degre'; did you mean 'degree'\?",
        ),
        (lambda p: p.select("template", min_scor=2), "did you mean 'min_score'"),
        (lambda p: p.pick_template(diamter=150), "did you mean 'diameter'"),
        (lambda p: p.pick("blob", wokers=1), "did you mean 'workers'"),
        (lambda p: p.pick("blobs"), "expected 'template' or 'blob', got 'blobs'"),
        (lambda p: p.calibrate("template", degree=7), r"degree: expected less than or equal to 2, got 7"),
        (lambda p: p.calibrate("template", xyzzy=7), "it takes picks, ncc, power"),
        (lambda p: p.picks("tmplate"), "no picks named 'tmplate'; it has: template"),
        (lambda p: p.inspect(prt=1), "did you mean 'port'"),
        (lambda p: p.evaluate("t.star"), "expected one of picks and selection, got none"),
    ],
)
def test_wrong_arguments_say_what_to_do(p, call, said):
    """Names suggest the right one, values what was expected."""
    with pytest.raises((InputError, ProjectError), match=said):
        call(p)


def test_no_project(tmp_path):
    """As on the command line."""
    with pytest.raises(MissingFileError, match="no such project"):
        pickcal.open(tmp_path / "nowhere.zarr")


def test_signatures_show_settings(p):
    """What Shift-Tab shows: each setting with its default and its description; required ones have none."""
    import inspect

    parameters = inspect.signature(p.calibrate).parameters
    assert next(iter(parameters)) == "picks"
    assert parameters["degree"].default == 1
    assert "settings" not in parameters
    assert CalibrateSettings.model_fields["degree"].description in p.calibrate.__doc__
    assert inspect.signature(p.pick_template).parameters["diameter"].default is inspect.Parameter.empty


class Tags(HTMLParser):
    """Tags that a browser would see, and its words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert all(not name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.words.append(data)


def test_repr_tells_what_there_is_and_what_is_left(p, small, tmp_path):
    """Picks, selections, failures and next steps, as text and as HTML in which names are only words."""
    accepted = p.status()["selection"]["strict"]["accepted"]
    text, seen = repr(p), Tags(p._repr_html_())
    for words in (text, " ".join(seen.words)):
        assert "12 micrographs" in words
        assert "template" in words
        assert str(accepted) in words
    assert "open for reading" in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert set(seen.tags) <= {"div", "strong", "code", "br", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert UNSAFE in seen.words
    assert "<script" not in p._repr_html_()
    make_project(tmp_path / "new.zarr", micrographs=4, calibrate=False)
    fresh = pickcal.open(tmp_path / "new.zarr", write=True)
    assert "left         calibrate template" in repr(fresh)
    assert "open for writing" in repr(fresh)


PLOTS = ("medians", "residuals", "scores", "thresholds", "components", "plane", "false_discovery", "trends")


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_figures_that_notebooks_show(p, name):
    """Each is a matplotlib figure with something drawn, and a PNG for the notebook."""
    from matplotlib.figure import Figure

    figure = getattr(p, f"plot_{name}")("template")
    assert isinstance(figure, Figure)
    assert any(axes.has_data() for axes in figure.axes)
    if name == "medians":
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_plots_of_a_trial_and_of_a_selection(p):
    """A fit that is not stored can be drawn; picks of a selection on micrographs."""
    trial = p.calibrate("template", degree=2, bootstrap=0)
    curved, straight = (p.plot_medians("template", fit=fit).axes[0] for fit in (trial, None))
    lines = [max(axes.lines, key=lambda line: len(line.get_xdata())).get_ydata() for axes in (curved, straight)]
    bends = [np.abs(np.diff(np.asarray(line), 2)).max() for line in lines]
    assert bends[0] > 10 * bends[1]
    accepted = p.selected("strict")["accepted"].values.sum(axis=1)
    titles = [axes.get_title() for axes in p.plot_micrographs("template", "strict").axes]
    shown = {int(number) for title in titles for number in re.findall(r"(\d+) accepted", title)}
    assert len(titles) == 3
    assert shown <= set(accepted.tolist())


def test_report_export_and_evaluate(p, tmp_path):
    """Results of the stages, with plain arguments."""
    page = p.report(tmp_path / "r.html")
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    done = p.export(tmp_path / "picks.csv", "strict", format="csv")
    assert done["picks"] == int(p.selected("strict")["accepted"].sum())
    assert (tmp_path / "picks.csv").is_file()


def test_from_micrographs_to_picks(small_set, tmp_path, capsys):
    """Import, pick and evaluate a simulated set; the planted particles are found, failures would be named."""
    p = pickcal.import_micrographs(small_set.micrographs, tmp_path / "p.zarr", cluster="serial", batch=3)
    assert len(p) == 6
    picks = p.pick_template(templates=small_set.templates, diameter=150, rotation_step=30, cluster="serial")
    assert int((picks["status"] == 1).sum()) == 6
    said = capsys.readouterr().out
    assert "pick template: 6 of 6 in" in said
    p.calibrate("template", bootstrap=0)
    found = p.evaluate(small_set.truth, picks="template")
    assert found["f1"] > 0.9
    json.dumps(found)
    p.select("template", "mine", min_ncc=0.3)
    noise = p.control("template", "mine", micrographs=2, cluster="serial")
    assert noise["micrographs"] == 2 and "on noise with the same spectrum selection 'mine'" in noise["verdict"]
    theirs = p.import_picks(str(small_set.truth), "theirs", diameter=150)
    scored = p.score("theirs", templates=small_set.templates, diameter=150, rotation_step=30, cluster="serial")
    assert scored["count"].sum() == theirs["count"].sum() > 0
    assert float(scored["ncc"].max()) > 0.5


def test_plots_say_what_they_lack(tmp_path):
    """Picks without a fit, with lines alone, without a power score: each in words of its own."""
    p = pickcal.open(make_project(tmp_path / "p.zarr", calibrate=False).path, write=True)
    for call in (p.plot_components, p.plot_medians, p.mixture):
        with pytest.raises(ProjectError, match=r"'template' are not calibrated; calibrate\('template'\) fits them"):
            call("template")
    few = pickcal.open(make_project(tmp_path / "few.zarr", 3).path)
    with pytest.raises(ProjectError, match=r"'template' have no probabilities \(not fitted: "):
        few.plot_components("template")
    with pytest.raises(ProjectError, match=r"'template' have no mixture \(not fitted: "):
        few.mixture("template")


def test_inspect_runs_beside_python(p):
    """The page answers at its address while Python goes on, read only like the project; `stop` ends it."""
    shown = p.inspect()
    try:
        assert shown.running
        plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with plain.open(f"{shown.url}liveness", timeout=30) as answer:
            assert answer.status == 200
        assert f'href="{shown.url}"' in shown._repr_html_()
    finally:
        shown.stop()
    assert not shown.running
    assert "ended" in repr(shown)


def test_inspect_that_cannot_start_says_why(p):
    """The server's own words."""
    with pytest.raises(pickcal.errors.PickcalError, match="expected also a password"):
        p.inspect(address="0.0.0.0")


def test_flags_of_settings():
    """As the command line takes them."""
    settings = ServeSettings(show=False, port=5006, read_only=True, allow_origin=("a.org", "b.org"))
    assert flags(settings) == ["--port=5006", "--no-show", "--read-only", "--allow-origin", "a.org", "b.org"]
