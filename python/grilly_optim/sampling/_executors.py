"""Tasks, here one after the other or by an executor: the same results, in the same order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

_numbers = itertools.count()
_stopped: set[int] = set()


class TaskFailed(Exception):
    """A task could not be done; the cause says why.

    Attributes:
        index: Which one.
        cause: What it raised, or the executor.
    """

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(index, cause)
        self.index, self.cause = index, cause


class Stopped(Exception):
    """The caller is gone: what this task computes is not wanted any more."""


def new_number() -> int:
    """Of a run, for `check`."""
    return next(_numbers)


def check(number: int) -> None:
    """To be called by tasks now and then: ends those whose caller was interrupted, where they are in its process."""
    if number in _stopped:
        raise Stopped


def check_executor(executor: Any) -> None:
    """Refuse what is no executor.

    Raises:
        TypeError: It is none.
    """
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor or None, got {type(executor).__name__}")


def run_all(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    executor: Executor | None,
    number: int,
    keep: Callable[[int, Any], None],
) -> None:
    """Call function(*task) for every task, and keep(index, result) in their order.

    After a failure no other task is begun, and those that the executor has begun are waited for and kept. After an
    interrupt nothing is waited for: tasks that run in this process end at their next `check`.

    Raises:
        TaskFailed: For the first task, in their order, that failed.
    """
    if executor is None:
        for k, task in enumerate(tasks):
            try:
                result = function(*task)
            except Exception as error:
                raise TaskFailed(k, error) from error
            keep(k, result)
        return
    futures: list[Future[Any]] = []
    try:
        _run_by(executor, function, tasks, futures, keep)
    except TaskFailed:
        raise
    except BaseException:
        _stopped.add(number)
        for future in futures:
            future.cancel()
        raise


def _run_by(
    executor: Executor,
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    futures: list[Future[Any]],
    keep: Callable[[int, Any], None],
) -> None:
    failed: TaskFailed | None = None
    for k, task in enumerate(tasks):
        try:
            futures.append(executor.submit(function, *task))
        except Exception as error:  # whatever the executor has to say; it goes to the caller
            failed = TaskFailed(k, error)
            break
    for k, future in enumerate(futures):
        if failed is not None and future.cancel():
            continue
        try:
            result = future.result()
        except Exception as error:
            if failed is None or k < failed.index:
                failed = TaskFailed(k, error)
            continue
        keep(k, result)
    if failed is not None:
        raise failed from failed.cause
