"""`sample`: Ctrl-C returns the draws so far."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import SamplingWarning, Trace
from tests.sampling_potentials import Breaks, gaussian
from tests.sampling_runs import draw


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
