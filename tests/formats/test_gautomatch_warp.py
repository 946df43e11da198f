import numpy as np
import pytest
from damaged import damaged, many, survives
from hypothesis import given

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import gautomatch, relion_picks, warp

GAUTOMATCH = b"""
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAnglePsi #3
_rlnClassNumber #4
_rlnAutopickFigureOfMerit #5
  1024.00      96.50      30.00       2      0.412
   100.25     200.00     355.00       1      0.298
"""
WARP = b"""
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMagnification #3
_rlnDetectorPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnPhaseShift #8
_rlnDefocusU #9
_rlnDefocusV #10
_rlnDefocusAngle #11
_rlnCtfMaxResolution #12
_rlnImageName #13
_rlnMicrographName #14
  100.50  200.25  10000.0  1.34600  300.0  2.7000  0.070  0.0  15123.4  14876.5  33.1  4.2  0000001@particles/m1_BoxNet2Mask_20180918.mrcs  m1.tif
  300.00  400.00  10000.0  1.34600  300.0  2.7000  0.070  0.0  15123.4  14876.5  33.1  4.2  0000002@particles/m1_BoxNet2Mask_20180918.mrcs  m1.tif
  10.00  20.00  10000.0  1.34600  300.0  2.7000  0.070  0.0  0.0  0.0  0.0  999.0  0000001@particles/m2_BoxNet2Mask_20180918.mrcs  m2.tif
"""  # noqa: E501
MATCHING = b"""
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
_rlnAutopickFigureOfMerit #4
  100.50  200.25  m1.tif  0.98765
  300.00  400.00  m1.tif  0.31
"""


def written(path, content):
    path.write_bytes(content)
    return path


def read_one(module, path):
    (part,) = module.read_picks(path)
    return part


def test_gautomatch(tmp_path):
    path = written(tmp_path / "mic_a_automatch.star", GAUTOMATCH)
    assert gautomatch.recognise(path, GAUTOMATCH) and gautomatch.recognise(tmp_path / "any.star", GAUTOMATCH)
    part = read_one(gautomatch, path)
    assert (part.program, part.stem, part.micrograph) == ("gautomatch", "mic_a", None)
    np.testing.assert_array_equal(part.x, [1024, 100.25])
    np.testing.assert_array_equal(part.y, [96.5, 200])
    np.testing.assert_array_equal(part.scores["figure_of_merit"], [0.412, 0.298])
    np.testing.assert_array_equal(part.template, [1, 0])
    # RELION turns from y towards x
    np.testing.assert_allclose(part.angle, [330, 5])


def test_gautomatch_is_told_from_relion_by_the_order_of_columns(data, tmp_path):
    files = sorted((data / "relion_10204/AutoPick_template/Movies").glob("*_autopick.star"))
    assert len(files) == 24
    for path in files:
        head = path.read_bytes()[:65_536]
        assert not gautomatch.recognise(path, head) and not warp.recognise(path, head)
    assert gautomatch.recognise(tmp_path / "x_automatch.star", head)
    assert not gautomatch.recognise(tmp_path / "x_automatch.star", b"data_\n\nloop_\n_rlnMicrographName #1\n")


@pytest.mark.parametrize("ending", ["_nonunique", "_rejected"])
def test_what_gautomatch_left_out_is_not_taken_for_picks(tmp_path, ending):
    path = written(tmp_path / f"mic_a{ending}.star", GAUTOMATCH)
    assert gautomatch.recognise(path, GAUTOMATCH) and gautomatch.is_leftover(path)
    with pytest.raises(InputError, match="left out of them; give the _automatch file") as error:
        list(gautomatch.read_picks(path))
    assert str(path) in str(error.value)
    assert not gautomatch.is_leftover(tmp_path / "mic_a_automatch.star")


