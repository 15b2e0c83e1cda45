"""How methods against forgetting come to an optimizer, and leave it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from grilly_optim.optim._attached import Attached, Method, PathIntegral
from grilly_optim.optim._options import Options
from grilly_optim.optim._parameters import Group
from grilly_optim.optim._past import Pasts
from grilly_optim.optim._plans import Plans
from grilly_optim.optim._stepping import Stepping
from grilly_optim.optim._turns import in_turn

Array = NDArray[Any]


class Attaching(Stepping):
    """The methods that are attached: plans that are made anew have room for them."""

    def __init__(self, params: Any, defaults: Group, device: str | None) -> None:
        self._attached: list[Attached] = []
        super().__init__(params, defaults, device)

    def _take(self, groups: list[Group], options: list[Options], plans: Plans, pasts: Pasts) -> None:
        for attached in self._attached:
            attached.prepare(plans.launches, self._plans.by_member())
        super()._take(groups, options, plans, pasts)

    @in_turn
    def attach(self, method: Method, strength: float | None = None, params: Iterable[Array] | None = None) -> None:
        """Let the kernel of each step do a method's work: add its penalty's gradient, sum up its path integral.

        A penalty's gradient comes on top of the gradients given, and is not clipped. It follows the method: after
        ``method.consolidate`` the next step has the new one. A parameter without a gradient stays where it is, penalty
        or not. What is attached is no part of `state_dict`, nor of copies of the optimizer.

        Args:
            method: `grilly_optim.continual.EWC` or `grilly_optim.continual.SynapticIntelligence`.
            strength: Of the penalty, 0 or more; attach the same method again to change it. None means 1 for EWC, and
                for SynapticIntelligence 0: the path integral alone.
            params: The parameters that it is for, in the method's order; None means all, and when the method is
                attached already, the same.

        Raises:
            TypeError: Something else is to be attached, or `params` is no sequence.
            ValueError: `strength` below 0; no parameters, one that is not this optimizer's or is there twice; shapes
                that are not the method's; a method is attached already that needs the same place, or this one is, to
                other parameters; a group that maximizes, because penalties and path integrals are those of losses.
            OutOfDeviceMemory: The device has no room for the penalty (8 bytes per float32 element) or the path
                integral (4 bytes).

            After any of them, the optimizer is as before.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.continual import EWC
            >>> from grilly_optim.optim import AdamW
            >>> w, ewc = np.array([1.0, -2.0]), EWC()
            >>> ewc.consolidate(w, np.array([100.0, 0.0]))  # the first weight matters to an earlier task
            >>> optimizer = AdamW([w], lr=0.1, device="numpy")
            >>> optimizer.attach(ewc, strength=10.0)
            >>> for _ in range(100):
            ...     optimizer.step(gradients=[2 * w])
            >>> np.abs(w - [1, 0]).round(1)
            array([0., 0.])
        """
        old = self._find(method)
        others = [a for a in self._attached if a is not old]
        new = Attached.checked(others, method, strength, self._members(params, old))
        self._require_minimizing([new], self._options)
        if old is not None:
            old.release(self._plans.launches)
            new.prepare(self._plans.launches, self._plans.by_member())
            self._attached[self._attached.index(old)] = new
            return
        try:
            new.prepare(self._plans.launches, {})
            arrays = [self._plans.parameters[i] for i in new.members]
            method._attach(arrays, PathIntegral(self, new.members) if method._integrates else None)
        except BaseException:
            self._rebuild(self.param_groups, self._pasts)  # without the room that has been made
            raise
        self._attached.append(new)

    def detach(self, method: Method) -> None:
        """Undo `attach`.

        Raises:
            ValueError: It is not attached.
            OutOfDeviceMemory: There is no room to make the plans anew. It is detached, but its room is not free.
        """
        attached = self._find(method)
        if attached is None:
            raise ValueError(f"{type(method).__name__} is not attached to this optimizer")
        method._detach()
        self._drop(attached)

    @in_turn
    def _drop(self, attached: Attached) -> None:
        self._attached.remove(attached)
        attached.release(self._plans.launches)
        self._rebuild(self.param_groups, self._pasts)

    def _check_options(self, options: list[Options]) -> None:
        self._require_minimizing(self._attached, options)

    def _require_minimizing(self, attached: Iterable[Attached], options: list[Options]) -> None:
        for one in attached:
            for k in sorted({self._plans.group_of[i] for i in one.members}):
                if options[k].get("maximize"):
                    name = type(one.method).__name__
                    raise ValueError(f"{name} is for losses, which are minimized, and group {k} has maximize=True")

    def _find(self, method: Method) -> Attached | None:
        return next((a for a in self._attached if a.method is method), None)

    def _members(self, params: Iterable[Array] | None, old: Attached | None) -> list[int]:
        """The positions of these parameters; those that the method is attached to already may not change."""
        if params is None:
            return list(range(len(self._plans.parameters))) if old is None else old.members
        if not isinstance(params, Iterable):
            raise TypeError(f"params must be a sequence of arrays, got {type(params).__name__}")
        found = [self._plans.positions.get(id(p)) for p in params]
        if None in found:
            raise ValueError(f"params has something at {found.index(None)} that is no parameter of this optimizer")
        members = [i for i in found if i is not None]
        if not members:
            raise ValueError("params is empty")
        if len(set(members)) < len(members):
            raise ValueError("params has an array more than once")
        if old is not None and members != old.members:
            raise ValueError(f"{type(old.method).__name__} is attached to other params: detach it first")
        return members
