"""Whole transitions in the engine: those of the host, and the same bits however and wherever they are made."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim import DeviceUnavailable, _devices
from grilly_optim.sampling import _device_runner, potentials
from grilly_optim.sampling._batch import Given, Hmc, Nuts
from grilly_optim.sampling._device_runner import DeviceRunner
from grilly_optim.sampling.adaptation import DualAveraging
from tests.table import assert_bits
from tests.trajectory_table import MASSES, METHODS, POTENTIALS, End, Start, advance, assert_same

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
EVERY_POTENTIAL = pytest.mark.parametrize("name", POTENTIALS)
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
EVERY_MASS = pytest.mark.parametrize("mass", MASSES)
DECISIONS = ("accepted", "diverging", "n_steps", "tree_depth", "reached_max_treedepth")
ENGINES = pytest.mark.cases("cpu", "vulkan", "staged")
LAVAPIPE = pytest.mark.cases("vulkan")


def bound(dtype: Any) -> float:
    return 1e-9 if dtype == np.float64 else 2e-3


def test_every_potential_of_the_engine_is_in_the_table() -> None:
    assert {p.kernel for p in POTENTIALS.values()} == set(POTENTIALS) == set(_devices._core.potentials())


# --- the host's transitions


@DTYPES
@EVERY_MASS
@EVERY_METHOD
@EVERY_POTENTIAL
def test_transitions_are_the_hosts(name: str, method: str, mass: str, dtype: Any) -> None:
    """The same decisions; positions and energies within 1e-9 in float64, 2e-3 in float32, over five transitions."""
    start = Start(POTENTIALS[name], METHODS[method], mass, dtype)
    runner = start.runner("cpu")
    assert isinstance(runner, DeviceRunner)
    made, wanted = advance(start, runner, 5), advance(start, start.host_runner(), 5)
    for which in made.stats.keys() & set(DECISIONS):
        assert_bits(made.stats[which], wanted.stats[which], which)
    np.testing.assert_allclose(made.positions, wanted.positions, rtol=bound(dtype), atol=bound(dtype))
    for which in ("lp", "energy", "acceptance_rate", "step_size"):
        np.testing.assert_allclose(
            made.stats[which], wanted.stats[which], rtol=0, atol=10 * bound(dtype), err_msg=which
        )
    np.testing.assert_array_equal(made.batch.done, wanted.batch.done)


@ENGINES
@DTYPES
def test_given_momenta_and_uniforms_take_the_place_of_drawn_ones(device: str, dtype: Any) -> None:
    start = Start(POTENTIALS["gaussian"], Hmc(3), "vectors", dtype)
    rng = np.random.default_rng(3)
    given = Given(rng.standard_normal((6, 5, 5)).astype(dtype), rng.random((6, 5)).astype(np.float32))
    made = advance(start, device, 6, given=given)
    wanted = advance(start, start.host_runner(), 6, given=given)
    np.testing.assert_allclose(made.positions, wanted.positions, atol=bound(dtype))
    assert_bits(made.stats["accepted"], wanted.stats["accepted"])
    assert not np.array_equal(made.positions, advance(start, device, 6).positions)


@ENGINES
def test_trees_take_given_momenta(device: str) -> None:
    start = Start(POTENTIALS["gaussian"], Nuts(5), "matrix")
    given = Given(np.random.default_rng(3).standard_normal((4, 5, 5)))
    made, wanted = (advance(start, runner, 4, given=given) for runner in (device, start.host_runner()))
    np.testing.assert_allclose(made.positions, wanted.positions, atol=bound(np.float64))
    assert_bits(made.stats["n_steps"], wanted.stats["n_steps"])


# --- the same bits


def on_vulkan() -> list[Any]:
    """Every potential in single precision, three in double; a pipeline each, which takes a while to compile."""
    double = {"standard_normal", "gaussian_dense", "logistic_regression"}
    return [
        pytest.param(name, dtype, id=f"{name}-{np.dtype(dtype)}")
        for name, dtype in itertools.product(POTENTIALS, (np.float32, np.float64))
        if dtype == np.float32 or name in double
    ]


@LAVAPIPE
@EVERY_METHOD
@pytest.mark.parametrize(("name", "dtype"), on_vulkan())
def test_vulkan_gives_the_bits_of_compiled_code(device: str, name: str, dtype: Any, method: str) -> None:
    for mass in MASSES:
        start = Start(POTENTIALS[name], METHODS[method], mass, dtype, chains=21)
        wanted = advance(start, "cpu", 7, thin=2, adapt=0.8)
        assert_same(advance(start, device, 3, 4, thin=2, adapt=0.8), wanted)


@pytest.mark.cases("staged")
@EVERY_METHOD
def test_memory_of_its_own_makes_no_difference(device: str, method: str) -> None:
    for name, mass in itertools.product(("gaussian", "logistic_regression"), MASSES):
        start = Start(POTENTIALS[name], METHODS[method], mass, np.float32, chains=21)
        wanted = advance(start, "cpu", 7, thin=2, adapt=0.8)
        assert_same(advance(start, device, 3, 4, thin=2, adapt=0.8), wanted)


@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx2", "base")])
@DTYPES
@EVERY_METHOD
@EVERY_POTENTIAL
def test_instruction_sets_make_no_difference(
    name: str, method: str, dtype: Any, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = [Start(POTENTIALS[name], METHODS[method], mass, dtype, chains=19) for mass in ("number", "matrices")]
    wanted = [advance(start, "cpu", 4, adapt=0.8) for start in starts]
    monkeypatch.setenv("GRILLY_ISA", isa)
    for start, other in zip(starts, wanted, strict=True):
        assert_same(advance(start, "cpu", 4, adapt=0.8), other)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@DTYPES
@EVERY_METHOD
def test_chains_do_not_depend_on_their_company(
    method: str, dtype: Any, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches around 16, the number of chains that lie side by side, on any number of threads."""
    start = Start(POTENTIALS["eight_schools"], METHODS[method], "vectors", dtype, chains=33)
    whole = advance(start, "cpu", 5, adapt=0.7)
    monkeypatch.setenv("GRILLY_THREADS", threads)
    for chosen in ([32], range(1, 16), range(16), range(3, 20), range(33), [5, 2, 30]):
        assert_same(advance(start, "cpu", 5, adapt=0.7, chosen=chosen), whole, list(chosen))


