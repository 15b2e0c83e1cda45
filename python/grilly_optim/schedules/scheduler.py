"""What schedules share: the optimizer's groups, all-or-nothing changes, state; and the base of those by epochs."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

from grilly_optim.optim._options import Whole
from grilly_optim.schedules._options import LEARNING_RATE, Kind, Several, take_all

Group = dict[str, Any]


class HasGroups(Protocol):
    """Anything with `param_groups`, a list of dicts that hold ``"lr"``: optimizers and samplers."""

    param_groups: list[Group]


def groups_of(optimizer: Any) -> list[Group]:
    """The groups of an optimizer.

    Raises:
        TypeError: It has none.
    """
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list) or not all(isinstance(g, dict) for g in groups):
        raise TypeError(
            f"optimizer must be an object with param_groups, a list of dicts, got {type(optimizer).__name__}"
        )
    return groups


def learning_rates(optimizer: Any, key: str = "lr") -> list[float]:
    """What every group has under `key`.

    Raises:
        TypeError: The optimizer has no groups, or they hold something that is not a number.
        ValueError: It is missing, negative or not finite.
    """
    result = []
    for k, group in enumerate(groups_of(optimizer)):
        if key not in group:
            raise ValueError(f"group {k} of the optimizer must have the key {key!r}, got {', '.join(map(repr, group))}")
        result.append(LEARNING_RATE.take(f"{key} of group {k}", group[key]))
    return result


class Scheduler(ABC):
    """Base of all schedules: writes ``group["lr"]`` of an optimizer's groups, and nothing else of the optimizer.

    Whatever raises, the groups and the schedule are as they were before the call.
    """

    # Argument -> what it may be.
    OPTIONS: ClassVar[dict[str, Kind]] = {}
    # Attribute that changes in the course of the schedule -> what a state dict may hold for it.
    STATE: ClassVar[dict[str, Kind]] = {"_last_lr": Several(LEARNING_RATE)}

    optimizer: HasGroups
    _last_lr: list[float]

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group, as the last step left it."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """The arguments and the course so far: numbers, strings and lists of them. Functions are not saved.

        The learning rates themselves are the optimizer's: save its state dict as well.
        """
        return {name: copy.deepcopy(getattr(self, name)) for name in (*self.OPTIONS, *self.STATE)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a snapshot of `state_dict`, arguments included. The optimizer loads its own.

        Raises:
            TypeError: Not a state dict, or a value of another type.
            ValueError: Keys of another kind of schedule, or a value out of range.
        """
        kinds = {**self.OPTIONS, **self.STATE}
        self._check_keys(state_dict, kinds)
        vars(self).update(
            {name: kind.take(f"{name!r} of state_dict", state_dict[name]) for name, kind in kinds.items()}
        )

    def _check_keys(self, state_dict: Any, expected: Mapping[str, Any]) -> None:
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {type(state_dict).__name__}")
        if set(state_dict) != set(expected):
            raise ValueError(
                f"state_dict of a {type(self).__name__} must have the keys {', '.join(map(repr, expected))}, "
                f"got {', '.join(map(repr, state_dict)) or 'none'}"
            )

    def _set_options(self, **options: Any) -> None:
        vars(self).update(take_all(self.OPTIONS, options))

    def _parts(self) -> Iterator[Scheduler]:
        """This schedule, and those that it is made of."""
        yield self

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put groups and schedules back when the block raises; attributes are replaced, never changed in place."""
        now = [*self.optimizer.param_groups, *map(vars, self._parts())]
        before = [dict(content) for content in now]
        try:
            yield
        except BaseException:
            for content, old in zip(now, before, strict=True):
                content.clear()
                content.update(old)
            raise


class LRScheduler(Scheduler):
    """Base of the schedules that go by the number of steps alone.

    A subclass gives `get_lr`, which is asked for epoch 0 too: first of all, and again where a `SequentialLR` comes to
    it. It may name its arguments in `OPTIONS`, to have them in its state dict: each with an object whose
    ``take(name, value)`` returns a good value and refuses another.

    Args:
        optimizer: Any object with `param_groups`, a list of dicts that hold ``"lr"``.
        last_epoch: -1 starts: each group's ``"lr"`` is noted as its ``"initial_lr"``, unless there is one already, and
            epoch 0 is written. Otherwise the epoch before the one to go on with; every group must have
            ``"initial_lr"``. To go on from a checkpoint `load_state_dict` is the simpler way.

    Raises:
        TypeError: The optimizer has no groups, or an argument is of another type.
        ValueError: A group lacks ``"lr"`` or ``"initial_lr"``, or an argument is out of range.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> from grilly_optim.schedules import LRScheduler
        >>> class InverseRoot(LRScheduler):
        ...     def get_lr(self):
        ...         return [base / (1 + self.last_epoch) ** 0.5 for base in self.base_lrs]
        >>> optimizer = AdamW([np.zeros(3)], lr=0.1, device="numpy")
        >>> schedule = InverseRoot(optimizer)
        >>> for _ in range(3):
        ...     schedule.step()
        >>> optimizer.param_groups[0]["lr"]
        0.05
    """

    STATE: ClassVar[dict[str, Kind]] = {
        **Scheduler.STATE,
        "last_epoch": Whole(-1),
        "base_lrs": Several(LEARNING_RATE),
    }

    last_epoch: int
    base_lrs: list[float]
    # Whether the step under way is the constructor's.
    _initial = False

    def __init__(self, optimizer: HasGroups, last_epoch: int = -1) -> None:
        self.last_epoch = Whole(-1).take("last_epoch", last_epoch)
        self.optimizer = optimizer
        rates = learning_rates(optimizer)
        with self._all_or_nothing():
            if self.last_epoch == -1:
                for group, lr in zip(optimizer.param_groups, rates, strict=True):
                    group.setdefault("initial_lr", lr)
            self.base_lrs = learning_rates(optimizer, "initial_lr")
            self._initial_step()

    @abstractmethod
    def get_lr(self) -> list[float]:
        """The learning rate of each group in `last_epoch`, which `step` has advanced; `get_last_lr` is for looking."""

    def step(self) -> None:
        """Write the next learning rates; call it after the optimizer's step.

        Raises:
            ValueError: The schedule cannot go on: it is over, groups were added that it does not know, or a learning
                rate would be negative or infinite.
        """
        with self._all_or_nothing():
            self.last_epoch += 1
            self._write(self.get_lr())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a snapshot of `state_dict`, arguments included. The optimizer loads its own.

        Raises:
            TypeError: Not a state dict, or a value of another type.
            ValueError: Keys of another kind of schedule, another number of groups, or a value out of range.
        """
        known = len(self.base_lrs)
        with self._all_or_nothing():
            super().load_state_dict(state_dict)
            if len(self.base_lrs) != known:
                raise ValueError(f"'base_lrs' of state_dict must have {known} entries, got {len(self.base_lrs)}")

    def _initial_step(self) -> None:
        self._initial = True
        try:
            self.step()
        finally:
            self._initial = False

    def _restart(self) -> None:
        """Go to epoch 0, whatever the learning rates are now."""
        with self._all_or_nothing():
            self.last_epoch = 0
            self._write(self._lr_at_0())

    def _lr_at_0(self) -> list[float]:
        """The learning rates of epoch 0, for schedules whose `get_lr` only goes on from the last ones."""
        return self.get_lr()

    def _rates(self) -> list[float]:
        """The groups' learning rates as they are."""
        return learning_rates(self.optimizer)

    def _bases(self) -> list[float]:
        """The groups' learning rates as they were at the beginning."""
        groups = len(self.optimizer.param_groups)
        if groups != len(self.base_lrs):
            raise ValueError(
                f"the optimizer has {groups} groups, and {type(self).__name__} was built when it had "
                f"{len(self.base_lrs)}: build it anew"
            )
        return self.base_lrs

    def _write(self, rates: list[float]) -> None:
        for k, (group, lr) in enumerate(zip(self.optimizer.param_groups, rates, strict=True)):
            group["lr"] = LEARNING_RATE.take(f"lr of group {k} in epoch {self.last_epoch}", lr)
        self._last_lr = self._rates()
