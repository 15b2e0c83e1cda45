"""Potential energies written twice: in torch, whose autograd finds the gradient, and for ours in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Array = Any
Tensor = Any


@dataclass(frozen=True)
class Potential:
    """One potential energy.

    Attributes:
        dim: Of its positions.
        energy: U of a tensor, for torch's autograd.
        value_and_grad: U and its gradient of an array, in the array's precision.
        stepsize: With which HMC accepts most proposals and not all.
        proposal_std: With which random walks do.
        spread: Of the positions where runs begin.
    """

    dim: int
    energy: Callable[[Tensor], Tensor]
    value_and_grad: Callable[[Array], tuple[Any, Array]]
    stepsize: float
    proposal_std: float = 1.0
    spread: float = 1.0

    def start(self, seed: int = 0) -> Array:
        """A position to begin at."""
        return self.spread * np.random.default_rng(1000 + seed).standard_normal(self.dim)


_rng = np.random.default_rng(7)

STDS = np.array([0.3, 0.7, 1.0, 1.9, 0.5, 2.5])
MEAN = _rng.standard_normal(5)
_root = _rng.standard_normal((5, 5))
PRECISION = _root @ _root.T / 5 + np.diag([0.5, 1.0, 2.0, 0.7, 1.3])
X = np.column_stack([np.ones(40), _rng.standard_normal((40, 3))])
Y = (_rng.random(40) < 1 / (1 + np.exp(-X @ np.array([0.3, -1.0, 0.5, 1.5])))).astype(np.float64)
PRIOR_STD = 2.0
FUNNEL_SCALE = 3.0


def _like(constant: Array, q: Any) -> Any:
    """A constant in the kind and precision of q."""
    if isinstance(q, torch.Tensor):
        return torch.as_tensor(constant, dtype=q.dtype)
    return constant.astype(q.dtype)


def _standard_normal(q: Array) -> tuple[Any, Array]:
    return 0.5 * (q @ q), q.copy()


def _diagonal(q: Array) -> tuple[Any, Array]:
    z = q / _like(STDS, q)
    return 0.5 * (z @ z), z / _like(STDS, q)


def _dense_energy(q: Tensor) -> Tensor:
    d = q - _like(MEAN, q)
    return 0.5 * torch.dot(d, _like(PRECISION, q) @ d)


def _dense(q: Array) -> tuple[Any, Array]:
    d = q - _like(MEAN, q)
    g = _like(PRECISION, q) @ d
    return 0.5 * (d @ g), g


def _logistic_energy(q: Tensor) -> Tensor:
    logits = _like(X, q) @ q
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, _like(Y, q), reduction="sum")
    return loss + 0.5 * (q / PRIOR_STD).square().sum()


def _logistic(q: Array) -> tuple[Any, Array]:
    x, y = _like(X, q), _like(Y, q)
    logits = x @ q
    value = (np.logaddexp(np.zeros_like(logits), logits) - y * logits).sum() + 0.5 * ((q / PRIOR_STD) ** 2).sum()
    return value, x.T @ (1 / (1 + np.exp(-logits)) - y) + q / PRIOR_STD**2


def _banana_energy(q: Tensor) -> Tensor:
    return 0.5 * (1 - q[0]) ** 2 + 5 * (q[1] - q[0] ** 2) ** 2


def _banana(q: Array) -> tuple[Any, Array]:
    x, y = q
    off = y - x * x
    return 0.5 * (1 - x) ** 2 + 5 * off * off, np.array([x - 1 - 20 * x * off, 10 * off], q.dtype)


def _funnel_energy(q: Tensor) -> Tensor:
    v, x = q[0], q[1:]
    return 0.5 * (v / FUNNEL_SCALE) ** 2 + 0.5 * torch.exp(-v) * (x * x).sum() + 0.5 * len(x) * v


def _funnel(q: Array) -> tuple[Any, Array]:
    v, x = q[0], q[1:]
    inverse, squares = np.exp(-v), x @ x
    value = 0.5 * (v / FUNNEL_SCALE) ** 2 + 0.5 * inverse * squares + 0.5 * len(x) * v
    gradient = np.empty_like(q)
    gradient[0] = v / FUNNEL_SCALE**2 - 0.5 * inverse * squares + 0.5 * len(x)
    gradient[1:] = inverse * x
    return value, gradient


POTENTIALS = {
    "standard normal": Potential(7, lambda q: 0.5 * torch.dot(q, q), _standard_normal, 0.9, 0.7),
    "diagonal Gaussian": Potential(6, lambda q: 0.5 * (q / _like(STDS, q)).square().sum(), _diagonal, 0.45, 0.4),
    "dense Gaussian": Potential(5, _dense_energy, _dense, 0.7, 0.5),
    "logistic regression": Potential(4, _logistic_energy, _logistic, 0.4, 0.4, 0.5),
    "banana": Potential(2, _banana_energy, _banana, 0.16, 0.5),
    "funnel": Potential(5, _funnel_energy, _funnel, 0.35, 0.8, 0.5),
}

MASSES = ("scalar", "vector", "matrix")


def inverse_mass(kind: str, dim: int) -> Any:
    """An inverse mass of that kind, in double."""
    rng = np.random.default_rng(dim)
    if kind == "scalar":
        return 0.8
    if kind == "vector":
        return rng.uniform(0.5, 1.5, dim)
    root = rng.standard_normal((dim, dim)) / dim
    return np.diag(rng.uniform(0.4, 1.2, dim)) + root @ root.T


def momenta(inv_mass: Any, normal: Array) -> Array:
    """Momenta N(0, M) of standard normal numbers (n, D)."""
    if np.ndim(inv_mass) < 2:
        return np.asarray(normal * np.asarray(inv_mass) ** -0.5)
    return np.linalg.solve(np.linalg.cholesky(inv_mass).T, normal.T).T
