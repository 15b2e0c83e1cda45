"""NAdam."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import ADAM_OPTIONS, Flag, Options, Range
from grilly_optim.optim._past import Past
from grilly_optim.optim._slope import coupled_and_decoupled, with_decay
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class NAdamState(NamedTuple):
    """The parameter and its two moments."""

    p: Array
    m: Array
    v: Array


class NAdamScalars(NamedTuple):
    """See shaders/rules/nadam.glsl."""

    beta1: float
    c1: float
    beta2: float
    c2: float
    now: float
    ahead: float
    inv_sqrt_bc2: float
    eps: float
    keep: float
    decay: float


class NAdamPast(NamedTuple):
    """Steps, and the product of the momenta of all of them: betas may change between steps."""

    step: int
    mu_product: float


def nadam(s: NAdamState, g: Array, h: NAdamScalars) -> NAdamState:
    """The twin of shaders/rules/nadam.glsl."""
    grad = with_decay(g, s.p, h.decay)
    m = h.beta1 * s.m + h.c1 * grad
    v = h.beta2 * s.v + h.c2 * grad * grad
    d = np.sqrt(v) * h.inv_sqrt_bc2 + h.eps
    return NAdamState(s.p * h.keep - (h.now * grad + h.ahead * m) / d, m, v)


NADAM = Rule(nadam, NAdamState, NAdamScalars)


def momentum_at(options: Options, t: int) -> float:
    """The momentum of step t, which grows from about half of beta1 to beta1."""
    return float(options["betas"][0] * (1 - 0.5 * 0.96 ** (t * options["momentum_decay"])))


class NAdam(Optimizer):
    r"""Adam with Nesterov's momentum.

    For each element, with the gradient g (negated when maximizing) and t counting that parameter's steps from 1::

        g = g + weight_decay p                 (decoupled: p = p (1 - lr weight_decay) instead)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        mu(t) = beta1 (1 - 0.5 * 0.96^(t momentum_decay));    P = mu(1) mu(2) ... mu(t)
        d = sqrt(v) / sqrt(1 - beta2^t) + eps
        p = p - lr ((1 - mu(t)) / (1 - P) * g + mu(t + 1) / (1 - P mu(t + 1)) * m) / d

    The arithmetic is `torch.optim.NAdam`'s; scalars are computed in double and rounded to the parameter's precision.
    torch keeps P in float32, which shows in the eighth digit.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the denominator, 0 or more.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        momentum_decay: How fast mu grows to beta1, 0 or more.
        decoupled_weight_decay: Decay the parameter and not the gradient.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the two moments.

    State takes 8 bytes per float32 element; P is one number per parameter, ``"mu_product"`` in `state_dict`.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import NAdam
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = NAdam([w], lr=0.1, device="numpy")
        >>> for _ in range(200):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.01)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"m": "exp_avg", "v": "exp_avg_sq"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        **ADAM_OPTIONS,
        "momentum_decay": Range(0),
        "decoupled_weight_decay": Flag(),
        "maximize": Flag(),
    }
    START: ClassVar[Past] = NAdamPast(0, 1.0)

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
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
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        return NADAM

    def _advance(self, options: Options, past: Past) -> Past:
        t = past.step + 1
        return NAdamPast(t, past.mu_product * momentum_at(options, t))

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        lr, (beta1, beta2) = options["lr"], options["betas"]
        t, product = past
        sign, decay, keep = coupled_and_decoupled(options)
        mu, mu_next = momentum_at(options, t), momentum_at(options, t + 1)
        return (
            beta1,
            sign * (1 - beta1),
            beta2,
            1 - beta2,
            sign * lr * (1 - mu) / (1 - product),
            lr * mu_next / (1 - product * mu_next),
            1 / math.sqrt(1 - beta2**t),
            options["eps"],
            keep,
            decay,
        )
