"""Errors that a user can act on.

Everything raised on purpose because of what a user gave derives from `PickcalError`; the command line prints
it without a traceback. Messages say what was expected, what was found and what to do.
"""


class PickcalError(Exception):
    """Base class of errors that the user can mend."""


class InputError(PickcalError, ValueError):
    """A file, a table or a value is not what was expected."""


class MissingFileError(PickcalError, FileNotFoundError):
    """A file that was named is not there."""

    def __str__(self) -> str:
        """Return the message alone, without errno."""
        return str(self.args[0]) if self.args else "file not found"


class ProjectError(PickcalError):
    """The project does not hold what was asked for, or holds something that is in the way."""
