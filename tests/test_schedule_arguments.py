"""Bad arguments of schedules: one error that names them, and groups and schedules as they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

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
from tests.schedule_table import Build, Groups, everything, half

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
    (lambda o: OneCycleLR(o, 0.1, 9, div_factor=0), ValueError, "div_factor must be above 0, got 0"),
    (lambda o: OneCycleLR(o, 0.1, 9, final_div_factor=-1), ValueError, "final_div_factor must be above 0, got -1"),
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
