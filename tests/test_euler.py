"""euler_step: what it computes, in one kernel run, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.optim import euler_step
from tests.hl_models import draw
from tests.table import Array, assert_bits

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
decays = pytest.mark.parametrize("decay", [None, 0.0, 0.25, -1.0])


def trees(dtype: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(1)
    return tuple(  # type: ignore[return-value]  # two of them
        {
            "a": draw(rng, (3, 4), dtype),
            "b": {"c": draw(rng, (), dtype), "d": {"e": draw(rng, (1000,), dtype), "empty": {}}},
            "f": draw(rng, (0, 2), dtype),
        }
        for _ in range(2)
    )


def flat(tree: Any) -> list[Array]:
    return [array for value in tree.values() for array in flat(value)] if isinstance(tree, dict) else [tree]


@dtypes
@decays
@pytest.mark.parametrize("in_place", [False, True])
def test_it_is_the_formula(in_place: bool, decay: float | None, dtype: Any, device: str) -> None:
    o, do = trees(dtype)
    before, kept = copy.deepcopy(o), copy.deepcopy(do)
    made = euler_step(o, do, 0.3, decay, in_place, device=device)
    assert list(made["b"]) == ["c", "d"]
    assert made["b"]["d"]["empty"] == {}
    assert (made is o) == in_place
    for new, old, was, d, was_d in zip(*map(flat, (made, o, before, do, kept)), strict=True):
        wide = np.result_type(was.dtype, np.float64)
        expected = (1 - (decay or 0.0)) * was.astype(wide) + 0.3 * d.astype(wide)
        assert new.dtype == was.dtype
        assert new.shape == was.shape
        np.testing.assert_allclose(new, expected, rtol=0, atol=20 * np.finfo(was.dtype).eps)
        assert_bits(d, was_d)
        assert (new is old) == in_place
        if not in_place:
            assert_bits(old, was)


@dtypes
def test_devices_give_the_same_bits(dtype: Any, device: str) -> None:
    o, do = trees(dtype)
    for one, other in zip(
        *(flat(euler_step(o, do, 0.3, 0.1, device=where)) for where in (device, "numpy")), strict=True
    ):
        assert_bits(one, other)


def test_one_array(device: str) -> None:
    o = np.array([1.0, 2.0])
    made = euler_step(o, np.array([1, 3]), -0.5, device=device)
    assert made.tolist() == [0.5, 0.5]
    assert o.tolist() == [1.0, 2.0]
    assert euler_step(o, np.array([1, 3]), -0.5, in_place=True, device=device) is o
    assert o.tolist() == [0.5, 0.5]


def test_a_list_of_tensors_is_one_kernel_run(device: str) -> None:
    o = {str(k): np.ones(10 + k, np.float32) for k in range(200)}
    before = grilly_optim.counters(device)["dispatches"]
    made = euler_step(o, o, 1.0, device=device)
    assert grilly_optim.counters(device)["dispatches"] - before == 1
    assert all((array == 2).all() for array in made.values())


def test_a_real_derivative_of_something_complex(device: str) -> None:
    o = np.array([1 + 1j, 2j], np.complex64)
    np.testing.assert_array_equal(euler_step(o, np.array([1.0, 2.0]), 0.5, device=device), [1.5 + 1j, 1 + 2j])


@dtypes
def test_arrays_that_are_not_contiguous(dtype: Any, device: str) -> None:
    room, plain = np.zeros((4, 6), dtype), draw(np.random.default_rng(0), (4, 3), dtype)
    room[:, ::2] = plain
    euler_step(room[:, ::2], plain[::-1], 0.5, in_place=True, device=device)
    np.testing.assert_allclose(room[:, ::2], plain + 0.5 * plain[::-1], rtol=1e-6)
    assert not room[:, 1::2].any()


def test_an_array_may_be_its_own_derivative(device: str) -> None:
    o = np.arange(5.0)
    euler_step({"a": o}, {"a": o}, 0.5, in_place=True, device=device)
    np.testing.assert_array_equal(o, 1.5 * np.arange(5.0))
    euler_step({"a": o[1:]}, {"a": o[:-1]}, 1.0, in_place=True, device=device)
    np.testing.assert_array_equal(o, 1.5 * np.array([0, 1, 3, 5, 7]))


def test_nothing_at_all() -> None:
    assert euler_step({}, {}, 0.1) == {}
    with pytest.raises(grilly_optim.DeviceUnavailable, match="tpu"):
        euler_step({}, {}, 0.1, device="tpu")


def read_only() -> Array:
    array = np.zeros(2)
    array.flags.writeable = False
    return array


SHARED = np.zeros(4)


@pytest.mark.parametrize(
    ("o", "do", "options", "error", "message"),
    [
        (np.zeros(2), np.zeros(3), {}, ValueError, r"do must have shape \(2,\), got \(3,\)"),
        (np.zeros(2), np.zeros((1, 2)), {}, ValueError, r"do must have shape \(2,\), got \(1, 2\)"),
        (np.zeros(2), np.zeros(2, complex), {}, TypeError, "do must be real, .* got dtype complex128"),
        (
            np.zeros(2, int),
            np.zeros(2),
            {},
            TypeError,
            "o must be float32, float64, complex64 or complex128, got dtype int64",
        ),
        ([1.0], [1.0], {}, TypeError, "o must be a NumPy array, got list"),
        ({"a": 1.0}, {"a": 1.0}, {}, TypeError, r"o\['a'\] must be a NumPy array, got float"),
        (np.zeros(2), {"a": np.zeros(2)}, {}, TypeError, "do must be an array, as o is, got dict"),
        ({"a": np.zeros(2)}, np.zeros(2), {}, TypeError, "do must be a dict, as o is, got ndarray"),
        ({"a": {"b": np.zeros(2)}}, {"a": {}}, {}, ValueError, r"o\['a'\] has the key 'b', and do\['a'\] has not"),
        ({}, {"c": np.zeros(2)}, {}, ValueError, "do has the key 'c', and o has not"),
        ({"a": np.zeros(2)}, {"a": None}, {}, TypeError, r"do\['a'\] must hold numbers, got dtype object"),
        (np.zeros(2), np.zeros(2), {"step_size": np.nan}, ValueError, "step_size must be finite, got nan"),
        (np.zeros(2), np.zeros(2), {"step_size": "1"}, TypeError, "step_size must be a real number"),
        (np.zeros(2), np.zeros(2), {"decay": np.inf}, ValueError, "decay must be finite, got inf"),
        (read_only(), np.zeros(2), {"in_place": True}, ValueError, "^o is read-only"),
        ({"a": read_only()}, {"a": np.zeros(2)}, {"in_place": True}, ValueError, r"^o\['a'\] is read-only"),
        (np.zeros(2), np.zeros(2), {"in_place": "no"}, TypeError, "in_place must be True or False, got 'no'"),
        (np.zeros(2), [[1.0], [1.0, 2.0]], {}, ValueError, "^do must be an array, and NumPy cannot make one of it"),
        (
            {"a": SHARED[:3], "b": SHARED[1:]},
            {"a": np.ones(3), "b": np.ones(3)},
            {"in_place": True},
            ValueError,
            r"^o\['b'\] overlaps the memory of o\['a'\]",
        ),
    ],
    ids=str,
)
def test_bad_input(o: Any, do: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        euler_step(o, do, **{"step_size": 0.1, **options}, device="numpy")
    assert not SHARED.any()


def test_what_is_not_finite_goes_through(device: str) -> None:
    made = euler_step(np.array([np.inf, np.nan, 1e38], np.float32), np.array([1.0, 1.0, 1e300]), 1.0, device=device)
    np.testing.assert_array_equal(made, np.array([np.inf, np.nan, np.inf], np.float32))
