import math
import re

import numpy as np
import pytest

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.ctffind import number, read_exposures, recognise
from pickcal.formats.foreign import EXPOSURE_COLUMNS, HEAD

# lines as CTFFIND 4.1.5, 4.1.14 and 5.0.2 wrote them, with the values of published runs
COLUMNS = (
    "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; #5 - "
    "additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were "
    "fit successfully"
)
TILT = "; #8 - Estimated tilt axis angle; #9 - Estimated tilt angle ; #10 Estimated sample thickness (in Angstroms)"
ROW = "1.000000 9982.502930 9881.5 -38.856349 0.035256 0.565683 1.980663"


def text(row=ROW, name="test_img.mrc", count=1, version="4.1.14", columns=COLUMNS, pixel="0.885"):
    return (
        f"# Output from CTFFind version {version}, run on 2023-02-02 15:13:07\n"
        f"# Input file: {name} ; Number of micrographs: {count}\n"
        f"# Pixel size: {pixel} Angstroms ; acceleration voltage: 200.0 keV ; spherical aberration: 2.26 mm ; "
        "amplitude contrast: 0.07\n"
        "# Box size: 1024 pixels ; min. res.: 30.0 Angstroms ; max. res.: 5.0 Angstroms ; min. def.: 5000.0 um; "
        f"max. def. 50000.0 um\n{columns}\n{row}\n"
    )


AVROT = (
    "# Output from CTFFind version 4.1.14, run on 2024-03-05 10:08:53\n"
    "# Input file: a.mrc ; Number of micrographs: 1\n"
    "# Pixel size: 1.000 Angstroms ; acceleration voltage: 300.0 keV ; spherical aberration: 2.70 mm ; amplitude "
    "contrast: 0.07\n"
    "# 6 lines per micrograph: #1 - spatial frequency (1/Angstroms); #2 - 1D rotational average of spectrum (assuming "
    "no astigmatism); #3 - 1D rotational average of spectrum; #4 - CTF fit; #5 - cross-correlation between spectrum "
    "and CTF fit; #6 - 2sigma of expected cross correlation of noise\n0.0 0.1\n1 2\n1 2\n1 2\n1 2\n1 2\n"
)


@pytest.fixture
def write(tmp_path):
    def write(content, name="mic_ctf.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def one(path):
    frame = read_exposures([path])
    assert list(frame.columns) == ["name", *EXPOSURE_COLUMNS, "problem"]
    assert len(frame) == 1
    return frame.iloc[0]


def test_every_value_with_its_unit(write):
    row = one(write(text(name="dir with space/test; img.mrc")))
    assert row["name"] == "dir with space/test; img.mrc"
    assert row["problem"] == ""
    assert (row["defocus_u"], row["defocus_v"], row["defocus_angle"]) == (9982.50293, 9881.5, -38.856349)
    assert row["phase_shift"] == pytest.approx(0.035256 * 180 / math.pi)
    assert row["ctf_fit_resolution"] == 1.980663
    assert (row["pixel_size"], row["voltage"], row["spherical_aberration"], row["amplitude_contrast"]) == (
        0.885,
        200.0,
        2.26,
        0.07,
    )
    assert (row["exposure_group"], row["uid"]) == (1, 0)
    assert row[["source_height", "source_width", "ice_thickness", "dose"]].isna().all()


def test_version_5_has_three_columns_more(write):
    row = "1.000000 8984.742188 8709.236328 45.948771 0.000000 0.446317 3.720000 221.912292 12.251187 1619.773438"
    row = one(write(text(row, version="5.0.2", columns=COLUMNS + TILT)))
    assert (row["defocus_u"], row["ctf_fit_resolution"], row["problem"]) == (8984.742188, 3.72, "")
    assert math.isnan(row["ice_thickness"])


def test_slices_of_a_stack_are_named_as_images_are(write):
    rows = "\n".join(f"{i}.000000 {10000 + i} 9000 0 0 0.1 5.0" for i in (1, 3, 2))
    frame = read_exposures([write(text(rows, name="47.mrc", count=3))])
    assert frame["name"].tolist() == ["000001@47.mrc", "000002@47.mrc", "000003@47.mrc"]
    assert frame["defocus_u"].tolist() == [10001, 10002, 10003]
    assert (frame["problem"] == "").all()


def test_rows_that_a_killed_run_did_not_write(write):
    rows = "1.000000 10001 9000 0 0 0.1 5.0\n2.000000 10002 90"
    frame = read_exposures([write(text(rows, name="47.mrc", count=4))])
    assert frame["problem"].str.contains("truncated|did not finish|^$").all()
    assert (frame["problem"] == "").tolist() == [True, False, False, False]
    assert np.isfinite(frame["defocus_u"]).tolist() == [True, False, False, False]


def test_a_number_that_comes_twice_leaves_the_first_and_spoils_the_other(write):
    rows = "1.000000 10001 9000 0 0 0.1 5.0\n1.000000 10002 9000 0 0 0.1 5.0"
    frame = read_exposures([write(text(rows, name="47.mrc", count=2))])
    assert frame["defocus_u"].tolist() == pytest.approx([10001, math.nan], nan_ok=True)
    assert (frame["problem"] == "").tolist() == [True, False]
    assert "found '1.000000' (again)" in frame["problem"][1]


def test_power_spectra_of_relion_stand_for_their_micrographs(write):
    row = one(write(text(name="MotionCorr/job003/Movies/XXX_PS.mrc", pixel="1.400")))
    assert row["name"] == "MotionCorr/job003/Movies/XXX.mrc"
    assert math.isnan(row["pixel_size"])
    assert row["voltage"] == 200.0


def test_table_without_header_takes_the_name_of_its_file(write):
    columns = COLUMNS.replace("[Angstroms]", "[A]").replace("[radians]", "[radian]")
    path = write(f"{columns}\n   1   15000.00  14000.00   12.00     0.5000    0.1000    4.0000    1\n", "mic7.txt")
    assert recognise(path, path.read_bytes())
    row = one(path)
    assert (row["name"], row["defocus_v"], row["problem"]) == ("mic7", 14000.0, "")
    assert math.isnan(row["voltage"])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1.000000 nan nan nan 0.0 nan inf", "defocus_u.*found nan; CTFFIND found no fit"),
        ("1.000000 inf 9000 0.0 0.0 0.1 5.0", "defocus_u.*found inf"),
        ("1.000000 0.000000 0.000000 0.0 0.0 0.0 0.0", "defocus_u.*found 0"),
        ("1.000000 9000 -8000.0 0.0 0.0 0.1 5.0", "defocus_v.*found -8000"),
        ("1.000000 ******** 9000 0.0 0.0 0.1 5.0", r"expected a number, found '\*+'"),
        ("1.000000 9000 9000 0.0 0.0", "expected 7 numbers, found 5"),
        ("7.000000 9000 9000 0.0 0.0 0.1 5.0", "number of a micrograph, found '7.0"),
        ("x 9000 9000 0.0 0.0 0.1 5.0", "number of a micrograph, found 'x'"),
        (f"{ROW}\n{ROW}", "values of 1 micrographs, found 2"),
        ("", "did not finish"),
    ],
)
def test_failed_fits_are_told_in_the_row(write, row, expected):
    path = write(text(row))
    found = one(path)
    assert found["name"] == "test_img.mrc"
    assert found["problem"].startswith(f"{path}: ")
    assert re.search(expected, found["problem"])


