import os
import struct
import tracemalloc
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pickcal.errors import InputError, MissingFileError, PickcalError
from pickcal.formats.images import (
    ImageInfo,
    image_info,
    is_volume,
    open_image_info,
    read_measured,
    read_stack,
    read_volume,
    split_stack_name,
    write_mrc,
)

MODES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}


def plain_mrc(path, pixels, mode, order="<", extended=b"", stamp=True, ispg=0, cell=0.0):
    """Write an MRC file word by word, after the table of the MRC2014 paper."""
    nz, ny, nx = pixels.shape
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, nx, ny, nz, mode, 0, 0, 0, nx, ny, nz)
    struct.pack_into(f"{order}3f", header, 40, cell * nx, cell * ny, cell * nz)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}2i", header, 88, ispg, len(extended))
    if stamp:
        header[208:216] = b"MAP " + (b"\x44\x44\x00\x00" if order == "<" else b"\x11\x11\x00\x00")
    path.write_bytes(bytes(header) + extended + pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())
    return path


@pytest.mark.parametrize(("mode", "dtype"), MODES.items())
def test_modes_written_by_mrcfile(tmp_path, noise, mode, dtype):
    pixels = noise.astype(dtype)
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(pixels)
        file.voxel_size = 1.31
    with mrcfile.open(tmp_path / "a.mrc") as file:
        assert file.header.mode == mode
    (info,) = open_image_info(tmp_path / "a.mrc")
    assert (info.height, info.width, info.images, info.index) == (72, 96, 1, None)
    assert info.pixel_size == pytest.approx(1.31)
    image = read_measured(info)[0]
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, pixels.astype(np.float32))


@pytest.mark.parametrize(("mode", "dtype"), MODES.items())
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stamp", [True, False])
def test_byte_orders_and_extended_header(tmp_path, noise, mode, dtype, order, stamp):
    pixels = noise.astype(dtype)[None]
    path = plain_mrc(tmp_path / "a.mrc", pixels, mode, order, extended=b"x" * 333, stamp=stamp, cell=2.5)
    (info,) = open_image_info(path)
    assert info.pixel_size == pytest.approx(2.5)
    np.testing.assert_array_equal(read_measured(info)[0], pixels[0].astype(np.float32))


def test_wrong_machine_stamp(tmp_path, noise):
    path = plain_mrc(tmp_path / "a.mrc", noise[None], 2, ">")
    with path.open("r+b") as file:
        file.seek(212)
        file.write(b"\x44\x44")
    np.testing.assert_array_equal(read_measured(open_image_info(path)[0])[0], noise)


@pytest.mark.parametrize(("flags", "dtype"), [(0, np.uint8), (1, np.int8)])
def test_imod_bytes(tmp_path, noise, flags, dtype):
    pixels = np.clip(noise, 0, 255).astype(np.uint8)
    path = plain_mrc(tmp_path / "a.mrc", pixels[None], 0)
    with path.open("r+b") as file:
        file.seek(152)
        file.write(struct.pack("<2i", 1146047817, flags))
    np.testing.assert_array_equal(read_measured(open_image_info(path)[0])[0], pixels.view(dtype).astype(np.float32))


@pytest.mark.parametrize("order", "<>")
def test_slices_of_a_stack(tmp_path, noise, order):
    pixels = np.stack([noise, noise[::-1] + 5, noise[:, ::-1] - 9])
    path = plain_mrc(tmp_path / "s.mrcs", pixels, 2, order, extended=b"e" * 100)
    infos = open_image_info(path, stacks=True)
    assert [info.index for info in infos] == [0, 1, 2]
    for info, truth in zip(infos, pixels, strict=True):
        np.testing.assert_array_equal(read_measured(info)[0], truth)
    assert infos[2].name == f"000003@{path}"
    index, file = split_stack_name(infos[2].name)
    assert image_info(file, index) == infos[2]
    stack, _ = read_stack(path)
    np.testing.assert_array_equal(stack, pixels)
    with pytest.raises(InputError, match="slice from 1 to 3, got 4"):
        image_info(path, 3)


