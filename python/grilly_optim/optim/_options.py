"""What options may be, and one clear error for a value that is something else."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType, NoneType
from typing import Any, Protocol

import numpy as np

Options = dict[str, Any]


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


@dataclass(frozen=True)
class Range:
    """Real, finite numbers in [low, high), taken as Python floats: scalars are doubles.

    Args:
        low: The least.
        high: Above the greatest.
        pair: Two of them.
        closed: `high` belongs to them, even where it is infinite; and so does an infinite `low`.
        above: `low` does not.
    """

    low: float = -math.inf
    high: float = math.inf
    pair: bool = False
    closed: bool = False
    above: bool = False

    def take(self, name: str, value: Any, where: str = "") -> Any:
        """The value as a float, or a pair of floats; `where` stands behind the name in errors.

        Raises:
            TypeError: Not a real number, or not a pair.
            ValueError: Outside, infinite or NaN.
        """
        if not self.pair:
            return self._number(name + where, value)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"{name}{where} must be a pair of numbers, got {value!r}")
        return self._number(f"{name}[0]{where}", value[0]), self._number(f"{name}[1]{where}", value[1])

    def _number(self, name: str, value: Any) -> float:
        number = real(name, value)
        inside = self.low < number < self.high or (number == self.low and not self.above)
        if self.closed:
            inside = inside or number == self.high
        elif math.isinf(number):
            inside = False
        if not inside:
            raise ValueError(f"{name} must be {self._expected(number)}, got {value!r}")
        return number

    def _expected(self, number: float) -> str:
        if self.high < math.inf:
            return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{']' if self.closed else ')'}"
        if self.low == -math.inf:
            return "a number" if self.closed else "finite"
        least = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        return least if self.closed or (self.above and math.isfinite(number)) else f"{least}, and finite"


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` on, up to 2^bits - 1 with `bits`."""

    low: int
    bits: int | None = None

    def take(self, name: str, value: Any) -> int:
        """The value as an int.

        Raises:
            TypeError: Not a whole number; 10.0 and True are none.
            ValueError: Outside.
        """
        try:
            number = operator.index(value)
        except TypeError:
            number = None
        if number is None or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if number < self.low or (self.bits and number >= 1 << self.bits):
            high = f"2^{self.bits} - 1" if (self.bits or 0) > 16 else f"{(1 << (self.bits or 0)) - 1}"
            expected = f"from {self.low} to {high}" if self.bits else f"{self.low} or more"
            raise ValueError(f"{name} must be {expected}, got {value!r}")
        return number


@dataclass(frozen=True)
class Flag:
    """True or False.

    Args:
        needs: Says what True needs of the group's other options and does not find; "" when it finds all.
    """

    needs: Callable[[Options], str] = lambda _: ""

    def take(self, name: str, value: Any, where: str = "") -> bool:
        """The value as a bool; `where` stands behind the name in errors.

        Raises:
            TypeError: Anything else.
        """
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}{where} must be True or False, got {value!r}")
        return bool(value)


class Steady:
    """Marks values of options that cannot change in place."""


# Types of such values: a group that holds them alone is looked at anew only when it holds others.
STEADY = (float, int, bool, str, tuple, NoneType, FunctionType, Steady)


class Option(Protocol):
    """What an option may be."""

    def take(self, name: str, value: Any, where: str = "") -> Any:
        """The value in a plain form, or an error; `where` stands behind the name."""


AT_LEAST_0 = Range(0, closed=True)  # infinity too
ABOVE_0 = Range(0, closed=True, above=True)

# What Adam and its relatives all take; each names what it takes besides.
ADAM_OPTIONS: dict[str, Range | Flag] = {
    "lr": Range(0),
    "betas": Range(0, 1, pair=True),
    "eps": Range(0),
    "weight_decay": Range(0),
}


def take_options(allowed: Mapping[str, Option], group: Mapping[str, Any], index: int) -> Options:
    """The options of a group, checked, in plain Python types; errors name the group, but for the first."""
    where = f" of group {index}" if index else ""
    taken = {name: kind.take(name, group[name], where) for name, kind in allowed.items()}
    for name, kind in allowed.items():
        if isinstance(kind, Flag) and taken[name] and (missing := kind.needs(taken)):
            raise ValueError(f"{name}{where} needs {missing}")
    return taken
