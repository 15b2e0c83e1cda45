"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Options, Range
from grilly_optim.optim._slope import sign_and_decay, with_decay
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class SgdState(NamedTuple):
    """The parameter alone."""

    p: Array


class SgdMomentumState(NamedTuple):
    """The parameter and its momentum."""

    p: Array
    b: Array


class SgdScalars(NamedTuple):
    """See shaders/rules/sgd.glsl."""

    step: float
    decay: float


class SgdMomentumScalars(NamedTuple):
    """See shaders/rules/sgd_momentum.glsl."""

    keep: float
    c: float
    step: float
    decay: float


class SgdNesterovScalars(NamedTuple):
    """See shaders/rules/sgd_nesterov.glsl."""

    keep: float
    c: float
    step: float
    decay: float
    momentum: float


def sgd(s: SgdState, g: Array, h: SgdScalars) -> SgdState:
    """The twin of shaders/rules/sgd.glsl."""
    grad = with_decay(g, s.p, h.decay)
    return SgdState(s.p - h.step * grad)


def sgd_momentum(s: SgdMomentumState, g: Array, h: SgdMomentumScalars) -> SgdMomentumState:
    """The twin of shaders/rules/sgd_momentum.glsl."""
    grad = with_decay(g, s.p, h.decay)
    b = h.keep * s.b + h.c * grad
    return SgdMomentumState(s.p - h.step * b, b)


def sgd_nesterov(s: SgdMomentumState, g: Array, h: SgdNesterovScalars) -> SgdMomentumState:
    """The twin of shaders/rules/sgd_nesterov.glsl."""
    grad = with_decay(g, s.p, h.decay)
    push = h.c * grad
    b = h.keep * s.b + push
    return SgdMomentumState(s.p - h.step * (push + h.momentum * b), b)


SGD_PLAIN = Rule(sgd, SgdState, SgdScalars)
SGD_MOMENTUM = Rule(sgd_momentum, SgdMomentumState, SgdMomentumScalars)
SGD_NESTEROV = Rule(sgd_nesterov, SgdMomentumState, SgdNesterovScalars)


def _nesterov_needs(options: Options) -> str:
    momentum, dampening = options["momentum"], options["dampening"]
    if momentum > 0 and dampening == 0:
        return ""
    return f"a momentum above 0 and a dampening of 0, got momentum={momentum!r} and dampening={dampening!r}"


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum and Nesterov's momentum.

    For each element, with the gradient g (negated when maximizing)::

        g = g + weight_decay p
        b = momentum b + (1 - dampening) g     (b = g at a parameter's first step; without momentum there is no b)
        p = p - lr b                           (nesterov: p - lr (g + momentum b); without momentum: p - lr g)

    The arithmetic is `torch.optim.SGD`'s; scalars are computed in double and rounded to the parameter's precision.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts with options of their own.
        lr: Learning rate, 0 or more.
        momentum: Decay of the momentum, 0 or more. Whether it is 0 is fixed once the group is there.
        dampening: What the momentum leaves out of each gradient but the first.
        weight_decay: Factor of the parameter in the gradient, 0 or more.
        nesterov: Look ahead along the momentum; needs a momentum above 0 and no dampening.
        maximize: Ascend instead of descend.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the momentum.

    State takes 4 bytes per float32 element with momentum, and none without.

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Sutskever et al., "On the
    importance of initialization and momentum in deep learning", 2013.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import SGD
        >>> w = np.array([1.0, -2.0], np.float32)
        >>> optimizer = SGD([w], lr=0.1, momentum=0.5, device="numpy")
        >>> for _ in range(50):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.01)
        True
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"b": "momentum_buffer"}
    OPTIONS: ClassVar[dict[str, Range | Flag]] = {
        "lr": Range(0),
        "momentum": Range(0),
        "dampening": Range(),
        "weight_decay": Range(0),
        "nesterov": Flag(_nesterov_needs),
        "maximize": Flag(),
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        device: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        if not options["momentum"]:
            return SGD_PLAIN
        return SGD_NESTEROV if options["nesterov"] else SGD_MOMENTUM

    def _scalars(self, options: Options, t: int) -> tuple[float, ...]:
        lr, momentum = options["lr"], options["momentum"]
        sign, decay = sign_and_decay(options)
        if not momentum:
            return sign * lr, decay
        keep, c = (0.0, sign) if t == 1 else (momentum, sign * (1 - options["dampening"]))
        return (keep, c, lr, decay, momentum) if options["nesterov"] else (keep, c, lr, decay)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot, as every optimizer does.

        torch counts no steps of SGD: a momentum that comes without a count has had its first step.
        """
        super().load_state_dict(_with_steps(state_dict))


def _with_steps(state_dict: Any) -> Any:
    if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("state"), Mapping):
        return state_dict
    counted = {
        k: {"step": 1, **saved} if isinstance(saved, Mapping) and saved.get("momentum_buffer") is not None else saved
        for k, saved in state_dict["state"].items()
    }
    return {**state_dict, "state": counted}
