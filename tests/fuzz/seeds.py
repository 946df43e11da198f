"""Small valid files of every format, made in code; and for formats with a dense header, files with odd contents."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from cryosparc.dataset import CSDAT_FORMAT, NUMPY_FORMAT, Dataset

OPTICS = b"""# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
opticsGroup1            1     0.885000   200.000000     1.400000     0.100000     0.885000
opticsGroup2            2     0.900000   300.000000     2.700000     0.070000     0.900000


"""


def relion_micrographs():
    new = b"""# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnCtfImage #3
_rlnDefocusU #4
_rlnDefocusV #5
_rlnCtfAstigmatism #6
_rlnDefocusAngle #7
_rlnCtfFigureOfMerit #8
_rlnCtfMaxResolution #9
MotionCorr/job002/m1.mrc 1 CtfFind/m1.ctf:mrc 10864.138672 10575.676758 288.461914 78.283111 0.131144 4.874623
MotionCorr/job002/m2.mrc 2 CtfFind/m2.ctf:mrc 9836.475586 9586.718750 249.756836 72.291122 0.155000 3.611555
"""
    old = b"""
data_

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnMagnification #8
_rlnDetectorPixelSize #9
_rlnPhaseShift #10
"a b.mrc" 20169.86 19935.28 46.96 300.000000 2.7 0.1 58100.0 14.0 88.5
m2.mrc 18999.02 18774.11 nan 300.000000 2.7 0.1 58100.0 14.0 -12
"""
    return [OPTICS + new, old]


def relion_picks():
    auto = b"""
# version 30001

data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAutopickFigureOfMerit #3
_rlnClassNumber #4
_rlnAnglePsi #5
 2054.070231  1212.361341     1.345687            1    45.000000
  893.073955  2540.000000     0.904553            3   -30.000000
   88.000000    17.500000     0.100000            0     0.000000
"""
    particles = b"""
# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
_rlnOpticsGroup #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnImageName #8
 100.500000  200.250000 mics/m1.mrc            1 10864.1 10575.6 78.2 000001@Extract/m1.mrcs
 300.000000  400.000000 mics/m1.mrc            1 10864.1 10575.6 78.2 000002@Extract/m1.mrcs
 500.000000  600.000000 mics/m2.mrc            2 9836.4 9586.7 72.2 000001@Extract/m2.mrcs
"""
    return [auto, OPTICS + particles]


def relion_index():
    return [
        b"""# version 30001

data_coordinate_files

