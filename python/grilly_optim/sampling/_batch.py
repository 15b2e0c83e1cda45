"""Chains that are advanced together, what they leave behind, and who advances them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._mass import InverseMass

Array = NDArray[Any]
Doubles = NDArray[np.float64]

# Per transition and chain: name -> dtype. The names are ArviZ's; `accepted` says whether the chain moved.
STATS: dict[str, Any] = {
    "lp": np.float64,  # -U where the chain is now
    "energy": np.float64,  # U + K there
    "acceptance_rate": np.float64,  # Metropolis; for trees the mean over their leaves
    "step_size": np.float64,
    "n_steps": np.int64,  # of the integrator
    "diverging": np.bool_,
    "accepted": np.bool_,
}
TREE_STATS: dict[str, Any] = {"tree_depth": np.int64, "reached_max_treedepth": np.bool_}


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

    Attributes:
        position: (C, D), advanced in place.
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


class Record:
    """Positions and statistics of transitions, every `thin`-th of them, in memory that grows by doubling."""

    def __init__(self, chains: int, dim: int, dtype: Any, *, tree: bool = False, thin: int = 1) -> None:
        self.thin = thin
        names = STATS | TREE_STATS if tree else STATS
        memory = np.empty((0, chains, dim), dtype), {name: np.empty((0, chains), kind) for name, kind in names.items()}
        # Kept, seen, memory: assigned as one, so that an interrupt leaves whole transitions.
        self._now: tuple[int, int, tuple[Array, dict[str, Array]]] = 0, 0, memory

    @property
    def count(self) -> int:
        """How many are kept."""
        return self._now[0]

    @property
    def seen(self) -> int:
        """How many there were."""
        return self._now[1]

    @property
    def positions(self) -> Array:
        """(count, C, D)."""
        count, _, (positions, _) = self._now
        return positions[:count]

    @property
    def stats(self) -> dict[str, Array]:
        """Name -> (count, C)."""
        count, _, (_, stats) = self._now
        return {name: array[:count] for name, array in stats.items()}

    def reserve(self, transitions: int) -> None:
        """Make room for so many more transitions."""
        count, seen, (positions, stats) = self._now
        needed = count + (seen % self.thin + transitions) // self.thin
        if needed > len(positions):
            size = max(needed, 2 * len(positions))
            longer = _longer(positions, size), {name: _longer(array, size) for name, array in stats.items()}
            self._now = count, seen, longer

    def room(self, transitions: int) -> Array:
        """Where positions of so many more transitions will be: those that are kept, (kept, C, D)."""
        self.reserve(transitions)
        count, seen, (positions, _) = self._now
        return positions[count : count + (seen % self.thin + transitions) // self.thin]

    def add(self, position: Array, stats: dict[str, Any]) -> None:
        """One transition of all chains: (C, D), and name -> (C,)."""
        self.reserve(1)
        count, seen, memory = self._now
        if (seen + 1) % self.thin == 0:
            memory[0][count] = position
            for name, array in memory[1].items():
                array[count] = stats[name]
            count += 1
        self._now = count, seen + 1, memory

    def extend(self, positions: Array, stats: dict[str, Array], transitions: int | None = None) -> None:
        """So many, of which these are the ones to keep, (kept, C, D), and name -> (kept, C); None: all of them."""
        transitions = len(positions) if transitions is None else transitions
        self.reserve(transitions)
        count, seen, memory = self._now
        rows = slice(count, count + len(positions))
        if not np.may_share_memory(memory[0][rows], positions):
            memory[0][rows] = positions
        for name, array in memory[1].items():
            array[rows] = stats[name]
        self._now = rows.stop, seen + transitions, memory

    def drop(self, first: int) -> None:
        """Forget the first so many, as a slice does."""
        positions, stats = self.positions[first:].copy(), {name: a[first:].copy() for name, a in self.stats.items()}
        self._now = len(positions), self.seen, (positions, stats)


def _longer(array: Array, size: int) -> Array:
    made = np.empty((size, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made


class History(NamedTuple):
    """What a chain leaves behind.

    Attributes:
        initial: (C, D), where it began, while the trajectory begins with that.
        accepted: (C,), how many transitions moved, of those that are not in the record any more.
        record: The others.
    """

    initial: Array | None
    accepted: NDArray[np.int64]
    record: Record


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
