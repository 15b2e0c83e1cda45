"""The gradient that most optimizers see: with coupled weight decay, and turned around to maximize."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from grilly_optim.optim._options import Options

Array = NDArray[Any]


def with_decay(g: Array, p: Array, decay: float) -> Array:
    """The gradient with coupled decay; without decay the gradient itself: 0 * p would be NaN where p is infinite."""
    return g if decay == 0 else g + decay * p


def sign_and_decay(options: Options) -> tuple[float, float]:
    """The sign of everything in a rule that is odd in the gradient, and the coupled decay with that sign.

    The rules do not negate gradients to maximize: -g + decay p is -(g - decay p), its square needs no sign, and where
    it stands alone it has a factor that takes the sign.
    """
    sign = -1.0 if options["maximize"] else 1.0
    return sign, sign * options["weight_decay"]


def coupled_and_decoupled(options: Options) -> tuple[float, float, float]:
    """The sign and the coupled decay as `sign_and_decay` has them, and what decoupled decay leaves of the parameter."""
    sign, decay = sign_and_decay(options)
    if options["decoupled_weight_decay"]:
        return sign, 0.0, 1 - options["lr"] * options["weight_decay"]
    return sign, decay, 1.0
