"""Penalties and path integrals that an optimizer's kernel carries: the same as doing it by hand, to the last bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.continual import EWC, SynapticIntelligence
from grilly_optim.optim import AdamW, clip_grad_value
from tests.attached import Path, Penalty, both
from tests.hyper_table import assert_same
from tests.table import Array, arrays_of_all_layouts, assert_bits, draw, makes, plain


@makes
@pytest.mark.parametrize("clip_value", [None, 0.5])
def test_a_penalty_is_its_gradient_added_by_hand(make: Any, clip_value: float | None, device: str) -> None:
    rng = np.random.default_rng(0)
    ps = arrays_of_all_layouts(rng)
    qs = plain(ps)
    penalty = Penalty.like(ps, rng)
    optimizer, by_hand = make(ps, device), make(qs, "numpy")
    optimizer.attach(penalty, strength=0.3)
    for step in range(4):
        gradients = [draw(p.shape, p.dtype, rng) for p in ps]
        given: list[Any] = [None if step == 2 and i % 2 else g for i, g in enumerate(gradients)]
        kept = copy.deepcopy(given)
        optimizer.step(gradients=given, clip_value=clip_value)
        assert_same(given, kept)
        if clip_value is not None:
            clip_grad_value([g for g in given if g is not None], clip_value)
        sums = [
            None if g is None else g + penalty.gradient(i, q, 0.3)
            for i, (q, g) in enumerate(zip(qs, given, strict=True))
        ]
        by_hand.step(gradients=sums)
        for i, (p, q) in enumerate(zip(ps, qs, strict=True)):
            assert_bits(np.array(p), q, f"step {step}, parameter {i}")
    assert_same(optimizer.state_dict(), by_hand.state_dict())


@makes
@pytest.mark.parametrize("clip", [{}, {"clip_value": 0.5}, {"max_norm": 0.1}], ids=str)
def test_a_path_integral_is_the_sum_of_changes_times_gradients(make: Any, clip: Any, device: str) -> None:
    """The gradients are those given: not clipped, and without the penalty that is attached beside it."""
    rng = np.random.default_rng(1)
    ps = arrays_of_all_layouts(rng)
    penalty, path = Penalty.like(ps, rng), Path()
    optimizer = make(ps, device)
    optimizer.attach(path)
    optimizer.attach(penalty, strength=0.3)
    for count in (3, 2):
        sums = [np.zeros(p.shape, p.dtype) for p in ps]
        for step in range(count):
            gradients: list[Any] = [draw(p.shape, p.dtype, rng) for p in ps]
            if step == 1:
                gradients[::2] = [None] * len(gradients[::2])
            before = plain(ps)
            optimizer.step(gradients=gradients, **clip)
            for i, (p, b, g) in enumerate(zip(ps, before, gradients, strict=True)):
                if g is not None:
                    sums[i] = np.asarray(sums[i] - (np.array(p) - b) * g)
        for i, (found, expected) in enumerate(zip(path.source.take(), sums, strict=True)):
            assert_bits(found, expected, f"parameter {i}")
    assert not any(t.any() for t in path.source.take())


def test_a_gradient_in_the_parameters_own_memory_counts_as_it_was(device: str) -> None:
    def run(alias: bool) -> tuple[Array, Array]:
        p, path = draw(40_000, rng=np.random.default_rng(2)), Path()
        optimizer = AdamW([p], lr=0.1, device=device)
        optimizer.attach(path)
        for _ in range(3):
            optimizer.step(gradients=[p if alias else p.copy()])
        return p, path.source.take()[0]

    for actual, expected in zip(run(True), run(False), strict=True):
        assert_bits(actual, expected)
        assert expected.any()


def test_a_step_with_everything_attached_is_one_kernel_run(device: str) -> None:
    p = draw(5000)
    optimizer = AdamW([p], device=device)
    optimizer.attach(Penalty.like([p], np.random.default_rng(3)))
    optimizer.attach(Path())
    optimizer.step(gradients=[draw(5000)])
    before = grilly_optim.counters(device)
    optimizer.step(gradients=[draw(5000)], clip_value=0.1)
    after = grilly_optim.counters(device)
    assert after["dispatches"] - before["dispatches"] == 1
    assert after["submits"] - before["submits"] == (1 if device.startswith("vulkan") else 0)


def test_a_part_of_the_parameters_in_the_methods_order(device: str) -> None:
    rng = np.random.default_rng(4)
    ps = [draw(300, rng=rng), draw(200, np.float64, rng)[::2], draw(50, rng=rng)]
    qs = plain(ps)
    path = Path.like([ps[2], ps[1]], rng)
    optimizer, by_hand = AdamW(ps, lr=0.1, device=device), AdamW(qs, lr=0.1, device="numpy")
    optimizer.attach(path, strength=0.5, params=(ps[k] for k in (2, 1)))
    assert [a is b for a, b in zip(path.parameters or [], (ps[2], ps[1]), strict=True)] == [True, True]
    for _ in range(3):
        gradients = [draw(p.shape, p.dtype, rng) for p in ps]
        before = plain(ps)
        optimizer.step(gradients=gradients)
        sums = [
            gradients[0],
            gradients[1] + path.gradient(1, qs[1], 0.5),
            gradients[2] + path.gradient(0, qs[2], 0.5),
        ]
        by_hand.step(gradients=sums)
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)
    found = path.source.take()
    assert [f.shape for f in found] == [(50,), (100,)]
    last = -(np.array(ps[2]) - before[2]) * gradients[2]
    assert (
        np.abs(found[0] - last).max() < np.abs(found[0]).max() * 100
    )  # of the right parameter: the rest is tested above


def test_the_penalty_follows_its_method(device: str) -> None:
    """After its version has changed; None is no penalty, at first and later."""
    rng = np.random.default_rng(5)
    p = draw(100, rng=rng)
    q = p.copy()
    penalty = Penalty()
    optimizer, by_hand = AdamW([p], lr=0.1, device=device), AdamW([q], lr=0.1, device="numpy")
    optimizer.attach(penalty, strength=2.0)
    for quadratic in (None, "a", "b", None):
        penalty.quadratic = None if quadratic is None else Penalty.like([p], rng).quadratic
        penalty._version += 1
        for _ in range(2):
            g = draw(100, rng=rng)
            optimizer.step(gradients=[g])
            by_hand.step(gradients=[g if quadratic is None else g + penalty.gradient(0, q, 2.0)])
            assert_bits(p, q, str(quadratic))


def test_ewc_attached_is_its_gradient_by_hand(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    ewc = EWC()
    optimizer.attach(ewc, strength=3.0)
    for _ in range(3):
        for _ in range(2):
            gradients = [draw(p.shape, p.dtype) for p in ps]
            penalty = ewc.grad(qs)
            optimizer.step(gradients=gradients)
            by_hand.step(gradients=[g + q.dtype.type(3) * h for q, g, h in zip(qs, gradients, penalty, strict=True)])
            for p, q in zip(ps, qs, strict=True):
                assert_bits(np.array(p), q)
        ewc.consolidate(ps, [np.abs(draw(p.shape, p.dtype)) for p in ps])


def test_synaptic_intelligence_attached_is_its_two_calls_by_hand(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    si, hand = SynapticIntelligence(), SynapticIntelligence()
    optimizer.attach(si, strength=0.5)
    for task in range(3):
        for _ in range(3):
            gradients = [draw(p.shape, p.dtype) for p in ps]
            penalty = hand.grad(qs)
            optimizer.step(gradients=gradients)
            hand.pre_step(qs)
            by_hand.step(gradients=[g + q.dtype.type(0.5) * h for q, g, h in zip(qs, gradients, penalty, strict=True)])
            hand.post_step(qs, gradients)
            for p, q in zip(ps, qs, strict=True):
                assert_bits(np.array(p), q)
        if task == 1:
            optimizer.detach(si)
            optimizer.attach(si, strength=0.5)
        si.consolidate(ps)
        hand.consolidate(qs)
        for name in ("anchors", "weights"):
            assert_same(si.state_dict()[name], hand.state_dict()[name])