def test_warp(tmp_path):
    path = written(tmp_path / "goodparticles_BoxNet2Mask_20180918.star", WARP)
    assert warp.recognise(path, WARP) and not gautomatch.recognise(path, WARP)
    part = read_one(warp, path)
    assert part.program == "warp" and not part.scores
    assert list(part.micrograph) == ["m1.tif", "m1.tif", "m2.tif"]
    np.testing.assert_array_equal(part.x, [100.5, 300, 10])
    # 10,000 x magnified, a detector pixel in µm is the pixel in Å
    np.testing.assert_allclose(part.exposure["pixel_size"], 1.346)
    np.testing.assert_array_equal(part.exposure["defocus_u"], [15123.4, 15123.4, np.nan])
    np.testing.assert_array_equal(part.exposure["defocus_v"], [14876.5, 14876.5, np.nan])
    np.testing.assert_array_equal(part.exposure["ctf_fit_resolution"], [4.2, 4.2, np.nan])
    np.testing.assert_array_equal(part.columns["rlnDefocusU"], [15123.4, 15123.4, 0])
    assert len(part.columns) == 14


def test_warp_matching_folder(tmp_path):
    path = written(tmp_path / "m1_BoxNet2Mask_20180918.star", MATCHING)
    assert warp.recognise(path, MATCHING)
    part = read_one(warp, path)
    assert part.program == "warp" and list(part.micrograph) == ["m1.tif", "m1.tif"]
    np.testing.assert_array_equal(part.scores["figure_of_merit"], [0.98765, 0.31])


def test_warp_is_told_from_relion(data):
    for path in sorted((data / "star_samples").glob("*.star")):
        head = path.read_bytes()[:65_536]
        assert not warp.recognise(path, head) and not gautomatch.recognise(path, head), path
    assert relion_picks.recognise(path, WARP)


def test_warp_at_another_magnification(tmp_path):
    path = written(tmp_path / "a.star", WARP.replace(b"10000.0  1.34600", b"50000.0  5.00000"))
    np.testing.assert_allclose(read_one(warp, path).exposure["pixel_size"], 1.0)
    path.write_bytes(WARP.replace(b"10000.0  1.34600", b"0.0  5.00000"))
    assert np.isnan(read_one(warp, path).exposure["pixel_size"]).all()


def test_warp_in_a_tomogram_is_refused(tmp_path):
    three = MATCHING.replace(b"_rlnCoordinateY #2", b"_rlnCoordinateY #2\n_rlnCoordinateZ #3")
    path = written(tmp_path / "a.star", three.replace(b"200.25", b"200.25 10").replace(b"400.00", b"400.00 20"))
    with pytest.raises(InputError, match="tomogram"):
        list(warp.read_picks(path))
    path.write_bytes(three.replace(b"200.25", b"200.25 0").replace(b"400.00", b"400.00 0"))
    assert len(read_one(warp, path).x) == 2


@pytest.mark.parametrize(("module", "content"), [(gautomatch, GAUTOMATCH), (warp, WARP)])
def test_damage_is_named(tmp_path, module, content):
    path = tmp_path / "bad.star"
    for broken, words in [
        (content[:-20], "expected"),
        (content.replace(b"_rlnCoordinateY", b"_rlnOther"), "rlnCoordinateY"),
        (content.replace(b"  100.", b"  nan1."), "expected a finite number|expected a number"),
        (b"", "empty"),
    ]:
        path.write_bytes(broken)
        with pytest.raises(InputError, match=words) as error:
            list(module.read_picks(path))
        assert str(path) in str(error.value)
    with pytest.raises(MissingFileError):
        list(module.read_picks(tmp_path / "none.star"))
    with pytest.raises(InputError, match="folder"):
        list(module.read_picks(tmp_path))


@many
@given(damaged(GAUTOMATCH))
def test_damaged_gautomatch_ends_in_picks_or_an_error(tmp_path, data):
    gautomatch.recognise(tmp_path / "a_automatch.star", data)
    survives(gautomatch.read_picks, tmp_path / "a_automatch.star", data)


@many
@given(damaged(WARP))
def test_damaged_warp_ends_in_picks_or_an_error(tmp_path, data):
    warp.recognise(tmp_path / "a.star", data)
    survives(warp.read_picks, tmp_path / "a.star", data)
