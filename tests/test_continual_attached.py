"""EWC and synaptic intelligence in an optimizer's own kernel: the bits of doing it by hand, on every device."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from grilly_optim.continual import EWC, SynapticIntelligence
from grilly_optim.optim import SGD, Adam, AdamW, AutoHypergradientAdamW, Optimizer
from tests.continual import same
from tests.table import Array, assert_bits, draw

SHAPES = [(300, 7), (5000,), (17,)]
MAKES = [AdamW, Adam, SGD, AutoHypergradientAdamW]
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
makes = pytest.mark.parametrize("make", MAKES, ids=lambda make: make.__name__)


def arrays(seed: int, dtype: Any) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [draw(shape, dtype, rng) for shape in SHAPES]


def pair(make: Any, dtype: Any, device: str) -> tuple[list[Array], Optimizer, list[Array], Optimizer]:
    """The same parameters and optimizer twice."""
    ps, qs = arrays(0, dtype), arrays(0, dtype)
    return ps, make(ps, lr=1e-3, device=device), qs, make(qs, lr=1e-3, device=device)


def assert_same(ps: list[Array], qs: list[Array]) -> None:
    for p, q in zip(ps, qs, strict=True):
        assert_bits(p, q)


@makes
@dtypes
@pytest.mark.parametrize("online", [False, True])
def test_ewc_attached_is_ewc_added_by_hand(make: Any, dtype: Any, online: bool, device: str) -> None:
    ps, attached, qs, by_hand = pair(make, dtype, device)
    ewc = EWC(online=online, gamma=0.5 if online else 1.0)
    attached.attach(ewc, strength=3.0)
    for task in range(3):
        for step in range(3):
            gradients = arrays(100 * task + step, dtype)
            attached.step(gradients=gradients)
            by_hand.step(gradients=[g + dtype(3.0) * e for g, e in zip(gradients, ewc.grad(list(qs)), strict=True)])
            assert_same(ps, qs)
        ewc.consolidate(ps, [np.abs(f) for f in arrays(50 + task, dtype)])


@makes
@dtypes
def test_si_attached_is_si_told_of_every_step(make: Any, dtype: Any, device: str) -> None:
    ps, attached, qs, by_hand = pair(make, dtype, device)
    mine, theirs = SynapticIntelligence(), SynapticIntelligence()
    attached.attach(mine, strength=0.5)
    for task in range(3):
        for step in range(3):
            gradients: list[Any] = arrays(100 * task + step, dtype)
            if step == 1:
                gradients[1] = None
            attached.step(gradients=gradients)
            pulled = theirs.grad(list(qs))
            total = [None if g is None else g + dtype(0.5) * e for g, e in zip(gradients, pulled, strict=True)]
            theirs.pre_step(qs)
            by_hand.step(gradients=total)
            theirs.post_step(qs, gradients)
            assert_same(ps, qs)
        mine.consolidate(ps)
        theirs.consolidate(qs)
        assert mine.penalty([p + 1 for p in ps]) == theirs.penalty([q + 1 for q in qs])
    attached.detach(mine)
    mine.pre_step(ps)  # which an attached one refuses


def test_a_resumed_si_goes_on_where_the_kernel_was(device: str) -> None:
    ps, optimizer, qs, twin = pair(AdamW, np.float32, device)
    si, resumed = SynapticIntelligence(), SynapticIntelligence()
    optimizer.attach(si)
    optimizer.step(gradients=arrays(1, np.float32))
    twin.attach(resumed)
    twin.step(gradients=arrays(1, np.float32))
    resumed.load_state_dict(si.state_dict())
    for o in (optimizer, twin):
        o.step(gradients=arrays(2, np.float32))
    si.consolidate(ps)
    resumed.consolidate(qs)
    assert si.penalty([p + 1 for p in ps]) == resumed.penalty([q + 1 for q in qs]) > 0


def test_a_method_for_other_parameters_is_refused(device: str) -> None:
    ps, optimizer, _, _ = pair(AdamW, np.float32, device)
    ewc = EWC()
    ewc.consolidate(ps[:2], [np.abs(p) for p in ps[:2]])
    with pytest.raises(ValueError, match="theta has 3 arrays, and there are 2 parameters"):
        optimizer.attach(ewc)
    optimizer.attach(ewc, params=ps[:2])
    with pytest.raises(ValueError, match="EWC is attached already"):
        optimizer.attach(EWC())
    with pytest.raises(TypeError, match="method must be an EWC or a SynapticIntelligence"):
        optimizer.attach("ewc")  # type: ignore[arg-type]  # the type under test


def test_an_si_is_attached_to_one_optimizer(device: str) -> None:
    _, optimizer, _, other = pair(AdamW, np.float32, device)
    si = SynapticIntelligence()
    optimizer.attach(si)
    with pytest.raises(ValueError, match="attached to an optimizer already"):
        other.attach(si)
    optimizer.detach(si)
    other.attach(si)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda si: pickle.loads(pickle.dumps(si))])
def test_a_copy_of_an_attached_si_has_its_integral_and_is_attached_to_nothing(duplicate: Any, device: str) -> None:
    _, optimizer, qs, _ = pair(AdamW, np.float32, device)
    si = SynapticIntelligence()
    optimizer.attach(si)
    optimizer.step(gradients=arrays(1, np.float32))
    again = duplicate(si)
    same(again.state_dict(), si.state_dict())
    kept = again.state_dict()
    optimizer.step(gradients=arrays(2, np.float32))
    assert (si.state_dict()["omega"][0] != kept["omega"][0]).any()
    same(again.state_dict(), kept)
    again.pre_step(qs)  # which an attached one refuses


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(7, 300), (5000,), (17,)], r"EWC is attached and now holds on to shape \(7, 300\) at 0, expected \(300, 7\)"),
        (SHAPES[:2], "EWC is attached and now holds on to 2 parameters, expected 3"),
        ([*SHAPES, (2,)], "EWC is attached and now holds on to 4 parameters, expected 3"),
    ],
)
def test_a_penalty_that_becomes_one_of_other_parameters_is_refused(others: Any, message: str, device: str) -> None:
    ps, optimizer, qs, twin = pair(AdamW, np.float32, device)
    ewc = EWC()
    optimizer.attach(ewc)
    new = ewc.state_dict()
    ewc.consolidate(*2 * [[np.ones(shape, np.float32) for shape in others]])
    for call in (optimizer.step, optimizer.peek):
        with pytest.raises(ValueError, match=message):
            call(gradients=arrays(1, np.float32))
        assert_same(ps, qs)
    ewc.load_state_dict(new)
    for o in (optimizer, twin):
        o.step(gradients=arrays(1, np.float32))
    assert_same(ps, qs)


@pytest.mark.parametrize(
    "others", [[], [np.ones((3, 2))], [np.ones((2, 3), np.float32)]], ids=["none", "another shape", "another precision"]
)
def test_a_state_of_other_parameters_is_not_loaded_into_an_attached_si(others: list[Array], device: str) -> None:
    w, si, other = np.ones((2, 3)), SynapticIntelligence(), SynapticIntelligence(0.5)
    optimizer = SGD([w], lr=0.1, device=device)
    optimizer.attach(si)
    optimizer.step(gradients=[np.ones((2, 3))])
    if others:
        other.post_step(others, others, delta=others)
    with pytest.raises(ValueError, match="state_dict has other parameters than the optimizer"):
        si.load_state_dict(other.state_dict())
    assert si.epsilon == 1e-3
    si.consolidate([w])
    assert si.penalty([w + 1]) > 0
    optimizer.detach(si)
    si.load_state_dict(other.state_dict())


@pytest.mark.parametrize("loaded", [False, True])
def test_a_step_that_was_begun_by_hand_ends_with_attaching(loaded: bool) -> None:
    w, si = np.ones(3), SynapticIntelligence()
    optimizer = SGD([w], lr=0.1, device="numpy")
    si.pre_step(w)
    begun = si.state_dict()
    optimizer.attach(si)
    if loaded:
        si.load_state_dict(begun)
    optimizer.step(gradients=[np.ones(3)])
    optimizer.detach(si)
    with pytest.raises(ValueError, match="post_step needs a pre_step"):
        si.post_step(w, np.ones(3))  # it would count the optimizer's step again
