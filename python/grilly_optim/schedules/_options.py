"""What arguments and saved state of schedules may be, beyond `optim._options`: a kind takes a value or refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from grilly_optim.optim._options import Range, Whole


class Kind(Protocol):
    """Takes a value as a plain Python object, or raises an error that names it."""

    def take(self, name: str, value: Any) -> Any:
        """The value, checked."""


@dataclass(frozen=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def take(self, name: str, value: Any) -> str:
        """The word.

        Raises:
            ValueError: Anything else.
        """
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"{name} must be {' or '.join(map(repr, self.words))}, got {value!r}")
        return value


@dataclass(frozen=True)
class Several:
    """A list, tuple or range of values of one kind."""

    kind: Kind

    def take(self, name: str, value: Any) -> list[Any]:
        """The values as a new list.

        Raises:
            TypeError: Not one of these; and as the kind of its values.
            ValueError: As the kind of its values.
        """
        if not isinstance(value, list | tuple | range):
            raise TypeError(f"{name} must be a list, got {value!r}")
        return [self.kind.take(f"{name}[{i}]", v) for i, v in enumerate(value)]


@dataclass(frozen=True)
class OneOrSeveral:
    """A value of one kind, or a list of them."""

    kind: Kind

    def take(self, name: str, value: Any) -> Any:
        """The value, or the values as a new list.

        Raises:
            TypeError: As the kind of the values.
            ValueError: As the kind of the values.
        """
        kind = Several(self.kind) if isinstance(value, list | tuple) else self.kind
        return kind.take(name, value)


@dataclass(frozen=True)
class Milestones:
    """Epochs in increasing order; equal ones only with `repeated`."""

    repeated: bool = False

    def take(self, name: str, value: Any) -> list[int]:
        """The epochs as a new list.

        Raises:
            TypeError: Not a list, tuple or range of whole numbers.
            ValueError: Negative, or not increasing.
        """
        epochs: list[int] = Several(Whole(0)).take(name, value)
        if epochs != sorted(epochs) or not (self.repeated or len(set(epochs)) == len(epochs)):
            raise ValueError(f"{name} must be increasing, got {value!r}")
        return epochs


LEARNING_RATE = Range(0)


def take_all(kinds: Mapping[str, Kind], values: Mapping[str, Any]) -> dict[str, Any]:
    """Each of these values, checked by the kind of its name."""
    return {name: kinds[name].take(name, value) for name, value in values.items()}


def per_group(name: str, value: Any, groups: int) -> list[Any]:
    """One value for each group: the same for all, or a list that has one for each.

    Raises:
        ValueError: A list of another length.
    """
    if not isinstance(value, list):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"{name} must have one entry for each of the {groups} groups, got {len(value)}")
    return value
