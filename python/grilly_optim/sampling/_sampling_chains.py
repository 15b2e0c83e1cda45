"""Chains of `sample`: what they do, how far they are, and how far they get in a while."""

from __future__ import annotations

import copy
import math
import os
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling import _executors
from grilly_optim.sampling._batch import Batch, Hmc, Nuts, Rwm
from grilly_optim.sampling._failures import ChainFailed
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._runners import runner_for
from grilly_optim.sampling._warmup import Adapting, Runners, Warmup

Array = NDArray[Any]

BLOCK_SECONDS = 0.2
ROUND_SECONDS = 2.0  # between two looks at chains that an executor advances


@dataclass(frozen=True)
class Job:
    """What every chain does. It can be sent to another process, if the potential can.

    Attributes:
        potential: U and its gradient.
        adapting: The kernel and its warm-up.
        num_samples: Draws of each chain.
        thin: Transitions for each.
        dim: D.
        dtype: Of positions.
        device: Where transitions run.
        stepsize: Where step sizes begin.
        seed: Of all random numbers.
        number: Of the run, see `_executors.check`.
    """

    potential: Any
    adapting: Adapting
    num_samples: int
    thin: int
    dim: int
    dtype: Any
    device: str
    stepsize: float
    seed: int
    number: int = field(default_factory=_executors.new_number)

    def runners(self) -> Runners:
        """Who advances chains."""
        method = self.adapting.kernel.method
        step = method if isinstance(method, Rwm) else Hmc()
        made = [runner_for(self.potential, m, self.dim, self.dtype, self.device) for m in (method, step)]
        return Runners(*made)

    def record(self, chains: int, thin: int = 1) -> Record:
        """An empty one for draws."""
        tree = isinstance(self.adapting.kernel.method, Nuts)
        return Record(chains, self.dim, self.dtype, tree=tree, thin=thin)

    @property
    def transitions(self) -> int:
        """Of a chain, altogether."""
        return self.adapting.num_warmup + self.num_samples * self.thin


class Part:
    """Chains that are advanced together.

    Attributes:
        chains: Their numbers.
        batch: Where they are.
        warmup: How far they are in their warm-up.
        drawn: Draws of each so far.
    """

    def __init__(self, job: Job, chains: range, position: Array) -> None:
        self.chains = chains
        self.batch = Batch(
            position=position.copy(),
            stepsize=np.full(len(chains), job.stepsize),
            inv_mass=InverseMass(1.0, job.dim, job.dtype),
            streams=np.array(chains, np.uint32),
            done=np.zeros(len(chains), np.int64),
            seed=job.seed,
        )
        self.warmup = Warmup(job.adapting)
        self.drawn = 0

    def copy(self) -> Part:
        """Another one that goes its own way."""
        made = copy.copy(self)
        made.batch = copy.copy(self.batch)
        for name in ("position", "stepsize", "done", "potential", "gradient", "momentum"):
            setattr(made.batch, name, copy.copy(getattr(self.batch, name)))
        made.warmup = self.warmup.copy()
        return made

    def finished(self, job: Job) -> bool:
        """Whether all draws are there."""
        return self.warmup.finished and self.drawn >= job.num_samples

    def advance(self, job: Job, runners: Runners, drawn: Record, transitions: int) -> int:
        """Advance them by about so many transitions, but whole draws, which go to a record; returns by how many."""
        if not self.warmup.finished:
            return self.warmup.advance(runners, self.batch, transitions)
        draws = min(max(1, transitions // job.thin), job.num_samples - self.drawn)
        runners.transition.run(self.batch, draws * job.thin, drawn)
        self.drawn += draws
        return draws * job.thin


class Pace:
    """How many transitions take about as long as a block should; results do not depend on it."""

    def __init__(self) -> None:
        self.transitions = 1

    def measure(self, transitions: int, seconds: float) -> None:
        """So many took so long."""
        fit = transitions * BLOCK_SECONDS / max(seconds, 1e-6)
        # The first blocks are slow for reasons of their own, and windows cut others short.
        self.transitions = int(min(max(1, fit), 4 * self.transitions))


def advance_for(job: Job, part: Part, drawn: Record, seconds: float) -> tuple[Part, Record]:
    """What an executor does: advance chains for a while.

    Args:
        job: What they do.
        part: Where they begin; it does not change.
        drawn: An empty record.
        seconds: How long.

    Returns:
        Where they are, and the draws.

    Raises:
        ChainFailed: See `Runner`; its results are the draws of this while.
    """
    end, pace = time.monotonic() + seconds, Pace()
    part = part.copy()
    try:
        runners = job.runners()
        while not part.finished(job) and time.monotonic() < end:
            _executors.check(job.number)
            begin = time.monotonic()
            made = part.advance(job, runners, drawn, pace.transitions)
            pace.measure(made, time.monotonic() - begin)
    except ChainFailed as error:
        error.results = {chain: drawn.positions[:, row] for row, chain in enumerate(part.chains)}
        raise
    return part, drawn


def split(job: Job, num_chains: int, executor: Executor | None) -> list[range]:
    """Which chains are advanced together: with an executor, parts enough to keep this machine's processors busy."""
    if executor is None:
        return [range(num_chains)]
    vectorized = bool(getattr(job.potential, "vectorized", False))
    parts = min(num_chains, os.cpu_count() or 1) if vectorized else num_chains
    size = math.ceil(num_chains / parts)
    return [range(c, min(c + size, num_chains)) for c in range(0, num_chains, size)]
