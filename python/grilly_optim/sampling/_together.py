"""Chains of their own that are advanced as one batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._batch import Array, Batch, Record, Runner
from grilly_optim.sampling._chain import Chain

# Bytes of positions that wait to be shared out among the chains.
SHARED = 1 << 26


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


def advance(chains: Sequence[Chain], runner: Runner, transitions: int) -> None:
    """Make so many transitions of chains that are alike. Whatever is raised on the way, those that are over stay."""
    for chain in chains:
        chain._reporting.begin(chain._moved())
    _, dim = chains[0]._batch.position.shape
    dtype = chains[0]._batch.position.dtype
    most = max(1, SHARED // (len(chains) * dim * dtype.itemsize))
    left = transitions
    while left > 0:
        part = min(most, *(chain._reporting.transitions(chain.num_states, left) for chain in chains), left)
        batch = _gathered(chains)
        record = Record(len(chains), dim, dtype, tree=chains[0].TREE)
        places = [(chain._history.record.seen, chain._history.record.count) for chain in chains]
        try:
            runner.run(batch, part, record)
        finally:
            try:
                _share_out(chains, batch, record, places)
            except BaseException:
                # A signal: what the chains have must belong together.
                _share_out(chains, batch, record, places)
                raise
            for chain, (_, count) in zip(chains, places, strict=True):
                chain._report(chain.num_states + 1 - record.count, chain._history.record, count)
        left -= part


def _gathered(chains: Sequence[Chain]) -> Batch:
    parts = [chain._batch for chain in chains]

    def joined(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else np.concatenate(arrays)

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


def _share_out(chains: Sequence[Chain], batch: Batch, record: Record, places: list[tuple[int, int]]) -> None:
    """Write down for each chain where it is now. Doing it twice is doing it once."""
    for k, (chain, (seen, _)) in enumerate(zip(chains, places, strict=True)):
        own, mine = chain._history.record, slice(k, k + 1)
        if own.seen == seen:
            own.extend(record.positions[:, mine], {name: array[:, mine] for name, array in record.stats.items()})

        def row(array: NDArray[Any] | None, mine: slice = mine) -> Array | None:
            return None if array is None else array[mine].copy()

        part = chain._batch
        part.position[...] = batch.position[mine]
        part.potential, part.gradient = row(batch.potential), row(batch.gradient)
        part.done = batch.done[mine].copy()
