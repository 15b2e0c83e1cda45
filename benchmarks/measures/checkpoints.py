"""Checkpoints of a process that is killed again and again: is one lost, is one unreadable?

``python -m grilly_optim.benchmarks.measures.checkpoints`` prints the measure. With FILE_PATH, FIRST and STOP it is the
child: it saves those iterations, and reports each one when it begins and when it is done.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grilly_optim.checkpoint import CheckpointError, get_best_ckpt_path, load_checkpoint, save_checkpoint
from grilly_optim.checkpoint._policy import Entry, decide
from grilly_optim.checkpoint._store import survey

from .table import Measure, to_text

MODULE = "grilly_optim.benchmarks.measures.checkpoints"
FEWEST_CUT_OFF = 0.3  # of the saves
LONGEST_LIFE = 5  # saves
MOST_KEPT, KEEP_EVERY, HOUR = 4, 2, 3600.0

State = frozenset[tuple[int, bool]]  # (iteration, whether it is permanent) of all that are there


@dataclass
class Tally:
    """What happened.

    Attributes:
        completed: Saves that returned.
        kills: Processes that were killed.
        cut_off: Saves that a kill interrupted.
        phases: How far those had come.
        lost: Checkpoints that were there, and that the policy did not delete.
        unreadable: Listed checkpoints that are missing, do not load, or have another content or score.
        strange: Listed ones that should not be there or are wrongly permanent, and a best one that is not the best.
        left_over: Files in excess, or missing, at the end.
    """

    completed: int = 0
    kills: int = 0
    cut_off: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    unreadable: int = 0
    strange: int = 0
    left_over: int = 0


def killed_saves(saves: int = 200) -> Measure:
    """Kill a process that saves, at random instants, until so many saves have begun; check after every kill."""
    with tempfile.TemporaryDirectory() as directory:
        tally = kill_often(Path(directory) / "net", saves, seed=20)
    faults: dict[str, float] = {
        "lost": tally.lost,
        "unreadable": tally.unreadable,
        "strange": tally.strange,
        "left over": tally.left_over,
    }
    return Measure(
        f"checkpoints of a process that is killed during {saves} saves",
        "0 lost, 0 unreadable",
        f"{tally.lost} lost, {tally.unreadable} unreadable; {tally.kills} kills, {tally.cut_off} of them during a save",
        not any(faults.values()) and tally.cut_off >= FEWEST_CUT_OFF * saves,
        {**faults, "kills": tally.kills, "completed": tally.completed, **tally.phases},
    )


def kill_often(file_path: Path, saves: int, seed: int) -> Tally:
    """The work of `killed_saves`."""
    rng, tally, durations = random.Random(seed), Tally(), [0.02]
    # The first one comes through: from its time on the hours of the policy count.
    _save(file_path, 0, _content(0))
    state, first = _after(frozenset(), 0), 1
    while first < saves:
        # The last one may come through too: then nothing may be left of those that were killed.
        last = first == saves - 1
        delay = None if last else rng.uniform(0, LONGEST_LIFE) * statistics.median(durations[-50:])
        begun, done = _one_life(file_path, first, saves, delay)
        durations += done.values()
        for iteration in sorted(done):
            state = _after(state, iteration)
        cut = None if begun in done else begun
        tally.completed += len(done)
        tally.kills += not last
        tally.cut_off += cut is not None
        state = _check(file_path, state, cut, tally)
        first = begun + 1
    bookkeeping = {f".{file_path.name}.checkpoints.json", f".{file_path.name}.lock"}
    expected = {_place(file_path, iteration).name for iteration, _ in state}
    tally.left_over = len({p.name for p in file_path.parent.iterdir()} ^ (expected | bookkeeping))
    return tally


def _one_life(file_path: Path, first: int, stop: int, delay: float | None) -> tuple[int, dict[int, float]]:
    """Start a child and kill it, or wait for it: the last iteration it began, and how long each completed one took.

    The delay counts from the first save: the start of the process takes far longer than a save.
    """
    command = [sys.executable, "-m", MODULE, str(file_path), str(first), str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        if delay is not None:
            time.sleep(delay)
            child.kill()
        lines += child.stdout.readlines()
    if delay is None and child.returncode != 0:
        raise RuntimeError(f"the child ended with status {child.returncode}")
    began: dict[int, float] = {}
    done: dict[int, float] = {}
    for line in lines:
        what, iteration, seconds = json.loads(line)
        if what == "begin":
            began[iteration] = seconds
        else:
            done[iteration] = seconds - began[iteration]
    return max(began), done


def _child(file_path: Path, first: int, stop: int) -> None:
    def report(what: str, iteration: int) -> None:
        # One write, which a kill does not cut in two.
        os.write(1, json.dumps([what, iteration, time.monotonic()]).encode() + b"\n")

    for iteration in range(first, stop):
        content = _content(iteration)
        report("begin", iteration)
        _save(file_path, iteration, content)
        report("done", iteration)


def _save(file_path: Path, iteration: int, content: dict[str, Any]) -> None:
    save_checkpoint(
        content, file_path, _score(iteration), iteration, MOST_KEPT, KEEP_EVERY, timestamp=_timestamp(iteration)
    )


def _place(file_path: Path, iteration: int) -> Path:
    return file_path.with_name(f"{file_path.name}_{iteration}.npz")


def _score(iteration: int) -> float:
    return random.Random(iteration).choice([0.1, 0.2, 0.3, 0.4, 0.5])


def _timestamp(iteration: int) -> float:
    return 1.7e9 + 0.4 * HOUR * iteration


def _content(iteration: int) -> dict[str, Any]:
    # Of very different sizes, so that the kills are not all in the same phase of a save.
    elements = random.Random(-iteration).choice([10, 10_000, 300_000])
    return {"iteration": iteration, "w": [np.arange(elements) * 1.5 + iteration, np.float32(iteration)]}


def _after(state: State, iteration: int) -> State:
    """What a save makes of what is there, by the policy."""
    decision = decide(
        [Entry("", 0, i, _score(i), _timestamp(i)) for i, _ in state],
        {i for i, permanent in state if permanent},
        score=_score(iteration),
        timestamp=_timestamp(iteration),
        first_timestamp=_timestamp(0),
        mode="max",
        max_ckpts_to_keep=MOST_KEPT,
        keep_ckpt_every=KEEP_EVERY,
    )
    gone = {e.serial for e in decision.deleted}
    promoted = None if decision.promoted is None else decision.promoted.serial
    left = {(i, permanent or i == promoted) for i, permanent in state if i not in gone}
    return frozenset(left | {(iteration, decision.new_is_permanent)})


def _check(file_path: Path, state: State, cut: int | None, tally: Tally) -> State:
    """Compare what is there with what may be there; returns what is there."""
    there = survey(str(file_path.parent), file_path.name)
    iterations = {_place(file_path, i).name: i for i in range((cut or 0) + max((i for i, _ in state), default=0) + 1)}
    found = {iterations[e.file]: e for e in there.entries}
    tally.unreadable += sum(not _is_good(file_path, i, e.score) for i, e in found.items())
    try:
        manifest = json.loads((file_path.parent / f".{file_path.name}.checkpoints.json").read_bytes())
        listed = {item["file"] for item in manifest["content"]["checkpoints"]}
    except (OSError, ValueError):
        listed = {"the manifest itself"}
    tally.unreadable += sum(not (file_path.parent / file).exists() for file in listed)
    best = get_best_ckpt_path(file_path)
    tally.strange += best is None or _score(iterations[Path(best).name]) < max(map(_score, found))

    now: State = frozenset((i, e.serial in there.permanent) for i, e in found.items())
    least = most = state
    if cut is not None:
        temporary = file_path.with_name(f".{file_path.name}.checkpoint.tmp")
        phase = "while writing" if temporary.exists() else "before writing"
        if cut in found:
            # Its file is in place: deletions may be under way.
            least = _after(state, cut)
            most = least | {(i, permanent) for i, permanent in state if i not in dict(least)}
            phase = "before the manifest" if _place(file_path, cut).name not in listed else "before the deletions"
            phase = "at the end" if now == least and phase == "before the deletions" else phase
        tally.phases[f"cut off {phase}"] += 1
    tally.lost += len(set(dict(least)) - set(found))
    tally.strange += len(now - most)
    return now


def _is_good(file_path: Path, iteration: int, score: float) -> bool:
    try:
        content = load_checkpoint(_place(file_path, iteration))
    except (CheckpointError, OSError):
        return False
    expected = _content(iteration)
    same = [np.array_equal(a, b) for a, b in zip(content["w"], expected["w"], strict=True)]
    return content["iteration"] == iteration and all(same) and score == _score(iteration)


def main() -> int:
    """The measure, or the child; the exit status is 1 if the target is missed."""
    if len(sys.argv) == 4:
        _child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
        return 0
    measure = killed_saves()
    print(to_text([measure]))
    print(measure.values)
    return int(not measure.met)


if __name__ == "__main__":
    sys.exit(main())
