"""What schedules find in an optimizer's groups, what they refuse there, and what they write."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import SGD, AdamW
from grilly_optim.schedules import ConstantLR, CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR
from tests.schedule_table import ROWS, Groups, everything, go, half, pair, rows
from tests.table import assert_bits, draw


@rows
def test_an_optimizer_steps_with_what_a_schedule_writes(row: str) -> None:
    p, q = draw(4), draw(4)
    scheduled = AdamW([{"params": [p], "lr": 0.1}, {"params": [q], "lr": 0.02}], device="numpy")
    a, b = p.copy(), q.copy()
    by_hand = AdamW([{"params": [a]}, {"params": [b]}], device="numpy")
    schedule = ROWS[row](scheduled)
    for _ in range(12):
        for group, said in zip(by_hand.param_groups, scheduled.param_groups, strict=True):
            group["lr"], group["betas"] = said["lr"], said["betas"]
        gradients = [draw(4), draw(4)]
        scheduled.step(gradients=gradients)
        by_hand.step(gradients=gradients)
        go(schedule, 1)
    assert_bits(p, a)
    assert_bits(q, b)


@rows
def test_values_are_python_floats(row: str) -> None:
    optimizer = Groups(np.float32(0.1), 1, momentum=np.float64(0.5))
    schedule = ROWS[row](optimizer)
    for _ in range(12):
        schedule.step(1.0) if row == "ReduceLROnPlateau" else schedule.step()
        written = {"lr", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
        if row == "OneCycleLR":
            written |= {"momentum"}
        for group in optimizer.param_groups:
            kinds = {name: type(value) for name, value in group.items() if name in written}
            kinds.pop("lr" if row == "ReduceLROnPlateau" else "", None)  # it writes where it lowers
            assert set(kinds.values()) <= {float}, kinds
        assert {type(lr) for lr in schedule.get_last_lr()} == {float}


def test_groups_that_had_a_schedule_go_on_in_another_optimizer() -> None:
    optimizer = SGD([np.ones(2)], lr=0.1, momentum=0.9)
    OneCycleLR(optimizer, max_lr=0.1, total_steps=10).step()
    group = optimizer.param_groups[0]
    assert {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"} <= set(group)
    assert SGD([group], lr=5.0).param_groups[0]["lr"] == group["lr"]


def test_get_last_lr_is_a_copy() -> None:
    schedule = StepLR(Groups(0.1), 1)
    schedule.get_last_lr()[0] = 7.0
    assert schedule.get_last_lr() == [0.1]


def test_a_second_schedule_starts_from_the_first_ones_initial_rate() -> None:
    optimizer = Groups(0.5)
    ConstantLR(optimizer, 0.5)
    second = LambdaLR(optimizer, half)
    assert second.base_lrs == [0.5]
    assert optimizer.param_groups[0] == {"lr": 0.25, "initial_lr": 0.5}


@pytest.mark.subprocess
def test_the_import_of_the_package_leaves_schedules_for_later() -> None:
    code = (
        "import sys, grilly_optim; assert 'grilly_optim.schedules' not in sys.modules; "
        "assert grilly_optim.schedules.StepLR and 'schedules' in grilly_optim.__all__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@rows
def test_what_has_no_groups_is_refused(row: str) -> None:
    class Tuple:
        param_groups = ({"lr": 0.1},)

    class Items:
        param_groups = ["lr"]  # noqa: RUF012 - the mistake under test

    for bad in (None, 3, [{"lr": 0.1}], {"param_groups": []}, AdamW, Tuple(), Items()):
        name = type(bad).__name__
        with pytest.raises(
            TypeError, match=rf"optimizer must be an object with param_groups, a list of dicts, got {name}"
        ):
            ROWS[row](bad)


@pytest.mark.parametrize(
    ("lr", "error", "message"),
    [
        ("0.1", TypeError, "lr of group 1 must be a real number, got '0.1'"),
        (math.nan, ValueError, "lr of group 1 must be 0 or more, and finite, got nan"),
        (-1, ValueError, "lr of group 1 must be 0 or more, and finite, got -1"),
        (None, ValueError, "group 1 of the optimizer must have the key 'lr', got 'betas'"),
    ],
)
@rows
def test_groups_without_a_good_learning_rate_are_refused(row: str, lr: Any, error: Any, message: str) -> None:
    optimizer = Groups(0.1, lr, betas=(0.5, 0.75))
    if lr is None:
        del optimizer.param_groups[1]["lr"]
    before = str(optimizer.param_groups)
    with pytest.raises(error, match=message):
        ROWS[row](optimizer)
    # The schedules that others are made of may have been built before.
    if row not in ("SequentialLR", "ChainedScheduler"):
        assert str(optimizer.param_groups) == before


BASED = ("CosineAnnealingWarmRestarts", "OneCycleLR", "LambdaLR", "MultiplicativeLR")


@pytest.mark.parametrize("row", [*BASED, "SequentialLR", "CosineAnnealingLR", "ReduceLROnPlateau"])
def test_groups_that_are_added_later_are_refused_where_their_beginning_is_needed(row: str) -> None:
    optimizer = pair()
    schedule = ROWS[row](optimizer)
    go(schedule, {"SequentialLR": 4, "CosineAnnealingLR": 7, "ReduceLROnPlateau": 2}.get(row, 1))
    optimizer.add_param_group({"params": [draw(3)], "lr": 0.3})
    before = everything(optimizer, schedule)
    message = "min_lr must have one entry" if row == "ReduceLROnPlateau" else "the optimizer has 3 groups, and .* had 2"
    with pytest.raises(ValueError, match=message):
        go(schedule, 1)
    assert everything(optimizer, schedule) == before


def test_a_rate_below_0_is_refused() -> None:
    optimizer = Groups(0.1)
    schedule = CosineAnnealingLR(optimizer, 5, 0.05)
    for _ in range(5):
        schedule.step()
    optimizer.param_groups[0]["lr"] = 0.0  # below eta_min, from where the way back up leads down
    schedule.step()
    optimizer.param_groups[0]["lr"] = 0.01
    before = everything(optimizer, schedule)
    with pytest.raises(ValueError, match=r"lr of group 0 in epoch 7 must be 0 or more, and finite, got -0"):
        schedule.step()
    assert everything(optimizer, schedule) == before


def test_learning_rates_of_groups_are_looked_at_in_every_step() -> None:
    optimizer = Groups(0.1, 0.02)
    schedule = StepLR(optimizer, 1)
    optimizer.param_groups[1]["lr"] = "x"
    before = everything(optimizer, schedule)
    with pytest.raises(TypeError, match="lr of group 1 must be a real number, got 'x'"):
        schedule.step()
    assert everything(optimizer, schedule) == before
