"""A step that fails or is interrupted leaves the groups and the schedules as they were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from grilly_optim.schedules import (
    ChainedScheduler,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from tests.schedule_table import Groups, everything, go, half, pair


def test_a_sequence_whose_first_step_fails_leaves_its_schedules() -> None:
    calls = []

    def third_call_fails(epoch: int) -> float:
        calls.append(epoch)
        return 0.5 if len(calls) < 3 else math.nan

    optimizer = Groups(0.1, 0.02)
    parts: list[LRScheduler] = [LambdaLR(optimizer, third_call_fails), StepLR(optimizer, 1)]
    before = everything(optimizer, *parts)
    with pytest.raises(ValueError, match=r"lr_lambda\(0\) of group 0 must be"):
        SequentialLR(optimizer, parts, [3])
    assert everything(optimizer, *parts) == before


def test_a_step_that_fails_leaves_groups_and_schedules() -> None:
    optimizer = pair()
    cycle = OneCycleLR(optimizer, 0.5, 3)
    chained = ChainedScheduler([StepLR(optimizer, 1), cycle, ExponentialLR(optimizer, 0.5)])
    go(chained, 3)
    before = everything(optimizer, chained)
    for _ in range(2):
        with pytest.raises(ValueError, match="this OneCycleLR is over: total_steps is 3, and this would be step 4"):
            chained.step()
        assert everything(optimizer, chained) == before


def test_a_step_that_is_interrupted_leaves_groups_and_schedules() -> None:
    def second(epoch: int) -> float:
        if epoch == 2:
            raise KeyboardInterrupt
        return 0.5

    optimizer = Groups(0.1, 0.02)
    schedule = ChainedScheduler([StepLR(optimizer, 1), MultiplicativeLR(optimizer, [half, second])])
    schedule.step()
    before = everything(optimizer, schedule)
    with pytest.raises(KeyboardInterrupt):
        schedule.step()
    assert everything(optimizer, schedule) == before


@pytest.mark.parametrize(("value", "error"), [("1.0", TypeError), (None, TypeError), (np.ones(2), TypeError)])
def test_metrics_that_are_refused(value: Any, error: Any) -> None:
    schedule = ReduceLROnPlateau(Groups(0.1))
    before = everything(schedule)
    with pytest.raises(error, match="metrics must be a real number"):
        schedule.step(value)
    assert everything(schedule) == before
    schedule.step(np.float32(1.5))
    schedule.step(np.array(1))
    assert schedule.best == 1.0


@pytest.mark.parametrize(
    ("epoch", "error"), [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError)]
)
def test_epochs_that_are_refused(epoch: Any, error: Any) -> None:
    optimizer = Groups(0.1)
    schedule = CosineAnnealingWarmRestarts(optimizer, 3)
    before = everything(optimizer, schedule)
    with pytest.raises(error, match="epoch must be"):
        schedule.step(epoch)
    assert everything(optimizer, schedule) == before
