"""Side by side with torch's clipping of gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from grilly_optim.optim import clip_grad_norm, clip_grad_value

pytestmark = pytest.mark.torch

SHAPES = [(), (1,), (257,), (13, 7), (20_000,)]
# torch takes norm and factor in the precision of the arrays; we take them in double.
TOLERANCES = {np.float64: 1e-13, np.float32: 1e-5, np.float16: 4e-3}


def gradients(dtype: Any, shapes: list[tuple[int, ...]] = SHAPES) -> tuple[list[Any], list[Any]]:
    """Equal gradients: arrays, and torch's parameters that have them; the last of each has none."""
    rng = np.random.default_rng(0)
    mine: list[Any] = [np.asarray(rng.standard_normal(s), dtype) for s in shapes]
    theirs = [torch.nn.Parameter(torch.zeros(s, dtype=getattr(torch, np.dtype(dtype).name))) for s in shapes]
    for q, g in zip(theirs, mine, strict=True):
        q.grad = torch.tensor(g)
    mine.append(None)
    return mine, [*theirs, torch.nn.Parameter(torch.zeros(3))]


def compare(mine: list[Any], theirs: list[Any], rtol: float) -> None:
    for g, q in zip(mine[:-1], theirs[:-1], strict=True):
        assert g.dtype == q.grad.numpy().dtype
        np.testing.assert_allclose(g, q.grad.numpy(), rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda d: d.__name__)
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, 0.5, math.inf, "inf"])
@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 150.0, 1e9, math.inf])
def test_norms(max_norm: float, norm_type: Any, dtype: Any) -> None:
    mine, theirs = gradients(dtype)
    norm = clip_grad_norm(mine, max_norm, norm_type)
    original = clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm == pytest.approx(float(original), rel=TOLERANCES[dtype])
    compare(mine, theirs, TOLERANCES[dtype])


def test_half_precision() -> None:
    mine, theirs = gradients(np.float16)
    assert clip_grad_norm(mine, 0.5) == pytest.approx(float(clip_grad_norm_(theirs, 0.5)), rel=TOLERANCES[np.float16])
    for g, q in zip(mine[:-1], theirs[:-1], strict=True):
        np.testing.assert_allclose(g, q.grad.numpy(), rtol=TOLERANCES[np.float16], atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_norms_that_are_not_finite(norm_type: float, value: float) -> None:
    mine, theirs = gradients(np.float64)
    mine[2][3] = value
    theirs[2].grad[3] = value
    for clip, given in ((clip_grad_norm, mine), (clip_grad_norm_, theirs)):
        with pytest.raises(RuntimeError):
            clip(given, 1.0, norm_type, error_if_nonfinite=True)
    np.testing.assert_equal(clip_grad_norm(mine, 1.0, norm_type), float(clip_grad_norm_(theirs, 1.0, norm_type)))
    compare(mine, theirs, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("value", [0.0, 1e-3, 0.1, 0.7, 1e3, math.inf])
def test_values_bit_for_bit(value: float, dtype: Any) -> None:
    mine, theirs = gradients(dtype)
    for place, special in enumerate((math.nan, math.inf, -math.inf, -0.0)):
        mine[3][place] = special
        theirs[3].grad[place] = special
    clip_grad_value(mine, value)
    clip_grad_value_(theirs, value)
    for g, q in zip(mine[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(g, q.grad.numpy())
        np.testing.assert_array_equal(np.signbit(g), np.signbit(q.grad.numpy()))


# Where we differ on purpose.


def test_a_gradient_that_is_there_twice_is_scaled_once_where_torch_scales_it_twice() -> None:
    g = np.array([3.0, 4.0])
    shared = torch.tensor([3.0, 4.0], dtype=torch.float64)
    theirs = [torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
    for q in theirs:
        q.grad = shared
    norm = clip_grad_norm([g, g], 1.0)
    assert norm == pytest.approx(float(clip_grad_norm_(theirs, 1.0)), rel=1e-15)
    factor = 1 / (norm + 1e-6)
    np.testing.assert_allclose(g, np.array([3.0, 4.0]) * factor, rtol=1e-15)
    np.testing.assert_allclose(shared.numpy(), np.array([3.0, 4.0]) * factor**2, rtol=1e-15)


def test_a_norm_beyond_float32_is_finite_where_torchs_is_not() -> None:
    g = np.full(4, 3e38, np.float32)
    theirs = torch.nn.Parameter(torch.zeros(4))
    theirs.grad = torch.tensor(g)
    assert clip_grad_norm([g], 1.0) == pytest.approx(6e38, rel=1e-6)
    assert math.isinf(clip_grad_norm_([theirs], 1.0))
    np.testing.assert_allclose(g, 0.5, rtol=1e-5)
    assert not theirs.grad.any()


def test_a_negative_limit_is_refused_where_torch_turns_gradients_around() -> None:
    g = np.array([3.0, -4.0])
    theirs = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    theirs.grad = torch.tensor(g)
    with pytest.raises(ValueError, match="max_norm must be 0 or more"):
        clip_grad_norm([g], -1.0)
    clip_grad_norm_([theirs], -1.0)
    assert theirs.grad[0] < 0 < theirs.grad[1]
    with pytest.raises(ValueError, match="clip_value must be 0 or more"):
        clip_grad_value([g], -1.0)
    clip_grad_value_([theirs], -1.0)
    assert theirs.grad[0] == theirs.grad[1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda d: d.__name__)
def test_empty_arrays(dtype: Any) -> None:
    mine, theirs = gradients(dtype, [(0, 3), (5,), (0,)])
    assert clip_grad_norm(mine, 0.5) == pytest.approx(float(clip_grad_norm_(theirs, 0.5)), rel=TOLERANCES[dtype])
    compare(mine, theirs, TOLERANCES[dtype])
    assert clip_grad_norm(mine, 0.5, math.inf) == np.abs(mine[1]).max()
    with pytest.raises(RuntimeError, match="infinity norm on an empty tensor"):
        clip_grad_norm_(theirs, 0.5, math.inf)


def test_order_0_is_refused_where_torch_counts_arrays() -> None:
    g = np.array([3.0, 4.0, 0.0])
    theirs = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    theirs.grad = torch.tensor(g)
    with pytest.raises(ValueError, match="norm_type must be above 0"):
        clip_grad_norm([g], 1.0, 0)
    assert float(clip_grad_norm_([theirs], 1.0, 0)) == 1.0
