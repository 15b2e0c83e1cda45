"""Hamiltonian Monte Carlo and the random walk with potentials that are Python functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.arrays import empty
from grilly_optim.kernels import philox
from grilly_optim.sampling._batch import Batch, Given, Hmc
from grilly_optim.sampling._blocks import Blocks
from grilly_optim.sampling._draws import Draws
from grilly_optim.sampling._evaluating import EvaluationFailed
from grilly_optim.sampling._host import HostRunner, Move
from grilly_optim.sampling._integrators import Integrator

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class HmcRunner(HostRunner):
    """Hamiltonian Monte Carlo.

    The integrator's steps are the rule `kick_drift` on the device; with a matrix as the inverse mass, NumPy's
    expressions. Many chains make their trajectories block by block, see `Blocks`; what comes of them is decided, and
    written down, for all together.
    """

    def __init__(self, potential: Any, method: Hmc, dim: int, dtype: Any, device: str | None) -> None:
        super().__init__(potential, True, dim, dtype, device)
        self._method = method
        self._blocks = Blocks(self._choice, self._backend)
        self._direction: Draws | None = None

    def _begin(self, batch: Batch) -> None:
        self._blocks.begin(batch)
        super()._begin(batch)

    def _make_draws(self, batch: Batch) -> None:
        super()._make_draws(batch)
        if self._method.jitter:
            self._direction = self._draws(batch, "uniform", philox.DIRECTION, 1, np.float32)

    def _make_normals(self, batch: Batch) -> None:
        # One memory for all blocks, which stays in the cache.
        memory = empty(batch.position[self._blocks.rows[0]].shape, self._dtype, self._choice.info.device)
        self._momenta = [
            Draws(
                "normal",
                philox.MOMENTUM,
                self._choice,
                self._backend,
                batch.streams[rows],
                batch.done[rows],
                self._dim,
                self._dtype,
                memory[: rows.stop - rows.start],
            )
            for rows in self._blocks.rows
        ]

    def _transition(self, batch: Batch, given: Given, k: int, room: Array | None) -> Move:
        method = self._method
        assert batch.potential is not None
        assert batch.gradient is not None
        steps = method.steps(batch.stepsize)
        if self._direction is not None:
            u = self._direction.take(batch.seed, batch.done)[:, 0].astype(np.float64)
            steps = 1 + np.floor(u * (2 * steps - 1)).astype(np.int64)
        position = np.empty_like(batch.position) if room is None else room
        gradient = np.empty_like(batch.gradient)
        persists = method.persistence > 0
        begun, momentum = np.empty((2, *position.shape) if persists else (2, 0), self._dtype)
        before, potential, after = np.empty((3, len(position)))
        for (rows, mover, sizes), draws in zip(self._blocks.of(batch), self._momenta, strict=True):
            start = self._start(batch, given, k, rows, mover, draws)
            if persists:
                begun[rows] = start
            mover.begin(batch.position[rows], start, sizes)
            try:
                before[rows], potential[rows], after[rows] = self._trajectories(
                    mover, batch.gradient[rows], steps[rows], gradient[rows]
                )
            except EvaluationFailed as failed:
                raise failed.among(range(rows.start, rows.stop)) from None
            position[rows] = mover.position
            if persists:
                momentum[rows] = mover.momentum()
        energy = potential + after
        # Differences first: a constant in U leaves them as they are.
        fall = (batch.potential - potential) + (before - after)
        usable = np.isfinite(energy) & ~np.isnan(fall)
        odds = np.where(usable, np.exp(fall), 0.0)
        accepted = self._uniforms(batch, given, k) < odds
        if not accepted.all():
            rejected = ~accepted
            if persists:
                momentum[rejected] = -begun[rejected]
            position[rejected] = batch.position[rejected]
            gradient[rejected] = batch.gradient[rejected]
            potential = np.where(accepted, potential, batch.potential)
            energy = np.where(accepted, energy, batch.potential + before)
        stats = {
            "lp": -potential,
            "energy": energy,
            "acceptance_rate": np.minimum(odds, 1.0),
            "step_size": batch.stepsize,
            "n_steps": steps,
            "diverging": ~usable | (fall < -method.delta_max),
            "accepted": accepted,
        }
        return Move(position, potential, gradient, momentum if persists else None, stats)

    def _start(self, batch: Batch, given: Given, k: int, rows: slice, mover: Integrator, draws: Draws) -> Array:
        """Momenta that the trajectories of some chains begin with."""
        if given.momentum is None:
            fresh = mover.inv_mass.momentum(draws.take(batch.seed, batch.done[rows]))
        else:
            fresh = np.asarray(given.momentum[k][rows], self._dtype, order="C")
        alpha = self._method.persistence
        if alpha == 0 or batch.momentum is None:
            return fresh
        kept, new = (self._dtype.type(x) for x in (np.sqrt(alpha), np.sqrt(1 - alpha)))
        return np.asarray(kept * batch.momentum[rows] + new * fresh)

    def _trajectories(
        self, mover: Integrator, gradient: Array, steps: NDArray[np.int64], end: Array
    ) -> tuple[Doubles, Doubles, Doubles]:
        """Move chains by as many steps as each has; one that is at its end stands still and is not evaluated.

        Args:
            mover: At the beginning.
            gradient: There.
            steps: (C,).
            end: (C, D), which becomes the gradient at the end.

        Returns:
            Kinetic energies before, U at the end, kinetic energies after.
        """
        most = int(steps.max())
        before = mover.first(gradient)
        if (steps == most).all():
            for _ in range(most - 1):
                mover.inner(self._evaluate(mover.position, own=False)[1])
            potential, last = self._evaluate(mover.position, own=False)
            after = mover.last(last)
            end[...] = last
            return before, potential, after
        potential, after = np.empty(len(steps)), before
        for number in range(1, most + 1):
            moving = np.flatnonzero(steps >= number)
            try:
                values, end[moving] = self._evaluate(mover.position[moving], own=False)
            except EvaluationFailed as failed:
                raise failed.among(moving) from None
            potential[moving] = values
            after = mover.mixed(end, steps == number, steps > number)
        return before, potential, after


class RwmRunner(HostRunner):
    """Random-walk Metropolis."""

    def __init__(self, potential: Any, dim: int, dtype: Any, device: str | None) -> None:
        super().__init__(potential, False, dim, dtype, device)

    def _transition(self, batch: Batch, given: Given, k: int, room: Array | None) -> Move:
        assert batch.potential is not None
        # A momentum's velocity is a normal number with covariance W.
        normal = self._normals(batch, given, k).copy()
        shaped = batch.inv_mass.velocity(batch.inv_mass.momentum(normal))
        position = batch.position + batch.stepsize[:, None].astype(self._dtype) * shaped
        potential = self._evaluate(position)[0]
        fall = batch.potential - potential
        usable = np.isfinite(potential) & ~np.isnan(fall)
        odds = np.where(usable, np.exp(fall), 0.0)
        accepted = self._uniforms(batch, given, k) < odds
        rejected = ~accepted
        position[rejected] = batch.position[rejected]
        potential = np.where(accepted, potential, batch.potential)
        stats = {
            "lp": -potential,
            "energy": potential,
            "acceptance_rate": np.minimum(odds, 1.0),
            "step_size": batch.stepsize,
            "n_steps": 1,
            "diverging": ~usable,
            "accepted": accepted,
        }
        return Move(position, potential, None, None, stats)
