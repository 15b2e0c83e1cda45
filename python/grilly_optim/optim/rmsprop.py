"""RMSprop."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Options, Range
from grilly_optim.optim._slope import sign_and_decay, with_decay
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class RmspropState(NamedTuple):
    """The parameter and its mean squared gradient."""

    p: Array
    v: Array


class RmspropMomentumState(NamedTuple):
    """The parameter, its mean squared gradient, and the momentum."""

    p: Array
    v: Array
    b: Array


class RmspropCenteredState(NamedTuple):
    """The parameter, its mean squared gradient, and its mean gradient."""

    p: Array
    v: Array
    a: Array


class RmspropCenteredMomentumState(NamedTuple):
    """The parameter, its mean squared gradient, its mean gradient, and the momentum."""

    p: Array
    v: Array
    a: Array
    b: Array


class RmspropScalars(NamedTuple):
    """See shaders/rules/rmsprop.glsl."""

    alpha: float
    c2: float
    eps: float
    step: float
    decay: float
    c1: float
    momentum: float
    push: float


def rmsprop(s: RmspropState, g: Array, h: RmspropScalars) -> RmspropState:
    """The twin of shaders/rules/rmsprop.glsl."""
    grad = with_decay(g, s.p, h.decay)
    v = h.alpha * s.v + h.c2 * grad * grad
    d = np.sqrt(v) + h.eps
    return RmspropState(s.p - h.step * grad / d, v)


def rmsprop_momentum(s: RmspropMomentumState, g: Array, h: RmspropScalars) -> RmspropMomentumState:
    """The twin of shaders/rules/rmsprop_momentum.glsl."""
    grad = with_decay(g, s.p, h.decay)
    v = h.alpha * s.v + h.c2 * grad * grad
    d = np.sqrt(v) + h.eps
    b = h.momentum * s.b + h.push * grad / d
    return RmspropMomentumState(s.p - h.step * b, v, b)


def rmsprop_centered(s: RmspropCenteredState, g: Array, h: RmspropScalars) -> RmspropCenteredState:
    """The twin of shaders/rules/rmsprop_centered.glsl."""
    grad = with_decay(g, s.p, h.decay)
    v = h.alpha * s.v + h.c2 * grad * grad
    a = h.alpha * s.a + h.c1 * grad
    d = np.sqrt(v - a * a) + h.eps
    return RmspropCenteredState(s.p - h.step * grad / d, v, a)


def rmsprop_centered_momentum(
    s: RmspropCenteredMomentumState, g: Array, h: RmspropScalars
) -> RmspropCenteredMomentumState:
    """The twin of shaders/rules/rmsprop_centered_momentum.glsl."""
    grad = with_decay(g, s.p, h.decay)
    v = h.alpha * s.v + h.c2 * grad * grad
    a = h.alpha * s.a + h.c1 * grad
    d = np.sqrt(v - a * a) + h.eps
    b = h.momentum * s.b + h.push * grad / d
    return RmspropCenteredMomentumState(s.p - h.step * b, v, a, b)


PLAIN = Rule(rmsprop, RmspropState, RmspropScalars)
MOMENTUM = Rule(rmsprop_momentum, RmspropMomentumState, RmspropScalars)
CENTERED = Rule(rmsprop_centered, RmspropCenteredState, RmspropScalars)
CENTERED_MOMENTUM = Rule(rmsprop_centered_momentum, RmspropCenteredMomentumState, RmspropScalars)


class RMSprop(Optimizer):
    r"""RMSprop: gradients divided by the root of their mean square.

    For each element, with the gradient g (negated when maximizing)::

        g = g + weight_decay p
        v = alpha v + (1 - alpha) g^2
        d = sqrt(v) + eps                      (centered: a = alpha a + (1 - alpha) g; d = sqrt(v - a^2) + eps)
        p = p - lr g / d                       (momentum: b = momentum b + g / d; p = p - lr b)

    The arithmetic is `torch.optim.RMSprop`'s; scalars are computed in double and rounded to the parameter's precision.
    As there, gradients that hardly vary make the centered variance 0, or by rounding negative: then p leaps, or is NaN.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        alpha: Decay of the means, 0 or more (and below 1 to make sense).
        eps: Added to the denominator, 0 or more.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        momentum: Decay of the momentum, 0 or more. Whether it is 0 is fixed once the group is there.
        centered: Divide by the deviation from the mean gradient. Fixed once the group is there.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the means and the momentum.

    State takes 4 bytes per float32 element, 4 more with momentum, and 4 more when centered.

    Source: Hinton, "Neural networks for machine learning", lecture 6, 2012; Graves, "Generating sequences with
    recurrent neural networks", 2013 (centered).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import RMSprop
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = RMSprop([w], lr=0.01, device="numpy")
        >>> for _ in range(300):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.02)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        "lr": Range(0),
        "alpha": Range(0),
        "eps": Range(0),
        "weight_decay": Range(0),
        "momentum": Range(0),
        "centered": Flag(),
        "maximize": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        if options["centered"]:
            return CENTERED_MOMENTUM if options["momentum"] else CENTERED
        return MOMENTUM if options["momentum"] else PLAIN

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        lr, alpha, momentum = options["lr"], options["alpha"], options["momentum"]
        sign, decay = sign_and_decay(options)
        # In the order of RmspropScalars. With momentum the sign goes into that, and not once more into the step.
        step = lr if momentum else sign * lr
        return alpha, 1 - alpha, options["eps"], step, decay, sign * (1 - alpha), momentum, sign
