"""What the trees of the no-U-turn sampler have in common: what they are grown from, how they ask, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class State(NamedTuple):
    """Where a chain is.

    Attributes:
        position: (D,).
        potential: U there.
        gradient: (D,), that of U.
    """

    position: Array
    potential: float
    gradient: Array


class Dynamics(NamedTuple):
    """How one chain moves.

    Attributes:
        stepsize: Of the integrator.
        velocity: Momentum p -> W p, both (D,).
        dot: The product of two vectors, in double.
        delta_max: A rise of energy beyond this is a divergence.
        max_tree_depth: The most doublings.
    """

    stepsize: float
    velocity: Callable[[Array], Array]
    dot: Callable[[Array, Array], Any]
    delta_max: float
    max_tree_depth: int


class Outcome(NamedTuple):
    """What a transition came to.

    Attributes:
        state: Where the chain is now.
        energy: U + K of that state, with the momentum it was reached with.
        moved: Whether it is another one than before.
        acceptance_rate: The mean of min(1, exp(H0 - H)) over all leaves; 0 for energies that are not finite.
        n_steps: How many leaves were grown, each a step of the integrator and an evaluation of the potential.
        tree_depth: Doublings that were begun, 1 at least.
        diverging: Whether a leaf's energy was too high, or not finite.
        reached_max_treedepth: The tree could have gone on, but for `max_tree_depth`.
    """

    state: State
    energy: float
    moved: bool
    acceptance_rate: float
    n_steps: int
    tree_depth: int
    diverging: bool
    reached_max_treedepth: bool


# Yields the position of the leaf that is wanted, is sent U and the gradient there.
Tree = Generator[Array, tuple[float, Array], Outcome]


def dot_of(dtype: Any) -> Callable[[Array, Array], Any]:
    """Products in double of vectors of this precision."""
    return np.ndarray.dot if np.dtype(dtype) == np.float64 else _dot_in_double


def _dot_in_double(a: Array, b: Array) -> Any:
    return a.astype(np.float64).dot(b.astype(np.float64))
