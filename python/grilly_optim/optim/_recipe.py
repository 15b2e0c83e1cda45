"""What sets an optimizer apart from the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Options, Range
from grilly_optim.optim._past import Past, Pasts

Array = NDArray[Any]


class Recipe(ABC):
    """What a subclass of `Optimizer` provides: all that the engine asks of it, and what holds where it says nothing."""

    # Field of the rule's state -> name in state_dict(), torch's where torch has one.
    STATE_NAMES: ClassVar[dict[str, str]] = {}
    # Option -> what it may be; looked at in every step, because callers and schedulers write to the groups.
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {}
    # What a parameter has been through before its first step.
    START: ClassVar[Past] = 0

    @abstractmethod
    def _rule(self, options: Options) -> Rule:
        """The rule of a group with these options."""

    @abstractmethod
    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        """The rule's scalars, in their order, for a step of a group with these options; `past` includes that step."""

    def _advance(self, options: Options, past: Past) -> Past:
        """What a parameter will have been through after one more step."""
        return past + 1

    def _initial(self, options: Options) -> dict[str, float]:
        """State fields that do not start at 0, and where they do."""
        return {}

    def _numbers(self, after: Pasts) -> Array | None:
        """What the decision between two passes takes; a step leaves there what it gives. None: there is no decision."""
        return None

    def _settle(self, numbers: Array) -> None:
        """A step is over: take note of what it decided. What a signal breaks off, another call takes up."""
        return

    def _own_state(self) -> dict[str, Any]:
        """What else a state dict has."""
        return {}

    def _checked_own_state(self, state_dict: Mapping[str, Any]) -> Any:
        """That part of a state dict, checked and copied."""
        return None

    def _take_own_state(self, saved: Any) -> None:
        """Go on with it."""
        return
