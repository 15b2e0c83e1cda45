"""Chains whose trajectories are made one block after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grilly_optim._devices import Choice
from grilly_optim.sampling._batch import Batch, Doubles
from grilly_optim.sampling._integrators import Integrator, Steps, integrator
from grilly_optim.sampling._mass import InverseMass

# The most bytes of positions in a block of several chains: they, the momenta and the gradients stay in the second cache
# level of a processor, or nearly so. Smaller blocks would mean more calls of the potential.
BLOCK_BYTES = 1 << 19


class Blocks:
    """A batch in blocks of chains, each with its integrator.

    A trajectory goes through its arrays again and again, and NumPy's potentials do so several times a step: a block
    finds them in the cache. How many chains a block has follows from D and the dtype alone, a power of two. On a GPU a
    block is the whole batch: more of them would be more dispatches.

    Args:
        choice: The device.
        backend: Its engine.

    Attributes:
        rows: The chains of each block.
    """

    rows: list[slice]

    def __init__(self, choice: Choice, backend: Any) -> None:
        self._choice, self._backend = choice, backend
        self._made_for: tuple[tuple[int, ...], InverseMass | None] = (), None

    def begin(self, batch: Batch) -> None:
        """Make ready for a run of this batch."""
        self._stepsize: Doubles | None = None
        shape, mass = batch.position.shape, batch.inv_mass
        if self._made_for[0] == shape and self._made_for[1] is mass:
            return
        self._made_for = (), None  # until all of them are there
        chains, size = len(batch.position), self._size(batch)
        self.rows = [slice(first, min(first + size, chains)) for first in range(0, chains, size)]
        # Blocks of one size share an integrator, and its memory, where all chains have the same mass.
        made: dict[int, Integrator] = {}
        self._movers = []
        for rows in self.rows:
            which = rows.start if mass.per_chain else rows.stop - rows.start
            if which not in made:
                position = batch.position[rows]
                made[which] = integrator(self._choice, self._backend, position, mass.of_chains(rows))
            self._movers.append(made[which])
        self._made_for = shape, mass

    def _size(self, batch: Batch) -> int:
        if self._choice.info.device not in ("numpy", "cpu"):
            return len(batch.position)
        most = max(1, BLOCK_BYTES // batch.position[0].nbytes)
        return int(2 ** (most.bit_length() - 1))

    def of(self, batch: Batch) -> Iterator[tuple[slice, Integrator, Steps]]:
        """The chains of each block, who moves them, and by which steps.

        Step sizes stay what they are as long as they are the same object.
        """
        if batch.stepsize is not self._stepsize:
            self._steps = [m.steps(batch.stepsize[rows]) for m, rows in zip(self._movers, self.rows, strict=True)]
            self._stepsize = batch.stepsize
        return zip(self.rows, self._movers, self._steps, strict=True)
