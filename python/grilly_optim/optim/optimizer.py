"""What all optimizers share: groups, gradients, plans, state. A subclass adds its rule and its scalars."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.kernels.rule import Rule
from grilly_optim.optim import _parameters, _past
from grilly_optim.optim._attached import Attached, Method, PathIntegral
from grilly_optim.optim._hooks import Handle, Hooks
from grilly_optim.optim._options import Flag, Options, Range, at_least_0, take_options
from grilly_optim.optim._past import Past, Pasts
from grilly_optim.optim._plans import REFUSED, Plans, Rows
from grilly_optim.optim._state import StateDict, checked_state, snapshot
from grilly_optim.optim._turns import Turns

Array = NDArray[Any]
Group = dict[str, Any]
Gradients = Sequence[Array | None] | Mapping[str, Array | None] | Mapping[int, Array | None]


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
        self._attached: list[Attached] = []
        self._plans: Plans
        self._turns = Turns()
        groups = [self._checked_group(g, k) for k, g in enumerate(_parameters.as_groups(params))]
        elements = sum(p.size for g in groups for p in g["params"] if isinstance(p, np.ndarray))
        self._choice, self._backend = open_device(device, elements)
        self._watched = operator.itemgetter(*self.OPTIONS)
        self._take(groups, *self._prepare(groups), (self.START,) * len(groups))

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

    def _prepare(self, groups: list[Group]) -> tuple[list[Options], Plans]:
        """The options of these groups and plans for them; nothing of this optimizer changes."""
        options = [take_options(self.OPTIONS, g, k) for k, g in enumerate(groups)]
        rules = [self._rule(o) for o in options]
        return options, Plans(self._backend, self._choice.info, groups, rules, [self._initial(o) for o in options])

    def _take(self, groups: list[Group], options: list[Options], plans: Plans, pasts: Pasts) -> None:
        """Go on with what `_prepare` made."""
        for attached in self._attached:
            attached.prepare(plans.launches, self._plans.by_member())
        self.param_groups[:] = groups
        self._plans, self._pasts = plans, pasts
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
            more = len(group["params"])
            pasts = _past.unpacked(self._pasts, self._plans.sizes) + [self.START] * more
            self._rebuild([*self.param_groups, group], _past.packed(pasts, [*self._plans.sizes, more]))

    def _rebuild(self, groups: list[Group], pasts: Pasts) -> None:
        """Make all plans anew, for these groups, and go on with the state that is there."""
        options, plans = self._prepare(groups)
        plans.carry_over(self._plans)
        self._take(groups, options, plans, pasts)

    # Methods against forgetting.

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
                other parameters.
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
        with self._turns:
            old = self._find(method)
            others = [a for a in self._attached if a is not old]
            new = Attached.checked(others, method, strength, self._members(params, old))
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
        with self._turns:
            self._attached.remove(attached)
            attached.release(self._plans.launches)
            self._rebuild(self.param_groups, self._pasts)

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

    # Steps.

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        gradients: Gradients | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
    ) -> Any:
        """Update the parameters in place; they may be read when this returns.

        Args:
            closure: Evaluates the model and returns the loss, which this returns; called first.
            gradients: A sequence aligned with the parameters in the order of `param_groups`, or a dict by name or by
                ``id(parameter)``. None, or a missing key, leaves a parameter and its step count as they are. Without
                `gradients` the ``.grad`` of each `Parameter` is read. A gradient of another real precision is cast;
                gradients are never written to.
            max_norm: Scale the gradients down so that their global norm is at most this, as `clip_grad_norm` would but
                for the last digits of the norm; the kernel scales what it reads, and the processor reads the gradients
                once to know the norm. 0 or more, or infinity.
            clip_value: Clip every gradient to [-clip_value, clip_value], in the kernel. 0 or more, or infinity.

        Raises:
            TypeError: A complex gradient, or options that are not numbers.
            ValueError: A gradient of another shape, an unknown name or id, a wrong count, or an option out of range;
                both `max_norm` and `clip_value`, or one below 0; an attached penalty that is now one of other
                parameters.
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
                if max_norm is None and clip_value is None:
                    gradients = self._update(gradients, math.inf, 1.0)
                else:
                    gradients = self._update_clipped(gradients, max_norm, clip_value)
            finally:
                turns.busy = False
        if self._hooks.post:
            self._hooks.after(self, closure, gradients)
        return loss

    def _update(self, gradients: Any, limit: float, scale: float) -> Any:
        """The step itself, by the one thread whose turn it is; returns the gradients as they were used."""
        self._look_at_options()
        plans, pasts, options = self._plans, self._pasts, self._options
        for attached in self._attached:
            attached.refresh(plans.launches)
        if type(gradients) is list and len(gradients) == len(plans.parameters):
            # The fast path: a group's parameters all at the same step, and gradients that the device takes as they are.
            if type(pasts) is tuple:
                if len(options) == 1:
                    after = (self._advance(options[0], pasts[0]),)
                    rows = [[self._scalars(options[0], after[0])]] * len(plans.launches)
                else:
                    after = tuple(map(self._advance, options, pasts))
                    rows = [[self._scalars(options[k], after[k]) for k in own] for own in plans.groups]
                if self._run(gradients, rows, plans.index, after, True, limit, scale):
                    return gradients
            some_missing = any(g is None for g in gradients)
            if (some_missing or type(pasts) is not tuple) and self._run(
                gradients, *self._rows(gradients), False, limit, scale
            ):
                return gradients
        gradients = plans.conform(gradients)
        if not self._run(gradients, *self._rows(gradients), False, limit, scale):
            raise RuntimeError(REFUSED)
        return gradients

    def _update_clipped(self, gradients: Any, max_norm: float | None, clip_value: float | None) -> Any:
        if max_norm is not None and clip_value is not None:
            raise ValueError("max_norm and clip_value are both given: clip by one of them")
        if clip_value is not None:
            return self._update(gradients, at_least_0("clip_value", clip_value), 1.0)
        limit = at_least_0("max_norm", max_norm)
        gradients = self._plans.conform(gradients)
        # As torch, which has the small number so that gradients of zero stay what they are; NaN is for all of them.
        factor = limit / (self._plans.norm(gradients) + 1e-6)
        return self._update(gradients, math.inf, 1.0 if factor >= 1 else factor)

    def _run(
        self,
        gradients: list[Any],
        rows: list[Rows],
        index: list[Any],
        after: Pasts,
        whole: bool,
        limit: float,
        scale: float,
    ) -> bool:
        """Run the plans and count the step; false when the gradients need a look, and then nothing has happened."""
        before, numbers, signal = self._pasts, self._numbers(after), None
        try:
            # Counted before it runs: a signal that comes during the run raises right behind it, when all is done.
            self._pasts = after
            done = self._plans.run((gradients,), rows, index, whole, numbers, limit, scale)
        except BaseException as error:
            signal, done = error, self._plans.finished(rows)
        if not done:
            self._pasts = before
        elif numbers is not None:
            try:
                self._settle(numbers)
            except BaseException:
                self._settle(numbers)
                raise
        if signal is not None:
            raise signal
        return done

    def _rows(self, gradients: list[Any]) -> tuple[list[Rows], list[list[int]], Pasts]:
        """Rows of scalars for each plan, which is whose, and the pasts after the step."""
        group_of, before = self._plans.group_of, _past.unpacked(self._pasts, self._plans.sizes)
        # A parameter that stands still shares the row of those with its past that do not: nothing reads it.
        ahead = [self._advance(self._options[k], past) for k, past in zip(group_of, before, strict=True)]
        found = self._plans.distinct(list(zip(group_of, ahead, strict=True)))
        rows = [[self._scalars(self._options[k], past) for k, past in keys] for keys, _ in found]
        after = [new if g is not None else old for old, new, g in zip(before, ahead, gradients, strict=True)]
        return rows, [index for _, index in found], _past.packed(after, self._plans.sizes)

    def _look_at_options(self) -> None:
        """Validate what the groups say now. Once per value: most steps come with the options of the last one."""
        try:
            if list(map(self._watched, self.param_groups)) == self._seen:
                return
        except (ValueError, KeyError):
            pass  # an array, which does not compare to one truth; or an option that is gone
        self._require_groups()
        options = [take_options(self.OPTIONS, group, k) for k, group in enumerate(self.param_groups)]
        rules = [(self._rule(old), self._rule(new)) for old, new in zip(self._options, options, strict=True)]
        for k, (old, new) in enumerate(rules):
            if old.owned_fields != new.owned_fields:
                self._refuse_change(k, options[k])
        if any(old is not new for old, new in rules):
            self._rebuild(self.param_groups, self._pasts)
        self._use(options)
        self._remember()

    def _require_groups(self) -> None:
        """Refuse groups that were put in, or taken out, behind the optimizer's back, and options that are gone."""
        if len(self.param_groups) != len(self._options):
            raise ValueError(
                f"param_groups has {len(self.param_groups)} groups, and this optimizer has {len(self._options)}: "
                "a group comes with add_param_group, and none can be taken away"
            )
        for k, group in enumerate(self.param_groups):
            gone = [name for name in self.OPTIONS if name not in group]
            if gone:
                raise ValueError(f"group {k} must have the option {gone[0]!r}, and it is gone")

    def _remember(self) -> None:
        """What the groups say now has been looked at."""
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

        The same kernel runs on copies of the parameters and their state, on the processor when the device is a GPU:
        equal to the step's change to 2 ulp of the parameter.

        Returns:
            One array per parameter; zeros where the gradient is None.

        Raises:
            TypeError: As in `step`.
            ValueError: As in `step`.
        """
        with self._turns:
            self._look_at_options()
            items = self._plans.conform(gradients)
            rows, index, after = self._rows(items)
            arrays, trials, host = self._plans.copies()
            for attached in self._attached:
                attached.rehearse(trials)
            if not host.run([t.plan for t in trials], (items,), rows, index, False, self._numbers(after)):
                raise RuntimeError(REFUSED)
            with np.errstate(all="ignore"):  # what is not finite goes through, as in a step
                return [np.asarray(new - p) for new, p in zip(arrays, self._plans.parameters, strict=True)]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the ``.grad`` of every `Parameter`, or set it to zero in place."""
        for p in self._plans.parameters:
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
            own = self._checked_own_state(state_dict)
            same = [self._rule(o).name for o in options] == [self._rule(o).name for o in self._options]
            plans = self._plans if same else self._prepare(groups)[1]
            for launch in plans.launches:
                for k, i in enumerate(launch.members):
                    start = self._initial(options[plans.group_of[i]])
                    for field in launch.rule.owned_fields:
                        fresh = np.full_like(launch.direct[k], start.get(field, 0))
                        launch.plan.write_state(field, k, arrays[i].get(self.STATE_NAMES[field], fresh))
            self._take(groups, options, plans, pasts)
            self._take_own_state(own)

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
