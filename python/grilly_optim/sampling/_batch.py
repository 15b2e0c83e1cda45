"""Chains that are advanced together, how they move, and who advances them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record

Array = NDArray[Any]
Doubles = NDArray[np.float64]

# The most steps that a trajectory of a given length is divided into, as in the largest tree of NUTS.
MAX_STEPS = 1024


@dataclass(frozen=True)
class Hmc:
    """Hamiltonian Monte Carlo, and its relatives.

    Attributes:
        num_steps: Of the integrator, in each transition.
        trajectory: Its length in time, in place of num_steps: in each transition of each chain num_steps is
            ceil(trajectory / stepsize), but 1 at least and MAX_STEPS at most. None: num_steps is as given.
        jitter: Each transition takes a number of steps that is uniform on 1 ... 2 num_steps - 1.
        persistence: alpha: p = sqrt(alpha) p_last + sqrt(1 - alpha) xi, p is negated on rejection (GHMC); 0: HMC.
        delta_max: A rise of energy beyond this is a divergence.
    """

    num_steps: int = 1
    trajectory: float | None = None
    jitter: bool = False
    persistence: float = 0.0
    delta_max: float = 1000.0

    def steps(self, stepsize: Doubles) -> NDArray[np.int64]:
        """num_steps of each chain, (C,), at these step sizes."""
        if self.trajectory is None:
            return np.full(len(stepsize), self.num_steps, np.int64)
        return np.clip(np.ceil(self.trajectory / stepsize), 1, MAX_STEPS).astype(np.int64)


@dataclass(frozen=True)
class Nuts:
    """The no-U-turn sampler."""

    max_tree_depth: int = 10
    delta_max: float = 1000.0
    variant: str = "multinomial"


@dataclass(frozen=True)
class Rwm:
    """Random-walk Metropolis: proposals are N(q, e^2 W), with the step size e and the inverse mass W."""


Method = Hmc | Nuts | Rwm


@dataclass
class Batch:
    """Where chains are.

    Arrays are replaced when the chains move, and never written to: they may be parts of others.

    Attributes:
        position: (C, D).
        stepsize: (C,).
        inv_mass: Of the momenta.
        streams: (C,), their random streams: a chain's draws follow from seed, stream and the number of the transition.
        done: (C,), how many transitions each has made. The next one is number done + 1 in its random stream.
        seed: Of all.
        potential: (C,), U there; None: not evaluated yet.
        gradient: (C, D), that of U.
        momentum: (C, D), what is kept of it from transition to transition, with persistence; None before the first.
    """

    position: Array
    stepsize: Doubles
    inv_mass: InverseMass
    streams: NDArray[np.uint32]
    done: NDArray[np.int64]
    seed: int = 0
    potential: Doubles | None = None
    gradient: Array | None = None
    momentum: Array | None = None


class Given(NamedTuple):
    """Draws that replace the batch's own.

    Attributes:
        momentum: (n, C, D), distributed as momenta are (standard normal ones for random walks); None: drawn.
        uniform: (n, C); flat for the slice variant of one chain; None: drawn.
    """

    momentum: Array | None = None
    uniform: Array | None = None


class StepSizes(Protocol):
    """What changes step sizes after every transition of the warm-up."""

    stepsize: Doubles  # (C,), for the next transition

    def update(self, acceptance_rate: Doubles) -> None:
        """Take note of (C,)."""


class Runner(Protocol):
    """Advances batches by one method, with one potential, on one device."""

    def run(
        self,
        batch: Batch,
        transitions: int,
        record: Record,
        *,
        adapt: StepSizes | None = None,
        given: Given | None = None,
    ) -> None:
        """Advance `batch` in place and add to `record`.

        Whatever is raised on the way, the batch and the record stand behind the last whole transition.

        Raises:
            ChainFailed: The potential raised, or gave what it should not; it names the chain and the transition.
        """
