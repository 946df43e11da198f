import math
import re

import pytest

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.foreign import EXPOSURE_COLUMNS, HEAD
from pickcal.formats.gctf import read_exposures, recognise

# after published logs of Gctf 1.06 (with RES_LIMIT) and older ones (without); the options as its listing prints them
OPTIONS = (
    "--apix              1.04\n--dstep             14.0\n--kv                300\n--cs 2.7\n--ac                0.1\n"
)
CARD = " CS[mm], HT[kV], {ac}, XMAG, DStep[um]\n  2.7    300.0     0.07    134615.4   14.000\n"
LAST = (
    "Cycle: 12\n            24401.23   21649.58      34.52 736.376770\n"
    "**************************************   LAST CYCLE    ******************************************************* *\n"
)
VALUES = (
    "\n   Defocus_U   Defocus_V       Angle         CCC\n"
    "    24401.23    21649.58       34.52    0.180863  Final Values\n"
)
PHASE = (
    "\n   Defocus_U   Defocus_V       Angle   Phase_shift         CCC\n"
    "    12195.93    11722.04      -47.05         88.50    0.039181  Final Values\n"
)
CHECKS = (
    "\n......................................  VALIDATION  ......................................\n"
    "Differences from Original Values:\n"
    "  RESOLUTION   Defocus_U   Defocus_V     Angle       CCC      CONVERGENCE  \n"
    "  20-08A       124.42       -0.95        0.38        0.19     PERFECT        \n"
)
DONE = "Processing done successfully.\n"
EPA = "\nResolution limit estimated by EPA: 3.464 \n"
LIMIT = "\nResolution limit estimated by EPA: RES_LIMIT \x1b[1;31m3.972\x1b[0m \nEstimated Bfactor: B_FACTOR  5.09 \n"
LOG = OPTIONS + LAST + VALUES + EPA + CHECKS + DONE


@pytest.fixture
def write(tmp_path):
    def write(content, name="mic_gctf.log"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def one(path):
    frame = read_exposures([path])
    assert list(frame.columns) == ["name", *EXPOSURE_COLUMNS, "problem"]
    assert len(frame) == 1
    return frame.iloc[0]


def test_every_value(write):
    path = write(LOG)
    assert recognise(path, path.read_bytes())
    row = one(path)
    assert row["problem"] == ""
    assert row["name"] == "mic"
    assert (row["defocus_u"], row["defocus_v"], row["defocus_angle"]) == (24401.23, 21649.58, 34.52)
    assert (row["phase_shift"], row["ctf_fit_resolution"]) == (0.0, 3.464)
    assert (row["voltage"], row["spherical_aberration"], row["amplitude_contrast"]) == (300.0, 2.7, 0.1)
    assert row["pixel_size"] == 1.04
    assert (row["exposure_group"], row["uid"]) == (1, 0)
    assert row[["source_height", "source_width", "ice_thickness", "dose"]].isna().all()


def test_phase_shift_in_degrees_and_coloured_resolution(write):
    row = one(write(OPTIONS + LAST + PHASE + LIMIT + CHECKS + DONE))
    assert (row["phase_shift"], row["defocus_angle"], row["ctf_fit_resolution"]) == (88.5, -47.05, 3.972)


@pytest.mark.parametrize("ac", ["AmpCnst", "ac"])
def test_pixel_size_from_the_magnification(write, ac):
    row = one(write(CARD.format(ac=ac) + LAST + VALUES + EPA))
    assert row["pixel_size"] == pytest.approx(1.04, abs=1e-6)
    assert (row["voltage"], row["spherical_aberration"], row["amplitude_contrast"]) == (300.0, 2.7, 0.07)


def test_the_given_pixel_size_goes_before_the_magnification(write):
    row = one(write("--apix 0.52\n" + CARD.format(ac="ac") + LAST + VALUES))
    assert row["pixel_size"] == 0.52


def test_log_without_microscope(write):
    row = one(write(LAST + VALUES))
    assert row["problem"] == ""
    assert row[["voltage", "pixel_size", "ctf_fit_resolution"]].isna().all()


def test_the_last_refinement_counts(write):
    refined = VALUES.replace("24401.23", "23846.26").replace("Final Values", "Final Values (Hres refine)")
    assert one(write(LAST + VALUES + refined + EPA + DONE))["defocus_u"] == 23846.26


def test_ctffind3_names_its_input(write):
    path = write(
        " CTF DETERMINATION, V3.5 (9-Mar-2013)\n\n Input image file name\n Micrographs/a b.mrc\n\n"
        " Output diagnostic file name\n Micrographs/a.ctf\n\n"
        + CARD.format(ac="AmpCnst")
        + "      DFMID1      DFMID2      ANGAST          CC\n\n"
        "    15876.71    16396.97       52.86     0.10179  Final Values\n",
        "a_ctffind3.log",
    )
    assert recognise(path, path.read_bytes())
    row = one(path)
    assert (row["name"], row["defocus_v"], row["problem"]) == ("Micrographs/a b.mrc", 16396.97, "")


def test_windows_line_ends(write):
    assert one(write(LOG.replace("\n", "\r\n")))["defocus_u"] == 24401.23


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LOG.replace("24401.23    21", "nan    21"), "defocus_u.*found nan; Gctf found no fit"),
        (LOG.replace("  21649.58       34.52    0", "  -1649.58       34.52    0"), "defocus_v.*found -1649"),
        (LOG.replace("34.52    0.18", "********    0.18"), r"among the final values, found '\*+'"),
        (LOG.replace("34.52    0.18", "0.18"), "expected 4 final values"),
        (LAST + "  Defocus_U Defocus_V Angle CCC\n 1 ", "did not finish"),
        (LOG.replace("  Angle         CCC\n", "  Angle         ???\n"), "line of column names"),
        (LOG + LOG, "several micrographs"),
        (LOG.replace("300\n", "-300\n"), "voltage"),
        (LOG.replace("1.04\n", "x\n"), "pixel_size"),
    ],
)
def test_failed_fits_are_told_in_the_row(write, content, expected):
    path = write(content)
    row = one(path)
    assert row["problem"].startswith(f"{path}: ")
    assert re.search(expected, row["problem"])


