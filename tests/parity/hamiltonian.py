"""hypnettorch's Hamiltonian samplers, fed with draws that are given, and ours beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypnettorch.utils import hmc as theirs

from tests.parity.hamiltonian_potentials import POTENTIALS, Potential, inverse_mass, momenta

Array = Any
DTYPES = {"float64": torch.float64, "float32": torch.float32}


class Given:
    """The module torch, as the original sees it while its random numbers are given.

    Attributes:
        uniforms: How many were taken.
        exponents: That of every exponential that it took.
    """

    def __init__(self, uniform: Array, normal: Array | None, dtype: Any) -> None:
        self._uniform, self._dtype = np.asarray(uniform, np.float64), dtype
        self._normal = iter(() if normal is None else normal)
        self.uniforms = 0
        self.exponents: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def rand(self, count: int) -> Any:
        assert count == 1
        value = self._uniform[self.uniforms]
        self.uniforms += 1
        return torch.tensor([value], dtype=self._dtype)

    def normal(self, mean: Any, std: float) -> Any:
        assert not mean.any()
        assert std == 1
        return self.sample()

    def sample(self) -> Any:
        """Of the momenta."""
        return torch.tensor(next(self._normal), dtype=self._dtype)

    def exp(self, x: Any) -> Any:
        self.exponents.append(float(x.detach()))
        return torch.exp(x)


@contextmanager
def given(*samplers: Any, uniform: Array, normal: Array | None = None, dtype: Any = torch.float64) -> Iterator[Given]:
    """Give the original's samplers their random numbers, for a while.

    Args:
        samplers: They share them.
        uniform: Flat.
        normal: (n, D): momenta, or for random walks standard normal numbers; None: torch's.
        dtype: Of both.
    """
    source = Given(uniform, normal, dtype)
    own, threads = [getattr(s, "_momentum_dist", None) for s in samplers], torch.get_num_threads()
    theirs.torch = source
    torch.set_num_threads(1)  # threads that wait for each other cost more than such small sums
    for sampler in samplers:
        if normal is not None:
            sampler._momentum_dist = SimpleNamespace(sample=source.sample)
    try:
        yield source
    finally:
        theirs.torch = torch
        torch.set_num_threads(threads)
        for sampler, distribution in zip(samplers, own, strict=True):
            sampler._momentum_dist = distribution


class CountedNUTS(theirs.NUTS):
    """Counts the leaves of its trees."""

    leaves = 0

    def _build_tree(self, q: Any, p: Any, u: Any, v: Any, j: int) -> Any:
        self.leaves += j == 0
        return super()._build_tree(q, p, u, v, j)


class Writer:
    """Keeps what samplers write."""

    def __init__(self) -> None:
        self.written: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: Any, global_step: int, **_: Any) -> None:
        self.written.append((tag, float(value), global_step))

    def values(self, tag: str) -> list[float]:
        """All values of a tag."""
        return [value for name, value, _ in self.written if name == tag]


@dataclass
class Run:
    """What the original did with its draws.

    Attributes:
        positions: (n + 1, D): where it began, and after each transition.
        normal: (n, D), the draws.
        uniform: The draws, flat.
        offsets: n + 1 numbers: how many of the uniforms were taken before each transition, and in all.
        leaves: Of each transition, for NUTS.
        writer: What it wrote.
        exponents: Of the exponentials that it took, by transition.
        acceptance: Its acceptance probability at the end.
    """

    positions: Array
    normal: Array
    uniform: Array
    offsets: list[int] = field(default_factory=lambda: [0])
    leaves: list[int] = field(default_factory=list)
    writer: Writer = field(default_factory=Writer)
    exponents: list[list[float]] = field(default_factory=list)
    acceptance: float = 1.0

    @property
    def moved(self) -> list[bool]:
        """Which transitions went anywhere."""
        return moves(self.positions)

    def uniforms(self, first: int, last: int) -> Array:
        """Those of some transitions."""
        return self.uniform[self.offsets[first] : self.offsets[last]]


def moves(positions: Any) -> list[bool]:
    """Which of the positions differ from the one before."""
    return [not np.array_equal(a, b) for a, b in itertools.pairwise(positions)]


def tensor(array: Any, dtype: Any = torch.float64) -> Any:
    """For the original, which takes numbers as they are."""
    return array if isinstance(array, float) else torch.tensor(array, dtype=dtype)


def recorded(sampler: Any, transitions: int, normal: Array, uniform: Array) -> Run:
    """Let a sampler of the original's make transitions, one by one, with given draws."""
    positions = [sampler.current_position.detach().numpy().copy()]
    run = Run(positions, normal, uniform, writer=sampler._writer or Writer())
    with given(sampler, uniform=uniform, normal=normal, dtype=sampler.current_position.dtype) as source:
        for _ in range(transitions):
            before = getattr(sampler, "leaves", 0), len(source.exponents)
            sampler.simulate_chain(1)
            run.offsets.append(source.uniforms)
            run.leaves.append(getattr(sampler, "leaves", 0) - before[0])
            run.exponents.append(source.exponents[before[1] :])
            positions.append(sampler.current_position.detach().numpy().copy())
    run.positions = np.array(positions)
    run.acceptance = sampler.acceptance_probability
    return run


