"""Chains that are advanced on the side: several as one batch, or those whose every transition is reported."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._batch import Array, Batch, Given, Runner
from grilly_optim.sampling._record import Record

if TYPE_CHECKING:
    from grilly_optim.sampling._chain import Chain

# The most bytes that wait to be shared out among the chains, and what the statistics of a transition take, at most.
SHARED, STATS_BYTES = 1 << 26, 64


def alike(chain: Chain) -> Hashable:
    """Chains for which this is equal can be one batch."""
    batch = chain._batch
    mass = batch.inv_mass.array
    return (
        id(chain._potential),
        type(chain),
        chain._method,
        chain.device,
        batch.seed,
        batch.position.shape,
        batch.position.dtype.char,
        mass.shape,
        mass.tobytes(),
    )


def advance(chains: Sequence[Chain], runner: Runner, transitions: int, given: Given | None = None) -> None:
    """Make so many transitions of chains that are alike, and report them.

    Whatever is raised on the way, those that are over stay.
    """
    position = chains[0]._batch.position
    given = given or Given()
    # The draws of the slice sampler cannot be told apart by transition.
    whole = given.uniform is not None and given.uniform.ndim == 1
    most = max(1, SHARED // (len(chains) * (position.nbytes + len(position) * STATS_BYTES)))
    made = 0
    while made < transitions:
        left = transitions - made
        part = left if whole else min(most, *(chain._reporting.transitions(chain.num_states, left) for chain in chains))
        rest = given if whole else Given(*(None if a is None else a[made : made + part] for a in given))
        batch, before = _gathered(chains), [chain.num_states for chain in chains]
        record = Record(len(batch.position), position.shape[1], position.dtype, tree=chains[0].TREE)
        try:
            runner.run(batch, part, record, given=rest)
            _share_out(chains, batch, record, before)
        except BaseException:
            # What is over is kept, and what the chains have must belong together.
            _share_out(chains, batch, record, before)
            raise
        for chain, count, rows in zip(chains, before, _rows(chains), strict=True):
            chain._report(count, _of(record, rows)[1])
        made += part


def _rows(chains: Sequence[Chain]) -> list[slice]:
    """Which of a batch are whose."""
    ends = np.cumsum([len(chain._batch.done) for chain in chains]).tolist()
    return [slice(end - len(chain._batch.done), end) for chain, end in zip(chains, ends, strict=True)]


def _gathered(chains: Sequence[Chain]) -> Batch:
    parts = [chain._batch for chain in chains]

    def joined(arrays: list[Any]) -> Any:
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    return Batch(
        joined([part.position for part in parts]),
        joined([part.stepsize for part in parts]),
        parts[0].inv_mass,
        joined([part.streams for part in parts]),
        joined([part.done for part in parts]),
        parts[0].seed,
        joined([part.potential for part in parts]),
        joined([part.gradient for part in parts]),
    )


def _share_out(chains: Sequence[Chain], batch: Batch, record: Record, before: Sequence[int]) -> None:
    """Write down for each chain where it is now. Doing it twice is doing it once."""
    for chain, count, rows in zip(chains, before, _rows(chains), strict=True):
        chain._keep(count, *_of(record, rows))

        def mine(array: NDArray[Any] | None, rows: slice = rows) -> Array | None:
            return None if array is None else array[rows].copy()

        part = chain._batch
        part.position = batch.position[rows].copy()
        part.potential, part.gradient = mine(batch.potential), mine(batch.gradient)
        part.done = batch.done[rows].copy()


def _of(record: Record, rows: slice) -> tuple[Array, dict[str, Array]]:
    """Positions and statistics of some chains."""
    return record.positions[:, rows], {name: array[:, rows] for name, array in record.stats.items()}
