"""State dicts of schedules: going on exactly, snapshots, copies, what is refused."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from grilly_optim.schedules import CosineAnnealingWarmRestarts, LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from tests.schedule_table import ROWS, Groups, everything, go, half, pair, rows


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
    (
        "ReduceLROnPlateau",
        lambda s: s.update(best=math.nan),
        ValueError,
        "'best' of state_dict must be a number, got nan",
    ),
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
