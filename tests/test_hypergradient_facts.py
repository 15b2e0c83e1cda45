"""What the hypergradient rules do: derivatives, scales, limits, warm-up, and gradients that are no numbers."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim import Parameter
from grilly_optim.optim import AutoHypergradientAdamW, HypergradientAdamW
from tests.hyper_table import VARIANTS, Quadratic, Variant, by_rule, everything, variants
from tests.table import Array, assert_bits, draw

SHAPES: list[Any] = [(30,), (4, 5)]


class Branches:
    """An optimizer's way on a quadratic without noise, and steps that depart from one point of it."""

    def __init__(self, make: Any, steps: int, **options: Any) -> None:
        self.quadratic = Quadratic(SHAPES, np.float64, noise=0.0)
        self.make, self.options = make, options
        self.ps = self.quadratic.parameters()
        optimizer = make(self.ps, **options, device="numpy")
        for _ in range(steps):
            optimizer.step(gradients=self.quadratic.gradients(self.ps))
        self.state = optimizer.state_dict()

    def step(self, steps: int = 1, **change: Any) -> tuple[list[Array], Any]:
        """Steps from that point on; `change` sets options of the group or of the constructor."""
        ps = [p.copy() for p in self.ps]
        written = {k: change.pop(k) for k in ("lr", "betas") if k in change}
        optimizer = self.make(ps, **{**self.options, **change}, device="numpy")
        optimizer.load_state_dict(self.state)
        optimizer.param_groups[0].update(written)
        for _ in range(steps):
            optimizer.step(gradients=self.quadratic.gradients(ps))
        return ps, optimizer


@pytest.mark.parametrize("include", [True, False])
def test_the_hypergradient_is_minus_the_derivative_of_the_loss_by_lr(include: bool) -> None:
    lr, beta, e = 0.05, 1e-6, 1e-6
    options = {"lr": lr, "weight_decay": 0.4, "include_weight_decay": include, "lr_max": 10.0}
    way = Branches(HypergradientAdamW, 6, **options, beta_hyper=0.0)
    up, down = (way.quadratic.loss(way.step(lr=lr + sign * e)[0]) for sign in (1, -1))
    slope = (up - down) / (2 * e)
    # One step at lr without adaptation, and another whose adaptation looks back at it.
    ps, still = way.step()
    adapting = HypergradientAdamW(ps, **options, beta_hyper=beta, device="numpy")
    adapting.load_state_dict(still.state_dict())
    adapting.step(gradients=way.quadratic.gradients(ps))
    h = (adapting.current_lr - lr) / beta
    if include:
        assert h == pytest.approx(-slope, rel=1e-7)
    else:
        assert abs(h + slope) > 0.1 * abs(slope)  # the published rule leaves a part out


def directions(optimizer: Any, name: str) -> Array:
    return np.concatenate([s[name].ravel() for s in optimizer.state_dict()["state"].values()])


@pytest.mark.parametrize("beta1", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_the_slope_is_the_derivative_of_the_step_by_beta1(steps: int, beta1: float) -> None:
    e, lr = 1e-6, 0.01
    way = Branches(
        AutoHypergradientAdamW,
        steps,
        lr=lr,
        betas=(beta1, 0.99),
        rule="corrected",
        adapt_momentum=True,
        warmup_steps=100,
    )
    low = max(0.0, beta1 - e)
    (up, _), (down, _) = way.step(betas=(beta1 + e, 0.99)), way.step(betas=(low, 0.99))
    difference = np.concatenate([(u - d).ravel() for u, d in zip(up, down, strict=True)]) / (beta1 + e - low) / lr
    slope = directions(way.step()[1], "direction_by_beta1")
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-6 * np.abs(slope).max() + 1e-8)
    assert slope.any() == (steps > 0)


