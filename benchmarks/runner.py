"""From a choice of kernels, sizes, devices and rivals to results: build, check, then time."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from grilly_optim import DeviceInfo, devices
from grilly_optim._devices import select

from . import ours, rivals
from .errors import UsageError
from .harness import Contestant, race
from .kernels import KERNELS
from .machine import available_memory, describe
from .problem import Problem, Team, many, single, verify
from .results import Case, fill
from .stream import STREAM

DEFAULT_SIZES = ("1e3", "1e4", "1e5", "1e6", "1e7", "5e7", "many")
DEFAULT_BUDGET = 20.0


@dataclass(frozen=True)
class Choice:
    """What to measure.

    Attributes:
        kernels: Names from `KERNELS`; empty means all.
        sizes: Numbers of elements as text ("1e5"), and "many" for the thousand small tensors.
        device: One device, as everywhere; None means every usable one.
        against: Rivals; None means all that are installed.
        budget: Seconds of timing per case.
    """

    kernels: Sequence[str] = ()
    sizes: Sequence[str] = DEFAULT_SIZES
    device: str | None = None
    against: Sequence[str] | None = None
    budget: float = DEFAULT_BUDGET


@dataclass
class Results:
    """Everything that was measured."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    cases: list[Case]


def run(choice: Choice, progress: Callable[[str], object] = lambda _: None) -> Results:
    """Measure.

    Args:
        choice: What.
        progress: Told about each case before it starts.

    Raises:
        UsageError: An unknown kernel, size or rival.
        MissingRival: A rival that was named is not installed.
        WrongResult: A contestant does not compute what it should.
        DeviceUnavailable: The device cannot be used.
    """
    for kernel in choice.kernels:
        if kernel not in KERNELS:
            raise UsageError(f"there is no kernel {kernel!r}; known are {', '.join(KERNELS)}")
    for size in choice.sizes:
        _elements(size)
    against = rivals.choose(choice.against)
    infos = [d for d in devices() if d.usable] if choice.device is None else [select(choice.device).info]
    machine = describe(against)
    cases = [
        case
        for kernel in choice.kernels or KERNELS
        for size in choice.sizes
        if (case := _case(kernel, size, infos, against, choice.budget, progress))
    ]
    settings = {
        "devices": [i.device for i in infos],
        "against": against,
        "sizes": list(choice.sizes),
        "budget_s": choice.budget,
    }
    return Results(machine, settings, cases)


def _elements(size: str) -> int | None:
    """The number of elements of a size; None for the many small tensors."""
    if size == "many":
        return None
    try:
        number = float(size)
    except ValueError:
        number = math.nan
    if not 1 <= number <= 1e12 or number != int(number):
        raise UsageError(f"--sizes {size}: expected whole numbers like 1e5, or 'many' for 1,000 small tensors")
    return int(number)


def _case(
    kernel: str,
    size: str,
    infos: Sequence[DeviceInfo],
    against: Sequence[str],
    budget: float,
    progress: Callable[[str], object],
) -> Case | None:
    elements = _elements(size)
    # What a team adds: float32 arrays for its state, and a temporary; the others are shared.
    arrays = len(KERNELS[kernel].subject.rule.owned_fields) + 1
    need = arrays * 4 * (elements or 0) * (3 * len(infos) + 2 * len(against))
    free = available_memory()
    if free is not None and need > free:
        progress(f"{kernel}, {size}: left out, it needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")
        return None
    problem = many() if elements is None else single(elements)
    progress(f"{kernel}, {problem.name}")
    case = measure(kernel, problem, infos, against, budget)
    gc.collect()
    return case


def measure(
    kernel: str,
    problem: Problem,
    infos: Sequence[DeviceInfo],
    against: Sequence[str],
    budget: float,
    takes_part: Callable[[Contestant], bool] = lambda _: True,
) -> Case:
    """Check everybody's results on one problem, then time them.

    Args:
        kernel: Its name.
        problem: The arrays.
        infos: Our devices.
        against: The rivals.
        budget: Seconds of timing.
        takes_part: Whose time is wanted.

    Raises:
        WrongResult: A contestant does not compute what it should.
    """
    subject = KERNELS[kernel].subject
    per_element = ours.bytes_per_element(subject.rule)
    case = Case(kernel, problem.name, problem.elements, len(problem.start), per_element)
    teams: list[Team] = []
    for info in infos:
        made, missing = ours.teams(subject, problem, info)
        teams += made
        case.left_out += missing
    for rival in against:
        if rival in KERNELS[kernel].rivals:
            teams += KERNELS[kernel].rivals[rival](problem, subject.expected)
    # Checks before clocks: a contestant that computes something else ends the benchmark here.
    for team in teams:
        if any(takes_part(c) for c in team.contestants):
            verify(team, problem)
    contestants = [c for team in teams for c in team.contestants if takes_part(c)]
    host = next((i.device for i in infos if i.kind == "cpu"), "")
    fill(case, race(contestants, budget), ours.bytes_per_element(STREAM), host)
    return case
