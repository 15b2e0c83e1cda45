"""Step sizes and masses of the warm-up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling import ChainFailed, DualAveraging
from grilly_optim.sampling._batch import Batch, Hmc
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._runners import runner_for
from grilly_optim.sampling.adaptation import learned_inv_mass, reasonable_stepsize, warmup_schedule

Array = np.ndarray[Any, np.dtype[Any]]


def by_hand(stepsize: float, rates: list[float], target: float) -> tuple[float, float]:
    """Hoffman and Gelman's algorithm 5, the lines on the step size: its last one, and the average."""
    mu, h, log_average = math.log(10 * stepsize), 0.0, 0.0
    for m, rate in enumerate(rates, 1):
        h = (1 - 1 / (m + 10)) * h + 1 / (m + 10) * (target - rate)
        log_step = mu - math.sqrt(m) / 0.05 * h
        log_average = m**-0.75 * log_step + (1 - m**-0.75) * log_average
        stepsize = math.exp(log_step)
    return stepsize, math.exp(log_average)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60),
    st.floats(1e-3, 1e3),
    st.floats(0.05, 0.95),
)
def test_dual_averaging_is_the_papers_for_every_chain(rates: list[Any], begin: float, target: float) -> None:
    adapt = DualAveraging([begin, 2 * begin], target)
    for pair in rates:
        adapt.update(np.array(pair))
    for chain in (0, 1):
        last, average = by_hand((chain + 1) * begin, [pair[chain] for pair in rates], target)
        np.testing.assert_allclose(adapt.stepsize[chain], last, rtol=1e-10)
        np.testing.assert_allclose(adapt.final()[chain], average, rtol=1e-10)


def test_a_rate_that_is_no_number_counts_as_0_and_one_above_1_as_1() -> None:
    one, other = DualAveraging([0.3, 0.3]), DualAveraging([0.3, 0.3])
    one.update(np.array([np.nan, 7.0]))
    other.update(np.array([0.0, 1.0]))
    np.testing.assert_array_equal(one.stepsize, other.stepsize)
    assert one.stepsize[0] < one.stepsize[1]


def test_before_the_first_transition_the_average_is_the_first_step_size() -> None:
    np.testing.assert_allclose(DualAveraging([0.1, 5.0]).final(), [0.1, 5.0], rtol=1e-15)


def test_a_restart_forgets() -> None:
    adapt = DualAveraging([1.0])
    for _ in range(10):
        adapt.update(np.array([0.1]))
    adapt.restart([0.2])
    adapt.update(np.array([0.5]))
    fresh = DualAveraging([0.2])
    fresh.update(np.array([0.5]))
    for name in ("stepsize", "log_average", "h_bar", "count", "mu"):
        np.testing.assert_array_equal(getattr(adapt, name), getattr(fresh, name))
        assert getattr(adapt, name).dtype == np.float64


@pytest.mark.parametrize("target", [0.3, 0.651, 0.8, 0.95])
def test_the_acceptance_rate_becomes_the_target(target: float) -> None:
    adapt, scales = DualAveraging(np.ones(3), target), np.array([0.01, 1.0, 100.0])
    for _ in range(2000):
        adapt.update(np.exp(-adapt.stepsize / scales))
    np.testing.assert_allclose(np.exp(-adapt.final() / scales), target, atol=0.01)


@pytest.mark.parametrize("stepsize", [0.0, -1.0, np.nan, np.inf, [0.1, 0.0]])
def test_step_sizes_that_are_none_are_refused(stepsize: Any) -> None:
    with pytest.raises(ValueError, match="stepsize must be above 0 and finite"):
        DualAveraging(stepsize)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.5, 2.0, np.nan])
def test_targets_that_are_none_are_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"target_accept must be in \(0, 1\)"):
        DualAveraging(1.0, target)


# Warm-up -> first buffer, windows, last buffer; the first row is the one that Stan documents.
SCHEDULES = {
    1000: (75, [25, 50, 100, 200, 500], 50),
    2000: (75, [25, 50, 100, 200, 400, 1100], 50),
    500: (75, [25, 50, 100, 200], 50),
    300: (75, [25, 50, 100], 50),
    150: (75, [25], 50),
    151: (75, [25, 1], 50),
    149: (22, [113], 14),
    100: (15, [75], 10),
    20: (3, [15], 2),
}


@pytest.mark.parametrize("num_warmup", SCHEDULES)
def test_windows_are_stans(num_warmup: int) -> None:
    first, windows, last = SCHEDULES[num_warmup]
    found = warmup_schedule(num_warmup)
    assert found == ((first, False), *((length, True) for length in windows), (last, False))


@pytest.mark.parametrize("num_warmup", [1, 2, 19])
def test_a_short_warm_up_adapts_the_step_size_alone(num_warmup: int) -> None:
    assert warmup_schedule(num_warmup) == ((num_warmup, False),)
    assert warmup_schedule(0) == ()


def stans_windows(num_warmup: int) -> list[int]:
    """Stan's windowed_adaptation, counter by counter."""
    counter, size, last = 0, 25, num_warmup - 50 - 1
    next_window, lengths, begin = 75 + 25 - 1, [], 75
    for counter in range(num_warmup):
        if counter == next_window:
            lengths.append(counter - begin + 1)
            begin = counter + 1
            if next_window == last:
                continue
            size *= 2
            next_window = counter + size
            if next_window != last and next_window + 2 * size >= num_warmup - 50:
                next_window = last
    return lengths