loop_
_rlnMicrographName #1
_rlnMicrographCoordinates #2
MotionCorr/job002/m1.mrc input.star
MotionCorr/job002/m2.mrc input.star
"""
    ]


PICK_FIELDS = [
    ("location/micrograph_uid", "u8"),
    ("location/exp_group_id", "u4"),
    ("location/micrograph_path", "O"),
    ("location/micrograph_shape", "u4", (2,)),
    ("location/micrograph_psize_A", "f4"),
    ("location/center_x_frac", "f4"),
    ("location/center_y_frac", "f4"),
    ("location/min_dist_A", "f4"),
    ("pick_stats/ncc_score", "f4"),
    ("pick_stats/power", "f4"),
    ("pick_stats/template_idx", "u4"),
    ("pick_stats/angle_rad", "f4"),
    ("ctf/accel_kv", "f4"),
    ("ctf/cs_mm", "f4"),
    ("ctf/amp_contrast", "f4"),
    ("ctf/df1_A", "f4"),
    ("ctf/df2_A", "f4"),
    ("ctf/df_angle_rad", "f4"),
    ("ctf/phase_shift_rad", "f4"),
]
EXPOSURE_FIELDS = [
    ("micrograph_blob/path", "O"),
    ("micrograph_blob/idx", "u4"),
    ("micrograph_blob/shape", "u4", (2,)),
    ("micrograph_blob/psize_A", "f4"),
    ("mscope_params/accel_kv", "f4"),
    ("mscope_params/cs_mm", "f4"),
    ("mscope_params/total_dose_e_per_A2", "f4"),
    ("mscope_params/exp_group_id", "u4"),
    ("ctf/exp_group_id", "u4"),
    ("ctf/accel_kv", "f4"),
    ("ctf/cs_mm", "f4"),
    ("ctf/amp_contrast", "f4"),
    ("ctf/df1_A", "f4"),
    ("ctf/df2_A", "f4"),
    ("ctf/df_angle_rad", "f4"),
    ("ctf/phase_shift_rad", "f4"),
    ("ctf_stats/ice_thickness_rel", "f4"),
    ("ctf_stats/ctf_fit_to_A", "f4"),
]
VALUES = {
    "shape": (3838, 3710),
    "psize_A": 0.885,
    "frac": 0.25,
    "accel_kv": 300.0,
    "cs_mm": 2.7,
    "amp_contrast": 0.1,
    "df1_A": 12000.0,
    "df2_A": 11000.0,
    "ncc_score": 0.5,
    "power": 800.0,
}


def _cryosparc(fields, rows, each=1):
    table = Dataset.allocate(rows, fields)
    table["uid"] = np.arange(rows, dtype=np.uint64) + np.uint64(2**63 + 11)
    for name, kind, *_ in fields:
        if kind == "O":
            table[name] = [f"J1/imported/m{row // each}.mrc" for row in range(rows)]
        else:
            table[name][:] = next((value for end, value in VALUES.items() if name.endswith(end)), 1)
    forms = []
    for form in (NUMPY_FORMAT, CSDAT_FORMAT):
        file = io.BytesIO()
        table.save(file, format=form)
        forms.append(file.getvalue())
    return forms


def cryosparc_picks():
    return _cryosparc(PICK_FIELDS, 4, each=2)


def cryosparc_exposures():
    return _cryosparc(EXPOSURE_FIELDS, 2)


CTFFIND = (
    b"# Output from CTFFind version 4.1.14, run on 2023-02-02 15:13:07\n"
    b"# Input file: mics/m1.mrc ; Number of micrographs: %d\n"
    b"# Pixel size: 0.885 Angstroms ; acceleration voltage: 200.0 keV ; spherical aberration: 1.40 mm ; "
    b"amplitude contrast: 0.10\n"
    b"# Box size: 512 pixels ; min. res.: 30.0 Angstroms ; max. res.: 5.0 Angstroms ; min. def.: 5000.0 um; "
    b"max. def. 50000.0 um\n"
    b"# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; "
    b"#5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings "
    b"were fit successfully\n"
    b"1.000000 10295.926758 10012.275391 -38.856349 0.000000 0.030650 5.279412\n"
)


ODD = (0, 1, -1, 0.5, np.nan, np.inf, -np.inf, 1e300, 1e-300, 2**31, 2**63, "", "a.mrc", "é", "\x1b", "nan", "0@x")
KINDS = (
    "<f4",
    "<f8",
    "<u4",
    "<u8",
    "<i4",
    "<i8",
    "<u2",
    "|u1",
    "|i1",
    "|b1",
    "<f2",
    "<c8",
    "|S5",
    "|V3",
    "<U3",
    "|O",
    ">f4",
)


def odd_cryosparc(fields):
    """Makes files of fields lost, retyped and filled with odd values, whole as files."""

    def make(rng):
        rows = rng.choice((0, 1, 2, 5))
        kept = [("uid", "u8"), *(field for field in fields if rng.random() < rng.choice((0.9, 1, 1)))]
        columns = {}
        for name, kind, *shape in kept:
            if rng.random() < 0.02:
                kind, shape = rng.choice(KINDS), rng.choice(([], [], [(2,)], [(3,)], [(0,)]))
            kind = "|S12" if kind == "O" else kind
            columns[name] = (kind, np.zeros((rows, *(shape[0] if shape else ())), kind))
        for name, (_, values) in columns.items():
            usual = next((value for end, value in VALUES.items() if name.endswith(end)), 1)
            with np.errstate(all="ignore"):
                for row in range(rows):
                    value = f"J1/m{row}.mrc" if "path" in name else row + 11 if name == "uid" else usual
                    value = rng.choice(ODD) if rng.random() < 0.05 else value
                    # of what a type cannot hold, zero stays
                    with contextlib.suppress(ValueError, TypeError, OverflowError, Warning):
                        values[row] = value.encode() if values.dtype.kind == "S" and isinstance(value, str) else value
        return _numpy_form(columns, rows) if rng.random() < 0.5 else _stream_form(columns, rows)

    return make


def _numpy_form(columns, rows):
    table = np.zeros(rows, [(name, kind, values.shape[1:]) for name, (kind, values) in columns.items()])
    for name, (_, values) in columns.items():
        table[name] = values
    file = io.BytesIO()
    np.save(file, table, allow_pickle=True)
    return file.getvalue()


def _stream_form(columns, rows):
    table = Dataset.allocate(rows)
    for name, (kind, values) in columns.items():
        texts = values.dtype.kind in "SUOV"
        try:
            table.add_fields([(name, "O") if texts else (name, kind, values.shape[1:])])
            table[name] = [str(value) for value in values] if texts else values
        except Exception:  # a type that this form cannot hold
            continue
    file = io.BytesIO()
    table.save(file, format=CSDAT_FORMAT)
    return file.getvalue()


def odd_parquet(table):
    """Makes tables of columns lost, retyped and filled with odd values, whole as files."""

    def make(rng):
        rows = rng.choice((0, 1, 3))
        columns = {}
        for name in table.columns:
            if rng.random() < 0.05:
                continue
            values = list(table[name][:rows])[:rows]
            values += values[:1] * (rows - len(values))
            kind = pa.array(table[name]).type
            change = rng.random()
            if change < 0.15:
                kind = rng.choice(PARQUET_KINDS)
            if change < 0.3:
                values = [rng.choice((None, *ODD)) if rng.random() < 0.5 else value for value in values]
            try:
                columns[name] = pa.array(values, kind)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                columns[name] = pa.nulls(rows, kind)
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file, compression=rng.choice(("none", "snappy")))
        return file.getvalue()

    return make


PARQUET_KINDS = (
    pa.string(),
    pa.large_string(),
    pa.binary(),
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("ns"),
    pa.decimal128(10, 2),
    pa.null(),
    pa.list_(pa.float64()),
    pa.struct([("a", pa.int8())]),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.float64()),
)


def ctffind():
    more = b"2.000000 9295.9 9012.2 38.8 0.1 0.03 inf 221.9 12.2 1619.7\n3.000000 nan nan nan 0.000000 nan inf\n"
    return [CTFFIND % 1, (CTFFIND % 3).replace(b"4.1.14", b"5.0.2") + more]


def gctf():
    options = b"--apix              1.04\n--dstep 14.0\n--kv                300\n--cs 2.7\n--ac                0.1\n"
    card = b"\n CS[mm], HT[kV], AmpCnst, XMAG, DStep[um]\n  2.7    300.0     0.07    134615.4   14.000\n"
    last = b"""
