"""Sums that depend on nothing but the elements' positions: the order of shaders/sums.comp.in, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CHUNK = 4_096  # kSumChunk in grilly/rules.h
LANES = 128  # kSumLanes


def chunk_sums(terms: Array) -> Array:
    """One sum per chunk of elements; the last chunk may be short."""
    whole = np.zeros(-(-terms.size // CHUNK) * CHUNK, terms.dtype)
    whole[: terms.size] = terms
    # Within a class of elements (position modulo 16) 4, then 8, then 8 numbers in a row; at the end the classes.
    sums = whole.reshape(-1, 8, 8, 4, 16)
    for axis in (3, 2, 1):
        sums = _in_a_row(sums, axis)
    return _by_halves(sums)


def _in_a_row(x: Array, axis: int) -> Array:
    total: Array = np.zeros_like(x.take(0, axis))
    for k in range(x.shape[axis]):
        total = total + x.take(k, axis)
    return total


def _by_halves(x: Array) -> Array:
    """Sums over the last axis, whose length is a power of two."""
    while x.shape[-1] > 1:
        middle = x.shape[-1] // 2
        x = x[..., :middle] + x[..., middle:]
    return np.asarray(x[..., 0])


class Lanes:
    """Adds up the sums of chunks, plan after plan, in double."""

    def __init__(self) -> None:
        self._lanes = np.zeros(LANES)

    def add(self, partial: Array) -> None:
        """The chunks of one plan, in their order."""
        rows = -(-partial.size // LANES)
        whole = np.zeros(rows * LANES)
        whole[: partial.size] = partial
        for row in whole.reshape(rows, LANES):
            self._lanes = self._lanes + row

    def total(self) -> np.float64:
        """The sum of everything."""
        return np.float64(_by_halves(self._lanes))
