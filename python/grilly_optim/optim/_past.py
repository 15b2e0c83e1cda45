"""What each parameter has been through, as far as its next step depends on it: above all, how many steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# An immutable value: the number of steps, or a named tuple whose first field is that number, `step`. A parameter
# without a gradient keeps its own.
Past = Any


class Uneven(tuple[Past, ...]):
    """One past per parameter."""


# A plain tuple holds one past per group, which all parameters of the group share: the common case, and the fast one.
Even = tuple[Past, ...]
Pasts = Even | Uneven


def packed(pasts: Sequence[Past], sizes: Sequence[int]) -> Pasts:
    """These pasts of all parameters, as one per group if that says the same."""
    first, firsts = 0, []
    for size in sizes:
        firsts.append(pasts[first])
        if any(past != pasts[first] for past in pasts[first : first + size]):
            return Uneven(pasts)
        first += size
    return tuple(firsts)


def unpacked(pasts: Pasts, sizes: Sequence[int]) -> list[Past]:
    """The past of each parameter."""
    if isinstance(pasts, Uneven):
        return list(pasts)
    return [past for past, size in zip(pasts, sizes, strict=True) for _ in range(size)]


def mapped(pasts: Pasts, change: Callable[[Past], Past]) -> Pasts:
    """All pasts, changed."""
    return type(pasts)(map(change, pasts))


def to_dict(past: Past) -> dict[str, Any]:
    """How a past stands in a state dict."""
    return {"step": past} if isinstance(past, int) else dict(past._asdict())


def from_dict(saved: Mapping[str, Any], start: Past, who: str) -> Past:
    """A past out of a state dict; what is missing there is as at the start.

    Raises:
        ValueError: The number of steps is none, or something else is no finite number.
    """
    step = _whole(saved.get("step", 0), who)
    if isinstance(start, int):
        return step
    others = {name: _finite(saved.get(name, value), name, who) for name, value in start._asdict().items()}
    return start._replace(**{**others, "step": step})


def steps_of(past: Past) -> int:
    """The number of steps."""
    return past if isinstance(past, int) else int(past.step)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _whole(value: Any, who: str) -> int:
    number = _number(value)
    if not (0 <= number < 2**53 and number == int(number)):
        raise ValueError(f"'step' of {who} in state_dict must be a whole number, 0 or more, got {value!r}")
    return int(number)


def _finite(value: Any, name: str, who: str) -> float:
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError(f"{name!r} of {who} in state_dict must be a finite number, got {value!r}")
    return number
