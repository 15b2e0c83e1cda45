"""Our side: a kernel's optimizer on each device, its plan alone, and the stream kernel beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from grilly_optim import DeviceInfo, OutOfDeviceMemory, empty
from grilly_optim._devices import open_device
from grilly_optim.kernels.rule import Rule, Twin
from grilly_optim.optim.optimizer import Optimizer

from . import stream
from .harness import Contestant
from .problem import OPENING_STEPS, Array, Expected, Problem, Team

FLOAT32 = 4


@dataclass(frozen=True)
class Subject:
    """What a kernel's benchmark must know.

    Attributes:
        build: The optimizer over these parameters, on this device.
        expected: The optimizer's steps in float64.
    """

    build: Callable[[Sequence[Array], str], Optimizer]
    expected: Expected

    @property
    def rule(self) -> Rule:
        """The rule that its float32 parameters go through."""
        return self.build([np.zeros(1, np.float32)], "numpy")._plans.launches[0].rule


@dataclass(frozen=True)
class Arrays:
    """Where parameters and gradients lie: one row of the table per way."""

    label: str
    own: bool = False
    staged: bool = False


def bytes_per_element(rule: Rule) -> int:
    """Bytes that one float32 element's update must move: what each pass reads, and what it writes."""
    if rule.terms is None:
        return FLOAT32 * (2 * len(rule.state_fields) + len(rule.inputs))
    second = tuple(f for f in rule.state_fields if f not in rule.set_first)
    reads = [_read_by(rule.terms, rule), _read_by(rule.twin, rule) & set(second)]
    return FLOAT32 * (sum(map(len, reads)) + 2 * len(rule.inputs) + len(rule.state_fields))


def _read_by(twin: Twin, rule: Rule) -> set[str]:
    """The state fields that a twin asks for, where the parameter has taken steps before."""
    read = set()

    class Watched:
        def __getattr__(self, name: str) -> Array:
            read.add(name)
            return np.ones(1, np.float32)

    twin(Watched(), *[np.ones(1, np.float32)] * len(rule.inputs), rule.scalars(*[2.0] * len(rule.scalar_fields)))
    return read


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Set environment variables, or remove them with None, for a while."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        _set(variables)
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def ways(info: DeviceInfo) -> list[Arrays]:
    """The ways of arrays that make a difference on a device."""
    if info.kind != "vulkan":
        return [Arrays("")]
    if not info.shares_memory:
        return [Arrays("NumPy arrays")]
    return [Arrays("arrays from empty", own=True), Arrays("NumPy arrays"), Arrays("staging forced", staged=True)]


def teams(subject: Subject, problem: Problem, info: DeviceInfo) -> tuple[list[Team], list[str]]:
    """Everything that is timed on one device, and what had to be left out, with the reason."""
    made: list[Team] = []
    left_out: list[str] = []
    for way in ways(info):
        try:
            parameters, gradients = arrays(problem, info, way)
            made.append(team(subject, problem, info, way, parameters, gradients))
            # NumPy is compared with the compiled stream kernel: its own would measure temporaries, not memory.
            if info.kind != "numpy" and not any(c.kind == "reference" for t in made for c in t.contestants):
                made.append(reference(info, parameters, gradients))
        except OutOfDeviceMemory as error:
            left_out.append(f"{_family(info, way)}: {error}")
    return made, left_out


def arrays(problem: Problem, info: DeviceInfo, way: Arrays) -> tuple[list[Array], list[Array]]:
    """The parameters and gradients of a team."""
    if not way.own:
        return problem.parameters, problem.gradients
    parameters = [empty(a.shape, a.dtype, info.device) for a in problem.start]
    gradients = [empty(a.shape, a.dtype, info.device) for a in problem.gradients]
    for ours, theirs in zip(gradients, problem.gradients, strict=True):
        ours[...] = theirs
    return parameters, gradients


def team(
    subject: Subject,
    problem: Problem,
    info: DeviceInfo,
    way: Arrays,
    parameters: list[Array],
    gradients: list[Array],
) -> Team:
    """The optimizer's step, and its plan alone where a plan is compiled and nothing is decided on the way."""
    with environment(GRILLY_FORCE_STAGING="1" if way.staged else os.environ.get("GRILLY_FORCE_STAGING")):
        optimizer = subject.build(parameters, info.device)
    launch = optimizer._plans.launches[0]
    step = Contestant(
        _family(info, way), "step()", "step", partial(optimizer.step, gradients=gradients), device=info.device
    )
    if info.kind == "vulkan":
        step.device_ns = optimizer._backend.last_run_ns
    if info.kind == "numpy" or launch.rule.control is not None:
        return Team([step], parameters, [step.call] * OPENING_STEPS, subject.expected)
    rows = [[_scalars(optimizer, OPENING_STEPS)]]
    call = _plan_call(optimizer._backend, launch.plan, gradients, rows)
    alone = replace(step, variant="kernel alone", kind="kernel", call=call)
    # The plan alone runs last, with the scalars of the last step of the opening.
    opening = [*[step.call] * (OPENING_STEPS - 1), alone.call]
    return Team([step, alone], parameters, opening, subject.expected)


def _scalars(optimizer: Optimizer, steps: int) -> tuple[float, ...]:
    """The scalars of a step of the first group, counted from a fresh state."""
    options, past = optimizer._options[0], optimizer.START
    for _ in range(steps):
        past = optimizer._advance(options, past)
    return optimizer._scalars(options, past)


def reference(info: DeviceInfo, parameters: list[Array], gradients: list[Array]) -> Team:
    """The stream kernel on the same arrays."""
    backend = open_device(info.device)[1]
    plan = backend.plan(stream.STREAM, parameters, range(len(parameters)))
    call = _plan_call(backend, plan, gradients, [[stream.StreamScalars(stream.KEEP)]])
    contestant = Contestant(info.device, "stream kernel", "reference", call, device=info.device)
    if info.kind == "vulkan":
        contestant.device_ns = backend.last_run_ns
    return Team([contestant], parameters, [call] * OPENING_STEPS, stream.expected)


def _plan_call(backend: Any, plan: Any, gradients: list[Array], rows: list[list[Any]]) -> Callable[[], object]:
    return partial(backend.run, [plan], (gradients,), rows, [None])


def _family(info: DeviceInfo, way: Arrays) -> str:
    return f"{info.device} {way.label}".strip()
