"""HMC: the sampler as one writes it in NumPy, its decisions, and the distributions it draws from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.sampling import HMC, ess
from tests.chains import (
    MASSES,
    Counting,
    as_matrix,
    assert_same,
    normal,
    plain_hmc,
    quartic,
    row_wise,
)
from tests.table import Array, assert_bits, works

masses = pytest.mark.parametrize("mass", MASSES.values(), ids=list(MASSES))
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@masses
@pytest.mark.parametrize("dim", [1, 10])
def test_it_is_the_sampler_as_one_writes_it(mass: Any, dim: int, device: str) -> None:
    """On injected draws: the same decisions, both ways among them, and positions to 1e-9 in float64."""
    rng = np.random.default_rng(3)
    w = as_matrix(mass(dim), dim)
    momenta = rng.multivariate_normal(np.zeros(dim), np.linalg.inv(w), size=60)
    uniforms, q, eps = rng.random(60), rng.standard_normal(dim), 0.9 / dim**0.25
    chain = HMC(q, quartic, eps, 3, mass(dim), device=device)
    chain.simulate_chain(60, momentum=momenta, uniform=uniforms)
    positions, decisions = plain_hmc(q, eps, 3, w, quartic, momenta, uniforms)
    assert chain.sample_stats["accepted"].tolist() == decisions
    assert 0 < sum(decisions) < 60
    np.testing.assert_allclose(chain.position_trajectory, positions, rtol=0, atol=1e-9)


@masses
@dtypes
def test_every_bit_is_numpys(mass: Any, dtype: Any, device: str) -> None:
    """And the device did the work: two draws, and num_steps + 1 kicks, in each transition."""
    q = np.linspace(-1, 1, 5).astype(dtype)
    found, expected = (HMC(q, quartic, 0.3, 4, mass(5), seed=2, device=d) for d in (device, "numpy"))
    kicks = 0 if np.ndim(mass(5)) == 2 else 5
    with works(device, 8 * (2 + kicks)):
        found.simulate_chain(8)
    expected.simulate_chain(8)
    assert found.current_position.dtype == dtype
    assert_same(found, expected)


@dtypes
def test_numbers_are_those_of_seed_chain_and_transition(dtype: Any, device: str) -> None:
    """What it draws by itself is what `grilly_optim.random` gives for these."""
    drawn, given = (HMC(np.ones((3, 4), dtype), row_wise, 0.4, 2, 4.0, seed=9, device=device) for _ in range(2))
    drawn.simulate_chain(5)
    where = {"seed": 9, "device": "numpy", "dtype": dtype}

    def numbers(make: Any, shape: Any, purpose: str) -> Array:
        return np.array(
            [[make(shape, stream=c, step=k + 1, purpose=purpose, **where) for c in range(3)] for k in range(5)]
        )

    momentum = numbers(grilly_optim.random.normal, 4, "momentum") / dtype(2)
    given.simulate_chain(5, momentum=momentum, uniform=numbers(grilly_optim.random.uniform, 1, "accept")[:, :, 0])
    assert_same(drawn, given)


@masses
@dtypes
@pytest.mark.parametrize("potential", [quartic, row_wise])
def test_chains_of_a_batch_are_single_chains(mass: Any, dtype: Any, potential: Any, device: str) -> None:
    """Bit for bit, with step sizes of their own."""
    starts = np.random.default_rng(4).standard_normal((3, 6)).astype(dtype)
    sizes = np.array([0.1, 0.6, 0.3])
    batch = HMC(starts, potential, sizes, 3, mass(6), seed=5, device=device)
    batch.simulate_chain(12)
    assert_bits(np.asarray(batch.stepsize), sizes)
    for c in range(3):
        alone = HMC(starts[c], quartic, sizes[c], 3, mass(6), seed=5, device=device)
        alone._batch.streams[:] = c
        alone.simulate_chain(12)
        assert_bits(np.array([q[c] for q in batch.position_trajectory]), np.array(alone.position_trajectory))
        for name, values in alone.sample_stats.items():
            assert_bits(batch.sample_stats[name][:, c], values, name)
        assert batch.acceptance_probability[c] == alone.acceptance_probability


def test_blocks_make_no_difference(device: str) -> None:
    whole, parts = (HMC(np.ones(3), quartic, 0.4, 2, seed=6, device=device) for _ in range(2))
    whole.simulate_chain(20)
    for n in (1, 7, 0, 12):
        parts.simulate_chain(n)
    assert_same(whole, parts)


def test_a_transition_takes_as_many_gradients_as_steps(device: str) -> None:
    potential = Counting()
    chain = HMC(np.ones(3), potential, 0.4, 5, device=device)
    chain.simulate_chain(7)
    assert potential.count == 1 + 7 * 5


def test_a_potential_that_writes_over_its_last_gradient(device: str) -> None:
    """One array for every answer, as careful people do it."""
    buffer = np.empty(4)

    def reusing(q: Array) -> tuple[float, Array]:
        np.add(q, q**3, out=buffer)
        return quartic(q)[0], buffer

    found, expected = (HMC(np.ones(4), f, 0.6, 2, seed=1, device=device) for f in (reusing, quartic))
    found.simulate_chain(30)
    expected.simulate_chain(30)
    assert not expected.sample_stats["accepted"].all()
    assert_same(found, expected)


class AsAnObject:
    """A potential with a method, in the layouts that people return."""

    vectorized = True

    def value_and_grad(self, q: Array) -> tuple[Array, Array]:
        assert q.ndim == 2
        assert not q.flags.writeable
        return row_wise(q)[0].astype(np.float32), np.asfortranarray(row_wise(q)[1].astype(np.float64))


def test_objects_with_a_method_and_other_layouts(device: str) -> None:
    found, expected = (HMC(np.ones((2, 3), np.float32), f, 0.2, 2, device=device) for f in (AsAnObject(), row_wise))
    found.simulate_chain(5)
    expected.simulate_chain(5)
    assert_bits(found.current_position, expected.current_position)


@pytest.mark.parametrize("constant", [1e6, -1e6])
def test_a_constant_in_the_energy_changes_no_draw(constant: float, device: str) -> None:
    """U in multiples of 2^-20, so that a sum with the constant is exact."""

    def potential(q: Array, constant: float = 0.0) -> tuple[float, Array]:
        return round((0.5 * q @ q) * 2**20) / 2**20 + constant, q

    found, expected = (
        HMC(np.ones(5), lambda q, c=c: potential(q, c), 0.9, 3, seed=3, device=device) for c in (constant, 0.0)
    )
    found.simulate_chain(100)
    expected.simulate_chain(100)
    assert 0.3 < expected.acceptance_probability < 0.99
    assert_bits(np.array(found.position_trajectory), np.array(expected.position_trajectory))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["value", "gradient"])
def test_what_is_not_finite_is_rejected_and_diverging(bad: float, where: str, device: str) -> None:
    def cliff(q: Array) -> tuple[float, Array]:
        off = q[0] > 1
        return (bad if off and where == "value" else 0.5 * q @ q), (q * bad if off and where == "gradient" else q)

    chain = HMC(np.zeros(2), cliff, 0.5, 3, seed=1, device=device)
    chain.simulate_chain(300)
    stats = chain.sample_stats
    assert 10 < stats["diverging"].sum() < 200
    assert not (stats["diverging"] & stats["accepted"]).any()
    assert (stats["acceptance_rate"][stats["diverging"]] == 0).all()
    assert all(np.isfinite(x).all() for x in (*stats.values(), np.array(chain.position_trajectory)))
    assert np.array(chain.position_trajectory)[:, 0].max() <= 1


def test_a_large_rise_of_the_energy_is_a_divergence(device: str) -> None:
    """Steps of 2.05 multiply a momentum of a standard normal distribution, by 1.3 at first and without bounds."""
    for steps, diverging in ((3, False), (60, True)):
        chain = HMC(np.ones(2), normal, 2.05, steps, device=device)
        chain.simulate_chain(1, momentum=np.ones((1, 2)), uniform=np.ones(1))
        assert chain.sample_stats["diverging"].tolist() == [diverging]
        assert not chain.sample_stats["accepted"][0]


def test_the_decision_is_strict(device: str) -> None:
    """U < exp(-dH): nothing is below 0, not even 0; and 1 is not below 1, where nothing has changed."""
    for potential, uniform, accepted in (
        (lambda q: (np.inf if q[0] > 0.5 else 0.0, 0 * q), 0.0, False),
        (lambda q: (0.0, 0 * q), 1.0, False),
        (lambda q: (0.0, 0 * q), 1 - 2**-24, True),
    ):
        chain = HMC(np.zeros(1), potential, 1.0, device=device)
        chain.simulate_chain(1, momentum=np.ones((1, 1)), uniform=np.array([uniform]))
        assert chain.sample_stats["accepted"].tolist() == [accepted]


@pytest.mark.cases("cpu")
@pytest.mark.parametrize(("mass", "expected"), [(1.0, 1.0), (4.0, 1.0)])
def test_moments_of_a_normal_distribution(mass: float, expected: float, device: str) -> None:
    """abs(z) < 4 for mean and variance of 10 dimensions, with ESS: one false alarm in 800 seeds; the seed is fixed."""
    chain = HMC(np.zeros(10, np.float32), normal, 0.4 / np.sqrt(mass), 5, mass, seed=11, device=device)
    chain.simulate_chain(1500)
    draws = np.array(chain.position_trajectory[1:], float)
    for power, moment in ((1, 0.0), (2, expected)):
        for column in (draws**power).T:
            error = column.std() / np.sqrt(ess(column[None]))
            assert abs(column.mean() - moment) < 4 * error


SCALES = np.geomspace(1e-2, 1e2, 100)


@pytest.mark.cases("cpu")
@pytest.mark.parametrize("mass", [SCALES**2, np.diag(SCALES**2)], ids=["vector", "matrix"])
def test_moments_of_a_badly_scaled_normal_distribution(mass: Array, device: str) -> None:
    """Standard deviations from 0.01 to 100, and their squares as the inverse mass.

    abs(z) < 4 for 100 means and 100 variances, with ESS: one false alarm in 80 seeds; the seed is fixed.
    """

    def potential(q: Array) -> tuple[float, Array]:
        gradient = q / SCALES**2
        return 0.5 * float(q @ gradient), gradient

    chain = HMC(np.zeros(100), potential, 0.3, 5, mass, seed=1, device=device)
    chain.simulate_chain(600)
    assert not chain.sample_stats["diverging"].any()
    draws = np.array(chain.position_trajectory[1:]) / SCALES
    for power, moment in ((1, 0.0), (2, 1.0)):
        for column in (draws**power).T:
            assert abs(column.mean() - moment) < 4 * column.std() / np.sqrt(ess(column[None]))
