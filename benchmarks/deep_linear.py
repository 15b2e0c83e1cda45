"""Deep linear networks: models whose local learning coefficients are known exactly."""

from __future__ import annotations

import math
from itertools import accumulate, combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def learning_coefficient(widths: tuple[int, ...], rank: int) -> tuple[float, int]:
    """The real log canonical threshold of a deep linear network whose true map has this rank, and its multiplicity.

    Args:
        widths: Of all layers, input and output among them.
        rank: At most the smallest width.

    Source: Aoyagi, "Consideration on the learning efficiency of multiple-layered neural networks with linear units"
    (2024).
    """
    excess = sorted(width - rank for width in widths)
    for many in range(2, len(excess) + 1):
        chosen, others = excess[:many], [*excess[many:], math.inf]
        layers, total = many - 1, sum(chosen)
        if chosen[-1] < others[0] and layers * chosen[-1] <= total < layers * others[0]:
            break
    else:
        raise ValueError(f"no subset of the layers of {widths} fits rank {rank}")
    a = total - (math.ceil(total / layers) - 1) * layers
    known = (rank * (widths[0] + widths[-1]) - rank**2) / 2
    pairs = sum(x * y for x, y in combinations(chosen, 2)) / 2
    free = a * (layers - a) / (4 * layers) - layers * (layers - 1) / 4 * (total / layers) ** 2 + pairs
    return known + free, a * (layers - a) + 1


class DeepLinear:
    """The squared distance of a product of matrices from its true value, at which all layers have the same norm.

    Args:
        widths: Of all layers, input and output among them.
        rank: Of the true map, whose singular values are 1.
        seed: Of the directions.

    Attributes:
        params: A point of the minimum: a matrix (out, in) per layer.
    """

    def __init__(self, widths: tuple[int, ...], rank: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        frames = [np.linalg.qr(random.standard_normal((width, rank)))[0] for width in widths]
        self.params: list[Array] = [after @ before.T for before, after in pairwise(frames)]
        self._target = frames[-1] @ frames[0].T

    def __call__(self, params: list[Any]) -> tuple[Array, list[Array]]:
        """Losses (C,) and gradients of layers (C, out, in)."""
        below = list(accumulate(params, lambda product, layer: layer @ product))
        residual = below[-1] - self._target
        gradients = []
        slope = 2 * residual
        for k in reversed(range(1, len(params))):
            gradients.append(slope @ below[k - 1].swapaxes(-1, -2))
            slope = params[k].swapaxes(-1, -2) @ slope
        gradients.append(slope)
        return (residual**2).sum(axis=(-1, -2)), gradients[::-1]