def test_one_slice_of_a_stack_costs_one_slice(tmp_path):
    path = tmp_path / "big.mrcs"
    first = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    plain_mrc(path, first, 2)
    images = 200_000
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<i", images))
        file.truncate(1024 + images * 64 * 64 * 4)  # 3.3 GB on paper, a sparse file on disk
    info = ImageInfo(path, 0, 64, 64, None, images)
    tracemalloc.start()
    np.testing.assert_array_equal(read_measured(info)[0], first[0])
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("ispg", [0, 1])
def test_a_movie_is_refused(tmp_path, noise, ispg):
    path = plain_mrc(tmp_path / "m.mrc", np.stack([noise] * 4), 2, ispg=ispg)
    with pytest.raises(InputError, match=r"m\.mrc: .*movie of 4 images.*motion correction.*--stacks"):
        open_image_info(path)
    tifffile.imwrite(tmp_path / "m.tif", np.stack([noise] * 5))
    with pytest.raises(InputError, match="movie of 5 images"):
        image_info(tmp_path / "m.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_tiff(tmp_path, noise, dtype, compression):
    path = tmp_path / "image.mrc"  # told by content, not by extension
    # 0.64 Å are a whole number of pixels per cm, which every version of tifffile writes as it is
    tifffile.imwrite(path, noise.astype(dtype), compression=compression, resolution=(1e8 / 0.64,) * 2, resolutionunit=3)
    (info,) = open_image_info(path)
    assert (info.height, info.width) == noise.shape
    assert info.pixel_size == pytest.approx(0.64, rel=1e-5)
    np.testing.assert_array_equal(read_measured(info)[0], noise.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"bigtiff": True, "byteorder": ">"}, {"compression": "lzw"}])
def test_tiff_stack(tmp_path, noise, options):
    pixels = np.stack([noise, noise + 3, noise[::-1]])
    tifffile.imwrite(tmp_path / "s.tif", pixels, photometric="minisblack", **options)
    infos = open_image_info(tmp_path / "s.tif", stacks=True)
    for info, truth in zip(infos, pixels, strict=True):
        np.testing.assert_array_equal(read_measured(info)[0], truth)
    assert infos[0].pixel_size is None
    assert not is_volume(tmp_path / "s.tif")


def test_tiff_for_printers_has_no_pixel_size(tmp_path, noise):
    tifffile.imwrite(tmp_path / "a.tif", noise, resolution=(72, 72), resolutionunit=2)
    assert open_image_info(tmp_path / "a.tif")[0].pixel_size is None


