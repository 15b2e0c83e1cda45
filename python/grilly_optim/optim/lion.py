"""Lion."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Options, Range
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class LionState(NamedTuple):
    """The parameter and its momentum."""

    p: Array
    m: Array


class LionScalars(NamedTuple):
    """See shaders/rules/lion.glsl."""

    beta1: float
    c1: float
    beta2: float
    c2: float
    step: float
    keep: float


def lion(s: LionState, g: Array, h: LionScalars) -> LionState:
    """The twin of shaders/rules/lion.glsl."""
    u = h.beta1 * s.m + h.c1 * g
    change = np.where(u > 0, h.step, np.where(u < 0, -h.step, u))
    return LionState(s.p * h.keep - change, h.beta2 * s.m + h.c2 * g)


LION = Rule(lion, LionState, LionScalars)


class Lion(Optimizer):
    r"""Lion: steps of one size, in the direction of the sign of an average.

    For each element, with the gradient g::

        p = p (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g)
        m = beta2 m + (1 - beta2) g

    The sign of 0 is 0; NaN stays NaN. Every element moves by lr, so that lr is usually 3 to 10 times smaller than
    Adam's, and weight_decay as much larger. No operation is contracted: the same signs come out on every device.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Size of the steps, 0 or more.
        betas: Share of the momentum in the direction, and its decay, each in [0, 1).
        weight_decay: Decoupled decay per unit of learning rate, 0 or more.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the momentum.

    State takes 4 bytes per float32 element.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import Lion
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = Lion([w], lr=0.1, device="numpy")
        >>> for _ in range(5):
        ...     optimizer.step(gradients=[2 * w])
        >>> w.round(3).tolist()
        [0.5, -1.5]
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"m": "exp_avg"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        "lr": Range(0),
        "betas": Range(0, 1, pair=True),
        "weight_decay": Range(0),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        device: str | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay}, device)

    def _rule(self, options: Options) -> Rule:
        return LION

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        lr, (beta1, beta2) = options["lr"], options["betas"]
        return beta1, 1 - beta1, beta2, 1 - beta2, lr, 1 - lr * options["weight_decay"]
