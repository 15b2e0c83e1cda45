"""What the hypergradient rules decide: derivatives, surprise, scales, when the first adaptation comes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from grilly_optim import Parameter
from grilly_optim.optim import AutoHypergradientAdamW, HypergradientAdamW
from tests.hyper_table import SHAPES, Quadratic, directions
from tests.table import Array


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
