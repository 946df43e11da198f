"""Commands that were run, in a process of their own or in the test's, and what they left."""

import io
import json
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from pickcal.cli import main


@dataclass(frozen=True)
class Ran:
    """What a `pickcal` process left."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The object on the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


def in_this_process(*words, cwd=".", code=0):
    """Run a command here, in a folder, and give what a process would have left; `code` None for any exit code.

    A process of its own takes two seconds to start, most of it for imports.
    """
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert code is None or ended.value.code == code, err.getvalue()
    return Ran(ended.value.code, out.getvalue(), err.getvalue())
