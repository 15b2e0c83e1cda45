"""What optimizers and samplers share: how a step runs, what it counts, state dicts and hooks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from grilly_optim.kernels.philox import Draw
from grilly_optim.optim import _past
from grilly_optim.optim._groups import Groups
from grilly_optim.optim._hooks import Hooked, Hooks
from grilly_optim.optim._parameters import Group
from grilly_optim.optim._past import Pasts
from grilly_optim.optim._plans import Rows
from grilly_optim.optim._state import StateDict, checked_state, snapshot
from grilly_optim.optim._turns import in_turn


class Stepping(Groups, Hooked):
    """Groups whose parameters take steps."""

    def __init__(self, params: Any, defaults: Group, device: str | None) -> None:
        self._hooks = Hooks()
        super().__init__(params, defaults, device)

    # Steps.

    def _run(
        self,
        inputs: tuple[list[Any], ...],
        rows: list[Rows],
        index: list[Any],
        after: Pasts,
        whole: bool,
        limit: float = math.inf,
        scale: float = 1.0,
        draw: Draw | None = None,
    ) -> bool:
        """Run the plans and count the step; false when the inputs need a look, and then nothing has happened."""
        before, numbers, signal = self._pasts, self._numbers(after), None
        try:
            # Counted before it runs: a signal that comes during the run raises right behind it, when all is done.
            self._pasts = after
            done = self._plans.run(inputs, rows, index, whole, numbers, limit, scale, draw)
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

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the ``.grad`` of every `Parameter`, or set it to zero in place."""
        for p in self._plans.parameters:
            grad = getattr(p, "grad", None)
            if set_to_none and grad is not None:
                p.grad = None
            elif grad is not None:
                grad[...] = 0

    # State.

    @in_turn
    def state_dict(self) -> StateDict:
        """A snapshot that `load_state_dict` continues from bit for bit: plain arrays, numbers, strings and containers.

        Returns:
            ``"state"``: for each position its ``"step"`` and the optimizer's arrays, under torch's names;
            ``"param_groups"``: the options of each group, and the positions of its parameters.
        """
        return snapshot(self)

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot. Group options are restored too; all of it is checked before anything is written.

        Raises:
            ValueError: Another number of groups or parameters, arrays of another shape, or options out of range.
            TypeError: Not a state dict.
        """
        groups, options, pasts, arrays = checked_state(self, state_dict)
        own = self._checked_own_state(state_dict)
        # What the state leaves out begins anew, in plans that are new.
        names = [self._rule(o).name for o in options]
        fields = [self._rule(o).owned_fields for o in options]
        complete = all(len(mine) == len(fields[k]) for mine, k in zip(arrays, self._plans.group_of, strict=True))
        same = complete and names == [self._rule(o).name for o in self._options]
        plans = self._plans if same else self._prepare(groups)[1]
        for launch in plans.launches:
            for k, i in enumerate(launch.members):
                for field in launch.rule.owned_fields:
                    if self.STATE_NAMES[field] in arrays[i]:
                        launch.write_state(field, k, arrays[i][self.STATE_NAMES[field]])
        self._take(groups, options, plans, pasts)
        self._take_own_state(own)

    def _shown(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """What a group looks like to people."""
        return {k: group[k] for k in self.defaults if k in group}

    def __repr__(self) -> str:
        groups = "".join(
            f"\n  group {k}: {len(g['params'])} parameters, "
            + ", ".join(f"{name}={value!r}" for name, value in self._shown(g).items())
            for k, g in enumerate(self.param_groups)
        )
        return f"{type(self).__name__} on {self._choice.info.name}{groups}"
