"""Options of the hypergradient optimizers: limits that hold, defaults, what is refused."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import AutoHypergradientAdamW, HypergradientAdamW
from tests.hyper_table import SHAPES, Quadratic, Variant, directions, everything


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
    (BOTH[1:], {"warmup_steps": -1}, ValueError, r"warmup_steps must be 0 or more, got -1"),
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
