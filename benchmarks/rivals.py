"""The rivals: which there are, whether they are installed, and what gives each its best."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

from .errors import MissingRival, UsageError

# Everyone who can be named with --against, in the order of the tables.
NAMES = ("numpy", "torch", "numba", "thinc")


def load(name: str) -> Any:
    """Import a library where it is used: none of them is needed otherwise.

    Raises:
        MissingRival: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingRival(f"{name} is not installed here ({error}): pip install {name}, or leave it out") from None


def choose(names: Sequence[str] | None) -> list[str]:
    """The rivals asked for, or with None all that are installed.

    Raises:
        UsageError: There is no such rival.
        MissingRival: One that was named is not installed.
    """
    if names is None:
        return [name for name in NAMES if _installed(name)]
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--against {name}: there is no such rival; known are {', '.join(NAMES)}")
        load(name)
    return list(names)


def _installed(name: str) -> bool:
    try:
        load(name)
    except MissingRival:
        return False
    return True


def thread_counts() -> list[int]:
    """Threads to try: one, and every processor that this process may use. Who is fastest depends on the size."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, usable})


def threads_label(threads: int) -> str:
    """How tables call a number of threads."""
    return "1 thread" if threads == 1 else f"{threads} threads"