@LAVAPIPE
@pytest.mark.parametrize("method", ["jitter", "nuts"])
def test_chains_on_vulkan_do_not_depend_on_their_company(device: str, method: str) -> None:
    start = Start(POTENTIALS["eight_schools"], METHODS[method], "vectors", np.float32, chains=70)
    whole = advance(start, "cpu", 3)
    for chosen in ([69], range(1, 65), range(70)):
        assert_same(advance(start, device, 3, chosen=chosen), whole, list(chosen))


@LAVAPIPE
def test_more_chains_than_groups_in_a_row(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Start(POTENTIALS["gaussian"], Hmc(2), dtype=np.float32, chains=300)
    monkeypatch.setenv("GRILLY_MAX_GROUPS", "2")
    assert_same(advance(start, device, 3), advance(start, "cpu", 3))


@pytest.mark.cases("cpu", "vulkan")
@EVERY_METHOD
def test_runs_may_be_cut_anywhere(device: str, method: str) -> None:
    start = Start(POTENTIALS["funnel"], METHODS[method], "vector", np.float32)
    whole = advance(start, device, 11, adapt=0.8)
    for parts in ((1,) * 11, (4, 7), (10, 0, 1)):
        assert_same(advance(start, device, *parts, adapt=0.8), whole)


@pytest.mark.cases("cpu", "vulkan")
@EVERY_METHOD
def test_every_thin_th_is_kept(device: str, method: str) -> None:
    start = Start(POTENTIALS["funnel"], METHODS[method], "vector", np.float32)
    every = advance(start, device, 11)
    for thin, parts in itertools.product((1, 2, 3, 11, 12), ((11,), (2, 5, 4), (1,) * 11)):
        some = advance(start, device, *parts, thin=thin)
        assert_bits(some.positions, every.positions[thin - 1 :: thin])
        assert some.stats.keys() == every.stats.keys()
        for which, values in some.stats.items():
            assert_bits(values, every.stats[which][thin - 1 :: thin], which)
        assert_bits(some.batch.position, every.batch.position)


@LAVAPIPE
@pytest.mark.parametrize("method", [Hmc(1), Hmc(1, jitter=True), Nuts(1), Nuts(2), Nuts(10)], ids=str)
def test_many_transitions_of_one_dimension_are_complete_in_software(device: str, method: Hmc | Nuts) -> None:
    """Where nearly all turns of loops are those that do not depend on the number of dimensions."""
    start = Start(potentials.StandardNormal(1), method, dtype=np.float32, chains=9)
    assert_same(advance(start, device, 4000, thin=10), advance(start, "cpu", 4000, thin=10))


@LAVAPIPE
def test_narrow_data_are_complete_in_software(device: str) -> None:
    """Many rows of few features: loops in loops."""
    rng = np.random.default_rng(5)
    potential = potentials.LogisticRegression(rng.standard_normal((900, 2)), rng.random(900) < 0.5, 1.0)
    start = Start(potential, Hmc(6), dtype=np.float32, chains=9, stepsize=0.02)
    assert_same(advance(start, device, 20), advance(start, "cpu", 20))


# --- dispatches


@LAVAPIPE
def test_fifty_transitions_of_a_thousand_chains_are_one_dispatch(device: str) -> None:
    start = Start(potentials.StandardNormal(10), Hmc(10), dtype=np.float32, chains=1024)
    runner, batch, record = start.runner(device), start.batch(), start.record(1024)
    before = grilly_optim.counters(device)
    runner.run(batch, 50, record)
    after = grilly_optim.counters(device)
    assert [after[which] - before[which] for which in ("dispatches", "submits")] == [1, 1]
    assert_bits(record.positions, advance(start, "cpu", 50).positions)


@LAVAPIPE
@pytest.mark.parametrize("method", [Hmc(3), Hmc(2, jitter=True), Nuts(3)], ids=str)
def test_what_does_not_fit_into_a_dispatch_is_split(device: str, method: Hmc | Nuts) -> None:
    rng = np.random.default_rng(5)
    potential = potentials.LogisticRegression(rng.standard_normal((569, 31)), rng.random(569) < 0.5, 1.0)
    start = Start(potential, method, dtype=np.float32, chains=4, stepsize=0.02)
    before = grilly_optim.counters(device)
    made = advance(start, device, 3)
    assert grilly_optim.counters(device)["dispatches"] - before["dispatches"] > 3
    assert_same(made, advance(start, "cpu", 3))


@LAVAPIPE
@pytest.mark.parametrize("method", [Hmc(3), Nuts(3)], ids=str)
def test_a_step_that_fits_into_no_dispatch_is_refused(device: str, method: Hmc | Nuts) -> None:
    rng = np.random.default_rng(5)
    potential = potentials.LogisticRegression(rng.standard_normal((2000, 31)), rng.random(2000) < 0.5, 1.0)
    start = Start(potential, method, dtype=np.float32)
    with pytest.raises(DeviceUnavailable, match="turns of loops at most, and one step in this potential takes"):
        advance(start, device, 1)


# --- step sizes


@ENGINES
@DTYPES
@pytest.mark.parametrize("options", [{}, {"gamma": 0.2, "t0": 20.0}], ids=str)
@pytest.mark.parametrize("method", ["fixed", "length", "nuts"])
def test_step_sizes_are_those_of_dual_averaging(
    device: str, method: str, options: dict[str, float], dtype: Any
) -> None:
    start = Start(POTENTIALS["gaussian"], METHODS[method], dtype=dtype)
    made = advance(start, device, 40, adapt=0.8, **options)
    wanted = DualAveraging(start.batch().stepsize, 0.8, **options)
    sizes = []
    for rates in made.stats["acceptance_rate"]:
        sizes.append(wanted.stepsize)
        wanted.update(rates)
    close = 1e-11 if dtype == np.float64 else 1e-4
    assert made.adapt is not None
    np.testing.assert_allclose(made.stats["step_size"], sizes, rtol=close)
    assert np.ptp(made.stats["step_size"], axis=0).min() > 0.1
    for which in ("stepsize", "log_average", "h_bar", "count", "mu"):
        np.testing.assert_allclose(
            getattr(made.adapt, which), getattr(wanted, which), rtol=close, atol=close, err_msg=which
        )


class Other:
    """Adapts in its own way."""

    def __init__(self, stepsize: Any) -> None:
        self.stepsize = stepsize

    def update(self, acceptance_rate: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize("adapt", [Other, lambda sizes: DualAveraging(sizes, kappa=0.5)], ids=["other", "kappa"])
def test_only_dual_averaging_is_known_to_the_engine(adapt: Any) -> None:
    start = Start(POTENTIALS["gaussian"], Hmc(2))
    batch, record = start.batch(), start.record(5)
    with pytest.raises(TypeError, match=r"the engine adapts step sizes by DualAveraging with kappa 0\.75, got "):
        start.runner("cpu").run(batch, 3, record, adapt=adapt(batch.stepsize))
    assert record.seen == 0
    assert_bits(batch.position, start.batch().position)


# --- numbers that end


def far_out() -> dict[str, Start]:
    huge = np.full(3, 1e30)
    return {
        "a funnel too narrow": Start(potentials.Funnel(3), Hmc(3), position=[-2000.0, 1.0, 1.0]),
        "a funnel whose mouth is too wide": Start(potentials.Funnel(3), Hmc(3), position=[2000.0, 1e30, 1e30]),
        "means far away": Start(potentials.Gaussian(huge, std=np.full(3, 1e-10)), Hmc(3)),
        "steps too long": Start(potentials.Banana(), Hmc(20), stepsize=1e4),
        "steps much too long": Start(
            potentials.LinearRegression(np.ones((4, 3)), np.ones(4), 1.0, 1.0), Hmc(5), stepsize=1e38
        ),
        "eight schools without an end": Start(potentials.EightSchools(), Hmc(5), stepsize=1e6),
    }


@ENGINES
@pytest.mark.parametrize("name", far_out())
@pytest.mark.parametrize("trees", [False, True], ids=["hmc", "nuts"])
def test_proposals_beyond_all_numbers_are_rejected_and_reported(device: str, name: str, trees: bool) -> None:
    given = far_out()[name]
    start = Start(
        given.potential, Nuts(8) if trees else given.method, "number", np.float32, 5, given.stepsize, given.position
    )
    first = start.batch().position
    made = advance(start, device, 4)
    assert made.stats["diverging"].all()
    assert not made.stats["accepted"].any()
    assert_bits(made.positions, np.broadcast_to(first, made.positions.shape))
    assert np.isfinite(made.stats["acceptance_rate"]).all()
    assert_same(made, advance(start, "cpu", 4))


@pytest.mark.cases("cpu", "vulkan")
@pytest.mark.parametrize("method", [Hmc(3), Nuts(4)], ids=str)
@pytest.mark.parametrize("stepsize", [1e-30, 1e-300])
def test_steps_of_no_length_end(device: str, method: Hmc | Nuts, stepsize: float) -> None:
    start = Start(potentials.StandardNormal(3), method, dtype=np.float32, stepsize=stepsize)
    made = advance(start, device, 3)
    assert_bits(made.positions, np.broadcast_to(start.batch().position, made.positions.shape))
    assert (made.stats["acceptance_rate"] == 1).all()
    assert not made.stats["diverging"].any()
    if isinstance(method, Nuts):
        assert (made.stats["tree_depth"] == 4).all()
        assert made.stats["reached_max_treedepth"].all()


@pytest.mark.cases("cpu", "vulkan")
def test_a_rise_of_energy_beyond_delta_max_is_a_divergence(device: str) -> None:
    rates = []
    for delta_max in (1e-3, np.inf):
        start = Start(potentials.StandardNormal(3), Hmc(3, delta_max=delta_max), stepsize=1.2, dtype=np.float32)
        stats = advance(start, device, 30).stats
        rises = -np.log(stats["acceptance_rate"])
        np.testing.assert_array_equal(stats["diverging"], rises > delta_max)
        rates.append(stats["diverging"].mean())
    assert rates[0] > 0.2
    assert rates[1] == 0


# --- sizes


@pytest.mark.cases("cpu", "vulkan")
@pytest.mark.parametrize("dim", [1, 1000])
@pytest.mark.parametrize("method", ["fixed", "nuts"])
def test_one_dimension_and_a_thousand(device: str, dim: int, method: str) -> None:
    limited = Hmc(3) if method == "fixed" else Nuts(1)
    if device != "cpu" and dim == 1000 and method == "nuts":
        limited = Nuts(1)
        dim = 300
    start = Start(potentials.StandardNormal(dim), limited, "vector", np.float32, chains=1)
    made = advance(start, device, 3)
    assert_same(made, advance(start, "cpu", 3))
    wanted = advance(start, start.host_runner(), 3)
    np.testing.assert_allclose(made.positions, wanted.positions, atol=1e-4)


@ENGINES
@pytest.mark.parametrize("method", ["fixed", "persistent", "nuts"])
def test_no_transitions_change_nothing(device: str, method: str) -> None:
    start = Start(POTENTIALS["gaussian"], METHODS[method], dtype=np.float32)
    made, untouched = advance(start, device, 0, adapt=0.8), start.batch()
    assert made.record.seen == 0
    assert made.positions.shape == (0, 5, 5)
    assert_bits(made.batch.position, untouched.position)
    assert_bits(made.batch.done, untouched.done)


def exact_energy(q: Any, p: Any) -> Any:
    return (np.square(q, dtype=np.float64).sum(-1) + np.square(p, dtype=np.float64).sum(-1)) / 2


@pytest.mark.parametrize("decided", [0.0, 2.0], ids=["accepted", "rejected"])
@ENGINES
def test_energies_are_sums_in_double(device: str, decided: float) -> None:
    """Of float32 positions and momenta, to 1e-7: steps are so short that nothing moves."""
    dim = 100_000 if device == "cpu" else 1000
    start = Start(potentials.StandardNormal(dim), Hmc(1), "number", np.float32, chains=3, stepsize=1e-30)
    momentum = np.random.default_rng(8).standard_normal((1, 3, dim)).astype(np.float32)
    made = advance(start, device, 1, given=Given(momentum, np.full((1, 3), decided, np.float32)))
    assert made.stats["accepted"].all() == (decided == 0.0)
    q = start.batch().position
    assert_bits(made.positions[0], q)
    np.testing.assert_allclose(made.stats["lp"][0], -exact_energy(q, np.zeros(1)), rtol=1e-7)
    wanted = exact_energy(q, np.zeros(1)) + 0.7 * exact_energy(momentum[0], np.zeros(1))
    np.testing.assert_allclose(made.stats["energy"][0], wanted, rtol=1e-7)


def test_energies_of_trees_are_sums_in_double() -> None:
    start = Start(potentials.StandardNormal(100_000), Nuts(1), dtype=np.float32, chains=3, stepsize=1e-30)
    made = advance(start, "cpu", 1)
    np.testing.assert_allclose(made.stats["lp"][0], -exact_energy(made.positions[0], np.zeros(1)), rtol=1e-7)


def test_constants_of_u_leave_small_differences_alone() -> None:
    """A rise of 1e-3 in an energy of 1e9, which float32 alone could not tell from none."""
    potential = potentials.LinearRegression(np.zeros((2, 3)), np.full(2, 4e4), 1.0, 1.0)
    plain = potentials.LinearRegression(np.zeros((2, 3)), np.zeros(2), 1.0, 1.0)
    made, wanted = (advance(Start(p, Hmc(4), dtype=np.float32), "cpu", 20) for p in (potential, plain))
    assert_bits(made.positions, wanted.positions)
    np.testing.assert_allclose(made.stats["acceptance_rate"], wanted.stats["acceptance_rate"], atol=1e-5)


@pytest.mark.cases("cpu", "vulkan")
@pytest.mark.parametrize("method", ["persistent", "nuts"])
def test_blocks_between_which_signals_are_looked_for_change_nothing(
    device: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Start(POTENTIALS["gaussian"], METHODS[method], dtype=np.float32)
    given = Given(np.random.default_rng(3).standard_normal((9, 5, 5)).astype(np.float32))
    whole = advance(start, device, 9, thin=2, adapt=0.8, given=given)
    runner, counts = start.runner(device), []
    engine = runner._engine  # type: ignore[attr-defined]

    class Counting:
        step_numbers = engine.step_numbers

        def run(self, **arguments: Any) -> None:
            counts.append(arguments["count"])
            engine.run(**arguments)

    monkeypatch.setattr(runner, "_engine", Counting())
    monkeypatch.setattr(_device_runner, "WORK", 0)
    monkeypatch.setattr(_device_runner, "SECONDS", 0)
    assert_same(advance(start, runner, 9, thin=2, adapt=0.8, given=given), whole)
    assert counts == [1] * 9


def test_an_interrupt_leaves_whole_transitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the middle of writing down what is over."""
    start = Start(POTENTIALS["gaussian"], METHODS["persistent"])
    whole = advance(start, "cpu", 6, adapt=0.8)
    runner, batch, record = start.runner("cpu"), start.batch(), start.record(5)
    adapt = DualAveraging(batch.stepsize, 0.8)
    extend, calls = record.extend, []

    def interrupted(*arguments: Any) -> None:
        extend(*arguments)
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(record, "extend", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run(batch, 4, record, adapt=adapt)
    assert record.seen == 4
    runner.run(batch, 2, record, adapt=adapt)
    assert_same(End(batch, record, adapt), whole)
