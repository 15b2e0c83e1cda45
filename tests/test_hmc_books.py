"""HMC: what it writes down, what may be changed between transitions, and what it reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC
from tests.chains import (
    Counting,
    Lines,
    Scalars,
    assert_same,
    assert_whole,
    left_behind,
    quartic,
)
from tests.table import assert_bits


def test_before_the_first_transition(device: str) -> None:
    start = np.ones(3)
    chain = HMC(start, quartic, device=device)
    assert (chain.num_states, chain.acceptance_probability) == (0, 1.0)
    assert type(chain.acceptance_probability) is float
    assert [q.tolist() for q in chain.position_trajectory] == [[1, 1, 1]]
    assert {x.shape for x in chain.sample_stats.values()} == {(0,)}
    start[:] = 5
    for array in (chain.position_trajectory[0], chain.current_position):
        assert_bits(array, np.ones(3))
        array[:] = 7
    assert_bits(chain.position_trajectory[0], np.ones(3))
    chain.simulate_chain(0)
    assert_whole(chain)


def test_statistics_are_those_of_the_positions(device: str) -> None:
    chain = HMC(np.ones(4), quartic, 0.5, 3, device=device)
    chain.simulate_chain(40)
    assert_whole(chain)
    stats, positions = chain.sample_stats, np.array(chain.position_trajectory)
    np.testing.assert_array_equal(stats["lp"], [-quartic(q)[0] for q in positions[1:]])
    assert (stats["energy"] > -stats["lp"]).all()
    assert ((stats["acceptance_rate"] > 0) & (stats["acceptance_rate"] <= 1)).all()
    assert (stats["acceptance_rate"] < 1).any()
    assert set(stats["step_size"]) == {0.5}
    assert set(stats["n_steps"]) == {3}
    moved = (np.diff(positions, axis=0) != 0).any(axis=1)
    np.testing.assert_array_equal(stats["accepted"], moved)
    kinds = {name: x.dtype for name, x in stats.items()}
    assert kinds["lp"] == kinds["energy"] == kinds["acceptance_rate"] == kinds["step_size"] == np.float64
    assert (kinds["n_steps"], kinds["diverging"], kinds["accepted"]) == (np.int64, bool, bool)


@pytest.mark.parametrize("n", [None, 0, 1, 4, 11, 12, 50, -1, -3, -11, -50, np.int64(2)])
def test_clearing_is_slicing(n: Any, device: str) -> None:
    """Of a trajectory that begins with the initial position, and once more of what is left."""
    chain = HMC(np.ones(2), quartic, 0.6, 2, device=device)
    chain.simulate_chain(10)
    for _ in range(2):
        before = left_behind(chain)
        chain.clear_position_trajectory(n)
        after = left_behind(chain)
        expected = [] if n is None else before["position_trajectory"][n:]
        np.testing.assert_equal(after["position_trajectory"], expected)
        for name, values in before["sample_stats"].items():
            kept = min(len(expected), len(values))
            np.testing.assert_array_equal(after["sample_stats"][name], values[len(values) - kept :])
        for name in ("current_position", "num_states", "acceptance_probability"):
            np.testing.assert_equal(after[name], before[name])
    chain.simulate_chain(3)
    assert len(chain.sample_stats["lp"]) == (3 + kept)
    assert_bits(chain.position_trajectory[-1], chain.current_position)


def test_settings_between_transitions(device: str) -> None:
    """Each is that of the transitions after it."""
    chain = HMC(np.ones(2), quartic, 0.1, 1, device=device)
    chain.simulate_chain(2)
    chain.stepsize, chain.num_steps, chain.inv_mass = 0.2, 3, [1.0, 2.0]
    chain.simulate_chain(2)
    assert chain.sample_stats["step_size"].tolist() == [0.1, 0.1, 0.2, 0.2]
    assert chain.sample_stats["n_steps"].tolist() == [1, 1, 3, 3]
    assert (chain.stepsize, chain.num_steps, chain.inv_mass.tolist()) == (0.2, 3, [1.0, 2.0])
    other = HMC(np.ones(2), quartic, 0.1, 1, device=device)
    other.simulate_chain(2)
    other.load_state_dict({**other.state_dict(), "stepsize": [0.2], "num_steps": 3, "inv_mass": [1.0, 2.0]})
    other.simulate_chain(2)
    assert_same(chain, other)


def test_a_mass_between_transitions(device: str) -> None:
    """Of another size, and of another form."""
    chain = HMC(np.ones(3), quartic, 0.3, 2, device=device)
    for mass in (2.0, 0.5, np.linspace(0.5, 2, 3), np.linspace(2, 0.5, 3), np.eye(3), 0.5):
        other = HMC(np.ones(3), quartic, 0.3, 2, mass, device=device)
        other.load_state_dict({**chain.state_dict(), "inv_mass": mass})
        chain.inv_mass = mass
        for c in (chain, other):
            c.simulate_chain(2)
        assert_same(chain, other)


def test_a_writer_gets_every_state(device: str) -> None:
    writer = Scalars()
    chain = HMC(np.ones(3), quartic, 0.5, 2, writer=writer, writer_tag="run/", device=device)
    chain.simulate_chain(3)
    chain.simulate_chain(2)
    stats = chain.sample_stats
    assert {tag for tag, _, _ in writer.seen} == {
        f"run/hmc/{name}" for name in ("kinetic", "potential", "hamiltonian", "accept")
    }
    np.testing.assert_array_equal(writer.of("run/hmc/potential"), -stats["lp"])
    np.testing.assert_array_equal(writer.of("run/hmc/hamiltonian"), stats["energy"])
    np.testing.assert_array_equal(writer.of("run/hmc/kinetic"), stats["energy"] + stats["lp"])
    np.testing.assert_array_equal(writer.of("run/hmc/accept"), np.cumsum(stats["accepted"]) / np.arange(1, 6))


def test_a_writer_of_several_chains() -> None:
    writer = Scalars()
    chain = HMC(np.ones((2, 3)), quartic, 0.5, 2, writer=writer, device="numpy")
    chain.simulate_chain(3)
    for c in range(2):
        np.testing.assert_array_equal(writer.of(f"chain_{c}/hmc/potential"), -chain.sample_stats["lp"][:, c])


def test_a_logger_gets_the_first_state_and_then_some(device: str) -> None:
    logger = Lines()
    chain = HMC(np.ones(3), quartic, 0.5, 2, logger=logger, log_interval=4, device=device)
    for n in (2, 3, 5):
        chain.simulate_chain(n)
    stats, expected = chain.sample_stats, []
    for state in (1, 5, 9):
        rate = 100 * stats["accepted"][:state].mean()
        expected.append(f"HMC state {state}: Hamiltonian {stats['energy'][state - 1]:f}, accepted {rate:.2f}%")
    assert logger.lines == expected


def test_reports_come_in_time() -> None:
    """Before the next transition begins."""
    logger, writer = Lines(), Scalars()
    for options, told, expected in (
        ({"logger": logger, "log_interval": 3}, logger.lines, [0, 0, 1, 1, 1, 2, 2]),
        ({"writer": writer}, writer.seen, [0, 0, 4, 8, 12, 16, 20]),
    ):
        known: list[int] = []
        potential = Counting(quartic, lambda _, told=told, known=known: known.append(len(told)))  # type: ignore[misc]
        HMC(np.ones(3), potential, 0.1, **options, device="numpy").simulate_chain(6)  # type: ignore[arg-type]
        assert known == expected


@pytest.mark.parametrize("told", [{"writer": Scalars()}, {"logger": Lines(), "log_interval": 3}])
def test_reports_change_no_draw(told: dict[str, Any], device: str) -> None:
    rng = np.random.default_rng(0)
    given = {"momentum": rng.standard_normal((9, 2)), "uniform": rng.random(9)}
    silent, telling = (HMC(np.ones(2), quartic, 0.4, 2, device=device, **k) for k in ({}, told))
    for chain in (silent, telling):
        chain.simulate_chain(9)
        chain.simulate_chain(9, **given)
    assert_same(silent, telling)
