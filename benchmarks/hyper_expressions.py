"""HypergradientAdamW and AutoHypergradientAdamW as one writes them in NumPy, in the precision of the arrays.

As `expressions`, rivals on float32 arrays and the reference on float64 arrays; but their steps need sums over all
parameters, so each is an object over all of them. Written from the formulas alone and sharing nothing with the package,
so that a misreading on one side shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
TINY = 1e-12


def dot(pairs: list[tuple[Array, Array]]) -> float:
    """The sum of all products."""
    return float(sum(np.vdot(a, b) for a, b in pairs))


class Parameter:
    """One array, updated in place, with its moments; `d` is there only after a step in which it took part."""

    def __init__(self, p: Array, ratio: float) -> None:
        self.p = p
        self.ratio = ratio  # of its group's lr to the first group's
        self.m = np.zeros_like(self.p)
        self.v = np.zeros_like(self.p)
        self.t = 0
        self.product = 1.0  # of all beta1 so far
        self.d: Array | None = None
        self.J: Array | None = None  # d p / d beta1 / lr of the last step
        self.E: Array | None = None

    def adamw(
        self,
        g: Array,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        *,
        running: bool = False,
        with_decay: bool = False,
        with_slope: bool = False,
    ) -> None:
        """One step of AdamW.

        Args:
            g: The gradient.
            lr: The first group's learning rate.
            beta1: Decay of the first moment.
            beta2: Decay of the second.
            eps: Added to the denominator.
            weight_decay: Decoupled decay.
            running: Bias correction by the product of all beta1 rather than beta1^t.
            with_decay: Weight decay's part belongs to `d`, once it has been applied.
            with_slope: Make J.
        """
        lr *= self.ratio
        self.t += 1
        before, m_before = self.product, self.m
        self.product *= beta1
        bc1 = 1 - (self.product if running else beta1**self.t)
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g * g
        root = np.sqrt(self.v / (1 - beta2**self.t)) + eps
        m_hat = self.m / bc1
        self.d = m_hat / root
        if with_slope:
            # The first step is m_hat = g whatever beta1 is; here rounding would leave a direction of length 1e-17.
            self.J = np.zeros_like(g) if self.t == 1 else -(m_before - g + before * m_hat) / bc1 / root
        change = lr * self.d
        if with_decay:
            self.d = self.d + weight_decay * self.p
        self.p *= 1 - lr * weight_decay
        self.p -= change

    def rest(self) -> None:
        """A step without a gradient: the next dot product knows no direction of it."""
        self.d = self.J = None


def pair(parameters: Sequence[Parameter], gradients: Sequence[Array | None]) -> list[tuple[Parameter, Array | None]]:
    """Each parameter with its gradient in its precision, or with None."""
    return [
        (x, None if g is None else g.astype(x.p.dtype, copy=False)) for x, g in zip(parameters, gradients, strict=True)
    ]


class Hypergradient:
    """lr goes along h = <g, d of the step before>."""

    def __init__(
        self,
        ps: Sequence[Array],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        beta_hyper: float = 1e-7,
        lr_min: float = 1e-6,
        lr_max: float = 1.0,
        log_scale: bool = False,
        include_weight_decay: bool = False,
        chain_rule: bool = False,
        ratios: list[float] | None = None,
    ) -> None:
        self.parameters = [Parameter(p, r) for p, r in zip(ps, ratios or [1.0] * len(ps), strict=True)]
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.beta_hyper, self.lr_min, self.lr_max = beta_hyper, lr_min, lr_max
        self.log_scale, self.include_weight_decay, self.chain_rule = log_scale, include_weight_decay, chain_rule
        self.lr_history = [lr]
        self.h = math.nan

    def step(self, gradients: Sequence[Array | None]) -> None:
        """One step."""
        items = pair(self.parameters, gradients)
        pairs = [(g, x.d) for x, g in items if g is not None and x.d is not None]
        if pairs:
            h = dot(pairs)
            self.h = h
            if math.isfinite(h):
                if self.log_scale:
                    move = self.beta_hyper * h * (self.lr if self.chain_rule else 1)
                    log = min(max(math.log(self.lr) + move, math.log(self.lr_min)), math.log(self.lr_max))
                    self.lr = math.exp(log)
                else:
                    self.lr = min(max(self.lr + self.beta_hyper * h, self.lr_min), self.lr_max)
                self.lr_history.append(self.lr)
        for x, g in items:
            if g is None:
                x.rest()
            else:
                x.adamw(g, self.lr, *self.betas, self.eps, self.weight_decay, with_decay=self.include_weight_decay)


class Auto:
    """lr, beta1 and surprise adapt themselves; rule "doc" or "corrected"."""

    def __init__(
        self,
        ps: Sequence[Array],
        rule: str,
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
        ratios: list[float] | None = None,
    ) -> None:
        self.parameters = [Parameter(p, r) for p, r in zip(ps, ratios or [1.0] * len(ps), strict=True)]
        self.corrected = rule == "corrected"
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.beta1, self.beta2 = betas
        self.hyper_lr = hyper_lr if hyper_lr is not None else (0.2 if self.corrected else 0.01)
        self.hyper_lr_beta = hyper_lr_beta if hyper_lr_beta is not None else (0.01 if self.corrected else 1.0)
        self.lr_min, self.lr_max, self.beta_min, self.beta_max = lr_min, lr_max, beta_min, beta_max
        self.adapt_momentum, self.track_surprise = adapt_momentum, track_surprise
        self.gamma, self.alpha, self.T = surprise_gamma, surprise_alpha, trauma_threshold
        self.warmup_steps = warmup_steps
        self.steps = 0
        self.G_lr = self.G_beta = 0.0
        self.gg_before = 0.0  # ||g||^2 of the step before
        self.V: float | None = None
        self.S = self.S_bar = self.gain = 0.0
        self.lr_history, self.beta1_history = [lr], [betas[0]]
        self.surprise_history: list[float] = []
        self.s_bar_history: list[float] = []
        self.hb = math.nan

    def step(self, gradients: Sequence[Array | None]) -> None:
        """One step."""
        items = pair(self.parameters, gradients)
        given = [(x, g) for x, g in items if g is not None]
        gg = dot([(g, g) for _, g in given])
        active = self.steps >= self.warmup_steps
        if active and math.isfinite(gg) and given:
            if self.track_surprise:
                self.surprise(given, gg)
            self.adapt(given, gg)
        slope = self.corrected and self.adapt_momentum
        for x, g in items:
            if g is None:
                x.rest()
            else:
                options = (self.lr, self.beta1, self.beta2, self.eps, self.weight_decay)
                x.adamw(g, *options, running=self.corrected, with_slope=slope)
        self.gg_before = gg
        self.steps += 1

    def surprise(self, given: list[tuple[Parameter, Array]], gg: float) -> None:
        """How far the gradients are from their running mean, which then takes them in."""
        first = self.V is None
        self.V = gg if self.V is None else self.gamma * self.V + (1 - self.gamma) * gg
        differences = [g if x.E is None else g - x.E for x, g in given]
        e = dot([(d, d) for d in differences])
        self.S = 0.0 if first and self.corrected else math.tanh(e / (self.V + TINY))
        self.S_bar = self.alpha * self.S + (1 - self.alpha) * self.S_bar
        self.gain = self.S_bar * math.exp(-self.S_bar / self.T)
        for x, g in given:
            x.E = g if x.E is None else self.gamma * x.E + (1 - self.gamma) * g
        self.surprise_history.append(self.S)
        self.s_bar_history.append(self.S_bar)

    def adapt(self, given: list[tuple[Parameter, Array]], gg: float) -> None:
        """The learning rate, and beta1."""
        moving = [(g, x.d) for x, g in given if x.d is not None]
        if not moving:
            return
        gd = dot(moving)
        g_norm = math.sqrt(gg)  # of all gradients: a parameter that did not move last time has a direction of 0
        if self.corrected:
            h = -gd / (g_norm * math.sqrt(dot([(d, d) for _, d in moving])) + TINY)
            self.G_lr += h * h
            self.lr *= math.exp(-self.hyper_lr * h / (math.sqrt(self.G_lr) + TINY))
        else:
            if not self.gg_before > TINY:
                return
            h = -gd / (self.gg_before + TINY)
            self.G_lr += h * h
            self.lr -= self.hyper_lr * h / (math.sqrt(self.G_lr) + TINY)
        self.lr = min(max(self.lr, self.lr_min), self.lr_max)
        self.lr_history.append(self.lr)
        if self.adapt_momentum:
            if self.corrected:
                slopes = [(g, x.J) for x, g in given if x.J is not None]
                self.hb = dot(slopes) / (g_norm * math.sqrt(dot([(J, J) for _, J in slopes])) + TINY)
            else:
                self.hb = dot([(g, x.m) for x, g in given if x.d is not None]) / (self.gg_before + TINY)
            self.G_beta += self.hb**2
            beta1 = self.beta1 - self.hyper_lr_beta * self.hb / (math.sqrt(self.G_beta) + TINY)
            self.beta1 = min(max(beta1, self.beta_min), self.beta_max)
            self.beta1_history.append(self.beta1)