def test_doc_lowers_beta1_where_the_loss_asks_for_more_and_corrected_raises_it() -> None:
    """On a way straight down, where momentum helps."""
    e, results = 1e-5, {}
    for rule in ("doc", "corrected"):
        way = Branches(
            AutoHypergradientAdamW,
            4,
            lr=0.01,
            betas=(0.9, 0.999),
            rule=rule,
            adapt_momentum=True,
            hyper_lr_beta=1e-3,
            warmup_steps=5,
        )
        up, down = (way.quadratic.loss(way.step(betas=(0.9 + s * e, 0.999))[0]) for s in (1, -1))
        results[rule] = way.step(steps=2)[1].beta1_history
    assert up < down
    assert results["doc"] == [0.9, pytest.approx(0.899, abs=1e-12)]
    assert results["corrected"] == [0.9, pytest.approx(0.901, abs=1e-12)]


def test_bias_correction_forgets_the_old_beta1_in_doc_and_not_in_corrected() -> None:
    """beta1 goes from 0.9 to 0.9995 at the 12th step, with gradients of 1: the direction should hardly change."""
    jump = {}
    for rule in ("doc", "corrected"):
        optimizer = AutoHypergradientAdamW([np.zeros(3)], rule=rule, warmup_steps=100, device="numpy")
        sizes = []
        for step in range(12):
            if step == 11:
                optimizer.param_groups[0]["betas"] = (0.9995, 0.999)
            optimizer.step(gradients=[np.ones(3)])
            sizes.append(directions(optimizer, "direction")[0])
        jump[rule] = sizes[-1] / sizes[-2]
    m = 0.9995 * (1 - 0.9**11) + 0.0005
    assert jump["doc"] == pytest.approx(m / (1 - 0.9995**12), rel=1e-6)  # 115 times as far
    assert jump["corrected"] == pytest.approx(m / (1 - 0.9**11 * 0.9995), rel=1e-6)
    assert jump["doc"] > 100 * jump["corrected"]


def test_the_first_adaptation_of_doc_moves_by_the_whole_hyper_rate(device: str) -> None:
    quadratic = Quadratic(SHAPES, np.float64)
    ps = quadratic.parameters()
    with pytest.warns(UserWarning, match="moves beta1 by hyper_lr_beta = 1 at its first adaptation"):
        optimizer = AutoHypergradientAdamW(
            ps, lr=1e-3, adapt_momentum=True, track_surprise=True, warmup_steps=3, device=device
        )
    for _ in range(4):
        optimizer.step(gradients=quadratic.gradients(ps))
    assert optimizer.lr_history == [1e-3, pytest.approx(0.011, rel=1e-9)]
    assert optimizer.beta1_history == [0.9, 0.5]
    assert optimizer.surprise_history == [pytest.approx(math.tanh(1), rel=1e-12)]
    assert optimizer.s_bar_history == [pytest.approx(0.1 * math.tanh(1), rel=1e-12)]


def test_corrected_is_not_surprised_by_its_first_gradient(device: str) -> None:
    optimizer = AutoHypergradientAdamW(
        [np.zeros(3)], rule="corrected", track_surprise=True, warmup_steps=0, device=device
    )
    optimizer.step(gradients=[np.ones(3)])
    assert optimizer.surprise_history == [0.0]
    optimizer.step(gradients=[-np.ones(3)])
    assert optimizer.surprise_history == [0.0, pytest.approx(math.tanh(4), rel=1e-12)]
    s_bar = 0.1 * math.tanh(4)
    assert optimizer.accumulated_surprise == pytest.approx(s_bar, rel=1e-12)
    assert optimizer.current_surprise_gain == pytest.approx(s_bar * math.exp(-s_bar / 0.5), rel=1e-12)


def test_pure_noise_is_surprising_all_the_time() -> None:
    rng = np.random.default_rng(0)
    optimizer = AutoHypergradientAdamW([np.zeros(2000)], track_surprise=True, warmup_steps=0, device="numpy")
    for _ in range(100):
        optimizer.step(gradients=[rng.standard_normal(2000)])
    assert np.mean(optimizer.surprise_history[50:]) == pytest.approx(math.tanh(20 / 19), abs=0.01)
    assert optimizer.accumulated_surprise == pytest.approx(0.78, abs=0.01)


