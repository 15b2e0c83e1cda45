"""What options of samplers may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import AT_LEAST_0, Option, Range

POSITIVE = Range(0, above=True)


@dataclass(frozen=True)
class OrNone:
    """None, or another kind of option."""

    kind: Option

    def take(self, name: str, value: Any, where: str = "") -> Any:
        """See `Option`."""
        return None if value is None else self.kind.take(name, value, where)


@dataclass(frozen=True)
class NBeta:
    """A number above 0, or a function without arguments that gives one for each step."""

    def take(self, name: str, value: Any, where: str = "") -> Any:
        """See `Option`."""
        return value if callable(value) else POSITIVE.take(name, value, where)


@dataclass(frozen=True)
class Kept:
    """What has been brought into its form when the group was made."""

    type: type[Any] | tuple[type[Any], ...]
    expected: str

    def take(self, name: str, value: Any, where: str = "") -> Any:
        """See `Option`."""
        if not isinstance(value, self.type):
            raise TypeError(f"{name}{where} must be {self.expected}, got {value!r}")
        return value


BOX = OrNone(AT_LEAST_0)


def own_array(value: Any, who: str) -> NDArray[Any]:
    """A copy of an array of real numbers.

    Raises:
        TypeError: It holds something else.
        ValueError: It is no array.
    """
    try:
        array = np.array(value)
    except ValueError as error:
        raise ValueError(f"{who} is no array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{who} must hold real numbers, got {array.dtype}")
    return array
