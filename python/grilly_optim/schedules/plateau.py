"""A schedule that watches a number, and lowers the learning rate when it no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from grilly_optim.optim._options import Range, Whole, real
from grilly_optim.schedules._options import LEARNING_RATE, Kind, OneOf, OneOrSeveral, per_group
from grilly_optim.schedules.scheduler import HasGroups, Scheduler, learning_rates


class ReduceLROnPlateau(Scheduler):
    """The learning rate times `factor` when a number has not got better for more than `patience` epochs.

    A value is better than the best so far when it is below (mode "min") or above (mode "max")::

        threshold_mode    "min"                    "max"
        "rel"             best (1 - threshold)     best (1 + threshold)
        "abs"             best - threshold         best + threshold

    NaN is not better than anything.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        mode: "min" or "max": which values are the better ones.
        factor: In [0, 1).
        patience: Epochs without a better value that are put up with, 0 or more.
        threshold: How much better is better, 0 or more.
        threshold_mode: "rel" or "abs", see above.
        cooldown: Epochs after a reduction in which nothing is counted, 0 or more.
        min_lr: The least learning rate, 0 or more; or a list with one for each group.
        eps: A reduction by no more than this is left out, 0 or more.

    Raises:
        TypeError: The optimizer has no groups, or an argument is of another type.
        ValueError: An argument out of range, or a `min_lr` of the wrong length.

    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import ReduceLROnPlateau
        >>> optimizer = AdamW([np.zeros(3)], lr=0.5, device="numpy")
        >>> schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> for loss in (2.0, 1.0, 1.0, 1.0, 1.0):
        ...     schedule.step(loss)
        ...     print(loss, optimizer.param_groups[0]["lr"])
        2.0 0.5
        1.0 0.5
        1.0 0.5
        1.0 0.25
        1.0 0.25
    """

    OPTIONS: ClassVar[dict[str, Kind]] = {
        "mode": OneOf(("min", "max")),
        "factor": Range(0, 1),
        "patience": Whole(0),
        "threshold": Range(0),
        "threshold_mode": OneOf(("rel", "abs")),
        "cooldown": Whole(0),
        "min_lr": OneOrSeveral(LEARNING_RATE),
        "eps": Range(0),
    }
    STATE: ClassVar[dict[str, Kind]] = {
        **Scheduler.STATE,
        "last_epoch": Whole(0),
        "best": Range(closed=True),
        "num_bad_epochs": Whole(0),
        "cooldown_counter": Whole(0),
    }
    mode: str
    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lr: float | list[float]
    eps: float
    last_epoch: int
    best: float
    num_bad_epochs: int
    cooldown_counter: int

    def __init__(
        self,
        optimizer: HasGroups,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        self._set_options(
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            min_lr=min_lr,
            eps=eps,
        )
        self.optimizer = optimizer
        self._last_lr = learning_rates(optimizer)
        self._least()
        self.last_epoch = 0
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    @property
    def in_cooldown(self) -> bool:
        """Whether epochs are not counted, because the learning rate has just been lowered."""
        return self.cooldown_counter > 0

    def step(self, metrics: float) -> None:
        """Look at the number of one more epoch, and lower the learning rates if it is time.

        Args:
            metrics: The number that is watched: a loss, an accuracy.

        Raises:
            TypeError: `metrics` is not a number.
            ValueError: Groups were added, and `min_lr` is a list without entries for them.
        """
        value = real("metrics", metrics)
        with self._all_or_nothing():
            self.last_epoch += 1
            if self._is_better(value):
                self.best = value
                self.num_bad_epochs = 0
            else:
                self.num_bad_epochs += 1
            if self.in_cooldown:
                self.cooldown_counter -= 1
                self.num_bad_epochs = 0
            if self.num_bad_epochs > self.patience:
                self._reduce()
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
            self._last_lr = learning_rates(self.optimizer)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a snapshot of `state_dict`, arguments included. The optimizer loads its own.

        Raises:
            TypeError: Not a state dict, or a value of another type.
            ValueError: Keys of another kind of schedule, a `min_lr` of the wrong length, or a value out of range.
        """
        with self._all_or_nothing():
            super().load_state_dict(state_dict)
            self._least()

    def _is_better(self, value: float) -> bool:
        lower = self.mode == "min"
        if self.threshold_mode == "rel":
            limit = self.best * (1 - self.threshold if lower else 1 + self.threshold)
        else:
            limit = self.best - self.threshold if lower else self.best + self.threshold
        return value < limit if lower else value > limit

    def _least(self) -> list[float]:
        return per_group("min_lr", self.min_lr, len(self.optimizer.param_groups))

    def _reduce(self) -> None:
        rates = learning_rates(self.optimizer)
        for group, lr, least in zip(self.optimizer.param_groups, rates, self._least(), strict=True):
            lower = max(lr * self.factor, least)
            if lr - lower > self.eps:
                group["lr"] = lower
