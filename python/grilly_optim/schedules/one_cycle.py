"""One cycle: up to a large learning rate, and down to nearly none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from grilly_optim.optim._options import ABOVE_0, Flag, Range, Whole
from grilly_optim.schedules._options import (
    LEARNING_RATE,
    Kind,
    OneOf,
    OneOrSeveral,
    per_group,
)
from grilly_optim.schedules.scheduler import Group, HasGroups, LRScheduler, groups_of

MOMENTUM = Range(0, 1)


class Phase(NamedTuple):
    """From the end of the phase before to `end`, between two values that the groups hold under these keys."""

    end: float
    lr: tuple[str, str]
    momentum: tuple[str, str]


class OneCycleLR(LRScheduler):
    """The learning rate from ``max_lr / div_factor`` up to `max_lr`, and down to a `final_div_factor`-th of its start.

    Momentum goes the other way. One step is one batch::

        until step                     lr                       momentum
        pct_start total_steps - 1      initial_lr to max_lr     max_momentum to base_momentum
        total_steps - 1                max_lr to min_lr         base_momentum to max_momentum

    and with `three_phase`::

        until step                     lr                       momentum
        pct_start total_steps - 1      initial_lr to max_lr     max_momentum to base_momentum
        2 pct_start total_steps - 2    max_lr to initial_lr     base_momentum to max_momentum
        total_steps - 1                initial_lr to min_lr     max_momentum

    where initial_lr = max_lr / div_factor, and min_lr = initial_lr / final_div_factor. The groups hold these values,
    as torch's do. The step after the last is there for loops that make one after every batch; another is an error.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        max_lr: The largest learning rate, 0 or more; or a list with one for each group.
        total_steps: Steps of the whole cycle, 1 or more; if None, `epochs` times `steps_per_epoch`.
        epochs: See `total_steps`.
        steps_per_epoch: See `total_steps`.
        pct_start: The share of the steps that goes up, in [0, 1].
        anneal_strategy: "cos" or "linear".
        cycle_momentum: Whether to write momentum: ``betas[0]`` of groups with ``"betas"``, else ``"momentum"``. `SGD`
            and `RMSprop` that were built without one take it up before their first step, and refuse to later.
        base_momentum: The least momentum, in [0, 1); or a list with one for each group.
        max_momentum: The largest momentum, in [0, 1); or a list with one for each group.
        div_factor: Above 0.
        final_div_factor: Above 0.
        three_phase: See above.
        last_epoch: See `LRScheduler`; unless it is -1, the values in the groups hold, and not the arguments.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range, or `cycle_momentum` with a group that has neither key; in `step`: the
            cycle is over, or groups were added.

    Source: Smith & Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018;
    `torch.optim.lr_scheduler.OneCycleLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import OneCycleLR
        >>> optimizer = AdamW([np.zeros(3)], device="numpy")
        >>> schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=5, pct_start=0.6)
        >>> for step in range(5):
        ...     group = optimizer.param_groups[0]
        ...     print(step, round(group["lr"], 6), round(group["betas"][0], 3))
        ...     schedule.step()
        0 0.04 0.95
        1 0.52 0.9
        2 1.0 0.85
        3 0.500002 0.9
        4 4e-06 0.95
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {
        "total_steps": Whole(1),
        "pct_start": Range(0, 1, closed=True),
        "anneal_strategy": OneOf(("cos", "linear")),
        "cycle_momentum": Flag(),
        "three_phase": Flag(),
    }
    total_steps: int
    pct_start: float
    anneal_strategy: str
    cycle_momentum: bool
    three_phase: bool

    def __init__(
        self,
        optimizer: HasGroups,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("total_steps must be given, or both of epochs and steps_per_epoch")
            total_steps = Whole(1).take("epochs", epochs) * Whole(1).take("steps_per_epoch", steps_per_epoch)
        self._set_options(
            total_steps=total_steps,
            pct_start=pct_start,
            anneal_strategy=anneal_strategy,
            cycle_momentum=cycle_momentum,
            three_phase=three_phase,
        )
        groups = groups_of(optimizer)

        def for_groups(name: str, value: Any, kind: Kind) -> list[float]:
            return per_group(name, OneOrSeveral(kind).take(name, value), len(groups))

        div = ABOVE_0.take("div_factor", div_factor)
        final_div = ABOVE_0.take("final_div_factor", final_div_factor)
        peaks = for_groups("max_lr", max_lr, LEARNING_RATE)
        least = for_groups("base_momentum", base_momentum, MOMENTUM)
        most = for_groups("max_momentum", max_momentum, MOMENTUM)
        starting = Whole(-1).take("last_epoch", last_epoch) == -1
        self.optimizer = optimizer
        with self._all_or_nothing():
            if starting:
                for group, peak, low, high in zip(groups, peaks, least, most, strict=True):
                    group.update(initial_lr=peak / div, max_lr=peak, min_lr=peak / div / final_div)
                    if self.cycle_momentum:
                        group.update(max_momentum=high, base_momentum=low)
            self._check_groups(groups)
            super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates of this step of the cycle."""
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"this OneCycleLR is over: total_steps is {self.total_steps}, and this would be step {self.last_epoch}"
            )
        self._bases()  # groups that were added later lack the keys
        phase, share = self._phase()
        return [self._between(group, phase.lr, share) for group in self.optimizer.param_groups]

    def _write(self, rates: list[float]) -> None:
        super()._write(rates)
        if not self.cycle_momentum:
            return
        phase, share = self._phase()
        for group in self.optimizer.param_groups:
            momentum = self._between(group, phase.momentum, share)
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def _phase(self) -> tuple[Phase, float]:
        """The phase of this step, and the share of it that is over."""
        up = Phase(self.pct_start * self.total_steps - 1, ("initial_lr", "max_lr"), ("max_momentum", "base_momentum"))
        last = self.total_steps - 1
        if self.three_phase:
            down = Phase(
                2 * self.pct_start * self.total_steps - 2, ("max_lr", "initial_lr"), ("base_momentum", "max_momentum")
            )
            phases = [up, down, Phase(last, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum"))]
        else:
            phases = [up, Phase(last, ("max_lr", "min_lr"), ("base_momentum", "max_momentum"))]
        start = 0.0
        for phase in phases[:-1]:
            if self.last_epoch <= phase.end:
                break
            start = phase.end
        else:
            phase = phases[-1]
        # A phase of no length is over when it begins.
        return phase, (self.last_epoch - start) / (phase.end - start) if phase.end != start else 1.0

    def _between(self, group: Group, keys: tuple[str, str], share: float) -> float:
        start, end = (float(group[key]) for key in keys)
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
        # The step after the last would go on along the line, to negative learning rates.
        return (end - start) * min(share, 1.0) + start

    def _check_groups(self, groups: list[Group]) -> None:
        """Refuse groups that lack what the cycle reads."""
        keys = ["initial_lr", "max_lr", "min_lr"]
        if self.cycle_momentum:
            keys += ["max_momentum", "base_momentum"]
        for k, group in enumerate(groups):
            missing = [key for key in keys if key not in group]
            if missing:
                raise ValueError(
                    f"group {k} of the optimizer must have the key {missing[0]!r} when last_epoch is not -1"
                )
            betas = group.get("betas")
            if self.cycle_momentum and not (isinstance(betas, list | tuple) and betas) and "momentum" not in group:
                raise ValueError(
                    f"cycle_momentum must be False: group {k} of the optimizer has neither 'betas' nor 'momentum'"
                )
