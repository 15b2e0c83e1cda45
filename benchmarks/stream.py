"""The reference: a kernel with AdamW's reads and writes and next to no arithmetic, run by the same engine."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

from .problem import by_element

Array = NDArray[Any]

# Half of the old value and the gradient: the fixed point is twice the gradient, so that no number grows or dies in
# millions of runs.
KEEP = 0.5


class StreamState(NamedTuple):
    """Three streams, read and written."""

    p: Array
    m: Array
    v: Array


class StreamScalars(NamedTuple):
    """See shaders/rules/stream.glsl."""

    keep: float


def stream(s: StreamState, g: Array, h: StreamScalars) -> StreamState:
    """The twin of shaders/rules/stream.glsl."""
    return StreamState(h.keep * s.p + g, h.keep * s.m + g, h.keep * s.v + g)


STREAM = Rule(stream, StreamState, StreamScalars)


@by_element
def expected(p: Array, g: Array, steps: int) -> Array:
    """The parameter after `steps` runs, in float64."""
    for _ in range(steps):
        p = KEEP * p + g
    return p
