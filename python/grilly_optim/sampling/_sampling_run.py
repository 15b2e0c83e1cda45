"""A run of `sample`: all chains to their ends, here or in an executor, saved on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling import _executors
from grilly_optim.sampling._failures import ChainFailed, reason
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._sampling_chains import ROUND_SECONDS, Job, Pace, Part, advance_for
from grilly_optim.sampling._warmup import Runners

Array = NDArray[Any]
Report = Callable[[int, str], None]


class Run:
    """All chains, and what they have drawn.

    Attributes:
        job: What each of them does.
        parts: Those that are advanced together. What is in here is whole: a part is replaced when it has advanced.
        kept: The draws of each part: those that it counts, and behind them maybe some of a block that broke off.
    """

    def __init__(self, job: Job, parts: list[Part], kept: list[Record], seconds: float = 0.0) -> None:
        self.job, self.parts, self.kept = job, parts, kept
        self._begin = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """What it took, with what it took before it was saved."""
        return time.monotonic() - self._begin

    @property
    def drawn(self) -> int:
        """How many draws every chain has, 0 or more."""
        return min(record.count for record in self.kept)

    @property
    def done(self) -> int:
        """Transitions so far, of all chains together."""
        return sum(int(part.batch.done.sum()) for part in self.parts)

    @property
    def divergences(self) -> int:
        """How many of the draws so far were divergences."""
        return sum(int(record.stats["diverging"].sum()) for record in self.kept)

    def go(
        self, runners: Runners, executor: Executor | None, report: Report | None, save: Callable[[Run], None]
    ) -> None:
        """To the end.

        Args:
            runners: Who advances chains here.
            executor: Where else; None: here.
            report: Called after each block with how many transitions it were, and how things are.
            save: Called after each block.

        Raises:
            ChainFailed: A chain cannot go on; its results are all draws so far.
        """
        try:
            if executor is None:
                self._go_here(runners, report, save)
            else:
                while not self._finished:
                    self._round(executor, report)
                    save(self)
        except ChainFailed as error:
            for part, record in zip(self.parts, self.kept, strict=True):
                for row, chain in enumerate(part.chains):
                    both = [record.positions[:, row], *([error.results[chain]] if chain in error.results else [])]
                    error.results[chain] = np.concatenate(both)
            error.results = {chain: draws for chain, draws in sorted(error.results.items()) if len(draws)}
            raise

    @property
    def _finished(self) -> bool:
        return all(part.finished(self.job) for part in self.parts)

    def _go_here(self, runners: Runners, report: Report | None, save: Callable[[Run], None]) -> None:
        pace = Pace()
        while not self._finished:
            for k, part in enumerate(self.parts):
                if part.finished(self.job):
                    continue
                part, drawn = part.copy(), self.job.record(len(part.chains), self.job.thin)
                begin = time.monotonic()
                try:
                    made = part.advance(self.job, runners, drawn, pace.transitions)
                except BaseException:
                    self.kept[k].take(drawn.positions, drawn.stats)
                    raise
                pace.measure(made, time.monotonic() - begin)
                self._take(k, part, drawn, report)
            save(self)

    def _round(self, executor: Executor, report: Report | None) -> None:
        """All chains for a while, in an executor."""
        job = self.job
        waiting = [k for k, part in enumerate(self.parts) if not part.finished(job)]
        tasks = [(job, self.parts[k], job.record(len(self.parts[k].chains), job.thin), ROUND_SECONDS) for k in waiting]

        def keep(i: int, found: tuple[Part, Record]) -> None:
            self._take(waiting[i], *found, report)

        try:
            _executors.run_all(advance_for, tasks, executor, job.number, keep)
        except _executors.TaskFailed as failed:
            error, chain = failed.cause, self.parts[waiting[failed.index]].chains[0]
            if not isinstance(error, ChainFailed):
                error = ChainFailed(f"chain {chain} did not finish: {reason(error)}", chain)
                error.__cause__ = failed.cause
            raise error from error.__cause__

    def _take(self, k: int, part: Part, drawn: Record, report: Report | None) -> None:
        """A part has advanced."""
        made = int((part.batch.done - self.parts[k].batch.done).sum())
        self.kept[k].take(drawn.positions, drawn.stats)
        self.parts[k] = part  # last: what has no part that counts it is not saved
        if report is not None:
            report(made, self._text())

    def _text(self) -> str:
        stepsize = np.median(np.concatenate([part.batch.stepsize for part in self.parts]))
        if not all(part.warmup.finished for part in self.parts):
            return f"warm-up, step size {stepsize:.3g}"
        return f"{self.divergences} diverging, step size {stepsize:.3g}"

    def results(self) -> tuple[Array, dict[str, Array]]:
        """Draws (C, n, D), and statistics name -> (C, n), of as many as every chain has."""
        n = self.drawn

        def by_chain(arrays: list[Array]) -> Array:
            made = np.empty((sum(array.shape[1] for array in arrays), n, *arrays[0].shape[2:]), arrays[0].dtype)
            np.concatenate([array[:n].swapaxes(0, 1) for array in arrays], out=made)
            return made

        names = self.kept[0].stats
        return (
            by_chain([record.positions for record in self.kept]),
            {name: by_chain([record.stats[name] for record in self.kept]) for name in names},
        )