Cycle: 12
            24401.23   21649.58      34.52 736.376770
**************************************   LAST CYCLE    ************************************************************ *

   Defocus_U   Defocus_V       Angle         CCC
    24401.23    21649.58       34.52    0.180863  Final Values

Resolution limit estimated by EPA: 3.464
"""
    phase = last.replace(b"Angle  ", b"Angle   Phase_shift  ").replace(b"34.52    0.18", b"34.52   88.50   0.18")
    return [options + last + b"Processing done successfully.\n", card + phase]


def topaz():
    return [
        b"image_name\tx_coord\ty_coord\tscore\nm1\t100\t200\t3.25\nm1\t17\t2\t-1.5\nm2\t300\t400\t0.125\n",
        b"image_name\tx_coord\ty_coord\nm1\t100\t200\nm2\t300\t400\n",
    ]


def cbox():
    columns = b"".join(
        b"_%b #%d\n" % (name, place)
        for place, name in enumerate(
            (
                b"CoordinateX",
                b"CoordinateY",
                b"CoordinateZ",
                b"Width",
                b"Height",
                b"Depth",
                b"EstWidth",
                b"EstHeight",
                b"Confidence",
                b"NumBoxes",
                b"Angle",
            ),
            start=1,
        )
    )
    rows = (
        b"1024.5 2048.25 <NA> 220 220 1 200.1 210.2 0.875 <NA> <NA>\n"
        b"10.0 20.0 <NA> 220 220 1 200.1 210.2 0.0625 <NA> <NA>\n"
    )
    return [
        b"\n# Created by cryolo\n\ndata_global\n\n_cbox_format_version     1.0\n\n\ndata_cryolo\n\nloop_\n"
        + columns
        + rows
        + b"\n\ndata_cryolo_include\n\nloop_\n_slice_index #1\n<NA>\n"
    ]


def cryolo_box():
    return [b"100.0\t200.0\t220\t220\t0.875\n10.5\t20.5\t220\t220\t0.25\n", b"100 200 220 220\n"]


def eman_box():
    return [b"1820\t1350\t160\t160\n300\t400\t160\t160\n", b"-20\t30\t160\t160\t0.5\n18\t22\t160\t160\t-1\n"]


def eman_json():
    boxes = [[1820.0, 1350.0, "manual"], [300.0, 400.0, "auto_convnet", 0.75], [5.5, 6.5, "auto_local", 3.0]]
    return [
        json.dumps({"apix_x": 1.06, "boxes": boxes, "boxsize": 160, "invert": 0}, indent=1).encode(),
        json.dumps({"boxes_rct": [], "boxes": boxes[:1]}).encode(),
    ]


def gautomatch():
    return [
        b"""
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAnglePsi #3
_rlnClassNumber #4
_rlnAutopickFigureOfMerit #5
 1742  3128  120.00   3  0.31875
  512   611  -30.00   1  0.12500
