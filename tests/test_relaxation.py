"""Steps and relaxations: what they do, when they end, and that every device does the same."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from grilly_optim import counters, devices
from grilly_optim.energy import CrossEntropy
from tests.energies import COSTS, DTYPES, ENERGIES, PHI, copies, model, soft_target

every_energy = pytest.mark.parametrize("energy", ENERGIES)
every_cost = pytest.mark.parametrize("cost", COSTS)
every_phi = pytest.mark.parametrize("phi", PHI)

# Of numbers of size 1, after some tens of steps.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def close(a: Any, b: Any, dtype: str) -> bool:
    """Whether two devices have the same states, as far as `dtype` goes."""
    return all(np.abs(x - y).max(initial=0.0) <= TOLERANCE[dtype] for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@every_energy
@every_cost
@every_phi
def test_a_step_follows_the_gradient(energy: str, cost: str, phi: str, dtype: str, device: str) -> None:
    m = model(energy, cost, phi, dims=(5, 7, 4, 3), dtype=dtype, device=device)
    m.set_C_target(soft_target())
    for clamped in ((0,), (), (1,), (0, 3)):
        for i in range(4):
            m.clamp_layer(i, m.u[i]) if i in clamped else m.release_layer(i)
        gradients, before = m.u_get_gradients(), copies(m.u)
        norm = m.u_step(0.1, tau=2.0)
        expected = [u if g is None else u - 0.05 * g for u, g in zip(before, gradients, strict=True)]
        assert close(m.u, expected, dtype)
        norms = [np.sqrt(np.square(g, dtype=np.float64).sum(1)).mean() for g in gradients if g is not None]
        np.testing.assert_allclose(norm, sum(norms), rtol=1e-5 if dtype == "float32" else 1e-12)
        assert m.steps.tolist() == [1] * 6


@every_energy
@every_cost
@every_phi
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_device_relaxes_to_the_same_states(energy: str, cost: str, phi: str, dtype: str, device: str) -> None:
    ends = []
    for where in ("numpy", device):
        m = model(
            energy, cost, ["identity", phi, "tanh", phi], dims=(9, 21, 17, 5), batch=13, dtype=dtype, device=where
        )
        m.set_C_target(soft_target(13, 5))
        change = m.u_relax(0.05, 20)
        ends.append((m.u, change))
    assert close(ends[0][0], ends[1][0], dtype)
    np.testing.assert_allclose(ends[0][1], ends[1][1], rtol=1e-4 if dtype == "float32" else 1e-10)


@every_energy
def test_a_relaxation_is_its_steps(energy: str, device: str) -> None:
    m, by_steps = (model(energy, dtype="float64", device=device) for _ in range(2))
    for x in (m, by_steps):
        x.set_C_target(soft_target())
    before = m.E.sum()
    change = m.u_relax(0.1, 7, tau=0.5)
    for _ in range(7):
        by_steps.u_step(0.1, 0.5)
    by_steps.update_energy()
    assert close(m.u, by_steps.u, "float64")
    np.testing.assert_allclose(change, by_steps.E.sum() - before, rtol=1e-10)
    np.testing.assert_allclose(m.E, by_steps.E, rtol=1e-10)


@every_energy
def test_the_first_step_below_the_tolerance_is_the_last(energy: str, device: str) -> None:
    norms = []
    m = model(energy, dtype="float64", device=device)
    start = copies(m.u)
    for _ in range(30):
        norms.append(m.u_step(0.1))
    tol = norms[17] * (1 + 1e-9)
    assert min(norms[:17]) > tol
    m.set_states(start)
    before = m.E.sum()
    change = m.u_relax(0.1, 30, tol)
    assert m.steps.tolist() == [18] * 6
    m.set_states(start)
    m.u_relax(0.1, 18)
    np.testing.assert_allclose(change, m.E.sum() - before, rtol=1e-10)


@every_energy
def test_a_huge_tolerance_makes_one_step_and_counts_its_energy(energy: str, device: str) -> None:
    m = model(energy, device=device)
    assert m.u_relax(0.1, 10, tol=1e30) != 0
    assert m.steps.tolist() == [1] * 6


@every_energy
def test_without_a_tolerance_all_steps_are_made(energy: str, device: str) -> None:
    m = model(energy, device=device)
    for tol in (0.0, 1e-30):
        m.u_relax(0.1, 9, tol)
        assert m.steps.tolist() == [9] * 6
    assert m.u_relax(0.1, 0) == 0


@every_energy
def test_each_sample_stops_by_itself(energy: str, device: str) -> None:
    m = model(energy, dtype="float64", device=device)
    m.u[1][...] *= np.geomspace(1e-3, 10, 6)[:, None]
    start = copies(m.u)
    tol = 0.5
    m.u_relax(0.1, 200, tol, per_sample=True)
    ends, steps = copies(m.u), m.steps.tolist()
    assert len(set(steps)) > 2
    assert max(steps) < 200
    for k, own in enumerate(steps):
        m.set_states(start)
        m.u_relax(0.1, own)
        assert close([u[k] for u in m.u], [u[k] for u in ends], "float64")
        alone = model(energy, dtype="float64", batch=1, device="numpy")
        for parameter, same in zip(alone.parameters, m.parameters, strict=True):
            parameter[...] = same
        norms = []
        alone.set_states([u[k : k + 1] for u in start])
        for _ in range(own):
            norms.append(alone.u_step(0.1))
        assert norms[-1] < tol
        assert min(norms[:-1], default=tol) >= tol


@every_energy
def test_results_repeat_bit_for_bit(energy: str, device: str) -> None:
    m = model(energy, dims=(50, 130, 10), batch=33, device=device)
    m.set_C_target(soft_target(33, 10))
    start = copies(m.u)
    ends = []
    for tol in (0.0, 0.0, 1e-30, 1e-30):
        m.set_states(start)
        m.u_relax(0.1, 10, tol)
        ends.append(copies(m.u))
    for first, second in zip(ends[0] + ends[2], ends[1] + ends[3], strict=True):
        assert (first == second).all()


@every_energy
def test_the_device_does_the_work(energy: str, device: str) -> None:
    m = model(energy, device=device)
    m.u_relax(0.1, 2)
    before = counters(device)["dispatches"]
    m.u_relax(0.1, 10)
    assert counters(device)["dispatches"] >= before + 10


@every_energy
def test_a_relaxation_that_diverges_changes_nothing(energy: str, device: str) -> None:
    m = model(energy, phi="identity", device=device)
    before = copies(m.u)
    with pytest.raises(ValueError, match=r"the (state|energy) of layer \d is -?(nan|inf) in sample \d"):
        m.u_relax(1e6, 100)
    assert all((a == b).all() for a, b in zip(before, m.u, strict=True))
    m.u_relax(0.1, 1)


@every_energy
def test_nan_is_named_by_layer(energy: str, device: str) -> None:
    m = model(energy, device=device)
    m.u[1][4, 2] = np.nan
    before = copies(m.u)
    for call in (m.update_energy, lambda: m.u_relax(0.1, 3), lambda: m.u_relax(0.1, 3, 0.1), lambda: m.u_step(0.1)):
        with pytest.raises(ValueError, match="the state of layer 1 is nan in sample 4"):
            call()
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, m.u, strict=True))
    m.reset_state()
    m.weights[1][0, 0] = np.inf
    with pytest.raises(ValueError, match=r"the energy of layer 2 is -?(inf|nan) in sample 0"):
        m.update_energy()


@pytest.mark.cases("vulkan", "staged")
@every_energy
def test_a_relaxation_is_one_submission(energy: str, device: str) -> None:
    """The network of the original, 50 steps: all of them at once, to where NumPy goes."""
    ends = []
    for where in ("numpy", device):
        m = model(energy, phi="sigmoid", dims=(784, 1000, 10), batch=100, device=where)
        m.set_C_target(np.arange(100) % 10)
        before = counters(where)
        m.u_relax(0.1, 50)
        after = counters(where)
        ends.append(m.u)
    assert after["submits"] - before["submits"] == 1
    assert after["dispatches"] - before["dispatches"] > 100
    assert close(ends[0], ends[1], "float32")


@pytest.mark.cases("vulkan", "staged")
def test_what_moves_to_a_device(device: str) -> None:
    """States that move, and the target; with memory of its own also the rest. States that have moved come back."""
    m = model(dims=(50, 40, 10), batch=20, device=device)
    m.set_C_target(soft_target(20, 10))
    m.u_relax(0.1, 3)
    before = counters(device)
    m.u_relax(0.1, 3)
    after = counters(device)
    moved, target, clamped = 4 * 20 * (40 + 10), 4 * 20 * 10, 4 * 20 * 50
    shared = next(d for d in devices() if "llvmpipe" in d.name).shares_memory
    up = moved + target + (0 if shared else clamped + sum(p.nbytes for p in m.parameters))
    assert after["bytes_up"] - before["bytes_up"] == up
    assert after["bytes_down"] - before["bytes_down"] == moved


def test_more_steps_than_a_submission_has(device: str) -> None:
    """Fresh, and where a run before has been stopped."""
    ends = []
    for stopped_before in (False, True):
        m = model(dims=(3, 4, 2), batch=5, device=device)
        m.set_C_target(soft_target(5, 2))
        start = copies(m.u)
        if stopped_before:
            m.u_relax(1e-3, 10, tol=1e9, per_sample=True)
            m.set_states(start)
        for count in (2500, 2500) if stopped_before else (5000,):
            m.u_relax(1e-3, count)
        assert m.steps.tolist() == [2500 if stopped_before else 5000] * 5
        ends.append(copies(m.u))
    assert close(*ends, "float32")


@every_energy
def test_the_cost_may_be_replaced(energy: str, device: str) -> None:
    m, other = (model(energy, "squared", device=device), model(energy, "cross_entropy", device=device))
    m.u_relax(0.1, 2)
    other.u_relax(0.1, 2)
    m.c_energy = CrossEntropy(0.7)
    for x in (m, other):
        x.set_C_target(soft_target())
        x.u_relax(0.1, 20)
    assert all((a == b).all() for a, b in zip(m.u, other.u, strict=True))


@every_energy
def test_inputs_that_lie_otherwise_in_memory(energy: str, device: str) -> None:
    m, plain = (model(energy, device=device) for _ in range(2))
    x = np.random.default_rng(0).normal(size=(6, 5))
    for given in (np.asfortranarray(x), x[:, ::-1][:, ::-1], x.astype(">f8"), x.tolist(), np.repeat(x, 2, 0)[::2]):
        m.clamp_layer(0, given)
        plain.clamp_layer(0, x)
        for one in (m, plain):
            one.set_states(copies(one.u))
            one.u_relax(0.1, 3)
        assert all((a == b).all() for a, b in zip(m.u, plain.u, strict=True))


def test_a_step_into_the_infinite_changes_nothing(device: str) -> None:
    m = model(device=device)
    before = copies(m.u)
    with pytest.raises(ValueError, match=r"dt / tau must be a number of float32, got 1e\+300 / 1.0"):
        m.u_step(1e300)
    with pytest.raises(
        ValueError, match=r"after 1 step the state of layer \d is .* in sample \d: a smaller dt may help"
    ):
        m.u_step(3e38)
    assert m.u_relax(0.1, 3, tol=np.inf) != 0
    assert m.steps.tolist() == [1] * 6
    with pytest.raises(ValueError, match="n_relax must be from 0 to"):
        m.u_relax(0.1, 2**31)
    assert not all((a == b).all() for a, b in zip(before, m.u, strict=True))


def test_threads_take_turns(device: str) -> None:
    m, alone = (model(device=device) for _ in range(2))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: m.u_relax(0.05, 25), range(8)))
    for _ in range(8):
        alone.u_relax(0.05, 25)
    assert all((a == b).all() for a, b in zip(m.u, alone.u, strict=True))


@pytest.mark.subprocess
def test_ctrl_c_is_heard_between_submissions_and_changes_nothing(device: str) -> None:
    """Three hours of steps on llvmpipe, say, of which the first submission has the most."""
    program = f"""
import signal, sys, threading, time
import numpy as np
from grilly_optim.energy import RestrictedHopfield, SquaredError
m = RestrictedHopfield([30, 200, 30], SquaredError(), 20, "tanh", device={device!r})
m.u_relax(0.01, 2)
before = [u.copy() for u in m.u]
threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
try:
    m.u_relax(0.001, 2_000_000)
except KeyboardInterrupt:
    same = all((a == b).all() for a, b in zip(before, m.u))
    m.u_relax(0.01, 2)
    sys.exit(0 if same else 3)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
