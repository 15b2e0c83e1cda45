"""HypergradientAdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._hyper_rules import HYPER_ADAMW
from grilly_optim.optim._hypergradient import Hypergradient, rate_limits
from grilly_optim.optim._options import ADAM_OPTIONS, Flag, Options, Range
from grilly_optim.optim._past import Past


class HypergradientAdamW(Hypergradient):
    r"""AdamW whose learning rate descends the loss too, along its hypergradient.

    Before each step but the first, with this step's gradient g and the last step's direction d, over all parameters
    that have both::

        h  = sum <g, d>                                  d = (m / bc1) / (sqrt(v / bc2) + eps), as it was applied
        lr = clip(lr + beta_hyper h, lr_min, lr_max)     log_scale: clip(lr exp(beta_hyper h), lr_min, lr_max)

    Then AdamW steps with this lr. h is the negative derivative of the loss by the last learning rate, as far as that
    multiplies d. On a GPU both passes are one submission, and the learning rate is decided there.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts. Groups keep the ratio of their learning rates; the limits are for the first group's (the first that
            is not at 0).
        lr: Learning rate to begin with, 0 or more. A group at 0 stays there until something else is written to it.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the denominator, 0 or more.
        weight_decay: Decoupled decay per unit of learning rate, 0 or more.
        beta_hyper: Learning rate of the learning rate, 0 or more. h grows with the number of parameters and the scale
            of the gradients: what is a good value depends on both.
        lr_min: The least learning rate. With 0, one that has come to 0 stays there.
        lr_max: The greatest.
        log_scale: Adapt the logarithm of the learning rate.
        include_weight_decay: Count in h that the learning rate scales the weight decay too: <g, d + weight_decay p>,
            with p before the last step. That is the exact derivative, where all groups have one learning rate; the
            published rule leaves it out.
        chain_rule: With `log_scale`: lr exp(beta_hyper lr h), the derivative by the logarithm.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, an option out of range, or `chain_rule` without
            `log_scale`.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the moments and the direction.

    A hypergradient that is infinite or NaN changes nothing. A parameter without a gradient keeps its moments, and its
    last direction does not count in the next step. State takes 12 bytes per float32 element.

    Source: Baydin et al., "Online learning rate adaptation with hypergradient descent", 2018.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import HypergradientAdamW
        >>> w = np.array([5.0, -3.0])
        >>> optimizer = HypergradientAdamW([w], lr=1e-3, beta_hyper=1e-3, device="numpy")
        >>> for _ in range(50):
        ...     optimizer.step(gradients=[2 * w])
        >>> optimizer.current_lr > 0.01, len(optimizer.lr_history)
        (True, 50)
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {"m": "exp_avg", "v": "exp_avg_sq", "d": "direction"}
    SETTINGS: ClassVar[tuple[str, ...]] = ("_options_of_control", "_include_weight_decay")
    OPTIONS: ClassVar[dict[str, Range | Flag]] = ADAM_OPTIONS

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        beta_hyper: float = 1e-7,
        lr_min: float = 1e-6,
        lr_max: float = 1.0,
        log_scale: bool = False,
        *,
        include_weight_decay: bool = False,
        chain_rule: bool = False,
        device: str | None = None,
    ) -> None:
        self._include_weight_decay = Flag().take("include_weight_decay", include_weight_decay)
        low, high = rate_limits(lr_min, lr_max)
        self._options_of_control = {
            "beta_hyper": Range(0).take("beta_hyper", beta_hyper),
            "lr_min": low,
            "lr_max": high,
            "log_scale": float(Flag().take("log_scale", log_scale)),
            "chain_rule": float(Flag().take("chain_rule", chain_rule)),
        }
        if chain_rule and not log_scale:
            raise ValueError("chain_rule is True and log_scale is False: it is the derivative by the logarithm")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, device)

    def _rule(self, options: Options) -> Rule:
        return HYPER_ADAMW

    def _change(self, found: Sequence[float], entries: dict[str, float]) -> dict[str, Any]:
        rate, adapted = found
        change = self._rates_at(rate)
        if adapted:
            entries["lr"] = change.get("_rates", self._rates)[0]
        return change

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        (beta1, beta2), weight_decay, t = options["betas"], options["weight_decay"], past.step
        return (
            beta1,
            1 - beta1,
            beta2,
            1 - beta2,
            1 / (1 - beta1**t),
            1 / math.sqrt(1 - beta2**t),
            options["eps"],
            0.0,  # decay: decided
            0.0,  # lr: decided
            past.fresh,
            weight_decay if self._include_weight_decay else 0.0,
            options["share"],
            weight_decay,
        )