@given(st.integers(150, 20000))
def test_windows_are_stans_for_any_length(num_warmup: int) -> None:
    found = [length for length, learns in warmup_schedule(num_warmup) if learns]
    assert found == stans_windows(num_warmup)
    assert sum(length for length, _ in warmup_schedule(num_warmup)) == num_warmup


# The mass.


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_mass_is_regularized_as_stans(dense: bool, dtype: Any) -> None:
    draws = np.random.default_rng(1).standard_normal((30, 3, 4)).astype(dtype) * dtype(5)
    found = learned_inv_mass(draws, dense)
    for chain in range(3):
        covariance = np.cov(draws[:, chain].astype(np.float64), rowvar=False)
        expected = 30 / 35 * covariance + 1e-3 * 5 / 35 * np.eye(4)
        np.testing.assert_allclose(found[chain], expected if dense else np.diag(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dim", [1, 7])
def test_a_chains_mass_has_the_same_bits_alone(dense: bool, dim: int) -> None:
    draws = np.random.default_rng(2).standard_normal((123, 5, dim))
    together = learned_inv_mass(draws, dense)
    for chain in range(5):
        np.testing.assert_array_equal(learned_inv_mass(draws[:, chain : chain + 1], dense)[0], together[chain])


@pytest.mark.parametrize("dense", [False, True])
def test_chains_that_do_not_move_have_a_small_mass_that_is_one(dense: bool) -> None:
    found = learned_inv_mass(np.full((25, 2, 3), 1e8), dense)
    InverseMass(found, 3, np.float64, per_chain=True)  # would refuse what is not positive
    np.testing.assert_allclose(found[0], 1e-3 * 5 / 30 * (np.eye(3) if dense else np.ones(3)), rtol=1e-12)


# The search.


def normal(scales: Any) -> Any:
    """Independent normal numbers with these standard deviations."""

    def potential(q: Array) -> tuple[Array, Array]:
        return ((q / scales) ** 2).sum(axis=-1) / 2, q / np.square(scales)

    potential.vectorized = True  # type: ignore[attr-defined]
    return potential


def batch_of(position: Array, stepsize: float = 1.0, chains: Any = None) -> Batch:
    count, dim = position.shape
    return Batch(
        position,
        np.full(count, stepsize),
        InverseMass(1.0, dim, position.dtype),
        np.arange(count, dtype=np.uint32) if chains is None else np.asarray(chains, np.uint32),
        np.zeros(count, np.int64),
        seed=3,
    )


@pytest.mark.parametrize("begin", [1e-30, 1e-4, 0.5, 1.0, 300.0, 1e12])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_step_size_that_is_found_is_at_the_threshold(scale: float, begin: float) -> None:
    position = np.random.default_rng(4).standard_normal((6, 20)) * scale
    found = reasonable_stepsize(
        runner_for(normal(scale), Hmc(), 20, np.float64, "numpy"), batch_of(position.copy(), begin)
    )
    # Within doublings of what it began with, and in each chain of the order of the scale.
    np.testing.assert_allclose(np.log2(found / begin), np.round(np.log2(found / begin)), rtol=1e-12)
    assert ((found > 0.05 * scale) & (found < 4 * scale)).all()


def test_a_search_changes_nothing_and_does_not_depend_on_other_chains() -> None:
    runner = runner_for(normal(1.0), Hmc(), 1, np.float64, "numpy")
    position = np.random.default_rng(5).standard_normal((20, 1))
    batch = batch_of(position.copy())
    found = reasonable_stepsize(runner, batch)
    np.testing.assert_array_equal(batch.position, position)
    assert batch.done.tolist() == [0] * 20
    assert batch.stepsize.tolist() == [1.0] * 20
    assert batch.potential is None
    for chain in range(20):
        alone = batch_of(position[chain : chain + 1].copy(), chains=[chain])
        assert reasonable_stepsize(runner, alone)[0] == found[chain]
    assert not np.array_equal(found, reasonable_stepsize(runner, batch, search=7))  # other momenta


def test_a_flat_potential_has_no_step_size() -> None:
    runner = runner_for(lambda q: (0.0, np.zeros_like(q)), Hmc(), 2, np.float64, "numpy")
    with pytest.raises(
        ChainFailed, match=r"chain 0 has no step size at \[1\. 1\.\]: even steps of .* the potential is flat"
    ):
        reasonable_stepsize(runner, batch_of(np.ones((1, 2))))


def test_a_potential_that_jumps_everywhere_has_no_step_size() -> None:
    calls = []

    def potential(q: Array) -> tuple[float, Array]:
        calls.append(1)
        return 10.0 * len(calls), np.zeros_like(q)

    runner = runner_for(potential, Hmc(), 2, np.float64, "numpy")
    with pytest.raises(ChainFailed, match=r"chain 0 has no step size .* are rejected: the gradient does not belong"):
        reasonable_stepsize(runner, batch_of(np.ones((1, 2))))
