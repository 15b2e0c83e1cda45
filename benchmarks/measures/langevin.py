"""Whether local learning coefficients are what they are known to be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling import estimate_learning_coeff_with_summary

from ..deep_linear import DeepLinear, learning_coefficient
from .table import Measure

SEED = 2026  # set down before the first look, as are the settings below
DEVICE = "cpu"  # the others have the same bits

CURVATURES = np.array([0.5, 1.0, 2.0, 4.0, 0.25])
NBETA, CHAINS, BURN_IN, DRAWS = 100.0, 64, 2000, 16_000
# lr, localization, weight_decay
QUADRATICS = ((1e-3, 0.0, 0.0), (1e-3, 5.0, 0.0), (8e-3, 0.0, 0.0), (2e-3, 0.0, 20.0))
LARGEST_ERROR = 0.02

# In the order of their coefficients, all of multiplicity 1.
NETWORKS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((5, 4, 5), 2),
    ((4, 3, 8), 2),
    ((5, 5, 5), 3),
    ((5, 10, 5), 3),
    ((6, 4, 8, 6), 2),
    ((10, 10, 10), 10),
)
NETWORK_KWARGS = {"lr": 2e-6, "nbeta": 1e4, "localization": 1.0}
NETWORK_CHAINS, NETWORK_BURN_IN, NETWORK_DRAWS = 16, 10_000, 25_000
NETWORK_TOLERANCE = 0.07


def learning_coefficients() -> Iterator[Measure]:
    """All measures of this module."""
    for k, (lr, localization, decay) in enumerate(QUADRATICS):
        yield _quadratic(lr, localization, decay, SEED + k)
    yield from _networks()


def quadratic(params: list[NDArray[Any]]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Half the sum of a w^2, for many chains."""
    (w,) = params
    return (CURVATURES * w * w).sum(axis=-1) / 2, [CURVATURES * w]


def exact(lr: float, precision: float) -> float:
    """The coefficient of the recurrence itself: its variances are 1 / (h (1 - lr h / 4)), for any step size."""
    a = NBETA * CURVATURES
    h = a + precision
    return float((a / (2 * h * (1 - lr * h / 4))).sum())


def _quadratic(lr: float, localization: float, decay: float, seed: int) -> Measure:
    found = estimate_learning_coeff_with_summary(
        np.zeros(5),
        quadratic,
        optimizer_kwargs={"lr": lr, "nbeta": NBETA, "localization": localization, "weight_decay": decay},
        num_draws=DRAWS,
        num_chains=CHAINS,
        num_burnin_steps=BURN_IN,
        seed=seed,
        device=DEVICE,
        vectorized=True,
    )
    estimate, error = found["llc/mean"], found["llc/std"] / math.sqrt(CHAINS)
    truth = exact(lr, localization + decay)
    apart = abs(estimate - truth) / error
    prior = f"{f', localization {localization:g}' * bool(localization)}{f', weight decay {decay:g}' * bool(decay)}"
    return Measure(
        f"SGLD: learning coefficient of a quadratic, lr {lr:g}{prior}",
        f"{truth:.4f} within 3 standard errors of {LARGEST_ERROR} or less",
        f"{estimate:.4f} +- {error:.4f}: {apart:.2f} standard errors",
        apart <= 3 and error <= LARGEST_ERROR,
        {"estimate": estimate, "standard_error": error, "exact": truth},
    )


def _networks() -> Iterator[Measure]:
    estimates, truths = [], []
    for widths, rank in NETWORKS:
        network = DeepLinear(widths, rank, SEED)
        found = estimate_learning_coeff_with_summary(
            network.params,
            network,
            optimizer_kwargs=NETWORK_KWARGS,
            num_draws=NETWORK_DRAWS,
            num_chains=NETWORK_CHAINS,
            num_burnin_steps=NETWORK_BURN_IN,
            init_loss=0.0,
            seed=SEED,
            device=DEVICE,
            vectorized=True,
        )
        estimate, error = found["llc/mean"], found["llc/std"] / math.sqrt(NETWORK_CHAINS)
        truth, _ = learning_coefficient(widths, rank)
        estimates.append(estimate)
        truths.append(truth)
        off = estimate / truth - 1
        yield Measure(
            f"SGLD: learning coefficient of the linear network {'-'.join(map(str, widths))}, rank {rank}",
            f"{truth:g} within {NETWORK_TOLERANCE:.0%}",
            f"{estimate:.2f} +- {error:.2f}: {off:+.1%}",
            abs(off) <= NETWORK_TOLERANCE,
            {"estimate": estimate, "standard_error": error, "exact": truth},
        )
    in_order = bool(np.array_equal(np.argsort(estimates), np.argsort(truths)))
    yield Measure(
        f"SGLD: the order of these {len(NETWORKS)} networks",
        "that of the exact coefficients",
        "the same" if in_order else "another",
        in_order,
    )
