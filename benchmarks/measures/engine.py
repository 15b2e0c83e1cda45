"""What the Vulkan engine does for a step, by its own counters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from grilly_optim import DeviceInfo, counters, empty

from ..kernels import KERNELS
from ..ours import environment
from ..problem import many
from .table import Measure, not_measured

build = KERNELS["adamw"].subject.build

SMALL_ARRAYS, SMALL_ARRAYS_MS, SMALL_ARRAYS_ALLOCATIONS = 5_000, 50, 50
_STEPS = 5


def engine(software: DeviceInfo | None) -> Iterator[Measure]:
    """All measures of this module."""
    if software is None:
        yield not_measured("submits, dispatches, bytes and allocations on lavapipe", "", "no lavapipe here")
        return
    device = software.device
    yield _small_arrays(device)
    yield _submits(device)
    yield _bytes("arrays from empty", device, staged=False)
    yield _bytes("staging forced", device, staged=True)


def _small_arrays(device: str) -> Measure:
    empty(1, device=device)
    before, begin = counters(device)["allocations"], time.perf_counter()
    arrays = [empty(100, device=device) for _ in range(SMALL_ARRAYS)]
    ms = (time.perf_counter() - begin) * 1e3
    allocations = counters(device)["allocations"] - before
    return Measure(
        f"{len(arrays):,} small arrays from empty on lavapipe",
        f"under {SMALL_ARRAYS_MS} ms, under {SMALL_ARRAYS_ALLOCATIONS} allocations",
        f"{ms:.1f} ms, {allocations} allocations",
        ms < SMALL_ARRAYS_MS and allocations < SMALL_ARRAYS_ALLOCATIONS,
        {"ms": ms, "allocations": allocations},
    )


def _submits(device: str) -> Measure:
    problem = many()
    parameters = [empty(a.shape, device=device) for a in problem.start]
    for parameter, start in zip(parameters, problem.start, strict=True):
        parameter[...] = start
    optimizer = build(parameters, device)
    used = _per_step(device, lambda: optimizer.step(gradients=problem.gradients))
    return Measure(
        "submits and dispatches per step, 1,000 tensors on lavapipe",
        "1 and 1",
        f"{used['submits']:g} and {used['dispatches']:g}",
        used["submits"] == used["dispatches"] == 1,
        used,
    )


def _bytes(label: str, device: str, *, staged: bool) -> Measure:
    n = 1_000_000
    with environment(GRILLY_FORCE_STAGING="1" if staged else None):
        parameter, gradient = empty(n, device=device), empty(n, device=device)
        parameter[...], gradient[...] = 1, 0.5
        if staged:
            parameter, gradient = np.array(parameter), np.array(gradient)
        optimizer = build([parameter], device)
        # The first step brings the parameters to the device; later ones only what changed.
        optimizer.step(gradients=[gradient])
        used = _per_step(device, lambda: optimizer.step(gradients=[gradient]))
    up, down, aim = used["bytes_up"] / n, used["bytes_down"] / n, 4 if staged else 0
    return Measure(
        f"bytes copied per element and step on lavapipe, {label}",
        f"{aim} up, {aim} down",
        f"{up:g} up, {down:g} down",
        up == aim and down == aim,
        {"up": up, "down": down},
    )


def _per_step(device: str, step: Callable[[], object]) -> dict[str, float]:
    before = counters(device)
    for _ in range(_STEPS):
        step()
    return {name: (value - before[name]) / _STEPS for name, value in counters(device).items()}
