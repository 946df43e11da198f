"""Names out of tables are names: whatever they say, nothing is written outside the folder that was given."""

import pytest
from small_project import make_project

from pickcal.errors import InputError
from pickcal.formats.atomic import Within
from pickcal.settings import ExportSettings
from pickcal.stages.export import export

HOSTILE = [
    "../../up1.mrc",
    "/abs/olute.mrc",
    "a/../../../up2.mrc",
    "....//....//dots.mrc",
    "..",
    "./../.hidden.mrc",
    "MotionCorr/job001/../../up3.mrc",
    "000001@../../up4.mrcs",
    "C:\\Windows\\up5.mrc",
    "~/home.mrc",
    "$HOME/dollar.mrc",
    "%2e%2e/%2e%2e/up6.mrc",
]
FORMATS = {
    "relion": "out",
    "cryolo": "out",
    "eman": "out",
    "cryosparc": "out/p.cs",
    "topaz": "out/p.txt",
    "csv": "out/p.csv",
    "parquet": "out/p.parquet",
}


def everything(folder):
    return {path for path in folder.rglob("*") if "p.zarr" not in path.parts}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("hostile") / "deep" / "er" / "p.zarr", names=HOSTILE)


@pytest.mark.parametrize("format", FORMATS)
def test_exports_stay_in_their_folder(hostile, tmp_path, monkeypatch, format):
    """RELION's files per micrograph, boxes, and formats of one file; the folder is three levels down."""
    (tmp_path / "a" / "b" / "out").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    around = everything(tmp_path.parent) - everything(tmp_path / "a" / "b" / "out")
    done = export(
        hostile, "strict", ExportSettings(format=format, rejected=True), tmp_path / "a" / "b" / FORMATS[format]
    )
    assert done["picks"] > 0
    inside = everything(tmp_path / "a" / "b" / "out") | everything(tmp_path / "a" / "b" / "out_rejected")
    assert everything(tmp_path.parent) - inside - {tmp_path / "a" / "b" / "out_rejected"} == around
    assert len(inside) >= (10 if format in ("relion", "cryolo", "eman") else 2)


def test_links_that_lead_out_are_not_followed(tmp_path):
    """Neither written nor removed through; the folder itself may be a link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    victim = elsewhere / "m_autopick.star"
    victim.write_text("precious")
    project = make_project(tmp_path / "p.zarr", names=[f"mics/m{i or ''}.mrc" for i in range(12)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mics").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"'mics/m\.mrc': its file would be written to .*elsewhere.*remove the link"):
        export(project, "strict", ExportSettings(), tmp_path / "out")
    assert victim.read_text() == "precious" and len(list(elsewhere.iterdir())) == 1
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "particles.star").symlink_to(victim)
    export(project, "strict", ExportSettings(), tmp_path / "link")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "real" / "particles.star").is_symlink()
    assert len(list((tmp_path / "real" / "mics").iterdir())) > 5


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "../out2/a", "/etc/a"])
def test_names_that_no_file_can_have_or_that_lead_out(tmp_path, name):
    with pytest.raises(InputError, match="micrograph 'mic'"):
        Within(tmp_path / "out").file(name, "mic")
    assert Within(tmp_path / "out").file("a/b", "mic") == tmp_path / "out" / "a" / "b"
