"""The warm-up of chains that are advanced together: searches, step sizes, masses."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._batch import Batch, Nuts, Runner
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._sampling_kernels import Kernel
from grilly_optim.sampling.adaptation import DualAveraging, reasonable_stepsize, warmup_schedule, with_learned_mass

Doubles = NDArray[np.float64]


class Runners(NamedTuple):
    """Who advances chains.

    Attributes:
        transition: By the kernel's transitions.
        step: By transitions of one step of the integrator, for the search.
    """

    transition: Runner
    step: Runner


@dataclass(frozen=True)
class Adapting:
    """How.

    Attributes:
        num_warmup: Transitions, 0 or more.
        kernel: What is adapted; its target is the caller's.
        dense: Whether covariances are learned, or variances.
    """

    num_warmup: int
    kernel: Kernel
    dense: bool

    def step_sizes(self, begin: Doubles) -> DualAveraging:
        """Step sizes of chains that begin with these, (C,)."""
        return DualAveraging(begin, self.kernel.target_accept, gamma=self.kernel.gamma)


class Warmup:
    """Where chains are in their warm-up.

    Attributes:
        index: The number of the window.
        made: Transitions of it that were made.
        searches: Searches for a step size so far.
        adapt: Of step sizes; None before the first search.
        record: The positions of this window so far; None where they teach nothing.
    """

    def __init__(self, adapting: Adapting) -> None:
        self._adapting = adapting
        self.windows = warmup_schedule(adapting.num_warmup)
        self.index, self.made, self.searches = 0, 0, 0
        self.adapt: DualAveraging | None = None
        self.record: Record | None = None

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to adapt."""
        return self.index == len(self.windows)

    def copy(self) -> Warmup:
        """Another one that goes its own way: what is done to it does not change this one."""
        made = copy.copy(self)
        # A record is written to behind what is in use, so two may share its memory.
        made.adapt, made.record = copy.deepcopy(self.adapt), copy.copy(self.record)
        return made

    def advance(self, runners: Runners, batch: Batch, transitions: int) -> int:
        """Advance a batch, not beyond the end of a window; returns by how many transitions."""
        window = self.windows[self.index]
        if self.adapt is None:
            begin = self._begin(runners, batch)
            self.adapt = self._adapting.step_sizes(begin)
        record = self.record
        if record is None:
            # With this thinning nothing is kept.
            kept_every = 1 if window.learns_mass else window.length + 1
            record = self.new_record(batch, kept_every)
            self.record = record if window.learns_mass else None
        count = min(transitions, window.length - self.made)
        runners.transition.run(batch, count, record, adapt=self.adapt)
        self.made += count
        if self.made == window.length:
            self._end(runners, batch)
        return count

    def new_record(self, batch: Batch, thin: int = 1) -> Record:
        """An empty one for transitions of a batch."""
        tree = isinstance(self._adapting.kernel.method, Nuts)
        chains, dim = batch.position.shape
        return Record(chains, dim, batch.position.dtype, tree=tree, thin=thin)

    def _begin(self, runners: Runners, batch: Batch) -> Doubles:
        """The step sizes to begin with, after any change of the mass."""
        first = self._adapting.kernel.stepsize
        if first is not None:
            return batch.stepsize if self.adapt is None else np.full_like(batch.stepsize, first)
        self.searches += 1
        return reasonable_stepsize(runners.step, batch, self.searches - 1)

    def _end(self, runners: Runners, batch: Batch) -> None:
        """The end of a window."""
        assert self.adapt is not None
        batch.stepsize = self.adapt.stepsize.copy()
        if self.record is not None:
            batch.inv_mass = with_learned_mass(batch, self.record.positions, self._adapting.dense)
            batch.momentum = None  # what persisted belongs to the mass that was
            self.adapt.restart(self._begin(runners, batch))
        self.index, self.made, self.record = self.index + 1, 0, None
        if self.finished:
            batch.stepsize = self.adapt.final()
