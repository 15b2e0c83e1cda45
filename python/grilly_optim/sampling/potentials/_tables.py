"""What users give as data of a potential, checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling._options import POSITIVE, own_array

Doubles = NDArray[np.float64]


def table(name: str, value: ArrayLike, shape: tuple[str | int, ...]) -> Doubles:
    """A copy in double of an array of finite numbers.

    Args:
        name: For errors.
        value: What the user gave.
        shape: Of each axis its size, or what to call it, where any size from 1 will do.

    Raises:
        TypeError: It holds no real numbers.
        ValueError: It has another shape, or a number is not finite.
    """
    array = own_array(value, name)
    expected = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
    fits = all(n > 0 if isinstance(size, str) else n == size for n, size in zip(array.shape, shape, strict=False))
    if array.ndim != len(shape) or not fits:
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
    made: Doubles = array.astype(np.float64)
    if not np.isfinite(made).all():
        raise ValueError(f"{name} must be finite")
    return made


def dimension(value: Any, least: int = 1) -> int:
    """The length of positions.

    Raises:
        TypeError: No integer.
        ValueError: Below `least`.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"dim must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"dim must be {least} or more, got {value}")
    return int(value)


def precision_of(name: str, std: Any) -> float:
    """1 / std^2.

    Raises:
        TypeError: No real number.
        ValueError: Not above 0 and finite, or so small that the result is not finite.
    """
    number: float = POSITIVE.take(name, std)
    result = 1 / number / number
    if math.isinf(result):
        raise ValueError(f"{name} must be so large that 1 / {name}^2 is finite, got {std!r}")
    return result
