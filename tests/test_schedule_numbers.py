"""The learning rates and momenta of schedules: closed forms, corners, limits. Torch's bits are in tests/parity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.optim import SGD, AdamW
from grilly_optim.schedules import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)
from tests.schedule_table import ROWS, Build, Groups
from tests.table import assert_bits, draw

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


def test_one_cycle_brings_momentum_to_an_optimizer_without() -> None:
    """As in torch, where SGD makes its buffer when it needs one."""
    p, q = np.ones(3), np.ones(3)
    optimizer, other = SGD([p], lr=0.1), SGD([q], lr=0.1, momentum=0.5)
    for o in (optimizer, other):
        schedule = OneCycleLR(o, max_lr=0.1, total_steps=10)
        for _ in range(9):
            o.step(gradients=[np.ones(3)])
            schedule.step()
    assert_bits(p, q)


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
