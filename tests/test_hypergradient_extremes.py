"""Gradients that are no numbers, that are zero, that never change, and that are very small or large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.optim import AutoHypergradientAdamW
from tests.hyper_table import VARIANTS, Quadratic, Variant, by_rule, variants
from tests.table import assert_bits, draw


@by_rule
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_adapt_nothing(variant: Variant, value: float, device: str) -> None:
    quadratic = Quadratic([30, 20], np.float32)
    ps = quadratic.parameters()
    qs = [p.copy() for p in ps]
    optimizer = variant.make(ps, **variant.options, device=device)
    twin = variant.make(qs, **variant.options, device="numpy")
    for step in range(8):
        gradients = quadratic.gradients(ps)
        if step == 4:
            gradients[0][7] = value  # type: ignore[index]  # it is there
            count, lr, memory = len(optimizer.lr_history), optimizer.current_lr, twin.state_dict()["hypergradient"]
        for o in (optimizer, twin):
            o.step(gradients=gradients)
        if step == 4:
            now = optimizer.state_dict()["hypergradient"]
            assert (len(optimizer.lr_history), optimizer.current_lr) == (count, lr)
            assert {**now["memory"], "last_gg": 0} == {**memory["memory"], "last_gg": 0}
            assert now["histories"] == memory["histories"]
            assert now["steps"] == 5
            optimizer.load_state_dict(optimizer.state_dict())  # which takes finite numbers alone
    assert not np.isfinite(ps[0][7])
    assert np.isfinite(ps[1]).all()
    assert np.isfinite(optimizer.lr_history).all()
    assert all(0 < lr < 1 for lr in optimizer.lr_history)
    for p, q in zip(ps, qs, strict=True):
        assert_bits(p, q)


@variants
def test_adaptation_goes_on_once_the_gradient_that_was_not_finite_is_out_of_the_way(variant: Variant) -> None:
    """Its own direction is not finite any more; the others' are."""
    quadratic = Quadratic([30, 20], np.float64)
    ps = quadratic.parameters()
    optimizer = variant.make(ps, **variant.options, device="numpy")
    for step in range(8):
        gradients = quadratic.gradients(ps)
        if step == 4:
            gradients[0][7] = np.nan  # type: ignore[index]  # it is there
            count = len(optimizer.lr_history)
        optimizer.step(gradients=gradients if step <= 4 else [None, gradients[1]])
    expected = 3 if variant.options.get("rule") != "doc" else 2  # "doc" also needs the last gradient's square
    assert len(optimizer.lr_history) == count + expected


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("rule", ["doc", "corrected"])
def test_watching_for_surprise_changes_nothing_not_even_after_a_gradient_whose_square_is_infinite(
    rule: str, momentum: bool, device: str
) -> None:
    options: dict[str, Any] = {"rule": rule, "adapt_momentum": momentum, "hyper_lr_beta": 0.1, "warmup_steps": 2}
    ps = [np.linspace(-1, 1, 300, dtype=np.float32) for _ in range(2)]
    optimizers = [
        AutoHypergradientAdamW([p], **options, track_surprise=track, device=device)
        for p, track in zip(ps, (False, True), strict=True)
    ]
    for step in range(12):
        for p, optimizer in zip(ps, optimizers, strict=True):
            gradient = 2 * p
            if step == 5:
                gradient[[7, 299]] = 1e25, -1e25
            optimizer.step(gradients=[gradient])
    plain, watching = optimizers
    assert_bits(*ps)
    assert plain.lr_history == watching.lr_history
    assert plain.beta1_history == watching.beta1_history
    assert len(plain.lr_history) == (10 if rule == "corrected" else 9)  # "doc" also needs the last gradient's square
    assert len(watching.surprise_history) == 9
    assert np.isfinite(watching.state_dict()["state"][0]["mean_grad"]).all()


