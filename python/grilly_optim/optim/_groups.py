"""An optimizer between its steps: groups, their options, and the plans made of both."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from grilly_optim._devices import open_device
from grilly_optim.optim import _parameters, _past
from grilly_optim.optim._launch import Chains
from grilly_optim.optim._options import STEADY, Options, take_options
from grilly_optim.optim._parameters import Group
from grilly_optim.optim._past import Pasts
from grilly_optim.optim._plans import Plans
from grilly_optim.optim._recipe import Recipe
from grilly_optim.optim._turns import Turns, in_turn

# What schedules write beside the options: groups that had one may be given to another optimizer.
_OF_SCHEDULES = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}


class Groups(Recipe):
    """The groups, which callers may change, and what has been made of them: options that are checked, and plans."""

    # The rows of the parameters, where these are chains.
    _chains: Chains | None = None

    def __init__(self, params: Any, defaults: Group, device: str | None) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self._plans: Plans
        self._turns = Turns()
        groups = [self._checked_group(g, k) for k, g in enumerate(_parameters.as_groups(params))]
        elements = sum(p.size for g in groups for p in g["params"] if isinstance(p, np.ndarray))
        self._choice, self._backend = open_device(device, elements)
        self._watched = operator.itemgetter(*self.OPTIONS)
        self._take(groups, *self._prepare(groups), (self.START,) * len(groups))

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
        unknown = set(group) - set(self.defaults) - {"params", "param_names", "name"} - _OF_SCHEDULES
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
        self._resolve(result, index)
        take_options(self.OPTIONS, result, index)
        return result

    def _prepare(self, groups: list[Group]) -> tuple[list[Options], Plans]:
        """The options of these groups and plans for them; nothing of this optimizer changes."""
        options = [take_options(self.OPTIONS, g, k) for k, g in enumerate(groups)]
        rules = [self._rule(o) for o in options]
        initial = [self._initial(o, g["params"]) for o, g in zip(options, groups, strict=True)]
        return options, Plans(self._backend, self._choice.info, groups, rules, initial, self._chains)

    def _take(self, groups: list[Group], options: list[Options], plans: Plans, pasts: Pasts) -> None:
        """Go on with what `_prepare` made."""
        self.param_groups[:] = groups
        self._plans, self._pasts = plans, pasts
        self._use(options)

    def _use(self, options: list[Options]) -> None:
        """Validated options of all groups."""
        self._options = options
        self._seen: list[Any] = [None] * len(options)

    @in_turn
    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a group; state and step counts of the others stay.

        The plans are made anew, so that a step stays one kernel run: for that time the state is there twice.

        Raises:
            TypeError: As in the constructor.
            ValueError: As in the constructor.
        """
        self._look_at_options()  # what groups say now is not taken over unseen
        group = self._checked_group(param_group, len(self.param_groups))
        more = len(group["params"])
        pasts = _past.unpacked(self._pasts, self._plans.sizes) + [self.START] * more
        self._rebuild([*self.param_groups, group], _past.packed(pasts, [*self._plans.sizes, more]))

    def _rebuild(self, groups: list[Group], pasts: Pasts) -> None:
        """Make all plans anew, for these groups, and go on with the state that is there."""
        options, plans = self._prepare(groups)
        plans.carry_over(self._plans)
        self._take(groups, options, plans, pasts)

    # What callers write to the groups.

    def _look_at_options(self) -> None:
        """Validate what the groups say now. Once per value: most steps come with the options of the last one."""
        groups, seen = self.param_groups, self._seen
        try:
            # One group is the common case, and lists of one would be a tenth of its time here.
            if len(groups) == len(seen) == 1:
                if self._watched(groups[0]) == seen[0]:
                    return
            elif list(map(self._watched, groups)) == seen:
                return
        except (ValueError, KeyError):
            pass  # an array, which does not compare to one truth; or an option that is gone
        self._require_groups()
        options = [take_options(self.OPTIONS, group, k) for k, group in enumerate(self.param_groups)]
        self._check_options(options)
        rules = [(self._rule(old), self._rule(new)) for old, new in zip(self._options, options, strict=True)]
        for k, (old, new) in enumerate(rules):
            if old.owned_fields != new.owned_fields and self._has_stepped(k):
                self._refuse_change(k, options[k])
        if any(old is not new for old, new in rules):
            self._rebuild(self.param_groups, self._pasts)
        self._use(options)
        self._remember()

    def _check_options(self, options: list[Options]) -> None:
        """Refuse options that are in range, but do not go with something else."""
        return

    def _has_stepped(self, k: int) -> bool:
        """Whether any parameter of a group has been through a step: until then it has no state to lose."""
        pasts = _past.unpacked(self._pasts, self._plans.sizes)
        return any(_past.steps_of(past) for past, g in zip(pasts, self._plans.group_of, strict=True) if g == k)

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
            self._seen[k] = values if all(isinstance(v, STEADY) for v in values) else None

    def _refuse_change(self, k: int, new: Options) -> NoReturn:
        old = self._options[k]
        fields = self._rule(old).owned_fields
        name = next(n for n in new if self._rule({**old, n: new[n]}).owned_fields != fields)
        raise ValueError(
            f"{name} of group {k} is {old[name]!r} and cannot be changed to {new[name]!r} after a step: it decides "
            "what state the group has"
        )
