"""Random numbers of chains that are advanced together: functions of seed, chain and transition alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import Choice
from grilly_optim.arrays import empty
from grilly_optim.kernels import philox
from grilly_optim.kernels.philox import Draw
from grilly_optim.kernels.random import NORMAL, UNIFORM

Array = NDArray[Any]
Counts = NDArray[np.int64]

_KINDS: dict[str, Any] = {"normal": (NORMAL, (1.0,)), "uniform": (UNIFORM, (0.0, 1.0))}


class Draws:
    """Numbers of one kind, for one transition after the other.

    Args:
        kind: "normal" or "uniform".
        purpose: What for, see `grilly_optim.kernels.philox`.
        choice: The device.
        backend: Its engine.
        streams: (C,), one for each chain.
        done: (C,), how many transitions each has made.
        count: How many numbers a chain takes in a transition.
        dtype: Of these.
        memory: (C, count), where they go; None: to memory of their own.
    """

    def __init__(
        self,
        kind: str,
        purpose: int,
        choice: Choice,
        backend: Any,
        streams: NDArray[np.uint32],
        done: Counts,
        count: int,
        dtype: Any,
        memory: Array | None = None,
    ) -> None:
        rule, self._row = _KINDS[kind]
        self._backend, self._purpose = backend, purpose
        self._array = empty((len(streams), count), dtype, choice.info.device) if memory is None else memory
        # One plan takes rows whose streams follow one another; one run those that are in the same transition.
        follows = (np.diff(streams.astype(np.int64)) == 1) & (np.diff(done) == 0)
        ends = [*(np.flatnonzero(~follows) + 1).tolist(), len(streams)]
        groups: dict[int, tuple[int, list[Any]]] = {}
        for begin, end in zip([0, *ends], ends, strict=False):
            plan = backend.plan(rule, [self._array[begin:end]], [0], end - begin, stream=int(streams[begin]))
            groups.setdefault(int(done[begin]), (begin, []))[1].append(plan)
        self._groups = [
            (chain, plans, [[self._row]] * len(plans), [None] * len(plans)) for chain, plans in groups.values()
        ]

    def take(self, seed: int, done: Counts) -> Array:
        """(C, count), of each chain's next transition; the next call overwrites them.

        Args:
            seed: Of all.
            done: As it was, or with all chains so many transitions further.

        Raises:
            OverflowError: There are no more numbers.
        """
        for chain, plans, rows, index in self._groups:
            step = int(done[chain]) + 1
            if step >> philox.STEP_BITS:
                raise OverflowError(
                    f"transition {step}: the counter of random numbers has room for 2^{philox.STEP_BITS}"
                )
            self._backend.run(plans, (), rows, index, draw=Draw(seed, step, self._purpose))
        return self._array
