"""Tasks in order: one way to run the bands, files and exposures of a search.

Tasks are independent, small things come back, and they come back in the order of the items: the same bytes for any
number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from badpix.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]  # items done, items in all


def silent(done: int, total: int) -> None:
    """No progress shown."""


def run_in_order(
    executor: Executor | None, task: Callable[[T], R], items: Iterable[T], progress: Progress = silent
) -> Iterator[R]:
    """Results of a task for all items, in their order.

    Parameters
    ----------
    executor : Executor or None
        Where tasks run; here, if None.
    task : callable
        Function of one item; picklable where there is an executor.
    items : iterable
        What to work on.
    progress : callable
        Called with the number of items done and in all.

    Raises
    ------
    DataError
        If a worker process was ended, or could not be started.
    """
    listed = list(items)
    try:
        results = map(task, listed) if executor is None else executor.map(task, listed)
        for done, result in enumerate(results, 1):
            progress(done, len(listed))
            yield result
    except BrokenExecutor:
        raise DataError(
            "a worker process was ended, probably for want of memory; give a smaller --max-memory or fewer --workers"
        ) from None
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise DataError(f"no worker can be started: {error}; give fewer --workers") from None


@dataclass(frozen=True)
class Spread(Generic[R]):
    """A task of several arguments as one of a tuple: ``Spread(task)((start, stop))`` is ``task(start, stop)``."""

    task: Callable[..., R]

    def __call__(self, item: Iterable[Any]) -> R:
        """Call the task."""
        return self.task(*item)
