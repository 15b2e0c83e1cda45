"""What all optimizers share: groups, gradients, plans, state. A subclass adds its rule and its scalars."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.kernels.numpy_device import NumpyDevice
from grilly_optim.kernels.rule import Rule
from grilly_optim.optim import _gradients, _parameters, _past
from grilly_optim.optim._hooks import Handle, Hooks
from grilly_optim.optim._launch import Launch
from grilly_optim.optim._options import Flag, Options, Range, take_options
from grilly_optim.optim._past import Past, Pasts
from grilly_optim.optim._state import StateDict, checked_state, snapshot
from grilly_optim.optim._turns import Turns

Array = NDArray[Any]
Group = dict[str, Any]
Rows = list[tuple[float, ...]]
Gradients = Sequence[Array | None] | Mapping[str, Array | None] | Mapping[int, Array | None]

REFUSED = "the device does not take gradients that were made to fit: please report this"


class Optimizer(ABC):
    """Base of all optimizers.

    A subclass names its state and the ranges of its options, picks the rule of a group (`_rule`) and computes the
    rule's scalars for a step (`_scalars`). Everything else is here.

    Args:
        params: Arrays, (name, array) pairs, a dict of names, or group dicts whose ``"params"`` is one of these.
        defaults: Options of groups that do not set them.
        device: See `grilly_optim.devices`.
    """

    # Field of the rule's state -> name in state_dict(), torch's where torch has one.
    STATE_NAMES: ClassVar[dict[str, str]] = {}
    # Option -> what it may be; looked at in every step, because callers and schedulers write to the groups.
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {}
    # What a parameter has been through before its first step.
    START: ClassVar[Past] = 0

    def __init__(self, params: Any, defaults: Group, device: str | None) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self._hooks = Hooks()
        self._turns = Turns()
        groups = [self._checked_group(g, k) for k, g in enumerate(_parameters.as_groups(params))]
        elements = sum(p.size for g in groups for p in g["params"] if isinstance(p, np.ndarray))
        self._choice, self._backend = open_device(device, elements)
        self._take(*self._prepare(groups), (self.START,) * len(groups))

    # What a subclass provides.

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

    # Groups and plans.

    @property
    def device(self) -> str:
        """The device string of the device this optimizer runs on."""
        return self._choice.info.device

    def _checked_group(self, group: Mapping[str, Any], index: int) -> Group:
        if not isinstance(group, Mapping):
            raise TypeError(f"group {index} must be a dict with the key 'params', got {type(group).__name__}")
        if "params" not in group:
            raise ValueError(
                f"group {index} must have the key 'params', got {', '.join(map(repr, group)) or 'no keys'}"
            )
        unknown = set(group) - set(self.defaults) - {"params", "param_names", "initial_lr", "name"}
        if unknown:
            raise ValueError(
                f"group {index} has the option {sorted(unknown)[0]!r}, which {type(self).__name__} does not take; "
                f"it takes {', '.join(self.defaults)}"
            )
        arrays, names = _parameters.named(group["params"], index)
        if not arrays:
            raise ValueError(f"params of group {index} is empty")
        result = {"params": arrays, **{k: v for k, v in group.items() if k != "params"}}
        if names is not None:
            result["param_names"] = names
        _parameters.check_names(result, index)
        for option, value in self.defaults.items():
            result.setdefault(option, value)
        take_options(self.OPTIONS, result, index)
        return result

    def _prepare(
        self, groups: list[Group]
    ) -> tuple[list[Group], list[Options], list[str], dict[str | int, int], list[Launch]]:
        """Check parameters and make the plans of these groups; nothing of this optimizer changes."""
        parameters = [p for g in groups for p in g["params"]]
        names = [n for g in groups for n in g.get("param_names") or [None] * len(g["params"])]
        who = [_parameters.describe(i, n) for i, n in enumerate(names)]
        info = self._choice.info
        for parameter, label in zip(parameters, who, strict=True):
            _parameters.check(parameter, label)
            _parameters.require_precision(parameter, label, info)
        _parameters.refuse_overlap(parameters, who)
        positions: dict[str | int, int] = {id(p): i for i, p in enumerate(parameters)}
        for i, name in enumerate(names):
            if name is not None and positions.setdefault(name, i) != i:
                raise ValueError(f"the name {name!r} is given to parameters {positions[name]} and {i}")

        options = [take_options(self.OPTIONS, g, k) for k, g in enumerate(groups)]
        rules = [self._rule(o) for o, g in zip(options, groups, strict=True) for _ in g["params"]]
        members: dict[tuple[str, str], list[int]] = {}
        for i, p in enumerate(parameters):
            members.setdefault((rules[i].name, p.dtype.char), []).append(i)
        launches = [Launch(self._backend, rules[mine[0]], parameters, mine) for mine in members.values()]
        written = [d for launch in launches for d in launch.direct]
        group_of = [k for k, g in enumerate(groups) for _ in g["params"]]
        for launch in launches:
            launch.plan.guard(written)
            for k, i in enumerate(launch.members):
                for field, value in self._initial(options[group_of[i]]).items():
                    launch.plan.write_state(field, k, np.full_like(launch.direct[k], value))
        return groups, options, who, positions, launches

    def _take(
        self,
        groups: list[Group],
        options: list[Options],
        who: list[str],
        positions: dict[str | int, int],
        launches: list[Launch],
        pasts: Pasts,
    ) -> None:
        """Go on with what `_prepare` made."""
        self.param_groups, self._who, self._positions, self._launches = groups, who, positions, launches
        self._parameters = [p for g in groups for p in g["params"]]
        self._sizes = [len(g["params"]) for g in groups]
        self._group_of = [k for k, size in enumerate(self._sizes) for _ in range(size)]
        self._layouts = [_parameters.layout(p) for p in self._parameters]
        self._pasts = pasts
        self._plans = [launch.plan for launch in launches]
        self._indirect = [launch for launch in launches if launch.copied]
        owners = [np.unique([self._group_of[i] for i in launch.members], return_inverse=True) for launch in launches]
        self._groups = [groups.tolist() for groups, _ in owners]  # of each launch
        self._index = [None if groups.size == 1 else which for groups, which in owners]
        self._watched = operator.itemgetter(*self.OPTIONS)
        self._use(options)

    def _use(self, options: list[Options]) -> None:
        """Validated options of all groups."""
        self._options = options
        self._seen: list[Any] = [None] * len(options)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group; state and step counts of the others stay.

        The plans are made anew, so that a step stays one kernel run: for that time the state is there twice.

        Raises:
            TypeError: As in the constructor.
            ValueError: As in the constructor.
        """
        with self._turns:
            group = self._checked_group(param_group, len(self.param_groups))
            pasts = _past.unpacked(self._pasts, self._sizes) + [self.START] * len(group["params"])
            self._rebuild([*self.param_groups, group], _past.packed(pasts, [*self._sizes, len(group["params"])]))

    def _rebuild(self, groups: list[Group], pasts: Pasts) -> None:
        """Make all plans anew, for these groups, and go on with the state that is there."""
        prepared = self._prepare(groups)
        state = {i: (launch, k) for launch in self._launches for k, i in enumerate(launch.members)}
        for launch in prepared[-1]:
            for k, i in enumerate(launch.members):
                for field in launch.rule.owned_fields if i in state else ():
                    before, at = state[i]
                    launch.plan.write_state(field, k, before.read_state(field, at))
        self._take(*prepared, pasts)

    # Steps.

    def step(self, closure: Callable[[], Any] | None = None, gradients: Gradients | None = None) -> Any:
        """Update the parameters in place; they may be read when this returns.

        Args:
            closure: Evaluates the model and returns the loss, which this returns; called first.
            gradients: A sequence aligned with the parameters in the order of `param_groups`, or a dict by name or by
                ``id(parameter)``. None, or a missing key, leaves a parameter and its step count as they are. Without
                `gradients` the ``.grad`` of each `Parameter` is read. A gradient of another real precision is cast;
                gradients are never written to.

        Raises:
            TypeError: A complex gradient, or options that are not numbers.
            ValueError: A gradient of another shape, an unknown name or id, a wrong count, or an option out of range.
            DeviceLost: The device failed; build the optimizer anew.

            After any of the first two, nothing has changed.
        """
        if closure is not None and not callable(closure):
            raise TypeError(f"closure must be callable, got {type(closure).__name__}; gradients go into gradients=...")
        if self._hooks.pre:
            closure, gradients = self._hooks.before(self, closure, gradients)
        loss = None if closure is None else closure()
        turns = self._turns
        with turns.lock:
            if turns.busy:
                turns.refuse()
            turns.busy = True
            try:
                gradients = self._update(gradients)
            finally:
                turns.busy = False
        if self._hooks.post:
            self._hooks.after(self, closure, gradients)
        return loss

    def _update(self, gradients: Any) -> Any:
        """The step itself, by the one thread whose turn it is; returns the gradients as they were used."""
        self._look_at_options()
        if type(gradients) is list and len(gradients) == len(self._parameters):
            # The fast path: a group's parameters all at the same step, and gradients that the device takes as they are.
            pasts, options = self._pasts, self._options
            if type(pasts) is tuple:
                if len(options) == 1:
                    after = (self._advance(options[0], pasts[0]),)
                    rows = [[self._scalars(options[0], after[0])]] * len(self._plans)
                else:
                    after = tuple(map(self._advance, options, pasts))
                    rows = [[self._scalars(options[k], after[k]) for k in own] for own in self._groups]
                if self._run(gradients, rows, self._index, after, True):
                    return gradients
            some_missing = any(g is None for g in gradients)
            if (some_missing or type(pasts) is not tuple) and self._run(gradients, *self._rows(gradients), False):
                return gradients
        gradients = self._conform(gradients)
        if not self._run(gradients, *self._rows(gradients), False):
            raise RuntimeError(REFUSED)
        return gradients

    def _run(self, gradients: list[Any], rows: list[Rows], index: list[Any], after: Pasts, whole: bool) -> bool:
        """Run the plans and count the step; false when the gradients need a look, and then nothing has happened."""
        copied = self._copy_in(gradients) if self._indirect else ()
        before = self._pasts
        try:
            # Counted before it runs: a signal that comes during the run raises right behind it, when all is done.
            self._pasts = after
            done = self._backend.run(self._plans, (gradients,), rows, index, whole)
            if not done:
                self._pasts = before
        except BaseException:
            if all(plan.done is rows for plan in self._plans):
                self._copy_out(copied)
            else:
                self._pasts = before
            raise
        if done and copied:
            self._copy_out(copied)
        return done

    def _copy_in(self, gradients: list[Any]) -> list[tuple[Array, Array]]:
        """Fetch the parameters that are worked on in a copy; those that take part must come back from it."""
        mine = list(gradients)  # the caller's list may change while the step runs
        return [pair for launch in self._indirect for pair in launch.copy_in(self._who, mine)]

    @staticmethod
    def _copy_out(copied: Iterable[tuple[Array, Array]]) -> None:
        for parameter, direct in copied:
            np.copyto(parameter, direct)

    def _conform(self, gradients: Any) -> list[Array | None]:
        """Gradients that the plans take, copied where they must be."""
        for p, kept, who in zip(self._parameters, self._layouts, self._who, strict=True):
            _parameters.check(p, who)
            if _parameters.layout(p) != kept:
                raise ValueError(
                    f"{who} has changed since the optimizer was built: shape, dtype or memory are others now"
                )
        items = _gradients.collect(gradients, self._parameters, self._positions)
        for launch in self._launches:
            for k, i in enumerate(launch.members):
                if items[i] is not None and not launch.plan.fits(k, items[i]):
                    items[i] = _gradients.conform(items[i], self._parameters[i], self._who[i])
        return items

    def _rows(self, gradients: list[Any]) -> tuple[list[Rows], list[list[int]], Pasts]:
        """Rows of scalars for each plan, which is whose, and the pasts after the step."""
        before = _past.unpacked(self._pasts, self._sizes)
        # A parameter that stands still shares the row of those with its past that do not: nothing reads it.
        ahead = [self._advance(self._options[k], past) for k, past in zip(self._group_of, before, strict=True)]
        rows, index = [], []
        for launch in self._launches:
            own = [(self._group_of[i], ahead[i]) for i in launch.members]
            at = {key: row for row, key in enumerate(dict.fromkeys(own))}
            rows.append([self._scalars(self._options[k], past) for k, past in at])
            index.append([at[key] for key in own])
        after = [new if g is not None else old for old, new, g in zip(before, ahead, gradients, strict=True)]
        return rows, index, _past.packed(after, self._sizes)

    def _look_at_options(self) -> None:
        """Validate what the groups say now. Once per value: most steps come with the options of the last one."""
        try:
            if list(map(self._watched, self.param_groups)) == self._seen:
                return
        except ValueError:
            pass  # an array, which does not compare to one truth
        options = [take_options(self.OPTIONS, group, k) for k, group in enumerate(self.param_groups)]
        rules = [(self._rule(old), self._rule(new)) for old, new in zip(self._options, options, strict=True)]
        for k, (old, new) in enumerate(rules):
            if old.owned_fields != new.owned_fields:
                self._refuse_change(k, options[k])
        if any(old is not new for old, new in rules):
            self._rebuild(self.param_groups, self._pasts)
        self._use(options)
        for k, group in enumerate(self.param_groups):
            values = self._watched(group)
            # A value that can change in place (an array, a list) is looked at in every step.
            self._seen[k] = values if all(type(v) in (float, int, bool, tuple) for v in values) else None

    def _refuse_change(self, k: int, new: Options) -> NoReturn:
        old = self._options[k]
        fields = self._rule(old).owned_fields
        name = next(n for n in new if self._rule({**old, n: new[n]}).owned_fields != fields)
        raise ValueError(
            f"{name} of group {k} is {old[name]!r} and cannot be changed to {new[name]!r}: it decides what state the "
            "group has"
        )

    def peek(self, gradients: Gradients | None) -> list[Array]:
        """The change that a step with these gradients would make; nothing changes, no step is counted.

        The same kernel runs on copies of the parameters and their state (12 bytes per float32 element while it runs, 16
        with amsgrad), on the processor when the device is a GPU: equal to the step's change to 2 ulp of the parameter.

        Returns:
            One array per parameter; zeros where the gradient is None.

        Raises:
            TypeError: As in `step`.
            ValueError: As in `step`.
        """
        with self._turns:
            self._look_at_options()
            items = self._conform(gradients)
            rows, index, _ = self._rows(items)
            host = self._backend if isinstance(self._backend, NumpyDevice) else open_device("cpu")[1]
            after = [np.array(p, order="C", subok=False) for p in self._parameters]
            trials = [Launch(host, launch.rule, after, launch.members) for launch in self._launches]
            for launch, trial in zip(self._launches, trials, strict=True):
                for k in range(len(launch.members)):
                    for field in launch.rule.owned_fields:
                        trial.plan.write_state(field, k, launch.read_state(field, k))
            if not host.run([trial.plan for trial in trials], (items,), rows, index):
                raise RuntimeError(REFUSED)
            return [np.asarray(new - p) for new, p in zip(after, self._parameters, strict=True)]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the ``.grad`` of every `Parameter`, or set it to zero in place."""
        for p in self._parameters:
            grad = getattr(p, "grad", None)
            if set_to_none and grad is not None:
                p.grad = None
            elif grad is not None:
                grad[...] = 0

    # State.

    def state_dict(self) -> StateDict:
        """A snapshot that `load_state_dict` continues from bit for bit: plain arrays, numbers, strings and containers.

        Returns:
            ``"state"``: for each position its ``"step"`` and the optimizer's arrays, under torch's names;
            ``"param_groups"``: the options of each group, and the positions of its parameters.
        """
        with self._turns:
            return snapshot(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot. Group options are restored too; all of it is checked before anything is written.

        Raises:
            ValueError: Another number of groups or parameters, arrays of another shape, or options out of range.
            TypeError: Not a state dict.
        """
        with self._turns:
            groups, options, pasts, arrays = checked_state(self, state_dict)
            same = [self._rule(o).name for o in options] == [self._rule(o).name for o in self._options]
            prepared = None if same else self._prepare(groups)
            for launch in self._launches if prepared is None else prepared[-1]:
                for k, i in enumerate(launch.members):
                    start = self._initial(options[self._group_of[i]])
                    for field in launch.rule.owned_fields:
                        fresh = np.full_like(launch.direct[k], start.get(field, 0))
                        launch.plan.write_state(field, k, arrays[i].get(self.STATE_NAMES[field], fresh))
            if prepared is not None:
                self._take(*prepared, pasts)
                return
            self.param_groups[:] = groups
            self._pasts = pasts
            self._use(options)

    # Hooks.

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ``(args, kwargs)``."""
        return self._hooks.add(self._hooks.pre, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return self._hooks.add(self._hooks.post, hook)

    def __repr__(self) -> str:
        options = [", ".join(f"{k}={g[k]!r}" for k in self.defaults) for g in self.param_groups]
        groups = "".join(
            f"\n  group {k}: {len(g['params'])} parameters, {o}"
            for k, (g, o) in enumerate(zip(self.param_groups, options, strict=True))
        )
        return f"{type(self).__name__} on {self._choice.info.name}{groups}"

    def __getstate__(self) -> dict[str, Any]:
        return {
            "groups": self.param_groups,
            "defaults": self.defaults,
            "device": self.device,
            "state": self.state_dict(),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # Keys that others wrote into the groups (schedulers do) come back with the state.
        known = {"params", "param_names", *saved["defaults"]}
        groups = [{k: v for k, v in g.items() if k in known} for g in saved["groups"]]
        Optimizer.__init__(self, groups, saved["defaults"], saved["device"])
        self.load_state_dict(saved["state"])