def test_colour_and_complex_tiff_are_refused(tmp_path, noise):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((70, 80, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="grey TIFF, found 3 samples"):
        open_image_info(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "c.tif", noise.astype(np.complex64))
    with pytest.raises(InputError, match="complex64"):
        open_image_info(tmp_path / "c.tif")


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_truncated_tiff(tmp_path, noise, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise, compression=compression)
    (info,) = open_image_info(path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    with pytest.raises(InputError, match=rf"truncated: .*the file has {size // 2}"):
        read_measured(info)[0]


def test_truncated_mrc_names_both_sizes(tmp_path, noise):
    write_mrc(tmp_path / "a.mrc", noise, 1.0)
    data = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / "a.mrc").write_bytes(data[:-100])
    (info,) = open_image_info(tmp_path / "a.mrc")
    with pytest.raises(InputError, match=f"says {1024 + 72 * 96 * 4} bytes, the file has {924 + 72 * 96 * 4}"):
        read_measured(info)[0]
    (tmp_path / "a.mrc").write_bytes(data[:500])
    with pytest.raises(InputError, match="header of 1024 bytes, the file has 500"):
        open_image_info(tmp_path / "a.mrc")


@pytest.mark.parametrize(("mode", "text"), [(3, r"3 \(complex"), (4, r"4 \(complex"), (101, "101"), (7, "7")])
def test_unsupported_modes_are_named(tmp_path, noise, mode, text):
    path = plain_mrc(tmp_path / "a.mrc", noise[None], mode)
    with pytest.raises(InputError, match=rf"expected MRC mode 0, 1, 2, 6, 12, found {text}"):
        read_measured(open_image_info(path)[0])[0]


def test_bad_pixels(tmp_path, noise):
    path = tmp_path / "a.mrc"

    def read(pixels):
        write_mrc(path, pixels, 1.0)
        return read_measured(open_image_info(path)[0])[0]

    few = noise.copy()
    few[5, 7], few[9, 9] = np.nan, np.inf
    good = np.isfinite(few)
    image = read(few)
    np.testing.assert_array_equal(image[good], few[good])
    assert image[5, 7] == image[9, 9] == pytest.approx(few[good].mean(dtype=float), rel=1e-6)
    many = noise.copy()
    many[0, :8] = np.nan  # 8 of 6912 is 0.116 %
    with pytest.raises(InputError, match=r"8 of 6912 \(0.12%\)"):
        read(many)
    with pytest.raises(InputError, match="no finite pixel"):
        read(np.full_like(noise, np.nan))
    with pytest.raises(InputError, match="found 3 in every pixel"):
        read(np.full_like(noise, 3))
    with pytest.raises(InputError, match="at least 64 x 64 pixels, found 63 x 96"):
        read(noise[:63])


@pytest.mark.parametrize(("word", "value"), [(0, 0), (1, -5), (2, 0), (2, 2**30), (3, -1), (23, -8)])
def test_senseless_headers_are_told(tmp_path, noise, word, value):
    path = plain_mrc(tmp_path / "a.mrc", noise[None], 2)
    with path.open("r+b") as file:
        file.seek(4 * word)
        file.write(struct.pack("<i", value))
    with pytest.raises(InputError, match=rf"makes no sense: found nx .*{value}"):
        open_image_info(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    """Nobody may ever write into it."""
    os.mkfifo(tmp_path / "a.mrc")
    with pytest.raises(InputError, match="expected an MRC or TIFF file, found neither"):
        open_image_info(tmp_path / "a.mrc")


def test_a_file_in_place_of_a_folder_is_no_such_file(tmp_path, noise):
    write_mrc(tmp_path / "a.mrc", noise, 1.0)
    with pytest.raises(MissingFileError, match=r"a\.mrc/b\.mrc: no such file"):
        open_image_info(tmp_path / "a.mrc" / "b.mrc")


def test_missing_folder_and_foreign_files(tmp_path, noise):
    with pytest.raises(MissingFileError, match=r"nothing\.mrc: no such file"):
        open_image_info(tmp_path / "nothing.mrc")
    with pytest.raises(InputError, match="found a folder"):
        open_image_info(tmp_path)
    (tmp_path / "a.mrc").write_text("data_\nloop_\n_a #1\n1\n" * 200)
    with pytest.raises(InputError, match="expected an MRC or TIFF file"):
        open_image_info(tmp_path / "a.mrc")
    write_mrc(tmp_path / "b.mrc", noise, 1.0)
    (info,) = open_image_info(tmp_path / "b.mrc")
    write_mrc(tmp_path / "b.mrc", noise[:70], 1.0)
    with pytest.raises(InputError, match="changed since"):
        read_measured(info)[0]
    (tmp_path / "b.mrc").unlink()
    with pytest.raises(MissingFileError):
        read_measured(info)[0]


def test_header_without_pixel_size(tmp_path, noise):
    path = plain_mrc(tmp_path / "a.mrc", noise[None], 2, cell=0.0)
    assert open_image_info(path)[0].pixel_size is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000001@x.mrcs", (0, Path("x.mrcs"))),
        ("12@a/b@c.mrcs", (11, Path("a/b@c.mrcs"))),
        ("a@b.mrc", (None, Path("a@b.mrc"))),
        ("/x/0001.mrc", (None, Path("/x/0001.mrc"))),
    ],
)
def test_split_stack_name(name, expected):
    assert split_stack_name(name) == expected


def test_slices_count_from_one():
    with pytest.raises(InputError, match="counted from 1"):
        split_stack_name("000000@x.mrcs")


def test_volumes_and_stacks(tmp_path):
    cube = np.random.default_rng(1).normal(size=(20, 20, 20)).astype(np.float32)
    for name, stack, expected in [
        ("v.mrc", False, True),
        ("v.map", True, True),
        ("v.mrcs", True, False),
        ("v.mrcs", False, False),
        ("v.ccp4", False, True),
        ("v.st", True, False),
    ]:
        write_mrc(tmp_path / name, cube, 4.0, stack=stack)
        assert is_volume(tmp_path / name) is expected, (name, stack)
    volume, pixel_size = read_volume(tmp_path / "v.mrc")
    np.testing.assert_array_equal(volume, cube)
    assert pixel_size == 4.0
    write_mrc(tmp_path / "w.mrc", cube[:10], 4.0)
    with pytest.raises(InputError, match=r"cubic map.*10 x 20 x 20"):
        read_volume(tmp_path / "w.mrc")


def test_written_stacks_are_what_mrcfile_calls_valid(tmp_path, noise):
    stack = np.stack([noise, noise * 2]).astype(np.float64)
    write_mrc(tmp_path / "deep" / "s.mrcs", stack, 3.2, stack=True)
    with mrcfile.open(tmp_path / "deep" / "s.mrcs") as file:
        assert file.is_image_stack()
        assert file.header.mode == 2
        assert float(file.voxel_size.x) == pytest.approx(3.2)
        np.testing.assert_array_equal(file.data, stack.astype(np.float32))
    assert mrcfile.validate(tmp_path / "deep" / "s.mrcs")
    write_mrc(tmp_path / "one.mrcs", noise, 1.0, stack=True)
    assert read_stack(tmp_path / "one.mrcs")[0].shape == (1, 72, 96)
    with pytest.raises(InputError, match="above 0, got 0"):
        write_mrc(tmp_path / "x.mrc", noise, 0)


