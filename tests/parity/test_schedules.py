"""Side by side with torch's schedules: every learning rate and momentum, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as originals

from grilly_optim import schedules
from grilly_optim.optim import AdamW

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning"),
]

Build = Callable[[Any, Any], Any]  # from a module with the classes, and an optimizer
LRS = (0.1, 0.037, 3e-4)


class Groups:
    """The least that has groups."""

    def __init__(self, *groups: dict[str, Any]) -> None:
        self.param_groups = [dict(g) for g in groups]


def both(options: dict[str, Any] | None = None, lrs: tuple[float, ...] = LRS) -> tuple[AdamW, Any]:
    """An AdamW of ours and torch's, with a group for each learning rate."""
    mine = AdamW([{"params": [np.zeros(2)], "lr": lr} for lr in lrs], **(options or {}), device="numpy")
    theirs = torch.optim.AdamW(
        [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": lr} for lr in lrs], **(options or {})
    )
    return mine, theirs


def seen(optimizer: Any) -> list[Any]:
    """What a schedule may write."""
    names = ("lr", "initial_lr", "max_lr", "min_lr", "betas", "momentum", "max_momentum", "base_momentum")
    return [{name: g[name] for name in names if name in g} for g in optimizer.param_groups]


def same(mine: Any, theirs: Any) -> None:
    assert seen(mine.optimizer) == seen(theirs.optimizer)
    assert mine.get_last_lr() == theirs.get_last_lr()
    assert all(type(lr) is float for lr in mine.get_last_lr())


ROWS: dict[str, Build] = {
    "step": lambda m, o: m.StepLR(o, 7),
    "step-1": lambda m, o: m.StepLR(o, 1, 0.97),
    "step-grows": lambda m, o: m.StepLR(o, step_size=10, gamma=1.7),
    "step-to-0": lambda m, o: m.StepLR(o, 5, 0),
    "multistep": lambda m, o: m.MultiStepLR(o, [3, 4, 40]),
    "multistep-0": lambda m, o: m.MultiStepLR(o, [0, 5, 5, 5, 9], gamma=0.3),
    "multistep-none": lambda m, o: m.MultiStepLR(o, []),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.93),
    "exponential-1": lambda m, o: m.ExponentialLR(o, gamma=1),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 17),
    "cosine-min": lambda m, o: m.CosineAnnealingLR(o, T_max=10, eta_min=0.002),
    "cosine-1": lambda m, o: m.CosineAnnealingLR(o, 1),
    "cosine-long": lambda m, o: m.CosineAnnealingLR(o, 1000, 1e-6),
    "warm-restarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 10),
    "warm-restarts-2": lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=1e-5),
    "warm-restarts-1": lambda m, o: m.CosineAnnealingWarmRestarts(o, 1, 3),
    "one-cycle": lambda m, o: m.OneCycleLR(o, 0.3, 120),
    "one-cycle-epochs": lambda m, o: m.OneCycleLR(o, 0.3, epochs=40, steps_per_epoch=3),
    "one-cycle-groups": lambda m, o: m.OneCycleLR(
        o, [0.3, 0.2, 0.1], 130, base_momentum=[0.8, 0.7, 0.6], max_momentum=[0.9, 0.95, 0.99]
    ),
    "one-cycle-three": lambda m, o: m.OneCycleLR(o, 0.3, 120, three_phase=True, pct_start=0.4),
    "one-cycle-three-past-the-end": lambda m, o: m.OneCycleLR(o, 0.3, 120, three_phase=True, pct_start=0.7),
    "one-cycle-linear": lambda m, o: m.OneCycleLR(o, 0.3, 200, anneal_strategy="linear", pct_start=0.25),
    "one-cycle-all-down": lambda m, o: m.OneCycleLR(o, 0.3, 200, pct_start=0.0, div_factor=3, final_div_factor=7),
    "one-cycle-to-0": lambda m, o: m.OneCycleLR(o, 0.3, 120, final_div_factor=math.inf),
    "one-cycle-no-momentum": lambda m, o: m.OneCycleLR(o, 0.3, 120, cycle_momentum=False),
    "lambda": lambda m, o: m.LambdaLR(o, lambda epoch: 0.95**epoch),
    "lambda-groups": lambda m, o: m.LambdaLR(o, [lambda e: 1 / (1 + e), lambda e: e // 3, lambda e: True]),
    "lambda-hypnettorch": lambda m, o: m.LambdaLR(o, schedules.lambda_lr_schedule),
    "multiplicative": lambda m, o: m.MultiplicativeLR(o, lambda epoch: 1 - 1 / (epoch + 3)),
    "multiplicative-groups": lambda m, o: m.MultiplicativeLR(o, [lambda e: 0.9, lambda e: 0.8, lambda e: 1]),
    "linear": lambda m, o: m.LinearLR(o),
    "linear-down": lambda m, o: m.LinearLR(o, 1.0, 0.1, 33),
    "linear-up": lambda m, o: m.LinearLR(o, start_factor=1e-3, total_iters=100),
    "constant": lambda m, o: m.ConstantLR(o),
    "constant-more": lambda m, o: m.ConstantLR(o, factor=0.7, total_iters=50),
    "polynomial": lambda m, o: m.PolynomialLR(o),
    "polynomial-2.5": lambda m, o: m.PolynomialLR(o, total_iters=60, power=2.5),
    "polynomial-0": lambda m, o: m.PolynomialLR(o, power=0),
    "sequential": lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1), m.CosineAnnealingLR(o, 30)], [5]),
    "sequential-many": lambda m, o: m.SequentialLR(
        o,
        [
            m.ConstantLR(o, 0.3),
            m.StepLR(o, 3),
            m.MultiStepLR(o, [0, 2]),
            m.ExponentialLR(o, 0.9),
            m.CosineAnnealingWarmRestarts(o, 4, 2),
            m.LambdaLR(o, lambda e: 0.9**e),
            m.MultiplicativeLR(o, lambda e: 0.9),
            m.PolynomialLR(o),
            m.CosineAnnealingLR(o, 9, 1e-4),
            m.ConstantLR(o, 0.5, 3),
            m.LinearLR(o),
        ],
        [6, 12, 18, 24, 44, 50, 51, 60, 70, 80],
    ),
    "sequential-restarts-first": lambda m, o: m.SequentialLR(
        o, [m.CosineAnnealingWarmRestarts(o, 4, 2), m.ExponentialLR(o, 0.9)], [33]
    ),
    "sequential-0": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3), m.ExponentialLR(o, 0.9)], [0]),
    "sequential-one": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3)], []),
    "sequential-one-cycle": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o), m.OneCycleLR(o, 0.5, total_steps=120)], milestones=[4]
    ),
    "chained": lambda m, o: m.ChainedScheduler([m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.9)]),
    "chained-cosine": lambda m, o: m.ChainedScheduler(
        [m.LinearLR(o, 0.01, total_iters=9), m.CosineAnnealingLR(o, 50), m.StepLR(o, 13)], o
    ),
    "chained-sequential": lambda m, o: m.ChainedScheduler(
        [m.SequentialLR(o, [m.ConstantLR(o), m.StepLR(o, 5)], [7]), m.ExponentialLR(o, 0.99)]
    ),
}


