"""Who may work with an optimizer: one thread at a time, and no thread twice."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Turns:
    """A lock that refuses the thread which holds it, as a signal handler in the middle of a step would be.

    A step, where every microsecond counts, writes out what `run` does.
    """

    def __init__(self) -> None:
        self.renew()
        _all.add(self)

    def renew(self) -> None:
        """Forget who holds it."""
        self.lock = threading.RLock()
        self.busy = False

    def refuse(self) -> None:
        """Raise what a thread gets that is here already."""
        raise RuntimeError(
            "this is in the middle of a step (called from a signal handler?): set a flag in the handler, "
            "and act on it after the step"
        )

    def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function when it is its turn."""
        # No context manager in Python: a signal at the beginning of its __exit__ would leave everything locked.
        with self.lock:
            if self.busy:
                self.refuse()
            try:
                self.busy = True
                return work(*args, **kwargs)
            finally:
                self.busy = False


def in_turn(method: F) -> F:
    """A method of somebody whose `_turns` it takes."""

    @functools.wraps(method)
    def when_it_is_its_turn(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._turns.run(method, self, *args, **kwargs)

    return cast(F, when_it_is_its_turn)


_all: weakref.WeakSet[Turns] = weakref.WeakSet()


def _after_fork() -> None:
    # A child has none of the threads that may have held a lock at the fork.
    for turns in _all:
        turns.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
