"""Damage that files meet: bytes and lines lost, doubled and mixed up, numbers that are none, files cut and glued."""

import random
import re

NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
NUMBERS = (
    b"nan",
    b"-nan",
    b"NaN",
    b"inf",
    b"-inf",
    b"Infinity",
    b"<NA>",
    b"None",
    b"null",
    b"",
    b"0",
    b"-0.0",
    b"-1",
    b"0.5",
    b"1e308",
    b"1e309",
    b"-1e400",
    b"1e-320",
    b"1e999999999",
    b"2147483648",
    b"-9223372036854775809",
    b"18446744073709551616",
    b"9" * 400,
    b"1_000",
    b"0x1F",
    b"1,5",
    b"1D4",
    b"********",
    b"\xef\xbc\x91",
    b"abc",
    b'"1 2"',
    b"'",
)
WORDS = (
    b"data_",
    b"data_particles",
    b"loop_",
    b"_rlnMicrographName #1",
    b"_",
    b"#",
    b'"',
    b"'",
    b";",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[31m",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\t",
    b",",
    b" ",
    b"\x0b",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"../../etc/passwd",
    b"000000@a.mrc",
    b"\x80\x04\x95",
    b"cos\nsystem\n(S'true'\ntR.",
    b"{",
    b"}",
    b"[",
    b"[" * 2000,
    b"(" * 2000,
    b"|O",
    b"'<f8'",
    b"'descr'",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"\x00" * 16,
)


def mutate(data, others, code):
    """One change to a file, decided by the number `code` alone; `others` are what it may be spliced with."""
    rng = random.Random(code)
    return rng.choices(CHANGES, WEIGHTS)[0](data, others, rng)


def build(seeds, odd, index, codes):
    """As many inputs as there are codes: a seed after one change, after two and so on.

    Every other index takes a file that `odd` makes, if there is such a function, and that comes first as it is.
    """
    if odd and index % 2:
        data = odd(random.Random(index))
        yield data
        codes = codes[:-1]
    else:
        data = seeds[index // 2 % len(seeds)]
    for code in codes:
        data = mutate(data, seeds, code)
        yield data


def _span(data, rng):
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 1, 2, 4, 8, 64, 500)))


def _flip(data, others, rng):
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _set(data, others, rng):
    out = bytearray(data)
    if out:
        out[rng.randrange(len(out))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(out)


def _integer(data, others, rng):
    size = rng.choice((2, 4, 8))
    place = rng.randrange(max(1, len(data) - size + 1))
    value = rng.choice((0, 1, 2, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, 1 << 30))
    packed = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
    return data[:place] + packed + data[place + size :]


def _insert(data, others, rng):
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 1, 2, 16, 300))) + data[place:]


def _word(data, others, rng):
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(WORDS) + data[place:]


def _delete(data, others, rng):
    start, stop = _span(data, rng)
    return data[:start] + data[stop:]


def _double(data, others, rng):
    start, stop = _span(data, rng)
    return data[:stop] + data[start:stop] * rng.choice((1, 1, 3, 100)) + data[stop:]


def _lines(data, others, rng):
    lines = data.split(b"\n")
    line, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        del lines[line]
    elif what == 1:
        lines[line:line] = [lines[line]] * rng.choice((1, 1, 50))
    elif what == 2:
        lines[line], lines[other] = lines[other], lines[line]
    elif what == 3:
        lines.insert(line, rng.choice(WORDS))
    else:
        words = lines[line].split(b" ")
        rng.shuffle(words)
        lines[line] = b" ".join(words)
    return b"\n".join(lines)


def _number(data, others, rng):
    found = list(NUMBER.finditer(data))
    if not found:
        return _word(data, others, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS) + data[match.end() :]


def _truncate(data, others, rng):
    return data[: rng.randrange(len(data) + 1)]


def _splice(data, others, rng):
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _ends(data, others, rng):
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b" \n", b"")))


def _encode(data, others, rng):
    return data.decode("latin-1").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32-le")))


def _random(data, others, rng):
    return rng.randbytes(rng.choice((0, 1, 3, 16, 200, 2000)))


CHANGES = (
    _flip,
    _set,
    _integer,
    _insert,
    _word,
    _delete,
    _double,
    _lines,
    _number,
    _truncate,
    _splice,
    _ends,
    _encode,
    _random,
)
WEIGHTS = (3, 3, 3, 1, 3, 2, 2, 3, 6, 1, 1, 0.5, 0.2, 0.3)
