"""Adadelta."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Options, Range
from grilly_optim.optim._slope import sign_and_decay, with_decay
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class AdadeltaState(NamedTuple):
    """The parameter, its mean squared gradient, and its mean squared change."""

    p: Array
    v: Array
    u: Array


class AdadeltaScalars(NamedTuple):
    """See shaders/rules/adadelta.glsl."""

    rho: float
    c2: float
    eps: float
    step: float
    decay: float


def adadelta(s: AdadeltaState, g: Array, h: AdadeltaScalars) -> AdadeltaState:
    """The twin of shaders/rules/adadelta.glsl."""
    grad = with_decay(g, s.p, h.decay)
    v = h.rho * s.v + h.c2 * grad * grad
    change = np.sqrt(s.u + h.eps) / np.sqrt(v + h.eps) * grad
    u = h.rho * s.u + h.c2 * change * change
    return AdadeltaState(s.p - h.step * change, v, u)


ADADELTA = Rule(adadelta, AdadeltaState, AdadeltaScalars)


class Adadelta(Optimizer):
    r"""Adadelta: changes as large as past changes were, for gradients as large as past gradients were.

    For each element, with the gradient g (negated when maximizing)::

        g = g + weight_decay p
        v = rho v + (1 - rho) g^2
        d = sqrt(u + eps) / sqrt(v + eps) * g
        u = rho u + (1 - rho) d^2
        p = p - lr d

    The arithmetic is `torch.optim.Adadelta`'s; scalars are computed in double and rounded to the parameter's precision.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Factor of the change, 0 or more.
        rho: Decay of the two means, in [0, 1].
        eps: Added under both roots, 0 or more; the first changes are about its root.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the two means.

    State takes 8 bytes per float32 element.

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import Adadelta
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = Adadelta([w], eps=1e-3, device="numpy")
        >>> for _ in range(200):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.01)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"v": "square_avg", "u": "acc_delta"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        "lr": Range(0),
        "rho": Range(0, 1, closed=True),
        "eps": Range(0),
        "weight_decay": Range(0),
        "maximize": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        return ADADELTA

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        sign, decay = sign_and_decay(options)
        return options["rho"], 1 - options["rho"], options["eps"], sign * options["lr"], decay
