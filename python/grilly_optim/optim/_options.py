"""Ranges of options, and one clear error for a value outside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Real, finite numbers in [low, high); a pair of them with `pair`."""

    low: float
    high: float = math.inf
    pair: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuse a value that is not in the range.

        Raises:
            TypeError: Not a real number, or not a pair.
            ValueError: Outside, infinite or NaN.
        """
        if not self.pair:
            self._check_number(name, value)
            return
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"{name} must be a pair of numbers, got {value!r}")
        for k, number in enumerate(value):
            self._check_number(f"{name}[{k}]", number)

    def _check_number(self, name: str, value: Any) -> None:
        if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} must be a real number, got {value!r}")
        number = float(value)
        if not self.low <= number < self.high:
            expected = (
                f"{self.low:g} or more, and finite" if self.high == math.inf else f"in [{self.low:g}, {self.high:g})"
            )
            raise ValueError(f"{name} must be {expected}, got {value!r}")


def check_options(ranges: Mapping[str, Range], group: Mapping[str, Any]) -> None:
    """Check every option of a group that has a range."""
    for name, allowed in ranges.items():
        allowed.check(name, group[name])
