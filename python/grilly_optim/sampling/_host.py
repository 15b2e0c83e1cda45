"""Transitions with potentials that are Python functions: what HMC, trees and the random walk share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.kernels import philox
from grilly_optim.sampling._batch import Batch, Given, StepSizes
from grilly_optim.sampling._draws import Draws
from grilly_optim.sampling._evaluating import EvaluationFailed, Evaluator
from grilly_optim.sampling._failures import ChainFailed, reason
from grilly_optim.sampling._record import Record, write_whole

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class Move(NamedTuple):
    """A transition that has not been written down yet."""

    position: Array
    potential: Doubles
    gradient: Array | None
    momentum: Array | None
    stats: dict[str, Any]


class HostRunner(ABC):
    """Advances batches, transition by transition.

    Args:
        potential: See `Evaluator`.
        gradient: Whether its gradient is needed.
        dim: D.
        dtype: Of positions.
        device: Where random numbers and steps are made.
    """

    def __init__(self, potential: Any, gradient: bool, dim: int, dtype: Any, device: str | None) -> None:
        self._evaluate = Evaluator(potential, dtype, gradient=gradient)
        self._needs_gradient = gradient
        self._dim, self._dtype = dim, np.dtype(dtype)
        self._choice, self._backend = open_device(device)
        if self._dtype == np.float64 and not self._choice.info.float64:
            raise TypeError(
                f"positions are float64, which {self._choice.info.name} does not support: use float32 or device='cpu'"
            )
        self._drawn_for: tuple[Array, Array] | None = None

    def run(
        self,
        batch: Batch,
        transitions: int,
        record: Record,
        *,
        adapt: StepSizes | None = None,
        given: Given | None = None,
    ) -> None:
        """See `Runner`. Warnings of NumPy about overflow and invalid values are off: they are divergences."""
        record.reserve(transitions)
        with np.errstate(all="ignore"):
            try:
                self._begin(batch)
                for k in range(transitions):
                    if adapt is not None:
                        batch.stepsize = adapt.stepsize.copy()
                    move = self._transition(batch, given or Given(), k, record.next_positions())
                    seen, done = record.seen, batch.done + 1
                    # The transition is over: a signal must not leave half of it.
                    write_whole(partial(_write, batch, record, move, seen, done))
                    if adapt is not None:
                        adapt.update(move.stats["acceptance_rate"])
            except EvaluationFailed as failed:
                raise _chain_failed(batch, failed) from failed.cause
            finally:
                # Not a part of the record, which would stay in memory for it when the chains have forgotten it.
                batch.position = batch.position.copy()

    def _begin(self, batch: Batch) -> None:
        """Make ready what all transitions need."""
        if batch.potential is None or (self._needs_gradient and batch.gradient is None):
            batch.potential, gradient = self._evaluate(batch.position)
            batch.gradient = gradient if self._needs_gradient else None
        ahead = batch.done - batch.done[0]
        if self._drawn_for is None or not all(map(np.array_equal, self._drawn_for, (batch.streams, ahead))):
            self._drawn_for = None  # until all of them are there
            self._make_draws(batch)
            self._drawn_for = batch.streams.copy(), ahead

    def _make_draws(self, batch: Batch) -> None:
        self._make_normals(batch)
        self._uniform = self._draws(batch, "uniform", philox.ACCEPT, 1, np.float32)

    def _make_normals(self, batch: Batch) -> None:
        self._normal = self._draws(batch, "normal", philox.MOMENTUM, self._dim, self._dtype)

    def _draws(self, batch: Batch, kind: str, purpose: int, count: int, dtype: Any) -> Draws:
        return Draws(kind, purpose, self._choice, self._backend, batch.streams, batch.done, count, dtype)

    @abstractmethod
    def _transition(self, batch: Batch, given: Given, k: int, room: Array | None) -> Move:
        """The next transition, the k-th of this run, which leaves the batch as it is.

        Its positions may be made in `room`, (C, D), where they will be kept; None: they will not.
        """

    def _normals(self, batch: Batch, given: Given, k: int) -> Array:
        if given.momentum is not None:
            return np.asarray(given.momentum[k], self._dtype, order="C")
        return self._normal.take(batch.seed, batch.done)

    def _uniforms(self, batch: Batch, given: Given, k: int) -> Array:
        if given.uniform is not None:
            return np.asarray(given.uniform[k])
        return self._uniform.take(batch.seed, batch.done)[:, 0]


def _write(batch: Batch, record: Record, move: Move, seen: int, done: Array) -> None:
    """Write a transition down. Doing it twice is doing it once."""
    if record.seen == seen:
        record.add(move.position, move.stats)
    batch.position, batch.momentum = move.position, move.momentum
    batch.potential, batch.gradient = move.potential, move.gradient
    batch.done = done


def _chain_failed(batch: Batch, failed: EvaluationFailed) -> ChainFailed:
    row = failed.row
    what = reason(failed.cause)
    first = 0 if row is None else row
    chain, step = int(batch.streams[first]), int(batch.done[first])
    if row is not None:
        return ChainFailed(f"chain {chain} failed in transition {step}: {what}", chain, step)
    chains = (
        f"{chain} to {batch.streams[-1]}"
        if np.all(np.diff(batch.streams.astype(int)) == 1)
        else str(batch.streams.tolist())
    )
    return ChainFailed(f"the batch of chains {chains} failed in transition {step}: {what}", chain, step)