def test_no_ring_is_no_resolution_and_no_problem(write):
    row = one(write(text(ROW.replace("1.980663", "inf"))))
    assert math.isnan(row["ctf_fit_resolution"])
    assert row["problem"] == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("200.0 keV", "0.0 keV", "voltage"),
        ("contrast: 0.07", "contrast: 7.0", "amplitude_contrast"),
        ("Pixel size: 0.885", "Pixel size: -1", "pixel_size"),
        ("[radians]", "[pi]", "phase shift in radians"),
    ],
)
def test_senseless_headers_are_told_in_the_row(write, old, new, expected):
    assert expected in one(write(text().replace(old, new)))["problem"]


def test_a_bad_file_does_not_stop_the_others(write):
    paths = [
        write(text(name="a.mrc"), "a.txt"),
        write("", "b.txt"),
        write(text(name="c.mrc").encode()[:-30], "c.txt"),
        write(text(name="\udcffd.mrc").encode("utf-8", "surrogateescape"), "d.txt"),
    ]
    frame = read_exposures(paths)
    assert frame["name"].tolist() == ["a.mrc", "b", "c.mrc", "d"]
    assert (frame["problem"] == "").tolist() == [True, False, False, False]
    for path, problem in zip(paths[1:], frame["problem"][1:], strict=True):
        assert str(path) in problem


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (AVROT, "a_avrot.txt", "rotational averages.*give a.txt"),
        ("# mic,x,y\n1,2,3\n", "a.txt", "expected CTFFIND's results.*found '# mic,x,y'"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a.txt", "expected CTFFIND's results"),
        ("", "a.txt", "empty file"),
    ],
)
def test_other_files_are_refused_by_name(write, content, name, expected):
    path = write(content, name)
    assert not recognise(path, path.read_bytes()[:HEAD])
    with pytest.raises(InputError, match=expected) as caught:
        read_exposures([path])
    assert str(path) in str(caught.value)


def test_missing_files_folders_and_two_of_one_micrograph(write, tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.txt"):
        read_exposures([tmp_path / "none.txt"])
    with pytest.raises(InputError, match="found a folder"):
        read_exposures([tmp_path])
    with pytest.raises(InputError, match=r"two\.txt.*micrograph test_img\.mrc.*one\.txt"):
        read_exposures([write(text(), "one.txt"), write(text(), "two.txt")])


def test_numbers_of_c_and_fortran():
    assert [number(word) for word in ("1.5", "-.5", "+2e3", "1.5D+04", "inf")] == [1.5, -0.5, 2000.0, 15000.0, math.inf]
    assert all(math.isnan(number(word)) for word in ("1_000", "0x10", "********", "１", "", "nan"))


def test_long_lines_of_blanks_are_read_in_one_pass(write):
    blanks = " " * 1_000_000  # a pattern that tries every pair of them would not end before the suite's timeout
    for part in ("Input file: ", "Pixel size: ", "Columns: #1 "):
        read_exposures([write(text().replace(f"# {part}", f"# {part}{blanks}"))])
        with pytest.raises(InputError):
            read_exposures([write(f"# {part}{blanks}")])


def test_thousands_of_files_keep_their_order(write):
    paths = [write(text(name=f"Micrographs/m{i}.mrc"), f"m{i}.txt") for i in range(2000)]
    frame = read_exposures(paths)
    assert frame["name"].tolist() == [f"Micrographs/m{i}.mrc" for i in range(2000)]
    assert (frame["problem"] == "").all()