def stepping(build: Build, steps: int) -> Iterator[tuple[Any, Any]]:
    mine, theirs = both()
    schedule, original = build(schedules, mine), build(originals, theirs)
    yield schedule, original
    for _ in range(steps):
        schedule.step()
        original.step()
        yield schedule, original


@pytest.mark.parametrize("row", ROWS)
def test_every_step(row: str) -> None:
    for schedule, original in stepping(ROWS[row], 120):
        same(schedule, original)
        assert getattr(schedule, "last_epoch", None) == getattr(original, "last_epoch", None)
        assert getattr(schedule, "base_lrs", None) == getattr(original, "base_lrs", None)


@pytest.mark.parametrize("row", ROWS)
def test_learning_rates_changed_from_outside(row: str) -> None:
    for step, (schedule, original) in enumerate(stepping(ROWS[row], 60)):
        same(schedule, original)
        for s in (schedule, original):
            s.optimizer.param_groups[step % 3]["lr"] *= 1.25


RESUMED: dict[str, Callable[[Any, Any, int], Any]] = {
    "step": lambda m, o, e: m.StepLR(o, 7, last_epoch=e),
    "multistep": lambda m, o, e: m.MultiStepLR(o, [3, 4, 8], last_epoch=e),
    "exponential": lambda m, o, e: m.ExponentialLR(o, 0.93, e),
    "cosine": lambda m, o, e: m.CosineAnnealingLR(o, 8, 1e-4, e),
    "warm-restarts": lambda m, o, e: m.CosineAnnealingWarmRestarts(o, 5, last_epoch=e),
    "one-cycle": lambda m, o, e: m.OneCycleLR(o, 0.3, 50, last_epoch=e),
    "lambda": lambda m, o, e: m.LambdaLR(o, lambda t: 0.9**t, e),
    "multiplicative": lambda m, o, e: m.MultiplicativeLR(o, lambda t: 0.9, e),
    "linear": lambda m, o, e: m.LinearLR(o, total_iters=12, last_epoch=e),
    "constant": lambda m, o, e: m.ConstantLR(o, total_iters=8, last_epoch=e),
    "polynomial": lambda m, o, e: m.PolynomialLR(o, total_iters=12, last_epoch=e),
    "sequential": lambda m, o, e: m.SequentialLR(
        o, [m.StepLR(o, 3, last_epoch=e), m.ExponentialLR(o, 0.9)], [15], last_epoch=e
    ),
}


