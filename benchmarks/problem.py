"""The arrays that all contestants of one case work on, and the check of what they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim import devices, empty

from .errors import WrongResult
from .harness import Contestant

Array = NDArray[Any]
# (parameters, gradients, steps) -> the parameters after that many steps with these gradients: computed in float64, kept
# in float32 to save memory.
Expected = Callable[[Sequence[Array], Sequence[Array], int], list[Array]]

RTOL, ATOL = 3e-5, 1e-6
OPENING_STEPS = 3
_BLOCK = 1 << 20
_SEED = 20_240_229


@dataclass
class Problem:
    """Parameters and gradients of one case.

    Contestants on the host share the parameters and the gradients, each with a state of its own: all work on the same
    memory, and the largest case fits. The numbers wander with every call, but only the check looks at them, and it puts
    the first ones back.
    """

    name: str
    start: list[Array]
    gradients: list[Array]
    parameters: list[Array] = field(init=False)
    _answers: dict[Expected, list[Array]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.parameters = [host_copy(a) for a in self.start]

    @property
    def elements(self) -> int:
        """Elements of all tensors together."""
        return sum(a.size for a in self.start)

    def answers(self, expected: Expected) -> list[Array]:
        """What `OPENING_STEPS` steps make of the start."""
        if expected not in self._answers:
            self._answers[expected] = expected(self.start, self.gradients, OPENING_STEPS)
        return self._answers[expected]


@dataclass
class Team:
    """Contestants that share one state, made so that nothing has been called yet.

    Attributes:
        contestants: What is timed.
        parameters: The arrays they update.
        opening: One call per step of the check, from the fresh state; every contestant has a part in it.
        expected: What the steps should make of the parameters.
    """

    contestants: list[Contestant]
    parameters: Sequence[Array]
    opening: Sequence[Callable[[], object]]
    expected: Expected


def verify(team: Team, problem: Problem) -> None:
    """Run the opening from the problem's start and compare.

    Raises:
        WrongResult: A parameter is not what float64 says.
    """
    for parameter, start in zip(team.parameters, problem.start, strict=True):
        np.copyto(parameter, start)
    for step in team.opening:
        step()
    for k, (got, answer) in enumerate(zip(team.parameters, problem.answers(team.expected), strict=True)):
        for block in blocks(got.size):
            wrong = ~(np.abs(got[block] - answer[block]) <= ATOL + RTOL * np.abs(answer[block]))
            if wrong.any():
                i = block.start + int(np.argmax(wrong))
                who = " / ".join(c.who for c in team.contestants)
                raise WrongResult(
                    f"{problem.name}: {who} gives a wrong result, so it is not timed: element {i} of tensor {k} is "
                    f"{got[i]!s} after {len(team.opening)} steps, expected {answer[i]!s} (rtol {RTOL:g}, atol {ATOL:g})"
                )


def blocks(size: int) -> list[slice]:
    """Where an array of this size is cut, so that temporaries stay small."""
    return [slice(begin, begin + _BLOCK) for begin in range(0, size, _BLOCK)]


def by_element(expected: Callable[[Array, Array, int], Array]) -> Expected:
    """For steps in which no element depends on another: the answer for one array in float64 makes that for all."""

    def of_all(parameters: Sequence[Array], gradients: Sequence[Array], steps: int) -> list[Array]:
        answers = [np.empty_like(p) for p in parameters]
        for answer, p, g in zip(answers, parameters, gradients, strict=True):
            for block in blocks(p.size):
                answer[block] = expected(p[block].astype(np.float64), g[block].astype(np.float64), steps)
        return answers

    return of_all


def host_copy(array: Array) -> Array:
    """A copy in the memory that suits the processor best: aligned, in huge pages where it is large."""
    device = next(d.device for d in devices() if d.kind in ("cpu", "numpy") and d.usable)
    copy = empty(array.shape, array.dtype, device)
    np.copyto(copy, array)
    return copy


def single(elements: int) -> Problem:
    """One tensor."""
    return _normal(f"n = {elements:,}", [elements])


def many(tensors: int = 1_000, smallest: float = 1e3, largest: float = 1e4) -> Problem:
    """Many small tensors, their sizes log-uniform from a fixed seed."""
    rng = np.random.default_rng(_SEED)
    sizes = np.exp(rng.uniform(np.log(smallest), np.log(largest), tensors)).astype(int)
    return _normal(f"{tensors:,} tensors of {smallest:.0e}..{largest:.0e}".replace("e+0", "e"), sizes.tolist())


def _normal(name: str, sizes: Sequence[int]) -> Problem:
    rng = np.random.default_rng(_SEED)
    start = [rng.standard_normal(n, dtype=np.float32) for n in sizes]
    gradients = [host_copy(rng.standard_normal(n, dtype=np.float32)) for n in sizes]
    return Problem(name, start, gradients)
