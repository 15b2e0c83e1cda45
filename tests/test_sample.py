"""`sample`: the right distribution, and the same draws however they are made."""

from __future__ import annotations

import multiprocessing
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.checkpoint import CheckpointError, save_checkpoint
from grilly_optim.sampling import ChainFailed, SamplingWarning, Trace, _sampling_chains, ess, sample
from grilly_optim.sampling._sampling_kernels import kernel_of
from grilly_optim.sampling._warmup import Adapting
from grilly_optim.sampling.potentials import Gaussian, StandardNormal
from tests.interrupts import interrupt_at
from tests.llc import Backwards
from tests.sampling_potentials import MEANS, SCALES, Breaks, BreaksAt, Ends, Vectorized, gaussian

KERNELS = "nuts", "hmc", "mala", "ghmc", "rwm"


def draw(potential: Any = gaussian, num_samples: int = 20, **options: Any) -> Trace:
    """A short run of three chains on the compiled device."""
    options = {"num_warmup": 60, "num_chains": 3, "initial_position": MEANS, "device": "cpu", **options}
    return sample(potential, num_samples, **options)


def same(one: Trace, other: Trace) -> None:
    """All that a run leaves, bit for bit."""
    np.testing.assert_array_equal(one.draws, other.draws)
    assert one.draws.dtype == other.draws.dtype
    assert set(one.sample_stats) == set(other.sample_stats)
    for name, values in one.sample_stats.items():
        np.testing.assert_array_equal(values, other.sample_stats[name])
    np.testing.assert_array_equal(one.stepsize, other.stepsize)
    np.testing.assert_array_equal(one.inv_mass, other.inv_mass)


# The distribution.


def z_scores(values: Any, expected: Any) -> Any:
    """Of means over chains and draws (C, n, D), in standard errors by the effective sample size."""
    sizes = np.array([ess(values[:, :, k]) for k in range(values.shape[2])])
    return (values.mean(axis=(0, 1)) - expected) / (values.std(axis=(0, 1)) / np.sqrt(sizes))


# 6 means and variances for each of 10 rows: |z| < 4.5 fails once in 2,400 runs of all rows, with a correct sampler. The
# seeds are fixed, so it does not happen by itself.
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_means_and_variances_of_a_gaussian(kernel: Any, dense: bool) -> None:
    mixing = np.array([[1.0, 0.0, 0.0], [0.9, 0.5, 0.0], [0.0, -1.0, 3.0]])
    covariance = mixing @ mixing.T
    count = 4000 if kernel == "rwm" else 1500
    trace = sample(
        Vectorized(Gaussian(MEANS, cov=covariance).value_and_grad),
        count,
        kernel=kernel,
        num_chains=4 if kernel == "nuts" else 8,
        num_warmup=500,
        initial_position=np.zeros(3),
        dense_mass=dense,
        device="cpu",
        seed=11,
    )
    draws = trace.draws[:, : 400 if kernel == "nuts" else None]
    assert np.abs(z_scores(draws, MEANS)).max() < 4.5
    assert np.abs(z_scores((draws - MEANS) ** 2, np.diag(covariance))).max() < 4.5
    assert trace.inv_mass is not None
    learned = np.median(trace.inv_mass, axis=0)
    np.testing.assert_allclose(learned, covariance if dense else np.diag(covariance), rtol=0.5, atol=0.6)


def test_the_kernels_reach_about_their_acceptance_rates() -> None:
    """The median of 16 chains. Trajectories are above their target: the average of step sizes is one of logarithms."""
    targets = {"nuts": 0.8, "hmc": 0.8, "mala": 0.574, "ghmc": 0.8, "rwm": 0.234}
    for kernel, target in targets.items():
        chains: dict[str, Any] = {"num_chains": 4 if kernel == "nuts" else 16, "num_warmup": 400}
        rates = draw(Vectorized(), 200, kernel=kernel, **chains).sample_stats["acceptance_rate"].mean(axis=1)
        assert abs(np.median(rates) - target) < (0.15 if kernel in ("nuts", "hmc") else 0.06), kernel


def test_a_target_of_ones_own_is_followed() -> None:
    low, high = (
        draw(kernel="hmc", num_steps=3, num_warmup=300, num_samples=100, target_accept=target) for target in (0.6, 0.95)
    )
    assert low.stepsize is not None
    assert high.stepsize is not None
    assert (low.stepsize > 1.3 * high.stepsize).all()
    assert high.sample_stats["acceptance_rate"].mean() > 0.9


