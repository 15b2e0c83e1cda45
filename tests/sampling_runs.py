"""Short runs of `sample`, and the executors they are made in."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np

from grilly_optim.sampling import Trace, sample
from tests.llc import Backwards
from tests.sampling_potentials import MEANS, gaussian

KERNELS = "nuts", "hmc", "mala", "ghmc", "rwm"


def draw(potential: Any = gaussian, num_samples: int = 20, **options: Any) -> Trace:
    """A short run of three chains on the compiled device."""
    options = {"num_warmup": 60, "num_chains": 3, "initial_position": MEANS, "device": "cpu", **options}
    return sample(potential, num_samples, **options)


def same(one: Trace, other: Trace) -> None:
    """All that a run leaves, bit for bit."""
    np.testing.assert_array_equal(one.draws, other.draws)
    assert one.draws.dtype == other.draws.dtype
    assert set(one.sample_stats) == set(other.sample_stats)
    for name, values in one.sample_stats.items():
        np.testing.assert_array_equal(values, other.sample_stats[name])
    np.testing.assert_array_equal(one.stepsize, other.stepsize)
    np.testing.assert_array_equal(one.inv_mass, other.inv_mass)


def processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "3 threads": lambda: ThreadPoolExecutor(3),
    "2 processes": lambda: processes(2),
    "backwards": Backwards,
}
