"""Schedules over a given number of epochs, after which the learning rate stays."""

from __future__ import annotations

from typing import ClassVar

from grilly_optim.optim._options import Range, Whole
from grilly_optim.schedules._by_factor import ByFactor
from grilly_optim.schedules._options import Kind
from grilly_optim.schedules.scheduler import HasGroups

FRACTION = Range(0, 1, closed=True)
FRACTION_ABOVE_0 = Range(0, 1, closed=True, above=True)


class ConstantLR(ByFactor):
    """The learning rate times `factor` up to epoch `total_iters`, and as it was from there on.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        factor: In (0, 1].
        total_iters: Epochs with the factor, 1 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range.

    Source: `torch.optim.lr_scheduler.ConstantLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import ConstantLR
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = ConstantLR(optimizer, factor=0.5, total_iters=2)
        >>> for epoch in range(3):
        ...     print(epoch, optimizer.param_groups[0]["lr"])
        ...     schedule.step()
        0 0.25
        1 0.25
        2 0.5
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"factor": FRACTION_ABOVE_0, "total_iters": Whole(1)}
    factor: float
    total_iters: int

    def __init__(self, optimizer: HasGroups, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        self._set_options(factor=factor, total_iters=total_iters)
        super().__init__(optimizer, last_epoch)

    def _factor(self, begins: bool) -> float:
        if self.last_epoch == 0:
            return self.factor
        return 1 / self.factor if self.last_epoch == self.total_iters else 1.0


class LinearLR(ByFactor):
    """The learning rate times a factor that goes in a straight line, and stays at its end: the usual warm-up.

    In epoch t, up to T = `total_iters`::

        lr = initial_lr (start_factor + (end_factor - start_factor) t / T)

    computed step by step from the learning rate before, so that other schedules can act at the same time.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        start_factor: In (0, 1].
        end_factor: In [0, 1].
        total_iters: Epochs from one to the other, 1 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range.

    Source: `torch.optim.lr_scheduler.LinearLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import LinearLR
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> schedule = LinearLR(optimizer, start_factor=0.25, total_iters=3)
        >>> for epoch in range(5):
        ...     print(epoch, round(optimizer.param_groups[0]["lr"], 6))
        ...     schedule.step()
        0 0.25
        1 0.5
        2 0.75
        3 1.0
        4 1.0
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {
        "start_factor": FRACTION_ABOVE_0,
        "end_factor": FRACTION,
        "total_iters": Whole(1),
    }
    start_factor: float
    end_factor: float
    total_iters: int

    def __init__(
        self,
        optimizer: HasGroups,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self._set_options(start_factor=start_factor, end_factor=end_factor, total_iters=total_iters)
        super().__init__(optimizer, last_epoch)

    def _factor(self, begins: bool) -> float:
        if self.last_epoch == 0:
            return self.start_factor
        if begins or self.last_epoch > self.total_iters:
            return 1.0
        rise = self.end_factor - self.start_factor
        growth = 1 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)
        # Rounding takes a line that ends at 0 a hair below it as often as above.
        return max(0.0, growth)


class PolynomialLR(ByFactor):
    """The learning rate down to 0 along a power: ``lr = initial_lr (1 - epoch / total_iters)^power``.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        total_iters: Epochs until 0, 1 or more.
        power: 0 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range.

    Source: `torch.optim.lr_scheduler.PolynomialLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import PolynomialLR
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> schedule = PolynomialLR(optimizer, total_iters=4, power=2.0)
        >>> for _ in range(2):
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.25
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"total_iters": Whole(1), "power": Range(0)}
    total_iters: int
    power: float

    def __init__(self, optimizer: HasGroups, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self._set_options(total_iters=total_iters, power=power)
        super().__init__(optimizer, last_epoch)

    def _factor(self, begins: bool) -> float:
        if begins or self.last_epoch > self.total_iters:
            return 1.0
        left, before = (1 - epoch / self.total_iters for epoch in (self.last_epoch, self.last_epoch - 1))
        decay: float = (left / before) ** self.power
        return decay
