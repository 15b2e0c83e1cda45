"""Potentials, and samplers as one writes them in NumPy, for the tests of chains with a potential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.table import Array, assert_bits

Potential = Callable[[Array], tuple[Any, Array]]


def quartic(q: Array) -> tuple[Any, Array]:
    """Of one position: nothing about it is linear."""
    return 0.5 * float(q @ q) + 0.25 * float((q**4).sum()), q + q**3


def row_wise(q: Array) -> tuple[Array, Array]:
    """The same of many, by expressions that give every row the bits that it has alone."""
    energies = np.array([quartic(row)[0] for row in q])
    return energies, q + q**3


row_wise.vectorized = True  # type: ignore[attr-defined]  # how potentials say it


def normal(q: Array) -> tuple[Any, Array]:
    """A standard normal distribution; the gradient is the argument itself."""
    return 0.5 * float(q @ q), q


class Counting:
    """Another potential, whose evaluations are counted.

    Args:
        potential: The other.
        act: Called with the number of each evaluation, from 0; what it returns comes instead, if it is not None.
    """

    def __init__(self, potential: Any = quartic, act: Callable[[int], Any] = lambda _: None) -> None:
        self.potential, self.act, self.count = potential, act, 0
        self.vectorized = getattr(potential, "vectorized", False)

    def __call__(self, q: Array) -> Any:
        self.count += 1
        instead = self.act(self.count - 1)
        return self.potential(q) if instead is None else instead


MASSES: dict[str, Callable[[int], Any]] = {
    "1": lambda dim: 1.0,
    "number": lambda dim: 0.7,
    "vector": lambda dim: np.linspace(0.5, 2.0, dim),
    "matrix": lambda dim: np.diag(np.linspace(0.5, 2.0, dim)) + 0.1,
}


def as_matrix(mass: Any, dim: int) -> Array:
    """The inverse mass, whatever its form."""
    mass = np.asarray(mass, float)
    return mass if mass.ndim == 2 else np.diag(np.broadcast_to(mass, dim))


def plain_leapfrog(q: Array, p: Array, eps: float, steps: int, w: Array, potential: Potential) -> tuple[Array, Array]:
    """In double, one step after the other."""
    for _ in range(steps):
        p = p - eps / 2 * potential(q)[1]
        q = q + eps * (w @ p)
        p = p - eps / 2 * potential(q)[1]
    return q, p


def plain_hmc(
    q: Array, eps: float, steps: int, w: Array, potential: Potential, momenta: Array, uniforms: Array
) -> tuple[Array, list[bool]]:
    """Positions, with the first one, and decisions."""
    positions, decisions = [q], []
    for p, u in zip(momenta, uniforms, strict=True):
        proposal, turned = plain_leapfrog(q, p, eps, steps, w, potential)
        fall = potential(q)[0] - potential(proposal)[0] + p @ w @ p / 2 - turned @ w @ turned / 2
        decisions.append(bool(u < np.exp(fall)))
        q = proposal if decisions[-1] else q
        positions.append(q)
    return np.array(positions), decisions


class Scalars:
    """A writer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        assert isinstance(value, float)
        self.seen.append((tag, value, global_step))

    def of(self, tag: str) -> list[float]:
        """The values of a tag, whose steps count from 1."""
        found = [(step, value) for name, value, step in self.seen if name == tag]
        assert [step for step, _ in found] == list(range(1, len(found) + 1))
        return [value for _, value in found]


class Lines:
    """A logger."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, message: str) -> None:
        self.lines.append(message)


def failing_at(number: int, answer: Any) -> Counting:
    def act(count: int) -> Any:
        if count != number:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return Counting(quartic, act)


FIELDS = ("position_trajectory", "current_position", "num_states", "acceptance_probability", "sample_stats")


def left_behind(chain: Any) -> dict[str, Any]:
    return {name: getattr(chain, name) for name in FIELDS}


def assert_same(a: Any, b: Any) -> None:
    """Everything that two chains left behind, bit for bit."""
    np.testing.assert_equal(left_behind(a), left_behind(b))


def assert_whole(chain: Any) -> None:
    """The books of a chain that was not cleared agree with one another."""
    trajectory, stats = chain.position_trajectory, chain.sample_stats
    assert len(trajectory) == chain.num_states + 1
    assert {len(x) for x in stats.values()} == {chain.num_states}
    assert_bits(trajectory[-1], chain.current_position)
    if chain.num_states:
        assert chain.acceptance_probability == stats["accepted"].mean()
