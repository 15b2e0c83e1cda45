"""Step counts per parameter: a parameter without a gradient does not advance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class StepCounts:
    """How many steps each parameter has had.

    As long as all had the same number, that is one integer (`even`), and a step has one row of scalars per group.
    `next_even` or `next` prepares a step; `commit` counts it.
    """

    def __init__(self, even: int, counts: NDArray[np.int64] | None = None) -> None:
        self.even: int | None = even
        self._counts = counts
        if counts is not None:
            self._set(counts)
        self._next_even = 0
        self._next_counts: NDArray[np.int64] | None = None

    def _set(self, counts: NDArray[np.int64]) -> None:
        first = int(counts[0]) if counts.size else 0
        self.even = first if bool((counts == first).all()) else None
        self._counts = None if self.even is not None else counts

    def of_all(self, parameters: int) -> NDArray[np.int64]:
        """The count of each parameter."""
        if self._counts is not None:
            return self._counts
        return np.full(parameters, self.even, np.int64)

    def extended(self, parameters: int, more: int) -> StepCounts:
        """These counts, and zeros for `more` parameters."""
        return StepCounts(0, np.concatenate([self.of_all(parameters), np.zeros(more, np.int64)]))

    def next_even(self) -> int:
        """Prepare a step in which every parameter takes part, from equal counts."""
        assert self.even is not None
        self._next_counts = None
        self._next_even = self.even + 1
        return self._next_even

    def next(
        self, active: NDArray[np.bool_], group_of: NDArray[Any]
    ) -> tuple[list[tuple[int, int]], NDArray[np.uint32]]:
        """Prepare a step of the `active` parameters.

        Returns:
            The distinct (group, step) of these, and for each parameter which of them is its own (0 where inactive).
        """
        self._next_counts = self.of_all(active.size) + active
        index = np.zeros(active.size, np.uint32)
        pairs = np.stack([group_of[active], self._next_counts[active]], axis=1)
        keys, inverse = np.unique(pairs, axis=0, return_inverse=True)
        index[active] = inverse.reshape(-1)
        return [(int(k), int(t)) for k, t in keys], index

    def commit(self) -> None:
        """Count the step that was prepared."""
        if self._next_counts is None:
            self.even = self._next_even
        else:
            self._set(self._next_counts)
            self._next_counts = None