def test_trajectories_of_hmc_have_a_fixed_mean_length_in_time() -> None:
    trace = draw(Vectorized(), 2000, kernel="hmc", num_warmup=200)
    stats = trace.sample_stats
    mean_steps = np.ceil(np.pi / 2 / stats["step_size"][:, 0])
    for chain in range(3):
        steps, n = stats["n_steps"][chain], mean_steps[chain]
        assert set(steps) == set(range(1, int(2 * n)))
        # Uniform on 1 ... 2n - 1: the mean is n; 5 standard errors, 1 in a million.
        assert abs(steps.mean() - n) < 5 * steps.std() / np.sqrt(len(steps))


def test_steps_are_as_many_as_one_says() -> None:
    assert set(draw(kernel="hmc", num_steps=2, num_samples=60).sample_stats["n_steps"].ravel()) == {1, 2, 3}
    for kernel in ("mala", "ghmc"):
        assert (draw(kernel=kernel).sample_stats["n_steps"] == 1).all()


def test_without_a_warm_up_nothing_is_adapted() -> None:
    trace = draw(num_warmup=0, stepsize=0.25, kernel="mala")
    assert (trace.sample_stats["step_size"] == 0.25).all()
    np.testing.assert_array_equal(trace.inv_mass, np.ones(3))
    walk = draw(num_warmup=0, kernel="rwm")
    assert (walk.sample_stats["step_size"] == 2.38 / np.sqrt(3)).all()


def test_nothing_is_adapted_once_the_warm_up_is_over() -> None:
    for kernel in KERNELS:
        sizes = draw(kernel=kernel).sample_stats["step_size"]
        assert (sizes == sizes[:, :1]).all()
        assert len(set(sizes[:, 0])) == 3  # each chain has found its own


# The same draws, however they are made.


def processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "3 threads": lambda: ThreadPoolExecutor(3),
    "2 processes": lambda: processes(2),
    "backwards": Backwards,
}


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


# Breaks.


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dense", [False, True])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(kernel: Any, dense: bool, tmp_path: Path) -> None:
    counting = Breaks(0, KeyboardInterrupt(), Vectorized())
    expected = draw(counting, kernel=kernel, dense_mass=dense)
    random = np.random.default_rng(KERNELS.index(kernel))
    for k, call in enumerate(random.integers(2, counting.calls, 5)):
        path = tmp_path / f"{k}.npz"
        try:
            with pytest.warns(SamplingWarning, match="interrupted: these are"):
                part = draw(
                    Breaks(call, KeyboardInterrupt(), Vectorized()), kernel=kernel, dense_mass=dense, checkpoint=path
                )
        except KeyboardInterrupt:
            pass  # in the warm-up
        else:
            assert part.interrupted
            assert 0 < part.num_draws < 20
            np.testing.assert_array_equal(part.draws, expected.draws[:, : part.num_draws])
        trace = draw(Vectorized(), kernel=kernel, dense_mass=dense, checkpoint=path, resume=True)
        same(trace, expected)
        assert not trace.interrupted


