"""Chains and sweeps in executors: the same numbers, and nothing lost when one breaks."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import (
    ChainFailed,
    SweepFailed,
    epsilon_beta_sweep,
    estimate_learning_coeff_with_summary,
)
from tests.llc import KWARGS, Backwards, Ends, Minibatches, by_hand, quadratic, unhappy

START = np.array([0.1, -0.2, 0.3, 0.0, 0.05])


def processes(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "1 thread": lambda: ThreadPoolExecutor(1),
    "3 threads": lambda: ThreadPoolExecutor(3),
    "2 processes": lambda: processes(2),
    "backwards": Backwards,
}


@pytest.fixture(params=EXECUTORS.values(), ids=list(EXECUTORS))
def executor(request: pytest.FixtureRequest) -> Any:
    with request.param() as made:
        yield made


def estimate(loss_and_grad: Any = quadratic, **options: Any) -> dict[str, Any]:
    options = {"optimizer_kwargs": KWARGS, "num_draws": 6, "num_chains": 5, "device": "numpy", **options}
    return estimate_learning_coeff_with_summary(START, loss_and_grad, **options)


@pytest.mark.subprocess
def test_results_are_the_same_in_every_executor(executor: Executor) -> None:
    expected = [by_hand([START], quadratic, c, draws=6) for c in range(5)]
    assert estimate(executor=executor)["loss/trace"].tolist() == expected
    assert estimate(executor=executor, vectorized=True)["loss/trace"].tolist() == expected
    one_by_one = estimate(Minibatches())["loss/trace"]
    assert estimate(Minibatches(), executor=executor)["loss/trace"].tolist() == one_by_one.tolist()


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 5, 64, None])
def test_results_do_not_depend_on_how_chains_are_batched(cpus: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    executor = Backwards()
    found = estimate(executor=executor, vectorized=True)
    assert found["loss/trace"].tolist() == [by_hand([START], quadratic, c, draws=6) for c in range(5)]
    assert len(executor.order) == {1: 1, 2: 2, 3: 3, 4: 3, 5: 5, 64: 5, None: 1}[cpus]
    assert sorted(c for chains in executor.order for c in chains) == list(range(5))


@pytest.mark.subprocess
def test_sweeps_are_the_same_in_every_executor(executor: Executor) -> None:
    options: dict[str, Any] = {"nbeta": 100.0, "epsilons": [1e-3, 1e-2], "betas": [1, 50], "num_draws": 40}
    here = epsilon_beta_sweep(START, quadratic, **options, device="numpy")
    there = epsilon_beta_sweep(START, quadratic, **options, device="numpy", executor=executor)
    np.testing.assert_array_equal(here.losses, there.losses)
    np.testing.assert_array_equal(here.llc, there.llc)
    assert np.isfinite(here.llc[0]).all()


def test_progress_counts_what_an_executor_has_done(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as executor:
        estimate(executor=executor, progress=True)
    assert "30/30" in capsys.readouterr().err


# Failures.


@pytest.mark.subprocess
def test_a_process_that_dies_names_the_chain_and_keeps_those_that_finished() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match="chain 2 did not finish: BrokenProcess") as raised:
        estimate(Ends(2), executor=executor)
    assert raised.value.chain == 2
    assert isinstance(raised.value.__cause__, BrokenProcessPool)
    assert {c: r.tolist() for c, r in raised.value.results.items()} == {
        c: by_hand([START], quadratic, c, draws=6) for c in (0, 1)
    }


@pytest.mark.subprocess
def test_a_process_that_dies_in_a_sweep_names_the_point() -> None:
    with (
        processes(1) as executor,
        pytest.raises(SweepFailed, match=r"lr=0\.001, nbeta=100: BrokenProcessPool") as raised,
    ):
        epsilon_beta_sweep(
            START, Ends(0), nbeta=100.0, epsilons=[1e-3], betas=[1, 2], device="numpy", executor=executor
        )
    assert (raised.value.epsilon, raised.value.nbeta) == (1e-3, 100.0)
    assert np.isnan(raised.value.sweep.llc).all()


def test_chains_that_had_begun_are_waited_for_and_kept() -> None:
    """Chain 1 fails while 0 and 2 are under way; 3 and 4 have not begun, and never do."""
    begun: list[int] = []
    under_way = threading.Event()

    class Losses:
        def for_chains(self, chains: range) -> Any:
            (chain,) = chains
            begun.append(chain)
            if chain == 1:
                assert under_way.wait(10)
                raise OSError("disk full")
            if chain == 2:
                under_way.set()
                time.sleep(0.3)
            return quadratic

        def __call__(self, params: Any) -> Any:
            return quadratic(params)

    with (
        ThreadPoolExecutor(2) as executor,
        pytest.raises(ChainFailed, match=r"chain 1 failed in .*OSError: disk full") as r,
    ):
        estimate(Losses(), executor=executor, num_chains=3)
    assert sorted(r.value.results) == [0, 2]
    assert r.value.results[2].tolist() == by_hand([START], quadratic, 2, draws=6)
    assert sorted(begun) == [0, 1, 2]


def test_no_chain_begins_after_a_failure() -> None:
    executor = Backwards()

    class Losses(Minibatches):
        def for_chains(self, chains: range) -> Any:
            raise OSError(f"{chains[0]}")

    with pytest.raises(ChainFailed, match="chain 0 failed in step 0: OSError: 0") as raised:
        estimate(Losses())
    assert raised.value.results == {}
    with pytest.raises(ChainFailed, match="chain 0 failed"):
        estimate(Losses(), executor=executor)


@pytest.mark.subprocess
def test_errors_that_cannot_travel_between_processes_are_told_in_words() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match="chain 0 failed in step 0: Unhappy: 1 and 2") as r:
        estimate(unhappy, executor=executor, init_loss=0.0)
    assert "tests/llc.py" in str(r.value.__cause__).replace("\\", "/")  # where it was raised, for whoever looks for it


@pytest.mark.subprocess
def test_a_loss_function_that_cannot_be_sent() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match=r"chain 0 did not finish: .*(local|lambda|pickle)"):
        estimate(lambda params: quadratic(params), executor=executor)


def test_an_executor_that_was_shut_down() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ChainFailed, match="chain 0 did not finish: RuntimeError: cannot schedule new futures"):
        estimate(executor=executor)


@pytest.mark.parametrize("in_executor", [False, True])
def test_ctrl_c_comes_through_and_ends_threads(in_executor: bool) -> None:
    calls = []

    def interrupting(params: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            # As a terminal's, which the main thread gets, wherever this runs.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.001)
        return quadratic(params)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    executor = ThreadPoolExecutor(1) if in_executor else None
    try:
        with pytest.raises(KeyboardInterrupt):
            estimate(interrupting, num_burnin_steps=10**9, executor=executor)
        if executor is not None:
            executor.shutdown(wait=True)  # would wait for a billion steps
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) < 1000
