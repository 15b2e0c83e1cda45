"""AdamW."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import ADAM_OPTIONS, Flag, Options, Range
from grilly_optim.optim._past import Past
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class AdamWState(NamedTuple):
    """The parameter and its two moments."""

    p: Array
    m: Array
    v: Array


class AdamWScalars(NamedTuple):
    """See shaders/rules/adamw.glsl."""

    beta1: float
    c1: float
    beta2: float
    c2: float
    step: float
    inv_sqrt_bc2: float
    eps: float
    decay: float


class AdamWAmsgradState(NamedTuple):
    """The parameter, its two moments, and the largest second moment so far."""

    p: Array
    m: Array
    v: Array
    vmax: Array


def adamw(s: AdamWState, g: Array, h: AdamWScalars) -> AdamWState:
    """The twin of shaders/rules/adamw.glsl."""
    m = h.beta1 * s.m + h.c1 * g
    v = h.beta2 * s.v + h.c2 * g * g
    d = np.sqrt(v) * h.inv_sqrt_bc2 + h.eps
    return AdamWState(s.p * h.decay - h.step * m / d, m, v)


def adamw_amsgrad(s: AdamWAmsgradState, g: Array, h: AdamWScalars) -> AdamWAmsgradState:
    """The twin of shaders/rules/adamw_amsgrad.glsl."""
    m = h.beta1 * s.m + h.c1 * g
    v = h.beta2 * s.v + h.c2 * g * g
    vmax = np.where(s.vmax >= v, s.vmax, v)
    d = np.sqrt(vmax) * h.inv_sqrt_bc2 + h.eps
    return AdamWAmsgradState(s.p * h.decay - h.step * m / d, m, v, vmax)


ADAMW = Rule(adamw, AdamWState, AdamWScalars)
ADAMW_AMSGRAD = Rule(adamw_amsgrad, AdamWAmsgradState, AdamWScalars)


def adamw_scalars(options: Options, past: Past) -> tuple[float, ...]:
    """The scalars of a step with decoupled decay, in the order of AdamWScalars; `past` counts that step too.

    A plain tuple, because this is half of what a small step takes.
    """
    lr, (beta1, beta2) = options["lr"], options["betas"]
    c1 = 1 - beta1
    return (
        beta1,
        -c1 if options["maximize"] else c1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**past),
        1 / math.sqrt(1 - beta2**past),
        options["eps"],
        1 - lr * options["weight_decay"],
    )


class AdamW(Optimizer):
    r"""Adam with decoupled weight decay.

    For each element, with the gradient g (negated when maximizing) and t counting that parameter's steps from 1::

        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2          (amsgrad: the largest v so far takes v's place below)
        p = p (1 - lr weight_decay) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    The arithmetic is `torch.optim.AdamW`'s; scalars are computed in double and rounded to the parameter's precision.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the denominator, 0 or more.
        weight_decay: Decoupled decay per unit of learning rate, 0 or more.
        amsgrad: Divide by the largest second moment so far. Fixed once the group is there.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the two (with amsgrad three) moments.

    State takes 8 bytes per float32 element, 12 with amsgrad.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019; Reddi, Kale & Kumar, "On the convergence
    of Adam and beyond", 2018.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AdamW
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = AdamW([w], lr=0.1, device="numpy")
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
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        return ADAMW_AMSGRAD if options["amsgrad"] else ADAMW

    # Not a method that calls it: that would be a tenth of a small step.
    _scalars = staticmethod(adamw_scalars)
