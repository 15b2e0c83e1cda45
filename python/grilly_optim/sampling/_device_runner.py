"""Chains in built-in potentials: whole transitions in the engine, from the first one of a run to its last."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.sampling._batch import MAX_STEPS, Batch, Given, Hmc, Nuts, StepSizes
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from grilly_optim.sampling.adaptation import DualAveraging

Array = NDArray[Any]

# Where each statistic stands in what the engine gives (shaders/trajectories/names.glsl). An energy is the sum of two
# numbers, whose second one is what the first has lost.
ENERGIES = {"lp": 0, "energy": 2}
NUMBERS = {
    "acceptance_rate": 4,
    "step_size": 5,
    "n_steps": 6,
    "diverging": 7,
    "accepted": 8,
    "tree_depth": 9,
    "reached_max_treedepth": 10,
}
REPORTED = 11

KAPPA = 0.75  # shaders/trajectories/common.glsl

# Transitions of one run of the engine, whose chains count them in floats.
MOST = 1 << 20

# Runs are cut into blocks of about so many seconds, between which Python looks for signals; the first one by its work,
# in numbers that the steps of the integrator go through. What chains do does not depend on the cuts.
SECONDS, WORK, GROWTH = 0.5, 5e8, 4.0
# What a block may be at most: draws that the device has room for, and steps that can be counted.
BYTES, PARTS = 256 << 20, 1 << 31


class DeviceRunner:
    """A `Runner` for potentials that the engine knows.

    Between runs the device keeps nothing but the potential's tables: a run begins with evaluating U and its gradient.

    Args:
        potential: A built-in one.
        method: Hamiltonian Monte Carlo, or the multinomial no-U-turn sampler.
        dtype: Of positions.
        device: Where they run: compiled code or Vulkan.
    """

    def __init__(self, potential: Any, method: Hmc | Nuts, dtype: Any, device: str) -> None:
        self._options, self._dtype, self._dim = _options(method), np.dtype(dtype), int(potential.dim)
        choice, opened = open_device(device)
        backend: Any = opened
        if self._dtype == np.float64 and not choice.info.float64:
            raise TypeError(
                f"positions are float64, which {choice.info.name} does not support: use float32 or device='cpu'"
            )
        rows = len(potential.tables["features"]) if "features" in potential.tables else 0
        # A tree may be a deep one, and looking after it takes longer than a few dimensions do.
        self._steps = method.num_steps if isinstance(method, Hmc) and method.trajectory is None else MAX_STEPS
        self._least_numbers = 1.0 if isinstance(method, Hmc) else 64.0
        self._block: int | None = None
        self._engine = backend.trajectories(
            potential.kernel, self._dtype == np.float64, self._dim, rows, potential.tables, potential.constants
        )

    def run(
        self,
        batch: Batch,
        transitions: int,
        record: Record,
        *,
        adapt: StepSizes | None = None,
        given: Given | None = None,
    ) -> None:
        """See `Runner`."""
        steps = self._options["num_steps"]
        kept = len(batch.streams) * (self._dim + REPORTED) * self._dtype.itemsize / record.thin
        most = max(1, int(min(MOST, PARTS // steps, BYTES / kept)))
        if self._block is None:
            numbers = max(self._least_numbers, self._engine.step_numbers(batch.inv_mass.rank == 2))
            self._block = int(1 + WORK // (numbers * self._steps * len(batch.streams)))
        made = 0
        while made < transitions:
            count = min(self._block, most, transitions - made)
            part = Given(*(None if a is None else a[made : made + count] for a in given or Given()))
            begin = time.monotonic()
            self._run(batch, count, record, adapt, part)
            seconds = max(time.monotonic() - begin, 1e-6)
            made += count
            # A short rest of a run tells little.
            if count == self._block or seconds > SECONDS:
                self._block = max(1, int(count * min(SECONDS / seconds, GROWTH)))

    def _run(self, batch: Batch, count: int, record: Record, adapt: StepSizes | None, given: Given) -> None:
        dtype, chains = self._dtype, len(batch.streams)
        if adapt is not None and not (isinstance(adapt, DualAveraging) and adapt.kappa == KAPPA):
            raise TypeError(f"the engine adapts step sizes by DualAveraging with kappa {KAPPA}, got {adapt!r}")
        sizes = batch.stepsize if adapt is None else adapt.stepsize
        position, step_size = _chains_last(batch.position, dtype), sizes.astype(dtype)
        momentum = adaptation = None
        if self._options["persistence"] > 0:
            momentum = np.zeros_like(position) if batch.momentum is None else _chains_last(batch.momentum, dtype)
        if adapt is not None:
            adaptation = np.array([adapt.count, adapt.h_bar, adapt.log_average, adapt.mu], dtype)
        positions = record.room(count)
        stats = np.empty((len(positions), REPORTED, chains), dtype)
        inverse_mass, root = _mass(batch.inv_mass, self._dim)
        gradient, energy, tally = np.empty_like(position), np.empty((2, chains), dtype), np.zeros((2, chains), dtype)
        done = np.array(batch.done, np.int64)
        run = partial(
            self._engine.run,
            **self._options,
            count=count,
            seen=record.seen,
            thin=record.thin,
            carried=batch.momentum is not None,
            seed=batch.seed,
            streams=np.ascontiguousarray(batch.streams, np.uint32),
            done=done,
            position=position,
            momentum=momentum,
            step_size=step_size,
            adaptation=adaptation,
            target=0.0 if adapt is None else adapt.target_accept,
            gamma=1.0 if adapt is None else adapt.gamma,
            t_0=0.0 if adapt is None else adapt.t0,
            dense=batch.inv_mass.rank == 2,
            mass_per_chain=batch.inv_mass.per_chain,
            inverse_mass=inverse_mass,
            root=root,
            normal=None if given.momentum is None else _chains_last(given.momentum, dtype),
            uniform=None if given.uniform is None else _rounded_down(given.uniform, dtype),
            gradient=gradient,
            energy=energy,
            tally=tally,
            positions=positions,
            stats=stats,
        )
        seen, over = record.seen, batch.done + count

        def write() -> None:
            """Doing it twice is doing it once."""
            if record.seen == seen:
                record.extend(count, positions, _named(stats), tally[1].astype(np.int64), tally[0] > 0)
            batch.position = np.ascontiguousarray(position.T)
            batch.momentum = None if momentum is None else np.ascontiguousarray(momentum.T)
            batch.potential, batch.gradient = energy.sum(axis=0, dtype=np.float64), np.ascontiguousarray(gradient.T)
            batch.done = over
            if adapt is not None and adaptation is not None:
                adapt.stepsize = step_size.astype(np.float64)
                batch.stepsize = adapt.stepsize.copy()
                adapt.count, adapt.h_bar, adapt.log_average, adapt.mu = adaptation.astype(np.float64)

        try:
            run()
            write()
        except BaseException:
            # A signal, maybe on the way back from the engine: what is over is written down, and as a whole.
            if (done == over).all():
                write()
            raise


def _options(method: Hmc | Nuts) -> dict[str, Any]:
    """What the engine is told of a method."""
    if isinstance(method, Hmc):
        return {
            "method": "hmc",
            "num_steps": method.num_steps,
            "trajectory": method.trajectory or 0.0,
            "jitter": method.jitter,
            "persistence": method.persistence,
            "max_tree_depth": 0,
            "delta_max": method.delta_max,
        }
    return {
        "method": "nuts",
        "num_steps": 1,
        "trajectory": 0.0,
        "jitter": False,
        "persistence": 0.0,
        "max_tree_depth": method.max_tree_depth,
        "delta_max": method.delta_max,
    }


def _rounded_down(uniform: Array, dtype: Any) -> Array:
    """Numbers in [0, 1] as they are compared: what was below 1 stays below it."""
    made = np.array(uniform, dtype)
    return np.where(made > uniform, np.nextafter(made, dtype.type(0)), made)


def _chains_last(array: Array, dtype: Any) -> Array:
    """A copy of (..., C, D) as (..., D, C)."""
    return np.array(np.swapaxes(array, -1, -2), dtype, order="C")


def _mass(mass: InverseMass, dim: int) -> tuple[Array, Array]:
    """Factor and root as vectors or matrices, with chains behind them if each has its own."""

    def laid_out(array: Array) -> Array:
        if mass.rank == 0:
            shape = (dim, len(array)) if mass.per_chain else (dim,)
            return np.ascontiguousarray(np.broadcast_to(array.reshape(-1) if mass.per_chain else array, shape))
        return np.ascontiguousarray(np.moveaxis(array, 0, -1) if mass.per_chain else array)

    return laid_out(mass.factor), laid_out(mass.root)


def _named(stats: Array) -> dict[str, Array]:
    """Name -> (kept, C) of (kept, REPORTED, C)."""
    named = {name: stats[:, k].astype(np.float64) + stats[:, k + 1] for name, k in ENERGIES.items()}
    return named | {name: stats[:, k] for name, k in NUMBERS.items()}
