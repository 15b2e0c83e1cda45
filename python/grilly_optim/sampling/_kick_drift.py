"""The rule of the leapfrog integrator: the twin of shaders/rules/kick_drift.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class KickDriftState(NamedTuple):
    """The position, the momentum, and the diagonal of the inverse mass."""

    q: Array
    p: Array
    w: Any


class KickDriftScalars(NamedTuple):
    """See shaders/rules/kick_drift.glsl."""

    kick: Any
    drift: Any
    scale: Any


class KickDriftSums(NamedTuple):
    """See shaders/rules/kick_drift.glsl."""

    before: Array
    after: Array
    q: Array
    p: Array


def kick_drift(s: KickDriftState, g: Array, h: KickDriftScalars) -> KickDriftState:
    """The twin of shaders/rules/kick_drift.glsl."""
    p = s.p - h.kick * g
    return s._replace(q=s.q + h.drift * (s.w * p), p=p)


def kick_drift_sums(s: KickDriftState, g: Array, h: KickDriftScalars) -> KickDriftSums:
    """The whole step of shaders/rules/kick_drift.glsl, with kinetic energies."""
    after = kick_drift(s, g, h)
    return KickDriftSums(h.scale * s.w * s.p * s.p - 1, h.scale * s.w * after.p * after.p - 1, after.q, after.p)


KICK_DRIFT = Rule(kick_drift, KickDriftState, KickDriftScalars, kick_drift_sums, KickDriftSums, optional={"w": 1})
