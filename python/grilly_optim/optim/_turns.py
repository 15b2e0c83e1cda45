"""Who may work with an optimizer: one thread at a time, and no thread twice."""

from __future__ import annotations

import os
import threading
import weakref


class Turns:
    """A lock that the thread which holds it cannot take again, as a signal handler in the middle of a step would."""

    def __init__(self) -> None:
        self.renew()
        _all.add(self)

    def renew(self) -> None:
        """Forget who holds it."""
        self._lock = threading.Lock()
        self._owner: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError(
                "this optimizer is in the middle of a step (called from a signal handler?): set a flag in the handler, "
                "and act on it after the step"
            )
        self._lock.acquire()
        self._owner = me

    def __exit__(self, *_: object) -> None:
        self._owner = None
        self._lock.release()


_all: weakref.WeakSet[Turns] = weakref.WeakSet()


def _after_fork() -> None:
    # A child has none of the threads that may have held a lock at the fork.
    for turns in _all:
        turns.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
