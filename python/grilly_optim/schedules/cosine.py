"""Schedules along half a cosine, from the initial learning rate to the least."""

from __future__ import annotations

import math
from typing import ClassVar

from grilly_optim.optim._options import Range, Whole
from grilly_optim.schedules._options import LEARNING_RATE, Kind
from grilly_optim.schedules.scheduler import HasGroups, LRScheduler

# ruff: noqa: N803 - T_max, T_0 and T_mult are the paper's names, and torch's.


class CosineAnnealingLR(LRScheduler):
    """The learning rate along half a cosine to `eta_min` in T_max epochs, back up in the next T_max, and so on.

    In epoch t::

        lr = eta_min + (initial_lr - eta_min) (1 + cos(pi t / T_max)) / 2

    computed step by step from the learning rate before, so that other schedules can act at the same time.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        T_max: Epochs down, 1 or more.
        eta_min: The least learning rate, 0 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range; in `step`, at the turn after T_max epochs: groups that were added later.

    Source: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, without the restarts;
    `torch.optim.lr_scheduler.CosineAnnealingLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import CosineAnnealingLR
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> schedule = CosineAnnealingLR(optimizer, T_max=4)
        >>> for epoch in range(5):
        ...     print(epoch, round(optimizer.param_groups[0]["lr"], 4))
        ...     schedule.step()
        0 1.0
        1 0.8536
        2 0.5
        3 0.1464
        4 0.0
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"T_max": Whole(1), "eta_min": LEARNING_RATE}
    T_max: int
    eta_min: float

    def __init__(self, optimizer: HasGroups, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self._set_options(T_max=T_max, eta_min=eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The learning rates, moved on by one epoch of the cosine."""
        rates = self._rates()
        if self._initial:
            return rates
        turned = self.last_epoch - 1 - self.T_max
        if turned % (2 * self.T_max) == 0:
            # The epoch before was at the bottom, from where no factor leads up.
            return [
                lr + (base - self.eta_min) * (1 - math.cos(math.pi / self.T_max)) / 2
                for lr, base in zip(rates, self._bases(), strict=True)
            ]
        height, before = (
            1 + math.cos(math.pi * epoch / self.T_max) for epoch in (self.last_epoch, self.last_epoch - 1)
        )
        return [height / before * (lr - self.eta_min) + self.eta_min for lr in rates]

    def _lr_at_0(self) -> list[float]:
        return [self.eta_min + (base - self.eta_min) for base in self._bases()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """The learning rate along half a cosine to `eta_min`, and again from the top, each time in `T_mult` times as long.

    T_cur epochs after a restart, in a cycle of T_i epochs::

        lr = eta_min + (initial_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        T_0: Epochs of the first cycle, 1 or more.
        T_mult: How many times as long each next cycle is, 1 or more.
        eta_min: The least learning rate, 0 or more.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range; in `step`: groups that were added later.

    Source: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017;
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import CosineAnnealingWarmRestarts
        >>> optimizer = AdamW([np.zeros(3)], lr=1.0, device="numpy")
        >>> schedule = CosineAnnealingWarmRestarts(optimizer, T_0=2)
        >>> for epoch in range(4):
        ...     print(epoch, round(optimizer.param_groups[0]["lr"], 4))
        ...     schedule.step()
        0 1.0
        1 0.5
        2 1.0
        3 0.5
        >>> schedule.step(4.5)
        >>> round(optimizer.param_groups[0]["lr"], 4)
        0.8536
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {"T_0": Whole(1), "T_mult": Whole(1), "eta_min": LEARNING_RATE}
    STATE: ClassVar[dict[str, Kind]] = {**LRScheduler.STATE, "T_cur": Range(0), "T_i": Whole(1)}
    T_0: int
    T_mult: int
    eta_min: float
    T_cur: float
    T_i: int

    def __init__(
        self, optimizer: HasGroups, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self._set_options(T_0=T_0, T_mult=T_mult, eta_min=eta_min)
        self.T_cur, self.T_i = self._cycle(max(0, Whole(-1).take("last_epoch", last_epoch)))
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Write the next learning rates, or those of any epoch.

        Args:
            epoch: Where to go, 0 or more; fractions are for steps within an epoch, as in ``step(epoch + i / batches)``.
                None goes on by 1 from the last one.

        Raises:
            TypeError: `epoch` is not a number.
            ValueError: `epoch` is negative or not finite, or groups were added.
        """
        with self._all_or_nothing():
            if epoch is None and self.last_epoch >= 0:
                self.last_epoch += 1
                self.T_cur += 1
                if self.T_cur >= self.T_i:
                    self.T_cur %= self.T_i
                    self.T_i *= self.T_mult
            else:
                there = 0 if epoch is None else Range(0).take("epoch", epoch)
                self.last_epoch = math.floor(there)
                self.T_cur, self.T_i = self._cycle(there)
            self._write(self.get_lr())

    def get_lr(self) -> list[float]:
        """The learning rates at `T_cur`."""
        height = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self._bases()]

    def _cycle(self, epoch: float) -> tuple[float, int]:
        """How far an epoch is in its cycle, and how long that is."""
        if self.T_mult == 1:
            return epoch % self.T_0, self.T_0
        length = self.T_0
        while epoch >= length:
            epoch -= length
            length *= self.T_mult
        return epoch, length