@pytest.mark.parametrize("epoch", [0, 2, 6, 7, 8, 12])
@pytest.mark.parametrize("row", RESUMED)
def test_going_on_by_last_epoch(row: str, epoch: int) -> None:
    mine, theirs = both()
    schedule, original = RESUMED[row](schedules, mine, -1), RESUMED[row](originals, theirs, -1)
    for _ in range(epoch):
        schedule.step()
        original.step()
    schedule, original = RESUMED[row](schedules, mine, epoch), RESUMED[row](originals, theirs, epoch)
    same(schedule, original)
    for _ in range(20):
        schedule.step()
        original.step()
        same(schedule, original)


EPOCHS = [0, 0.25, 0.5, 1, 2.75, 3, 3.5, 8.9, 9, 10, 21, 33.3, 3, 0]


@pytest.mark.parametrize("mult", [1, 2])
def test_warm_restarts_at_any_epoch(mult: int) -> None:
    def build(m: Any, o: Any) -> Any:
        return m.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=mult, eta_min=1e-4)

    mine, theirs = both()
    schedule, original = build(schedules, mine), build(originals, theirs)
    for epoch in EPOCHS:
        schedule.step(epoch)
        original.step(epoch)
        same(schedule, original)
        schedule.step()
        original.step()
        same(schedule, original)


@pytest.mark.parametrize("key", ["betas", "momentum"])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_momentum_of_one_cycle(key: str, strategy: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    theirs: Any = (
        torch.optim.SGD([parameter], lr=0.1, momentum=0.5)
        if key == "momentum"
        else torch.optim.Adam([parameter], lr=0.1, betas=(0.5, 0.75))
    )
    mine = Groups({"lr": 0.1, key: 0.5 if key == "momentum" else (0.5, 0.75)})
    options: dict[str, Any] = {"max_lr": 0.7, "total_steps": 57, "anneal_strategy": strategy, "pct_start": 0.4}
    schedule, original = schedules.OneCycleLR(mine, **options), originals.OneCycleLR(theirs, **options)
    same(schedule, original)
    for _ in range(56):
        schedule.step()
        original.step()
        same(schedule, original)


PLATEAUS: list[dict[str, Any]] = [
    {},
    {"patience": 0},
    {"patience": 2, "factor": 0.5, "cooldown": 3},
    {"mode": "max", "patience": 1, "threshold": 0.1},
    {"threshold_mode": "abs", "patience": 1, "threshold": 0.3},
    {"mode": "max", "threshold_mode": "abs", "patience": 1, "threshold": 0.3, "cooldown": 1},
    {"patience": 0, "min_lr": 1e-3, "factor": 0.3},
    {"patience": 0, "min_lr": [1e-2, 1e-3, 0], "eps": 1e-3},
    {"patience": 0, "factor": 0},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_plateaus(options: dict[str, Any]) -> None:
    mine, theirs = both()
    schedule = schedules.ReduceLROnPlateau(mine, **options)
    original = originals.ReduceLROnPlateau(theirs, **options)
    rng = np.random.default_rng(0)
    values = [*rng.standard_normal(60).cumsum(), math.nan, math.inf, -math.inf, *rng.random(40), *[0.0] * 20]
    for value in values:
        schedule.step(value)
        original.step(value)
        same(schedule, original)
        for name in ("best", "num_bad_epochs", "cooldown_counter", "in_cooldown", "last_epoch"):
            assert getattr(schedule, name) == getattr(original, name), name


GOING_ON = ("step", "multistep", "exponential", "cosine-long", "linear-up", "constant-more", "polynomial")


@pytest.mark.parametrize("row", GOING_ON)
def test_groups_that_are_added_later_take_part_in_schedules_that_go_on_from_the_last_rate(row: str) -> None:
    for step, (schedule, original) in enumerate(stepping(ROWS[row], 60)):
        same(schedule, original)
        if step == 4:
            schedule.optimizer.add_param_group({"params": [np.zeros(1)], "lr": 0.5})
            original.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5})
            assert len(schedule.optimizer.param_groups) == 4


