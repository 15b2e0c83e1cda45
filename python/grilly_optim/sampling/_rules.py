"""The rules of the Langevin samplers: twins of shaders/rules/sgld.glsl, rmsprop_sgld.glsl and sgnht.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class SgldState(NamedTuple):
    """The parameter, where the prior pulls it, where it began, and what of it moves."""

    p: Array
    center: Any
    start: Any
    mask: Any


class SgldScalars(NamedTuple):
    """See shaders/rules/sgld.glsl."""

    grad: Any
    pull: Any
    decay: Any
    spread: Any
    box: Any


class SgldSums(NamedTuple):
    """See shaders/rules/sgld.glsl."""

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


class RmspropSgldState(NamedTuple):
    """The same, with the mean squared gradient."""

    p: Array
    v: Array
    center: Any
    start: Any
    mask: Any


class RmspropSgldScalars(NamedTuple):
    """See shaders/rules/rmsprop_sgld.glsl."""

    grad: Any
    pull: Any
    decay: Any
    spread: Any
    box: Any
    alpha: Any
    beta: Any
    eps: Any


class RmspropSgldSums(NamedTuple):
    """See shaders/rules/rmsprop_sgld.glsl."""

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
    v: Array


class Parts(NamedTuple):
    """What a step is made of: of the gradient (part_raw without mask and preconditioner), the pulls, the noise."""

    part_grad: Array
    part_raw: Array
    part_pull: Array
    part_decay: Array
    part_noise: Array


class SgnhtState(NamedTuple):
    """The parameter, its momentum, where it began, and what of it moves."""

    p: Array
    m: Array
    start: Any
    mask: Any


class SgnhtScalars(NamedTuple):
    """See shaders/rules/sgnht.glsl."""

    push: Any
    xi: Any
    spread: Any
    box: Any


class SgnhtSums(NamedTuple):
    """See shaders/rules/sgnht.glsl."""

    mm: Array
    gg: Array
    nn: Array
    dd: Array
    g_noise: Array
    p: Array
    m: Array


class SgnhtParts(NamedTuple):
    """What gradient and noise add to the momentum."""

    part_grad: Array
    part_noise: Array


def _boxed(p: Array, start: Any, box: Any) -> Array:
    low, high = start - box, start + box
    return np.where(p < low, low, np.where(p > high, high, p))


def sgld(s: SgldState, g: Array, z: Array, h: SgldScalars) -> SgldState:
    """The twin of shaders/rules/sgld.glsl."""
    prior = h.pull * (s.p - s.center) + h.decay * s.p
    p = s.p - s.mask * (h.grad * g + prior) + s.mask * (h.spread * z)
    return s._replace(p=_boxed(p, s.start, h.box))


def sgld_parts(s: SgldState, g: Array, z: Array, h: SgldScalars) -> Parts:
    """What a step of shaders/rules/sgld.glsl is made of."""
    u = h.grad * g
    pull, w = s.mask * (h.pull * (s.p - s.center)), s.mask * (h.decay * s.p)
    return Parts(s.mask * u, u, pull, w, s.mask * (h.spread * z))


def sgld_sums(s: SgldState, g: Array, z: Array, h: SgldScalars) -> SgldSums:
    """The whole step of shaders/rules/sgld.glsl, measured."""
    a, u, pull, w, n = sgld_parts(s, g, z, h)
    d, prior = s.p - s.start, pull + w
    squares = (a * a, u * u, pull * pull, w * w, n * n, d * d)
    return SgldSums(*squares, a * prior, a * n, prior * n, sgld(s, g, z, h).p)


def rmsprop_sgld(s: RmspropSgldState, g: Array, z: Array, h: RmspropSgldScalars) -> RmspropSgldState:
    """The twin of shaders/rules/rmsprop_sgld.glsl."""
    v = h.alpha * s.v + h.beta * g * g
    scale = 1 / (np.sqrt(v) + h.eps)
    prior = h.pull * (s.p - s.center) + h.decay * s.p
    p = s.p - s.mask * (scale * (h.grad * g + prior)) + s.mask * (h.spread * np.sqrt(scale) * z)
    return s._replace(p=_boxed(p, s.start, h.box), v=v)


def rmsprop_sgld_parts(s: RmspropSgldState, g: Array, z: Array, h: RmspropSgldScalars) -> Parts:
    """What a step of shaders/rules/rmsprop_sgld.glsl is made of."""
    scale = 1 / (np.sqrt(h.alpha * s.v + h.beta * g * g) + h.eps)
    u = h.grad * g
    pull, w = s.mask * (scale * (h.pull * (s.p - s.center))), s.mask * (scale * (h.decay * s.p))
    return Parts(s.mask * (scale * u), u, pull, w, s.mask * (h.spread * np.sqrt(scale) * z))


def rmsprop_sgld_sums(s: RmspropSgldState, g: Array, z: Array, h: RmspropSgldScalars) -> RmspropSgldSums:
    """The whole step of shaders/rules/rmsprop_sgld.glsl, measured."""
    a, u, pull, w, n = rmsprop_sgld_parts(s, g, z, h)
    d, prior, after = s.p - s.start, pull + w, rmsprop_sgld(s, g, z, h)
    squares = (a * a, u * u, pull * pull, w * w, n * n, d * d)
    return RmspropSgldSums(*squares, a * prior, a * n, prior * n, after.p, after.v)


def sgnht_parts(s: SgnhtState, g: Array, z: Array, h: SgnhtScalars) -> SgnhtParts:
    """What a step of shaders/rules/sgnht.glsl is made of."""
    return SgnhtParts(s.mask * (h.push * g), s.mask * (h.spread * z))


def sgnht_sums(s: SgnhtState, g: Array, z: Array, h: SgnhtScalars) -> SgnhtSums:
    """The twin of shaders/rules/sgnht.glsl."""
    a, n = sgnht_parts(s, g, z, h)
    d = s.p - s.start
    m = s.mask * s.m - a
    m = m - h.xi * m
    m = m + n
    p = s.p + m
    inside = (p - s.start < h.box) & (s.start - p < h.box)
    return SgnhtSums(m * m, a * a, n * n, d * d, a * n, _boxed(p, s.start, h.box), np.where(inside, m, -m))


_PRIOR = {"center": 0, "start": 0, "mask": 1}
SGLD = Rule(
    sgld,
    SgldState,
    SgldScalars,
    sgld_sums,
    SgldSums,
    drawn="normal",
    optional=_PRIOR,
    made_of=sgld_parts,
    parts=Parts,
)
RMSPROP = Rule(
    rmsprop_sgld,
    RmspropSgldState,
    RmspropSgldScalars,
    rmsprop_sgld_sums,
    RmspropSgldSums,
    drawn="normal",
    optional=_PRIOR,
    made_of=rmsprop_sgld_parts,
    parts=Parts,
)
SGNHT = Rule(
    sgnht_sums,
    SgnhtState,
    SgnhtScalars,
    sgnht_sums,
    SgnhtSums,
    drawn="normal",
    optional={"start": 0, "mask": 1},
    made_of=sgnht_parts,
    parts=SgnhtParts,
)
