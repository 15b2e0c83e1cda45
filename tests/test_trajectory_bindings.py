"""What the engine's own interface does with what it cannot use: one error, and nothing is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim import _devices
from grilly_optim.sampling import _batch, _device_runner
from grilly_optim.sampling.potentials import BuiltIn
from tests.table import Array, assert_bits
from tests.trajectory_table import POTENTIALS

CHAINS, COUNT = 3, 2
ENGINES = pytest.mark.cases("cpu", "vulkan")


def made(device: str, name: str, **changed: Any) -> Any:
    potential: BuiltIn = POTENTIALS[name]
    rows = len(potential.tables.get("features", ()))
    asked = {
        "potential": name,
        "is_double": True,
        "dim": potential.dim,
        "rows": rows,
        "tables": dict(potential.tables),
        "constants": dict(potential.constants),
    }
    backend: Any = _devices.open_device(device)[1]
    return backend.trajectories(**asked | changed)


def arguments(dim: int) -> dict[str, Any]:
    return {
        "method": "hmc",
        "count": COUNT,
        "seen": 0,
        "thin": 1,
        "num_steps": 2,
        "trajectory": 0.0,
        "jitter": False,
        "persistence": 0.0,
        "carried": False,
        "max_tree_depth": 3,
        "delta_max": 1000.0,
        "seed": 1,
        "streams": np.arange(CHAINS, dtype=np.uint32),
        "done": np.zeros(CHAINS, np.int64),
        "position": np.ones((dim, CHAINS)),
        "momentum": None,
        "step_size": np.full(CHAINS, 0.1),
        "adaptation": None,
        "target": 0.8,
        "gamma": 0.05,
        "t_0": 10.0,
        "dense": False,
        "mass_per_chain": False,
        "inverse_mass": np.ones(dim),
        "root": np.ones(dim),
        "normal": None,
        "uniform": None,
        "gradient": np.zeros((dim, CHAINS)),
        "energy": np.zeros((2, CHAINS)),
        "tally": np.zeros((2, CHAINS)),
        "positions": np.zeros((COUNT, CHAINS, dim)),
        "stats": np.zeros((COUNT, _devices._core.TRANSITION_STATS, CHAINS)),
    }


WRITTEN = ("done", "position", "step_size", "gradient", "energy", "tally", "positions", "stats")
ARRAYS = ("streams", "inverse_mass", "root", *WRITTEN)
OPTIONAL = ("momentum", "adaptation", "normal", "uniform")


def other_arrays(name: str) -> list[Array | Any]:
    """Of no length, another length, another type, another order, of Python."""
    right = arguments(10)[name]
    if right is None:
        right = np.ones((CHAINS, 10))
    read_only = right.copy()
    read_only.flags.writeable = False
    wrong = [
        right[:0],
        np.resize(right, right.size + 1),
        right.astype(np.complex128),
        np.repeat(right, 2, -1)[..., ::2],
    ]
    written = name in WRITTEN
    return [*wrong, right.tolist(), "text", *([read_only] if written else []), right.astype(right.dtype.newbyteorder())]


@ENGINES
@pytest.mark.parametrize("name", [*ARRAYS, *OPTIONAL])
def test_arrays_that_do_not_fit_are_named(device: str, name: str) -> None:
    engine = made(device, "eight_schools")
    for wrong in other_arrays(name):
        given = arguments(10) | {name: wrong}
        with pytest.raises(
            ValueError, match=r"must be a contiguous array|take streams|need an array|one chain or more"
        ):
            engine.run(**given)
        assert_bits(given["position"] if name != "position" else np.ones((10, CHAINS)), np.ones((10, CHAINS)))


@ENGINES
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_must_be_there(device: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"need an array where only some may be None|take streams"):
        made(device, "eight_schools").run(**arguments(10) | {name: None})


@ENGINES
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"method": "walk"}, ValueError, "of a method they know"),
        ({"method": None}, TypeError, "incompatible function arguments"),
        ({"count": -1}, TypeError, "incompatible function arguments"),
        ({"count": 1 << 30}, ValueError, "trajectories are at most 16777216 transitions, got 1073741824 behind 0"),
        ({"count": 5}, ValueError, "positions must be a contiguous array of 150 elements"),
        ({"seen": 1 << 63}, ValueError, "at most 16777216 transitions"),
        ({"thin": 0}, ValueError, "every thin-th transition"),
        ({"thin": 2**64 - 1}, ValueError, "at most 16777216 transitions"),
        ({"thin": (1 << 62) + 1}, ValueError, "every 4611686018427387905-th of them kept"),
        ({"num_steps": 0}, ValueError, "take streams, steps"),
        ({"num_steps": (1 << 24) + 1}, ValueError, "at most 16777216 steps, .* got 2 trajectories of up to 16777217"),
        ({"num_steps": 1 << 24, "jitter": True}, ValueError, "got 2 trajectories of up to 33554431"),
        ({"num_steps": 1 << 20, "count": 1 << 12}, ValueError, "runs 4294967294 of them, got 4096 trajectories"),
        ({"method": "nuts", "uniform": np.zeros((COUNT, CHAINS))}, ValueError, "uniform is for method hmc"),
        ({"persistence": 0.5}, ValueError, "need an array"),
        ({"method": "nuts", "max_tree_depth": 0}, ValueError, "max_tree_depth must be from 1 to 31, got 0"),
        ({"method": "nuts", "max_tree_depth": 32}, ValueError, "max_tree_depth must be from 1 to 31, got 32"),
        ({"dense": True}, ValueError, "inverse_mass must be a contiguous array of 100 elements"),
        ({"mass_per_chain": True}, ValueError, "inverse_mass must be a contiguous array of 30 elements"),
        ({"streams": np.zeros(0, np.uint32)}, ValueError, "one chain or more"),
    ],
    ids=str,
)
def test_numbers_that_do_not_fit(device: str, changed: dict[str, Any], error: type[Exception], message: str) -> None:
    given = arguments(10) | changed
    with pytest.raises(error, match=message):
        made(device, "eight_schools").run(**given)
    assert_bits(given["position"], np.ones((10, CHAINS)))


@ENGINES
@pytest.mark.parametrize(
    ("name", "changed", "error", "message"),
    [
        ("banana", {"potential": "apple"}, ValueError, "this build has no potential named 'apple'"),
        ("banana", {"potential": None}, TypeError, "incompatible function arguments"),
        ("logistic_regression", {"rows": 1 << 32}, ValueError, "has at most 4294967295 rows, got 4294967296"),
        ("logistic_regression", {"rows": 1 << 30}, ValueError, "features of .* has at most 4294967295 elements"),
        ("banana", {"dim": 1}, ValueError, "potential banana has no 1 dimensions"),
        ("eight_schools", {"dim": 11}, ValueError, "potential eight_schools has no 11 dimensions"),
        ("standard_normal", {"dim": 0}, ValueError, "potential standard_normal has no 0 dimensions"),
        ("standard_normal", {"dim": 1 << 63}, ValueError, "potential standard_normal has no 9223372036854775808"),
        ("gaussian", {"dim": 6}, ValueError, "table mean of potential gaussian must be .* 6 float64 elements"),
        ("gaussian", {"tables": {}}, ValueError, "potential gaussian needs mean"),
        ("gaussian", {"tables": None}, TypeError, "incompatible function arguments"),
        ("gaussian", {"tables": {"mean": None, "precisions": None}}, ValueError, "table mean of potential gaussian"),
        ("gaussian", {"tables": {"mean": "five"}}, ValueError, "table mean of potential gaussian"),
        ("gaussian_dense", {"dim": 5}, ValueError, "table mean of potential gaussian_dense"),
        ("logistic_regression", {"rows": 38}, ValueError, "table features of .* must be .* 190 float64 elements"),
        ("linear_regression", {"constants": {"noise_precision": 1.0}}, ValueError, "needs prior_precision"),
        ("funnel", {"constants": {"scale_precision": "wide"}}, TypeError, "must be real number, not str"),
        ("funnel", {"constants": {"scale_precision": None}}, TypeError, "must be real number, not NoneType"),
    ],
    ids=str,
)
def test_potentials_that_do_not_fit(
    device: str, name: str, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        made(device, name, **changed)


@ENGINES
def test_what_fits_runs(device: str) -> None:
    """The judge itself: the arguments that the other tests spoil one by one."""
    given = arguments(10)
    made(device, "eight_schools").run(**given)
    assert not np.array_equal(given["position"], np.ones((10, CHAINS)))
    assert_bits(given["positions"][-1], given["position"].T)


@ENGINES
def test_a_matrix_beyond_what_its_elements_are_counted_in(device: str) -> None:
    engine = made(device, "standard_normal", dim=1 << 16)
    with pytest.raises(ValueError, match="a dense inverse mass has at most 4294967295 elements, got one of 65536 dim"):
        engine.run(**arguments(1 << 16) | {"dense": True})


@ENGINES
def test_what_a_step_goes_through(device: str) -> None:
    """It decides whether other threads run meanwhile, how many help, and when signals are looked for."""
    logistic: BuiltIn = POTENTIALS["logistic_regression"]
    tables = sum(table.size for table in logistic.tables.values())
    engine = made(device, "logistic_regression")
    assert engine.step_numbers(False) == logistic.dim + tables
    assert engine.step_numbers(True) == logistic.dim + tables + logistic.dim**2


def test_python_and_the_engine_mean_the_same() -> None:
    core = _devices._core
    assert core.TRANSITION_STATS == _device_runner.REPORTED
    assert core.MAX_STEPS == _batch.MAX_STEPS
    assert core.ADAPTATION_NUMBERS == 4  # count, h_bar, log_average, mu