def test_groups_that_are_added_later_with_a_plateau() -> None:
    mine, theirs = both()
    schedule = schedules.ReduceLROnPlateau(mine, patience=0, min_lr=1e-2)
    original = originals.ReduceLROnPlateau(theirs, patience=0, min_lr=1e-2)
    mine.add_param_group({"params": [np.zeros(1)], "lr": 0.5})
    theirs.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5})
    for _ in range(9):
        schedule.step(1.0)
        original.step(1.0)
        same(schedule, original)
    assert mine.param_groups[3]["lr"] == 0.01


@pytest.mark.parametrize("row", [r for r in ROWS if "lambda" not in r])
def test_state_dicts_hold_what_torchs_hold_under_the_same_names(row: str) -> None:
    *_, (schedule, original) = stepping(ROWS[row], 40)
    mine, theirs = schedule.state_dict(), original.state_dict()
    own = {"pct_start", "anneal_strategy", "three_phase"}  # torch keeps what it makes of them
    assert set(mine) - own <= set(theirs)
    for name in set(mine) - own - {"_schedulers", "milestones"}:
        assert mine[name] == theirs[name], name


# Where we differ on purpose.


def test_a_line_to_0_ends_at_0_where_torch_may_end_below() -> None:
    below = 0
    for steps in range(1, 100):
        (mine, theirs), start = both(), 0.7
        schedule = schedules.LinearLR(mine, start, 0.0, steps)
        original = originals.LinearLR(theirs, start, 0.0, steps)
        for _ in range(steps):
            same(schedule, original)
            schedule.step()
            original.step()
        below += original.get_last_lr()[0] < 0
        assert schedule.get_last_lr() == [max(0.0, lr) for lr in original.get_last_lr()]
    assert below > 0


def test_the_step_after_a_linear_cycle_holds_where_torch_goes_on_below_0() -> None:
    mine, theirs = both()
    options: dict[str, Any] = {"max_lr": 0.7, "total_steps": 10, "anneal_strategy": "linear"}
    schedule, original = schedules.OneCycleLR(mine, **options), originals.OneCycleLR(theirs, **options)
    for _ in range(9):
        schedule.step()
        original.step()
    same(schedule, original)
    last = seen(mine)
    schedule.step()
    original.step()
    assert seen(mine) == last
    assert original.get_last_lr()[0] < 0
    assert theirs.param_groups[0]["betas"][0] > 0.95


def test_a_phase_of_no_length_is_over_at_once_where_torch_divides_by_0() -> None:
    mine, theirs = both()
    schedules.OneCycleLR(mine, 0.7, total_steps=10, pct_start=0.1)
    assert mine.param_groups[0]["lr"] == 0.7
    with pytest.raises(ZeroDivisionError):
        originals.OneCycleLR(theirs, 0.7, total_steps=10, pct_start=0.1)

    mine, theirs = both()
    schedule = schedules.OneCycleLR(mine, 0.7, total_steps=4, pct_start=1.0)
    original = originals.OneCycleLR(theirs, 0.7, total_steps=4, pct_start=1.0)
    for _ in range(3):
        schedule.step()
        original.step()
        same(schedule, original)
    schedule.step()
    assert mine.param_groups[0]["lr"] == mine.param_groups[0]["min_lr"]
    with pytest.raises(ZeroDivisionError):
        original.step()


