"""Schedules made of schedules."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from grilly_optim.optim._options import Whole
from grilly_optim.schedules._options import Kind, Milestones
from grilly_optim.schedules.scheduler import HasGroups, LRScheduler, Scheduler, learning_rates


class _Composition(Scheduler):
    """Several schedules of one optimizer; their states are part of its own."""

    _schedulers: Sequence[Scheduler]

    def _parts(self) -> Iterator[Scheduler]:
        yield self
        for scheduler in self._schedulers:
            yield from scheduler._parts()

    def state_dict(self) -> dict[str, Any]:
        """The course so far, and under ``"_schedulers"`` the state dicts of the schedules."""
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a snapshot of `state_dict`, arguments included. The optimizer loads its own.

        Raises:
            TypeError: Not a state dict, or a value of another type.
            ValueError: Other schedules, or a value out of range.
        """
        self._check_keys(state_dict, dict.fromkeys([*self.OPTIONS, *self.STATE, "_schedulers"]))
        own = dict(state_dict)
        saved = own.pop("_schedulers")
        if not isinstance(saved, list | tuple) or len(saved) != len(self._schedulers):
            raise ValueError(f"'_schedulers' of state_dict must be a list of {len(self._schedulers)} state dicts")
        with self._all_or_nothing():
            super().load_state_dict(own)
            for scheduler, part in zip(self._schedulers, saved, strict=True):
                scheduler.load_state_dict(part)


def _check(
    schedulers: Any, optimizer: HasGroups | None, allowed: type[Scheduler] | tuple[type[Scheduler], ...], why: str
) -> None:
    if not isinstance(schedulers, list | tuple):
        raise TypeError(f"schedulers must be a list of schedules, got {type(schedulers).__name__}")
    if not schedulers:
        raise ValueError("schedulers must have one entry or more, got none")
    for i, scheduler in enumerate(schedulers):
        if not isinstance(scheduler, allowed):
            raise TypeError(f"schedulers[{i}] must not be of type {type(scheduler).__name__}: {why}")
        if any(scheduler is other for other in schedulers[:i]):
            raise ValueError(f"schedulers[{i}] is in the list already")
        if scheduler.optimizer is not (schedulers[0].optimizer if optimizer is None else optimizer):
            raise ValueError(f"schedulers[{i}] must be a schedule of the same optimizer, and is one of another")