def test_a_bad_file_does_not_stop_the_others(write):
    paths = [write(LOG, "a_gctf.log"), write("", "b_gctf.log"), write(LAST + "Defocus_U", "c_gctf.log")]
    frame = read_exposures(paths)
    assert frame["name"].tolist() == ["a", "b", "c"]
    assert (frame["problem"] == "").tolist() == [True, False, False]
    assert all(str(path) in problem for path, problem in zip(paths[1:], frame["problem"][1:], strict=True))


CURVES = "Resolution  |CTFsim|  EPA( Ln|F| )  EPA(Ln|F| - Bg)  CCC\n 20.0 0.1 0.2 0.3 0.9\n"
STAR = "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\na.mrc 10000\n"


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (CURVES, "a_EPA.log", "equiphase averages.*give a_gctf.log"),
        (STAR, "micrographs_all_gctf.star", "found 'data_'; read it as STAR"),
        ("hello\n", "a.log", "expected a log of Gctf.*found 'hello'"),
        (b"\x00\x01\x02", "a_gctf.log", "expected a log of Gctf"),
        ("", "a_gctf.log", "empty file"),
    ],
)
def test_other_files_are_refused_by_name(write, content, name, expected):
    path = write(content, name)
    assert not recognise(path, path.read_bytes()[:HEAD])
    with pytest.raises(InputError, match=expected) as caught:
        read_exposures([path])
    assert str(path) in str(caught.value)


def test_missing_files_folders_and_two_of_one_micrograph(write, tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.log"):
        read_exposures([tmp_path / "none.log"])
    with pytest.raises(InputError, match="found a folder"):
        read_exposures([tmp_path])
    with pytest.raises(InputError, match=r"m\.log.*micrograph m, as is .*m_gctf\.log"):
        read_exposures([write(LOG, "m_gctf.log"), write(LOG, "m.log")])


def test_blanks_and_lines_without_end_are_read_in_one_pass(write):
    many = 1_000_000  # a pattern that tries every pair of them would not end before the suite's timeout
    for extra in (
        "Input image file name\n" + " " * many,
        "--apix " + " " * many,
        "Resolution limit estimated by EPA:" + " " * many,
        "CS[mm], HT[kV], ac, XMAG, DStep[um]" + "\n" * many,
        "Final Values " * (many // 10),
    ):
        assert math.isfinite(one(write(extra + "\n" + LOG))["defocus_u"])


def test_thousands_of_files_keep_their_order(write):
    paths = [write(LOG, f"m{i}_gctf.log") for i in range(2000)]
    frame = read_exposures(paths)
    assert frame["name"].tolist() == [f"m{i}" for i in range(2000)]
