"""Hamiltonian Monte Carlo and the random walk with potentials that are Python functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels import philox
from grilly_optim.sampling._batch import Batch, Given, Hmc
from grilly_optim.sampling._draws import Draws
from grilly_optim.sampling._evaluating import EvaluationFailed
from grilly_optim.sampling._host import HostRunner, Move
from grilly_optim.sampling._integrators import Integrator, integrator

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class HmcRunner(HostRunner):
    """Hamiltonian Monte Carlo.

    The integrator's steps are the rule `kick_drift` on the device; with a matrix as the inverse mass, NumPy's
    expressions.
    """

    def __init__(self, potential: Any, method: Hmc, dim: int, dtype: Any, device: str | None) -> None:
        super().__init__(potential, True, dim, dtype, device)
        self._method = method
        self._integrator: Integrator | None = None
        self._direction: Draws | None = None

    def _begin(self, batch: Batch) -> None:
        super()._begin(batch)
        if self._integrator is None or not self._integrator.fits(batch.position, batch.inv_mass):
            self._integrator = integrator(self._choice, self._backend, batch.position, batch.inv_mass)
        self._integrator.place(batch.position)

    def _make_draws(self, batch: Batch) -> None:
        super()._make_draws(batch)
        if self._method.jitter:
            self._direction = self._draws(batch, "uniform", philox.DIRECTION, 1, np.float32)

    def _transition(self, batch: Batch, given: Given, k: int) -> Move:
        method, mover = self._method, self._integrator
        assert mover is not None
        assert batch.potential is not None
        assert batch.gradient is not None
        start = self._start(batch, given, k)
        mover.begin(start, batch.stepsize)
        steps = method.steps(batch.stepsize)
        if self._direction is not None:
            u = self._direction.take(batch.seed, batch.done)[:, 0].astype(np.float64)
            steps = 1 + np.floor(u * (2 * steps - 1)).astype(np.int64)
        before, potential, gradient, after = self._trajectories(mover, batch.gradient, steps)
        energy = potential + after
        # Differences first: a constant in U leaves them as they are.
        fall = (batch.potential - potential) + (before - after)
        usable = np.isfinite(energy) & ~np.isnan(fall)
        odds = np.where(usable, np.exp(fall), 0.0)
        accepted = self._uniforms(batch, given, k) < odds
        momentum = None
        if method.persistence > 0:
            momentum = np.where(accepted[:, None], mover.momentum(), -start)
        if not accepted.all():
            rejected = ~accepted
            mover.position[rejected] = batch.position[rejected]
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
        return Move(mover.position, potential, gradient, momentum, stats)

    def _start(self, batch: Batch, given: Given, k: int) -> Array:
        """Momenta that the trajectories begin with."""
        fresh = self._normals(batch, given, k)
        if given.momentum is None:
            fresh = batch.inv_mass.momentum(fresh)
        alpha = self._method.persistence
        if alpha == 0:
            return fresh
        if batch.momentum is None:
            return fresh.copy()
        kept, new = (self._dtype.type(x) for x in (np.sqrt(alpha), np.sqrt(1 - alpha)))
        return np.asarray(kept * batch.momentum + new * fresh)

    def _trajectory(self, mover: Integrator, gradient: Array, steps: int) -> tuple[Doubles, Doubles, Array, Doubles]:
        """Kinetic energies before, U and gradient at the end, kinetic energies after."""
        before = mover.first(gradient)
        for _ in range(steps - 1):
            mover.inner(self._evaluate(mover.position, own=False)[1])
        potential, gradient = self._evaluate(mover.position)
        return before, potential, gradient, mover.last(gradient)

    def _trajectories(
        self, mover: Integrator, gradient: Array, steps: NDArray[np.int64]
    ) -> tuple[Doubles, Doubles, Array, Doubles]:
        """The same with as many steps as each chain has; one that is at its end stands still and is not evaluated."""
        most = int(steps.max())
        if (steps == most).all():
            return self._trajectory(mover, gradient, most)
        before = mover.first(gradient)
        potential, after, there = np.empty(len(steps)), before, np.empty_like(gradient)
        for number in range(1, most + 1):
            moving = np.flatnonzero(steps >= number)
            try:
                values, there[moving] = self._evaluate(mover.position[moving], own=False)
            except EvaluationFailed as failed:
                raise EvaluationFailed(None if failed.row is None else int(moving[failed.row]), failed.cause) from None
            potential[moving] = values
            after = mover.mixed(there, steps == number, steps > number)
        return before, potential, there, after


class RwmRunner(HostRunner):
    """Random-walk Metropolis."""

    def __init__(self, potential: Any, dim: int, dtype: Any, device: str | None) -> None:
        super().__init__(potential, False, dim, dtype, device)

    def _transition(self, batch: Batch, given: Given, k: int) -> Move:
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
