"""Times: ratios against rivals, and what a call costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np

from grilly_optim import DeviceInfo, OutOfDeviceMemory
from grilly_optim._devices import select

from ..errors import MissingRival
from ..harness import Contestant
from ..kernels import KERNELS
from ..ours import environment
from ..problem import many, single
from ..results import Case, Row
from ..rivals import load
from ..runner import measure
from .table import Measure, at_least, not_measured

build = KERNELS["adamw"].subject.build

# Elements -> (whole steps, the plan alone, share of the stream kernel); None: no target.
AGAINST_TORCH: dict[float, tuple[float, float | None, float | None]] = {
    1e5: (3.0, 3.8, None),
    1e6: (1.8, None, None),
    1e7: (1.0, None, 0.95),
    5e7: (1.0, None, 0.95),
}
MANY_AGAINST_TORCH = 3.5
SOFTWARE_AGAINST_NUMPY = 1.0
SMALL_STEP_SECONDS = 3e-6
PAUSED_AGAINST_ONE_THREAD = 1.3


def against_torch(budget: float) -> Iterator[Measure]:
    """The compiled CPU against torch's fused AdamW."""
    cpu = select("cpu").info
    try:
        load("torch")
    except MissingRival as error:
        yield not_measured("compiled CPU / torch fused", "", str(error))
        return
    for elements, (whole, alone, share) in AGAINST_TORCH.items():
        name = f"n = {elements:.0e}".replace("e+0", "e")
        case = measure("adamw", single(int(elements)), [cpu], ["torch"], budget, _cpu_or_fused)
        step, kernel = _row(case, "step"), _row(case, "kernel")
        yield at_least(f"compiled CPU / torch fused, {name}, step()", step.ratios["torch"], whole, **_us(case))
        if alone is not None:
            yield at_least(f"compiled CPU / torch fused, {name}, kernel alone", kernel.ratios["torch"], alone)
        if share is not None:
            got = step.share_of_stream or 0.0
            yield Measure(
                f"compiled CPU, {name}, share of the stream kernel",
                f"{share:.0%}",
                f"{got:.0%} (kernel alone {kernel.share_of_stream or 0.0:.0%})",
                got >= share,
                {"share": got},
            )
    case = measure("adamw", many(), [cpu], ["torch"], budget, _cpu_or_fused)
    ratio = _row(case, "step").ratios["torch"]
    yield at_least("compiled CPU / torch fused, 1,000 tensors, step()", ratio, MANY_AGAINST_TORCH, **_us(case))


def _cpu_or_fused(contestant: Contestant) -> bool:
    return contestant.family in ("cpu", "torch fused")


def _row(case: Case, kind: str) -> Row:
    return next(r for r in case.rows if r.kind == kind)


def _us(case: Case) -> dict[str, float]:
    return {f"{r.who} (us)": r.median_s * 1e6 for r in case.rows}


def software_against_numpy(software: DeviceInfo | None, budget: float) -> Iterator[Measure]:
    """The software Vulkan device against NumPy expressions."""
    what = "lavapipe / NumPy expressions, n = 1e7, arrays from empty"
    if software is None:
        yield not_measured(what, f"{SOFTWARE_AGAINST_NUMPY:.1f}x", "no lavapipe here")
        return

    def takes_part(c: Contestant) -> bool:
        return c.family in (f"{software.device} arrays from empty", software.device, "numpy")

    try:
        case = measure("adamw", single(10_000_000), [software], ["numpy"], budget, takes_part)
    except OutOfDeviceMemory as error:
        yield not_measured(what, f"{SOFTWARE_AGAINST_NUMPY:.1f}x", str(error))
        return
    yield at_least(what, _row(case, "step").ratios["numpy"], SOFTWARE_AGAINST_NUMPY, **_us(case))


def small_step() -> Measure:
    """What one step() costs when there is next to nothing to do."""
    parameter, gradient = np.ones(10, np.float32), np.ones(10, np.float32)
    optimizer = build([parameter], "cpu")
    turns = []
    for _ in range(200):
        begin = time.perf_counter()
        for _ in range(500):
            optimizer.step(gradients=[gradient])
        turns.append((time.perf_counter() - begin) / 500)
    median, best = statistics.median(turns), min(turns)
    return Measure(
        "step() of one 10-element parameter, compiled CPU",
        f"{SMALL_STEP_SECONDS * 1e6:.0f} us or less",
        f"{median * 1e6:.2f} us (best turn {best * 1e6:.2f})",
        median <= SMALL_STEP_SECONDS,
        {"median_us": median * 1e6, "best_us": best * 1e6},
    )


def with_pauses() -> Measure:
    """Threads that fell asleep between steps: all of them against one."""
    what, target = (
        "1e5 step() after 1 ms of other work, all threads / 1 thread",
        f"{PAUSED_AGAINST_ONE_THREAD}x or less",
    )
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal(100_000, dtype=np.float32)
    with environment(GRILLY_THREADS="1"):
        alone = build([gradient.copy()], "cpu")
    together = build([gradient.copy()], "cpu")
    if select("cpu").info.limits["threads"] == 1:
        return not_measured(what, target, "one processor, or GRILLY_THREADS=1")
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    for _ in range(500):
        for name, optimizer in (("one", alone), ("all", together)):
            _work(1e-3)
            begin = time.perf_counter()
            optimizer.step(gradients=[gradient])
            seconds[name].append(time.perf_counter() - begin)
    one, every = statistics.median(seconds["one"]), statistics.median(seconds["all"])
    return Measure(
        what,
        target,
        f"{every / one:.2f}x ({every * 1e6:.1f} us / {one * 1e6:.1f} us)",
        every <= PAUSED_AGAINST_ONE_THREAD * one,
        {"one_us": one * 1e6, "all_us": every * 1e6},
    )


def _work(seconds: float) -> None:
    """Keep this thread busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
