"""The rules of HypergradientAdamW: twins of shaders/rules/hyper_adamw*.glsl and shaders/control/hyper_adamw.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Control, Rule
from grilly_optim.kernels.scalar_math import exponential
from grilly_optim.optim.adamw import AdamWState

Array = NDArray[Any]


class HyperAdamWScalars(NamedTuple):
    """See shaders/control/hyper_adamw.glsl."""

    beta1: Any
    c1: Any
    beta2: Any
    c2: Any
    step: Any
    inv_sqrt_bc2: Any
    eps: Any
    decay: Any
    fresh: Any
    last_inv_bc1: Any
    last_inv_sqrt_bc2: Any
    last_lr: Any
    last_weight_decay: Any
    last_inv_decay: Any
    share: Any
    weight_decay: Any
    inv_bc1: Any


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


def hyper_adamw_sums(s: AdamWState, g: Array, h: HyperAdamWScalars) -> HyperAdamWSums:
    """The first pass of shaders/rules/hyper_adamw.glsl."""
    d = h.last_inv_bc1 * s.m / (np.sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps)
    return HyperAdamWSums(np.where(h.fresh > 0, g * d, 0).astype(g.dtype))


def hyper_adamw(s: AdamWState, g: Array, h: HyperAdamWScalars) -> AdamWState:
    """The second pass of shaders/rules/hyper_adamw.glsl."""
    m = h.beta1 * s.m + h.c1 * g
    v = h.beta2 * s.v + h.c2 * g * g
    d = np.sqrt(v) * h.inv_sqrt_bc2 + h.eps
    return AdamWState(s.p * h.decay - h.step * m / d, m, v)


def hyper_adamw_decay_sums(s: AdamWState, g: Array, h: HyperAdamWScalars) -> HyperAdamWSums:
    """The first pass of shaders/rules/hyper_adamw_decay.glsl."""
    d = h.last_inv_bc1 * s.m / (np.sqrt(s.v) * h.last_inv_sqrt_bc2 + h.eps)
    before = (s.p + h.last_lr * d) * h.last_inv_decay
    return HyperAdamWSums(np.where(h.fresh > 0, g * (d + h.last_weight_decay * before), 0).astype(g.dtype))


def hyper_adamw_decay(s: AdamWState, g: Array, h: HyperAdamWScalars) -> AdamWState:
    """The second pass of shaders/rules/hyper_adamw_decay.glsl."""
    return hyper_adamw(s, g, h)


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
    return r._replace(step=lr * r.inv_bc1, decay=1 - lr * r.weight_decay)


_CONTROL = Control(hyper_adamw_decide, hyper_adamw_row, HyperAdamWControl)
HYPER_ADAMW = Rule(hyper_adamw, AdamWState, HyperAdamWScalars, hyper_adamw_sums, HyperAdamWSums, _CONTROL)
HYPER_ADAMW_DECAY = Rule(
    hyper_adamw_decay, AdamWState, HyperAdamWScalars, hyper_adamw_decay_sums, HyperAdamWSums, _CONTROL
)