def test_an_empty_class_average_is_kept_an_empty_stack_is_not(tmp_path, noise):
    write_mrc(tmp_path / "s.mrcs", np.stack([noise, 0 * noise]), 3.2, stack=True)
    assert read_stack(tmp_path / "s.mrcs")[0].shape == (2, 72, 96)
    write_mrc(tmp_path / "s.mrcs", np.zeros((2, 30, 30)), 3.2, stack=True)
    with pytest.raises(InputError, match="every pixel"):
        read_stack(tmp_path / "s.mrcs")


def test_real_files(data):
    (info,) = open_image_info(data / "apoferritin_10146/micrographs/May08_05.35.20.mrc")
    assert (info.height, info.width, info.pixel_size) == (1200, 1240, 1.5)
    with mrcfile.open(info.path) as file:
        np.testing.assert_array_equal(read_measured(info)[0], file.data.astype(np.float32))
    (binned,) = open_image_info(data / "odd/Ucsf_stack_1142_DW.mrc")
    assert (binned.height, binned.width, binned.pixel_size) == (927, 959, 1.0)
    sizes = {}
    for path in (data / "maps").glob("*.mrc"):
        volume, pixel_size = read_volume(path)
        sizes[volume.shape[0]] = pixel_size
    assert sizes == {80: 4.0, 128: 1.5, 100: 3.54, 65: None}


FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(path):
    for stacks in (False, True):
        try:
            infos = open_image_info(path, stacks=stacks)
            for info in infos[:2]:
                image = read_measured(info)[0]
                assert np.isfinite(image).all()
        except PickcalError as error:
            assert str(path) in str(error)


@FUZZ
@given(content=st.binary(max_size=1500), magic=st.sampled_from([b"", b"II*\x00", b"MM\x00*", b"II+\x00"]))
def test_random_bytes_never_crash(tmp_path, content, magic):
    path = tmp_path / "f.mrc"
    path.write_bytes(magic + content)
    survives(path)


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    pixels = np.random.default_rng(0).normal(100, 20, size=(2, 64, 66))
    plain_mrc(folder / "a.mrc", pixels.astype(np.int16), 1)
    plain_mrc(folder / "b.mrc", pixels[:1].astype(np.float32), 2, ">", extended=b"x" * 64)
    tifffile.imwrite(folder / "c.tif", pixels[0].astype(np.uint16))
    tifffile.imwrite(folder / "d.tif", pixels.astype(np.float32), compression="lzw")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@FUZZ
@given(draw=st.data())
def test_damaged_files_never_crash(tmp_path, valid_files, draw):
    content = bytearray(draw.draw(st.sampled_from(valid_files)))
    for _ in range(draw.draw(st.integers(1, 6))):
        # half of the damage in the header, where it hurts
        limit = draw.draw(st.sampled_from([300, len(content)]))
        content[draw.draw(st.integers(0, limit - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path / "f.tif"
    path.write_bytes(content[: draw.draw(st.integers(0, len(content)))] if draw.draw(st.booleans()) else content)
    survives(path)


@pytest.mark.parametrize(("mode", "dtype"), MODES.items())
@pytest.mark.parametrize("order", ["<", ">"])
def test_memory_that_is_there_serves_for_every_type(tmp_path, noise, mode, dtype, order):
    pixels = np.stack([noise, noise[::-1]]).astype(dtype)
    path = plain_mrc(tmp_path / "a.mrcs", pixels, mode, order)
    memory = np.full(noise.shape, 7, np.float32)
    image, found = read_measured(image_info(path, 1), memory)
    assert image is memory
    np.testing.assert_array_equal(image, pixels[1].astype(np.float32))
    assert (found.low, found.high) == (image.min(), image.max())
    assert found.mean == pytest.approx(image.mean(dtype=float), abs=1e-5)


def test_a_file_that_became_shorter_is_refused(tmp_path, noise, monkeypatch):
    """As when a transfer is begun anew between the look at the size and the reading."""
    path = plain_mrc(tmp_path / "a.mrc", noise[None].astype(np.float32), 2)
    info = image_info(path, None)
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr("pickcal.formats.mrc.check_complete", lambda path, header: np.dtype(np.float32))
    with pytest.raises(InputError, match=r"a\.mrc: became shorter while it was read, 100 bytes lack"):
        read_measured(info, np.empty(noise.shape, np.float32))
