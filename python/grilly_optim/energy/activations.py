"""Activations of units and their derivatives: the twins of shaders/lib/activations.glsl."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAK = 0.05  # slope of leaky_relu below 0
LINEAR_ABOVE = 20.0  # where softplus becomes its asymptote, as in torch


@dataclass(frozen=True)
class Activation:
    """What a unit makes of its state, element by element.

    The ones of `ACTIVATIONS` are known to every device; another one runs on device="numpy".

    Args:
        name: What messages call it.
        function: phi(u), an array of u's shape and dtype.
        derivative: phi'(u).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.energy import Activation, get_activation
        >>> get_activation("hard_sigmoid").function(np.array([-1.0, 0.25, 2.0])).tolist()
        [0.0, 0.25, 1.0]
        >>> square = Activation("square", lambda u: u * u, lambda u: 2 * u)
    """

    name: str
    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]

    def __post_init__(self) -> None:
        for what, x in (("function", self.function), ("derivative", self.derivative)):
            if not callable(x):
                raise TypeError(f"{what} of the activation {self.name!r} must be a function of an array, got {x!r}")


def _fading(u: Array) -> Array:
    """exp(-|u|), which overflows nowhere."""
    return np.exp(-np.abs(u))


def _number(found: Array, u: Array) -> Array:
    """NaN where u is."""
    return np.where(np.isnan(u), u, found)


def _sigmoid(u: Array) -> Array:
    e = _fading(u)
    return np.where(u < 0, e, e.dtype.type(1)) / (1 + e)  # type: ignore[no-any-return]


def _sigmoid_slope(u: Array) -> Array:
    s = _sigmoid(u)
    return s * (1 - s)  # type: ignore[no-any-return]


def _tanh_slope(u: Array) -> Array:
    t = np.tanh(u)
    return 1 - t * t


def _softplus(u: Array) -> Array:
    return np.where(u > LINEAR_ABOVE, u, np.maximum(u, 0) + np.log1p(_fading(u)))


def _softplus_slope(u: Array) -> Array:
    return np.where(u > LINEAR_ABOVE, u.dtype.type(1), _sigmoid(u))


def _above_0(u: Array, then: float, otherwise: float) -> Array:
    """One number where u is above 0, and another up to there."""
    return _number(np.where(u > 0, u.dtype.type(then), u.dtype.type(otherwise)), u)


def _hard_slope(u: Array) -> Array:
    return _number(((u >= 0) & (u <= 1)).astype(u.dtype), u)


ACTIVATIONS = {
    a.name: a
    for a in (
        Activation("identity", lambda u: u.copy(), lambda u: _above_0(u, 1, 1)),
        Activation("relu", lambda u: np.maximum(u, 0), lambda u: _above_0(u, 1, 0)),
        Activation("leaky_relu", lambda u: np.where(u < 0, u * u.dtype.type(LEAK), u), lambda u: _above_0(u, 1, LEAK)),
        Activation("sigmoid", _sigmoid, _sigmoid_slope),
        Activation("tanh", np.tanh, _tanh_slope),
        Activation("hard_sigmoid", lambda u: np.clip(u, 0, 1), _hard_slope),
        Activation("softplus", _softplus, _softplus_slope),
    )
}


def get_activation(phi: str | Activation, name: str = "phi") -> Activation:
    """The activation of this name, or the activation itself.

    Args:
        phi: "relu", "leaky_relu" (slope 0.05 below 0), "sigmoid", "tanh", "hard_sigmoid" (u clipped to [0, 1]),
            "softplus" (log(1 + exp u), u itself above 20), "identity", or an `Activation`.
        name: What messages call it.

    Derivatives at kinks are those of torch: relu has 0 and leaky_relu 0.05 at 0, hard_sigmoid has 1 at 0 and at 1.

    Raises:
        ValueError: An unknown name.
        TypeError: Neither.

    Example:
        >>> from grilly_optim.energy import get_activation
        >>> get_activation("tanh").name
        'tanh'
    """
    if isinstance(phi, Activation):
        return phi
    if not isinstance(phi, str):
        raise TypeError(f"{name} must be the name of an activation or an Activation, got {phi!r}")
    if phi not in ACTIVATIONS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, ACTIVATIONS))}, got {phi!r}")
    return ACTIVATIONS[phi]
