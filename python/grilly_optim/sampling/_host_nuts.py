"""The no-U-turn sampler with potentials that are Python functions: one tree per chain, all grown together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim import random
from grilly_optim.kernels import philox
from grilly_optim.sampling._batch import Batch, Given, Nuts
from grilly_optim.sampling._evaluating import EvaluationFailed
from grilly_optim.sampling._host import HostRunner, Move
from grilly_optim.sampling._tree import Dynamics, Outcome, State, Tree, dot_of
from grilly_optim.sampling._tree_multinomial import multinomial_tree
from grilly_optim.sampling._tree_slice import slice_tree

Array = NDArray[Any]

# Uniform numbers of a transition that are made before they are asked for: most trees have no more leaves.
AHEAD = 32


class NutsRunner(HostRunner):
    """The no-U-turn sampler.

    A vectorized potential sees the leaves that all unfinished trees ask for in one call.
    """

    def __init__(self, potential: Any, method: Nuts, dim: int, dtype: Any, device: str | None) -> None:
        super().__init__(potential, True, dim, dtype, device)
        self._method = method
        self._dot = dot_of(dtype)

    def _make_draws(self, batch: Batch) -> None:
        self._make_normals(batch)
        self._accept = self._draws(batch, "uniform", philox.ACCEPT, AHEAD, np.float32)
        self._direction = self._draws(batch, "uniform", philox.DIRECTION, 2 * self._method.max_tree_depth, np.float32)

    def _begin(self, batch: Batch) -> None:
        super()._begin(batch)
        self._velocities = [batch.inv_mass.velocity_of(chain) for chain in range(len(batch.streams))]
        self._flat: _Flat | None = None

    def _transition(self, batch: Batch, given: Given, k: int, room: Array | None) -> Move:
        if given.uniform is not None and k == 0:
            self._flat = _Flat(np.asarray(given.uniform, np.float64).tolist())
        if self._flat is not None:
            self._flat.begin(k)
        outcomes = self._grow(self._trees(batch, given, k))
        states = [outcome.state for outcome in outcomes]
        stats: dict[str, Any] = {
            "lp": np.array([-state.potential for state in states]),
            "energy": np.array([outcome.energy for outcome in outcomes]),
            "acceptance_rate": np.array([outcome.acceptance_rate for outcome in outcomes]),
            "step_size": batch.stepsize,
            "n_steps": np.array([outcome.n_steps for outcome in outcomes]),
            "diverging": np.array([outcome.diverging for outcome in outcomes]),
            "accepted": np.array([outcome.moved for outcome in outcomes]),
            "tree_depth": np.array([outcome.tree_depth for outcome in outcomes]),
            "reached_max_treedepth": np.array([outcome.reached_max_treedepth for outcome in outcomes]),
        }
        return Move(
            np.array([state.position for state in states]),
            np.array([state.potential for state in states]),
            np.array([state.gradient for state in states]),
            None,
            stats,
        )

    def _trees(self, batch: Batch, given: Given, k: int) -> list[Tree]:
        assert batch.potential is not None
        assert batch.gradient is not None
        momenta = self._normals(batch, given, k)
        if given.momentum is None:
            momenta = batch.inv_mass.momentum(momenta)
        starts = map(State, batch.position, batch.potential.tolist(), batch.gradient)
        method = self._method
        dynamics = [
            Dynamics(stepsize, velocity, self._dot, method.delta_max, method.max_tree_depth)
            for stepsize, velocity in zip(batch.stepsize.tolist(), self._velocities, strict=True)
        ]
        if self._flat is not None:
            return [slice_tree(*one, self._flat) for one in zip(starts, momenta, dynamics, strict=True)]
        accepts = [
            _numbers(numbers, batch.seed, stream, done + 1, self._choice.info.device)
            for numbers, stream, done in zip(
                self._accept.take(batch.seed, batch.done).tolist(),
                batch.streams.tolist(),
                batch.done.tolist(),
                strict=True,
            )
        ]
        if method.variant == "slice":
            return [slice_tree(*one) for one in zip(starts, momenta, dynamics, accepts, strict=True)]
        directions = self._direction.take(batch.seed, batch.done).tolist()
        return [multinomial_tree(*one) for one in zip(starts, momenta, dynamics, directions, accepts, strict=True)]

    def _grow(self, trees: Sequence[Tree]) -> list[Outcome]:
        if len(trees) == 1:
            return [self._grow_one(trees[0])]
        outcomes: dict[int, Outcome] = {}
        growing = list(range(len(trees)))
        wanted = [next(tree) for tree in trees]
        while growing:
            try:
                values, gradients = self._evaluate(np.array(wanted))
            except EvaluationFailed as failed:
                raise failed.among(growing) from None
            still, wanted = [], []
            for chain, answer in zip(growing, zip(values.tolist(), gradients, strict=True), strict=True):
                try:
                    wanted.append(trees[chain].send(answer))
                    still.append(chain)
                except StopIteration as end:
                    outcomes[chain] = end.value
            growing = still
        return [outcomes[chain] for chain in range(len(trees))]

    def _grow_one(self, tree: Tree) -> Outcome:
        evaluate, send = self._evaluate.single, tree.send
        try:
            q = next(tree)
            while True:
                q = send(evaluate(q))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def _numbers(first: list[float], seed: int, stream: int, step: int, device: str) -> Iterator[float]:
    """Uniform numbers of one chain in one transition, as many as are asked for."""
    count = 0
    while True:
        yield from first[count:]
        count = len(first)
        first = random.uniform(4 * count, seed, stream, step, device, purpose="accept").tolist()


class _Flat:
    """Uniform numbers that were given for all transitions of a run."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers, self._used = numbers, 0

    def begin(self, transition: int) -> None:
        """What is asked for from here on is for this transition."""
        self._made, self._used_before = transition, self._used

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        if self._used == len(self._numbers):
            raise ValueError(
                f"uniform has too few numbers: {self._used_before} of {len(self._numbers)} were used by "
                f"{self._made} whole transitions, and the next one needs more than are left"
            )
        self._used += 1
        return self._numbers[self._used - 1]
