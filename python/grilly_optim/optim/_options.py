"""What options may be, and one clear error for a value that is something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


def real(name: str, value: Any) -> float:
    """The value as a float; an int that no float can hold is infinite.

    Raises:
        TypeError: Not a real number.
    """
    if type(value) is float:  # nearly always, and schedules ask several times a step
        return value
    array = None if isinstance(value, str | bytes) else np.asarray(value)
    if array is None or array.ndim or (array.dtype.kind not in "biuf" and not isinstance(value, int)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def at_least_0(name: str, value: Any) -> float:
    """The value as a float; it may be infinite.

    Raises:
        TypeError: Not a real number.
        ValueError: Negative, or NaN.
    """
    number = real(name, value)
    if not number >= 0:
        raise ValueError(f"{name} must be 0 or more, got {value!r}")
    return number


@dataclass(frozen=True)
class Range:
    """Real, finite numbers in [low, high); a pair of them with `pair`. Taken as Python floats: scalars are doubles."""

    low: float
    high: float = math.inf
    pair: bool = False

    def take(self, name: str, value: Any) -> Any:
        """The value as a float, or a pair of floats.

        Raises:
            TypeError: Not a real number, or not a pair.
            ValueError: Outside, infinite or NaN.
        """
        if not self.pair:
            return self._number(name, value)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"{name} must be a pair of numbers, got {value!r}")
        return self._number(f"{name}[0]", value[0]), self._number(f"{name}[1]", value[1])

    def _number(self, name: str, value: Any) -> float:
        number = real(name, value)
        if not self.low <= number < self.high:
            expected = (
                f"{self.low:g} or more, and finite" if self.high == math.inf else f"in [{self.low:g}, {self.high:g})"
            )
            raise ValueError(f"{name} must be {expected}, got {value!r}")
        return number


class Flag:
    """True or False."""

    def take(self, name: str, value: Any) -> bool:
        """The value as a bool.

        Raises:
            TypeError: Anything else.
        """
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
        return bool(value)


Options = dict[str, Any]


def take_options(allowed: Mapping[str, Range | Flag], group: Mapping[str, Any], index: int) -> Options:
    """The options of a group, checked, in plain Python types; errors name the group, but for the first."""
    where = f" of group {index}" if index else ""
    return {name: kind.take(name + where, group[name]) for name, kind in allowed.items()}
