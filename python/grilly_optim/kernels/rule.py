"""What the engine must know of an update rule, read off its NumPy twin."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Twin = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Rule:
    """An update rule: its NumPy twin, and the names that the twin shares with ``shaders/rules/<name>.glsl``.

    The twin is the rule's own text in NumPy: ``twin(s, g, ..., h)`` takes a state tuple of arrays, the inputs and a
    tuple of scalars, and returns the new state. The first state field is the caller's parameter, the others belong to
    the device.

    Args:
        twin: The function; its name is the rule's name.
        state: The named tuple of state fields.
        scalars: The named tuple of scalars, one row of which applies to a parameter in a step.
    """

    twin: Twin
    state: type[Any]
    scalars: type[Any]
    name: str = field(init=False)
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.twin.__name__)
        object.__setattr__(self, "inputs", tuple(inspect.signature(self.twin).parameters)[1:-1])

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
