"""The rule of Hamiltonian Learning."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class HlState(NamedTuple):
    """A weight and its costate."""

    w: Array
    p: Array


class HlScalars(NamedTuple):
    """See shaders/rules/hl.glsl."""

    a: float
    keep: float
    step: float
    local: float


def hl(s: HlState, g: Array, h: HlScalars) -> HlState:
    """The twin of shaders/rules/hl.glsl."""
    p = h.keep * s.p + h.a * g
    v = s.p if h.local > 0 else p
    return HlState(s.w - h.step * v, p)


HL_RULE = Rule(hl, HlState, HlScalars)
