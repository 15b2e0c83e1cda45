"""The rules of AutoHypergradientAdamW: twins of shaders/rules/auto_adamw*.glsl and shaders/control/auto_adamw.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Control, Rule, Twin
from grilly_optim.kernels.scalar_math import exponential, hyperbolic_tangent, power

Array = NDArray[Any]


class AutoScalars(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    beta1: Any
    c1: Any
    beta2: Any
    c2: Any
    inv_bc1: Any
    inv_sqrt_bc2: Any
    eps: Any
    decay: Any
    lr: Any
    keep: Any
    add: Any
    fresh: Any
    carry: Any
    share: Any
    weight_decay: Any
    t: Any
    product: Any


class AutoState(NamedTuple):
    """The parameter, its moments, and the direction of the last step."""

    p: Array
    m: Array
    v: Array
    d: Array


class SurpriseState(NamedTuple):
    """The same, and the mean gradient."""

    p: Array
    m: Array
    v: Array
    d: Array
    e: Array


class SlopeState(NamedTuple):
    """The parameter, its moments, the direction of the last step, and its derivative by beta1."""

    p: Array
    m: Array
    v: Array
    d: Array
    j: Array


class SlopeSurpriseState(NamedTuple):
    """All of these."""

    p: Array
    m: Array
    v: Array
    d: Array
    j: Array
    e: Array


class AutoSums(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Array
    gg: Array
    dd: Array


class MomentumSums(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Array
    gg: Array
    dd: Array
    gm: Array


class SurpriseSums(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Array
    gg: Array
    dd: Array
    ee: Array
    e: Array


class MomentumSurpriseSums(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Array
    gg: Array
    dd: Array
    gm: Array
    ee: Array
    e: Array


class SlopeSums(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Array
    gg: Array
    dd: Array
    gj: Array
    jj: Array


class SlopeSurpriseSums(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Array
    gg: Array
    dd: Array
    gj: Array
    jj: Array
    ee: Array
    e: Array


class AutoControl(NamedTuple):
    """See shaders/control/auto_adamw.glsl."""

    gd: Any
    gg: Any
    dd: Any
    gm: Any
    ee: Any
    gj: Any
    jj: Any
    corrected: Any
    momentum: Any
    surprised: Any
    warm: Any
    directed: Any
    hyper_lr: Any
    hyper_lr_beta: Any
    lr_min: Any
    lr_max: Any
    beta_min: Any
    beta_max: Any
    gamma: Any
    alpha: Any
    threshold: Any
    tiny: Any
    lr_squares: Any
    beta_squares: Any
    energy: Any
    has_energy: Any
    last_gg: Any
    s_bar: Any
    lr: Any
    lr_adapted: Any
    beta_adapted: Any
    surprise_taken: Any
    sinks: Any
    surprise: Any
    gain: Any


def _fresh(x: Array, h: AutoScalars) -> Array:
    return x if h.fresh > 0 else np.zeros_like(x)


def _surprise(s: Any, g: Array, h: AutoScalars) -> tuple[Array, Array]:
    """The squared distance from the mean gradient, and the mean moved on."""
    away = g - s.e
    ee = away * away
    moved = h.keep * s.e + h.add * g if h.add > 0 else s.e
    return ee, np.where(ee - ee == 0, moved, s.e)


def auto_adamw_sums(s: AutoState, g: Array, h: AutoScalars) -> AutoSums:
    """The first pass of shaders/rules/auto_adamw.glsl."""
    d = _fresh(s.d, h)
    return AutoSums(g * d, g * g, d * d)


def auto_adamw(s: Any, g: Array, h: AutoScalars) -> AutoState:
    """The second pass of shaders/rules/auto_adamw.glsl."""
    m = h.beta1 * s.m + h.c1 * g
    v = h.beta2 * s.v + h.c2 * g * g
    scale = h.inv_bc1 / (np.sqrt(v) * h.inv_sqrt_bc2 + h.eps)
    d = scale * m
    return AutoState(s.p * h.decay - h.lr * d, m, v, d)


def auto_adamw_momentum_sums(s: AutoState, g: Array, h: AutoScalars) -> MomentumSums:
    """The first pass of shaders/rules/auto_adamw_momentum.glsl."""
    d = _fresh(s.d, h)
    return MomentumSums(g * d, g * g, d * d, _fresh(g * s.m, h))


def auto_adamw_momentum(s: AutoState, g: Array, h: AutoScalars) -> AutoState:
    """The second pass of shaders/rules/auto_adamw_momentum.glsl."""
    return auto_adamw(s, g, h)


def auto_adamw_surprise_sums(s: SurpriseState, g: Array, h: AutoScalars) -> SurpriseSums:
    """The first pass of shaders/rules/auto_adamw_surprise.glsl."""
    d = _fresh(s.d, h)
    return SurpriseSums(g * d, g * g, d * d, *_surprise(s, g, h))


def auto_adamw_surprise(s: SurpriseState, g: Array, h: AutoScalars) -> SurpriseState:
    """The second pass of shaders/rules/auto_adamw_surprise.glsl."""
    return SurpriseState(*auto_adamw(s, g, h), s.e)


def auto_adamw_momentum_surprise_sums(s: SurpriseState, g: Array, h: AutoScalars) -> MomentumSurpriseSums:
    """The first pass of shaders/rules/auto_adamw_momentum_surprise.glsl."""
    d = _fresh(s.d, h)
    return MomentumSurpriseSums(g * d, g * g, d * d, _fresh(g * s.m, h), *_surprise(s, g, h))


def auto_adamw_momentum_surprise(s: SurpriseState, g: Array, h: AutoScalars) -> SurpriseState:
    """The second pass of shaders/rules/auto_adamw_momentum_surprise.glsl."""
    return auto_adamw_surprise(s, g, h)


def auto_adamw_slope_sums(s: SlopeState, g: Array, h: AutoScalars) -> SlopeSums:
    """The first pass of shaders/rules/auto_adamw_slope.glsl."""
    d, j = _fresh(s.d, h), _fresh(s.j, h)
    return SlopeSums(g * d, g * g, d * d, g * j, j * j)


def auto_adamw_slope(s: Any, g: Array, h: AutoScalars) -> SlopeState:
    """The second pass of shaders/rules/auto_adamw_slope.glsl."""
    m = h.beta1 * s.m + h.c1 * g
    v = h.beta2 * s.v + h.c2 * g * g
    scale = h.inv_bc1 / (np.sqrt(v) * h.inv_sqrt_bc2 + h.eps)
    d = scale * m
    j = -scale * (s.m - g + h.carry * m) if h.t > 1 else np.zeros_like(g)
    return SlopeState(s.p * h.decay - h.lr * d, m, v, d, j)


def auto_adamw_slope_surprise_sums(s: SlopeSurpriseState, g: Array, h: AutoScalars) -> SlopeSurpriseSums:
    """The first pass of shaders/rules/auto_adamw_slope_surprise.glsl."""
    d, j = _fresh(s.d, h), _fresh(s.j, h)
    return SlopeSurpriseSums(g * d, g * g, d * d, g * j, j * j, *_surprise(s, g, h))


def auto_adamw_slope_surprise(s: SlopeSurpriseState, g: Array, h: AutoScalars) -> SlopeSurpriseState:
    """The second pass of shaders/rules/auto_adamw_slope_surprise.glsl."""
    return SlopeSurpriseState(*auto_adamw_slope(s, g, h), s.e)


def within(x: Any, low: Any, high: Any) -> Any:
    """The number, or the end of the range that it is beyond."""
    return low if x < low else high if x > high else x


def _take_surprise(c: AutoControl) -> AutoControl:
    energy = c.gamma * c.energy + (1 - c.gamma) * c.gg if c.has_energy > 0 else c.gg
    # At first there is no mean gradient, so that this is tanh(1) for any gradient: no surprise, says "corrected".
    away = c.ee if c.has_energy > 0 else np.float64(0) if c.corrected > 0 else c.gg
    s = hyperbolic_tangent(away / (energy + c.tiny))
    s_bar = c.alpha * s + (1 - c.alpha) * c.s_bar
    return c._replace(
        energy=energy,
        has_energy=np.float64(1),
        surprise=s,
        s_bar=s_bar,
        gain=s_bar * exponential(-s_bar / c.threshold),
        surprise_taken=np.float64(1),
    )


def _adapt_lr(c: AutoControl) -> AutoControl:
    h = -c.gd / (np.sqrt(c.gg) * np.sqrt(c.dd) + c.tiny if c.corrected > 0 else c.last_gg + c.tiny)
    squares = c.lr_squares + h * h
    if not np.isfinite(squares):
        return c
    move = c.hyper_lr * h / (np.sqrt(squares) + c.tiny)
    lr = within(c.lr * exponential(-move) if c.corrected > 0 else c.lr - move, c.lr_min, c.lr_max)
    return c._replace(lr=lr, lr_squares=squares, lr_adapted=np.float64(1))


def _adapt_beta(c: AutoControl) -> AutoControl:
    h = c.gj / (np.sqrt(c.gg) * np.sqrt(c.jj) + c.tiny) if c.corrected > 0 else c.gm / (c.last_gg + c.tiny)
    squares = c.beta_squares + h * h
    if not np.isfinite(squares):
        return c
    sinks = c.hyper_lr_beta * h / (np.sqrt(squares) + c.tiny)
    return c._replace(sinks=sinks, beta_squares=squares, beta_adapted=np.float64(1))


def auto_adamw_decide(c: AutoControl) -> AutoControl:
    """The twin of shaders/control/auto_adamw.glsl."""
    if c.warm > 0 and np.isfinite([c.gd, c.gg, c.dd, c.gm, c.ee, c.gj, c.jj]).all():
        if c.surprised > 0:
            c = _take_surprise(c)
        if c.directed > 0 and (c.corrected > 0 or c.last_gg > c.tiny):
            c = _adapt_lr(c)
            if c.momentum > 0:
                c = _adapt_beta(c)
    return c._replace(last_gg=c.gg if np.isfinite(c.gg) else np.float64(0))


def auto_adamw_row(r: AutoScalars, c: AutoControl) -> AutoScalars:
    """The twin of shaders/control/auto_adamw.glsl."""
    beta1 = within(r.beta1 - c.sinks, c.beta_min, c.beta_max) if c.beta_adapted > 0 else r.beta1
    inv_bc1 = 1 / (1 - (r.product * beta1 if c.corrected > 0 else power(beta1, r.t)))
    lr = r.share * c.lr
    return r._replace(
        beta1=beta1,
        c1=1 - beta1,
        inv_bc1=inv_bc1,
        carry=r.product * inv_bc1,
        lr=lr,
        decay=1 - lr * r.weight_decay,
    )


_CONTROL = Control(auto_adamw_decide, auto_adamw_row, AutoControl)


def _rule(twin: Twin, state: type[Any], terms: Twin, sums: type[Any]) -> Rule:
    return Rule(twin, state, AutoScalars, terms, sums, _CONTROL)


AUTO = _rule(auto_adamw, AutoState, auto_adamw_sums, AutoSums)
MOMENTUM = _rule(auto_adamw_momentum, AutoState, auto_adamw_momentum_sums, MomentumSums)
SURPRISE = _rule(auto_adamw_surprise, SurpriseState, auto_adamw_surprise_sums, SurpriseSums)
MOMENTUM_SURPRISE = _rule(
    auto_adamw_momentum_surprise, SurpriseState, auto_adamw_momentum_surprise_sums, MomentumSurpriseSums
)
SLOPE = _rule(auto_adamw_slope, SlopeState, auto_adamw_slope_sums, SlopeSums)
SLOPE_SURPRISE = _rule(auto_adamw_slope_surprise, SlopeSurpriseState, auto_adamw_slope_surprise_sums, SlopeSurpriseSums)