class SequentialLR(_Composition):
    """Schedules one after the other: each starts with its epoch 0 at its milestone.

    The next schedule starts from the initial learning rates, not from where the one before it ended. Warm-up::

        warm_up = LinearLR(optimizer, start_factor=0.01, total_iters=10)
        schedule = SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, T_max=90)], milestones=[10])

    Args:
        optimizer: The optimizer of all of them.
        schedulers: Schedules that go by epochs; not `ReduceLROnPlateau`, and no compositions.
        milestones: The epoch at which each but the first starts, in increasing order.
        last_epoch: -1 starts. Otherwise the epoch before the one to go on with; the first schedule is taken for the
            one that was at work, and goes on from the initial learning rate. Rather use `load_state_dict`.

    Raises:
        TypeError: A schedule that cannot be one of them.
        ValueError: No schedules, one of another optimizer, or milestones that are too few, too many or not increasing.

    Source: `torch.optim.lr_scheduler.SequentialLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import ExponentialLR, LinearLR, SequentialLR
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> warm_up = LinearLR(optimizer, start_factor=0.5, total_iters=2)
        >>> decay = ExponentialLR(optimizer, gamma=0.5)
        >>> schedule = SequentialLR(optimizer, [warm_up, decay], milestones=[2])
        >>> for epoch in range(5):
        ...     print(epoch, optimizer.param_groups[0]["lr"])
        ...     schedule.step()
        0 0.5
        1 0.75
        2 1.0
        3 0.5
        4 0.25
    """

    STATE: ClassVar[dict[str, Kind]] = {**Scheduler.STATE, "last_epoch": Whole(0), "_milestones": Milestones()}
    last_epoch: int
    _schedulers: Sequence[LRScheduler]
    _milestones: list[int]

    def __init__(
        self,
        optimizer: HasGroups,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        learning_rates(optimizer)
        _check(
            schedulers, optimizer, LRScheduler, "SequentialLR takes schedules that go by epochs, and no compositions"
        )
        self._milestones = Milestones().take("milestones", milestones)
        if len(self._milestones) != len(schedulers) - 1:
            raise ValueError(
                f"milestones must have one entry less than there are schedulers ({len(schedulers)}), "
                f"got {len(self._milestones)}"
            )
        self.last_epoch = Whole(-1).take("last_epoch", last_epoch) + 1
        self.optimizer = optimizer
        self._schedulers = list(schedulers)
        with self._all_or_nothing():
            for group, base in zip(optimizer.param_groups, learning_rates(optimizer, "initial_lr"), strict=True):
                group["lr"] = base
            # Each has made its initial step when it was built; only the one that is at work first is to make it.
            for scheduler in self._schedulers:
                scheduler.last_epoch -= 1
            first = self._schedulers[bisect_right(self._milestones, 0)]
            first._initial_step()
            self._last_lr = first.get_last_lr()

    def step(self) -> None:
        """Write the next learning rates; call it after the optimizer's step.

        Raises:
            ValueError: The schedule at work cannot go on.
        """
        with self._all_or_nothing():
            self.last_epoch += 1
            scheduler = self._schedulers[bisect_right(self._milestones, self.last_epoch)]
            if self.last_epoch in self._milestones:
                scheduler._restart()
            else:
                scheduler.step()
            self._last_lr = scheduler.get_last_lr()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a snapshot of `state_dict`, arguments included. The optimizer loads its own.

        Raises:
            TypeError: Not a state dict, or a value of another type.
            ValueError: Other schedules, or a value out of range.
        """
        milestones = len(self._milestones)
        with self._all_or_nothing():
            super().load_state_dict(state_dict)
            if len(self._milestones) != milestones:
                raise ValueError(
                    f"'_milestones' of state_dict must have {milestones} entries, got {len(self._milestones)}"
                )


class ChainedScheduler(_Composition):
    """Schedules that act at the same time: a step is a step of each, in their order.

    That makes sense for those which go on from the learning rate as it is: `StepLR`, `MultiStepLR`, `ExponentialLR`,
    `ConstantLR`, `LinearLR`, `PolynomialLR`, `MultiplicativeLR` and `CosineAnnealingLR`. The others overwrite it.

    Args:
        schedulers: Schedules of one optimizer; not `ReduceLROnPlateau`.
        optimizer: That optimizer; None takes it from the schedules.

    Raises:
        TypeError: A schedule that cannot be one of them.
        ValueError: No schedules, or one of another optimizer.

    Source: `torch.optim.lr_scheduler.ChainedScheduler`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import ChainedScheduler, ConstantLR, ExponentialLR
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> parts = [ConstantLR(optimizer, factor=0.25, total_iters=2), ExponentialLR(optimizer, gamma=0.5)]
        >>> schedule = ChainedScheduler(parts)
        >>> for epoch in range(4):
        ...     print(epoch, optimizer.param_groups[0]["lr"])
        ...     schedule.step()
        0 0.25
        1 0.125
        2 0.25
        3 0.125
    """

    _schedulers: Sequence[LRScheduler | SequentialLR | ChainedScheduler]

    def __init__(
        self,
        schedulers: Sequence[LRScheduler | SequentialLR | ChainedScheduler],
        optimizer: HasGroups | None = None,
    ) -> None:
        _check(
            schedulers,
            optimizer,
            (LRScheduler, _Composition),
            "ChainedScheduler takes schedules that go by epochs",
        )
        self.optimizer = schedulers[0].optimizer
        self._schedulers = list(schedulers)
        self._last_lr = learning_rates(self.optimizer)

    def step(self) -> None:
        """Write the next learning rates; call it after the optimizer's step.

        Raises:
            ValueError: One of the schedules cannot go on.
        """
        with self._all_or_nothing():
            for scheduler in self._schedulers:
                scheduler.step()
            self._last_lr = learning_rates(self.optimizer)
