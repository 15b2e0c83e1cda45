"""Complex arrays as pairs of real numbers, which is what the engine computes with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[Any]

# What a tensor of a model may be.
KINDS = (np.float32, np.float64, np.complex64, np.complex128)


def as_real(array: Array) -> Array:
    """The memory of an array as real numbers: complex ones are pairs along a new last axis.

    Example:
        >>> import numpy as np
        >>> as_real(np.array([1 + 2j])).tolist()
        [[1.0, 2.0]]
    """
    if array.dtype.kind != "c":
        return array
    real = array.real
    # A view under another dtype would ask for a last axis without gaps.
    return as_strided(real, (*array.shape, 2), (*array.strides, real.itemsize))


def checked(array: Any, who: str) -> Array:
    """An array of a kind that there is.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{who} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in KINDS or not array.dtype.isnative:
        raise TypeError(f"{who} must be float32, float64, complex64 or complex128, got dtype {array.dtype}")
    return array


def numbers(given: Any, who: str) -> Array:
    """What has come as an array of numbers, which may be the caller's own.

    Raises:
        TypeError: They are not numbers.
        ValueError: NumPy makes no array of it, as of rows that differ in length.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{who} must be an array, and NumPy cannot make one of it: {error}") from None
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{who} must hold numbers, got dtype {array.dtype}")
    return array


def conformed(array: Any, like: Array, who: str) -> Array:
    """Numbers for an array of another's shape, as the engine takes them: real, contiguous, of its precision.

    Args:
        array: Numbers of any precision; real ones have no imaginary part.
        like: What they are for.
        who: What errors call them.

    Raises:
        TypeError: They are not numbers, or complex for something real.
        ValueError: Another shape, or no array at all.
    """
    made = numbers(array, who)
    if made.dtype.kind == "c" and like.dtype.kind != "c":
        raise TypeError(f"{who} must be real, as what it belongs to is, got dtype {made.dtype}")
    if made.shape != like.shape:
        raise ValueError(f"{who} must have shape {like.shape}, got {made.shape}")
    with np.errstate(over="ignore"):
        return as_real(np.require(made, like.dtype, ["C", "A"]))
