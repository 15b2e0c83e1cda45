"""Clipping of gradients: what it does, in which precision, and what it refuses."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grilly_optim
from grilly_optim import Parameter
from grilly_optim.optim import AdamW, clip_grad_norm, clip_grad_value
from grilly_optim.optim.clipping import BLOCK
from tests.table import SIZES, Array, assert_bits, draw, layouts

DTYPES = [np.float16, np.float32, np.float64, ">f4", ">f8", np.longdouble]
ORDERS = [2, 1, 3, 0.5, math.inf, "inf"]


def plain_norm(arrays: list[Array], p: Any) -> float:
    """The norm of all elements in one vector."""
    whole = np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays] or [np.zeros(0)])
    if p in (math.inf, "inf"):
        return float(np.abs(whole).max(initial=0.0))
    return float((np.abs(whole) ** p).sum() ** (1 / p))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", ORDERS)
def test_norm_and_factor(p: Any, dtype: Any) -> None:
    for size in SIZES:
        arrays = [np.asarray(draw(size) / 1e3, dtype), np.asarray(draw((3, 2)) / 1e3, dtype)]
        before = [a.copy() for a in arrays]
        norm = clip_grad_norm(arrays, 0.25, p)
        assert type(norm) is float
        assert norm == pytest.approx(plain_norm(before, p), rel=1e-12)
        factor = min(1.0, 0.25 / (norm + 1e-6))
        for a, b in zip(arrays, before, strict=True):
            assert_bits(a, np.asarray(b * b.dtype.type(factor), b.dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_layout(dtype: Any) -> None:
    for name, make in layouts(dtype):
        for clip in (lambda a: clip_grad_norm(a, 0.5), lambda a: clip_grad_value(a, 0.5)):
            array = make()
            straight = np.array(array, order="C")
            clip([array])
            clip([straight])
            np.testing.assert_allclose(array, straight, rtol=1e-6 if dtype is np.float32 else 1e-15, err_msg=name)


def test_a_norm_that_is_small_enough_leaves_every_bit() -> None:
    g = draw(1000)
    before = g.copy()
    norm = clip_grad_norm([g], math.inf)
    assert clip_grad_norm([g], norm + 1) == norm
    assert_bits(g, before)


def test_small_norms_are_kept_from_0_as_in_torch() -> None:
    g = np.array([3e-6, 4e-6])
    assert clip_grad_norm([g], 1e-6) == pytest.approx(5e-6)
    np.testing.assert_allclose(g, [0.5e-6, 4e-6 / 6], rtol=1e-12)


def test_the_forms_in_which_gradients_come() -> None:
    forms: list[Callable[[Array, Array], Any]] = [
        lambda a, b: [a, b],
        lambda a, b: (a, None, b),
        lambda a, b: {"a": a, "none": None, "b": b},
        lambda a, b: {0: a, 1: b},
        lambda a, b: (x for x in (a, b)),
        lambda a, b: {"a": a, "b": b}.values(),
    ]
    for form in forms:
        a, b = np.array([3.0], np.float32), np.array([[-4.0]])
        assert clip_grad_norm(form(a, b), 1.0) == 5.0
        np.testing.assert_allclose([a[0], b[0, 0]], [0.6, -0.8], rtol=1e-6)
        clip_grad_value(form(a, b), 0.25)
        assert (a[0], b[0, 0]) == (0.25, -0.25)
    one = np.array([3.0, 4.0])
    assert clip_grad_norm(one, 1.0) == 5.0
    assert abs(one[0] - 0.6) < 1e-6
    clip_grad_value(one, 0.1)
    assert one.tolist() == [0.1, 0.1]
    assert clip_grad_norm([], 1.0) == clip_grad_norm({"w": None}, 1.0) == 0.0
    clip_grad_value([None], 1.0)


def test_values() -> None:
    g = np.array([-np.inf, -2, -0.1, -0.0, np.nan, 0.1, 2, np.inf], np.float32)
    clip_grad_value(g, 0.1)
    limit = np.float32(0.1)
    assert_bits(g, np.array([-limit, -limit, -limit, -0.0, np.nan, limit, limit, limit], np.float32))
    assert np.signbit(g[3])
    clip_grad_value(g, 0)
    assert_bits(g, np.array([0, 0, 0, 0, np.nan, 0, 0, 0], np.float32))
    h = np.array([6e4, -6e4], np.float16)
    clip_grad_value([h], 1e6)
    assert_bits(h, np.array([6e4, -6e4], np.float16))


def test_the_same_array_twice_counts_twice_and_is_scaled_once() -> None:
    g, h = draw(100), draw(7)
    copies = [g.copy(), g.copy(), h.copy()]
    norm = clip_grad_norm(copies, 0.5)
    assert clip_grad_norm([g, g[:], h], 0.5) == norm
    assert_bits(g, copies[0])
    assert_bits(h, copies[2])
    assert plain_norm([g, g, h], 2) == pytest.approx(0.5, rel=1e-5)


def test_views_that_do_not_overlap_are_scaled_each() -> None:
    g = draw(100)
    expected = g.copy()
    clip_grad_norm([expected], 0.5)
    clip_grad_norm([g[::2], g[1::2]], 0.5)
    np.testing.assert_allclose(g, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("value", "expected"), [(math.inf, [0.0, math.nan, -0.0]), (math.nan, [math.nan, math.nan, math.nan])]
)
@pytest.mark.parametrize("p", [2, 1, 3, math.inf])
def test_a_norm_that_is_not_finite(p: float, value: float, expected: list[float]) -> None:
    g = np.array([1.0, value, -2.0])
    before = g.copy()
    with pytest.raises(RuntimeError, match=r"the norm of the gradients is .*, so they cannot be clipped"):
        clip_grad_norm([g], 1.0, p, error_if_nonfinite=True)
    assert_bits(g, before)
    norm = clip_grad_norm([g], 1.0, p)
    assert norm == value or (math.isnan(norm) and math.isnan(value))
    assert_bits(g, np.array(expected))


def test_squares_that_float32_cannot_hold() -> None:
    g = np.full(4, 1e30, np.float32)
    assert clip_grad_norm([g], 1.0, error_if_nonfinite=True) == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(g, 0.5, rtol=1e-5)


def test_no_temporaries_of_the_size_of_an_array() -> None:
    arrays = [np.ones(1_000_000, np.float32), np.ones((500, 400)).T, np.ones(300_000)[::-3]]
    clip_grad_norm([np.ones(1)], 0.5)
    for call in (
        lambda: clip_grad_norm(arrays, 0.5),
        lambda: clip_grad_norm(arrays, 0.1, 3),
        lambda: clip_grad_value(arrays, 1e-6),
    ):
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * 8 * BLOCK


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(-1e100, 1e100), max_size=20),
    max_norm=st.floats(1e-3, 1e3),
    p=st.sampled_from([1.0, 2.0, 3.0, math.inf]),
)
def test_afterwards_the_norm_is_no_larger_and_the_direction_is_the_same(
    values: list[float], max_norm: float, p: float
) -> None:
    g = np.array(values)
    before = g.copy()
    norm = clip_grad_norm([g], max_norm, p)
    assert clip_grad_norm([g], math.inf, p) <= min(max_norm, norm) * (1 + 1e-12)
    assert (g * before >= 0).all()
    np.testing.assert_allclose(g * norm, before * plain_norm([g], p), rtol=1e-9, atol=1e-200 * max(1.0, norm))


def test_an_optimizer_steps_with_them(device: str) -> None:
    w = grilly_optim.zeros(4, device=device)
    g = grilly_optim.empty(4, device=device)
    g[...] = 10.0
    optimizer = AdamW([w], lr=0.1, device=device)
    assert clip_grad_norm([g], 1.0) == 20.0
    optimizer.step(gradients=[g])
    np.testing.assert_allclose(optimizer.state_dict()["state"][0]["exp_avg"], 0.05, rtol=1e-5)


def read_only() -> Array:
    g = draw(3)
    g.setflags(write=False)
    return g


BAD_ARRAYS: list[tuple[Any, Any, str]] = [
    ([1.0, 2.0], TypeError, r"gradients\[1\] must be a NumPy array, got list"),
    (3, TypeError, r"gradients\[1\] must be a NumPy array, got int"),
    (np.ones(3, int), TypeError, r"gradients\[1\] must hold floating point numbers, got dtype int64"),
    (np.ones(3, complex), TypeError, r"gradients\[1\] must hold floating point numbers, got dtype complex128"),
    (np.ones(3, bool), TypeError, r"gradients\[1\] must hold floating point numbers, got dtype bool"),
    (Parameter(np.ones(3)), TypeError, r"gradients\[1\] must be a gradient, got a Parameter.*pass its \.grad"),
    (read_only(), ValueError, r"gradients\[1\] is read-only"),
]


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_value], ids=["norm", "value"])
@pytest.mark.parametrize(("bad", "error", "message"), BAD_ARRAYS)
def test_arrays_that_are_refused(bad: Any, error: Any, message: str, clip: Any) -> None:
    g = draw(5)
    before = g.copy()
    with pytest.raises(error, match=message):
        clip([g, bad], 1e-3)
    with pytest.raises(error, match=message.replace("1", "'b'", 1)):
        clip({"a": g, "b": bad}, 1e-3)
    assert_bits(g, before)


@pytest.mark.parametrize("clip", [clip_grad_norm, clip_grad_value], ids=["norm", "value"])
def test_forms_that_are_refused(clip: Any) -> None:
    for bad, name in ((3.0, "float"), (None, "NoneType"), ("w", "str")):
        with pytest.raises(TypeError, match=rf"gradients must be an array, or a sequence or dict of them, got {name}"):
            clip(bad, 1.0)


def test_overlapping_arrays_are_refused_where_they_would_be_scaled_twice() -> None:
    g = draw((10, 10))
    before = g.copy()
    overlaps = ([g, g.T], [g[:6], g[5:]], [g, g.ravel()], {0: g, 1: g[3]})
    for gradients in overlaps:
        with pytest.raises(ValueError, match=r"gradients\[1\] overlaps the memory of gradients\[0\]"):
            clip_grad_norm(gradients, 1e-3)
    windows = np.lib.stride_tricks.as_strided(g, (5, 5), (4, 4))
    with pytest.raises(ValueError, match=r"gradients\[0\] overlaps itself"):
        clip_grad_norm([windows], 1e-3)
    assert_bits(g, before)
    clip_grad_value([g, g.T, windows], 0.5)
    assert_bits(g, np.clip(before, -0.5, 0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_norm": -1}, ValueError, "max_norm must be 0 or more, got -1"),
        ({"max_norm": math.nan}, ValueError, "max_norm must be 0 or more, got nan"),
        ({"max_norm": "1"}, TypeError, "max_norm must be a real number, got '1'"),
        ({"max_norm": None}, TypeError, "max_norm must be a real number, got None"),
        ({"max_norm": np.ones(2)}, TypeError, "max_norm must be a real number"),
        ({"norm_type": 0}, ValueError, "norm_type must be above 0, got 0"),
        ({"norm_type": -math.inf}, ValueError, "norm_type must be above 0, got -inf"),
        ({"norm_type": math.nan}, ValueError, "norm_type must be above 0, got nan"),
        ({"norm_type": "fro"}, TypeError, "norm_type must be a real number, got 'fro'"),
        ({"error_if_nonfinite": 1}, TypeError, "error_if_nonfinite must be True or False, got 1"),
    ],
)
def test_numbers_that_are_refused(arguments: dict[str, Any], error: Any, message: str) -> None:
    g = draw(5)
    before = g.copy()
    with pytest.raises(error, match=message):
        clip_grad_norm([g], **{"max_norm": 1e-3, **arguments})
    assert_bits(g, before)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError)])
def test_values_that_are_refused(value: Any, error: Any) -> None:
    with pytest.raises(error, match="clip_value must be"):
        clip_grad_value([draw(5)], value)
