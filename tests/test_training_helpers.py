"""Helpers of training loops: a factor of well-known epochs, how many iterations there are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from grilly_optim.schedules import calc_train_iter, lambda_lr_schedule


def test_lambda_lr_schedule() -> None:
    edges = {0: 1.0, 80: 1.0, 81: 0.1, 120: 0.1, 121: 0.01, 160: 0.01, 161: 0.001, 180: 0.001, 181: 0.0005, 999: 0.0005}
    assert {epoch: lambda_lr_schedule(epoch) for epoch in edges} == edges
    assert lambda_lr_schedule(80.5) == 0.1
    for bad, error in ((-1, ValueError), (math.nan, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="epoch must be"):
            lambda_lr_schedule(bad)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_iter": 500}, (500, -1)),
        ({"num_iter": 0}, (0, -1)),
        ({"epochs": 3}, (96, 32)),
        ({"epochs": 3, "num_iter": 7}, (96, 32)),
        ({"epochs": 1, "batch_size": 1000}, (1, 1)),
        ({"epochs": 1, "batch_size": 999}, (2, 2)),
        ({"epochs": 2, "batch_size": 5000}, (2, 1)),
        ({"epochs": 1, "num_train_samples": 10**17 + 1, "batch_size": 1}, (10**17 + 1,) * 2),
    ],
)
def test_calc_train_iter(arguments: dict[str, int], expected: tuple[int, int]) -> None:
    assert calc_train_iter(**{"num_train_samples": 1000, "batch_size": 32, **arguments}) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "num_iter or epochs must be given, and both are -1"),
        ({"epochs": 0}, ValueError, "epochs must be 1 or more, got 0"),
        ({"epochs": -2}, ValueError, "epochs must be 1 or more, got -2"),
        ({"num_iter": -2}, ValueError, "num_iter must be 0 or more, got -2"),
        ({"epochs": 2.0}, TypeError, "epochs must be a whole number, got 2.0"),
        ({"epochs": 2, "batch_size": 0}, ValueError, "batch_size must be 1 or more, got 0"),
        ({"epochs": 2, "num_train_samples": 0}, ValueError, "num_train_samples must be 1 or more, got 0"),
    ],
)
def test_calc_train_iter_refuses(arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        calc_train_iter(**{"num_train_samples": 1000, "batch_size": 32, **arguments})
