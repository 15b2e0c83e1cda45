"""What the engine must know of an update rule, read off its NumPy twin."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Twin = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Control:
    """The twin of a file in shaders/control: what is decided between a rule's two passes, in double.

    Args:
        decide: ``decide(c) -> c``: from the numbers of the run, sums among them, to the numbers it gives back.
        row: ``row(r, c) -> r``: from a row of scalars as the caller gave it to the one of the second pass.
        numbers: The named tuple of numbers.
    """

    decide: Twin
    row: Twin
    numbers: type[Any]


@dataclass(frozen=True)
class Rule:
    """An update rule: its NumPy twin, and the names that the twin shares with ``shaders/rules/<name>.glsl``.

    The twin is the rule's own text in NumPy: ``twin(s, g, ..., h)`` takes a state tuple of arrays, the inputs and a
    tuple of scalars, and returns the new state. The first state field is the caller's parameter, the others belong to
    the device.

    Args:
        twin: The function; its name is the rule's name. For a rule that only measures, the function of the sums, whose
            name ends in ``_sums``.
        state: The named tuple of state fields.
        scalars: The named tuple of scalars, one row of which applies to a parameter in a step.
        terms: Of a rule with two passes: the function of the first, which takes what the twin takes and returns what
            each element adds to each sum.
        sums: The named tuple of sums. What has the name of a state field is no sum, but that field's new value: the
            first pass sets it, and the twin's is not used.
        control: What is decided between the passes; without it a run gives back the sums.
        drawn: What the last input is that the device makes itself unless it is given: "normal" or "uniform" numbers.
    """

    twin: Twin
    state: type[Any]
    scalars: type[Any]
    terms: Twin | None = None
    sums: type[Any] | None = None
    control: Control | None = None
    drawn: str | None = None
    name: str = field(init=False)
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.twin.__name__.removesuffix("_sums"))
        object.__setattr__(self, "inputs", tuple(inspect.signature(self.twin).parameters)[1:-1])

    @property
    def updates(self) -> bool:
        """Whether it changes anything."""
        return self.twin is not self.terms

    @property
    def state_fields(self) -> tuple[str, ...]:
        """Names of the state fields, the caller's parameter first."""
        return tuple(self.state._fields)

    @property
    def owned_fields(self) -> tuple[str, ...]:
        """Names of the state fields that the device keeps."""
        return self.state_fields[1:]

    @property
    def scalar_fields(self) -> tuple[str, ...]:
        """Names of the scalars."""
        return tuple(self.scalars._fields)

    @property
    def sum_fields(self) -> tuple[str, ...]:
        """Names of the sums."""
        return tuple(n for n in self.sums._fields if n not in self.state_fields) if self.sums else ()

    @property
    def set_first(self) -> tuple[str, ...]:
        """State fields that the first pass sets."""
        return tuple(n for n in self.sums._fields if n in self.state_fields) if self.sums else ()

    @property
    def number_fields(self) -> tuple[str, ...]:
        """Names of the numbers that a run takes and gives back."""
        return tuple(self.control.numbers._fields) if self.control else self.sum_fields
