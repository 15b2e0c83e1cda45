"""HypergradientAdamW and AutoHypergradientAdamW: NumPy's bits on every device, and the recurrences' digits on NumPy."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.benchmarks.hyper_expressions import Hypergradient
from tests.hyper_table import HISTORIES, VARIANTS, Quadratic, Variant, assert_same, by_rule, histories, variants
from tests.table import Array, assert_bits, draw, layouts

# Around the chunk of a sum (4096), blocks, packs, and large enough for threads; a few of each precision.
SIZES = [0, 1, 17, 255, 257, 4095, 4096, 4097, 16385, 70001]
DOUBLES = [3, 256, 4097, 8193]


def groups_of(ps: list[Array]) -> list[dict[str, Any]]:
    """Two groups of both precisions, of which the second has its own options."""
    return [
        {"params": ps[::2]},
        {"params": ps[1::2], "lr": 0.003, "betas": (0.8, 0.99), "weight_decay": 0.1},
    ]


def order(gradients: list[Any]) -> list[Any]:
    """The gradients in the order of the groups."""
    return gradients[::2] + gradients[1::2]


def trained(variant: Variant, device: str) -> tuple[list[Array], Any]:
    """Six steps over all sizes, one of them without gradients, others with some missing."""
    rng = np.random.default_rng(11)
    ps = [draw(n, np.float32, rng) for n in SIZES] + [draw(n, np.float64, rng) for n in DOUBLES]
    optimizer = variant.make(groups_of(ps), **variant.options, device=device)
    for step in range(6):
        gradients: list[Any] = [draw(p.size, p.dtype, rng) for p in ps]
        if step == 2:
            gradients = [None] * len(ps)
        if step > 2:
            gradients[step] = None
        optimizer.step(gradients=order(gradients))
    return ps, optimizer.state_dict()


@cache
def expected_of(name: str) -> tuple[list[Array], Any]:
    return trained(next(v for v in VARIANTS if v.name == name), "numpy")


@variants
def test_every_bit_is_numpys(variant: Variant, device: str) -> None:
    """Parameters, state, histories and all that is remembered."""
    (ps, state), (expected, expected_state) = trained(variant, device), expected_of(variant.name)
    for p, e in zip(ps, expected, strict=True):
        assert_bits(p, e, f"{p.size} elements of {p.dtype}")
    assert_same(state, expected_state)
    assert state["hypergradient"]["steps"] == 6
    assert len(state["hypergradient"]["histories"]["lr"]) > 2


@by_rule
def test_layouts_give_the_bits_of_contiguous_arrays(variant: Variant, device: str) -> None:
    both = (np.float32, np.float64)
    makers = {f"{name} {dtype.__name__}": make for dtype in both for name, make in layouts(dtype)}
    ps = [make() for make in makers.values()]
    for p in ps:
        p[...] = draw(p.shape, p.dtype)
    plain = [np.array(p, order="C") for p in ps]
    given, reference = (variant.make(x, **variant.options, device=d) for x, d in ((ps, device), (plain, "numpy")))
    for _ in range(4):
        gradients = [make() for make in makers.values()]
        given.step(gradients=gradients)
        reference.step(gradients=[np.array(g, order="C") for g in gradients])
    for name, p, e in zip(makers, ps, plain, strict=True):
        assert_bits(p, e, name)
    assert histories(given) == histories(reference)


@by_rule
def test_a_step_is_one_submission_of_three_kernels(variant: Variant, device: str) -> None:
    ps = [draw(5000), draw(300)]
    optimizer = variant.make(ps, **variant.options, device=device)
    optimizer.step(gradients=[draw(5000), draw(300)])
    before = {d: grilly_optim.counters(d) for d in (device, None)}
    for _ in range(3):
        optimizer.step(gradients=[draw(5000), draw(300)])
    for d, then in before.items():
        now = grilly_optim.counters(d)
        assert now["dispatches"] - then["dispatches"] == 9
        assert now["submits"] - then["submits"] == (3 if device.startswith("vulkan") else 0)


def test_both_precisions_share_the_submission_and_the_decision(device: str) -> None:
    optimizer = grilly_optim.optim.HypergradientAdamW([draw(5000), draw(300, np.float64)], device=device)
    optimizer.step(gradients=[draw(5000), draw(300, np.float64)])
    before = grilly_optim.counters(device)
    optimizer.step(gradients=[draw(5000), draw(300, np.float64)])
    after = grilly_optim.counters(device)
    assert after["dispatches"] - before["dispatches"] == 5
    assert after["submits"] - before["submits"] == (1 if device.startswith("vulkan") else 0)


@variants
def test_peek_is_the_change_of_the_next_step_and_changes_nothing(variant: Variant, device: str) -> None:
    """Before any direction, at the first adaptation, and later."""
    quadratic = Quadratic([700, (5, 6), 50], [np.float32, np.float64, np.float32])
    ps = quadratic.parameters()
    optimizer = variant.make(ps, **variant.options, device=device)
    for step in range(5):
        before, state, seen = [p.copy() for p in ps], optimizer.state_dict(), histories(optimizer)
        gradients = [*quadratic.gradients(ps)[:2], None]
        deltas = optimizer.peek(gradients)
        for p, b in zip(ps, before, strict=True):
            assert_bits(p, b)
        assert_same(optimizer.state_dict(), state)
        assert histories(optimizer) == seen
        optimizer.step(gradients=gradients)
        for p, b, delta in zip(ps, before, deltas, strict=True):
            np.testing.assert_array_less(np.abs(p - (b + delta)), 2 * np.spacing(np.maximum(np.abs(p), np.abs(b))))
        assert deltas[0].all(), step
        assert not deltas[2].any(), step


@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
@by_rule
def test_threads_and_instruction_sets_make_no_difference(
    variant: Variant, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRILLY_ISA", isa)
    monkeypatch.setenv("GRILLY_THREADS", "3")

    def run(device: str) -> tuple[Array, Array, Any]:
        rng = np.random.default_rng(3)
        ps = [draw(40_003, rng=rng), draw(997, np.float64, rng)]
        optimizer = variant.make(ps, **variant.options, device=device)
        for _ in range(5):
            optimizer.step(gradients=[draw(40_003, rng=rng), draw(997, np.float64, rng)])
        return ps[0], ps[1], optimizer.state_dict()["hypergradient"]

    (p, q, state), (expected_p, expected_q, expected) = run("cpu"), run("numpy")
    assert_bits(p, expected_p)
    assert_bits(q, expected_q)
    assert state == expected


@by_rule
def test_arrays_beyond_the_caches_have_the_same_bits(variant: Variant) -> None:
    """Beyond 5 million elements, what a step writes without having read it goes around the caches."""
    size = 5_000_017

    def run(device: str) -> tuple[Array, Any]:
        memory = np.random.default_rng(3).standard_normal(size + 3, dtype=np.float32)
        p = memory[3:]  # not on a cache line
        optimizer = variant.make([p], **variant.options, device=device)
        for k in range(4):
            optimizer.step(gradients=[p * np.float32(0.1 + k)])
        return p, optimizer.state_dict()

    (p, state), (expected_p, expected) = run("cpu"), run("numpy")
    assert_bits(p, expected_p)
    assert_same(state, expected)


# Against the recurrences.


@variants
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda d: d.__name__)
def test_60_steps_of_the_recurrence(variant: Variant, dtype: Any, missing: float) -> None:
    """float32 takes its own gradients as they are, so that only its own rounding is between the two."""
    quadratic = Quadratic([(37,), (5, 7), (1,)], dtype)
    ps = quadratic.parameters()
    options = dict(variant.options)
    reference = variant.reference(ps, **options)
    optimizer = variant.make(ps, **options, device="numpy")
    for _ in range(60):
        gradients = quadratic.gradients(ps, missing)
        optimizer.step(gradients=gradients)
        reference.step(gradients)
    rtol = 1e-11 if dtype == np.float64 else 1e-3
    for p, expected in zip(ps, reference.parameters, strict=True):
        np.testing.assert_allclose(p, expected.p, rtol=rtol, atol=rtol * 1e-3)
    for name in HISTORIES:
        if hasattr(reference, name):
            rtol = 1e-11 if dtype == np.float64 else 3e-5
            np.testing.assert_allclose(getattr(optimizer, name), getattr(reference, name), rtol=rtol, atol=1e-15)
    for name, theirs in (
        ("current_surprise", "S"),
        ("accumulated_surprise", "S_bar"),
        ("current_surprise_gain", "gain"),
    ):
        if hasattr(optimizer, name):
            assert getattr(optimizer, name) == pytest.approx(getattr(reference, theirs), rel=3e-5, abs=1e-15)


@variants
def test_groups_of_the_recurrence(variant: Variant) -> None:
    """Groups keep the ratio of their learning rates; the sums go over all of them, unweighted."""
    quadratic = Quadratic([(30,), (20,), (10,)], np.float64)
    ps = quadratic.parameters()
    lr = variant.options.get("lr", 0.001)
    groups = [{"params": ps[:1]}, {"params": ps[1:2], "lr": 3 * lr}, {"params": ps[2:], "lr": lr / 7}]
    reference = variant.reference(ps, **variant.options, ratios=[1, 3, 1 / 7])
    optimizer = variant.make(groups, **variant.options, device="numpy")
    for _ in range(40):
        gradients = quadratic.gradients(ps)
        optimizer.step(gradients=gradients)
        reference.step(gradients)
    for p, expected in zip(ps, reference.parameters, strict=True):
        np.testing.assert_allclose(p, expected.p, rtol=1e-11)
    np.testing.assert_allclose(optimizer.lr_history, reference.lr_history, rtol=1e-11)
    assert optimizer.lr_history[-1] != pytest.approx(lr, rel=1e-3)


def test_the_recurrence_is_told_from_another() -> None:
    """The judge itself: a hundredth of the learning rate's learning rate is seen."""
    quadratic = Quadratic([(37,)], np.float64)
    ps = quadratic.parameters()
    optimizer = grilly_optim.optim.HypergradientAdamW(ps, beta_hyper=1e-4, device="numpy")
    reference = Hypergradient([p.copy() for p in ps], beta_hyper=1.01e-4)
    for _ in range(5):
        gradients = quadratic.gradients(ps)
        optimizer.step(gradients=gradients)
        reference.step(gradients)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(optimizer.lr_history, reference.lr_history, rtol=1e-4)
