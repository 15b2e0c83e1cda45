"""Schedules by a function of the epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from grilly_optim.schedules._options import LEARNING_RATE, per_group
from grilly_optim.schedules.scheduler import HasGroups, LRScheduler, groups_of

Factor = Callable[[int], float]


class _ByFunction(LRScheduler):
    """A factor for each group, from a function of the epoch."""

    lr_lambdas: list[Factor]

    def __init__(self, optimizer: HasGroups, lr_lambda: Factor | Sequence[Factor], last_epoch: int = -1) -> None:
        groups = len(groups_of(optimizer))
        value: Any = list(lr_lambda) if isinstance(lr_lambda, list | tuple) else lr_lambda
        self.lr_lambdas = per_group("lr_lambda", value, groups)
        for k, function in enumerate(self.lr_lambdas):
            if not callable(function):
                where = f"[{k}]" if isinstance(value, list) else ""
                raise TypeError(f"lr_lambda{where} must be a function of the epoch, got {function!r}")
        super().__init__(optimizer, last_epoch)

    def _factors(self) -> list[float]:
        epoch = self.last_epoch
        return [
            LEARNING_RATE.take(f"lr_lambda({epoch}) of group {k}", function(epoch))
            for k, function in enumerate(self.lr_lambdas)
        ]


class LambdaLR(_ByFunction):
    """The initial learning rate times a function of the epoch: ``lr = initial_lr f(epoch)``.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        lr_lambda: From the epoch (0, 1, ...) to a factor, 0 or more; or a list with a function for each group.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: `lr_lambda` is not callable, or does not return a number.
        ValueError: A list of the wrong length, or a factor that is negative or not finite.

    The functions are not in the state dict: pass them again when going on. Groups that are added later are not known
    to it.

    Source: `torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import LambdaLR
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
        >>> schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.25
    """

    def get_lr(self) -> list[float]:
        """The initial learning rates times the factors."""
        return [base * factor for base, factor in zip(self._bases(), self._factors(), strict=True)]


class MultiplicativeLR(_ByFunction):
    """The learning rate times a function of the epoch, in every epoch but 0: ``lr = lr f(epoch)``.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        lr_lambda: From the epoch (1, 2, ...) to a factor, 0 or more; or a list with a function for each group.
        last_epoch: See `LRScheduler`.

    Raises:
        TypeError: `lr_lambda` is not callable, or does not return a number.
        ValueError: A list of the wrong length, or a factor that is negative or not finite.

    The functions are not in the state dict: pass them again when going on. Groups that are added later are not known
    to it.

    Source: `torch.optim.lr_scheduler.MultiplicativeLR`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import MultiplicativeLR
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = MultiplicativeLR(optimizer, lambda epoch: 0.5)
        >>> for _ in range(2):
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.125
    """

    def get_lr(self) -> list[float]:
        """The learning rates times the factors."""
        rates = self._rates()
        if self._initial:
            return rates
        self._bases()  # as many as there are functions
        return [lr * factor for lr, factor in zip(rates, self._factors(), strict=True)]
