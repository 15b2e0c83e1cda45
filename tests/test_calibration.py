"""Samplers leave their distribution alone: ranks, detailed balance, and energies that only matter by differences.

Simulation-based calibration (Talts et al. 2018): with parameters drawn from their prior, and data from the model, the
rank of the true parameter among posterior draws is uniform. Here ranks are exact: the truth is itself a draw from the
posterior of its data, so chains start there, and it takes a uniformly chosen place in its chain: k draws lie before it
and n - k behind it, both made by the same transitions, as those of reversible chains look the same in both directions
of time (the serial method of Besag & Clifford 1989). So no burn-in is needed, and a slowly mixing chain is no false
alarm; a chain that leaves another distribution invariant goes there within its thinned draws, and ranks pile up.

A run compares ranks of each parameter and of the energy (which sees wrong scales, Modrak et al. 2023) in 8 bins, by
chi-square with 7 degrees of freedom. It fails where a p is below 1e-3 divided by the number of ranks: a correct sampler
fails for one seed in 1,000 at most, and this file, with 15 runs, for one in 67. The rest of it is exact. With 4,096
replications a shift of 0.2 standard deviations has the non-centrality 0.04 * 4096 * 0.9 = 147, where the limit is 27:
it is missed with probability below 1e-6, and one of 0.1 in half of the cases. Wrong samplers are among the tests. The
seed was fixed before the first run and stays as it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC, MCMC, NUTS, sample
from grilly_optim.sampling.potentials import Gaussian, LogisticRegression
from tests.table import Array

SEED = 20261122
REPLICATIONS = 4096
FEW = 1536  # where trees are grown in NumPy: a shift of 0.2 is missed with probability 0.01
DRAWS = 31  # of each replication: ranks are 0 ... 31
THIN = 4
BINS = 8
LEVEL = 1e-3


def survival(chi2: float) -> float:
    """P(chi-square with 7 degrees of freedom > chi2)."""
    half = chi2 / 2
    terms = sum(half ** (k + 0.5) / math.gamma(k + 1.5) for k in range(3))
    return float(math.erfc(math.sqrt(half)) + math.exp(-half) * terms)


def test_the_survival_function_has_the_tables_values() -> None:
    for chi2, p in ((2.167, 0.95), (14.067, 0.05), (24.322, 0.001)):
        assert survival(chi2) == pytest.approx(p, rel=1e-3)


# A sampler -> draws (DRAWS, C, D) and their lp (DRAWS, C) of chains that start at (C, D).
Sampler = Callable[[Any, Array, int], tuple[Array, Array]]


def run(chain: Any, thin: int = THIN, **draws: Any) -> tuple[Array, Array]:
    chain.simulate_chain(DRAWS * thin, **draws)
    assert chain.sample_stats["accepted"].mean() > 0.25  # where it stands still, every rank is as likely
    every = slice(thin - 1, None, thin)
    return np.array(chain.position_trajectory[1:][every]), chain.sample_stats["lp"][every]


def hmc(num_steps: int, stepsize: float) -> Sampler:
    return lambda potential, q, seed: run(HMC(q, potential, stepsize, num_steps, seed=seed, device="cpu"))


def jittered(num_steps: int, stepsize: float) -> Sampler:
    """Without a warm-up, from given positions."""
    options: Any = {"kernel": "hmc", "num_steps": num_steps, "stepsize": stepsize, "num_warmup": 0, "thin": THIN}

    def sampler(potential: Any, q: Array, seed: int) -> tuple[Array, Array]:
        trace = sample(potential, DRAWS, num_chains=len(q), initial_position=q, seed=seed, device="cpu", **options)
        assert trace.sample_stats["accepted"].mean() > 0.25
        return trace.draws.swapaxes(0, 1), trace.sample_stats["lp"].T

    return sampler


def nuts(stepsize: float, variant: str = "multinomial", thin: int = THIN) -> Sampler:
    return lambda potential, q, seed: run(NUTS(q, potential, stepsize, variant=variant, seed=seed, device="cpu"), thin)


def in_numpy(sampler: Sampler) -> Sampler:
    return lambda potential, q, seed: sampler(function_of(potential), q, seed)


def function_of(potential: Any) -> Any:
    """No device knows it."""

    def function(position: Array) -> Any:
        return potential.value_and_grad(position)

    function.vectorized = True  # type: ignore[attr-defined]  # how potentials say it
    return function


def rwm(proposal_std: float) -> Sampler:
    return lambda potential, q, seed: run(MCMC(q, potential, proposal_std, seed=seed, device="cpu"))


def p_values(truth: Array, truth_lp: Array, draws: Array, lp: Array, rng: np.random.Generator) -> list[float]:
    """Of even ranks: those of each parameter, and that of lp.

    Args:
        truth: (R, D).
        truth_lp: (R,).
        draws: (DRAWS, 2 R, D): R chains for what lies behind the truth, and R for what lies before it.
        lp: (DRAWS, 2 R).
        rng: Of places, and of ranks among equals: where a chain has not moved.
    """
    replications = len(truth)
    behind = rng.integers(0, DRAWS + 1, replications)
    number = np.arange(DRAWS)[:, None]
    counted = np.concatenate([number < behind, number < DRAWS - behind], axis=1)
    found = []
    for own, others in [*zip(truth.T, np.moveaxis(draws, -1, 0), strict=True), (truth_lp, lp)]:
        twice = np.concatenate([own, own])
        less = (counted & (others < twice)).sum(0).reshape(2, -1).sum(0)
        same = (counted & (others == twice)).sum(0).reshape(2, -1).sum(0)
        ranks = less + rng.integers(0, same + 1)
        counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
        expected = replications / BINS
        found.append(survival(float(((counts - expected) ** 2).sum() / expected)))
    return found


def is_even(found: list[float]) -> bool:
    return min(found) > LEVEL / len(found)


# Models: groups of replications that share a potential, as (truth, potential).
Groups = Iterator[tuple[Array, Any]]
Model = Callable[[np.random.Generator, int], Groups]


class Conjugate:
    """q ~ N(0, 1) in two dimensions, 3 observations of A q with noise N(0, s^2): another data set for every chain."""

    DESIGN = np.array([[1.0, 0.5], [0.3, -1.0], [0.8, 0.8]])
    NOISE = 0.7
    vectorized = True

    def __init__(self, data: Array) -> None:
        self.data = data

    def value_and_grad(self, q: Array) -> tuple[Array, Array]:
        miss = (q @ self.DESIGN.T - self.data) / self.NOISE
        return 0.5 * ((miss * miss).sum(1) + (q * q).sum(1)), miss @ self.DESIGN / self.NOISE + q


def conjugate(rng: np.random.Generator, replications: int) -> Groups:
    truth = rng.standard_normal((replications, 2))
    data = truth @ Conjugate.DESIGN.T + Conjugate.NOISE * rng.standard_normal((replications, 3))
    yield truth, Conjugate(np.concatenate([data, data]))


def conjugate_moved(rng: np.random.Generator, replications: int) -> Groups:
    """The same model in coordinates whose origin is the posterior mean: there all data sets share a potential."""
    ((truth, both),) = conjugate(rng, replications)
    precision = both.DESIGN.T @ both.DESIGN / both.NOISE**2 + np.eye(2)
    mean = both.data[: len(truth)] @ both.DESIGN @ np.linalg.inv(precision) / both.NOISE**2
    yield truth - mean, Gaussian(np.zeros(2), precision=precision)


class Logistic:
    """q ~ N(0, 1) in two dimensions and 6 binary observations, another data set for every chain."""

    DESIGN = np.array([[1.0, -1.5], [1.0, -0.7], [1.0, 0.2], [1.0, 0.9], [1.0, 1.3], [1.0, 2.5]])
    vectorized = True

    def __init__(self, data: Array) -> None:
        self.signs = 2.0 * data - 1

    def value_and_grad(self, q: Array) -> tuple[Array, Array]:
        margin = self.signs * (q @ self.DESIGN.T)
        miss = self.signs / (1 + np.exp(margin))
        return np.logaddexp(0, -margin).sum(1) + 0.5 * (q * q).sum(1), q - miss @ self.DESIGN


def observed(rng: np.random.Generator, replications: int) -> tuple[Array, Array]:
    truth = rng.standard_normal((replications, 2))
    return truth, rng.random((replications, 6)) < 1 / (1 + np.exp(-truth @ Logistic.DESIGN.T))


def logistic(rng: np.random.Generator, replications: int) -> Groups:
    truth, data = observed(rng, replications)
    yield truth, Logistic(np.concatenate([data, data]))


def logistic_by_data(rng: np.random.Generator, replications: int) -> Groups:
    """The built-in potential: replications with equal data, of which there are 64 sets, share one."""
    truth, data = observed(rng, replications)
    for labels in itertools.product([False, True], repeat=6):
        chosen = (data == labels).all(1)
        if chosen.any():
            yield truth[chosen], LogisticRegression(Logistic.DESIGN, labels)


def calibrate(model: Model, sampler: Sampler, replications: int = REPLICATIONS) -> list[float]:
    rng = np.random.default_rng(SEED)
    truths, truth_lps, draws, lps = [], [], [], []
    for group, (truth, potential) in enumerate(model(rng, replications)):
        begin = np.concatenate([truth, truth])
        positions, lp = sampler(potential, begin, SEED + group)
        truths.append(truth)
        truth_lps.append(-potential.value_and_grad(begin)[0][: len(truth)])
        # The halves of all groups side by side.
        draws.append(positions.reshape(DRAWS, 2, len(truth), -1))
        lps.append(lp.reshape(DRAWS, 2, len(truth)))
    return p_values(
        np.concatenate(truths),
        np.concatenate(truth_lps),
        np.concatenate(draws, axis=2).reshape(DRAWS, 2 * replications, -1),
        np.concatenate(lps, axis=2).reshape(DRAWS, 2 * replications),
        rng,
    )


RUNS: dict[str, Any] = {
    "HMC, Gaussian": (conjugate, hmc(3, 0.6)),
    "HMC, Gaussian, in the engine": (conjugate_moved, hmc(3, 0.6)),
    "HMC, logistic": (logistic, hmc(3, 0.9)),
    "HMC, logistic, in the engine": (logistic_by_data, hmc(3, 0.9)),
    "jittered HMC, Gaussian": (conjugate_moved, in_numpy(jittered(3, 0.6))),
    "jittered HMC, logistic, in the engine": (logistic_by_data, jittered(3, 0.9)),
    "MALA, Gaussian": (conjugate, hmc(1, 0.55)),
    "MALA, Gaussian, in the engine": (conjugate_moved, hmc(1, 0.55)),
    "MALA, logistic": (logistic, hmc(1, 0.9)),
    "MALA, logistic, in the engine": (logistic_by_data, hmc(1, 0.9)),
    "NUTS, Gaussian, in the engine": (conjugate_moved, nuts(0.6)),
    "NUTS, logistic, in the engine": (logistic_by_data, nuts(0.9)),
    "NUTS, Gaussian, in NumPy": (conjugate_moved, in_numpy(nuts(0.6, thin=1)), FEW),
    "NUTS with slices, Gaussian": (conjugate_moved, in_numpy(nuts(0.6, "slice", thin=1)), FEW),
    "random walk, Gaussian": (conjugate, rwm(0.5)),
}


@pytest.mark.parametrize("name", RUNS)
def test_ranks_are_even(name: str) -> None:
    assert is_even(calibrate(*RUNS[name]))


# Wrong samplers.


class Shifted(Conjugate):
    """The posterior of each data set, moved by a fifth of its standard deviations."""

    def value_and_grad(self, q: Array) -> tuple[Array, Array]:
        cov = np.linalg.inv(self.DESIGN.T @ self.DESIGN / self.NOISE**2 + np.eye(2))
        return super().value_and_grad(q - 0.2 * np.sqrt(np.diag(cov)))


class Forgetful(Conjugate):
    """The gradient of one distribution and the energy of another, which has no prior."""

    def value_and_grad(self, q: Array) -> tuple[Array, Array]:
        value, gradient = super().value_and_grad(q)
        return value - 0.5 * (q * q).sum(1), gradient


def with_potential(kind: type[Conjugate]) -> Model:
    def model(rng: np.random.Generator, replications: int) -> Groups:
        for truth, potential in conjugate(rng, replications):
            yield truth, kind(potential.data)

    return model


def always_accepting(potential: Any, q: Array, seed: int) -> tuple[Array, Array]:
    uniform = np.zeros((DRAWS * THIN, len(q)))
    return run(HMC(q, potential, 0.6, 3, seed=seed, device="cpu"), uniform=uniform)


WRONG = {
    "a shift of 0.2 standard deviations": (with_potential(Shifted), hmc(3, 0.6)),
    "MALA with that shift": (with_potential(Shifted), hmc(1, 0.55)),
    "an energy without the prior": (with_potential(Forgetful), hmc(3, 0.6)),
    "no Metropolis test": (conjugate, always_accepting),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_sampler_is_seen(name: str) -> None:
    assert not is_even(calibrate(*WRONG[name]))


# Detailed balance, exactly: from every point of a grid to every other one.


def wells(q: Array) -> tuple[Array, Array]:
    """Two wells of different depth, in one dimension."""
    x = q[:, 0]
    return (x * x - 1) ** 2 + 0.3 * x, (4 * x * (x * x - 1) + 0.3)[:, None]


wells.vectorized = True  # type: ignore[attr-defined]  # how potentials say it


@pytest.mark.parametrize("method", ["MALA", "random walk"])
@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_detailed_balance_on_a_grid(method: str, device: str) -> None:
    """pi(x) k(y | x) a(x, y) = pi(y) k(x | y) a(y, x), with the density k of proposals and the acceptance a.

    A chain for every pair of points; its normal number is the one that makes y the proposal.
    """
    grid, size = np.linspace(-2, 2, 81), 0.7
    x, y = (points.reshape(-1, 1) for points in np.meshgrid(grid, grid, indexing="ij"))
    if method == "MALA":
        normal = (y - x + size**2 / 2 * wells(x)[1]) / size
        chain: Any = HMC(x, wells, size, 1, device=device)
        chain.simulate_chain(1, momentum=normal[None], uniform=np.zeros((1, len(x))))
    else:
        normal = (y - x) / size
        chain = MCMC(x, wells, size, device=device)
        chain.simulate_chain(1, normal=normal[None], uniform=np.zeros((1, len(x))))
    np.testing.assert_allclose(chain.current_position, y, rtol=0, atol=1e-13)
    accepted = chain.sample_stats["acceptance_rate"][0]
    assert (accepted < 0.5).mean() > 0.2
    flow = (np.exp(-wells(x)[0] - 0.5 * normal[:, 0] ** 2) * accepted).reshape(81, 81)
    np.testing.assert_allclose(flow, flow.T, rtol=1e-11)


# Only differences of energies matter.


class Rough:
    """A potential in multiples of 2^-20, to which a million is added without rounding."""

    dim = 3
    vectorized = True

    def __init__(self, constant: float) -> None:
        self.constant = constant

    def value_and_grad(self, q: Array) -> tuple[Array, Array]:
        energy = 0.5 * (q * q).sum(1) + 0.25 * (q**4).sum(1)
        return np.round(energy * 2**20) / 2**20 + self.constant, q + q**3


SAMPLERS: dict[str, Callable[[Array, Any], Any]] = {
    "HMC": lambda q, potential: HMC(q, potential, 0.6, 3, seed=5, device="cpu"),
    "MALA": lambda q, potential: HMC(q, potential, 0.9, seed=5, device="cpu"),
    "NUTS": lambda q, potential: NUTS(q, potential, 0.6, seed=5, device="cpu"),
    "NUTS with slices": lambda q, potential: NUTS(q, potential, 0.6, variant="slice", seed=5, device="cpu"),
    "random walk": lambda q, potential: MCMC(q, potential, 0.7, seed=5, device="cpu"),
}


def trajectory(chain: Any) -> tuple[Array, Array]:
    """Positions, and acceptance rates, which see differences that change no decision."""
    chain.simulate_chain(200)
    assert chain.sample_stats["accepted"].any()
    return np.array(chain.position_trajectory), chain.sample_stats["acceptance_rate"]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("constant", [1e6, -1e6])
def test_a_constant_in_the_potential_changes_no_draw_and_no_acceptance_rate(name: str, constant: float) -> None:
    begin = np.random.default_rng(2).standard_normal((8, 3))
    for one, other in zip(*(trajectory(SAMPLERS[name](begin, Rough(c))) for c in (0, constant)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kernel", ["nuts", "hmc", "mala", "ghmc", "rwm"])
@pytest.mark.parametrize("constant", [1e6, -1e6])
def test_nor_does_it_in_a_warm_up(kernel: Any, constant: float) -> None:
    draws, same = (
        sample(Rough(c), 100, num_warmup=200, kernel=kernel, seed=5, device="cpu").draws for c in (0, constant)
    )
    np.testing.assert_array_equal(draws, same)
