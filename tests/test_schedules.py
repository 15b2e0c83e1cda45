"""Schedules: their closed forms, state, all-or-nothing, what is refused. Torch's bits are in tests/parity."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.optim import AdamW
from grilly_optim.schedules import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    calc_train_iter,
    lambda_lr_schedule,
)
from tests.table import assert_bits, draw


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


# Numbers.

CLOSED: dict[str, tuple[Build, Callable[[int], float]]] = {
    "StepLR": (ROWS["StepLR"], lambda t: 0.5 ** (t // 3)),
    "MultiStepLR": (ROWS["MultiStepLR"], lambda t: 0.5 ** sum(t >= m for m in (2, 5, 5))),
    "ExponentialLR": (ROWS["ExponentialLR"], lambda t: 0.9**t),
    "CosineAnnealingLR": (lambda o: CosineAnnealingLR(o, 7), lambda t: (1 + math.cos(math.pi * t / 7)) / 2),
    "CosineAnnealingWarmRestarts": (
        lambda o: CosineAnnealingWarmRestarts(o, 3, 2),
        lambda t: next(
            (1 + math.cos(math.pi * (t - begin) / length)) / 2
            for begin, length in ((21, 24), (9, 12), (3, 6), (0, 3))
            if t >= begin
        ),
    ),
    "LambdaLR": (lambda o: LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 1 / (1 + t)),
    "MultiplicativeLR": (lambda o: MultiplicativeLR(o, lambda t: t / (t + 1)), lambda t: 1 / (1 + t)),
    "LinearLR": (ROWS["LinearLR"], lambda t: 0.25 + 0.5 * min(t, 9) / 9),
    "ConstantLR": (ROWS["ConstantLR"], lambda t: 0.5 if t < 4 else 1.0),
    "PolynomialLR": (ROWS["PolynomialLR"], lambda t: (1 - min(t, 9) / 9) ** 2),
    "warm-up": (
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=4), CosineAnnealingLR(o, 10)], [4]),
        lambda t: 0.1 + 0.9 * t / 4 if t < 4 else (1 + math.cos(math.pi * (t - 4) / 10)) / 2,
    ),
    "ChainedScheduler": (
        lambda o: ChainedScheduler([ConstantLR(o, 0.5, 4), ExponentialLR(o, 0.9)]),
        lambda t: (0.5 if t < 4 else 1.0) * 0.9**t,
    ),
}


@pytest.mark.parametrize("row", CLOSED)
def test_closed_forms(row: str) -> None:
    build, factor = CLOSED[row]
    optimizer = Groups(0.1, 0.02)
    schedule = build(optimizer)
    for t in range(30):
        expected = [0.1 * factor(t), 0.02 * factor(t)]
        assert schedule.get_last_lr() == pytest.approx(expected, rel=1e-9, abs=1e-12), t
        assert [g["lr"] for g in optimizer.param_groups] == schedule.get_last_lr()
        schedule.step()


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
def test_corners_of_one_cycle(three_phase: bool, strategy: str) -> None:
    optimizer = Groups(0.1, betas=(0.5, 0.75))
    schedule = OneCycleLR(
        optimizer,
        1.0,
        21,
        pct_start=8 / 21,
        anneal_strategy=strategy,
        three_phase=three_phase,
        base_momentum=0.8,
        max_momentum=0.9,
        div_factor=10,
        final_div_factor=100,
    )
    said = {0: (schedule.get_last_lr()[0], optimizer.param_groups[0]["betas"])}
    for t in range(1, 21):
        schedule.step()
        said[t] = (schedule.get_last_lr()[0], optimizer.param_groups[0]["betas"])
    corners = {0: (0.1, 0.9), 7: (1.0, 0.8), 20: (0.001, 0.9)} | ({14: (0.1, 0.9)} if three_phase else {})
    for t, (lr, momentum) in corners.items():
        assert said[t] == (pytest.approx(lr), (pytest.approx(momentum), 0.75))
    assert max(lr for lr, _ in said.values()) == said[7][0]


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_the_step_after_the_last_of_one_cycle(strategy: str) -> None:
    optimizer = Groups(0.1, momentum=0.5)
    schedule = OneCycleLR(optimizer, 1.0, 10, anneal_strategy=strategy, base_momentum=0.1, max_momentum=0.99)
    for _ in range(10):
        schedule.step()
    (rate,), momentum = schedule.get_last_lr(), optimizer.param_groups[0]["momentum"]
    if strategy == "linear":
        assert (rate, momentum) == (pytest.approx(4e-6), pytest.approx(0.99))
    else:
        assert 4e-6 < rate < 0.2
        assert 0.8 < momentum < 0.99


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_phases_of_one_cycle_without_length(strategy: str) -> None:
    assert OneCycleLR(Groups(0.1, momentum=0), 1.0, 10, pct_start=0.1).get_last_lr() == [1.0]
    up = OneCycleLR(Groups(0.1, momentum=0), 1.0, 4, pct_start=1.0, anneal_strategy=strategy)
    rates = [up.get_last_lr()[0]]
    for _ in range(4):
        up.step()
        rates += up.get_last_lr()
    assert rates[:4] == sorted(rates[:4])
    assert rates[3:] == pytest.approx([1.0, 4e-6])


def test_one_cycle_writes_momentum_where_there_are_no_betas() -> None:
    optimizer = Groups(0.1, momentum=0.5)
    OneCycleLR(optimizer, 1.0, 21)
    assert optimizer.param_groups[0]["momentum"] == 0.95
    both = Groups(0.1, momentum=0.5, betas=[0.5, 0.75])
    OneCycleLR(both, 1.0, 21)
    assert (both.param_groups[0]["momentum"], both.param_groups[0]["betas"]) == (0.5, (0.95, 0.75))
    neither = Groups(0.1)
    OneCycleLR(neither, 1.0, 21, cycle_momentum=False)
    assert set(neither.param_groups[0]) == {"lr", "initial_lr", "max_lr", "min_lr"}


def test_a_plateau_waits_for_patience_and_cooldown() -> None:
    optimizer = Groups(1.0)
    schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=2, cooldown=2)
    said = []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0):
        schedule.step(loss)
        said.append(schedule.get_last_lr()[0])
    assert said == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert (schedule.best, schedule.num_bad_epochs) == (1.0, 1)


@pytest.mark.parametrize(
    ("options", "better", "worse"),
    [
        ({"mode": "min", "threshold": 0.1}, 8.9, 9.1),
        ({"mode": "max", "threshold": 0.1}, 11.1, 10.9),
        ({"mode": "min", "threshold": 0.5, "threshold_mode": "abs"}, 9.4, 9.6),
        ({"mode": "max", "threshold": 0.5, "threshold_mode": "abs"}, 10.6, 10.4),
    ],
)
def test_what_a_plateau_takes_for_better(options: dict[str, Any], better: float, worse: float) -> None:
    for value, kept in ((better, better), (worse, 10.0), (math.nan, 10.0)):
        schedule = ReduceLROnPlateau(Groups(1.0), **options)
        schedule.step(10.0)
        schedule.step(value)
        assert schedule.best == kept


def test_a_plateau_keeps_to_the_least_rate_of_each_group_and_leaves_out_small_reductions() -> None:
    optimizer = Groups(1.0, 1.0, 1e-8)
    schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=(0.6, 0.0, 0.0))
    for _ in range(3):
        schedule.step(1.0)
    assert schedule.get_last_lr() == [0.6, 0.25, 1e-8]


def test_rates_of_0_stay_0_and_an_optimizer_takes_them() -> None:
    for build in (
        lambda o: LinearLR(o, 0.7, 0.0, 199),
        lambda o: PolynomialLR(o, 5),
        lambda o: CosineAnnealingLR(o, 10),
        lambda o: StepLR(o, 1, 0),
        lambda o: OneCycleLR(o, 0.1, 10, anneal_strategy="linear", final_div_factor=math.inf),
    ):
        w = draw(5)
        optimizer = AdamW([w], lr=0.1, weight_decay=0.5, device="numpy")
        schedule = build(optimizer)
        while schedule.get_last_lr() != [0.0]:
            schedule.step()
        before = w.copy()
        optimizer.step(gradients=[draw(5)])
        assert_bits(w, before)


@settings(max_examples=200, deadline=None)
@given(
    start=st.floats(1e-6, 1),
    end=st.floats(0, 1),
    steps=st.integers(1, 300),
    lr=st.floats(0, 1e3, allow_subnormal=False),
)
def test_a_line_stays_between_its_ends(start: float, end: float, steps: int, lr: float) -> None:
    schedule = LinearLR(Groups(lr), start, end, steps)
    low, high = sorted((start * lr, end * lr))
    for _ in range(steps + 3):
        schedule.step()
        (rate,) = schedule.get_last_lr()
        assert rate >= 0
        assert low * (1 - 1e-9) - 1e-9 * lr <= rate <= high * (1 + 1e-9) + 1e-9 * lr
    assert rate == pytest.approx(end * lr, rel=1e-9, abs=1e-9 * lr)


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


# Optimizers.


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


# State.


@rows
def test_going_on_from_a_state_dict_is_exact(row: str) -> None:
    whole = pair()
    schedule = ROWS[row](whole)
    expected = go(schedule, 20)
    for at in (0, 1, 3, 7, 11):
        first = pair()
        schedule = ROWS[row](first)
        said = go(schedule, at)
        saved = json.loads(json.dumps([schedule.state_dict(), first.state_dict()], default=lambda a: a.tolist()))
        second = pair()
        schedule = ROWS[row](second)
        go(schedule, 2)
        schedule.load_state_dict(saved[0])
        second.load_state_dict(saved[1])
        assert schedule.state_dict() == saved[0]
        assert schedule.get_last_lr() == [g["lr"] for g in second.param_groups]
        assert said + go(schedule, 20 - at) == expected


@rows
def test_a_state_dict_is_a_snapshot(row: str) -> None:
    schedule = ROWS[row](pair())
    saved = schedule.state_dict()
    kept = copy.deepcopy(saved)
    go(schedule, 12)
    assert saved == kept
    schedule.load_state_dict(saved)
    go(schedule, 12)
    assert saved == kept


def test_what_is_done_to_a_state_dict_is_not_done_to_the_schedule() -> None:
    schedule = ReduceLROnPlateau(Groups(0.1, 0.2), min_lr=[0.1, 0.2])
    saved = schedule.state_dict()
    schedule.load_state_dict(saved)
    saved["min_lr"][0] = saved["_last_lr"][0] = 7.0
    assert schedule.state_dict()["min_lr"] == schedule.get_last_lr() == [0.1, 0.2]
    schedule.state_dict()["min_lr"][0] = 7.0
    assert schedule.state_dict()["min_lr"] == [0.1, 0.2]


@pytest.mark.parametrize("epoch", [0, 1, 2, 5, 12, 20])
def test_going_on_by_last_epoch_where_the_rate_is_a_function_of_the_epoch(epoch: int) -> None:
    builds: list[Callable[[Any, int], Any]] = [
        lambda o, e: LambdaLR(o, lambda t: 1 / (1 + t), e),
        lambda o, e: CosineAnnealingWarmRestarts(o, 3, 2, 0.001, e),
        lambda o, e: OneCycleLR(o, 0.5, 40, last_epoch=e),
    ]
    for build in builds:
        whole = pair()
        schedule = build(whole, -1)
        go(schedule, epoch)
        second = pair()
        for group, said in zip(second.param_groups, whole.param_groups, strict=True):
            group.update({k: said[k] for k in said if k != "params"})
        again = build(second, epoch)
        assert [(g["lr"], g["betas"]) for g in second.param_groups] == go(schedule, 1)[0]
        assert go(again, 9) == go(schedule, 9)


@rows
def test_copies_go_on_alike(row: str) -> None:
    schedule = ROWS[row](pair())
    go(schedule, 5)
    for again in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert again.optimizer is not schedule.optimizer
        assert everything(again, again.optimizer)[0] == everything(schedule)[0]
    assert go(copy.deepcopy(schedule), 9) == go(schedule, 9)


def test_functions_are_not_saved_and_arguments_are() -> None:
    assert set(LambdaLR(Groups(0.1), half).state_dict()) == {"last_epoch", "base_lrs", "_last_lr"}
    other = StepLR(Groups(0.1), 7, 0.7)
    other.load_state_dict(StepLR(Groups(0.1), 3, 0.5).state_dict())
    assert (other.step_size, other.gamma) == (3, 0.5)


# Refusals: nothing changes, in the groups or in the schedule.

CONSTRUCTIONS: list[tuple[Build, Any, str]] = [
    (lambda o: StepLR(o, -1), ValueError, "step_size must be 1 or more, got -1"),
    (lambda o: StepLR(o, 0), ValueError, "step_size must be 1 or more, got 0"),
    (lambda o: StepLR(o, 2.5), TypeError, "step_size must be a whole number, got 2.5"),
    (lambda o: StepLR(o, True), TypeError, "step_size must be a whole number, got True"),
    (lambda o: StepLR(o, 2, "a"), TypeError, "gamma must be a real number, got 'a'"),
    (lambda o: StepLR(o, 2, -0.1), ValueError, "gamma must be 0 or more, and finite, got -0.1"),
    (lambda o: StepLR(o, 2, math.nan), ValueError, "gamma must be 0 or more, and finite, got nan"),
    (lambda o: StepLR(o, 2, last_epoch=-2), ValueError, "last_epoch must be -1 or more, got -2"),
    (lambda o: StepLR(o, 2, last_epoch=3), ValueError, "group 0 of the optimizer must have the key 'initial_lr'"),
    (lambda o: ExponentialLR(o, None), TypeError, "gamma must be a real number, got None"),
    (lambda o: MultiStepLR(o, [5, 3]), ValueError, r"milestones must be increasing, got \[5, 3\]"),
    (lambda o: MultiStepLR(o, [-1, 3]), ValueError, r"milestones\[0\] must be 0 or more, got -1"),
    (lambda o: MultiStepLR(o, [1.5]), TypeError, r"milestones\[0\] must be a whole number, got 1.5"),
    (lambda o: MultiStepLR(o, 5), TypeError, "milestones must be a list, got 5"),
    (lambda o: CosineAnnealingLR(o, 0), ValueError, "T_max must be 1 or more, got 0"),
    (lambda o: CosineAnnealingLR(o, 5, -1), ValueError, "eta_min must be 0 or more, and finite, got -1"),
    (lambda o: CosineAnnealingWarmRestarts(o, 0), ValueError, "T_0 must be 1 or more, got 0"),
    (lambda o: CosineAnnealingWarmRestarts(o, 3, 0), ValueError, "T_mult must be 1 or more, got 0"),
    (lambda o: CosineAnnealingWarmRestarts(o, 3, 1.5), TypeError, "T_mult must be a whole"),
    (lambda o: LinearLR(o, 0), ValueError, r"start_factor must be in \(0, 1\], got 0"),
    (lambda o: LinearLR(o, 1.5), ValueError, r"start_factor must be in \(0, 1\], got 1.5"),
    (lambda o: LinearLR(o, 0.5, -0.1), ValueError, r"end_factor must be in \[0, 1\], got -0.1"),
    (lambda o: LinearLR(o, 0.5, 1.1), ValueError, r"end_factor must be in \[0, 1\], got 1.1"),
    (lambda o: LinearLR(o, total_iters=0), ValueError, "total_iters must be 1 or more, got 0"),
    (lambda o: ConstantLR(o, 0.0), ValueError, r"factor must be in \(0, 1\], got 0.0"),
    (lambda o: ConstantLR(o, total_iters=-3), ValueError, "total_iters must be 1 or more, got -3"),
    (lambda o: PolynomialLR(o, 0), ValueError, "total_iters must be 1 or more, got 0"),
    (lambda o: PolynomialLR(o, power=-1), ValueError, "power must be 0 or more, and finite, got -1"),
    (lambda o: LambdaLR(o, [half]), ValueError, "lr_lambda must have one entry for each of the 2 groups, got 1"),
    (lambda o: LambdaLR(o, 0.5), TypeError, "lr_lambda must be a function of the epoch, got 0.5"),
    (lambda o: LambdaLR(o, [half, None]), TypeError, r"lr_lambda\[1\] must be a function"),
    (
        lambda o: LambdaLR(o, lambda e: -1),
        ValueError,
        r"lr_lambda\(0\) of group 0 must be 0 or more, and finite, got -1",
    ),
    (lambda o: LambdaLR(o, lambda e: "x"), TypeError, r"lr_lambda\(0\) of group 0 must be a real number, got 'x'"),
    (lambda o: LambdaLR(o, [half, lambda e: 1 / e]), ZeroDivisionError, "zero"),
    (lambda o: MultiplicativeLR(o, [half] * 3), ValueError, "lr_lambda must have one entry for each of the 2 groups"),
    (lambda o: OneCycleLR(o, 0.1), ValueError, "total_steps must be given, or both of epochs and steps_per_epoch"),
    (lambda o: OneCycleLR(o, 0.1, epochs=3), ValueError, "total_steps must be given, or both"),
    (lambda o: OneCycleLR(o, 0.1, 0), ValueError, "total_steps must be 1 or more, got 0"),
    (lambda o: OneCycleLR(o, 0.1, 9.0), TypeError, "total_steps must be a whole number, got 9.0"),
    (lambda o: OneCycleLR(o, 0.1, epochs=0, steps_per_epoch=3), ValueError, "epochs must be 1 or more, got 0"),
    (lambda o: OneCycleLR(o, 0.1, epochs=3, steps_per_epoch=-3), ValueError, "steps_per_epoch must be 1 or more"),
    (lambda o: OneCycleLR(o, 0.1, 9, pct_start=1.5), ValueError, r"pct_start must be in \[0, 1\], got 1.5"),
    (lambda o: OneCycleLR(o, 0.1, 9, pct_start=math.nan), ValueError, r"pct_start must be in \[0, 1\], got nan"),
    (lambda o: OneCycleLR(o, 0.1, 9, anneal_strategy="exp"), ValueError, "anneal_strategy must be 'cos' or 'linear'"),
    (lambda o: OneCycleLR(o, 0.1, 9, cycle_momentum=1), TypeError, "cycle_momentum must be True or False"),
    (lambda o: OneCycleLR(o, [0.1], 9), ValueError, "max_lr must have one entry for each of the 2 groups, got 1"),
    (lambda o: OneCycleLR(o, [0.1, -1], 9), ValueError, r"max_lr\[1\] must be 0 or more, and finite, got -1"),
    (lambda o: OneCycleLR(o, 0.1, 9, max_momentum=1.0), ValueError, r"max_momentum must be in \[0, 1\), got 1.0"),
    (
        lambda o: OneCycleLR(o, 0.1, 9, base_momentum=[0.1] * 3),
        ValueError,
        "base_momentum must have one entry for each",
    ),
    (lambda o: OneCycleLR(o, 0.1, 9, div_factor=0), ValueError, r"div_factor must be in \(0, inf\], got 0"),
    (lambda o: OneCycleLR(o, 0.1, 9, final_div_factor=-1), ValueError, "final_div_factor must be in"),
    (lambda o: OneCycleLR(o, 0.1, 9, last_epoch=3), ValueError, "group 0 .* must have the key 'initial_lr' when last"),
    (lambda o: ReduceLROnPlateau(o, "low"), ValueError, "mode must be 'min' or 'max', got 'low'"),
    (lambda o: ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "threshold_mode must be 'rel' or 'abs', got 'x'"),
    (lambda o: ReduceLROnPlateau(o, factor=1.0), ValueError, r"factor must be in \[0, 1\), got 1.0"),
    (lambda o: ReduceLROnPlateau(o, patience=-1), ValueError, "patience must be 0 or more, got -1"),
    (lambda o: ReduceLROnPlateau(o, cooldown=1.0), TypeError, "cooldown must be a whole number"),
    (lambda o: ReduceLROnPlateau(o, threshold=-1), ValueError, "threshold must be 0 or more"),
    (lambda o: ReduceLROnPlateau(o, eps=-1), ValueError, "eps must be 0 or more"),
    (lambda o: ReduceLROnPlateau(o, min_lr=[0.1]), ValueError, "min_lr must have one entry for each of the 2 groups"),
    (lambda o: ReduceLROnPlateau(o, min_lr=[0.1, -1]), ValueError, r"min_lr\[1\] must be 0 or more"),
]


@pytest.mark.parametrize(("build", "error", "message"), CONSTRUCTIONS)
def test_a_construction_that_fails_leaves_the_groups(build: Build, error: Any, message: str) -> None:
    optimizer = Groups(0.1, 0.02, betas=(0.5, 0.75))
    before = everything(optimizer)
    with pytest.raises(error, match=message):
        build(optimizer)
    assert everything(optimizer) == before


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


def test_one_cycle_wants_something_to_cycle() -> None:
    for others in ({}, {"betas": ()}, {"betas": None}):
        optimizer = Groups(0.1, **others)
        with pytest.raises(ValueError, match=r"cycle_momentum must be False: group 0 .* neither 'betas'"):
            OneCycleLR(optimizer, 0.1, 9)
        assert optimizer.param_groups == [{"lr": 0.1, **others}]


COMPOSITIONS: list[tuple[Callable[[Any, Any], Any], Any, str]] = [
    (lambda o, s: SequentialLR(o, [], []), ValueError, "schedulers must have one entry or more, got none"),
    (lambda o, s: SequentialLR(o, s, [3]), TypeError, "schedulers must be a list of schedules, got StepLR"),
    (lambda o, s: SequentialLR(o, [s, 3], [3]), TypeError, r"schedulers\[1\] must not be of type int"),
    (lambda o, s: SequentialLR(o, [s, s], [3]), ValueError, r"schedulers\[1\] is in the list already"),
    (lambda o, s: SequentialLR(o, [s, StepLR(Groups(1.0), 1)], [3]), ValueError, r"schedulers\[1\] .* same optimizer"),
    (lambda o, s: SequentialLR(o, [s], [3]), ValueError, r"milestones must have one entry less .* \(1\), got 1"),
    (lambda o, s: SequentialLR(o, [s, ExponentialLR(o, 1)], []), ValueError, r"milestones must have one entry less"),
    (
        lambda o, s: SequentialLR(o, [s, ExponentialLR(o, 1), ExponentialLR(o, 1)], [3, 3]),
        ValueError,
        r"milestones must be increasing, got \[3, 3\]",
    ),
    (lambda o, s: SequentialLR(o, [s, ExponentialLR(o, 1)], [-1]), ValueError, r"milestones\[0\] must be 0 or more"),
    (
        lambda o, s: SequentialLR(o, [s, ReduceLROnPlateau(o)], [3]),
        TypeError,
        r"schedulers\[1\] must not be of type ReduceLROnPlateau: SequentialLR takes schedules that go by epochs",
    ),
    (
        lambda o, s: SequentialLR(o, [s, ChainedScheduler([ExponentialLR(o, 1)])], [3]),
        TypeError,
        r"schedulers\[1\] must not be of type ChainedScheduler: .* no compositions",
    ),
    (lambda o, s: SequentialLR(o, [s], [], last_epoch=-2), ValueError, "last_epoch must be -1 or more, got -2"),
    (lambda o, s: ChainedScheduler([]), ValueError, "schedulers must have one entry or more, got none"),
    (lambda o, s: ChainedScheduler([s, ReduceLROnPlateau(o)]), TypeError, r"schedulers\[1\] must not be of type Red"),
    (lambda o, s: ChainedScheduler([s, StepLR(Groups(1.0), 1)]), ValueError, r"schedulers\[1\] .* same optimizer"),
    (lambda o, s: ChainedScheduler([s], Groups(1.0)), ValueError, r"schedulers\[0\] .* same optimizer"),
]


@pytest.mark.parametrize(("build", "error", "message"), COMPOSITIONS)
def test_compositions_that_are_refused(build: Any, error: Any, message: str) -> None:
    optimizer = Groups(0.1, 0.02)
    schedule = StepLR(optimizer, 1)
    schedule.step()
    before = everything(optimizer, schedule)
    with pytest.raises(error, match=message):
        build(optimizer, schedule)
    assert everything(optimizer, schedule) == before


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


STATES: list[tuple[str, Callable[[dict[str, Any]], Any], Any, str]] = [
    ("StepLR", lambda s: s.pop("gamma"), ValueError, "state_dict of a StepLR must have the keys 'step_size', 'gamma'"),
    ("StepLR", lambda s: s.update(T_max=3), ValueError, "got .*'T_max'"),
    ("StepLR", lambda s: s.update(step_size=0), ValueError, "'step_size' of state_dict must be 1 or more, got 0"),
    ("StepLR", lambda s: s.update(last_epoch=1.5), TypeError, "'last_epoch' of state_dict must be a whole number"),
    ("StepLR", lambda s: s.update(base_lrs=[0.1]), ValueError, "'base_lrs' of state_dict must have 2 entries, got 1"),
    ("StepLR", lambda s: s.update(base_lrs=0.1), TypeError, "'base_lrs' of state_dict must be a list, got 0.1"),
    ("StepLR", lambda s: s.update(_last_lr=[0.1, "x"]), TypeError, r"'_last_lr' of state_dict\[1\] must be a real"),
    ("CosineAnnealingWarmRestarts", lambda s: s.update(T_i=0), ValueError, "'T_i' of state_dict must be 1 or more"),
    ("OneCycleLR", lambda s: s.update(three_phase=0), TypeError, "'three_phase' of state_dict must be True or False"),
    ("ReduceLROnPlateau", lambda s: s.update(best=math.nan), ValueError, "'best' of state_dict must be in"),
    (
        "ReduceLROnPlateau",
        lambda s: s.update(min_lr=[0.1] * 3),
        ValueError,
        "min_lr must have one entry for each of the 2",
    ),
    (
        "SequentialLR",
        lambda s: s.update(_milestones=[9, 5]),
        ValueError,
        "'_milestones' of state_dict must be increasing",
    ),
    (
        "SequentialLR",
        lambda s: s.update(_milestones=[5]),
        ValueError,
        "'_milestones' of state_dict must have 2 entries, got 1",
    ),
    ("SequentialLR", lambda s: s.pop("_schedulers"), ValueError, "must have the keys .*'_schedulers', got"),
    ("SequentialLR", lambda s: s["_schedulers"].pop(), ValueError, "'_schedulers' of state_dict must be a list of 3"),
    ("SequentialLR", lambda s: s["_schedulers"].reverse(), ValueError, "state_dict of a LinearLR must have the keys"),
    ("SequentialLR", lambda s: s["_schedulers"][2].update(T_0=0), ValueError, "'T_0' of state_dict must be 1 or more"),
    ("ChainedScheduler", lambda s: s["_schedulers"][1].update(last_epoch=-1), ValueError, "'last_epoch' of state_dict"),
    ("ChainedScheduler", lambda s: s.update(_schedulers=[3, 4]), TypeError, "state_dict must be a dict, got int"),
]


@pytest.mark.parametrize(("row", "change", "error", "message"), STATES)
def test_state_dicts_that_are_refused(row: str, change: Any, error: Any, message: str) -> None:
    optimizer = pair()
    schedule = ROWS[row](optimizer)
    go(schedule, 3)
    bad = schedule.state_dict()
    go(schedule, 1)
    before = everything(optimizer, schedule)
    change(bad)
    with pytest.raises(error, match=message):
        schedule.load_state_dict(bad)
    assert everything(optimizer, schedule) == before


@rows
def test_what_is_no_state_dict(row: str) -> None:
    with pytest.raises(TypeError, match="state_dict must be a dict, got list"):
        ROWS[row](pair()).load_state_dict([])
