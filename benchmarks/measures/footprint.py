"""Memory and import time, each in a process of its own.

``python -m grilly_optim.benchmarks.measures.footprint DEVICE ELEMENTS AMSGRAD`` is the child: it prints a JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from grilly_optim import DeviceInfo, empty
from grilly_optim.optim import AdamW

from .table import Measure, not_measured

ELEMENTS, STEPS = 10_000_000, 10_000
SLACK = 4 << 20
# Pages that the allocators of Python and the driver still touch for the first time.
NOISE = 64 << 10
IMPORT_SECONDS = 0.030

_IMPORT = """
import time, numpy
begin = time.perf_counter()
import grilly_optim
seconds = time.perf_counter() - begin
from grilly_optim import _devices
from pathlib import Path
maps = Path("/proc/self/maps")
print(seconds, bool(_devices._opened) or (maps.exists() and "libvulkan" in maps.read_text()))
"""


def memory(infos: list[DeviceInfo]) -> Iterator[Measure]:
    """What the optimizer takes beyond parameters and gradients, on every device that shares the host's memory."""
    for info in infos:
        for amsgrad in (False, True):
            yield from _memory(info, amsgrad)


def _memory(info: DeviceInfo, amsgrad: bool) -> Iterator[Measure]:
    per_element = 12 if amsgrad else 8
    where = f"{info.device}{', amsgrad' if amsgrad else ''}"
    what, target = f"memory beyond parameters and gradients, {where}", f"{per_element} bytes per element + 4 MB"
    if not Path("/proc/self/clear_refs").exists():
        yield not_measured(what, target, "no /proc here")
        return
    child = _child("-m", __name__, info.device, str(ELEMENTS), str(int(amsgrad)))
    found = json.loads(child)
    yield Measure(
        what,
        target,
        f"{per_element} bytes per element {(found['peak'] - per_element * ELEMENTS) / 1e6:+.1f} MB at its peak",
        found["peak"] <= per_element * ELEMENTS + SLACK,
        found,
    )
    if not amsgrad:
        yield Measure(
            f"growth over {STEPS:,} steps, {where}, least of 3 times",
            "none",
            f"{found['growth'] / 1e3:+.0f} kB",
            found["growth"] <= NOISE,
            {"bytes": found["growth"]},
        )


def import_time(repeats: int = 15) -> Measure:
    """From a process that has NumPy to one that has grilly_optim too."""
    outputs = [_child("-c", _IMPORT).split() for _ in range(repeats)]
    seconds = [float(s) for s, _ in outputs]
    opened = any(flag == "True" for _, flag in outputs)
    median = statistics.median(seconds)
    return Measure(
        "import time beyond NumPy",
        f"{IMPORT_SECONDS * 1e3:.0f} ms, no device opened",
        f"{median * 1e3:.1f} ms (least {min(seconds) * 1e3:.1f}), {'a' if opened else 'no'} device opened",
        median <= IMPORT_SECONDS and not opened,
        {"median_ms": median * 1e3, "least_ms": min(seconds) * 1e3},
    )


def _child(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name + ":"))
    return int(line.split()[1]) << 10


def _measure_here(device: str, elements: int, amsgrad: bool) -> dict[str, int]:
    # A small optimizer first: opening the device, its driver's compiler and the threads are not the optimizer's memory.
    for _ in range(2):
        small = empty(100_000, device=device)
        small[...] = 1
        AdamW([small], amsgrad=amsgrad, device=device).step(gradients=[small])
    parameter, gradient = empty(elements, device=device), empty(elements, device=device)
    parameter[...], gradient[...] = 1, 0.5
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    optimizer = AdamW([parameter], amsgrad=amsgrad, device=device)
    for _ in range(3):
        optimizer.step(gradients=[gradient])
    peak, after = _status("VmHWM") - before, _status("VmRSS") - before

    values, slopes = empty(1_000, device=device), empty(1_000, device=device)
    values[...], slopes[...] = 1, 0.5
    little = AdamW([values], amsgrad=amsgrad, device=device)
    for _ in range(1_000):
        little.step(gradients=[slopes])
    # A leak grows in every window; an allocator that takes another arena does so in one.
    windows = []
    for _ in range(3):
        begin = _status("VmRSS")
        for _ in range(STEPS):
            little.step(gradients=[slopes])
        windows.append(_status("VmRSS") - begin)
    return {"peak": peak, "after": after, "growth": min(windows)}


if __name__ == "__main__":
    # Not the environment's business here: a device that is named is the one that is measured.
    os.environ.pop("GRILLY_DEVICE", None)
    print(json.dumps(_measure_here(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")))
