"""AutoHypergradientAdamW."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim import _auto_rules
from grilly_optim.optim._hypergradient import Hypergradient, HyperPast, rate_limits
from grilly_optim.optim._options import ADAM_OPTIONS, Flag, Options, Range, Whole
from grilly_optim.optim._past import Past, Pasts

Array = NDArray[Any]

# Rule -> hyper_lr and hyper_lr_beta where they are not given.
RULES = {"doc": (0.01, 1.0), "corrected": (0.2, 0.01)}


class AutoHypergradientAdamW(Hypergradient):
    r"""AdamW that tunes its learning rate, and on request beta1, and watches how surprising the gradients are.

    With this step's gradient g, the last step's gradient g' and direction d, and sums over all elements, each step but
    the first `warmup_steps` begins with (tiny = 1e-12)::

        rule="doc"         h  = -<g, d> / (|g'|^2 + tiny),    G  = G + h^2
                           lr = clip(lr - hyper_lr h / (sqrt(G) + tiny), lr_min, lr_max)
        rule="corrected"   h  = -<g, d> / (|g| |d| + tiny),   G  = G + h^2
                           lr = clip(lr exp(-hyper_lr h / (sqrt(G) + tiny)), lr_min, lr_max)

        adapt_momentum     hb = <g, m'> / (|g'|^2 + tiny)     in "doc", with the momentum m' of the last step
                           hb = <g, J> / (|g| |J| + tiny)     in "corrected", with J = d(step) / d(beta1), exactly
                           Gb = Gb + hb^2
                           beta1 = clip(beta1 - hyper_lr_beta hb / (sqrt(Gb) + tiny), beta_min, beta_max)

        track_surprise     V  = gamma V + (1 - gamma) |g|^2   at first |g|^2
                           S  = tanh(|g - E|^2 / (V + tiny))  at first tanh(1) in "doc", 0 in "corrected"
                           E  = gamma E + (1 - gamma) g       at first g
                           S_bar = alpha S + (1 - alpha) S_bar
                           gain  = S_bar exp(-S_bar / trauma_threshold)

    and then AdamW steps with the new lr and beta1. Its bias correction is 1 - beta1^t with the new beta1 in "doc", and
    1 less the product of all beta1 so far in "corrected".

    "doc" is the documented rule to the letter. Two things to know about it: its first adaptation moves lr by exactly
    `hyper_lr`, and beta1 by exactly `hyper_lr_beta`; and the sign of its momentum rule is against the derivative: beta1
    sinks when momentum helps. "corrected" is recommended: it does not depend on the scale of the gradients, and moves
    lr by a factor.

    Args:
        params: float32 or float64 arrays, updated in place: a sequence, (name, array) pairs, a dict of names, or group
            dicts. Groups keep the ratio of their learning rates; the limits are for the first group's (the first that
            is not at 0). beta1 moves by the same amount in each, up to the limits.
        lr: Learning rate to begin with, 0 or more. A group at 0 stays there until something else is written to it.
        betas: Decay of the two moments, each in [0, 1).
        eps: Added to the denominator, 0 or more.
        weight_decay: Decoupled decay per unit of learning rate, 0 or more.
        hyper_lr: Learning rate of the learning rate. None: 0.01 in "doc", 0.2 in "corrected".
        hyper_lr_beta: Learning rate of beta1. None: 1.0 in "doc", 0.01 in "corrected".
        lr_min: The least learning rate. With 0, one that has come to 0 stays there.
        lr_max: The greatest.
        adapt_momentum: Adapt beta1.
        track_surprise: Compute the surprise. It changes no parameter; read it from the properties.
        surprise_gamma: Decay of E and V, in [0, 1).
        surprise_alpha: Weight of the newest surprise in S_bar, in [0, 1].
        trauma_threshold: Where the gain has its maximum, trauma_threshold / e; above 0. S of pure noise is about 0.78:
            only thresholds well below, 0.2 say, make the gain small for noise.
        beta_min: The least beta1, in [0, 1).
        beta_max: The greatest, in [0, 1).
        warmup_steps: Steps before anything is adapted.
        rule: "doc" or "corrected".
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: A parameter that is no float32 or float64 array, or float64 on a device without it.
        ValueError: A parameter that is read-only or overlaps another, or an option out of range.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the state.

    Gradients that are infinite or NaN adapt nothing, nor do float32 gradients beyond about 1e18, whose squares are; E
    stays where it is at these elements. A parameter without a gradient keeps its moments, and its last direction, m'
    and J count as 0 in the next step. State takes 12 bytes per float32 element; 4 more with `track_surprise`, and 4
    more with `adapt_momentum` in "corrected". The theory behind these rules is for deterministic convex functions; here
    gradients are stochastic and a step late.

    Source: "Provable and practical online learning rate adaptation with hypergradient descent", arXiv 2502.11229;
    Baydin et al., "Online learning rate adaptation with hypergradient descent", 2018; the surprise is grilly's.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import AutoHypergradientAdamW
        >>> w = np.array([5.0, -3.0])
        >>> optimizer = AutoHypergradientAdamW([w], lr=1e-4, rule="corrected", device="numpy")
        >>> for _ in range(400):
        ...     optimizer.step(gradients=[2 * w])
        >>> bool(np.abs(w).max() < 0.5), optimizer.current_lr > 1e-4
        (True, True)
    """

    STATE_NAMES: ClassVar[dict[str, str]] = {
        "m": "exp_avg",
        "v": "exp_avg_sq",
        "d": "direction",
        "j": "direction_by_beta1",
        "e": "mean_grad",
    }
    OPTIONS: ClassVar[dict[str, Range | Flag]] = ADAM_OPTIONS
    MEMORY: ClassVar[tuple[str, ...]] = ("lr_squares", "beta_squares", "energy", "has_energy", "s_bar", "last_gg")
    WANTED: ClassVar[tuple[str, str]] = ("s_bar", "lr_adapted")
    HISTORIES: ClassVar[tuple[str, ...]] = ("lr", "beta1", "surprise", "s_bar", "gain")
    SETTINGS: ClassVar[tuple[str, ...]] = (
        "_options_of_control",
        "_corrected",
        "_momentum",
        "_surprised",
        "_warmup_steps",
        "_gamma",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        hyper_lr: float | None = None,
        hyper_lr_beta: float | None = None,
        lr_min: float = 1e-6,
        lr_max: float = 1.0,
        adapt_momentum: bool = False,
        track_surprise: bool = False,
        surprise_gamma: float = 0.9,
        surprise_alpha: float = 0.1,
        trauma_threshold: float = 0.5,
        beta_min: float = 0.5,
        beta_max: float = 0.9995,
        warmup_steps: int = 10,
        *,
        rule: str = "doc",
        device: str | None = None,
    ) -> None:
        if not isinstance(rule, str):
            raise TypeError(f"rule must be a string, got {rule!r}")
        if rule not in RULES:
            raise ValueError(f"rule must be {' or '.join(map(repr, RULES))}, got {rule!r}")
        self._corrected = rule == "corrected"
        self._momentum: bool = Flag().take("adapt_momentum", adapt_momentum)
        self._surprised: bool = Flag().take("track_surprise", track_surprise)
        self._warmup_steps = Whole(0).take("warmup_steps", warmup_steps)
        self._gamma: float = Range(0, 1).take("surprise_gamma", surprise_gamma)
        low, high = rate_limits(lr_min, lr_max)
        beta_low, beta_high = Range(0, 1).take("beta_min", beta_min), Range(0, 1).take("beta_max", beta_max)
        if beta_low > beta_high:
            raise ValueError(f"beta_min must be at most beta_max, got {beta_min!r} and {beta_max!r}")
        alpha = Range(0, 1, closed=True).take("surprise_alpha", surprise_alpha)
        threshold = Range(0, above=True).take("trauma_threshold", trauma_threshold)
        of_rule = RULES[rule]
        self._options_of_control = {
            "corrected": float(self._corrected),
            "momentum": float(self._momentum),
            "surprised": float(self._surprised),
            "hyper_lr": Range(0).take("hyper_lr", of_rule[0] if hyper_lr is None else hyper_lr),
            "hyper_lr_beta": Range(0).take("hyper_lr_beta", of_rule[1] if hyper_lr_beta is None else hyper_lr_beta),
            "lr_min": low,
            "lr_max": high,
            "beta_min": beta_low,
            "beta_max": beta_high,
            "gamma": self._gamma,
            "alpha": alpha,
            "threshold": threshold,
            "tiny": 1e-12,
        }
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, device)
        self._histories["beta1"].append(self._options[0]["betas"][0])
        if self._momentum and not self._corrected and self._options_of_control["hyper_lr_beta"] >= 0.5:
            warnings.warn(
                f"rule='doc' with adapt_momentum moves beta1 by hyper_lr_beta = "
                f"{self._options_of_control['hyper_lr_beta']:g} at its first adaptation, that is to a limit, and then "
                "lowers it while momentum helps; rule='corrected' does neither",
                UserWarning,
                stacklevel=2,
            )

    @property
    def beta1_history(self) -> list[float]:
        """The first group's beta1: at first, and after each adaptation."""
        return self._histories["beta1"]

    @property
    def surprise_history(self) -> list[float]:
        """The surprise S of each step that took it."""
        return self._histories["surprise"]

    @property
    def s_bar_history(self) -> list[float]:
        """The accumulated surprise S_bar after each of these steps."""
        return self._histories["s_bar"]

    @property
    def current_surprise(self) -> float:
        """The last surprise, in [0, 1]; 0 before there is one."""
        return self._last("surprise")

    @property
    def accumulated_surprise(self) -> float:
        """S_bar, in [0, 1]; 0 before there is one."""
        return self._last("s_bar")

    @property
    def current_surprise_gain(self) -> float:
        """S_bar exp(-S_bar / trauma_threshold); 0 before there is one."""
        return self._last("gain")

    def _last(self, history: str) -> float:
        return (self._histories[history] or [0.0])[-1]

    def _rule(self, options: Options) -> Rule:
        if self._corrected and self._momentum:
            return _auto_rules.SLOPE_SURPRISE if self._surprised else _auto_rules.SLOPE
        if self._momentum:
            return _auto_rules.MOMENTUM_SURPRISE if self._surprised else _auto_rules.MOMENTUM
        return _auto_rules.SURPRISE if self._surprised else _auto_rules.AUTO

    def _numbers(self, after: Pasts) -> Array:
        numbers = super()._numbers(after)
        numbers[self._at["warm"]] = self._steps_done >= self._warmup_steps
        return numbers

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        (beta1, beta2), t = options["betas"], past.step
        return (
            beta1,
            0.0,  # c1: decided, as all that are 0 here
            beta2,
            1 - beta2,
            0.0,  # inv_bc1
            1 / math.sqrt(1 - beta2**t),
            options["eps"],
            0.0,  # decay
            0.0,  # lr
            self._gamma if past.seen else 0.0,
            0.0 if self._steps_done < self._warmup_steps else 1 - self._gamma if past.seen else 1.0,
            past.fresh,
            0.0,  # carry
            options["share"],
            options["weight_decay"],
            t,
            past.product,
        )

    def _change(self, found: Sequence[float], entries: dict[str, float]) -> dict[str, Any]:
        s_bar, rate, lr_adapted, beta_adapted, surprise_taken, sinks, surprise, gain = found
        change = self._rates_at(rate)
        if lr_adapted:
            entries["lr"] = change.get("_rates", self._rates)[0]
        betas = [own["betas"] for own in self._options]
        if beta_adapted:
            low, high = self._options_of_control["beta_min"], self._options_of_control["beta_max"]
            betas = change["_betas"] = [(_auto_rules.within(one - sinks, low, high), two) for one, two in betas]
            entries["beta1"] = betas[0][0]
        if surprise_taken:
            entries.update(surprise=surprise, s_bar=s_bar, gain=gain)
        if self._corrected or self._surprised:  # nothing else reads what these pasts know
            change["_pasts"] = self._pasts_after([one for one, _ in betas])
        return change

    def _pasts_after(self, beta1: Sequence[float]) -> Pasts:
        """The pasts after a step in which each group had this beta1."""
        owners = range(len(beta1)) if type(self._pasts) is tuple else self._plans.group_of
        now, warm = self._steps_done + 1, self._steps_done >= self._warmup_steps
        return type(self._pasts)(
            HyperPast(past.step, now, past.fresh, int(past.seen or warm), past.product * beta1[k])
            if past.last == now
            else past
            for k, past in zip(owners, self._pasts, strict=True)
        )

    def _own_state(self) -> dict[str, Any]:
        own = super()._own_state()
        # What is kept of the one rule's hypergradients has another unit than of the other's.
        own["hypergradient"]["rule"] = "corrected" if self._corrected else "doc"
        return own
