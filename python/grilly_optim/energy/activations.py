"""Activations and their derivatives, element by element: the twins of shaders/lib/activations.glsl."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Activation:
    """A function of one number with its derivative, on arrays of float32 or float64; the dtype stays.

    Args:
        name: What it is called.
        function: From states u to rates r = phi(u).
        derivative: From u to phi'(u).
    """

    name: str
    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


def _where_number(result: Array, x: Array) -> Array:
    return np.where(np.isnan(x), x, result)


def _small(x: Array) -> Array:
    """exp(-|x|), which does not overflow."""
    made: Array = np.exp(-np.abs(x))
    return made


def _sigmoid(x: Array) -> Array:
    e = _small(x)
    made: Array = np.where(x < 0, e, e.dtype.type(1)) / (1 + e)
    return made


def _sigmoid_slope(x: Array) -> Array:
    e = _small(x)
    made: Array = e / ((1 + e) * (1 + e))
    return made


def _tanh(x: Array) -> Array:
    made: Array = np.tanh(x)
    return made


def _tanh_slope(x: Array) -> Array:
    e = _small(x)  # and its square is exp(-2|x|), where 2x might be too large a number
    made: Array = 4 * (e * e) / ((1 + e * e) * (1 + e * e))
    return made


def _softplus(x: Array) -> Array:
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def _step(x: Array, below: float, above: float) -> Array:
    """`below` up to 0, `above` behind it."""
    return _where_number(np.where(x > 0, x.dtype.type(above), x.dtype.type(below)), x)


def _hard_slope(x: Array) -> Array:
    return _where_number(((x >= 0) & (x <= 1)).astype(x.dtype), x)


ACTIVATIONS: dict[str, Activation] = {
    phi.name: phi
    for phi in (
        Activation("hard_sigmoid", lambda x: np.clip(x, 0, 1), _hard_slope),
        Activation("identity", lambda x: x.copy(), lambda x: _step(x, 1, 1)),
        Activation("leaky_relu", lambda x: np.where(x < 0, x * x.dtype.type(0.05), x), lambda x: _step(x, 0.05, 1)),
        Activation("relu", lambda x: np.where(x < 0, x.dtype.type(0), x), lambda x: _step(x, 0, 1)),
        Activation("sigmoid", _sigmoid, _sigmoid_slope),
        Activation("softplus", _softplus, _sigmoid),
        Activation("tanh", _tanh, _tanh_slope),
    )
}


def get_activation(phi: str | Activation) -> Activation:
    """The activation of that name, or `phi` itself.

    Raises:
        ValueError: There is none of that name.
        TypeError: `phi` is neither a name nor an `Activation`.

    >>> get_activation("relu").name
    'relu'
    """
    if isinstance(phi, Activation):
        return phi
    if not isinstance(phi, str):
        raise TypeError(f"phi must be a name or an Activation, got {type(phi).__name__}")
    if phi not in ACTIVATIONS:
        raise ValueError(f"there is no activation {phi!r}, only {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[phi]
