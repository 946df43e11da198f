import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pickcal.errors import InputError, MissingFileError
from pickcal.job_file import load_job
from pickcal.settings import (
    BlobSettings,
    CalibrateSettings,
    ClusterSettings,
    ExportSettings,
    ImportSettings,
    SelectSettings,
    SimulateSettings,
    TemplateSettings,
    validated,
)

JOB = """
project = "a.zarr"

[import]
sources = ["micrographs_ctf.star"]
pixel_size = 4.5

[pick]
method = "template"
templates = "templates.mrcs"
diameter = 150

[select]
min_ncc = 0.3
"""


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def refusal(model, values):
    with pytest.raises(InputError) as error:
        validated(model, values, "here")
    text = str(error.value)
    assert text.startswith("here: settings refused\n")
    return text.split("\n", 1)[1]


TEMPLATE = {"templates": "t.mrcs", "diameter": 150}


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (TemplateSettings, TEMPLATE | {"low_pass": 2}, "low_pass: expected greater than or equal to 5, got 2"),
        (TemplateSettings, TEMPLATE | {"low_pass": "x"}, "low_pass: expected a valid number.*, got 'x'"),
        (TemplateSettings, TEMPLATE | {"contrast": "black"}, "contrast: expected 'dark' or 'light', got 'black'"),
        (TemplateSettings, TEMPLATE | {"max_picks": 2.5}, "max_picks: expected a valid integer.*, got 2.5"),
        (TemplateSettings, TEMPLATE | {"ctf": "maybe"}, "ctf: expected a valid boolean.*, got 'maybe'"),
        (CalibrateSettings, {"bootstrap": 1}, "bootstrap: expected 0 for .* at least 20 resamples, got 1"),
        (CalibrateSettings, {"bootstrap": 19}, "bootstrap: expected 0 .*, got 19"),
        (TemplateSettings, {"templates": "t.mrcs"}, "diameter: expected a value, got none"),
        (
            TemplateSettings,
            TEMPLATE | {"rotaton_step": 5},
            "rotaton_step: no such setting; did you mean 'rotation_step'?",
        ),
        (TemplateSettings, TEMPLATE | {"qqqqqqqq": 5}, "qqqqqqqq: no such setting; there are low_pass, high_pass"),
        (
            BlobSettings,
            {"diameter_min": 200, "diameter_max": 100},
            r"diameter_min: expected at most diameter_max \(100\), got 200",
        ),
        (BlobSettings, {"diameter_min": 100, "diameter_max": 100, "shapes": []}, r"shapes: expected.*at least 1"),
        (SelectSettings, {"min_power": 4, "max_power": 2}, r"min_power: expected at most max_power \(2\), got 4"),
        (SimulateSettings, {"defocus_min": 9000, "defocus_max": 8000}, "defocus_min: expected at most defocus_max"),
        (SimulateSettings, {"defocus": [1000, -5]}, "defocus: expected values above 0 Å"),
        (ClusterSettings, {"cluster": "host:8786"}, r"cluster: expected 'local', 'serial' or an address"),
        (CalibrateSettings, {"degree": 3}, "degree: expected less than or equal to 2, got 3"),
        (CalibrateSettings, {"covariates": ["ice"]}, "covariates.*: expected 'ice_thickness'.*got 'ice'"),
        (ImportSettings, {"batch": 0}, "batch: expected greater than or equal to 1, got 0"),
        (ExportSettings, {"suffix": "a/b"}, "suffix: expected.*got 'a/b'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected_and_found(model, values, message):
    assert re.search(message, refusal(model, values), re.MULTILINE)


def test_every_wrong_value_is_listed():
    text = refusal(TemplateSettings, {"diameter": 5, "low_pas": 3})
    assert "diameter: expected greater than or equal to 20, got 5" in text
    assert "low_pas: no such setting; did you mean 'low_pass'?" in text
    assert "templates: expected a value, got none" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("model", "values", "name"),
    [
        (TemplateSettings, TEMPLATE, "high_pass"),
        (TemplateSettings, TEMPLATE, "low_pass"),
        (TemplateSettings, TEMPLATE, "template_pixel_size"),
        (SelectSettings, {}, "edge"),
        (CalibrateSettings, {}, "reference_defocus"),
        (ImportSettings, {}, "source_pixel_size"),
    ],
)
def test_only_finite_numbers_are_taken(model, values, name, value):
    """TOML and the command line know nan and inf; a filter at nan Å would fail late and obscurely."""
    assert f"{name}: expected" in refusal(model, values | {name: value})


def test_settings_are_frozen():
    chosen = TemplateSettings(**TEMPLATE)
    with pytest.raises(ValidationError, match="frozen"):
        chosen.low_pass = 30.0