@pytest.mark.parametrize("rule", ["doc", "corrected"])
def test_the_scale_of_gradients_does_not_matter(rule: str) -> None:
    """As long as they are far above eps and the small numbers."""
    rates = []
    for scale in (1e-3, 1.0, 1e3):
        quadratic = Quadratic(SHAPES, np.float64)
        ps = quadratic.parameters()
        optimizer = AutoHypergradientAdamW(ps, rule=rule, eps=0.0, warmup_steps=2, device="numpy")
        for _ in range(20):
            optimizer.step(gradients=[scale * g for g in quadratic.gradients(ps)])  # type: ignore[operator]  # all there
        rates.append(optimizer.lr_history)
    for other in (rates[0], rates[2]):
        np.testing.assert_allclose(other, rates[1], rtol=1e-5)


# Warm-up.


@pytest.mark.parametrize("rule", ["doc", "corrected"])
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_the_first_adaptation_comes_with_the_step_after_the_warm_up(rule: str, warmup: int, device: str) -> None:
    quadratic = Quadratic(SHAPES, np.float32)
    ps = quadratic.parameters()
    optimizer = AutoHypergradientAdamW(
        ps,
        rule=rule,
        adapt_momentum=True,
        hyper_lr_beta=0.01,
        track_surprise=True,
        warmup_steps=warmup,
        device=device,
    )
    assert [optimizer.current_surprise, optimizer.accumulated_surprise, optimizer.current_surprise_gain] == [0.0] * 3
    for _ in range(warmup):
        optimizer.step(gradients=quadratic.gradients(ps))
    assert optimizer.lr_history == [0.001]
    assert optimizer.beta1_history == [0.9]
    assert optimizer.surprise_history == optimizer.s_bar_history == []
    assert [optimizer.current_surprise, optimizer.accumulated_surprise, optimizer.current_surprise_gain] == [0.0] * 3
    optimizer.step(gradients=quadratic.gradients(ps))
    adapted = min(warmup, 1)  # the very first step has nothing to look back at
    assert [len(optimizer.lr_history), len(optimizer.beta1_history)] == [1 + adapted] * 2
    assert [len(optimizer.surprise_history), len(optimizer.s_bar_history)] == [1, 1]
    for _ in range(3):
        optimizer.step(gradients=quadratic.gradients(ps))
    assert [len(optimizer.lr_history), len(optimizer.beta1_history)] == [4 + adapted] * 2
    assert [len(optimizer.surprise_history), len(optimizer.s_bar_history)] == [4, 4]
    assert optimizer.current_surprise == optimizer.surprise_history[-1] > 0
    assert optimizer.accumulated_surprise == optimizer.s_bar_history[-1] > 0


def test_what_is_not_asked_for_is_not_recorded(device: str) -> None:
    quadratic = Quadratic(SHAPES, np.float32)
    ps = quadratic.parameters()
    optimizer = AutoHypergradientAdamW(ps, warmup_steps=0, betas=(0.8, 0.9), device=device)
    for _ in range(4):
        optimizer.step(gradients=quadratic.gradients(ps))
    assert len(optimizer.lr_history) == 4
    assert optimizer.beta1_history == [0.8]
    assert optimizer.surprise_history == optimizer.s_bar_history == []
    assert optimizer.current_surprise == optimizer.accumulated_surprise == optimizer.current_surprise_gain == 0.0
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


# Limits.


@everything
@pytest.mark.parametrize("end", ["lr_min", "lr_max"])
def test_the_learning_rate_stays_within_its_limits(variant: Variant, end: str, device: str) -> None:
    quadratic = Quadratic(SHAPES, np.float64)
    ps = quadratic.parameters()
    strong = {"beta_hyper": 1.0} if variant.make is HypergradientAdamW else {"hyper_lr": 100.0}
    options = {**variant.options, **strong, "lr": 0.01, "lr_min": 1e-3, "lr_max": 0.1}
    optimizer = variant.make(ps, **options, device=device)
    sign = 1 if end == "lr_max" else -1
    gradients = [np.ones(p.shape) for p in ps]
    for k in range(6):
        flip = 1 if sign > 0 else (-1) ** k  # a gradient that turns around asks for smaller steps
        optimizer.step(gradients=[flip * g for g in gradients])
    assert optimizer.current_lr == options[end]
    assert all(1e-3 <= lr <= 0.1 for lr in optimizer.lr_history)


