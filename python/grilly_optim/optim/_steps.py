"""Step counts per parameter: a parameter without a gradient does not advance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# As long as all parameters have had the same number of steps, that number; else one per parameter. Never changed in
# place: a step makes new ones, so that the old ones can be gone back to.
Counts = int | NDArray[np.int64]


def packed(counts: NDArray[np.int64]) -> Counts:
    """These counts, as one number if they are all the same."""
    first = int(counts[0]) if counts.size else 0
    return first if bool((counts == first).all()) else counts


def unpacked(counts: Counts, parameters: int) -> NDArray[np.int64]:
    """The count of each parameter."""
    return np.full(parameters, counts, np.int64) if isinstance(counts, int) else counts


def extended(counts: Counts, parameters: int, more: int) -> Counts:
    """The counts of `parameters`, and zeros for `more` of them."""
    return packed(np.concatenate([unpacked(counts, parameters), np.zeros(more, np.int64)]))


def advanced(
    counts: Counts, active: NDArray[np.bool_], group_of: NDArray[Any]
) -> tuple[Counts, list[tuple[int, int]], NDArray[np.intp]]:
    """The counts after a step of the `active` parameters.

    Returns:
        The counts; the distinct (group, step) pairs, of the parameters that stand still too; and for each parameter
        which of these is its own.
    """
    after = unpacked(counts, active.size) + active
    pairs = np.stack([group_of, np.maximum(after, 1)], axis=1)
    keys, index = np.unique(pairs, axis=0, return_inverse=True)
    return packed(after), [(int(k), int(t)) for k, t in keys], index.reshape(-1)
