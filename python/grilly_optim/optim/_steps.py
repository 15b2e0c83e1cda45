"""Step counts per parameter: a parameter without a gradient does not advance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class StepCounts:
    """How many steps each parameter has had. Never changed: a step makes new ones.

    As long as all had the same number, that is one integer (`even`), and a step has one row of scalars per group.
    """

    __slots__ = ("_counts", "even")

    def __init__(self, even: int | None, counts: NDArray[np.int64] | None = None) -> None:
        self.even = even
        self._counts = counts

    @staticmethod
    def of(counts: NDArray[np.int64]) -> StepCounts:
        """These counts, one per parameter."""
        first = int(counts[0]) if counts.size else 0
        return StepCounts(first) if bool((counts == first).all()) else StepCounts(None, counts)

    def of_all(self, parameters: int) -> NDArray[np.int64]:
        """The count of each parameter."""
        return np.full(parameters, self.even, np.int64) if self._counts is None else self._counts

    def extended(self, parameters: int, more: int) -> StepCounts:
        """These counts, and zeros for `more` parameters."""
        return StepCounts.of(np.concatenate([self.of_all(parameters), np.zeros(more, np.int64)]))

    def after(
        self, active: NDArray[np.bool_], group_of: NDArray[Any]
    ) -> tuple[StepCounts, list[tuple[int, int]], NDArray[np.uint32]]:
        """The counts after a step of the `active` parameters.

        Returns:
            The counts; the distinct (group, step) of the active parameters; and for each parameter which of these is
            its own (0 where inactive).
        """
        counts = self.of_all(active.size) + active
        index = np.zeros(active.size, np.uint32)
        pairs = np.stack([group_of[active], counts[active]], axis=1)
        keys, inverse = np.unique(pairs, axis=0, return_inverse=True)
        index[active] = inverse.reshape(-1)
        return StepCounts.of(counts), [(int(k), int(t)) for k, t in keys], index