"""
    ]


def warp():
    return [
        b"""
data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
_rlnAutopickFigureOfMerit #4
_rlnMagnification #5
_rlnDetectorPixelSize #6
_rlnVoltage #7
_rlnSphericalAberration #8
_rlnAmplitudeContrast #9
_rlnPhaseShift #10
_rlnDefocusU #11
_rlnDefocusV #12
_rlnDefocusAngle #13
 1742.5  3128.25  m1.tif  0.96 10000.0 1.06 300.0 2.7 0.07 0.0 12000.0 11800.0 33.0
  512.5   611.25  m2.tif  0.55 10000.0 1.06 300.0 2.7 0.07 0.0 12500.0 11900.0 31.0
"""
    ]


TABLE = pd.DataFrame(
    {
        "micrograph": ["m1.mrc", "m1.mrc", "m2.mrc"],
        "x": [100.5, 200.25, 300.0],
        "y": [17.0, 18.5, 19.0],
        "score": [0.5, -1.25, 3.0],
    }
)
EXPOSURES = pd.DataFrame(
    {
        "name": ["m1.mrc", "m2.mrc"],
        "pixel_size": [0.885, 0.885],
        "defocus_u": [10864.1, 9836.4],
        "defocus_v": [10575.6, 9586.7],
        "defocus_angle": [78.2, 72.2],
        "voltage": [200.0, 200.0],
        "spherical_aberration": [1.4, 1.4],
        "amplitude_contrast": [0.1, 0.1],
    }
)


def csv():
    return [TABLE.to_csv(index=False).encode(), TABLE.assign(note='a "b", c').to_csv(index=False).encode()]


def csv_exposures():
    return [EXPOSURES.to_csv(index=False).encode()]


def _parquet(table):
    plain, packed = io.BytesIO(), io.BytesIO()
    table.to_parquet(plain, index=False, compression=None)
    table.to_parquet(packed, index=False)
    return [plain.getvalue(), packed.getvalue()]


def parquet():
    return _parquet(TABLE)


def parquet_exposures():
    return _parquet(EXPOSURES)


def mrc():
    return [_mrc(np.arange(12, dtype="<f4").reshape(1, 3, 4), 2), _mrc(np.zeros((2, 4, 4), "<i2"), 1, 128)]


def _mrc(image, mode, extended=0):
    nz, ny, nx = image.shape
    words = np.zeros(256, "<i4")
    words[:4] = nx, ny, nz, mode
    words[7:10] = nx, ny, nz
    words[10:16].view("<f4")[:] = 1.06 * nx, 1.06 * ny, 1.06 * nz, 90, 90, 90
    words[16:19] = 1, 2, 3
    words[23] = extended
    header = bytearray(words.tobytes())
    header[208:214] = b"MAP DD"
    return bytes(header) + bytes(extended) + image.tobytes()


def tiff():
    files = []
    for image, options in (
        (np.arange(80, dtype=np.float32).reshape(8, 10), {}),
        (np.arange(80, dtype=np.uint16).reshape(8, 10), {"compression": "zlib"}),
        (np.zeros((2, 8, 10), np.int16), {"photometric": "minisblack"}),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, image, **options)
        files.append(file.getvalue())
    return files
