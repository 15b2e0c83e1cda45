"""What the numbers are worth: differing bits between devices, and the distance to float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim import DeviceInfo
from grilly_optim.optim import Optimizer

from ..adamw_rivals import OPTIONS
from ..expressions import Memory, adamw
from ..kernels import KERNELS
from ..machine import instruction_sets
from ..ours import Subject, environment
from ..problem import ATOL, RTOL
from .table import Measure

ELEMENTS, STEPS = 1_000_000, 100

Array = NDArray[Any]


def accuracy(infos: list[DeviceInfo]) -> Iterator[Measure]:
    """100 steps with the same gradients on every device and every instruction set.

    Args:
        infos: The usable devices.
    """
    rng = np.random.default_rng(0)
    start = rng.standard_normal(ELEMENTS, dtype=np.float32)
    optimizers = everywhere(KERNELS["adamw"].subject, infos, start)
    p = start.astype(np.float64)
    memory = Memory(p)
    for t in range(1, STEPS + 1):
        gradient = rng.standard_normal(ELEMENTS, dtype=np.float32)
        for optimizer in optimizers.values():
            optimizer.step(gradients=[gradient])
        adamw(p, gradient.astype(np.float64), memory, t, **OPTIONS)
    yield _agreement(optimizers, p)
    yield _bits(optimizers)


def everywhere(subject: Subject, infos: list[DeviceInfo], start: Array) -> dict[str, Optimizer]:
    """An optimizer over a copy of the start on every device, with every instruction set, and with staging."""
    build = subject.build
    made = {}
    for info in infos:
        if info.kind == "cpu":
            for isa in instruction_sets():
                with environment(GRILLY_ISA=isa):
                    made[f"cpu {isa}"] = build([start.copy()], info.device)
            continue
        made[info.device] = build([start.copy()], info.device)
        if info.kind == "vulkan":
            with environment(GRILLY_FORCE_STAGING="1"):
                made[f"{info.device} staged"] = build([start.copy()], info.device)
    return made


def _agreement(optimizers: dict[str, Optimizer], exact: Array) -> Measure:
    bound = ATOL + RTOL * np.abs(exact)
    worst = {name: float((np.abs(_arrays(o)[0] - exact) / bound).max()) for name, o in optimizers.items()}
    return Measure(
        f"agreement with float64 AdamW, {STEPS} steps of {ELEMENTS:,}: {', '.join(worst)}",
        f"rtol {RTOL:g}, atol {ATOL:g}",
        f"at most {max(worst.values()):.2f} of that",
        max(worst.values()) <= 1,
        worst,
    )


def rounded_alike(optimizers: dict[str, Optimizer]) -> dict[str, Optimizer]:
    """Those that must agree to the last bit.

    Other GPUs than llvmpipe may divide and take roots less exactly: their bound is in ulp.
    """
    return {name: o for name, o in optimizers.items() if not name.startswith("vulkan") or "llvmpipe" in repr(o)}


def _bits(optimizers: dict[str, Optimizer]) -> Measure:
    exact = rounded_alike(optimizers)
    oracle = _arrays(exact["numpy"])
    different = {
        name: float(sum(differing_bits(a, b) for a, b in zip(oracle, _arrays(o), strict=True)))
        for name, o in exact.items()
    }
    return Measure(
        f"differing bits to NumPy in p, m and v: {', '.join(name for name in different if name != 'numpy')}",
        "0",
        f"{sum(different.values()):g}",
        not any(different.values()),
        different,
    )


def differing_bits(a: Array, b: Array) -> int:
    """How many bits of two float32 arrays differ."""
    return int(np.bitwise_count(a.view(np.uint32) ^ b.view(np.uint32)).sum())


def _arrays(optimizer: Optimizer) -> list[Array]:
    state = optimizer.state_dict()["state"][0]
    return [optimizer.param_groups[0]["params"][0], state["exp_avg"], state["exp_avg_sq"]]
