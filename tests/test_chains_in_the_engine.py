"""The classes with built-in potentials: whole transitions in the engine, and everything around them as elsewhere."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC, NUTS, MultiChainHMC, potentials, sample
from tests.table import assert_bits

START = np.linspace(-1, 1, 12).reshape(4, 3)
MEAN, STD = [1.0, -1.0, 0.5], [0.5, 1.0, 2.0]
CLASSES = [(HMC, {"num_steps": 4}), (NUTS, {})]
classes = pytest.mark.parametrize(("cls", "options"), CLASSES, ids=["HMC", "NUTS"])


def chains(cls: Any, options: dict[str, Any], device: str, dtype: Any = np.float64) -> Any:
    return cls(START.astype(dtype), potentials.Gaussian(MEAN, std=STD), 0.3, **options, seed=5, device=device)


@classes
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_a_state_dict_goes_on_bit_for_bit(cls: Any, options: dict[str, Any], dtype: Any, device: str) -> None:
    whole, first = (chains(cls, options, device, dtype) for _ in range(2))
    whole.simulate_chain(9)
    first.simulate_chain(4)
    second = chains(cls, options, device, dtype)
    second.load_state_dict(first.state_dict())
    second.simulate_chain(5)
    assert_bits(np.array(second.position_trajectory), np.array(whole.position_trajectory))
    assert second.stepsize == whole.stepsize == 0.3


def test_step_sizes_that_are_the_same_by_chance_stay_one_for_each_chain(device: str) -> None:
    made = [HMC(START, potentials.StandardNormal(3), np.full(4, 0.1), device=device) for _ in "ab"]
    made[0].load_state_dict(made[1].state_dict())
    np.testing.assert_array_equal(made[0].stepsize, np.full(4, 0.1))


def test_a_step_size_that_the_precision_cannot_hold_is_not_taken_over() -> None:
    sampler = chains(HMC, {}, "cpu", np.float32)
    with pytest.raises(ValueError, match="'stepsize' of state_dict is beyond what float32 can hold"):
        sampler.load_state_dict({**sampler.state_dict(), "stepsize": np.full(4, 1e-60)})


def test_a_state_is_not_rounded_to_another_precision(device: str) -> None:
    double, single = (chains(HMC, {}, device, dtype) for dtype in (np.float64, np.float32))
    with pytest.raises(ValueError, match="'position' of state_dict is float64, and this sampler computes in float32"):
        single.load_state_dict(double.state_dict())


@classes
def test_a_state_of_another_potential_is_refused(cls: Any, options: dict[str, Any], device: str) -> None:
    sampler = chains(cls, options, device)
    sampler.simulate_chain(3)
    for other in (potentials.Gaussian(MEAN, std=[0.5, 1.0, 2.5]), potentials.StandardNormal(3)):
        with pytest.raises(ValueError, match="state_dict is of another potential"):
            cls(START, other, device=device).load_state_dict(sampler.state_dict())
    cls(START, potentials.Gaussian(MEAN, std=STD), device=device).load_state_dict(sampler.state_dict())


def test_rounding_makes_no_other_potential(device: str, tmp_path: Path) -> None:
    """In single precision U is off by much where large terms cancel."""
    years = np.arange(1960.0, 2021)
    x = np.stack([np.ones_like(years), years], axis=1)
    y = 0.02 * years + 0.1 * np.random.default_rng(0).standard_normal(len(years))
    regression = potentials.LinearRegression(x, y, noise_std=0.1, prior_std=1e4)
    start = np.linalg.lstsq(x, y)[0].astype(np.float32)
    chain = HMC(start, regression, 1e-5, 3, device=device)
    chain.simulate_chain(50)
    chain.load_state_dict(chain.state_dict())
    options: Any = {"num_warmup": 0, "stepsize": 1e-5, "initial_position": start, "device": device}
    trace = sample(regression, 20, checkpoint=tmp_path / "run", **options)
    longer = sample(regression, 30, checkpoint=tmp_path / "run", resume=True, **options)
    assert_bits(longer.draws[:, :20], trace.draws)


@classes
def test_what_is_kept_between_runs_is_what_the_potential_gives(cls: Any, options: dict[str, Any], device: str) -> None:
    sampler = chains(cls, options, device)
    sampler.simulate_chain(3)
    energy, gradient = potentials.Gaussian(MEAN, std=STD).value_and_grad(sampler.current_position)
    state = sampler.state_dict()
    np.testing.assert_allclose(state["potential"], energy, rtol=1e-12)
    np.testing.assert_allclose(state["gradient"], gradient, rtol=1e-12)
    np.testing.assert_allclose(sampler.sample_stats["lp"][-1], -energy, rtol=1e-12)


@pytest.mark.parametrize("kind", ["hmc", "nuts"])
def test_chains_that_have_been_advanced_alone_go_on_together(kind: str, device: str) -> None:
    gaussian = potentials.Gaussian(MEAN, std=STD)
    made = [MultiChainHMC(START, gaussian, kind, stepsize=0.3, seed=5, device=device) for _ in "ab"]
    made[0].simulate_chains(2, [1])
    made[0].simulate_chains(3)
    made[1].simulate_chains(5)
    assert [chain.num_states for chain in made[0].chains] == [3, 5, 3, 3]
    for a, b in zip(made[0].chains, made[1].chains, strict=True):
        assert_bits(np.array(a.position_trajectory), np.array(b.position_trajectory[: a.num_states + 1]))


def test_a_signal_is_heard_and_loses_no_transition() -> None:
    sampler = NUTS(np.ones(50), potentials.StandardNormal(50), 0.01, max_tree_depth=8, device="cpu")
    begin = time.monotonic()
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    # Programs that were started in the background ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            sampler.simulate_chain(2_000_000)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 20
    done = sampler.num_states
    assert 0 < done == len(sampler.sample_stats["lp"]) == len(sampler.position_trajectory) - 1
    again = NUTS(np.ones(50), potentials.StandardNormal(50), 0.01, max_tree_depth=8, device="cpu")
    again.simulate_chain(done)
    assert_bits(again.current_position, sampler.current_position)


class Steep(potentials.Gaussian):
    """100 times what its parent is."""

    def value_and_grad(self, q: Any) -> tuple[Any, Any]:
        energy, gradient = super().value_and_grad(q)
        return 100 * energy, 100 * gradient


def test_a_subclass_is_what_it_computes(device: str) -> None:
    trace = sample(Steep(np.zeros(2), std=1.0), 200, num_warmup=150, device=device)
    assert 0.05 < trace.draws.std() < 0.2


def test_a_checkpoint_is_not_resumed_with_another_potential(device: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    gaussian = potentials.Gaussian(np.zeros(2), std=1.0)
    options: Any = {"num_warmup": 0, "stepsize": 0.5, "checkpoint": path, "device": device}
    sample(gaussian, 30, **options)
    other = potentials.Gaussian([100.0, 0.0], std=5.0)
    with pytest.raises(ValueError, match="cannot be resumed: it is of another run, potential is another one"):
        sample(other, 60, resume=True, **options)


@classes
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("power", [0.1, 0.17, 0.2, 0.23])
def test_a_chain_that_overflows_waits_for_its_neighbours_where_it_is(
    cls: Any, options: dict[str, Any], power: float, dtype: Any, device: str
) -> None:
    far = float(np.finfo(dtype).max) ** power
    start = np.array([[far, 0.0], [0.5, 0.5], [0.5, -0.5], [-far, far]], dtype)

    def after(transitions: int, rows: slice) -> list[Any]:
        """Chain 0 is one of these, or alone."""
        sampler = cls(start[rows], potentials.Banana(), 0.05, **options, seed=3, device=device)
        for _ in range(transitions):
            sampler.simulate_chain(1)
        kept, batch = np.array(sampler.position_trajectory)[1:, 0], sampler._batch
        return [kept, batch.position[0], batch.gradient[0], batch.potential[0]]

    for transitions in (1, 3):
        alone, among = after(transitions, slice(1)), after(transitions, slice(4))
        for one, other in zip(alone, among, strict=True):
            assert_bits(np.asarray(one), np.asarray(other))
        assert_bits(among[0][-1], among[1])


@classes
@pytest.mark.parametrize("shape", [(4, 1), (1, 3), (1, 1)], ids=str)
def test_a_run_writes_to_no_array_that_it_was_given(
    cls: Any, options: dict[str, Any], shape: tuple[int, int], device: str
) -> None:
    """With one chain, or one dimension, an array and its transpose are the same memory."""
    sampler = cls(np.ones(shape), potentials.StandardNormal(shape[1]), 0.3, **options, device=device)
    for _ in range(3):
        before = sampler._batch.position
        copied = before.copy()
        sampler.simulate_chain(1)
        assert_bits(before, copied)
    assert len(np.unique(np.array(sampler.position_trajectory)[:, 0, 0])) > 1


@pytest.mark.parametrize(
    ("options", "name"),
    [({"stepsize": 1e-50}, "stepsize"), ({"inv_mass": 1e-60}, "inv_mass"), ({"inv_mass": 1e60}, "inv_mass")],
    ids=["step", "small", "large"],
)
def test_what_the_precision_cannot_hold_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is beyond what float32 can hold"):
        HMC(np.zeros(3, np.float32), potentials.StandardNormal(3), **options)


def test_a_uniform_number_below_one_stays_below_it(device: str) -> None:
    sampler = HMC(np.zeros(3, np.float32), potentials.StandardNormal(3), 1e-6, device=device)
    sampler.simulate_chain(1, momentum=np.zeros((1, 3), np.float32), uniform=np.array([1 - 1e-12]))
    assert sampler.acceptance_probability == 1.0
