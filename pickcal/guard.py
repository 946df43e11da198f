"""A last question before a batch is written: whether it still belongs to who computed it.

A worker that was cut off from its scheduler may wake up after its batch was given to another. The engine sets the
question for each task that it runs; the project asks it before it writes. Outside of a task nobody objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_question: ContextVar[Callable[[], None] | None] = ContextVar("pickcal_guard", default=None)


def ask() -> None:
    """Raise whatever the guard of this thread's task raises when the task may not write any more."""
    question = _question.get()
    if question is not None:
        question()


@contextmanager
def guarded(question: Callable[[], None]) -> Iterator[None]:
    """Have `ask` call `question` until the block ends.

    Parameters
    ----------
    question
        Returns if the task may write; raises if it may not.
    """
    token = _question.set(question)
    try:
        yield
    finally:
        _question.reset(token)
