"""Potentials for the tests of `sample`; those for other processes must be a module's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SCALES = np.array([0.5, 1.0, 4.0])
MEANS = np.array([1.0, -2.0, 3.0])


def gaussian(q: Array) -> tuple[Any, Array]:
    """Independent normal numbers, of one position or of many: element by element, so with the same bits."""
    z = (q - MEANS) / SCALES
    return (z * z).sum(axis=-1) / 2, (z / SCALES).astype(q.dtype)


class Vectorized:
    """Any of them, for many chains at once."""

    vectorized = True

    def __init__(self, function: Callable[[Array], Any] = gaussian) -> None:
        self.function = function

    def __call__(self, q: Array) -> Any:
        return self.function(q)


class Breaks:
    """Raises something in one call, counted from 1."""

    def __init__(self, call: int, error: BaseException, function: Callable[[Array], Any] = gaussian) -> None:
        self.calls, self.call, self.error, self.function = 0, call, error, function
        self.vectorized = getattr(function, "vectorized", False)

    def __call__(self, q: Array) -> Any:
        self.calls += 1
        if self.calls == self.call:
            raise self.error
        return self.function(q)


class BreaksAt:
    """Raises at one position, wherever it runs."""

    def __init__(self, position: Array) -> None:
        self.position = position

    def __call__(self, q: Array) -> Any:
        if np.array_equal(q, self.position):
            raise ZeroDivisionError("not here")
        return gaussian(q)


class Ends:
    """Ends the process that it is called in, but for the one where it was made."""

    def __init__(self) -> None:
        self.home = os.getpid()

    def __call__(self, q: Array) -> Any:
        if os.getpid() != self.home:
            os._exit(3)
        return gaussian(q)
