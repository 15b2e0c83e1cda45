"""Every schedule with arguments, and how tests drive it and compare all that a call may change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from grilly_optim.optim import AdamW
from grilly_optim.schedules import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from tests.table import draw


class Groups:
    """The least that has groups."""

    def __init__(self, *lrs: Any, **others: Any) -> None:
        self.param_groups: list[dict[str, Any]] = [{"lr": lr, **others} for lr in lrs]


def half(epoch: int) -> float:
    return 0.5


Build = Callable[[Any], Any]
ROWS: dict[str, Build] = {
    "StepLR": lambda o: StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: MultiStepLR(o, [2, 5, 5], 0.5),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 7, 0.001),
    "CosineAnnealingWarmRestarts": lambda o: CosineAnnealingWarmRestarts(o, 3, 2, 0.001),
    "OneCycleLR": lambda o: OneCycleLR(o, 0.5, 40),
    "ReduceLROnPlateau": lambda o: ReduceLROnPlateau(o, patience=1, cooldown=1, min_lr=[0.001, 0.002]),
    "LambdaLR": lambda o: LambdaLR(o, half),
    "MultiplicativeLR": lambda o: MultiplicativeLR(o, [half, half]),
    "LinearLR": lambda o: LinearLR(o, 0.25, 0.75, 9),
    "ConstantLR": lambda o: ConstantLR(o, 0.5, 4),
    "PolynomialLR": lambda o: PolynomialLR(o, 9, 2.0),
    "SequentialLR": lambda o: SequentialLR(o, [LinearLR(o), StepLR(o, 2), CosineAnnealingWarmRestarts(o, 4)], [5, 9]),
    "ChainedScheduler": lambda o: ChainedScheduler(
        [ConstantLR(o, 0.5, 4), SequentialLR(o, [StepLR(o, 2), ExponentialLR(o, 0.9)], [5])]
    ),
}
rows = pytest.mark.parametrize("row", ROWS)


def pair() -> AdamW:
    return AdamW([{"params": [draw(3)], "lr": 0.1}, {"params": [draw(2)], "lr": 0.02}], device="numpy")


def go(schedule: Any, steps: int) -> list[Any]:
    """What the groups say after each step; a plateau sees a number that gets no better."""
    said = []
    for _ in range(steps):
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(1.0)
        else:
            schedule.step()
        said.append([(g["lr"], g["betas"]) for g in schedule.optimizer.param_groups])
    return said


def everything(*objects: Any) -> Any:
    """All that a failed call must leave as it was."""
    said: list[Any] = []
    for o in objects:
        groups = getattr(o, "param_groups", None)
        said.append(o.state_dict() if groups is None else [{k: g[k] for k in g if k != "params"} for g in groups])
    return copy.deepcopy(said)
