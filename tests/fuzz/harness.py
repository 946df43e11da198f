"""Runs a reader on an input and watches that it ends with a result or an error that names the file."""

import _pickle
import contextlib
import faulthandler
import math
import pickle
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from pickcal.errors import PickcalError

SECONDS = 10.0
"""Of computing, for one input; waiting may take six times as long, since other programs may keep a machine busy."""
WAITING = 6
MEMORY = 8 << 30
LONGEST_MESSAGE = 10_000
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect")
FAULTS = sys.__stderr__
TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}

_seen: list[str] = []
_watching = False
_hooked = False
_armed = -math.inf


class Hung(BaseException):
    """A reader took too long. Not an `Exception`: readers may not swallow it."""


def _hook(event, arguments):
    if _watching and event in FORBIDDEN:
        _seen.append(event)
        raise AssertionError(f"{event} while reading a file")


def _refuse(name):
    class Refused:
        def __init__(self, *arguments, **options):
            _seen.append(name)
            raise AssertionError(f"{name} while reading a file")

    return Refused


def _numpy_load(original):
    def load(file, mmap_mode=None, allow_pickle=False, **options):
        if allow_pickle:
            _seen.append("numpy.load(allow_pickle=True)")
            raise AssertionError("numpy.load with allow_pickle while reading a file")
        return original(file, mmap_mode=mmap_mode, allow_pickle=False, **options)

    return load


def _ring(signum, frame):
    raise Hung(f"still reading after {SECONDS:g} s of computing or {WAITING * SECONDS:g} s in all")


@contextlib.contextmanager
def watched():
    """Refuse pickles and commands, take warnings for errors, limit memory and, per input, time.

    The audit hook stays with the process (Python cannot remove one) and does nothing outside this block. It sees every
    global that any unpickler looks up; the replaced functions see pickles of plain data too.
    """
    global _watching, _hooked, _armed
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    replaced = [
        (module, name, _refuse(f"{module.__name__}.{name}"))
        for module in (pickle, _pickle)
        for name in ("load", "loads", "Unpickler")
    ]
    replaced += [(pickle, "_Unpickler", _refuse("pickle._Unpickler")), (np, "load", _numpy_load(np.load))]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handlers = {number: signal.signal(number, _ring) for number in TIMERS.values()}
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, limits[1]))
        for module, name, new in replaced:
            setattr(module, name, new)
        _watching = True
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        _watching = False
        for module, name, old in before:
            setattr(module, name, old)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()
        _armed = -math.inf


def _arm():
    """Have the process end with its stacks shown if a library does not return to Python, which no alarm interrupts.

    Arming takes longer than most inputs: it is done anew only when the last time is a while ago.
    """
    global _armed
    now = time.monotonic()
    if now - _armed > SECONDS / 2:
        faulthandler.dump_traceback_later(2 * WAITING * SECONDS, exit=True, file=FAULTS)
        _armed = now


def run(reader, path, data):
    """Write an input and read it.

    Parameters
    ----------
    reader
        One of `readers.READERS`.
    path
        File to write; a new one takes the place of an old one, so that nothing kept open is cut short.
    data
        Its bytes.

    Returns
    -------
    str
        Empty if there was a result, else the message of an error that names the file.

    Raises
    ------
    AssertionError
        If the reader unpickled, ran something, or its message does not name the file.
    Exception, Hung
        Whatever else the reader ended with.
    """
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    _seen.clear()
    _arm()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITING * SECONDS)
    try:
        reader(path)
        text = ""
    except PickcalError as error:
        text = str(error)
        assert path.name in text, f"the message does not name the file: {text[:500]!r}"
        assert len(text) <= LONGEST_MESSAGE, f"a message of {len(text)} characters: {text[:200]!r}"
    finally:
        for timer in TIMERS:
            signal.setitimer(timer, 0)
    assert not _seen, f"{', '.join(_seen)} while reading"
    return text
