"""Relaxations of whole networks and their process: threads, forks, lost devices, memory that runs out, the end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim._devices import open_device
from tests.relaxation import arguments, network, on_device
from tests.table import assert_bits

pytestmark = pytest.mark.cases("vulkan", "staged")


def backend(device: str) -> Any:
    return open_device(device)[1]


def test_threads_on_one_relaxation_take_turns(device: str) -> None:
    nets = [network(batch=30, clamped=(), seed=k % 2) for k in range(8)]
    made = backend(device).relaxation("gaussian", "squared", True, nets[0].dims, 30, nets[0].phi)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda net: made.run(**arguments(net, 20)), nets))
    for k, net in enumerate(nets):
        for a, b in zip(net.u, nets[k % 2].u, strict=True):
            assert_bits(a, b)


@pytest.mark.subprocess
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_one_taken_through_a_fork_refuses_and_leaves_quietly(device: str) -> None:
    net = network()
    made = backend(device).relaxation("gaussian", "squared", True, net.dims, net.batch, net.phi)
    made.run(**arguments(net, 2))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        signal.alarm(60)  # one that does run waits for a thread that is not there
        try:
            try:
                made.run(**arguments(net, 2))
            except grilly_optim.DeviceUnavailable as error:
                os.write(write, str(error).encode())
            del made  # destructors must not touch the driver
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    with os.fdopen(read, "rb") as told:
        assert b"opened before this process was forked" in told.read()
    made.run(**arguments(net, 2))


@pytest.mark.parametrize("where", ["submit", "wait"])
def test_a_lost_device_says_so(where: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    before = net.copy(np.float64)
    made = backend(device).relaxation("gaussian", "squared", True, net.dims, net.batch, net.phi)
    monkeypatch.setenv("GRILLY_FAIL", where)
    with pytest.raises(grilly_optim.DeviceLost, match="was lost while work"):
        made.run(**arguments(net, 2))
    monkeypatch.delenv("GRILLY_FAIL")
    with pytest.raises(grilly_optim.DeviceLost, match="was lost earlier"):
        made.run(**arguments(net, 2))
    for a, b in zip(net.u, before.u, strict=True):
        assert_bits(a, b)
    on_device(backend(device), net, 2)


def test_memory_that_runs_out_is_given_back(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(dims=(100, 300, 10), batch=64)
    before = net.copy(np.float64)
    on_device(backend(device), network(), 1)  # a device that is new takes a staging ring
    gc.collect()
    held = backend(device).counters()["bytes_allocated"]
    monkeypatch.setenv("GRILLY_MEMORY_LIMIT", str(held + 400_000))
    with pytest.raises(grilly_optim.OutOfDeviceMemory, match="GRILLY_MEMORY_LIMIT"):
        on_device(backend(device), net, 2)
    monkeypatch.delenv("GRILLY_MEMORY_LIMIT")
    assert backend(device).counters()["bytes_allocated"] == held
    for a, b in zip(net.u, before.u, strict=True):
        assert_bits(a, b)
    on_device(backend(device), net, 2)


@pytest.mark.subprocess
def test_the_process_ends_cleanly_in_the_middle_of_a_run(device: str) -> None:
    code = f"""
import threading, time
from grilly_optim._devices import open_device
from tests.relaxation import arguments, network
net = network(batch=100)
made = open_device({device!r})[1].relaxation("gaussian", "squared", True, net.dims, net.batch, net.phi)
def background():
    while True: made.run(**arguments(net, 50))
threading.Thread(target=background, daemon=True).start()
time.sleep(0.3)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_run_gives_the_interpreter_away(device: str) -> None:
    """Another thread gets on while the device works: it is not held up for the length of the run."""
    net = network(dims=(300, 400, 10), batch=32, clamped=())
    made = backend(device).relaxation("gaussian", "squared", True, net.dims, net.batch, net.phi)

    def run() -> float:
        began = time.monotonic()
        made.run(**arguments(net, 20))
        return time.monotonic() - began

    with ThreadPoolExecutor(1) as pool:
        longest, last = 0.0, time.monotonic()
        running = pool.submit(run)
        while not running.done():
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        longest = max(longest, time.monotonic() - last)
    assert longest < running.result() / 2
