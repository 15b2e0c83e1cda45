"""Chains that keep every `thin`-th transition: what is kept is what there would have been, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC, MCMC, NUTS, MultiChainHMC, potentials, sample
from tests.chains import Lines, Scalars, assert_same, quartic, row_wise
from tests.table import Array, assert_bits

PARTS = 3, 4, 1, 0, 5, 9
THIN = 4


def steep(q: Array) -> tuple[float, Array]:
    """Steps that are too long for it leave it far behind."""
    return float((q**4).sum()), 4 * q**3


START = np.linspace(0.5, 1.5, 6).reshape(3, 2)
MAKE: dict[str, Callable[..., Any]] = {
    "HMC": lambda **kw: HMC(START, steep, [0.1, 0.6, 0.9], 3, **kw),
    "HMC, built-in": lambda **kw: HMC(2 * START, potentials.Funnel(2), [0.3, 1.5, 3.0], 3, **kw),
    "NUTS": lambda **kw: NUTS(START, steep, [0.1, 0.6, 0.9], 20.0, **kw),
    "NUTS, built-in": lambda **kw: NUTS(2 * START, potentials.Funnel(2), [0.3, 1.5, 3.0], 20.0, **kw),
    "MCMC": lambda **kw: MCMC(START, quartic, 0.7, **kw),
}


def advanced(make: Callable[..., Any], device: str, **options: Any) -> Any:
    chain = make(device=device, seed=5, **options)
    for part in PARTS:
        chain.simulate_chain(part)
    return chain


def thinned(stats: dict[str, Array], thin: int) -> dict[str, Array]:
    """Of all transitions: those that are kept have diverged if one since the last of them has."""
    groups = len(stats["lp"]) // thin
    kept = {name: array[thin - 1 :: thin] for name, array in stats.items()}
    diverging = stats["diverging"][: groups * thin]
    return {**kept, "diverging": diverging.reshape(groups, thin, *diverging.shape[1:]).any(axis=1)}


@pytest.mark.parametrize("name", MAKE)
def test_every_thin_th_transition_is_kept(name: str, device: str) -> None:
    every, some = advanced(MAKE[name], device), advanced(MAKE[name], device, thin=THIN)
    positions = every.position_trajectory
    np.testing.assert_array_equal(some.position_trajectory, [positions[0], *positions[THIN::THIN]])
    np.testing.assert_equal(some.sample_stats, thinned(every.sample_stats, THIN))
    assert some.num_states == every.num_states == sum(PARTS)
    np.testing.assert_array_equal(some.acceptance_probability, every.acceptance_probability)
    assert_bits(some.current_position, every.current_position)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "MCMC"])
def test_the_table_has_divergences_that_are_not_kept_themselves(name: str) -> None:
    every = advanced(MAKE[name], "cpu").sample_stats["diverging"]
    assert thinned({"lp": every, "diverging": every}, THIN)["diverging"].sum() > every[THIN - 1 :: THIN].sum()


@pytest.mark.parametrize("name", MAKE)
def test_states_go_on_between_kept_transitions(name: str, device: str) -> None:
    """A divergence before the break belongs to the draw behind it. The state says what is kept."""
    expected = advanced(MAKE[name], device, thin=THIN)
    for before in range(1, THIN + 1):
        chain = MAKE[name](device=device, seed=5, thin=THIN)
        chain.simulate_chain(before)
        other = MAKE[name](device=device, seed=5)
        other.load_state_dict(chain.state_dict())
        other.simulate_chain(sum(PARTS) - before)
        assert_same(other, expected)
        np.testing.assert_equal(other.state_dict(), expected.state_dict())


@pytest.mark.parametrize("name", MAKE)
def test_clearing_forgets_no_count(name: str) -> None:
    expected, chain = (MAKE[name](device="cpu", seed=5, thin=3) for _ in range(2))
    for sampler in (expected, chain):
        sampler.simulate_chain(7)
        if sampler is chain:
            chain.clear_position_trajectory()
        sampler.simulate_chain(8)
    assert_bits(np.array(chain.position_trajectory), np.array(expected.position_trajectory[-3:]))
    np.testing.assert_array_equal(chain.acceptance_probability, expected.acceptance_probability)
    np.testing.assert_array_equal(chain.sample_stats["diverging"], expected.sample_stats["diverging"][-3:])


@pytest.mark.parametrize("potential", [quartic, row_wise, potentials.Funnel(2)], ids=["one", "rows", "built-in"])
@pytest.mark.parametrize("kind", ["hmc", "nuts"])
def test_chains_together_keep_what_each_keeps(kind: str, potential: Any, device: str) -> None:
    options: Any = {"stepsize": 0.7, "thin": THIN, "device": device}
    many = MultiChainHMC(START, potential, kind, **options)
    for part in PARTS:
        many.simulate_chains(part)
    for c, chain in enumerate(many.chains):
        alone = {"hmc": HMC, "nuts": NUTS}[kind](START, potential, **options)
        alone.simulate_chain(sum(PARTS))
        assert_bits(np.array(chain.position_trajectory), np.array(alone.position_trajectory)[:, c])
        for name, values in chain.sample_stats.items():
            np.testing.assert_array_equal(values, alone.sample_stats[name][:, c], name)
        assert chain.acceptance_probability == alone.acceptance_probability[c]


def test_every_state_is_reported() -> None:
    seen: list[Any] = []
    for thin in (1, THIN):
        writer, logger = Scalars(), Lines()
        chain = advanced(MAKE["HMC"], "cpu", thin=thin, writer=writer, logger=logger, log_interval=3)
        seen.append((writer.seen, logger.lines))
        assert_same(chain, advanced(MAKE["HMC"], "cpu", thin=thin))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == 1 + (sum(PARTS) - 1) // 3


@pytest.mark.parametrize("device_of", ["cpu", "numpy"])
def test_draws_count_the_divergences_before_them(device_of: str) -> None:
    options: Any = {"num_warmup": 0, "stepsize": 0.9, "kernel": "hmc", "num_steps": 3, "device": device_of}
    potential = potentials.Funnel(3)
    with pytest.warns(Warning, match="diverged"):
        every = sample(potential, 200, **options).sample_stats["diverging"]
    with pytest.warns(Warning, match="diverged"):
        some = sample(potential, 40, thin=5, **options).sample_stats["diverging"]
    np.testing.assert_array_equal(some, every.reshape(4, 40, 5).any(axis=2))
    assert some.sum() > every[:, 4::5].sum()


@pytest.mark.parametrize(
    ("thin", "error", "message"),
    [(0, ValueError, "thin must be 1 or more, got 0"), (2.0, TypeError, "thin must be a whole number, got 2.0")],
)
def test_bad_thin(thin: Any, error: type[Exception], message: str) -> None:
    for make in MAKE.values():
        with pytest.raises(error, match=message):
            make(device="numpy", thin=thin)
