"""HMC: the sampler as one writes it in NumPy, its books, and what it refuses."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim._devices import open_device
from grilly_optim.sampling import HMC, ChainFailed, _batch, _host_hmc, ess
from tests.chains import (
    MASSES,
    Counting,
    Lines,
    Scalars,
    as_matrix,
    assert_same,
    assert_whole,
    failing_at,
    left_behind,
    normal,
    plain_hmc,
    quartic,
    row_wise,
)
from tests.interrupts import interrupt_at
from tests.table import Array, assert_bits, works

masses = pytest.mark.parametrize("mass", MASSES.values(), ids=list(MASSES))
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


# Transitions.


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


# Books.


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


# Reports.


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


# Failures.

FAILURES: dict[str, tuple[Any, str]] = {
    "raises": (ZeroDivisionError("no data"), "ZeroDivisionError: no data"),
    "U alone": (1.0, r"TypeError: the potential must return a tuple \(U, gradient\), got float"),
    "several U": ((np.ones(2), np.ones(3)), r"ValueError: U must be a single number, got shape \(2,\)"),
    "a complex U": ((1j, np.ones(3)), "TypeError: the potential must return a real U, got complex"),
    "no gradient": ((1.0, None), "TypeError: the gradient must be real, got NoneType"),
    "a short gradient": ((1.0, np.ones(2)), r"ValueError: the gradient must have the shape \(3,\) of the position"),
}


@pytest.mark.parametrize(("answer", "message"), FAILURES.values(), ids=list(FAILURES))
def test_a_potential_that_fails(answer: Any, message: str, device: str) -> None:
    """Chain and transition are named, what is over is kept, and the chain can go on as if nothing had been."""
    chain = HMC(np.ones(3), failing_at(1 + 4 * 3 + 1, answer), 0.4, 3, device=device)
    with pytest.raises(ChainFailed, match=rf"^chain 0 failed in transition 4: {message}") as caught:
        chain.simulate_chain(10)
    assert (caught.value.chain, caught.value.step) == (0, 4)
    assert type(caught.value.__cause__).__name__ in message
    assert chain.num_states == 4
    assert_whole(chain)
    chain.simulate_chain(6)
    expected = HMC(np.ones(3), quartic, 0.4, 3, device=device)
    expected.simulate_chain(10)
    assert_same(chain, expected)


def test_a_chain_of_several_that_fails(device: str) -> None:
    def far(q: Array) -> tuple[Array, Array]:
        if (q > 50).any():
            raise ValueError("too far")
        return row_wise(q)

    far.vectorized = True  # type: ignore[attr-defined]
    starts = np.zeros((3, 2))
    momentum = np.zeros((1, 3, 2))
    momentum[0, 1] = 1e4
    chain = HMC(starts, far, 0.1, 2, device=device)
    with pytest.raises(ChainFailed, match=r"^chain 1 failed in transition 0: ValueError: too far") as caught:
        chain.simulate_chain(1, momentum=momentum)
    assert (caught.value.chain, caught.value.step) == (1, 0)


def test_a_vectorized_potential_of_one_chain_that_fails_once(device: str) -> None:
    """It does not fail again where one looks for the chain."""

    def act(count: int) -> None:
        if count == 3:
            raise OSError("no data")

    chain = HMC(np.ones((1, 3)), Counting(row_wise, act), device=device)
    with pytest.raises(ChainFailed, match=r"^chain 0 failed in transition 2: OSError: no data"):
        chain.simulate_chain(10)


def test_a_failure_at_the_initial_position() -> None:
    for potential, message in ((failing_at(0, KeyError("x")), "KeyError: 'x'"), (lambda q: 1.0, "TypeError: the pot")):
        with pytest.raises(ChainFailed, match=f"^chain 0 failed at the initial position: {message}"):
            HMC(np.ones(3), potential, device="numpy")

    def together(q: Array) -> Any:
        if len(q) > 1:
            raise KeyError("x")
        return row_wise(q)

    together.vectorized = True  # type: ignore[attr-defined]
    with pytest.raises(ChainFailed, match=r"^the batch of chains failed at the initial position: KeyError: 'x'"):
        HMC(np.ones((2, 3)), together, device="numpy")


def test_an_interrupt_keeps_what_is_over(device: str) -> None:
    chain = HMC(np.ones(3), failing_at(1 + 4 * 3 + 1, KeyboardInterrupt()), 0.4, 3, device=device)
    with pytest.raises(KeyboardInterrupt):
        chain.simulate_chain(10)
    assert chain.num_states == 4
    chain.simulate_chain(6)
    expected = HMC(np.ones(3), quartic, 0.4, 3, device=device)
    expected.simulate_chain(10)
    assert_same(chain, expected)


@pytest.mark.cases("cpu")
def test_an_interrupt_anywhere_leaves_whole_transitions(device: str) -> None:
    """Ctrl-C in front of any line of what runs and writes down transitions, and then on as if nothing had been."""
    expected = HMC(np.ones(2), quartic, 0.4, 2, device=device)
    expected.simulate_chain(6)
    places = ("run", "_write", "add", "reserve", "_transition", "_begin")
    files = (_host_hmc.__file__, _batch.__file__)
    interrupted = 0
    for line in range(1, 500):
        chain = HMC(np.ones(2), quartic, 0.4, 2, device=device)
        interrupt = interrupt_at(line, places)
        sys.settrace(lambda frame, *rest, f=interrupt: f(frame, *rest) if frame.f_code.co_filename in files else None)
        try:
            chain.simulate_chain(3)
            done = True
        except KeyboardInterrupt:
            done = False
        finally:
            sys.settrace(None)
        assert_whole(chain)
        chain.simulate_chain(6 - chain.num_states)
        assert_same(chain, expected)
        if done:
            break
        interrupted += 1
    assert done
    assert interrupted > 100


def test_a_chain_is_not_entered_twice() -> None:
    """A potential that calls its own sampler, say."""
    chain: Any = None

    def curious(q: Array) -> tuple[float, Array]:
        if chain is not None:
            chain.simulate_chain(1)
        return quartic(q)

    chain = HMC(np.ones(2), curious, device="numpy")
    with pytest.raises(ChainFailed, match="in the middle of a step"):
        chain.simulate_chain(1)


# State.


@masses
@dtypes
def test_a_resumed_chain_goes_on_bit_for_bit(mass: Any, dtype: Any, device: str) -> None:
    chain = HMC(np.ones((2, 5), dtype), quartic, [0.3, 0.5], 3, mass(5), seed=8, device=device)
    chain.simulate_chain(6)
    chain.clear_position_trajectory(2)
    saved = chain.state_dict()
    kept = copy.deepcopy(saved)
    chain.simulate_chain(5)
    np.testing.assert_equal(saved, kept)
    other = HMC(np.zeros((2, 5), dtype), quartic, device=device)
    other.load_state_dict(saved)
    other.simulate_chain(5)
    np.testing.assert_equal(saved, kept)
    assert_same(chain, other)
    np.testing.assert_equal(other.state_dict(), chain.state_dict())
    assert_bits(np.asarray(other.inv_mass), np.asarray(chain.inv_mass))


def test_a_resumed_chain_evaluates_nothing() -> None:
    chain = HMC(np.ones(3), quartic, device="numpy")
    potential = Counting()
    other = HMC(np.ones(3), potential, device="numpy")
    other.load_state_dict(chain.state_dict())
    assert potential.count == 1


BAD_STATES: dict[str, tuple[Any, type[Exception], str]] = {
    "no dict": (lambda s: [1], TypeError, "state_dict must be a dict, got list"),
    "empty": (lambda s: {}, ValueError, "state_dict has no 'sampler'"),
    "of another": (lambda s: s | {"sampler": "MCMC"}, ValueError, "is of the sampler 'MCMC', expected 'HMC'"),
    "shape": (lambda s: s | {"position": np.ones((1, 2))}, ValueError, r"'position' has shape \(1, 2\) .* \(1, 3\)"),
    "text": (lambda s: s | {"gradient": [["a"] * 3]}, TypeError, "'gradient' of state_dict must hold real numbers"),
    "NaN": (lambda s: s | {"potential": [np.nan]}, ValueError, "'potential' of state_dict must be finite"),
    "stepsize": (lambda s: s | {"stepsize": [0.0]}, ValueError, "'stepsize' of state_dict must be above 0"),
    "mass": (lambda s: s | {"inv_mass": -1.0}, ValueError, "inv_mass must be positive"),
    "steps": (lambda s: s | {"num_steps": 0}, ValueError, "'num_steps' of state_dict must be 1 or more, got 0"),
    "seed": (lambda s: s | {"seed": -1}, ValueError, "'seed' of state_dict must be from 0"),
    "too long": (lambda s: s | {"num_states": 1}, ValueError, "has 2 positions, and there were 1 transitions"),
    "stats": (lambda s: s | {"sample_stats": {}}, ValueError, "'sample_stats' of state_dict must have lp, energy"),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "accepted"}, ValueError, "has no 'accepted'"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD_STATES.values(), ids=list(BAD_STATES))
def test_bad_states_change_nothing(change: Any, error: type[Exception], message: str) -> None:
    chain = HMC(np.ones(3), quartic, device="numpy")
    chain.simulate_chain(2)
    before = chain.state_dict()
    with pytest.raises(error, match=message):
        chain.load_state_dict(change(chain.state_dict()))
    np.testing.assert_equal(chain.state_dict(), before)


# Bad input.

BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "whole numbers": ({"initial_position": np.ones(3, int)}, TypeError, "initial_position must be float32 or float64"),
    "half precision": (
        {"initial_position": np.ones(3, np.float16)},
        TypeError,
        "initial_position .* got dtype float16",
    ),
    "0-d": ({"initial_position": np.array(1.0)}, ValueError, r"initial_position must have shape \(D,\).* got \(\)"),
    "no dimension": ({"initial_position": np.ones(0)}, ValueError, r"initial_position .* got \(0,\)"),
    "no chain": ({"initial_position": np.ones((0, 3))}, ValueError, r"initial_position .* got \(0, 3\)"),
    "a ragged list": ({"initial_position": [[1.0], [1.0, 2.0]]}, ValueError, "initial_position is no array"),
    "NaN": ({"initial_position": np.array([np.nan])}, ValueError, "initial_position must be finite"),
    "infinite energy": (
        {"pot_energy_func": lambda q: (np.inf, q)},
        ValueError,
        "energy at initial_position .* got inf",
    ),
    "an energy of NaN": ({"pot_energy_func": lambda q: (np.nan, q)}, ValueError, "energy at initial_position .* nan"),
    "no gradient": (
        {"pot_energy_func": lambda q: (0.0, q / 0)},
        ValueError,
        "gradient at initial_position must be fin",
    ),
    "no potential": ({"pot_energy_func": None}, TypeError, "pot_energy_func must be a callable .* got NoneType"),
    "stepsize 0": ({"stepsize": 0.0}, ValueError, r"stepsize must be above 0, got 0\.0"),
    "stepsize NaN": ({"stepsize": np.nan}, ValueError, "stepsize must be above 0, and finite, got nan"),
    "stepsizes": ({"stepsize": np.ones(2)}, TypeError, "stepsize must be a real number"),
    "no steps": ({"num_steps": 0}, ValueError, r"num_steps must be from 1 to 2\^24 - 1, got 0"),
    "1.0 steps": ({"num_steps": 1.0}, TypeError, r"num_steps must be a whole number, got 1\.0"),
    "no mass": ({"inv_mass": 0}, ValueError, "inv_mass must be positive, got 0"),
    "asymmetric": ({"inv_mass": np.triu(np.ones((3, 3)))}, ValueError, "inv_mass must be symmetric"),
    "another mass": ({"inv_mass": np.ones(2)}, ValueError, r"inv_mass must have shape .* got \(2,\)"),
    "logger": ({"logger": "x"}, TypeError, r"logger must have debug\(\), got str"),
    "interval": ({"log_interval": 0}, ValueError, "log_interval must be 1 or more, got 0"),
    "a path as writer": ({"writer": "./runs"}, TypeError, r"writer must have add_scalar\(.*\), got str"),
    "tag": ({"writer_tag": 1}, TypeError, "writer_tag must be a string, got 1"),
    "seed": ({"seed": -1}, ValueError, "seed must be from 0"),
    "device": ({"device": "cuda"}, RuntimeError, "device='cuda' is not known"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HMC(**{"initial_position": np.ones(3), "pot_energy_func": quartic, "device": "numpy", **change})


def test_a_device_without_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def single(device: str | None, elements: int | None = None) -> Any:
        choice, backend = open_device(device, elements)
        return replace(choice, info=replace(choice.info, name="a small GPU", float64=False)), backend

    monkeypatch.setattr(_host_hmc, "open_device", single)
    HMC(np.ones(3, np.float32), quartic, device="numpy")
    with pytest.raises(TypeError, match="positions are float64, which a small GPU does not support: use float32"):
        HMC(np.ones(3), quartic, device="numpy")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("stepsize", -1.0, ValueError, "stepsize must be above 0"),
        ("stepsize", [0.1, 0.0], ValueError, r"stepsize\[1\] must be above 0"),
        (
            "stepsize",
            [0.1] * 3,
            ValueError,
            r"stepsize must be a number, or 2 numbers, one per chain, got shape \(3,\)",
        ),
        ("num_steps", 0, ValueError, r"num_steps must be from 1 to 2\^24 - 1"),
        ("inv_mass", -1.0, ValueError, "inv_mass must be positive"),
    ],
)
def test_bad_settings_change_nothing(name: str, value: Any, error: type[Exception], message: str) -> None:
    chain = HMC(np.ones((2, 3)), quartic, device="numpy")
    before = chain.state_dict()
    with pytest.raises(error, match=message):
        setattr(chain, name, value)
    np.testing.assert_equal(chain.state_dict(), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": -1}, ValueError, "n must be 0 or more, got -1"),
        ({"n": 2.0}, TypeError, r"n must be a whole number, got 2\.0"),
        ({"n": 2, "momentum": np.ones((2, 3))}, ValueError, r"momentum must have shape \(2, 4\), got \(2, 3\)"),
        ({"n": 2, "momentum": np.ones((1, 4))}, ValueError, r"momentum must have shape \(2, 4\), got \(1, 4\)"),
        ({"n": 2, "momentum": np.full((2, 4), np.nan)}, ValueError, "momentum must be finite"),
        (
            {"n": 2, "momentum": np.ones((2, 4), complex)},
            TypeError,
            "momentum must hold real numbers, got dtype complex",
        ),
        ({"n": 2, "uniform": np.ones(3)}, ValueError, r"uniform must have shape \(2,\), got \(3,\)"),
        ({"n": 2, "uniform": np.full(2, 1.5)}, ValueError, r"uniform must be in \[0, 1\], got 1\.5 to 1\.5"),
    ],
)
def test_bad_draws(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    chain = HMC(np.ones(4), quartic, device="numpy")
    with pytest.raises(error, match=message):
        chain.simulate_chain(**arguments)
    assert chain.num_states == 0


def test_clearing_takes_whole_numbers() -> None:
    with pytest.raises(TypeError, match=r"n must be a whole number, got 1\.5"):
        HMC(np.ones(4), quartic, device="numpy").clear_position_trajectory(1.5)  # type: ignore[arg-type]