@pytest.mark.filterwarnings("ignore::grilly_optim.sampling.SamplingWarning")  # so short a warm-up is not enough
@pytest.mark.parametrize("kernel", ["ghmc", "rwm"])
def test_a_run_goes_on_from_a_break_in_any_call(kernel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one transition, so that the state behind each is one that is saved, and no block is made twice."""
    monkeypatch.setattr(_sampling_chains.Pace, "measure", lambda *_: None)
    options: dict[str, Any] = {"kernel": kernel, "num_warmup": 30, "num_samples": 4}
    counting = Breaks(0, KeyboardInterrupt(), Vectorized())
    expected = draw(counting, **options)
    for call in range(2, counting.calls + 1):
        path, rest = tmp_path / f"{call}.npz", Breaks(0, KeyboardInterrupt(), Vectorized())
        with pytest.raises(ChainFailed, match="OSError: no data"):
            draw(Breaks(call, OSError("no data"), Vectorized()), **options, checkpoint=path)
        same(draw(rest, **options, checkpoint=path, resume=True), expected)
        searching = 20 if kernel == "ghmc" else 0
        assert rest.calls <= counting.calls - call + 3 + searching


def test_what_persists_of_the_momentum_ends_with_the_mass_it_belongs_to() -> None:
    job = _sampling_chains.Job(
        Vectorized(), Adapting(20, kernel_of("ghmc", None, 3), False), 1, 1, 3, np.dtype(np.float64), "cpu", 1.0, 0
    )
    part, runners = _sampling_chains.Part(job, range(2), np.tile(MEANS, (2, 1))), job.runners()
    part.advance(job, runners, job.record(2), 3)
    assert part.batch.momentum is not None
    part.advance(job, runners, job.record(2), 15)  # the window
    assert part.batch.inv_mass.per_chain
    assert part.batch.momentum is None


def test_breaks_again_and_again(tmp_path: Path) -> None:
    """Each attempt gets as far as 40 calls lead."""
    expected, attempts = draw(Vectorized(), kernel="hmc"), 0
    while True:
        attempts += 1
        try:
            trace = draw(
                Breaks(40, OSError("no data"), Vectorized()), kernel="hmc", checkpoint=tmp_path / "run", resume=True
            )
            break
        except ChainFailed:
            continue
    same(trace, expected)
    assert attempts > 4


@pytest.mark.filterwarnings("ignore::grilly_optim.sampling.SamplingWarning")  # so short a warm-up is not enough
def test_an_interrupt_at_any_line_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    functions = ("_go_here", "_take", "advance", "extend", "_end", "save", "copy")
    options: dict[str, Any] = {"kernel": "mala", "num_warmup": 30, "num_samples": 8}
    expected = draw(Vectorized(), **options)
    interrupted, line = 0, 1
    while True:
        path = tmp_path / f"{line}.npz"
        before = sys.gettrace()
        sys.settrace(interrupt_at(line, functions))
        try:
            trace = draw(Vectorized(), **options, checkpoint=path)
            if not trace.interrupted:
                break
        except (KeyboardInterrupt, SamplingWarning):
            pass
        finally:
            sys.settrace(before)
        interrupted += 1
        same(draw(Vectorized(), **options, checkpoint=path, resume=True), expected)
        line += 11 if line > 40 else 1
    assert interrupted > 40


@pytest.mark.subprocess
@pytest.mark.parametrize("name", EXECUTORS)
def test_a_run_can_go_on_in_another_executor(name: str, tmp_path: Path) -> None:
    expected = draw(kernel="hmc")
    with pytest.raises(ChainFailed):
        draw(Breaks(400, OSError("no data")), kernel="hmc", checkpoint=tmp_path / "a")
    with EXECUTORS[name]() as executor:
        same(draw(kernel="hmc", checkpoint=tmp_path / "a", resume=True, executor=executor), expected)
        draw(kernel="hmc", num_samples=7, checkpoint=tmp_path / "b", executor=executor)
    same(draw(kernel="hmc", checkpoint=tmp_path / "b", resume=True), expected)


def test_a_finished_run_gives_its_draws_again_and_can_be_made_longer(tmp_path: Path) -> None:
    path, never = tmp_path / "run.npz", Breaks(3, AssertionError("called again"))
    expected = draw(num_samples=12, checkpoint=path)
    same(draw(Breaks(9, AssertionError()), num_samples=12, checkpoint=path, resume=True), expected)
    longer = draw(num_samples=30, checkpoint=path, resume=True)
    same(longer, draw(num_samples=30))
    assert longer.seconds is not None
    assert expected.seconds is not None
    assert longer.seconds > expected.seconds
    with pytest.raises(ValueError, match=r"it has 30 draws, and num_samples is 12"):
        draw(never, num_samples=12, checkpoint=path, resume=True)


def test_resume_without_a_file_begins(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.npz"
    same(draw(checkpoint=path, resume=True), draw())
    assert path.exists()
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_a_checkpoint_is_not_overwritten_by_a_run_that_begins(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    draw(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="resume=True goes on with it; remove it to begin anew"):
        draw(checkpoint=path)
    assert path.read_bytes() == before


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "kernel": ({"kernel": "hmc"}, "kernel is 'nuts' there, and 'hmc' here"),
    "num_chains": ({"num_chains": 2}, "num_chains is 3 there, and 2 here"),
    "dim": ({"initial_position": np.ones(2)}, "dim is 3 there, and 2 here"),
    "dtype": ({"initial_position": MEANS.astype(np.float32)}, "dtype is 'float64' there, and 'float32' here"),
    "seed": ({"seed": 1}, "seed is 0 there, and 1 here"),
    "num_warmup": ({"num_warmup": 61}, "num_warmup is 60 there, and 61 here"),
    "thin": ({"thin": 2}, "thin is 1 there, and 2 here"),
    "stepsize": ({"stepsize": 0.5}, "stepsize is None there, and 0.5 here"),
    "target_accept": ({"target_accept": 0.9}, "target_accept is 0.8 there, and 0.9 here"),
    "dense_mass": ({"dense_mass": True}, "dense_mass is False there, and True here"),
    "initial_position": ({"initial_position": MEANS + 1}, "initial_position is another one"),
    "potential": ({"potential": lambda q: (gaussian(q)[0] * 2, gaussian(q)[1])}, "where chain 0 is, the potential was"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "run.npz"
    draw(checkpoint=path)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(name: str, saved: Path) -> None:
    options, message = OTHERS[name]
    before = saved.read_bytes()
    with pytest.raises(ValueError, match=message) as raised:
        draw(**{"checkpoint": saved, "resume": True, **options})
    assert "of another run" in str(raised.value)
    assert saved.read_bytes() == before


def test_files_that_are_no_checkpoints_of_runs_are_refused(saved: Path, tmp_path: Path) -> None:
    other = save_checkpoint({"weights": np.ones(3)}, tmp_path / "net", 0.5)
    with pytest.raises(ValueError, match="it is a checkpoint, and not one of sample"):
        draw(checkpoint=other, resume=True)
    damaged = tmp_path / "damaged.npz"
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        draw(checkpoint=damaged, resume=True)


def test_checkpoints_are_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grilly_optim.sampling._sampling_checkpoint.EVERY_SECONDS", 0.0)
    monkeypatch.setattr("grilly_optim.sampling._sampling_checkpoint.SHARE", 1e9)
    path, copies = tmp_path / "run.npz", []

    def watching(q: Any) -> Any:
        if path.exists() and (not copies or path.stat().st_mtime_ns != copies[-1][0]):
            copies.append((path.stat().st_mtime_ns, path.read_bytes()))
        return gaussian(q)

    expected = draw(watching, kernel="mala", checkpoint=path)
    assert len(copies) > 3
    # A process that was killed leaves one of these.
    for k, (_, content) in enumerate(copies[:: len(copies) // 3]):
        killed = tmp_path / f"killed{k}"
        killed.write_bytes(content)
        same(draw(kernel="mala", checkpoint=killed, resume=True), expected)


# Ctrl-C.


def test_an_interrupt_before_the_first_draw_comes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(Breaks(10, KeyboardInterrupt()))


def interrupting(executor: Executor | None) -> Trace:
    begin = time.monotonic()

    def slow(q: Any) -> Any:
        nonlocal begin
        if time.monotonic() - begin > 0.7:
            begin = np.inf
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
        time.sleep(0.0005)
        return gaussian(q)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(SamplingWarning, match=r"interrupted: these are \d+ of 100000000 draws of each chain"):
            return draw(slow, 10**8, kernel="mala", num_warmup=0, stepsize=0.3, executor=executor)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_returns_the_draws_so_far() -> None:
    trace = interrupting(None)
    assert trace.interrupted
    assert trace.num_draws > 20
    same_draws = draw(kernel="mala", num_warmup=0, stepsize=0.3, num_samples=trace.num_draws)
    np.testing.assert_array_equal(trace.draws, same_draws.draws)


def test_ctrl_c_returns_what_threads_have_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grilly_optim.sampling._sampling_run.ROUND_SECONDS", 0.1)
    executor = ThreadPoolExecutor(3)
    trace = interrupting(executor)
    executor.shutdown(wait=True)  # would wait for a hundred million draws
    assert trace.interrupted
    assert trace.num_draws > 0


def test_ctrl_c_ends_threads_before_they_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grilly_optim.sampling._sampling_run.ROUND_SECONDS", 60.0)
    executor = ThreadPoolExecutor(3)
    with pytest.raises(KeyboardInterrupt):
        interrupting(executor)
    begin = time.monotonic()
    executor.shutdown(wait=True)
    assert time.monotonic() - begin < 20


# Failures.


def test_a_failure_keeps_the_draws_of_all_chains() -> None:
    counting = Breaks(0, KeyError())
    expected = draw(counting, kernel="mala", num_samples=50)
    with pytest.raises(ChainFailed, match=r"chain 1 failed in transition 10\d: OSError: no data") as raised:
        draw(Breaks(counting.calls - 13, OSError("no data")), kernel="mala", num_samples=50)
    error = raised.value
    assert isinstance(error.__cause__, OSError)
    assert error.chain == 1
    assert error.step is not None
    assert sorted(error.results) == [0, 1, 2]
    for chain, draws in error.results.items():
        assert len(draws) == error.step - 60
        np.testing.assert_array_equal(draws, expected.draws[chain, : len(draws)])


@pytest.mark.subprocess
@pytest.mark.parametrize("name", EXECUTORS)
def test_a_failure_in_an_executor_keeps_the_draws_of_all_chains(name: str) -> None:
    options: dict[str, Any] = {"kernel": "rwm", "num_samples": 3000, "num_warmup": 200}
    expected = draw(**options)
    there = expected.draws[1, 1500]
    first = int(np.flatnonzero((expected.draws[1] == there).all(axis=1))[0])
    message = f"chain 1 failed in transition {200 + first}: ZeroDivisionError: not here"
    with EXECUTORS[name]() as executor, pytest.raises(ChainFailed, match=message) as raised:
        draw(BreaksAt(there), **options, executor=executor)
    results = raised.value.results
    assert (raised.value.chain, raised.value.step) == (1, 200 + first)
    assert len(results[1]) == first
    for chain, draws in results.items():
        np.testing.assert_array_equal(draws, expected.draws[chain, : len(draws)])


@pytest.mark.subprocess
def test_a_process_that_dies_names_the_chain() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match="chain 0 did not finish: BrokenProcessPool"):
        draw(Ends(), executor=executor)


def test_a_potential_that_cannot_be_sent() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match=r"chain 0 did not finish: .*(local|lambda|pickle)"):
        draw(lambda q: gaussian(q), executor=executor)


# Divergences.


def cliff(q: Any) -> Any:
    """A normal distribution that has an end."""
    return (np.inf if q[0] > 1.5 else float(q @ q) / 2), q


def test_divergences_are_told_once_at_the_end() -> None:
    with pytest.warns(
        SamplingWarning, match=r"of 300 draws come from transitions that diverged \(by chain: 0: "
    ) as found:
        trace = draw(cliff, 100, kernel="hmc", initial_position=np.zeros(2))
    assert len(found) == 1
    assert found[0].filename == __file__.replace(".pyc", ".py")
    assert f"{trace.sample_stats['diverging'].sum()} of 300" in str(found[0].message)
    assert "target_accept" in str(found[0].message)


def test_a_random_walk_may_meet_walls() -> None:
    assert draw(cliff, 100, kernel="rwm", initial_position=np.zeros(2)).draws[:, :, 0].max() <= 1.5


# Progress.


def test_the_bar_shows_what_is_going_on(capsys: pytest.CaptureFixture[str]) -> None:
    def slow_cliff(q: Any) -> Any:
        time.sleep(0.001)  # the bar is drawn anew every tenth of a second
        return cliff(q)

    with pytest.warns(SamplingWarning):
        draw(slow_cliff, 100, kernel="hmc", initial_position=np.zeros(2), progress=True)
    shown = capsys.readouterr().err
    assert "480/480" in shown
    assert "warm-up, step size" in shown
    assert re.search(r"480/480.*, [1-9]\d* diverging, step size \d\.\d+\]$", shown.rstrip())


def test_the_bar_of_an_executor_and_of_a_resumed_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        draw(executor=executor, progress=True, checkpoint=tmp_path / "run")
    assert "240/240" in capsys.readouterr().err
    draw(num_samples=40, progress=True, checkpoint=tmp_path / "run", resume=True)
    shown = capsys.readouterr().err
    assert "300/300" in shown
    assert "240/300" in shown


# Bad input.


def one_by_one(q: Any) -> Any:
    if len(q) > 1:
        raise OSError("too many")
    return gaussian(q)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kernel": (
        {"kernel": "gibbs"},
        ValueError,
        "kernel must be one of 'nuts', 'hmc', 'mala', 'ghmc', 'rwm', got 'gibbs'",
    ),
    "no samples": ({"num_samples": 0}, ValueError, "num_samples must be 1 or more, got 0"),
    "half a sample": ({"num_samples": 1.5}, TypeError, "num_samples must be a whole number, got 1.5"),
    "negative warm-up": ({"num_warmup": -1}, ValueError, "num_warmup must be 0 or more, got -1"),
    "no chains": ({"num_chains": 0}, ValueError, "num_chains must be 1 or more, got 0"),
    "no thinning": ({"thin": 0}, ValueError, "thin must be 1 or more, got 0"),
    "target 0": ({"target_accept": 0.0}, ValueError, r"target_accept must be in \(0, 1\), got 0.0"),
    "target 1": ({"target_accept": 1}, ValueError, r"target_accept must be in \(0, 1\), got 1"),
    "target NaN": ({"target_accept": np.nan}, ValueError, r"target_accept must be in \(0, 1\), got nan"),
    "stepsize 0": ({"stepsize": 0.0}, ValueError, "stepsize must be above 0, got 0.0"),
    "stepsize NaN": ({"stepsize": np.nan}, ValueError, "stepsize must be above 0, and finite, got nan"),
    "stepsize text": ({"stepsize": "1"}, TypeError, "stepsize must be a real number, got '1'"),
    "stepsize missing": ({"num_warmup": 0}, ValueError, "stepsize is needed where num_warmup is 0"),
    "num_steps 0": ({"kernel": "hmc", "num_steps": 0}, ValueError, "num_steps must be 1 or more, got 0"),
    "num_steps elsewhere": ({"num_steps": 3}, ValueError, "num_steps is for kernel='hmc', got 3 for kernel='nuts'"),
    "dense text": ({"dense_mass": "yes"}, TypeError, "dense_mass must be True or False, got 'yes'"),
    "seed": ({"seed": -1}, ValueError, "seed must be from 0 to"),
    "executor": ({"executor": 4}, TypeError, "executor must be a concurrent.futures.Executor or None, got int"),
    "progress": ({"progress": "bar"}, TypeError, "progress must be True or False, got 'bar'"),
    "no position": ({"initial_position": None}, ValueError, "initial_position is needed for a potential without"),
    "text position": ({"initial_position": ["a"]}, TypeError, "initial_position must hold real numbers"),
    "ragged position": ({"initial_position": [[1.0], [1.0, 2.0]]}, ValueError, "initial_position is no array"),
    "positions of 2": (
        {"initial_position": np.zeros((2, 3))},
        ValueError,
        r"must have shape \(D,\) or \(3, D\), got \(2, 3\)",
    ),
    "empty position": ({"initial_position": np.zeros(0)}, ValueError, r"must have shape .*, got \(0,\)"),
    "number": ({"initial_position": 1.0}, ValueError, r"must have shape .*, got \(\)"),
    "NaN position": ({"initial_position": [0.0, np.nan, 0.0]}, ValueError, "initial_position must be finite"),
    "dim": ({"potential": StandardNormal(4)}, ValueError, r"must have shape \(4,\) or \(3, 4\), got \(3,\)"),
    "no potential": ({"potential": 3}, TypeError, "potential must be a callable"),
    "resume": ({"resume": True}, ValueError, "resume=True needs checkpoint"),
    "checkpoint": ({"checkpoint": 3}, TypeError, "checkpoint must be a str or a path, got int"),
    "directory": ({"checkpoint": "."}, ValueError, "checkpoint must be the path of a file"),
    "infinite": (
        {"potential": lambda q: (np.inf, q)},
        ValueError,
        "U is not finite at the initial position of chain 0",
    ),
    "NaN": ({"potential": lambda q: (np.nan, q)}, ValueError, "U is not finite at the initial position of chain 0"),
    "NaN gradient": ({"potential": lambda q: (1.0, q * np.nan)}, ValueError, "the gradient is not finite"),
    "raises": ({"potential": lambda q: 1 // 0}, ChainFailed, "chain 0 failed where it begins: ZeroDivisionError"),
    "shape of U": ({"potential": lambda q: (q, q)}, ChainFailed, r"chain 0 failed .* single number, got shape \(3,\)"),
    "shape of the gradient": ({"potential": lambda q: (0.0, q[:2])}, ChainFailed, r"must have the shape \(3,\)"),
    "no gradient": ({"potential": lambda q: 0.0}, ChainFailed, r"must return a tuple \(U, gradient\), got float"),
    "shape of all U": (
        {"potential": Vectorized(lambda q: (0.0, q))},
        ChainFailed,
        "chain 0 failed where it begins: Value",
    ),
    "batch": (
        {"potential": Vectorized(one_by_one)},
        ChainFailed,
        "the batch of all chains failed where it begins: OSErr",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_error(name: str) -> None:
    options, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        draw(**options)


def test_nothing_is_written_where_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finite"):
        draw(lambda q: (np.nan, q), checkpoint=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_potential_without_a_gradient_is_enough_for_a_random_walk() -> None:
    same(draw(lambda q: gaussian(q)[0], kernel="rwm"), draw(kernel="rwm"))
