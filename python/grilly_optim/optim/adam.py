"""Adam."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import ADAM_OPTIONS, Flag, Options, Range
from grilly_optim.optim._slope import sign_and_decay
from grilly_optim.optim.adamw import (
    ADAMW,
    ADAMW_AMSGRAD,
    AdamWAmsgradState,
    AdamWScalars,
    AdamWState,
    adamw_scalars,
)
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


def adam(s: AdamWState, g: Array, h: AdamWScalars) -> AdamWState:
    """The twin of shaders/rules/adam.glsl."""
    grad = g + h.decay * s.p
    m = h.beta1 * s.m + h.c1 * grad
    v = h.beta2 * s.v + h.c2 * grad * grad
    d = np.sqrt(v) * h.inv_sqrt_bc2 + h.eps
    return AdamWState(s.p - h.step * m / d, m, v)


def adam_amsgrad(s: AdamWAmsgradState, g: Array, h: AdamWScalars) -> AdamWAmsgradState:
    """The twin of shaders/rules/adam_amsgrad.glsl."""
    grad = g + h.decay * s.p
    m = h.beta1 * s.m + h.c1 * grad
    v = h.beta2 * s.v + h.c2 * grad * grad
    vmax = np.where(s.vmax >= v, s.vmax, v)
    d = np.sqrt(vmax) * h.inv_sqrt_bc2 + h.eps
    return AdamWAmsgradState(s.p - h.step * m / d, m, v, vmax)


ADAM = Rule(adam, AdamWState, AdamWScalars)
ADAM_AMSGRAD = Rule(adam_amsgrad, AdamWAmsgradState, AdamWScalars)


class Adam(Optimizer):
    r"""Adam, with weight decay as a term of the gradient.

    For each element, with the gradient g (negated when maximizing) and t counting that parameter's steps from 1::

        g = g + weight_decay p                 (decoupled: p = p (1 - lr weight_decay) instead)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2          (amsgrad: the largest v so far takes v's place below)
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    The arithmetic is `torch.optim.Adam`'s; scalars are computed in double and rounded to the parameter's precision.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the denominator, 0 or more.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        amsgrad: Divide by the largest second moment so far. Fixed once the group is there.
        maximize: Ascend instead of descend.
        decoupled_weight_decay: Decay the parameter and not the gradient, which makes this `AdamW`.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the two (with amsgrad three) moments.

    State takes 8 bytes per float32 element, 12 with amsgrad.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015; Reddi, Kale & Kumar, "On the convergence of
    Adam and beyond", 2018.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import Adam
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = Adam([w], lr=0.1, device="numpy")
        >>> for _ in range(200):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.01)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"m": "exp_avg", "v": "exp_avg_sq", "vmax": "max_exp_avg_sq"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        **ADAM_OPTIONS,
        "amsgrad": Flag(),
        "maximize": Flag(),
        "decoupled_weight_decay": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        if _is_coupled(options):
            return ADAM_AMSGRAD if options["amsgrad"] else ADAM
        return ADAMW_AMSGRAD if options["amsgrad"] else ADAMW

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        scalars = adamw_scalars(options, t)
        return (*scalars[:-1], sign_and_decay(options)[1]) if _is_coupled(options) else scalars


def _is_coupled(options: Options) -> bool:
    return bool(options["weight_decay"] and not options["decoupled_weight_decay"])
