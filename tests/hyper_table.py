"""The variants of the hypergradient optimizers, and how tests train them and compare everything they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from grilly_optim.benchmarks.hyper_expressions import Auto, Hypergradient
from grilly_optim.optim import AutoHypergradientAdamW, HypergradientAdamW
from tests.table import Array, assert_bits

SHAPES: list[Any] = [(30,), (4, 5)]
HISTORIES = ("lr_history", "beta1_history", "surprise_history", "s_bar_history")


@dataclass(frozen=True)
class Variant:
    """One optimizer with its arguments, and its recurrence."""

    name: str
    make: Callable[..., Any]
    recurrence: Callable[..., Any]
    options: dict[str, Any]

    def reference(self, ps: Sequence[Array], **options: Any) -> Any:
        """The recurrence over copies in float64."""
        return self.recurrence([p.astype(np.float64) for p in ps], **options)


def _auto(name: str, rule: str, **options: Any) -> Variant:
    options = {"rule": rule, "warmup_steps": 2, **options}
    return Variant(name, AutoHypergradientAdamW, Auto, options)


MOMENTUM = {"adapt_momentum": True, "hyper_lr_beta": 0.02}  # less than what "doc" warns of
SURPRISE = {"track_surprise": True}

VARIANTS = [
    Variant("hyper", HypergradientAdamW, Hypergradient, {"lr": 0.01, "beta_hyper": 1e-5}),
    Variant(
        "hyper-decay",
        HypergradientAdamW,
        Hypergradient,
        {"lr": 0.01, "beta_hyper": 1e-5, "weight_decay": 0.3, "include_weight_decay": True},
    ),
    Variant("hyper-log", HypergradientAdamW, Hypergradient, {"lr": 0.01, "beta_hyper": 1e-3, "log_scale": True}),
    Variant(
        "hyper-chain",
        HypergradientAdamW,
        Hypergradient,
        {"lr": 0.01, "beta_hyper": 0.02, "log_scale": True, "chain_rule": True, "betas": (0.5, 0.9), "eps": 1e-3},
    ),
    _auto("doc", "doc"),
    _auto("doc-momentum", "doc", **MOMENTUM),
    _auto("doc-surprise", "doc", **SURPRISE, weight_decay=0.2),
    _auto("doc-all", "doc", **MOMENTUM, **SURPRISE, surprise_gamma=0.5, surprise_alpha=0.3, trauma_threshold=0.2),
    _auto("corrected", "corrected"),
    _auto("corrected-momentum", "corrected", adapt_momentum=True, weight_decay=0.2),
    _auto("corrected-surprise", "corrected", **SURPRISE),
    _auto("corrected-all", "corrected", **MOMENTUM, **SURPRISE, lr=0.05),
]
BY_RULE = list({v.make([np.zeros(1)], **v.options)._plans.launches[0].rule.name: v for v in VARIANTS}.values())
EVERYTHING = [v for v in VARIANTS if v.name in ("hyper-decay", "doc-all", "corrected-all")]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
by_rule = pytest.mark.parametrize("variant", BY_RULE, ids=lambda v: v.name)
everything = pytest.mark.parametrize("variant", EVERYTHING, ids=lambda v: v.name)


class Quadratic:
    """A noisy quadratic over several parameters: the same gradients for the same parameters and seed."""

    def __init__(self, shapes: Sequence[Any], dtype: Any, seed: int = 0, noise: float = 0.5) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtypes = [np.dtype(d) for d in (dtype if isinstance(dtype, list) else [dtype] * len(shapes))]
        self.start = [self.rng.standard_normal(s).astype(d) for s, d in zip(shapes, self.dtypes, strict=True)]
        self.curvature = [np.exp(self.rng.uniform(-2, 2, s)) for s in shapes]
        self.noise = noise

    def parameters(self) -> list[Array]:
        return [p.copy() for p in self.start]

    def gradients(self, ps: Sequence[Array], missing: float = 0.0) -> list[Array | None]:
        """Gradients at these parameters; each is None with the probability `missing`."""
        noisy = [
            k * p + self.noise * self.rng.standard_normal(p.shape) for k, p in zip(self.curvature, ps, strict=True)
        ]
        gone = self.rng.random(len(ps)) < missing
        return [None if none else np.asarray(g, d) for g, d, none in zip(noisy, self.dtypes, gone, strict=True)]

    def loss(self, ps: Sequence[Array]) -> float:
        """Without the noise."""
        return float(sum((0.5 * k * p * p).sum() for k, p in zip(self.curvature, ps, strict=True)))


def histories(optimizer: Any) -> dict[str, list[float]]:
    """All that it has."""
    return {name: list(getattr(optimizer, name)) for name in HISTORIES if hasattr(optimizer, name)}


def directions(optimizer: Any, name: str) -> Array:
    """One field of the state, of all parameters in one array."""
    return np.concatenate([s[name].ravel() for s in optimizer.state_dict()["state"].values()])


def assert_same(actual: Any, expected: Any, where: str = "") -> None:
    """Two state dicts, to the last bit (NaN equals NaN)."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected), where
        for key in expected:
            assert_same(actual[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, np.ndarray):
        assert_bits(actual, expected, where)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert_same(a, e, f"{where}[{i}]")
    else:
        assert actual == expected, where
