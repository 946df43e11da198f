"""What the tests of pick readers share: damaged copies of valid files, and picks on their way out."""

import random

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.foreign import ExportBlock, categorical

EXAMPLES = 2000
PIECES = [
    b"nan",
    b"inf",
    b"-1e400",
    b"1e308",
    b"9" * 5000,
    b"18446744073709551616",
    b"007",
    b"<NA>",
    b"true",
    b"",
    b"-",
]
PIECES += [b"\xff\xfe", b"\x00", b"\t", b"\n", b"\r", b'"', b"'", b",", b" ", b"#", b"_", b"data_", b"loop_", b"\x1f"]
PIECES += [b"[" * 3000, b"{", b"\xef\xbb\xbf", b"2020-01-01"]

many = settings(
    max_examples=EXAMPLES,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def damaged(valid):
    """Bytes of `valid` with up to three places overwritten, cut out or repeated, or plain random bytes."""

    def apply(seed):
        # one draw of hypothesis an example: drawing every edit takes longer than reading the file
        rng = random.Random(seed)
        if rng.random() < 0.05:
            return rng.randbytes(rng.randrange(200))
        out = valid
        for _ in range(rng.randint(1, 3)):
            at, start, kind = rng.randint(0, len(out)), rng.randint(0, len(valid)), rng.random()
            new = rng.choice(PIECES) if kind < 0.5 else rng.randbytes(1) if kind < 0.7 else b""
            new = valid[start : start + rng.randrange(60)] if kind > 0.85 else new
            out = out[:at] + new + out[at + rng.randrange(21) :]
            if rng.random() < 0.05:
                out = out[:at]
        return out

    return st.integers(0, 2**63).map(apply)


def survives(read, path, data):
    """Whether a damaged file is read; else it must end in an error that names the file."""
    path.write_bytes(data)
    try:
        parts = list(read(path))
    except (InputError, MissingFileError) as error:
        assert str(path) in str(error)
        return False
    for part in parts:
        assert np.isfinite(part.x).all() and np.isfinite(part.y).all()
        assert all(len(values) == len(part.x) == len(part.y) for values in part.columns.values())
        assert all(len(values) == len(part.x) for values in part.scores.values())
        assert part.micrograph is None or len(part.micrograph) == len(part.x)
    return True


def block(names, index, x, y, ours=None, **more):
    """An `ExportBlock`; the main score is the first of `ours`, 0, 1, 2, ... by default."""
    ours = ours or {"ncc": np.arange(len(x)) / 10}
    micrographs = pd.DataFrame({"name": names, "pixel_size": more.pop("pixel_size", 1.5)})
    where = np.asarray(index, dtype=np.intp)
    return ExportBlock(micrographs, where, np.asarray(x, float), np.asarray(y, float), ours, next(iter(ours)), **more)


def returned(part, names, **more):
    """Picks as read, on their way out again; `names` are the micrographs in the order of their picks."""
    index = np.zeros(len(part.x)) if part.micrograph is None else [names.index(name) for name in part.micrograph]
    ours = {"calibrated": np.linspace(-1, 1, len(part.x)), "reason": categorical(["low power"] * len(part.x))}
    return block(names, index, part.x, part.y, ours, source=part.columns, source_program=part.program, **more)
