"""Runs of `sample` on disk: every number that what comes next depends on, and the draws so far."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.checkpoint import _files, _payload
from grilly_optim.checkpoint._tree import flatten
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._sampling_chains import Job, Part
from grilly_optim.sampling._sampling_run import Run

Array = NDArray[Any]
State = dict[str, Any]

KIND = "run of grilly_optim.sampling.sample"
VERSION = 1
EVERY_SECONDS = 10.0
SHARE = 0.05  # of the time, at most, goes into saving

_BATCH = "position", "stepsize", "done", "potential", "gradient", "momentum"
_ADAPT = "stepsize", "log_average", "h_bar", "count", "mu"


class Checkpoint:
    """The file of a run.

    Args:
        path: Its path.
        options: What makes this run another one than others: plain values and arrays.
    """

    def __init__(self, path: str, options: State) -> None:
        self.path, self._options = path, options
        self._due = time.monotonic() + EVERY_SECONDS

    def save(self, run: Run) -> None:
        """Put the state of a run in the place of what was there; the file appears whole or not at all."""
        begin = time.monotonic()
        parts = [_part_state(part, kept) for part, kept in zip(run.parts, run.kept, strict=True)]
        content = {"kind": KIND, "version": VERSION, "options": self._options, "seconds": run.seconds, "parts": parts}
        nodes, arrays = flatten(content)
        directory, name = os.path.split(self.path)
        _files.make_directory(directory)
        now = time.time()
        meta = _payload.Meta(name, None, 0, 0.0, now, now, "max", [])
        with _files.replacing(os.path.join(directory, f".{name}.tmp"), self.path) as file:
            _payload.write(file, "npz", meta, nodes, arrays)
        end = time.monotonic()
        self._due = end + max(EVERY_SECONDS, (end - begin) / SHARE)

    def save_when_due(self, run: Run) -> None:
        """The same, now and then."""
        if time.monotonic() >= self._due:
            self.save(run)

    def load(self, job: Job) -> Run | None:
        """The run as it was saved; None where there is no file.

        Raises:
            ValueError: It is another run's: the message names the first option that differs, and both values.
            CheckpointError: The file is damaged.
        """
        try:
            content = _payload.read(self.path)
        except FileNotFoundError:
            return None
        if content.get("kind") != KIND:
            raise ValueError(f"{self.path!r} cannot be resumed: it is a checkpoint, and not one of sample()")
        if content["version"] != VERSION:
            raise ValueError(f"{self.path!r} cannot be resumed: it was written by a newer version of grilly_optim")
        for name, here in self._options.items():
            there = content["options"].get(name)
            if not _same(there, here):
                what = "is another one" if isinstance(here, np.ndarray) else f"is {there!r} there, and {here!r} here"
                raise ValueError(f"{self.path!r} cannot be resumed: it is of another run, {name} {what}")
        drawn = max(state["drawn"] for state in content["parts"])
        if drawn > job.num_samples:
            raise ValueError(
                f"{self.path!r} cannot be resumed: it has {drawn} draws, and num_samples is {job.num_samples}"
            )
        parts, kept = zip(*(_part_of(job, state) for state in content["parts"]), strict=True)
        return Run(job, list(parts), list(kept), content["seconds"])


def _same(there: Any, here: Any) -> bool:
    if isinstance(here, np.ndarray):
        return isinstance(there, np.ndarray) and np.array_equal(there, here)
    return type(there) is type(here) and bool(there == here)


def _part_state(part: Part, kept: Record) -> State:
    batch, warmup = part.batch, part.warmup
    return {
        "chains": [part.chains.start, part.chains.stop],
        "drawn": part.drawn,
        "draws": _record_state(kept, part.drawn),
        "batch": {name: getattr(batch, name) for name in _BATCH},
        "inv_mass": batch.inv_mass.array,
        "own_mass": batch.inv_mass.per_chain,
        "warmup": {name: getattr(warmup, name) for name in ("index", "made", "searches")},
        "adapt": None if warmup.adapt is None else {name: getattr(warmup.adapt, name) for name in _ADAPT},
        "window": None if warmup.record is None else _record_state(warmup.record, warmup.made),
    }


def _part_of(job: Job, state: State) -> tuple[Part, Record]:
    batch = state["batch"]
    part = Part(job, range(*state["chains"]), batch["position"])
    for name in _BATCH:
        setattr(part.batch, name, batch[name])
    part.batch.inv_mass = InverseMass(state["inv_mass"], job.dim, job.dtype, per_chain=state["own_mass"])
    part.drawn = state["drawn"]
    for name, value in state["warmup"].items():
        setattr(part.warmup, name, value)
    if state["adapt"] is not None:
        adapt = job.adapting.step_sizes(np.ones(len(part.chains)))
        for name in _ADAPT:
            setattr(adapt, name, state["adapt"][name])
        part.warmup.adapt = adapt
    if state["window"] is not None:
        part.warmup.record = _fill(part.warmup.new_record(part.batch), state["window"])
    return part, _fill(job.record(len(part.chains)), state["draws"])


def _record_state(record: Record, count: int) -> State:
    return {
        "positions": record.positions[:count],
        "stats": {name: array[:count] for name, array in record.stats.items()},
    }


def _fill(record: Record, state: State) -> Record:
    record.take(state["positions"], state["stats"])
    return record
