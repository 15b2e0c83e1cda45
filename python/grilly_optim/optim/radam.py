"""RAdam."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import ADAM_OPTIONS, Flag, Options, Range
from grilly_optim.optim._slope import coupled_and_decoupled, with_decay
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class RAdamState(NamedTuple):
    """The parameter and its two moments."""

    p: Array
    m: Array
    v: Array


class RAdamScalars(NamedTuple):
    """See shaders/rules/radam.glsl."""

    beta1: float
    c1: float
    beta2: float
    c2: float
    step: float
    rectified: float
    eps: float
    keep: float
    decay: float


def radam(s: RAdamState, g: Array, h: RAdamScalars) -> RAdamState:
    """The twin of shaders/rules/radam.glsl."""
    grad = with_decay(g, s.p, h.decay)
    m = h.beta1 * s.m + h.c1 * grad
    v = h.beta2 * s.v + h.c2 * grad * grad
    change = m if h.rectified == 0 else m / (np.sqrt(v) + h.eps)
    return RAdamState(s.p * h.keep - h.step * change, m, v)


RADAM = Rule(radam, RAdamState, RAdamScalars)


class RAdam(Optimizer):
    r"""Rectified Adam: momentum alone until there are gradients enough for a variance, then Adam in measure of it.

    For each element, with the gradient g (negated when maximizing) and t counting that parameter's steps from 1::

        g = g + weight_decay p                 (decoupled: p = p (1 - lr weight_decay) instead)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        R = 2 / (1 - beta2) - 1;    n = R - 2 t beta2^t / (1 - beta2^t)
        n > 5:   r = sqrt((n - 4) (n - 2) R / ((R - 4) (R - 2) n))
                 p = p - lr r sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)
        else:    p = p - lr / (1 - beta1^t) * m

    The arithmetic is `torch.optim.RAdam`'s; scalars are computed in double and rounded to the parameter's precision.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the denominator, 0 or more.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        decoupled_weight_decay: Decay the parameter and not the gradient.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the two moments.

    State takes 8 bytes per float32 element.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import RAdam
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = RAdam([w], lr=0.1, device="numpy")
        >>> for _ in range(300):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.01)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"m": "exp_avg", "v": "exp_avg_sq"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        **ADAM_OPTIONS,
        "decoupled_weight_decay": Flag(),
        "maximize": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        return RADAM

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        beta1, beta2 = options["betas"]
        sign, decay, keep = coupled_and_decoupled(options)
        step, rectified = options["lr"] / (1 - beta1**t), 0.0
        # The length of the second moment's memory, and what it tends to.
        longest, length = 2 / (1 - beta2) - 1, 2 / (1 - beta2) - 1 - 2 * t * beta2**t / (1 - beta2**t)
        if length > 5:
            r2 = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            step, rectified = step * math.sqrt(r2 * (1 - beta2**t)), 1.0
        return beta1, sign * (1 - beta1), beta2, 1 - beta2, step, rectified, options["eps"], keep, decay
