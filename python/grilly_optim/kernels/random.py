"""Rules that fill arrays with random numbers: the twins of shaders/rules/draw_normal.glsl and draw_uniform.glsl."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class DrawState(NamedTuple):
    """What is filled."""

    p: Array


class NormalScalars(NamedTuple):
    """See shaders/rules/draw_normal.glsl."""

    scale: Any


class UniformScalars(NamedTuple):
    """See shaders/rules/draw_uniform.glsl."""

    low: Any
    width: Any


def draw_normal(s: DrawState, z: Array, h: NormalScalars) -> DrawState:
    """The twin of shaders/rules/draw_normal.glsl."""
    return DrawState(h.scale * z)


def draw_uniform(s: DrawState, u: Array, h: UniformScalars) -> DrawState:
    """The twin of shaders/rules/draw_uniform.glsl."""
    return DrawState(h.low + h.width * u)


NORMAL = Rule(draw_normal, DrawState, NormalScalars, drawn="normal")
UNIFORM = Rule(draw_uniform, DrawState, UniformScalars, drawn="uniform")
