"""Where tasks run: executors behind one small interface, clusters, progress."""

from pickcal.engine.executors import Executor, Outcome, SerialExecutor, open_executor

__all__ = ["Executor", "Outcome", "SerialExecutor", "open_executor"]
