"""Relaxations of whole networks in the engine: NumPy's states, who stops when, one submission, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim._devices import open_device
from grilly_optim.energy.activations import ACTIVATIONS
from tests.relaxation import Net, arguments, network, on_device, relaxed
from tests.table import Array, assert_bits

pytestmark = pytest.mark.cases("vulkan", "staged")
DTYPES = [np.float32, np.float64]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
energies = pytest.mark.parametrize("energy", ["gaussian", "hopfield"])
costs = pytest.mark.parametrize("cost", ["", "squared", "cross_entropy"])
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}


def backend(device: str) -> Any:
    return open_device(device)[1]


def assert_relaxes(net: Net, device: str, dtype: Any, count: int = 50, **options: Any) -> None:
    """States, steps and norms are those of NumPy; what is clamped stays as it is."""
    mine = net.copy(dtype)
    before = [x.copy() for x in mine.u]
    wanted, wanted_steps, wanted_norms = relaxed(mine.copy(np.float64), count)
    steps, norms = on_device(backend(device), mine, count, measured=True, **options)
    tolerance = TOLERANCE[dtype]
    for i, (a, b) in enumerate(zip(mine.u, wanted, strict=True)):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"layer {i}")
        if net.clamped[i]:
            assert_bits(a, before[i])
        else:
            assert (a != before[i]).any()
    np.testing.assert_array_equal(steps, wanted_steps)
    assert steps.dtype == np.uint32
    assert norms is not None
    assert norms.dtype == np.float64
    np.testing.assert_allclose(norms, wanted_norms, rtol=tolerance, atol=10 * tolerance)


@dtypes
@costs
@energies
def test_states_are_numpys(energy: str, cost: str, dtype: Any, device: str) -> None:
    assert_relaxes(network(energy, cost), device, dtype)


@energies
@pytest.mark.parametrize("phi", ACTIVATIONS)
def test_every_activation(phi: str, energy: str, device: str) -> None:
    """In every layer, the first and the last too."""
    net = network(energy, "cross_entropy", phi=(phi,) * 3, clamped=(), seed=2)
    net.step = 0.02
    assert_relaxes(net, device, np.float64, 20)


@energies
@pytest.mark.parametrize(
    ("dims", "batch"),
    [
        ((1, 1), 1),
        ((3, 1), 5),
        ((1, 40, 1), 1),
        ((33, 31, 65), 33),
        ((16, 32, 64, 17), 32),
        ((2, 4097, 3), 3),
        ((5, 1, 6, 2), 129),
    ],
)
def test_sizes_that_fill_no_tile(dims: tuple[int, ...], batch: int, energy: str, device: str) -> None:
    phi = ("identity", "tanh", "sigmoid", "relu")[: len(dims)]
    assert_relaxes(network(energy, "cross_entropy", dims, batch, phi), device, np.float64, 12)


@energies
@pytest.mark.parametrize("clamped", [c for k in range(4) for c in itertools.combinations(range(4), k)], ids=str)
def test_every_set_of_clamped_layers(clamped: tuple[int, ...], energy: str, device: str) -> None:
    net = network(energy, "squared", (4, 6, 5, 3), 7, ("tanh",) * 4, clamped)
    assert_relaxes(net, device, np.float64, 9)


@energies
def test_where_every_layer_is_clamped_nothing_happens(energy: str, device: str) -> None:
    net = network(energy, clamped=(0, 1, 2))
    before = net.copy(np.float64)
    steps, norms = on_device(backend(device), net, 3, measured=True)
    for a, b in zip(net.u, before.u, strict=True):
        assert_bits(a, b)
    assert norms is not None
    assert (steps.tolist(), norms.tolist()) == ([3] * 4, [0.0] * 4)
    steps, _ = on_device(backend(device), net, 3, tol=1e-3)
    np.testing.assert_array_equal(steps, relaxed(net, 3, 1e-3)[1])


def test_no_steps(device: str) -> None:
    net = network()
    before = net.copy(np.float64)
    steps, norms = on_device(backend(device), net, 0, measured=True)
    assert not steps.any()
    assert norms is not None
    assert np.isnan(norms).all()
    for a, b in zip(net.u, before.u, strict=True):
        assert_bits(a, b)


def test_without_measuring_there_are_no_norms_and_the_same_bits(device: str) -> None:
    one, other = network(clamped=()), network(clamped=())
    assert on_device(backend(device), one, 9)[1] is None
    on_device(backend(device), other, 9, measured=True)
    for a, b in zip(one.u, other.u, strict=True):
        assert_bits(a, b)


def test_a_target_is_what_makes_the_cost(device: str) -> None:
    net = network("hopfield", "cross_entropy")
    net.target = None
    assert_relaxes(net, device, np.float64, 20)


def test_softmax_of_large_numbers(device: str) -> None:
    net = network("gaussian", "cross_entropy", dims=(5, 200), phi=("identity", "identity"))
    net.u[1] *= 300
    assert_relaxes(net, device, np.float64, 3)


# tol: one that some samples reach, in different steps.
@dtypes
@energies
@pytest.mark.parametrize("per_sample", [False, True], ids=["mean", "each"])
@pytest.mark.parametrize("check_every", [1, 7, 1000])
def test_it_stops_where_numpy_does(check_every: int, per_sample: bool, energy: str, dtype: Any, device: str) -> None:
    net = network(energy, "squared", batch=140).copy(dtype)
    tol = 0.05
    reference = relaxed(net.copy(np.float64), 60, tol, per_sample)
    steps, norms = on_device(backend(device), net, 60, tol=tol, per_sample=per_sample, check_every=check_every)
    np.testing.assert_array_equal(steps, reference[1])
    assert 1 < steps.min() <= steps.max() < 60
    assert (len(np.unique(steps)) > 1) == per_sample
    tolerance = TOLERANCE[dtype]
    for a, b in zip(net.u, reference[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    assert norms is not None
    np.testing.assert_allclose(norms, reference[2], rtol=10 * tolerance)


@energies
@pytest.mark.parametrize("per_sample", [False, True], ids=["mean", "each"])
def test_how_often_one_looks_changes_no_bit(per_sample: bool, energy: str, device: str) -> None:
    made = []
    for check_every in (1, 3, 8, 100):
        net = network(energy, "cross_entropy", batch=9, clamped=()).copy(np.float32)
        options = {"tol": 0.3, "per_sample": per_sample, "check_every": check_every}
        steps, norms = on_device(backend(device), net, 100, **options)
        assert norms is not None
        made.append([*net.u, steps, norms])
    assert 1 < made[0][-2].max() < 100
    for other in made[1:]:
        for a, b in zip(made[0], other, strict=True):
            assert_bits(a, b)


def test_tolerances_that_nobody_reaches(device: str) -> None:
    net = network(batch=3)
    steps, _ = on_device(backend(device), net, 7, tol=1e-300, check_every=2)
    assert steps.tolist() == [7] * 3


@pytest.mark.parametrize("per_sample", [False, True], ids=["mean", "each"])
def test_a_tolerance_is_not_reached_by_what_equals_it(per_sample: bool, device: str) -> None:
    """One step of one sample: its norm itself, and the next number."""
    norm = relaxed(network(batch=1), 1)[2][0]
    found = on_device(backend(device), network(batch=1), 1, measured=True)[1]
    assert found is not None
    assert found[0] == pytest.approx(norm)
    for tol, expected in ((float(found[0]), 2), (float(np.nextafter(found[0], np.inf)), 1)):
        net = network(batch=1)
        net.step = 0.0
        steps, _ = on_device(backend(device), net, 2, tol=tol, per_sample=per_sample)
        assert steps.tolist() == [expected]


@pytest.mark.parametrize("per_sample", [False, True], ids=["mean", "each"])
def test_nan_never_stops(per_sample: bool, device: str) -> None:
    net = network(batch=4)
    net.u[1][2, 3] = np.nan
    steps, norms = on_device(backend(device), net, 30, tol=1e9, per_sample=per_sample, check_every=4)
    assert norms is not None
    assert np.isnan(norms).tolist() == [False, False, True, False]
    assert steps.tolist() == ([1, 1, 30, 1] if per_sample else [30] * 4)
    assert not np.isnan(np.delete(net.u[1], 2, axis=0)).any()


def differences(device: str, net: Net, count: int, **options: Any) -> dict[str, int]:
    """What a second run of the same relaxation adds to the counters."""
    double = net.u[0].dtype == np.float64
    made = backend(device).relaxation(net.energy, net.cost, double, net.dims, net.batch, net.phi)
    made.run(**arguments(net, count, **options))
    before = grilly_optim.counters(device)
    made.run(**arguments(net, count, **options))
    after = grilly_optim.counters(device)
    return {name: after[name] - before[name] for name in after}


@energies
def test_all_steps_are_one_submission(energy: str, device: str, case: str) -> None:
    """A network for digits: up, 50 steps and down."""
    net = network(energy, "cross_entropy", (784, 1000, 10), 100, ("identity", "sigmoid", "sigmoid")).copy(np.float32)
    given = differences(device, net, 50)
    assert given["submits"] == 1
    assert given["allocations"] == 0
    # Activations and the product of what is clamped; then products, the sum of a softmax, and two updates a step.
    assert given["dispatches"] == 3 + 1 + 50 * (2 + 1 + 2)
    assert given["bytes_up"] == sum(x.nbytes for x in [*net.u, *net.weights, *net.biases, net.target] if x is not None)
    assert given["bytes_down"] == net.u[1].nbytes + net.u[2].nbytes


def test_with_a_tolerance_one_number_is_read_each_time(device: str, case: str) -> None:
    net = network(batch=6).copy(np.float32)
    given = differences(device, net, 20, tol=1e-30, check_every=5)
    assert given["submits"] == 4
    returned = net.u[1].nbytes + net.u[2].nbytes
    if case == "staged":
        # Three looks; then the rest, with who went how far.
        assert given["bytes_down"] == returned + 3 * 4 + (1 + 2 * 6) * 4 + 6 * 4
    else:
        assert given["bytes_down"] == returned


def test_digits_in_float32(device: str) -> None:
    """What float32 costs in 50 steps of a network for digits."""
    net = network("gaussian", "cross_entropy", (784, 1000, 10), 20, ("identity", "sigmoid", "sigmoid"))
    net.clamped = [False, False, False]
    assert_relaxes(net, device, np.float32)


def test_runs_repeat_bit_for_bit(device: str) -> None:
    made = []
    for _ in range(3):
        net = network("hopfield", "cross_entropy", (70, 90, 40), 50, clamped=()).copy(np.float32)
        on_device(backend(device), net, 10)
        made.append(net.u)
    for a, b in itertools.chain(*(zip(made[0], other, strict=True) for other in made[1:])):
        assert_bits(a, b)


def test_one_relaxation_serves_many_runs(device: str) -> None:
    """With other clamped layers, and with and without a tolerance: nothing is left of the run before."""
    first = network(batch=5, clamped=())
    made = backend(device).relaxation("gaussian", "squared", True, first.dims, 5, first.phi)
    for clamped, options in [((), {}), ((0,), {"tol": 0.1}), ((1, 2), {}), ((), {"tol": 0.1, "per_sample": True})]:
        net = network(batch=5, clamped=clamped, seed=len(clamped))
        made.run(**arguments(net, 15, **options))
        wanted, *_ = relaxed(network(batch=5, clamped=clamped, seed=len(clamped)), 15, **options)  # type: ignore[arg-type]
        for a, b in zip(net.u, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def test_memory_that_the_device_reaches_is_used_in_place(device: str, case: str) -> None:
    net = network(dims=(8, 16, 4), batch=4, clamped=())
    plain = net.copy(np.float64)
    for name in ("u", "weights", "biases"):
        for k, x in enumerate(getattr(net, name)):
            getattr(net, name)[k] = grilly_optim.empty(x.shape, np.float64, device=device)
            getattr(net, name)[k][...] = x
    assert net.target is not None
    target, net.target = net.target, grilly_optim.empty(net.target.shape, np.float64, device=device)
    net.target[...] = target
    given = differences(device, net, 10)
    if case == "vulkan":
        assert (given["bytes_up"], given["bytes_down"]) == (0, 0)
    for _ in range(2):
        on_device(backend(device), plain, 10)
    for a, b in zip(net.u, plain.u, strict=True):
        assert_bits(np.asarray(a), b)


def test_more_than_a_row_of_groups(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes three groups in a row is asked for many."""
    monkeypatch.setenv("GRILLY_MAX_GROUPS", "3")
    net = network("hopfield", "cross_entropy", (70, 90, 40), 50)
    # Only devices that are opened now read it.
    for index in range(len(_core().vulkan_devices()[0])):
        if "llvmpipe" in _core().vulkan_devices()[0][index].name:
            fresh = _core().open_vulkan(index)
    wanted = relaxed(net, 6)[0]
    on_device(fresh, net, 6)
    for a, b in zip(net.u, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def _core() -> Any:
    from grilly_optim import _devices

    return _devices._core


def test_a_width_that_llvmpipe_has_not_enough_turns_for(device: str) -> None:
    with pytest.raises(
        grilly_optim.DeviceUnavailable, match=r"60000 turns of loops at most, and a batch of 2 with laye"
    ):
        backend(device).relaxation("gaussian", "", False, [100_000, 2], 2, ["relu", "relu"])
    widest = 16 * (59_999 // 18)
    net = network("hopfield", "", (widest, 2), 1, ("tanh", "tanh"))
    assert_relaxes(net, device, np.float64, 2)


def test_sizes_beyond_all_devices(device: str) -> None:
    with pytest.raises(grilly_optim.DeviceUnavailable, match=r"takes \d+ workgroups, and 2147483647 are the most"):
        backend(device).relaxation("gaussian", "", False, [2**31 - 1, 2], 2**31 - 1, ["relu", "relu"])


@pytest.mark.cases("cpu")
def test_the_processor_leaves_it_to_the_host(device: str) -> None:
    with pytest.raises(grilly_optim.DeviceUnavailable, match="cpu has no relaxations of whole networks"):
        backend(device).relaxation("gaussian", "", False, [2, 2], 2, ["relu", "relu"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"energy": "ising"}, ValueError, "energy must be one of 'gaussian', 'hopfield', got 'ising'"),
        ({"cost": "hinge"}, ValueError, "cost must be one of '', 'squared', 'cross_entropy', got 'hinge'"),
        ({"dims": [3]}, ValueError, "dims must have 2 entries or more, got 1"),
        ({"dims": [3, 0]}, ValueError, "dims must be from 1 to 2147483647, got 0"),
        ({"batch": 0}, ValueError, "batch must be from 1 to 2147483647, got 0"),
        ({"phi": ["relu"]}, ValueError, "phi must have 2 entries, got 1"),
        ({"phi": ["relu", "swish"]}, ValueError, "phi must be one of 'hard_sigmoid', .*, got 'swish'"),
    ],
    ids=str,
)
def test_networks_that_are_refused(change: dict[str, Any], error: type[Exception], message: str, device: str) -> None:
    good = {"energy": "gaussian", "cost": "", "is_double": True, "dims": [3, 2], "batch": 2, "phi": ["relu", "relu"]}
    with pytest.raises(error, match=message):
        backend(device).relaxation(**(good | change))


