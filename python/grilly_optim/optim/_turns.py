"""Who may work with an optimizer: one thread at a time, and no thread twice."""

from __future__ import annotations

import os
import threading
import weakref


class Turns:
    """A lock that refuses the thread which holds it, as a signal handler in the middle of a step would be.

    ``with turns:`` does it all. A step, where every microsecond counts, takes `lock` and sets `busy` by itself.
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
            "this optimizer is in the middle of a step (called from a signal handler?): set a flag in the handler, "
            "and act on it after the step"
        )

    def __enter__(self) -> None:
        self.lock.acquire()
        if self.busy:
            self.lock.release()
            self.refuse()
        self.busy = True

    def __exit__(self, *_: object) -> None:
        self.busy = False
        self.lock.release()


_all: weakref.WeakSet[Turns] = weakref.WeakSet()


def _after_fork() -> None:
    # A child has none of the threads that may have held a lock at the fork.
    for turns in _all:
        turns.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
