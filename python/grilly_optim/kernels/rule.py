"""What the engine must know of an update rule, read off its NumPy twin."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
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
        optional: State fields that may be missing, and what they are then; an update does not change them.
        present: The optional fields that are there.
        drawn: What the last input is that the device makes itself unless it is given: "normal" or "uniform" numbers.
        made_of: Of a rule with sums: the function of its parts, which takes what the twin takes and returns what a step
            is made of. A plan keeps that where its caller wants it (`add_parts`).
        parts: The named tuple of parts.
        choice: Of a file that leaves a function open: which one it is, the end of the rule's name.
    """

    twin: Twin
    state: type[Any]
    scalars: type[Any]
    terms: Twin | None = None
    sums: type[Any] | None = None
    control: Control | None = None
    drawn: str | None = None
    optional: Mapping[str, int] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    made_of: Twin | None = None
    parts: type[Any] | None = None
    choice: str = ""
    name: str = field(init=False)
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        name = self.twin.__name__.removesuffix("_sums")
        object.__setattr__(self, "name", "_".join([name, *filter(None, [self.choice]), *self.present]))
        object.__setattr__(self, "inputs", tuple(inspect.signature(self.twin).parameters)[1:-1])

    def having(self, *present: str) -> Rule:
        """The rule with these optional fields, in the order of the state."""
        return dataclasses.replace(self, present=present)

    @property
    def updates(self) -> bool:
        """Whether it has an update beside its sums."""
        return self.twin is not self.terms

    @property
    def either(self) -> bool:
        """Whether the pass with sums is the whole step: a run makes that, or the update."""
        return self.updates and self.state._fields[0] in self.set_first

    @property
    def state_fields(self) -> tuple[str, ...]:
        """Names of the state fields that are there, the caller's parameter first."""
        return tuple(n for n in self.state._fields if n not in self.optional or n in self.present)

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
        return tuple(n for n in self.sums._fields if n not in self.state._fields) if self.sums else ()

    @property
    def part_fields(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(self.parts._fields) if self.parts else ()

    @property
    def set_first(self) -> tuple[str, ...]:
        """State fields that the pass with sums sets."""
        return tuple(n for n in self.sums._fields if n in self.state._fields) if self.sums else ()

    @property
    def updated(self) -> tuple[str, ...]:
        """State fields that the update sets."""
        first = () if self.either else self.set_first
        return tuple(n for n in self.state_fields if n not in first and n not in self.optional)

    @property
    def number_fields(self) -> tuple[str, ...]:
        """Names of the numbers that a run takes and gives back."""
        return tuple(self.control.numbers._fields) if self.control else self.sum_fields