def test_stored_values_are_plain_and_read_back():
    chosen = TemplateSettings(**TEMPLATE, high_pass=300)
    stored = chosen.stored()
    assert stored["templates"] == "t.mrcs" and stored["high_pass"] == 300
    assert TemplateSettings(**stored) == chosen
    assert BlobSettings(diameter_min=100, diameter_max=200).diameter == 150


def test_a_job_file_is_read(job):
    read = load_job(job)
    assert read.project == Path("a.zarr") and read.import_.pixel_size == 4.5
    assert read.import_.sources == (Path("micrographs_ctf.star"),)
    assert isinstance(read.pick, TemplateSettings) and read.pick.diameter == 150
    assert read.select.min_ncc == 0.3 and read.select.name == "selected"
    assert read.calibrate is None and read.export is None
    assert read.picks_name == "template" and read.cluster.kind == "local"


def test_overrides_replace_and_add(job):
    read = load_job(
        job,
        (
            "import.pixel_size=6",
            "pick.diameter = 180",
            "select.exclude=['a.mrc', 'b.mrc']",
            "pick.ctf=false",
            "calibrate.degree=2",
            "picks=mine",
            "project=other.zarr",
            "cluster.cluster=tcp://host:8786",
        ),
    )
    assert read.import_.pixel_size == 6 and read.pick.diameter == 180 and read.pick.ctf is False
    assert read.select.exclude == ("a.mrc", "b.mrc") and read.select.min_ncc == 0.3
    assert read.calibrate.degree == 2 and read.picks_name == "mine"
    assert read.project == Path("other.zarr") and read.cluster.kind == "tcp://host:8786"


def test_an_override_may_change_the_method(job):
    with pytest.raises(InputError) as error:
        load_job(job, ("pick.method=blob",))
    assert "templates: no such setting" in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pick.diameter", r"--set: expected section\.key=value, got 'pick\.diameter'"),
        ("=3", "--set: expected section.key=value, got '=3'"),
        ("project.name=3", "'project' is a value, not a section"),
        ("select.min_ncc=high", "select.min_ncc: expected a valid number.*got 'high'"),
        ("select.min_nc=0.4", "select.min_nc: no such setting; did you mean 'min_ncc'"),
    ],
)
def test_wrong_overrides_are_refused(job, override, message):
    with pytest.raises(InputError, match=message):
        load_job(job, (override,))


def edited(job, old, new):
    assert old in JOB
    job.write_text(JOB.replace(old, new))
    with pytest.raises(InputError) as error:
        load_job(job)
    assert str(error.value).startswith(f"{job}: ")
    return str(error.value)


def test_a_wrong_setting_of_a_section_is_named_as_one_would_write_it(job):
    """The name must be one that the file and --set understand."""
    assert "  pick.diameter: expected greater than or equal to 20, got 5" in edited(
        job, "diameter = 150", "diameter = 5"
    )
    assert "  pick.diametr: no such setting; did you mean 'diameter'?" in edited(job, "diameter =", "diametr =")
    assert "  import.sources: expected a value, got none" in edited(job, "sources =", "#")


def test_an_unknown_section_suggests_one_that_exists(job):
    text = edited(job, "[import]", "[imports]")
    assert "  imports: no such setting; did you mean 'import'?" in text


@pytest.mark.parametrize("line", ["", 'method = "neural"'])
def test_a_missing_or_unknown_method_names_the_methods(job, line):
    text = edited(job, 'method = "template"', line)
    assert "  pick.method: expected" in text and "'blob'" in text and "'template'" in text
    assert ("got none" if not line else "got 'neural'") in text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ('[export]\npath = "out"\n', r"export: expected a \[select\] section beside it"),
        ("[simulate]\nseed = 1\n", r"simulate: expected an \[import\] section beside it"),
        ('[select]\nthresholds = "t.toml"\nmin_ncc = 0.3\nauto = true\n', r"got both \(also auto, min_ncc\)"),
    ],
)
def test_sections_that_cannot_work_together_are_refused_before_any_work(tmp_path, section, message):
    """An export of nothing, micrographs that nobody takes in, thresholds from two places; picking may take hours."""
    path = tmp_path / "job.toml"
    path.write_text(f'project = "a.zarr"\n{section}')
    with pytest.raises(InputError, match=message):
        load_job(path)


def test_a_job_without_project(job):
    assert "  project: expected a value, got none" in edited(job, 'project = "a.zarr"', "")


def test_what_is_not_a_job_file(tmp_path):
    path = tmp_path / "job.toml"
    with pytest.raises(MissingFileError, match=r"job\.toml: no such job file"):
        load_job(path)
    path.write_text("project = \n")
    with pytest.raises(InputError, match=r"job\.toml: not a TOML file"):
        load_job(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    with pytest.raises(InputError, match=r"job\.toml: not a TOML file"):
        load_job(path)
    with pytest.raises(MissingFileError):
        load_job(tmp_path)
