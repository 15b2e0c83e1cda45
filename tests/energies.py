"""What tests of energies share: the cases, and models with something to learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from grilly_optim.energy import ConditionalGaussian, CrossEntropy, RestrictedHopfield, SquaredError
from grilly_optim.energy._model import EnergyModel
from grilly_optim.energy.activations import ACTIVATIONS

ENERGIES = {"gaussian": ConditionalGaussian, "hopfield": RestrictedHopfield}
COSTS = {"squared": SquaredError, "cross_entropy": CrossEntropy}
PHI = sorted(ACTIVATIONS)
DTYPES = ("float32", "float64")


def model(
    energy: str = "gaussian",
    cost: str = "cross_entropy",
    phi: Any = "sigmoid",
    dims: tuple[int, ...] = (5, 7, 3),
    batch: int = 6,
    beta: float = 0.7,
    **options: Any,
) -> EnergyModel:
    """A model of this kind, with its input clamped."""
    made: EnergyModel = ENERGIES[energy](dims, COSTS[cost](beta), batch, phi, **options)
    made.clamp_layer(0, np.random.default_rng(3).normal(size=(batch, dims[0])))
    return made


def soft_target(batch: int = 6, outputs: int = 3) -> Any:
    """Probabilities (batch, outputs)."""
    return np.random.default_rng(4).dirichlet(np.ones(outputs), batch)


def copies(states: Any) -> list[Any]:
    """What arrays hold now."""
    return [u.copy() for u in states]
