"""The rule of HypergradientAdamW: the twins of shaders/rules/hyper_adamw.glsl and shaders/control/hyper_adamw.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Control, Rule
from grilly_optim.kernels.scalar_math import exponential

Array = NDArray[Any]


class HyperAdamWState(NamedTuple):
    """The parameter, its moments, and the direction of the last step."""

    p: Array
    m: Array
    v: Array
    d: Array


class HyperAdamWScalars(NamedTuple):
    """See shaders/control/hyper_adamw.glsl."""

    beta1: Any
    c1: Any
    beta2: Any
    c2: Any
    inv_bc1: Any
    inv_sqrt_bc2: Any
    eps: Any
    decay: Any
    lr: Any
    fresh: Any
    counted_decay: Any
    share: Any
    weight_decay: Any


class HyperAdamWSums(NamedTuple):
    """See shaders/rules/hyper_adamw.glsl."""

    gd: Array


class HyperAdamWControl(NamedTuple):
    """See shaders/control/hyper_adamw.glsl."""

    gd: Any
    directed: Any
    log_scale: Any
    chain_rule: Any
    beta_hyper: Any
    lr_min: Any
    lr_max: Any
    lr: Any
    adapted: Any


def hyper_adamw_sums(s: HyperAdamWState, g: Array, h: HyperAdamWScalars) -> HyperAdamWSums:
    """The first pass of shaders/rules/hyper_adamw.glsl."""
    return HyperAdamWSums(g * s.d if h.fresh > 0 else np.zeros_like(g))


def hyper_adamw(s: HyperAdamWState, g: Array, h: HyperAdamWScalars) -> HyperAdamWState:
    """The second pass of shaders/rules/hyper_adamw.glsl."""
    m = h.beta1 * s.m + h.c1 * g
    v = h.beta2 * s.v + h.c2 * g * g
    d = h.inv_bc1 * m / (np.sqrt(v) * h.inv_sqrt_bc2 + h.eps)
    return HyperAdamWState(s.p * h.decay - h.lr * d, m, v, d + h.counted_decay * s.p)


def hyper_adamw_decide(c: HyperAdamWControl) -> HyperAdamWControl:
    """The twin of shaders/control/hyper_adamw.glsl."""
    if c.directed == 0 or not np.isfinite(c.gd):
        return c
    move = c.beta_hyper * c.gd
    lr = c.lr * exponential(c.lr * move if c.chain_rule > 0 else move) if c.log_scale > 0 else c.lr + move
    lr = c.lr_min if lr < c.lr_min else c.lr_max if lr > c.lr_max else lr
    return c._replace(lr=lr, adapted=np.float64(1))


def hyper_adamw_row(r: HyperAdamWScalars, c: HyperAdamWControl) -> HyperAdamWScalars:
    """The twin of shaders/control/hyper_adamw.glsl."""
    lr = r.share * c.lr
    return r._replace(lr=lr, decay=1 - lr * r.weight_decay)


HYPER_ADAMW = Rule(
    hyper_adamw,
    HyperAdamWState,
    HyperAdamWScalars,
    hyper_adamw_sums,
    HyperAdamWSums,
    Control(hyper_adamw_decide, hyper_adamw_row, HyperAdamWControl),
)