@everything
def test_a_rate_beyond_the_limits_is_brought_back_by_the_first_adaptation(variant: Variant, device: str) -> None:
    for lr, limit in ((5.0, 1.0), (1e-9, 1e-6)):
        ps = [np.zeros(3)]
        quiet = {"beta_hyper": 0.0} if variant.make is HypergradientAdamW else {"hyper_lr": 0.0}
        optimizer = variant.make(ps, **{**variant.options, **quiet, "lr": lr}, device=device)
        for _ in range(4):
            optimizer.step(gradients=[np.ones(3)])
        assert optimizer.lr_history[:2] == [lr, limit]
        assert optimizer.current_lr == limit


@pytest.mark.parametrize("rule", ["doc", "corrected"])
@pytest.mark.parametrize("beta1", [0.0, 0.9, 0.9999])
def test_beta1_stays_within_its_limits(rule: str, beta1: float, device: str) -> None:
    quadratic = Quadratic(SHAPES, np.float32)
    ps = quadratic.parameters()
    with pytest.warns(UserWarning, match="hyper_lr_beta = 1 ") if rule == "doc" else nullcontext():
        optimizer = AutoHypergradientAdamW(
            ps,
            betas=(beta1, 0.99),
            rule=rule,
            adapt_momentum=True,
            hyper_lr_beta=1.0,
            beta_min=0.3,
            beta_max=0.99,
            warmup_steps=1,
            device=device,
        )
    for _ in range(8):
        optimizer.step(gradients=quadratic.gradients(ps))
    history = optimizer.beta1_history
    assert history[0] == beta1
    assert len(history) == 8
    assert all(0.3 <= b <= 0.99 for b in history[1:])
    assert {0.3, 0.99} & set(history[1:])
    assert np.isfinite(directions(optimizer, "direction")).all()


# Gradients that are no numbers, that are zero, that never change.


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


# Options.

