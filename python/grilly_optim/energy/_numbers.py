"""Arrays of real numbers, from whatever comes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def real_array(name: str, given: Any) -> Array:
    """What has come as an array, which may be the caller's own.

    Raises:
        TypeError: It does not hold real numbers.
        ValueError: Its rows differ in length.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, and NumPy cannot make one of it: {error}") from None
    if array.dtype.kind not in "biuf":
        what = type(given).__name__ if array.dtype.kind == "O" else str(array.dtype)
        raise TypeError(f"{name} must hold real numbers, got {what}")
    return array


def copied(array: Array, dtype: np.dtype[Any]) -> Array:
    """A contiguous copy; what is too large for the dtype is infinite."""
    with np.errstate(over="ignore"):
        return np.array(array, dtype, order="C")
