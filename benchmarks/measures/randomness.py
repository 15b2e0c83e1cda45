"""Whether 100 million normal numbers are normal, and the same on every device."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from grilly_optim import DeviceInfo, random

from ..machine import instruction_sets
from ..ours import environment
from .accuracy import differing_bits
from .table import Measure

COUNT, PART = 100_000_000, 4_000_000
SEED = 2026  # set down before the first look
SAME = 10_000_000  # numbers compared between devices

Floats = NDArray[np.float32]


def normal_numbers(infos: list[DeviceInfo]) -> Iterator[Measure]:
    """Moments, tails, Kolmogorov and Smirnov's distance; then every device against NumPy."""
    z = np.empty(COUNT, np.float32)
    for step in range(COUNT // PART):
        z[step * PART :][:PART] = random.normal(PART, SEED, step=step, device="cpu")
    yield _moments(z)
    yield _tails(z)
    yield _distance(z)
    yield _bits(infos)


def _moments(z: Floats) -> Measure:
    # Of the k-th power: its expectation, and the variance of one number's.
    expected = {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}
    sums = dict.fromkeys(expected, 0.0)
    for row in z.reshape(-1, PART):
        part = row.astype(np.float64)
        power = np.ones_like(part)
        for k in sums:
            power = power * part
            sums[k] += float(power.sum())
    errors = {f"moment {k}": (sums[k] / COUNT - mean) / math.sqrt(var / COUNT) for k, (mean, var) in expected.items()}
    return _within(f"moments 1 to 4 of {COUNT:.0e} normal numbers", errors)


def _tails(z: Floats) -> Measure:
    errors = {}
    for beyond in (3, 4, 5):
        expected = COUNT * math.erfc(beyond / math.sqrt(2))
        errors[f"beyond {beyond}"] = (int(np.count_nonzero(np.abs(z) > beyond)) - expected) / math.sqrt(expected)
    return _within(f"tails of {COUNT:.0e} normal numbers beyond 3, 4, 5", errors)


def _within(what: str, errors: dict[str, float]) -> Measure:
    worst = max(map(abs, errors.values()))
    return Measure(what, "within 4 standard errors", f"at most {worst:.2f}", worst <= 4, errors)


def _distance(z: Floats) -> Measure:
    z.sort()
    largest = 0.0
    erf = np.vectorize(math.erf, otypes=[float])
    # The distribution function is steep nowhere: between points this close it is a straight line to 1e-10.
    grid = np.linspace(-6, 6, 200_001)
    levels = 0.5 * (1 + erf(grid / math.sqrt(2)))
    for begin in range(0, COUNT, PART):
        level = np.interp(z[begin : begin + PART].astype(np.float64), grid, levels)
        rank = np.arange(begin, begin + PART)
        largest = max(largest, float((level - rank / COUNT).max()), float(((rank + 1) / COUNT - level).max()))
    # Kolmogorov's distribution, for so many numbers.
    x = largest * math.sqrt(COUNT)
    p = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))
    return Measure(
        f"Kolmogorov and Smirnov's test of {COUNT:.0e} normal numbers",
        "p > 0.001",
        f"p = {p:.3f}",
        p > 1e-3,
        {"distance": largest, "p": p},
    )


def _bits(infos: list[DeviceInfo]) -> Measure:
    expected = random.normal(SAME, SEED, stream=1, device="numpy")
    found = {}
    for info in infos:
        for isa in instruction_sets() if info.kind == "cpu" else [""]:
            with environment(**({"GRILLY_ISA": isa} if isa else {})):
                made = random.normal(SAME, SEED, stream=1, device=info.device)
            found[f"{info.device} {isa}".strip()] = float(differing_bits(made, expected))
    return Measure(
        f"normal numbers whose bits differ from NumPy's, of {SAME:.0e}: {', '.join(found)}",
        "0",
        f"{sum(found.values()):g}",
        not any(found.values()),
        found,
    )
