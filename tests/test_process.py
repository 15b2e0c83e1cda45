"""Threads, forks and the end of the process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.optim import AdamW
from tests.table import Array, assert_bits, draw


def train(device: str, seed: int, n: int = 100_000, steps: int = 5) -> Array:
    rng = np.random.default_rng(seed)
    p = rng.standard_normal(n).astype(np.float32)
    optimizer = AdamW([p], lr=0.1, device=device)
    for _ in range(steps):
        optimizer.step(gradients=[rng.standard_normal(n).astype(np.float32)])
    return p


def test_several_threads_train_at_once(device: str) -> None:
    with ThreadPoolExecutor(8) as executor:
        results = list(executor.map(lambda seed: train(device, seed), range(8)))
    for seed, result in enumerate(results):
        assert_bits(result, train("numpy", seed), f"thread {seed}")


def test_several_threads_on_one_optimizer_take_turns(device: str) -> None:
    p, g = np.zeros(50_000, np.float32), np.ones(50_000, np.float32)
    optimizer = AdamW([p], device=device)
    with ThreadPoolExecutor(4) as executor:
        list(executor.map(lambda _: optimizer.step(gradients=[g]), range(40)))
    assert optimizer.state_dict()["state"][0]["step"] == 40
    q = np.zeros(50_000, np.float32)
    reference = AdamW([q], device="numpy")
    for _ in range(40):
        reference.step(gradients=[g])
    assert_bits(p, q)


def test_arrays_come_and_go_in_several_threads(device: str) -> None:
    before = grilly_optim.counters(device)["bytes_allocated"]

    def churn(seed: int) -> None:
        for k in range(50):
            array = grilly_optim.empty(1 + (seed * 37 + k * 101) % 5000, device=device)
            array[...] = seed
            assert (array == seed).all()

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(churn, range(8)))
    assert grilly_optim.counters(device)["bytes_allocated"] == before


def test_the_list_of_gradients_may_be_emptied_while_a_step_runs(device: str) -> None:
    p = np.zeros(3_000_000, np.float32)
    optimizer = AdamW([p], device=device)
    gradients = [np.ones(3_000_000, np.float32)]
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            gradients[:] = [np.ones(3_000_000, np.float32)]

    thread = threading.Thread(target=meddle)
    thread.start()
    for _ in range(10):
        optimizer.step(gradients=gradients)
    stop.set()
    thread.join()
    assert np.isfinite(p).all()


@pytest.mark.cases("cpu", "vulkan", "staged")
def test_a_signal_during_a_step_does_not_lose_its_count(device: str) -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    p = np.zeros((2_000_000, 2), np.float32)[:, 0]  # strided: worked on in a copy
    g = np.ones(2_000_000, np.float32)
    optimizer = AdamW([p], lr=1.0, weight_decay=0.0, device=device)
    gc.collect()  # an exception in a finalizer would go nowhere
    before = signal.signal(signal.SIGALRM, stop)
    interrupted = 0
    try:
        for delay in (1e-4, 1e-3, 3e-3, 1e-2) * 3:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                for _ in range(1000):
                    optimizer.step(gradients=[g])
            except Stop:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 12
    # With a constant gradient every step moves by lr: the position is the count.
    np.testing.assert_allclose(p, -optimizer.state_dict()["state"][0]["step"], rtol=1e-4)


def test_the_same_thread_cannot_enter_a_step_twice(device: str) -> None:
    """As a signal handler would."""
    optimizer = AdamW([draw(5)], device=device)
    with pytest.raises(RuntimeError, match="in the middle of a step"):
        optimizer._turns.run(optimizer.state_dict)
    optimizer.step(gradients=[draw(5)])


@pytest.mark.subprocess
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.cases("cpu")
def test_a_child_forked_in_the_middle_of_a_step_can_end(device: str) -> None:
    code = f"""
import os, threading, time, numpy as np
from grilly_optim.optim import AdamW
p = np.zeros(5_000_000, np.float32)
optimizer = AdamW([p], device={device!r})
def train():
    while True: optimizer.step(gradients=[p])
threading.Thread(target=train, daemon=True).start()
time.sleep(0.1)
children = []
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        raise SystemExit(0)
    children.append(pid)
print([os.waitpid(pid, 0)[1] for pid in children])
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "[0, 0, 0, 0, 0]\n"


@pytest.mark.cases("cpu")
@pytest.mark.parametrize("threads", ["1", "2", "3", "7"])
def test_the_number_of_threads_does_not_matter(threads: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRILLY_THREADS", threads)
    assert_bits(train(device, 1, 1_000_003), train("numpy", 1, 1_000_003))


def _in_child(device: str, queue: Any) -> None:
    try:
        queue.put(train(device, 3))
    except grilly_optim.DeviceUnavailable as error:
        queue.put(str(error))


def _forked(device: str) -> Any:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_in_child, args=(device, queue))
    process.start()
    result = queue.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    return result


@pytest.mark.subprocess
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork(device: str) -> None:
    """Threads of its own on the CPU; on Vulkan a clear error, and a parent that goes on."""
    expected = train(device, 3)
    result = _forked(device)
    if device.startswith("vulkan"):
        assert "forked" in result
        assert "spawn" in result
    else:
        assert_bits(result, expected)
    assert_bits(train(device, 3), expected)


@pytest.mark.subprocess
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.cases("vulkan", "staged")
def test_an_optimizer_taken_through_a_fork_refuses_and_leaves_quietly(device: str) -> None:
    p = grilly_optim.zeros(1000, device=device)
    optimizer = AdamW([p], device=device)
    optimizer.step(gradients=[p])
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            try:
                optimizer.step(gradients=[p])
            except grilly_optim.DeviceUnavailable as error:
                os.write(write, str(error).encode())
            del optimizer, p  # destructors must not touch the driver
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    with os.fdopen(read, "rb") as told:
        assert b"opened before this process was forked" in told.read()
    optimizer.step(gradients=[p])


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "ending", ["pass", "raise SystemExit(0)", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"]
)
def test_the_process_ends_cleanly_with_everything_open(ending: str, device: str) -> None:
    code = f"""
import signal, threading, time, numpy as np, grilly_optim
from grilly_optim.optim import AdamW
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell switches it off for what runs in the background
p = grilly_optim.zeros(200_000, device={device!r})
optimizer = AdamW([p], device={device!r})
optimizer.step(gradients=[np.ones(200_000, np.float32)])
def background():
    while True: optimizer.step(gradients=[p])
threading.Thread(target=background, daemon=True).start()
time.sleep(0.05)
{ending}
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    interrupted = "SIGINT" in ending
    assert result.returncode == (-2 if interrupted else 0), (result.returncode, result.stderr)
    assert result.stderr == "" or interrupted
