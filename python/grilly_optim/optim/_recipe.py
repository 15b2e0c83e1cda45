"""What sets an optimizer apart from the others."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Option, Options
from grilly_optim.optim._past import Past, Pasts

Array = NDArray[Any]


class Recipe(ABC):
    """What a subclass of `Optimizer` provides: all that the engine asks of it, and what holds where it says nothing."""

    # Field of the rule's state -> name in state_dict(), torch's where torch has one.
    STATE_NAMES: ClassVar[dict[str, str]] = {}
    # Option -> what it may be; looked at in every step, because callers and schedulers write to the groups.
    OPTIONS: ClassVar[Mapping[str, Option]] = {}
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

    def _initial(self, options: Options, params: list[Array]) -> Mapping[str, float | Sequence[Array]]:
        """State fields of a group that do not start at 0, and where they do: a number, or an array per parameter."""
        return {}

    def _resolve(self, group: dict[str, Any], index: int) -> None:
        """Bring the options of a new group, which has them all, into the form in which they are kept."""
        return

    def _saved_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a group as a state dict has them."""
        return copy.deepcopy({k: v for k, v in group.items() if k != "params"})

    def _restored_options(self, saved: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a group that a state dict has, as they are kept."""
        # Names belong to the parameters that are here, not to the ones that were saved.
        options = copy.deepcopy({k: v for k, v in saved.items() if k not in ("params", "param_names")})
        for name, value in options.items():
            if isinstance(value, list) and isinstance(group.get(name), tuple):
                options[name] = tuple(value)
        return options

    def _numbers(self, after: Pasts) -> Array | None:
        """What the decision between two passes takes; a step leaves there what it gives. None: there is no decision."""
        return None

    def _settle(self, numbers: Array) -> None:
        """A step is over: take note of what it decided. What a signal breaks off, another call takes up."""
        return

    def _check_saved(self, name: str, array: Array, i: int, who: str) -> None:
        """Refuse a saved array that parameter `i` cannot go on with."""
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
