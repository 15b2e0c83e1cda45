"""Attaching and detaching: strengths, places that are taken, refusals that leave everything as it was."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.optim import AdamW
from tests.attached import Path, Penalty, against_hand, both
from tests.table import Array, assert_bits, draw


def test_attaching_again_is_a_new_strength(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty = Penalty.like(ps, np.random.default_rng(6))
    for strength in (None, 3.0, 0.0, 0.5, 0):
        optimizer.attach(penalty, strength=strength)
        expected = 1.0 if strength is None else strength
        for _ in range(2):
            against_hand(optimizer, by_hand, ps, qs, [(penalty, expected)] if expected else [])


def test_attaching_a_path_again_keeps_what_it_has_summed_up(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    path = Path.like(ps, np.random.default_rng(7))
    optimizer.attach(path, params=ps)
    against_hand(optimizer, by_hand, ps, qs, [])
    optimizer.attach(path, strength=0.7)
    assert all(t.any() for t in path.source.take())
    against_hand(optimizer, by_hand, ps, qs, [(path, 0.7)])
    optimizer.attach(path, params=ps)  # None: the path integral alone
    against_hand(optimizer, by_hand, ps, qs, [])
    assert all(t.any() for t in path.source.take())


def test_detaching_leaves_the_rest_as_it_is(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty, path = Penalty.like(ps, np.random.default_rng(8)), Path()
    optimizer.attach(penalty)
    optimizer.attach(path)
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])
    optimizer.detach(penalty)
    assert penalty.parameters is None
    against_hand(optimizer, by_hand, ps, qs, [])
    assert all(t.any() for t in path.source.take())
    optimizer.detach(path)
    assert path.source is None
    against_hand(optimizer, by_hand, ps, qs, [])
    for method in (penalty, path):
        with pytest.raises(ValueError, match=f"{type(method).__name__} is not attached to this optimizer"):
            optimizer.detach(method)


def test_methods_against_forgetting_are_for_losses(device: str) -> None:
    """Also when a group begins to maximize later; a method for the other group is none of its business."""
    ps = [np.ones(3), np.ones(2)]
    optimizer = AdamW([{"params": ps[:1], "maximize": True}, {"params": ps[1:]}], device=device)
    penalty = Penalty.like(ps[1:], np.random.default_rng(2))
    with pytest.raises(ValueError, match="Path is for losses, which are minimized, and group 0 has maximize=True"):
        optimizer.attach(Path())
    optimizer.attach(penalty, params=ps[1:])
    optimizer.step(gradients=[np.ones(3), np.ones(2)])
    optimizer.param_groups[1]["maximize"] = True
    before = [p.copy() for p in ps]
    with pytest.raises(ValueError, match="Penalty is for losses, which are minimized, and group 1 has maximize=True"):
        optimizer.step(gradients=[np.ones(3), np.ones(2)])
    for p, b in zip(ps, before, strict=True):
        assert_bits(p, b)
    optimizer.detach(penalty)
    optimizer.step(gradients=[np.ones(3), np.ones(2)])


def test_two_that_need_the_same_place_are_refused(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    rng = np.random.default_rng(9)
    path, penalty = Path.like(ps, rng), Penalty.like(ps, rng)
    optimizer.attach(path)
    optimizer.attach(penalty, strength=2.0)
    refused: list[tuple[Any, Any, str]] = [
        (Penalty.like(ps, rng), None, "Penalty is attached already"),
        (Path(), None, "Path is attached already"),
        (Path.like(ps, rng), 1.0, "P[a-z]* is attached already"),
        (path, 1.0, "Penalty is attached already, and a step carries one penalty"),
    ]
    for method, strength, message in refused:
        with pytest.raises(ValueError, match=message):
            optimizer.attach(method, strength=strength)
        assert method is path or method.parameters is None
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 2.0)])
    assert all(t.any() for t in path.source.take())
    # One without weight leaves the place to another.
    optimizer.attach(penalty, strength=0.0)
    optimizer.attach(path, strength=1.5)
    against_hand(optimizer, by_hand, ps, qs, [(path, 1.5)])
    with pytest.raises(ValueError, match="Path is attached already"):
        optimizer.attach(penalty, strength=2.0)
    against_hand(optimizer, by_hand, ps, qs, [(path, 1.5)])


class Refusing(Path):
    def _attach(self, parameters: list[Array], source: Any) -> None:
        raise ValueError("not these parameters")


def test_a_method_that_refuses_leaves_nothing_behind(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty = Penalty.like(ps, np.random.default_rng(10))
    optimizer.attach(penalty)
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])
    gc.collect()
    before = grilly_optim.counters(device)["bytes_allocated"]
    with pytest.raises(ValueError, match="not these parameters"):
        optimizer.attach(Refusing())
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])
    gc.collect()
    assert grilly_optim.counters(device)["bytes_allocated"] == before
    path = Path()
    optimizer.attach(path)
    assert not any(t.any() for t in path.source.take())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda ps: {"method": object()}, TypeError, "method must be an EWC or a SynapticIntelligence .* got object"),
        (
            lambda ps: {"method": Penalty(), "strength": -1.0},
            ValueError,
            "strength must be 0 or more, and finite, got -1",
        ),
        (
            lambda ps: {"method": Penalty(), "strength": np.nan},
            ValueError,
            "strength must be 0 or more, and finite, got nan",
        ),
        (lambda ps: {"method": Penalty(), "strength": "much"}, TypeError, "strength must be a real number, got 'much'"),
        (
            lambda ps: {"method": Penalty(), "params": [ps[0], ps[0][:]]},
            ValueError,
            "params has something at 1 that is no",
        ),
        (lambda ps: {"method": Penalty(), "params": [ps[1], ps[1]]}, ValueError, "params has an array more than once"),
        (
            lambda ps: {"method": Penalty(), "params": ps[0]},
            ValueError,
            "params has something at 0 that is no",
        ),
        (lambda ps: {"method": Penalty(), "params": []}, ValueError, "params is empty"),
        (lambda ps: {"method": Penalty(), "params": 3}, TypeError, "params must be a sequence of arrays, got int"),
    ],
)
def test_bad_arguments_get_one_error_and_change_nothing(arguments: Any, error: type[Exception], message: str) -> None:
    ps, qs, optimizer, by_hand = both("numpy")
    given = arguments(ps)
    with pytest.raises(error, match=message):
        optimizer.attach(**given)
    with pytest.raises(ValueError, match="is not attached"):
        optimizer.detach(given["method"])
    against_hand(optimizer, by_hand, ps, qs, [])


def test_the_parameters_of_an_attached_method_stay_the_same() -> None:
    ps, qs, optimizer, by_hand = both("numpy")
    path = Path()
    optimizer.attach(path, params=ps[:1])
    with pytest.raises(ValueError, match="Path is attached to other params: detach it first"):
        optimizer.attach(path, params=ps)
    optimizer.attach(path)  # the same as before
    against_hand(optimizer, by_hand, ps, qs, [])
    assert [t.shape for t in path.source.take()] == [(300,)]
    penalty = Penalty.like(ps[1:], np.random.default_rng(17))
    optimizer.attach(penalty, params=ps[1:])
    optimizer.attach(penalty, strength=4.0)
    gradients = [draw(p.shape, p.dtype) for p in ps]
    optimizer.step(gradients=gradients)
    by_hand.step(gradients=[gradients[0], gradients[1] + penalty.gradient(0, qs[1], 4.0)])
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)


def test_what_cannot_be_freed_is_detached_all_the_same(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty = Penalty.like(ps, np.random.default_rng(18))
    optimizer.attach(penalty)
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])

    def refuse(*_: Any) -> None:
        raise grilly_optim.OutOfDeviceMemory("no room")

    monkeypatch.setattr(optimizer, "_rebuild", refuse)
    with pytest.raises(grilly_optim.OutOfDeviceMemory, match="no room"):
        optimizer.detach(penalty)
    against_hand(optimizer, by_hand, ps, qs, [])
