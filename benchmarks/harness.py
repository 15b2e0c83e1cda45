"""Timing in one process, turn by turn: ratios of medians then belong to one run, under one load."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

# "step": a whole step of ours; "kernel": its plan alone; "reference": the stream kernel; "rival": somebody else's step.
Kind = Literal["step", "kernel", "reference", "rival"]

# Before a turn: OpenMP's workers (torch, numba) go on spinning for about a millisecond after their last job, and would
# take a core from whoever comes next.
REST = 0.002
# A turn repeats calls for about this long, so that the clock's own cost does not show.
TURN = 0.005
# Enough for a median and its spread; above that, more rounds say nothing new.
MIN_ROUNDS, MAX_ROUNDS = 7, 200
_MAX_CALLS = 10_000


@dataclass
class Contestant:
    """Something to time.

    Attributes:
        family: Contestants of one family and kind do the same work, and the fastest counts ("torch fused").
        variant: What tells them apart ("2 threads").
        kind: See `Kind`.
        call: One whole call.
        device: Our device string; for a rival, the device whose stream kernel is its ceiling.
        prepare: Called at the start of a turn, not timed.
        before_call: Called before every call, not timed; calls are then timed one by one.
        device_ns: What the device's own clock says of the last call.
    """

    family: str
    variant: str
    kind: Kind
    call: Callable[[], object]
    device: str = ""
    prepare: Callable[[], object] | None = None
    before_call: Callable[[], object] | None = None
    device_ns: Callable[[], int] | None = None

    @property
    def who(self) -> str:
        """How tables and messages call it."""
        return f"{self.family}, {self.variant}" if self.variant else self.family


@dataclass
class Timing:
    """Seconds per call, one entry per turn, and the device's own seconds beside them."""

    contestant: Contestant
    calls: int
    seconds: list[float] = field(default_factory=list)
    device_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median over the turns."""
        return statistics.median(self.seconds)

    @property
    def device_median(self) -> float | None:
        """Median of the device's own clock, where it has one."""
        return statistics.median(self.device_seconds) if any(self.device_seconds) else None

    def quantile(self, tenth: int) -> float:
        """The 10 % quantile for 1, the 90 % quantile for 9."""
        if len(self.seconds) < 2:
            return self.seconds[0]
        return statistics.quantiles(self.seconds, n=10, method="inclusive")[tenth - 1]


def race(contestants: Sequence[Contestant], budget: float) -> list[Timing]:
    """Time all contestants in turns, each at least `MIN_ROUNDS` times, for about `budget` seconds.

    Args:
        contestants: What to time; their order is the order of the result.
        budget: Seconds for the rounds, warm-up excluded.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        timings = [Timing(c, _calls_per_turn(c)) for c in contestants]
        end = time.perf_counter() + budget
        for round_ in range(MAX_ROUNDS):
            if round_ >= MIN_ROUNDS and time.perf_counter() > end:
                break
            # Everyone has another predecessor in the next round only if the order changes: forwards, then backwards.
            for timing in timings if round_ % 2 == 0 else reversed(timings):
                _turn(timing)
        return timings
    finally:
        if collecting:
            gc.enable()


def _calls_per_turn(contestant: Contestant) -> int:
    """Warm up, and see how many calls make a turn."""
    if contestant.prepare:
        contestant.prepare()
    seconds = float("inf")
    begin = time.perf_counter()
    for call in range(1_000):
        seconds = min(seconds, _timed(contestant, 1))
        if call >= 2 and time.perf_counter() - begin > 2 * TURN:
            break
    return max(1, min(_MAX_CALLS, round(TURN / max(seconds, 1e-9))))


def _turn(timing: Timing) -> None:
    contestant, calls = timing.contestant, timing.calls
    if contestant.prepare:
        contestant.prepare()
    time.sleep(REST)
    # The others' turns left other data in the caches, and sleeping threads; a tenth of a turn does not undo that.
    _timed(contestant, max(1, calls // 2))
    timing.seconds.append(_timed(contestant, calls))
    if contestant.device_ns:
        timing.device_seconds.append(contestant.device_ns() * 1e-9)


def _timed(contestant: Contestant, calls: int) -> float:
    """Seconds per call."""
    call, before, clock = contestant.call, contestant.before_call, time.perf_counter
    if before is None:
        begin = clock()
        for _ in range(calls):
            call()
        return (clock() - begin) / calls
    total = 0.0
    for _ in range(calls):
        before()
        begin = clock()
        call()
        total += clock() - begin
    return total / calls
