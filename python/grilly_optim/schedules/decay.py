"""Schedules that multiply the learning rate by one number, now and then or in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from grilly_optim.optim._options import Range, Whole
from grilly_optim.schedules._by_factor import ByFactor
from grilly_optim.schedules._options import Kind, Milestones
from grilly_optim.schedules.scheduler import HasGroups


class StepLR(ByFactor):
    """The learning rate times `gamma` every `step_size` epochs.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        step_size: Epochs from one decay to the next, 1 or more.
        gamma: Factor, 0 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range.

    Source: `torch.optim.lr_scheduler.StepLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import StepLR
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = StepLR(optimizer, step_size=2, gamma=0.5)
        >>> for epoch in range(5):
        ...     print(epoch, optimizer.param_groups[0]["lr"])
        ...     schedule.step()
        0 0.5
        1 0.5
        2 0.25
        3 0.25
        4 0.125
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"step_size": Whole(1), "gamma": Range(0)}
    step_size: int
    gamma: float

    def __init__(self, optimizer: HasGroups, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self._set_options(step_size=step_size, gamma=gamma)
        super().__init__(optimizer, last_epoch)

    def _factor(self, begins: bool) -> float:
        return 1.0 if self.last_epoch == 0 or self.last_epoch % self.step_size else self.gamma


class MultiStepLR(ByFactor):
    """The learning rate times `gamma` at each of some epochs.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        milestones: Those epochs, in increasing order; one that is there twice counts twice.
        gamma: Factor, 0 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: Milestones that are negative or not in order, or another argument out of range.

    Source: `torch.optim.lr_scheduler.MultiStepLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import MultiStepLR
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
        >>> for epoch in range(4):
        ...     print(epoch, optimizer.param_groups[0]["lr"])
        ...     schedule.step()
        0 0.5
        1 0.25
        2 0.25
        3 0.125
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"milestones": Milestones(repeated=True), "gamma": Range(0)}
    milestones: list[int]
    gamma: float

    def __init__(
        self, optimizer: HasGroups, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self._set_options(milestones=milestones, gamma=gamma)
        super().__init__(optimizer, last_epoch)

    def _factor(self, begins: bool) -> float:
        return self.gamma ** self.milestones.count(self.last_epoch)


class ExponentialLR(ByFactor):
    """The learning rate times `gamma` in every epoch but 0: ``lr = initial_lr gamma^epoch``.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        gamma: Factor, 0 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range.

    Source: `torch.optim.lr_scheduler.ExponentialLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import ExponentialLR
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = ExponentialLR(optimizer, gamma=0.5)
        >>> for _ in range(3):
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.0625
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"gamma": Range(0)}
    gamma: float

    def __init__(self, optimizer: HasGroups, gamma: float, last_epoch: int = -1) -> None:
        self._set_options(gamma=gamma)
        super().__init__(optimizer, last_epoch)

    def _factor(self, begins: bool) -> float:
        return 1.0 if begins else self.gamma