@variants
@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_gradients_of_zero_for_ever(variant: Variant, eps: float, device: str) -> None:
    p = np.ones(20, np.float32)
    optimizer = variant.make([p], **{**variant.options, "eps": eps}, device=device)
    for _ in range(6):
        optimizer.step(gradients=[np.zeros(20, np.float32)])
    lr = variant.options.get("lr", 0.001)
    if eps:
        assert np.isfinite(p).all()
    np.testing.assert_allclose(optimizer.lr_history, lr, rtol=1e-15)
    assert all(s == 0 or s == pytest.approx(0) for s in getattr(optimizer, "surprise_history", []))


@variants
def test_gradients_that_never_change(variant: Variant, device: str) -> None:
    """Straight on: the learning rate grows, whatever rounding says about beta1."""
    p = np.zeros(20, np.float32)
    optimizer = variant.make([p], **variant.options, device=device)
    for _ in range(12):
        optimizer.step(gradients=[np.full(20, -0.3, np.float32)])
    assert np.isfinite(p).all()
    assert (p > 0).all()
    assert optimizer.current_lr > optimizer.lr_history[0]
    assert sorted(optimizer.lr_history) == optimizer.lr_history
    assert all(0 <= s < 1e-6 for s in getattr(optimizer, "surprise_history", [])[1:])


scales = st.one_of(st.floats(-12, 12).map(lambda k: 10.0**k), st.sampled_from([0.0, 1e-12, 1e12]))


@settings(max_examples=40, deadline=None)
@given(
    variant=st.sampled_from(["hyper", "hyper-log", "hyper-chain", "doc-all", "corrected-all"]),
    dtype=st.sampled_from([np.float32, np.float64]),
    sequence=st.lists(st.tuples(scales, st.booleans()), min_size=3, max_size=12),
    eps=st.sampled_from([0.0, 1e-8]),
    seed=st.integers(0, 2**32),
)
def test_no_scale_of_gradients_spoils_the_learning_rate(
    variant: str, dtype: Any, sequence: list[tuple[float, bool]], eps: float, seed: int
) -> None:
    """From 1e-12 to 1e12 and 0, in turn, with gradients missing now and then."""
    chosen: Variant = next(v for v in VARIANTS if v.name == variant)
    rng = np.random.default_rng(seed)
    ps = [draw(7, dtype, rng), draw(3, dtype, rng)]
    optimizer = chosen.make(ps, **{**chosen.options, "eps": eps}, device="numpy")
    start = optimizer.current_lr
    for scale, there in sequence:
        a, b = ((scale * rng.standard_normal(n)).astype(dtype) for n in (7, 3))
        optimizer.step(gradients=[a, b if there else None])
    for lr in (*optimizer.lr_history, optimizer.param_groups[0]["lr"]):
        assert lr == start or 1e-6 <= lr <= 1.0
    for beta1 in getattr(optimizer, "beta1_history", [0.9]):
        assert 0.5 <= beta1 <= 0.9995
    for surprise in getattr(optimizer, "surprise_history", []):
        assert 0 <= surprise <= 1


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@by_rule
def test_far_scales_still_adapt(variant: Variant, dtype: Any, scale: float, device: str) -> None:
    quadratic = Quadratic([30], dtype)
    ps = quadratic.parameters()
    optimizer = variant.make(ps, **variant.options, device=device)
    for _ in range(6):
        optimizer.step(gradients=[(scale * g).astype(dtype) for g in quadratic.gradients(ps)])  # type: ignore[operator]
    small_doc = variant.options.get("rule") == "doc" and scale < 1  # |g'|^2 > 1e-12 is a condition there
    assert len(optimizer.lr_history) == (1 if small_doc else 6 if "rule" not in variant.options else 5)
    assert all(1e-6 <= lr <= 1 for lr in optimizer.lr_history)
    assert np.isfinite(ps[0]).all()


def test_squares_beyond_float32_adapt_nothing() -> None:
    p, lr = np.zeros(20, np.float32), []
    optimizer = AutoHypergradientAdamW([p], warmup_steps=0, device="numpy")
    for _ in range(3):
        optimizer.step(gradients=[np.full(20, 1e19, np.float32)])
        lr.append(optimizer.current_lr)
    assert lr == [0.001] * 3
    assert optimizer.lr_history == [0.001]
