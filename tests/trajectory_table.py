"""Built-in potentials, methods and masses, for the tests of chains that move in the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grilly_optim.sampling import potentials
from grilly_optim.sampling._batch import Batch, Given, Hmc, Nuts, Runner
from grilly_optim.sampling._host_hmc import HmcRunner
from grilly_optim.sampling._host_nuts import NutsRunner
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._runners import runner_for
from grilly_optim.sampling.adaptation import DualAveraging
from tests.table import Array, assert_bits

_rng = np.random.default_rng(0)
_features, _effects, _root = _rng.standard_normal((37, 5)), _rng.standard_normal(37), _rng.standard_normal((6, 6))

POTENTIALS: dict[str, potentials.BuiltIn] = {
    "standard_normal": potentials.StandardNormal(7),
    "gaussian": potentials.Gaussian(_rng.standard_normal(5), std=_rng.random(5) + 0.5),
    "gaussian_dense": potentials.Gaussian(_rng.standard_normal(6), cov=_root @ _root.T + np.eye(6)),
    "linear_regression": potentials.LinearRegression(_features, _effects, 0.7, 2.0),
    "logistic_regression": potentials.LogisticRegression(_features, _rng.random(37) < 0.5, 1.5),
    "funnel": potentials.Funnel(4),
    "funnel_noncentered": potentials.Funnel(4, centered=False),
    "banana": potentials.Banana(),
    "eight_schools": potentials.EightSchools(),
}
METHODS: dict[str, Hmc | Nuts] = {
    "fixed": Hmc(5),
    "jitter": Hmc(4, jitter=True),
    "persistent": Hmc(2, persistence=0.5),
    "length": Hmc(trajectory=0.9),
    "jittered_length": Hmc(trajectory=0.9, jitter=True),
    "nuts": Nuts(6),
}
# Name -> (for D dimensions and C chains, whether chains have their own).
MASSES: dict[str, tuple[Callable[[int, int], Any], bool]] = {
    "number": (lambda dim, chains: 0.7, False),
    "vector": (lambda dim, chains: np.linspace(0.5, 2.0, dim), False),
    "matrix": (lambda dim, chains: _matrix(dim), False),
    "numbers": (lambda dim, chains: np.linspace(0.5, 2.0, chains), True),
    "vectors": (lambda dim, chains: np.outer(np.linspace(0.8, 1.2, chains), np.linspace(0.5, 2.0, dim)), True),
    "matrices": (lambda dim, chains: np.multiply.outer(np.linspace(0.8, 1.2, chains), _matrix(dim)), True),
}


def _matrix(dim: int) -> Array:
    return np.diag(np.linspace(0.5, 2.0, dim)) + 0.1


@dataclass(frozen=True)
class Start:
    """Where chains begin: they differ in positions, step sizes, streams, masses and what they have done."""

    potential: potentials.BuiltIn
    method: Hmc | Nuts
    mass: str = "number"
    dtype: Any = np.float64
    chains: int = 5
    stepsize: float = 0.2
    position: Any = None

    def batch(self, chosen: Sequence[int] | None = None) -> Batch:
        """These of the chains; None: all of them."""
        c, dim = self.chains, self.potential.dim
        rows = list(range(c)) if chosen is None else list(chosen)
        q = np.random.default_rng(1).uniform(-1, 1, (c, dim)) if self.position is None else self.position
        mass, per_chain = MASSES[self.mass][0](dim, c), MASSES[self.mass][1]
        return Batch(
            np.broadcast_to(q, (c, dim))[rows].astype(self.dtype),
            (self.stepsize * np.linspace(0.7, 1.1, c))[rows],
            InverseMass(mass[rows] if per_chain else mass, dim, self.dtype, per_chain=per_chain),
            ((np.arange(c, dtype=np.uint32) * 7919) ^ 5)[rows],
            np.array([0, 3, (1 << 32) - 2, 1, 1 << 33])[np.arange(c) % 5][rows],
            seed=(9 << 32) + 5,
        )

    def record(self, chains: int, thin: int = 1) -> Record:
        return Record(chains, self.potential.dim, self.dtype, tree=isinstance(self.method, Nuts), thin=thin)

    def runner(self, device: str) -> Runner:
        return runner_for(self.potential, self.method, self.potential.dim, self.dtype, device)

    def host_runner(self) -> Runner:
        kind: Any = NutsRunner if isinstance(self.method, Nuts) else HmcRunner
        runner: Runner = kind(self.potential, self.method, self.potential.dim, self.dtype, "cpu")
        return runner


@dataclass
class End:
    """What a run leaves behind."""

    batch: Batch
    record: Record
    adapt: DualAveraging | None

    @property
    def positions(self) -> Array:
        return self.record.positions

    @property
    def stats(self) -> dict[str, Array]:
        return self.record.stats


def advance(
    start: Start,
    runner: Runner | str,
    *parts: int,
    thin: int = 1,
    adapt: float | None = None,
    given: Given | None = None,
    chosen: Sequence[int] | None = None,
    **options: float,
) -> End:
    """One run of so many transitions after the other; a runner, or the device of one; adapt: the target."""
    batch = start.batch(chosen)
    chains = len(batch.position)
    sizes = None if adapt is None else DualAveraging(batch.stepsize, adapt, **options)
    end = End(batch, start.record(chains, thin), sizes)
    mover = start.runner(runner) if isinstance(runner, str) else runner
    for count in parts:
        mover.run(batch, count, end.record, adapt=end.adapt, given=given)
    return end


def assert_same(a: End, b: End, chains: Any = slice(None)) -> None:
    """The same bits: all of `a`, and these chains of `b`."""
    assert_bits(a.positions, b.positions[:, chains])
    for name in a.stats:
        assert_bits(a.stats[name], b.stats[name][:, chains], name)
    for name in ("position", "stepsize", "done", "momentum"):
        mine, other = getattr(a.batch, name), getattr(b.batch, name)
        assert (mine is None) == (other is None), name
        if mine is not None:
            assert_bits(mine, other[chains], name)
    if a.adapt is not None:
        assert b.adapt is not None
        for name in ("stepsize", "log_average", "h_bar", "count", "mu"):
            assert_bits(getattr(a.adapt, name), getattr(b.adapt, name)[chains], name)
