"""`sample`: the same draws however they are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import _sampling_chains, sample
from grilly_optim.sampling.potentials import Gaussian, StandardNormal
from tests.sampling_potentials import MEANS, SCALES, Vectorized
from tests.sampling_runs import EXECUTORS, KERNELS, draw, same


@pytest.mark.subprocess
@pytest.mark.parametrize("name", EXECUTORS)
def test_draws_are_the_same_in_every_executor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampling_chains, "ROUND_SECONDS", 0.02)  # several rounds; other modules have their own
    monkeypatch.setattr("grilly_optim.sampling._sampling_run.ROUND_SECONDS", 0.02)
    with EXECUTORS[name]() as executor:
        for kernel in KERNELS:
            here = draw(kernel=kernel, dense_mass=kernel == "hmc")
            same(draw(kernel=kernel, dense_mass=kernel == "hmc", executor=executor), here)
            same(draw(Vectorized(), kernel=kernel, dense_mass=kernel == "hmc", executor=executor), here)


@pytest.mark.filterwarnings("ignore::grilly_optim.sampling.SamplingWarning")  # so short a warm-up is not enough
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_chain_does_not_depend_on_the_others(kernel: Any) -> None:
    for dense in (False, True):
        many = draw(Vectorized(), kernel=kernel, num_chains=5, dense_mass=dense)
        for chains in (1, 2):
            few = draw(Vectorized(), kernel=kernel, num_chains=chains, dense_mass=dense)
            np.testing.assert_array_equal(few.draws, many.draws[:chains])


def test_one_dimension_is_no_exception() -> None:
    for kernel in KERNELS:
        options: dict[str, Any] = {"kernel": kernel, "num_warmup": 100, "device": "cpu"}
        many = sample(StandardNormal(1), 20, num_chains=3, **options)
        same_chain = sample(StandardNormal(1), 20, num_chains=1, **options)
        np.testing.assert_array_equal(many.draws[:1], same_chain.draws)


@pytest.mark.parametrize("kernel", KERNELS)
def test_draws_do_not_depend_on_blocks(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(kernel=kernel, thin=2)
    random = np.random.default_rng(3)
    monkeypatch.setattr(
        _sampling_chains.Pace, "measure", lambda pace, *_: setattr(pace, "transitions", int(random.integers(1, 30)))
    )
    same(draw(kernel=kernel, thin=2), expected)


def test_thinning_keeps_every_third() -> None:
    every, third = draw(num_samples=30), draw(num_samples=10, thin=3)
    np.testing.assert_array_equal(third.draws, every.draws[:, 2::3])
    for name, values in third.sample_stats.items():
        np.testing.assert_array_equal(values, every.sample_stats[name][:, 2::3])
    assert third.thin == 3


def test_seeds_are_of_their_own() -> None:
    same(draw(seed=5), draw(seed=5))
    assert not np.array_equal(draw(seed=5).draws, draw(seed=6).draws)


def test_initial_positions_are_uniform_and_the_chains_own() -> None:
    class Recording(StandardNormal):
        def value_and_grad(self, q: Any) -> Any:
            seen.append(np.array(q))
            return super().value_and_grad(q)

    seen: list[Any] = []
    sample(Recording(50), 1, num_warmup=0, stepsize=0.01, num_chains=40, kernel="mala", device="cpu")
    begin = seen[0]
    assert begin.shape == (40, 50)
    assert (np.abs(begin) <= 2).all()
    # 2,000 of them: mean and variance within 5 standard errors, 1 in a million.
    assert abs(begin.mean()) < 5 * np.sqrt(4 / 3 / 2000)
    assert abs(begin.var() - 4 / 3) < 5 * np.sqrt((16 / 5 - 16 / 9) / 2000)
    seen.clear()
    sample(Recording(50), 1, num_warmup=0, stepsize=0.01, num_chains=2, kernel="mala", device="cpu")
    np.testing.assert_array_equal(seen[0], begin[:2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transitions_compute_in_the_dtype_of_the_initial_position(dtype: Any) -> None:
    assert draw(initial_position=MEANS.astype(dtype)).draws.dtype == dtype
    assert draw(initial_position=[1, -2, 3]).draws.dtype == np.float64


def test_each_chain_begins_where_it_is_to() -> None:
    begin = np.arange(9.0).reshape(3, 3)
    given = begin.copy()
    trace = draw(initial_position=given, num_warmup=0, stepsize=1e-9, kernel="mala", num_samples=1)
    np.testing.assert_allclose(trace.draws[:, 0], begin, atol=1e-6)
    np.testing.assert_array_equal(given, begin)


def test_the_trace_knows_its_run() -> None:
    trace = draw(Gaussian(MEANS, std=SCALES), kernel="hmc", seed=9, thin=2)
    assert (trace.kernel, trace.seed, trace.thin, trace.num_warmup, trace.interrupted) == ("hmc", 9, 2, 60, False)
    assert trace.seconds is not None
    assert trace.draws.flags.c_contiguous
    assert trace.draws.shape == (3, 20, 3)
