"""The rivals: which there are, whether they are installed, what gives each its best; NumPy and torch themselves."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from .errors import MissingRival, UsageError
from .expressions import Steps
from .harness import Contestant
from .problem import OPENING_STEPS, Array, Expected, Problem, Team

# Everyone who can be named with --against, in the order of the tables.
NAMES = ("numpy", "torch", "numba", "thinc")


def load(name: str) -> Any:
    """Import a library where it is used: none of them is needed otherwise.

    Raises:
        MissingRival: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingRival(f"{name} is not installed here ({error}): pip install {name}, or leave it out") from None


def choose(names: Sequence[str] | None) -> list[str]:
    """The rivals asked for, or with None all that are installed.

    Raises:
        UsageError: There is no such rival.
        MissingRival: One that was named is not installed.
    """
    if names is None:
        return [name for name in NAMES if _installed(name)]
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--against {name}: there is no such rival; known are {', '.join(NAMES)}")
        load(name)
    return list(names)


def _installed(name: str) -> bool:
    try:
        load(name)
    except MissingRival:
        return False
    return True


def thread_counts() -> list[int]:
    """Threads to try: one, and every processor that this process may use. Who is fastest depends on the size."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return sorted({1, usable})


def threads_label(threads: int) -> str:
    """How tables call a number of threads."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def numpy_teams(make: Callable[[Sequence[Array]], Steps], problem: Problem, expected: Expected) -> list[Team]:
    """Whole-array expressions, as one writes an optimizer in NumPy."""
    step = partial(make(problem.parameters).step, problem.gradients)
    rival = Contestant("numpy", "expressions", "rival", step)
    return [Team([rival], problem.parameters, [step] * OPENING_STEPS, expected)]


def torch_teams(
    name: str, forms: Sequence[str], options: Mapping[str, Any], problem: Problem, expected: Expected
) -> list[Team]:
    """An optimizer of torch.optim in each of its forms: step() calls on preset .grad."""
    torch = load("torch")
    return [_torch_team(torch, name, form, options, problem, expected) for form in forms]


def _torch_team(
    torch: Any, name: str, form: str, options: Mapping[str, Any], problem: Problem, expected: Expected
) -> Team:
    tensors = [torch.from_numpy(p).requires_grad_() for p in problem.parameters]
    for tensor, gradient in zip(tensors, problem.gradients, strict=True):
        tensor.grad = torch.from_numpy(gradient)
    optimizer = getattr(torch.optim, name)(tensors, **options, **{form: True})
    contestants = [
        Contestant(
            f"torch {form}",
            threads_label(threads),
            "rival",
            optimizer.step,
            prepare=partial(torch.set_num_threads, threads),
        )
        for threads in thread_counts()
    ]
    return Team(contestants, problem.parameters, [optimizer.step] * OPENING_STEPS, expected)
