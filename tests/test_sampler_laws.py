"""What samplers sample: on a quadratic, mean and covariance after any number of steps are known exactly.

Every element is a process of its own, so that one run is 100,000 draws. The seed was set down before the first look;
each comparison fails for a correct sampler with probability 6e-5 (4 standard errors).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import BAOA, BAOAB, SGHMC, SGLD, SGMCMC, SGNHT
from tests.table import Array

COUNT, SEED = 100_000, 2026
CURVATURE, NBETA, PULL, DECAY, START = 0.5, 8.0, 3.0, 2.0, 1.5
STIFF = NBETA * CURVATURE + PULL + DECAY  # of the tempered loss and the prior together
REST = PULL * START / STIFF  # where their minimum is
COMMON: dict[str, Any] = {"nbeta": NBETA, "localization": PULL, "weight_decay": DECAY}


@dataclass(frozen=True)
class Linear:
    """x -> A (x - rest) + rest + B z, for x = (w) or (w, m)."""

    A: Array
    B: Array
    first: float = 0.0  # the variance of the momentum before the first step

    def after(self, steps: int) -> tuple[float, float]:
        """Mean and variance of w."""
        n = len(self.A)
        mean = np.zeros(n)
        mean[0] = START - REST
        cov = np.zeros((n, n))
        cov[-1, -1] = self.first if n > 1 else 0.0
        for _ in range(steps):
            mean = self.A @ mean
            cov = self.A @ cov @ self.A.T + np.outer(self.B, self.B)
        return float(mean[0] + REST), float(cov[0, 0])


def sgld(lr: float, sigma: float = 1.0) -> Linear:
    return Linear(np.array([[1 - lr / 2 * STIFF]]), np.array([math.sqrt(lr) * sigma]))


def sghmc(h: float, alpha: float, beta: float, sigma: float, heat: float) -> Linear:
    spread = math.sqrt(heat * h * (2 * alpha - heat * h * beta))
    step = np.array([[1, h / sigma**2], [-h * STIFF, 1 - h * alpha / sigma**2]])
    return Linear(step, np.array([0, spread]), heat * sigma**2)


def baoa(h: float, alpha: float, sigma: float, heat: float) -> Linear:
    kick = np.array([[1, 0], [-h * STIFF, 1]])
    drift = np.array([[1, h / 2 / sigma**2], [0, 1]])
    keep = math.exp(-alpha * h / sigma**2)
    spread = sigma * math.sqrt(heat * (1 - keep**2))
    step = drift @ np.diag([1, keep]) @ drift @ kick
    return Linear(step, drift @ np.array([0, spread]), heat * sigma**2)


LAWS = {
    "SGLD": (SGLD, {**COMMON, "lr": 0.1}, sgld(0.1)),
    "SGLD, far from the continuum": (SGLD, {**COMMON, "lr": 0.35}, sgld(0.35)),
    "SGMCMC.sgld": (SGMCMC.sgld, {**COMMON, "lr": 0.05}, sgld(0.05)),
    "SGHMC": (SGHMC, {**COMMON, "lr": 0.1, "alpha": 3.0}, sghmc(0.1, 3.0, 0.0, 1.0, 1.0)),
    "SGHMC, all options": (
        SGHMC,
        {**COMMON, "lr": 0.2, "alpha": 3.0, "beta": 5.0, "sigma": 2.0, "temperature": 0.5},
        sghmc(0.2, 3.0, 5.0, 2.0, 0.5),
    ),
    "BAOA": (BAOA, {**COMMON, "lr": 0.3, "alpha": 1.0}, baoa(0.3, 1.0, 1.0, 1.0)),
    "BAOA, all options": (
        BAOA,
        {**COMMON, "lr": 0.9, "alpha": 3.0, "sigma": 2.0, "temperature": 0.5},
        baoa(0.9, 3.0, 2.0, 0.5),
    ),
}


def walk(make: Any, options: Any, steps: int, device: str) -> Array:
    w = np.full(COUNT, START, np.float32)
    sampler = make([w], **options, seed=SEED, device=device)
    for _ in range(steps):
        sampler.step(gradients=[np.float32(CURVATURE) * w])
    return w.astype(np.float64)


def assert_law(w: Array, mean: float, variance: float) -> None:
    errors = math.sqrt(variance / COUNT), variance * math.sqrt(2 / COUNT)
    assert abs(w.mean() - mean) < 4 * errors[0]
    assert abs(w.var() - variance) < 4 * errors[1]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("steps", [1, 5, 60])
def test_mean_and_variance_are_exact(law: str, steps: int) -> None:
    make, options, exact = LAWS[law]
    assert_law(walk(make, options, steps, "cpu"), *exact.after(steps))


def test_sgld_reaches_its_finite_step_law() -> None:
    """1 / (h (1 - lr h / 4)), which is what is left of 1 / h."""
    assert_law(walk(SGLD, {**COMMON, "lr": 0.1}, 200, "cpu"), REST, 1 / (STIFF * (1 - 0.1 * STIFF / 4)))


@pytest.mark.parametrize("make", [BAOA, BAOAB])
def test_splitting_has_the_exact_variance_of_a_quadratic(make: Any) -> None:
    """Whatever the step: here one that takes a fifth of a period."""
    w = walk(make, {**COMMON, "lr": 0.4, "alpha": 2.0}, 80, "cpu")
    assert_law(w, REST, 1 / STIFF)


def test_the_thermostat_finds_the_temperature() -> None:
    """With the gradients' own noise, which SGLD at this step would add to its variance."""
    rng = np.random.default_rng(SEED)
    w = np.zeros(COUNT, np.float32)
    sampler = SGNHT([w], lr=0.002, diffusion_factor=0.05, nbeta=NBETA, seed=SEED, device="cpu")
    for _ in range(1500):
        noisy = np.float32(CURVATURE) * w + np.float32(0.5) * rng.standard_normal(COUNT, np.float32)
        sampler.step(gradients=[noisy])
    assert sampler.param_groups[0]["thermostat"] > 0.055  # A, and what the gradients bring
    assert abs(w.var() * NBETA * CURVATURE - 1) < 0.03
