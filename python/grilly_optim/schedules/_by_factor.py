"""What schedules share that multiply the learning rates, as they are, by one number in each epoch."""

from __future__ import annotations

from abc import abstractmethod

from grilly_optim.schedules.scheduler import LRScheduler


class ByFactor(LRScheduler):
    """Base of these schedules: going on from the learning rates as they are, they can act at the same time as others.

    A subclass gives the factor of an epoch.
    """

    @abstractmethod
    def _factor(self, begins: bool) -> float:
        """The factor of `last_epoch`; `begins` says that it is the schedule's first, or the first after a restart."""

    def get_lr(self) -> list[float]:
        """The learning rates as they are, times the factor of this epoch."""
        return _times(self._rates(), self._factor(self._initial))

    def _lr_at_0(self) -> list[float]:
        return _times(self._bases(), self._factor(begins=True))


def _times(rates: list[float], factor: float) -> list[float]:
    return [lr * factor for lr in rates]