class Case:
    """A potential, an inverse mass and a precision: what both samplers are made of, and draws for them.

    Args:
        name: Of the potential.
        mass: The kind of the inverse mass.
        dtype: Of positions.
        seed: Of the start and the draws.
        potential: What ours takes for the potential; None: its writing in NumPy.
    """

    def __init__(self, name: str, mass: str, dtype: str, seed: int = 0, potential: Any = None) -> None:
        self.potential: Potential = POTENTIALS[name]
        self.ours = potential or self.potential.value_and_grad
        self.inv_mass = inverse_mass(mass, self.potential.dim)
        self.dtype = dtype
        self.start = self.potential.start(seed).astype(dtype)
        self._rng = np.random.default_rng(seed)

    @property
    def torch_dtype(self) -> Any:
        return DTYPES[self.dtype]

    def normal(self, n: int) -> Array:
        return self._rng.standard_normal((n, self.potential.dim)).astype(self.dtype)

    def momentum(self, n: int) -> Array:
        return momenta(self.inv_mass, self._rng.standard_normal((n, self.potential.dim))).astype(self.dtype)

    def uniform(self, n: int) -> Array:
        return self._rng.random(n, np.float32).astype(self.dtype)

    def original(self, make: Any, **options: Any) -> Any:
        """A sampler of the original's at the start, with a writer."""
        if make is not theirs.MCMC:
            options["inv_mass"] = tensor(self.inv_mass, self.torch_dtype)
        return make(tensor(self.start, self.torch_dtype), self.potential.energy, writer=Writer(), **options)

    def hmc(self, transitions: int, *, stepsize: float, num_steps: int) -> Run:
        """A run of the original's HMC."""
        sampler = self.original(theirs.HMC, stepsize=stepsize, num_steps=num_steps)
        return recorded(sampler, transitions, self.momentum(transitions), self.uniform(transitions))

    def nuts(self, transitions: int, *, stepsize: float, delta_max: float = 1000.0) -> Run:
        """A run of the original's NUTS, with as many uniform numbers as it likes."""
        sampler = self.original(CountedNUTS, stepsize=stepsize, delta_max=delta_max)
        return recorded(sampler, transitions, self.momentum(transitions), self.uniform(400 * transitions))

    def mcmc(self, transitions: int, *, proposal_std: float) -> Run:
        """A run of the original's random walk."""
        sampler = self.original(theirs.MCMC, proposal_std=proposal_std)
        return recorded(sampler, transitions, self.normal(transitions), self.uniform(transitions))