def read_only(x: Array) -> Array:
    x.flags.writeable = False
    return x


SHARED = np.zeros((4, 12))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda n: {"u": n.u[:2]}, ValueError, "u must have 3 entries, got 2"),
        (lambda n: {"weights": []}, ValueError, "weights must have 2 entries, got 0"),
        (lambda n: {"biases": n.biases * 2}, ValueError, "biases must have 2 entries, got 4"),
        (lambda n: {"clamped": [True]}, ValueError, "clamped must have 3 entries, got 1"),
        (
            lambda n: {"u": [n.u[0], n.u[1].astype(np.float32), n.u[2]]},
            TypeError,
            r"u\[1\] must be an array of float64",
        ),
        (lambda n: {"u": [n.u[0], n.u[1].tolist(), n.u[2]]}, TypeError, r"u\[1\] must be an array of float64"),
        (lambda n: {"u": [n.u[0], n.u[2], n.u[1]]}, ValueError, r"u\[1\] must have shape \(4, 7\), got \(4, 3\)"),
        (lambda n: {"u": [n.u[0], np.zeros((7, 4)).T, n.u[2]]}, ValueError, r"u\[1\] must be contiguous"),
        (lambda n: {"u": [n.u[0], read_only(n.u[1]), n.u[2]]}, ValueError, r"u\[1\] is written to, and is read-only"),
        (lambda n: {"weights": [n.weights[0].T, n.weights[1]]}, ValueError, r"weights\[0\] must have shape \(7, 5\)"),
        (
            lambda n: {"biases": [n.biases[0], n.biases[0]]},
            ValueError,
            r"biases\[1\] must have shape \(3,\), got \(7,\)",
        ),
        (lambda n: {"target": n.u[1]}, ValueError, r"target must have shape \(4, 3\), got \(4, 7\)"),
        (lambda n: {"target": n.u[2]}, ValueError, r"u\[2\] is written to, and shares memory with target"),
        (
            lambda n: {"u": [n.u[0], SHARED.reshape(-1)[:28].reshape(4, 7), SHARED.reshape(-1)[20:32].reshape(4, 3)]},
            ValueError,
            r"u\[1\] is written to, and shares memory with u\[2\]",
        ),
        (lambda n: {"beta": np.nan}, ValueError, "beta must be finite, got nan"),
        (lambda n: {"step": np.inf}, ValueError, "step must be finite, got inf"),
        (lambda n: {"tol": -1e-9}, ValueError, "tol must be 0 or more, got -1e-09"),
        (lambda n: {"tol": np.nan}, ValueError, "tol must be 0 or more, got nan"),
        (lambda n: {"count": -1}, ValueError, "count must be from 0 to 2147483647, got -1"),
        (lambda n: {"check_every": 0}, ValueError, "check_every must be from 1 to 2147483647, got 0"),
    ],
)
def test_runs_that_are_refused_change_nothing(change: Any, error: type[Exception], message: str, device: str) -> None:
    net = network()
    before = net.copy(np.float64)
    made = backend(device).relaxation("gaussian", "squared", True, net.dims, net.batch, net.phi)
    with pytest.raises(error, match=message):
        made.run(**(arguments(net, 5) | change(net)))
    for a, b in zip(net.u, before.u, strict=True):
        assert_bits(a, b)


def test_a_target_needs_a_cost(device: str) -> None:
    net = network(cost="")
    net.target = np.zeros((4, 3))
    with pytest.raises(ValueError, match="target is given, and the network has no cost"):
        on_device(backend(device), net, 1)
