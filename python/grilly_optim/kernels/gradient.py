"""The twin of shaders/lib/gradient.glsl: what happens to a gradient before any rule, and to a path after it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Mix(NamedTuple):
    """See shaders/lib/gradient.glsl."""

    limit: Any
    scale: Any
    strength: Any


def clipped(g: Array, m: Mix) -> Array:
    """Clipped by value, then scaled."""
    return np.asarray(m.scale * np.where(g > m.limit, m.limit, np.where(g < -m.limit, -m.limit, g)))


def anchored(g: Array, p: Array, weight: Array, anchor: Array, m: Mix) -> Array:
    """With the gradient of an anchored quadratic on top."""
    return np.asarray(g + m.strength * (weight * (p - anchor)))


def traced(trace: Array, before: Array, after: Array, g: Array) -> Array:
    """The path integral, a step further."""
    return np.asarray(trace - (after - before) * g)
