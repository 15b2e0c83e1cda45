"""The rules of the samplers with a momentum: twins of shaders/rules/sghmc.glsl and baoa.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class MomentumState(NamedTuple):
    """The parameter, its momentum, where it began, and what of it moves."""

    p: Array
    m: Array
    start: Any
    mask: Any


class SghmcScalars(NamedTuple):
    """See shaders/rules/sghmc.glsl."""

    grad: Any
    pull: Any
    decay: Any
    drift: Any
    friction: Any
    spread: Any
    box: Any


class BaoaScalars(NamedTuple):
    """See shaders/rules/baoa.glsl."""

    grad: Any
    pull: Any
    decay: Any
    drift: Any
    keep: Any
    spread: Any
    box: Any


class MomentumSums(NamedTuple):
    """See shaders/rules/sghmc.glsl."""

    gg: Array
    uu: Array
    ll: Array
    ww: Array
    nn: Array
    dd: Array
    g_prior: Array
    g_noise: Array
    prior_noise: Array
    p: Array
    m: Array


def _boxed(s: MomentumState, p: Array, m: Array, box: Any) -> MomentumState:
    low, high = s.start - box, s.start + box
    inside = (p - s.start < box) & (s.start - p < box)
    return s._replace(p=np.where(p < low, low, np.where(p > high, high, p)), m=np.where(inside, m, -m))


def _measured(s: MomentumState, g: Array, z: Array, h: Any, after: MomentumState) -> MomentumSums:
    u = h.grad * g
    a, pull, w = s.mask * u, s.mask * (h.pull * (s.p - s.start)), s.mask * (h.decay * s.p)
    n, d, prior = s.mask * (h.spread * z), s.p - s.start, pull + w
    parts = a * a, u * u, pull * pull, w * w, n * n, d * d, a * prior, a * n, prior * n
    return MomentumSums(*parts, after.p, after.m)


def sghmc(s: MomentumState, g: Array, z: Array, h: SghmcScalars) -> MomentumState:
    """The twin of shaders/rules/sghmc.glsl."""
    p = s.p + s.mask * (h.drift * s.m)
    prior = h.pull * (s.p - s.start) + h.decay * s.p
    m = s.mask * (s.m - (h.grad * g + prior) - h.friction * s.m + h.spread * z)
    return _boxed(s, p, m, h.box)


def sghmc_sums(s: MomentumState, g: Array, z: Array, h: SghmcScalars) -> MomentumSums:
    """The whole step of shaders/rules/sghmc.glsl, measured."""
    return _measured(s, g, z, h, sghmc(s, g, z, h))


def baoa(s: MomentumState, g: Array, z: Array, h: BaoaScalars) -> MomentumState:
    """The twin of shaders/rules/baoa.glsl."""
    prior = h.pull * (s.p - s.start) + h.decay * s.p
    kicked = s.mask * (s.m - (h.grad * g + prior))
    m = s.mask * (h.keep * kicked + h.spread * z)
    p = s.p + h.drift * kicked
    p = p + h.drift * m
    return _boxed(s, p, m, h.box)


def baoa_sums(s: MomentumState, g: Array, z: Array, h: BaoaScalars) -> MomentumSums:
    """The whole step of shaders/rules/baoa.glsl, measured."""
    return _measured(s, g, z, h, baoa(s, g, z, h))


_OPTIONAL = {"start": 0, "mask": 1}
SGHMC = Rule(sghmc, MomentumState, SghmcScalars, sghmc_sums, MomentumSums, drawn="normal", optional=_OPTIONAL)
BAOA = Rule(baoa, MomentumState, BaoaScalars, baoa_sums, MomentumSums, drawn="normal", optional=_OPTIONAL)