def test_a_restart_is_met_exactly_where_torchs_logarithm_is_rounded() -> None:
    mine, theirs = both()
    schedule = schedules.CosineAnnealingWarmRestarts(mine, 1, 3)
    original = originals.CosineAnnealingWarmRestarts(theirs, 1, 3)
    for _ in range(121):
        schedule.step()
    assert (schedule.T_cur, schedule.T_i) == (0, 243)
    schedule.step(121)
    original.step(121)
    assert (schedule.T_cur, schedule.T_i) == (0, 243)
    assert (original.T_cur, original.T_i) == (81, 81)
    assert original.get_last_lr() == [0.0] * 3


def test_going_on_by_last_epoch_in_a_longer_cycle_keeps_its_length_where_torch_forgets_it() -> None:
    mine, theirs = both()
    whole = schedules.CosineAnnealingWarmRestarts(mine, 5, 2)
    for _ in range(13):
        whole.step()
    originals.CosineAnnealingWarmRestarts(theirs, 5, 2)
    schedule = schedules.CosineAnnealingWarmRestarts(mine, 5, 2, last_epoch=12)
    original = originals.CosineAnnealingWarmRestarts(theirs, 5, 2, last_epoch=12)
    assert schedule.get_last_lr() == whole.get_last_lr()
    assert original.get_last_lr() != whole.get_last_lr()


def test_a_composition_in_a_sequence_is_refused_where_torch_miscounts_or_fails() -> None:
    def inner(m: Any, o: Any) -> Any:
        return m.SequentialLR(o, [m.ConstantLR(o), m.ExponentialLR(o, 0.5)], [3])

    def chained(m: Any, o: Any) -> Any:
        return m.ChainedScheduler([m.ExponentialLR(o, 0.5)])

    for build in (inner, chained):
        mine, theirs = both()
        with pytest.raises(TypeError, match="no compositions"):
            schedules.SequentialLR(mine, [build(schedules, mine), schedules.StepLR(mine, 3)], [9])
        original = originals.SequentialLR(theirs, [originals.StepLR(theirs, 3), build(originals, theirs)], [1])
        with pytest.raises(NotImplementedError):
            original.step()
    _, theirs = both()
    nested = originals.SequentialLR(theirs, [inner(originals, theirs), originals.StepLR(theirs, 9)], [9])
    assert (nested.last_epoch, nested._schedulers[0].last_epoch) == (0, 1)
    _, theirs = both()
    nested = originals.SequentialLR(theirs, [chained(originals, theirs), originals.StepLR(theirs, 9)], [9])
    assert nested.get_last_lr()[0] == LRS[0] / 2


def test_a_step_that_fails_changes_nothing_where_torch_has_moved_on() -> None:
    mine, theirs = both()
    schedule, original = schedules.LambdaLR(mine, lambda e: 0.5**e), originals.LambdaLR(theirs, lambda e: 0.5**e)
    mine.add_param_group({"params": [np.zeros(1)]})
    theirs.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    with pytest.raises(ValueError, match="4 groups, and LambdaLR was built when it had 3"):
        schedule.step()
    with pytest.raises(ValueError, match="zip"):
        original.step()
    assert (schedule.last_epoch, mine.param_groups[0]["lr"]) == (0, LRS[0])
    assert (original.last_epoch, theirs.param_groups[0]["lr"]) == (1, LRS[0] / 2)


@pytest.mark.parametrize("name", ["LinearLR", "ConstantLR"])
def test_no_epochs_at_all_are_refused_where_torch_stays_at_the_first_factor(name: str) -> None:
    mine, theirs = both()
    with pytest.raises(ValueError, match="total_iters must be 1 or more"):
        getattr(schedules, name)(mine, total_iters=0)
    original = getattr(originals, name)(theirs, total_iters=0)
    for _ in range(5):
        original.step()
    assert original.get_last_lr()[0] == LRS[0] / 3


def test_learning_rates_are_python_floats_where_torch_keeps_the_type_that_comes() -> None:
    (mine, theirs), value = both(), np.float32(0.1)
    for optimizer in (mine, theirs):
        optimizer.param_groups[0]["lr"] = value
    schedule, original = schedules.StepLR(mine, 1), originals.StepLR(theirs, 1)
    schedule.step()
    original.step()
    assert mine.param_groups[0]["lr"] == float(value) * 0.1
    assert type(mine.param_groups[0]["lr"]) is float
    assert type(theirs.param_groups[0]["lr"]) is np.float32