BOTH = (HypergradientAdamW, AutoHypergradientAdamW)
BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (BOTH, {"lr": -1.0}, ValueError, r"lr must be 0 or more, and finite, got -1.0"),
    (BOTH, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\), got 1.0"),
    (BOTH, {"eps": -1e-9}, ValueError, r"eps must be 0 or more, and finite, got -1e-09"),
    (BOTH, {"weight_decay": math.inf}, ValueError, r"weight_decay must be 0 or more, and finite, got inf"),
    (BOTH, {"lr_min": -1e-6}, ValueError, r"lr_min must be 0 or more, and finite, got -1e-06"),
    (BOTH, {"lr_min": "low"}, TypeError, r"lr_min must be a real number, got 'low'"),
    (BOTH, {"lr_max": math.nan}, ValueError, r"lr_max must be 0 or more, and finite, got nan"),
    (BOTH, {"lr_min": 0.2, "lr_max": 0.1}, ValueError, r"lr_min must be at most lr_max, got 0.2 and 0.1"),
    (BOTH[:1], {"beta_hyper": -1e-7}, ValueError, r"beta_hyper must be 0 or more, and finite, got -1e-07"),
    (BOTH[:1], {"log_scale": 1}, TypeError, r"log_scale must be True or False, got 1"),
    (BOTH[:1], {"include_weight_decay": "yes"}, TypeError, r"include_weight_decay must be True or False, got 'yes'"),
    (BOTH[:1], {"chain_rule": None}, TypeError, r"chain_rule must be True or False, got None"),
    (BOTH[:1], {"chain_rule": True}, ValueError, r"chain_rule is True and log_scale is False"),
    (BOTH[1:], {"rule": "dok"}, ValueError, r"rule must be 'doc' or 'corrected', got 'dok'"),
    (BOTH[1:], {"rule": ["doc"]}, TypeError, r"rule must be a string, got \['doc'\]"),
    (BOTH[1:], {"hyper_lr": -0.1}, ValueError, r"hyper_lr must be 0 or more, and finite, got -0.1"),
    (BOTH[1:], {"hyper_lr_beta": math.inf}, ValueError, r"hyper_lr_beta must be 0 or more, and finite, got inf"),
    (BOTH[1:], {"adapt_momentum": 1}, TypeError, r"adapt_momentum must be True or False, got 1"),
    (BOTH[1:], {"track_surprise": "no"}, TypeError, r"track_surprise must be True or False, got 'no'"),
    (BOTH[1:], {"surprise_gamma": 1.0}, ValueError, r"surprise_gamma must be in \[0, 1\), got 1.0"),
    (BOTH[1:], {"surprise_alpha": 1.5}, ValueError, r"surprise_alpha must be in \[0, 1\], got 1.5"),
    (BOTH[1:], {"surprise_alpha": -0.5}, ValueError, r"surprise_alpha must be .*, got -0.5"),
    (BOTH[1:], {"trauma_threshold": 0.0}, ValueError, r"trauma_threshold must be above 0, got 0.0"),
    (BOTH[1:], {"trauma_threshold": -1}, ValueError, r"trauma_threshold must be .*, got -1"),
    (BOTH[1:], {"beta_min": 1.0}, ValueError, r"beta_min must be in \[0, 1\), got 1.0"),
    (BOTH[1:], {"beta_max": -0.1}, ValueError, r"beta_max must be in \[0, 1\), got -0.1"),
    (BOTH[1:], {"beta_min": 0.9, "beta_max": 0.8}, ValueError, r"beta_min must be at most beta_max, got 0.9 and 0.8"),
    (BOTH[1:], {"warmup_steps": 1.5}, TypeError, r"warmup_steps must be a whole number, got 1.5"),
    (BOTH[1:], {"warmup_steps": True}, TypeError, r"warmup_steps must be a whole number, got True"),
    (BOTH[1:], {"warmup_steps": -1}, ValueError, r"warmup_steps must be 0 or more, and finite, got -1"),
]


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [(make, *rest) for makes, *rest in BAD for make in makes],
    ids=lambda x: str(x) if isinstance(x, dict) else getattr(x, "__name__", ""),
)
def test_bad_options_get_one_error_that_names_them(
    make: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make([np.zeros(3)], **options, device="numpy")


def test_defaults_of_the_rules() -> None:
    """What "corrected" has by default is what it has when it is said; and "doc" likewise."""
    expected = {"doc": (0.01, 1.0), "corrected": (0.2, 0.01)}
    for rule, (hyper_lr, hyper_lr_beta) in expected.items():
        ways = []
        for given_rates in ({}, {"hyper_lr": hyper_lr, "hyper_lr_beta": hyper_lr_beta}):
            quadratic = Quadratic(SHAPES, np.float64)
            ps = quadratic.parameters()
            with pytest.warns(UserWarning, match="hyper_lr_beta = 1 ") if rule == "doc" else nullcontext():
                optimizer = AutoHypergradientAdamW(
                    ps, **given_rates, rule=rule, adapt_momentum=True, warmup_steps=np.int64(1), device="numpy"
                )
            for _ in range(4):
                optimizer.step(gradients=quadratic.gradients(ps))
            ways.append((optimizer.lr_history, optimizer.beta1_history))
        assert ways[0] == ways[1]
    assert AutoHypergradientAdamW([np.zeros(3)], device="numpy")._corrected is False


def test_the_closure_makes_the_gradients_that_decide(device: str) -> None:
    given, made = Parameter(np.ones(50)), np.ones(50)
    asked = HypergradientAdamW([given], lr=0.01, beta_hyper=1e-3, device=device)
    told = HypergradientAdamW([made], lr=0.01, beta_hyper=1e-3, device=device)

    def closure() -> float:
        given.grad = np.linspace(1, 2, 50) * given
        return 0.0

    for _ in range(3):
        asked.step(closure)
        told.step(gradients=[np.linspace(1, 2, 50) * made])
    assert asked.lr_history == told.lr_history
    assert len(asked.lr_history) == 3
