"""The plans of an optimizer's groups: which parameters there are, and how a step's gradients get to them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.kernels.norm import NORM
from grilly_optim.kernels.numpy_device import NumpyDevice
from grilly_optim.optim import _gradients, _parameters
from grilly_optim.optim._launch import Chains, Keys, Launch, of_member
from grilly_optim.optim.clipping import total_norm

if TYPE_CHECKING:
    from grilly_optim._devices import Backend, DeviceInfo
    from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]
Rows = list[tuple[float, ...]]

REFUSED = "the device does not take gradients that were made to fit: please report this"


class Plans:
    """All plans for a list of groups; made anew when a group comes or a rule changes.

    Args:
        backend: The device.
        info: What it can do.
        groups: Checked groups.
        rules: The rule of each group.
        initial: For each group, state fields that do not start at 0, and where they do: a number, or an array per
            parameter.
        chains: The rows of the parameters, for rules that draw.
        who: What messages call the parameters; None: by number and name.

    Attributes:
        parameters: All arrays, in the order of the groups.
        who: What messages call each.
        positions: Where a parameter stands, by id and by name.
        sizes: The number of parameters of each group.
        group_of: The group of each parameter.
        place: Its place there.
        sketch: What reads the sketches of the parts of a step, for who has them.
        keys: What random streams and sums call the parameters, where they are chains.
        launches: One per rule and precision.
        groups: The groups that each launch has parameters of.
        index: For each launch, which of these each of its members belongs to; None where it is one.

    Raises:
        TypeError: A parameter that cannot be one on this device.
        ValueError: Two parameters share memory or a name.
    """

    def __init__(
        self,
        backend: Backend,
        info: DeviceInfo,
        groups: Sequence[Mapping[str, Any]],
        rules: Sequence[Rule],
        initial: Sequence[Mapping[str, float | Sequence[Array]]],
        chains: Chains | None = None,
        who: Sequence[str] | None = None,
    ) -> None:
        self._backend = backend
        self.parameters: list[Any] = [p for g in groups for p in g["params"]]
        names = [n for g in groups for n in g.get("param_names") or [None] * len(g["params"])]
        self.who = [_parameters.describe(i, n) for i, n in enumerate(names)] if who is None else list(who)
        for parameter, label in zip(self.parameters, self.who, strict=True):
            _parameters.check(parameter, label)
            _parameters.require_precision(parameter, label, info)
        _parameters.refuse_overlap(self.parameters, self.who)
        self.positions: dict[str | int, int] = {id(p): i for i, p in enumerate(self.parameters)}
        for i, name in enumerate(names):
            if name is not None and self.positions.setdefault(name, i) != i:
                raise ValueError(f"the name {name!r} is given to parameters {self.positions[name]} and {i}")

        self.sizes = [len(g["params"]) for g in groups]
        self.group_of = [k for k, size in enumerate(self.sizes) for _ in range(size)]
        self.place = [j for size in self.sizes for j in range(size)]
        self.keys = None if chains is None else Keys.of(chains, self.parameters, self.group_of)
        self._layouts = [_parameters.layout(p) for p in self.parameters]
        members: dict[tuple[str, str], list[int]] = {}
        for i, p in enumerate(self.parameters):
            members.setdefault((rules[self.group_of[i]].name, p.dtype.char), []).append(i)
        self.launches = [
            Launch(backend, rules[self.group_of[mine[0]]], self.parameters, mine, self.keys)
            for mine in members.values()
        ]
        self._engine_plans = [launch.plan for launch in self.launches]
        self._indirect = [launch for launch in self.launches if launch.copied]
        if not self._indirect:
            # Instead of the method, which is a call more. A method kept here would keep its owner alive, state and all.
            vars(self)["run"] = partial(backend.run, self._engine_plans)
        written = [d for launch in self.launches for d in launch.direct]
        for launch in self.launches:
            launch.plan.guard(written)
            for k, i in enumerate(launch.members):
                for field, value in initial[self.group_of[i]].items():
                    launch.write_state(field, k, of_member(value, self.place[i]))
        owners = [np.unique([self.group_of[i] for i in a.members], return_inverse=True) for a in self.launches]
        self.groups: list[list[int]] = [found.tolist() for found, _ in owners]
        self.index = [None if found.size == 1 else which for found, which in owners]
        self._norms: list[Launch] | None = None
        self.sketch: Any = None

    def expect_run(self) -> None:
        """A step will come soon: let threads wake up while Python looks at what has come."""
        for plan in self._engine_plans:
            plan.expect_run()

    def by_member(self) -> dict[int, tuple[Launch, int]]:
        """For each parameter its launch, and which of that launch's members it is."""
        return {i: (launch, k) for launch in self.launches for k, i in enumerate(launch.members)}

    def carry_over(self, before: Plans) -> None:
        """Go on with the state of the parameters that were in other plans."""
        state = before.by_member()
        for launch in self.launches:
            launch.carry_over(state)

    def conform(self, gradients: Any) -> list[Array | None]:
        """Gradients in any form, as the device takes them: a list, with copies where there must be.

        Raises:
            TypeError: Another form, or gradients that are not real numbers.
            ValueError: A wrong count or shape, an unknown name, or a parameter that is not what it was.
        """
        for p, kept, who in zip(self.parameters, self._layouts, self.who, strict=True):
            _parameters.check(p, who)
            if _parameters.layout(p) != kept:
                raise ValueError(
                    f"{who} has changed since the optimizer was built: shape, dtype or memory are others now"
                )
        items = _gradients.collect(gradients, self.parameters, self.positions)
        for launch in self.launches:
            for k, i in enumerate(launch.members):
                if items[i] is not None and not launch.plan.fits(k, items[i]):
                    items[i] = _gradients.conform(items[i], self.parameters[i], self.who[i])
        return items

    def distinct(self, keys: Sequence[Hashable]) -> list[tuple[list[Any], list[int]]]:
        """For each launch, the different keys of its parameters, and which of them is whose."""
        result = []
        for launch in self.launches:
            at: dict[Hashable, int] = {}
            index = [at.setdefault(keys[i], len(at)) for i in launch.members]
            result.append((list(at), index))
        return result

    def run(self, inputs: tuple[list[Any], ...], rows: Sequence[Rows], *arguments: Any) -> bool:
        """The device's `run` of all plans, and the parameters that it works on in a copy."""
        mine = list(inputs[0])  # the caller's list may change while the step runs
        copied = [pair for launch in self._indirect for pair in launch.copy_in(self.who, mine)]
        try:
            done = self._backend.run(self._engine_plans, inputs, rows, *arguments)
            if done:
                _copy_out(copied)
        except BaseException:
            # A signal that came during the run, or before the copies were out: they are part of the step.
            if self.finished(rows):
                _copy_out(copied)
            raise
        return done

    def finished(self, rows: object) -> bool:
        """Whether the last run was the one with these rows, and came to its end."""
        return all(plan.done is rows for plan in self._engine_plans)

    def norm(self, gradients: list[Array | None]) -> float:
        """The global norm of conforming gradients, by the processor: they are in its memory on every device."""
        host = self._host()
        if self._norms is None:
            direct = [launch.direct[k] for _, (launch, k) in sorted(self.by_member().items())]
            self._norms = [Launch(host, NORM, direct, launch.members) for launch in self.launches]
        square, plans = np.zeros(1), [launch.plan for launch in self._norms]
        if not host.run(plans, (gradients,), [[(0.0,)]] * len(plans), [None] * len(plans), False, square):
            raise RuntimeError(REFUSED)
        if math.isfinite(square[0]):
            return math.sqrt(square[0])
        # Squares may leave the range of float32 where the norm does not.
        with np.errstate(all="ignore"):
            return total_norm((g for g in gradients if g is not None), 2)

    def copies(self) -> tuple[list[Array], list[Launch], Backend]:
        """Copies of the parameters, launches over them with a copy of the state, and their device: the processor."""
        host = self._host()
        arrays = [np.array(p, order="C", subok=False) for p in self.parameters]
        trials = [Launch(host, launch.rule, arrays, launch.members) for launch in self.launches]
        state = self.by_member()
        for trial in trials:
            trial.carry_over(state)
        return arrays, trials, host

    def _host(self) -> Backend:
        return self._backend if isinstance(self._backend, NumpyDevice) else open_device("cpu")[1]


def _copy_out(copied: Iterable[tuple[Array, Array]]) -> None:
    for parameter, direct in copied:
        np.copyto(parameter, direct)
