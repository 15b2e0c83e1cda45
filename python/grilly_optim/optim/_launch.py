"""Plans of an optimizer: which parameters one kernel takes, and how they get in and out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._parameters import is_direct, require_writeable

if TYPE_CHECKING:
    from grilly_optim._devices import Backend
    from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]

SEGMENT = 256  # elements: kSegmentAlignment of the engine


class Chains(NamedTuple):
    """Rows of every parameter that go their own ways.

    Attributes:
        number: How many rows.
        stream: The random stream of the first; the others' follow.
    """

    number: int = 1
    stream: int = 0


class Keys(NamedTuple):
    """What random streams and sums call parameters: as lists, one entry per parameter of the optimizer."""

    chains: Chains
    elements: list[int]
    groups: list[int]

    @classmethod
    def of(cls, chains: Chains, parameters: Sequence[Array], groups: list[int]) -> Keys:
        """The parameters of one chain behind one another, each from a multiple of `SEGMENT` on."""
        rounded = [-(-p.size // chains.number // SEGMENT) * SEGMENT for p in parameters]
        return cls(chains, [0, *itertools.accumulate(rounded)][:-1], groups)

    def of_members(self, members: Sequence[int]) -> tuple[int, list[int], int, list[int]]:
        """As a device's `plan` takes them."""
        elements, groups = ([of[i] for i in members] for of in (self.elements, self.groups))
        return self.chains.number, elements, self.chains.stream, groups


def of_member(value: float | Sequence[Array], place: int) -> float | Array:
    """What a group says for all of its parameters, for the one at this place."""
    return value if isinstance(value, float | int) else value[place]


class Launch:
    """All parameters of one rule and one precision: one kernel run per step.

    A parameter that is not contiguous is worked on in a contiguous copy, which goes in and out with every step.

    Args:
        backend: The device.
        rule: What to run.
        parameters: All parameters of the optimizer.
        members: Positions of the ones that belong here.
        keys: Of rules that draw, and rules whose sums are by group.
    """

    def __init__(
        self,
        backend: Backend,
        rule: Rule,
        parameters: Sequence[Array],
        members: Sequence[int],
        keys: Keys | None = None,
    ) -> None:
        self.rule = rule
        self.members = list(members)
        mine = [parameters[i] for i in self.members]
        self.direct = [p if is_direct(p) else np.array(p, order="C", subok=False) for p in mine]
        # (member, the caller's array, the contiguous copy) of each parameter that cannot be worked on directly
        self.copied = [(k, p, d) for k, (p, d) in enumerate(zip(mine, self.direct, strict=True)) if p is not d]
        self.plan: Any = backend.plan(
            rule, self.direct, self.members, *(() if keys is None else keys.of_members(self.members))
        )

    def copy_in(self, who: Sequence[str], gradients: Sequence[Array | None]) -> list[tuple[Array, Array]]:
        """Fetch the parameters that are worked on in a copy; `gradients` are those of all parameters.

        Returns:
            The caller's array and the copy of each that takes part.

        Raises:
            ValueError: One has become read-only.
        """
        for k, parameter, _ in self.copied:
            require_writeable(parameter, who[self.members[k]])
        for _, parameter, direct in self.copied:
            np.copyto(direct, parameter)
        return [(parameter, direct) for k, parameter, direct in self.copied if gradients[self.members[k]] is not None]

    def read_state(self, field: str, k: int) -> Array:
        """A copy of one state field of the k-th member, in the parameter's shape."""
        array = np.empty(self.direct[k].shape, self.direct[k].dtype)
        self.plan.read_state(field, k, array)
        return array

    def write_state(self, field: str, k: int, value: float | Array) -> None:
        """Set one state field of the k-th member: to an array of its shape, or one that is there in every chain."""
        like = self.direct[k]
        full = np.require(np.broadcast_to(np.asarray(value, like.dtype), like.shape), requirements=["C", "A"])
        self.plan.write_state(field, k, full.reshape(like.shape))

    def carry_over(self, before: Mapping[int, tuple[Launch, int]]) -> None:
        """Go on with the state of the members that were in these launches."""
        for k, i in enumerate(self.members):
            if i in before:
                launch, at = before[i]
                for field in set(self.rule.owned_fields) & set(launch.rule.owned_fields):
                    self.plan.write_state(field, k, launch.read_state(field, at))
