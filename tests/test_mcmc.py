"""Random-walk Metropolis: what it shares with HMC is tested there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.sampling import HMC, MCMC, ChainFailed, ess
from tests.chains import Counting, Lines, Scalars, assert_same, assert_whole, failing_at, quartic, row_wise
from tests.table import Array, assert_bits, works

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def energy(q: Array) -> float:
    """U alone."""
    return float(quartic(q)[0])


def test_it_is_the_sampler_as_one_writes_it(device: str) -> None:
    rng = np.random.default_rng(3)
    normal, uniform, start = rng.standard_normal((80, 4)), rng.random(80), rng.standard_normal(4)
    chain = MCMC(start, energy, 0.7, device=device)
    chain.simulate_chain(80, normal=normal, uniform=uniform)
    q, positions, decisions = start, [start], []
    for z, u in zip(normal, uniform, strict=True):
        proposal = q + 0.7 * z
        decisions.append(bool(u < min(1, np.exp(energy(q) - energy(proposal)))))
        q = proposal if decisions[-1] else q
        positions.append(q)
    assert chain.sample_stats["accepted"].tolist() == decisions
    assert 10 < sum(decisions) < 70
    assert_bits(np.array(chain.position_trajectory), np.array(positions))
    assert_whole(chain)


@dtypes
def test_numbers_are_those_of_seed_chain_and_transition(dtype: Any, device: str) -> None:
    drawn, given = (MCMC(np.ones(4, dtype), energy, 0.5, seed=9, device=device) for _ in range(2))
    with works(device, 2 * 6):
        drawn.simulate_chain(6)
    where = {"seed": 9, "device": "numpy", "dtype": dtype}
    normal = [grilly_optim.random.normal(4, step=k + 1, purpose="momentum", **where) for k in range(6)]
    uniform = [grilly_optim.random.uniform(1, step=k + 1, purpose="accept", **where)[0] for k in range(6)]
    given.simulate_chain(6, normal=np.array(normal), uniform=np.array(uniform))
    assert_same(drawn, given)


def test_a_potential_with_a_gradient_is_taken_too(device: str) -> None:
    one, other = (MCMC(np.ones(3), f, 0.5, device=device) for f in (energy, quartic))
    for chain in (one, other):
        chain.simulate_chain(20)
    assert_same(one, other)


def test_chains_of_a_batch_are_single_chains(device: str) -> None:
    starts, sizes = np.random.default_rng(4).standard_normal((3, 6)), np.array([0.1, 0.6, 0.3])
    batch = MCMC(starts, row_wise, sizes, seed=5, device=device)
    batch.simulate_chain(12)
    for c in range(3):
        alone = MCMC(starts[c], energy, sizes[c], seed=5, device=device)
        alone._batch.streams[:] = c
        alone.simulate_chain(12)
        assert_bits(np.array([q[c] for q in batch.position_trajectory]), np.array(alone.position_trajectory))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_rejected(bad: float, device: str) -> None:
    chain = MCMC(np.zeros(2), lambda q: bad if q[0] > 0.5 else 0.5 * q @ q, seed=1, device=device)
    chain.simulate_chain(300)
    stats = chain.sample_stats
    assert 30 < stats["diverging"].sum() < 250
    assert not (stats["diverging"] & stats["accepted"]).any()
    assert np.array(chain.position_trajectory)[:, 0].max() <= 0.5
    assert all(np.isfinite(x).all() for x in stats.values())


def test_a_transition_evaluates_once(device: str) -> None:
    potential = Counting()
    MCMC(np.ones(3), potential, device=device).simulate_chain(9)
    assert potential.count == 10


@pytest.mark.parametrize("constant", [1e6, -1e6])
def test_a_constant_in_the_energy_changes_no_draw(constant: float, device: str) -> None:
    """U in multiples of 2^-20, so that a sum with the constant is exact."""
    chains = [
        MCMC(np.ones(3), lambda q, c=c: round((0.5 * q @ q) * 2**20) / 2**20 + c, seed=3, device=device)
        for c in (constant, 0.0)
    ]
    for chain in chains:
        chain.simulate_chain(200)
    assert 0.2 < chains[0].acceptance_probability < 0.8
    assert_bits(*(np.array(chain.position_trajectory) for chain in chains))


@pytest.mark.cases("cpu")
@dtypes
def test_moments_of_a_normal_distribution(dtype: Any, device: str) -> None:
    """abs(z) < 4 for means and variances of 3 dimensions, with ESS: one false alarm in 2,600 seeds; it is fixed."""
    chain = MCMC(np.zeros(3, dtype), lambda q: 0.5 * q @ q, 1.4, seed=2, device=device)
    chain.simulate_chain(4000)
    draws = np.array(chain.position_trajectory[1:], float)
    for power, moment in ((1, 0.0), (2, 1.0)):
        for column in (draws**power).T:
            assert abs(column.mean() - moment) < 4 * column.std() / np.sqrt(ess(column[None]))


def test_reports() -> None:
    writer, logger = Scalars(), Lines()
    told = {"writer": writer, "writer_tag": "a/", "logger": logger, "log_interval": 2}
    chain = MCMC(np.ones(2), energy, 1.0, **told, device="numpy")  # type: ignore[arg-type]  # by their names
    chain.simulate_chain(3)
    stats = chain.sample_stats
    assert {tag for tag, _, _ in writer.seen} == {"a/mh/potential", "a/mh/accept"}
    np.testing.assert_array_equal(writer.of("a/mh/potential"), -stats["lp"])
    np.testing.assert_array_equal(writer.of("a/mh/accept"), np.cumsum(stats["accepted"]) / [1, 2, 3])
    expected = [
        f"MH state {k}: potential energy {-stats['lp'][k - 1]:f}, accepted {100 * stats['accepted'][:k].mean():.2f}%"
        for k in (1, 3)
    ]
    assert logger.lines == expected


def test_a_potential_that_fails(device: str) -> None:
    chain = MCMC(np.ones(3), failing_at(5, ZeroDivisionError("no data")), 0.3, device=device)
    with pytest.raises(ChainFailed, match=r"^chain 0 failed in transition 4: ZeroDivisionError: no data"):
        chain.simulate_chain(10)
    assert chain.num_states == 4
    chain.simulate_chain(6)
    expected = MCMC(np.ones(3), quartic, 0.3, device=device)
    expected.simulate_chain(10)
    assert_same(chain, expected)


def test_a_resumed_chain_goes_on_bit_for_bit(device: str) -> None:
    chain = MCMC(np.ones(3), energy, 0.5, seed=4, device=device)
    chain.simulate_chain(5)
    other = MCMC(np.zeros(3), energy, device=device)
    other.load_state_dict(chain.state_dict())
    for c in (chain, other):
        c.simulate_chain(5)
    assert_same(chain, other)
    assert other.proposal_std == 0.5
    with pytest.raises(ValueError, match="state_dict is of the sampler 'MCMC', expected 'HMC'"):
        HMC(np.ones(3), quartic, device=device).load_state_dict(chain.state_dict())


def test_settings(device: str) -> None:
    chain = MCMC(np.ones((2, 3)), energy, device=device)
    chain.proposal_std = [0.5, 0.25]
    chain.simulate_chain(1)
    assert chain.sample_stats["step_size"].tolist() == [[0.5, 0.25]]
    chain.proposal_std = 2
    assert chain.proposal_std == 2.0
    for value in (0, -1.0, np.nan, [1.0, np.inf]):
        with pytest.raises(ValueError, match=r"proposal_std.* must be above 0"):
            chain.proposal_std = value
    with pytest.raises(ValueError, match="proposal_std must be above 0"):
        MCMC(np.ones(3), energy, 0.0, device=device)
    with pytest.raises(ValueError, match=r"normal must have shape \(1, 2, 3\), got \(1, 3\)"):
        chain.simulate_chain(1, normal=np.ones((1, 3)))
    with pytest.raises(ValueError, match="the potential energy at initial_position must be finite, got inf"):
        MCMC(np.ones(3), lambda q: np.inf, device=device)
