"""Adagrad."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Options, Range
from grilly_optim.optim._slope import sign_and_decay, with_decay
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class AdagradState(NamedTuple):
    """The parameter and the sum of its squared gradients."""

    p: Array
    v: Array


class AdagradScalars(NamedTuple):
    """See shaders/rules/adagrad.glsl."""

    eps: float
    step: float
    decay: float


def adagrad(s: AdagradState, g: Array, h: AdagradScalars) -> AdagradState:
    """The twin of shaders/rules/adagrad.glsl."""
    grad = with_decay(g, s.p, h.decay)
    v = s.v + grad * grad
    d = np.sqrt(v) + h.eps
    return AdagradState(s.p - h.step * grad / d, v)


ADAGRAD = Rule(adagrad, AdagradState, AdagradScalars)


class Adagrad(Optimizer):
    r"""Adagrad: gradients divided by the root of the sum of their squares.

    For each element, with the gradient g (negated when maximizing) and t counting that parameter's steps from 1::

        g = g + weight_decay p
        v = v + g^2                            (v starts at initial_accumulator_value)
        p = p - lr / (1 + (t - 1) lr_decay) * g / (sqrt(v) + eps)

    The arithmetic is `torch.optim.Adagrad`'s; scalars are computed in double and rounded to the parameter's precision.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        lr_decay: Decay of the learning rate with the steps, 0 or more.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        initial_accumulator_value: Where the sums start, 0 or more. Without effect once the group is there.
        eps: Added to the denominator, 0 or more.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the sums.

    State takes 4 bytes per float32 element.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import Adagrad
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = Adagrad([w], lr=1.0, device="numpy")
        >>> for _ in range(50):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.01)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"v": "sum"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        "lr": Range(0),
        "lr_decay": Range(0),
        "weight_decay": Range(0),
        "initial_accumulator_value": Range(0),
        "eps": Range(0),
        "maximize": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        return ADAGRAD

    def _initial(self, options: Options, params: list[Array]) -> dict[str, float]:
        return {"v": options["initial_accumulator_value"]}

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        sign, decay = sign_and_decay(options)
        return options["eps"], sign * options["lr"] / (1 + (t - 1) * options["lr_decay"]), decay
