"""What transitions leave behind: positions and statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Counts = NDArray[np.int64]

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


class Record:
    """Positions and statistics of transitions, every `thin`-th of them, in memory that grows by doubling.

    What is kept as diverging is any of the transitions since the last one that was kept.

    Args:
        chains: C.
        dim: D.
        dtype: Of positions.
        tree: Whether transitions are trees.
        thin: Of transitions `thin`, 2 `thin`, ... each is kept.
        seen: How many there were before.
        moved: (C,), how many of these moved; None: none.
    """

    def __init__(
        self,
        chains: int,
        dim: int,
        dtype: Any,
        *,
        tree: bool = False,
        thin: int = 1,
        seen: int = 0,
        moved: Counts | None = None,
    ) -> None:
        self.thin = thin
        names = STATS | TREE_STATS if tree else STATS
        memory = np.empty((0, chains, dim), dtype), {name: np.empty((0, chains), kind) for name, kind in names.items()}
        moved = np.zeros(chains, np.int64) if moved is None else moved
        # Assigned as one, so that an interrupt leaves whole transitions.
        self._now = _Recorded(0, seen, *memory, moved, np.zeros(chains, np.bool_))

    @property
    def count(self) -> int:
        """How many are kept."""
        return self._now.kept

    @property
    def seen(self) -> int:
        """How many there were."""
        return self._now.seen

    @property
    def moved(self) -> Counts:
        """How many of these moved, (C,)."""
        return self._now.moved

    @property
    def diverged(self) -> NDArray[np.bool_]:
        """Whether one diverged since the last one that was kept, (C,)."""
        return self._now.diverged

    @property
    def positions(self) -> Array:
        """(count, C, D)."""
        return self._now.positions[: self._now.kept]

    @property
    def stats(self) -> dict[str, Array]:
        """Name -> (count, C)."""
        now = self._now
        return {name: array[: now.kept] for name, array in now.stats.items()}

    def reserve(self, transitions: int) -> None:
        """Make room for so many more transitions."""
        now = self._now
        needed = now.kept + (now.seen % self.thin + transitions) // self.thin
        if needed > len(now.positions):
            size = max(needed, 2 * len(now.positions))
            stats = {name: _longer(array, size) for name, array in now.stats.items()}
            self._now = now._replace(positions=_longer(now.positions, size), stats=stats)

    def room(self, transitions: int) -> Array:
        """Where positions of so many more transitions will be: those that are kept, (kept, C, D)."""
        self.reserve(transitions)
        now = self._now
        return now.positions[now.kept : now.kept + (now.seen % self.thin + transitions) // self.thin]

    def next_positions(self) -> Array | None:
        """Where those of the next transition will be, (C, D), for who makes them there; None: they are not kept.

        There must be room, see `reserve`.
        """
        now = self._now
        return None if (now.seen + 1) % self.thin else now.positions[now.kept]

    def add(self, position: Array, stats: Mapping[str, Any]) -> None:
        """One transition of all chains: (C, D), and name -> (C,)."""
        self.reserve(1)
        count, seen, positions, memory, moved, diverged = self._now
        diverged = diverged | stats["diverging"]
        if (seen + 1) % self.thin == 0:
            if not np.may_share_memory(positions[count], position):
                positions[count] = position
            for name, array in memory.items():
                array[count] = stats[name]
            memory["diverging"][count] = diverged
            count, diverged = count + 1, np.zeros_like(diverged)
        self._now = _Recorded(count, seen + 1, positions, memory, moved + stats["accepted"], diverged)

    def take(self, positions: Array, stats: Mapping[str, Array]) -> None:
        """Several, of which some are to be kept: (n, C, D), and name -> (n, C)."""
        first, n = self.thin - 1 - self.seen % self.thin, len(positions)
        keep = slice(first, None, self.thin)
        kept = {name: array[keep] for name, array in stats.items()}
        # How many have diverged before each, and with the last.
        so_far = np.concatenate([np.zeros((1, positions.shape[1]), np.int64), stats["diverging"].cumsum(axis=0)])
        upto = so_far[first + 1 :: self.thin]
        kept["diverging"] = np.diff(upto, axis=0, prepend=0 * so_far[:1]) > 0
        behind = so_far[-1] > (upto[-1] if len(upto) else 0)
        self.extend(n, positions[keep], kept, stats["accepted"].sum(axis=0), behind)

    def extend(
        self,
        transitions: int,
        positions: Array,
        stats: Mapping[str, Array],
        moved: Counts,
        diverged: NDArray[np.bool_],
    ) -> None:
        """So many, of which `moved` (C,) moved and these are the ones to keep: (kept, C, D), and name -> (kept, C).

        `diverged` (C,) says whether one did so behind the last of these.
        """
        self.reserve(transitions)
        now = self._now
        rows = slice(now.kept, now.kept + len(positions))
        if not np.may_share_memory(now.positions[rows], positions):
            now.positions[rows] = positions
        for name, array in now.stats.items():
            array[rows] = stats[name]
        if len(positions):
            now.stats["diverging"][now.kept] |= now.diverged
        else:
            diverged = diverged | now.diverged
        self._now = now._replace(
            kept=rows.stop, seen=now.seen + transitions, moved=now.moved + moved, diverged=diverged
        )

    def drop(self, first: int) -> None:
        """Forget the first so many, as a slice does."""
        stats = {name: array[first:].copy() for name, array in self.stats.items()}
        positions = self.positions[first:].copy()
        self._now = self._now._replace(kept=len(positions), positions=positions, stats=stats)


class _Recorded(NamedTuple):
    kept: int
    seen: int
    positions: Array
    stats: dict[str, Array]
    moved: Counts
    diverged: NDArray[np.bool_]


def _longer(array: Array, size: int) -> Array:
    made = np.empty((size, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made


class History(NamedTuple):
    """What a chain leaves behind.

    Attributes:
        initial: (C, D), where it began, while the trajectory begins with that.
        record: Its transitions.
    """

    initial: Array | None
    record: Record


def write_whole(write: Callable[[], None]) -> None:
    """Call something for which doing it twice is doing it once; a signal in the middle of it is raised behind it."""
    try:
        write()
    except BaseException:
        write()
        raise
