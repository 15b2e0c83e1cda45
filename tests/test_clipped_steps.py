"""Clipping in the step: what `clip_grad_norm` and `clip_grad_value` do beforehand, and gradients only read."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.optim import AdamW, clip_grad_norm, clip_grad_value
from tests.hyper_table import assert_same
from tests.table import arrays_of_all_layouts, assert_bits, draw, makes, plain


def clipped_by_hand(gradients: list[Any], **clip: Any) -> list[Any]:
    copies = [None if g is None else g.copy() for g in gradients]
    if "clip_value" in clip:
        clip_grad_value([c for c in copies if c is not None], clip["clip_value"])
    else:
        clip_grad_norm([c for c in copies if c is not None], clip["max_norm"])
    return copies


@makes
@pytest.mark.parametrize("limit", [0.0, 0.25, np.inf])
def test_clip_value_is_clip_grad_value_to_the_last_bit(make: Any, limit: float, device: str) -> None:
    rng = np.random.default_rng(14)
    ps = arrays_of_all_layouts(rng)
    qs = plain(ps)
    optimizer, by_hand = make(ps, device), make(qs, "numpy")
    for step in range(3):
        gradients: list[Any] = [draw(p.shape, p.dtype, rng) for p in ps]
        gradients[step] = None
        optimizer.step(gradients=gradients, clip_value=limit)
        by_hand.step(gradients=clipped_by_hand(gradients, clip_value=limit))
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)
    assert_same(optimizer.state_dict(), by_hand.state_dict())


@pytest.mark.parametrize("limit", [0.0, 1e-3, 1.0, 1e7, np.inf])
def test_max_norm_is_clip_grad_norm_but_for_the_last_digits(limit: float, device: str) -> None:
    """The first moment shows what the kernel took for the gradient."""
    rng = np.random.default_rng(15)
    ps = arrays_of_all_layouts(rng)
    qs = plain(ps)
    optimizer, by_hand = AdamW(ps, device=device), AdamW(qs, device="numpy")
    gradients: list[Any] = [draw(p.shape, p.dtype, rng) for p in ps]
    gradients[3] = None
    kept = copy.deepcopy(gradients)
    optimizer.step(gradients=gradients, max_norm=limit)
    assert_same(gradients, kept)
    by_hand.step(gradients=clipped_by_hand(gradients, max_norm=limit))
    ours, theirs = (o.state_dict()["state"].values() for o in (optimizer, by_hand))
    for own, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own["exp_avg"], expected["exp_avg"], rtol=1e-6, atol=0)
    if limit >= 1e7:
        assert_same(optimizer.state_dict(), by_hand.state_dict())


def test_a_norm_of_doubles_has_their_digits(device: str) -> None:
    rng = np.random.default_rng(16)
    p, q = rng.standard_normal(9000), rng.standard_normal(9000)
    optimizer, by_hand = AdamW([p], device=device), AdamW([q], device="numpy")
    g = rng.standard_normal(9000)
    optimizer.step(gradients=[g], max_norm=0.5)
    by_hand.step(gradients=clipped_by_hand([g], max_norm=0.5))
    own, expected = (o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, by_hand))
    np.testing.assert_allclose(own, expected, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_are_clipped_as_by_hand(value: float, device: str) -> None:
    """A NaN makes all of them NaN; infinity makes itself NaN, and the others 0."""
    for clip in ({"max_norm": 1.0}, {"max_norm": np.inf}, {"clip_value": 0.5}):
        ps = [np.ones(40, np.float32), np.ones(7)]
        qs = [p.copy() for p in ps]
        gradients = [draw(40), draw(7, np.float64)]
        gradients[1][3] = value
        AdamW(ps, device=device).step(gradients=gradients, **clip)
        AdamW(qs, device="numpy").step(gradients=clipped_by_hand(gradients, **clip))
        for p, q in zip(ps, qs, strict=True):
            assert_bits(p, q, str(clip))
        if "max_norm" in clip:
            assert np.isnan(ps[1][3])
            assert np.isnan(ps[0]).all() == (np.isnan(value) or clip["max_norm"] == np.inf)


def test_a_norm_whose_square_is_beyond_float32_is_finite(device: str) -> None:
    p = np.ones(40, np.float32)
    g = draw(40) * np.float32(1e25)
    optimizer = AdamW([p], device=device)
    optimizer.step(gradients=[g], max_norm=1.0)
    expected = 0.1 * clipped_by_hand([g], max_norm=1.0)[0]
    np.testing.assert_allclose(optimizer.state_dict()["state"][0]["exp_avg"], expected, rtol=1e-6)


def test_gradients_come_in_every_form_and_are_only_read(device: str) -> None:
    a, b = draw(30), draw((4, 5), np.float64)
    ga, gb = draw(30), draw((5, 4), np.float64).T
    for g in (ga, gb):
        g.setflags(write=False)
    for clip in ({"max_norm": 0.5}, {"clip_value": 0.1}):
        results = []
        for form in (lambda: [ga, gb], lambda: {"a": ga, "b": gb}, lambda: (ga.astype(np.float64), gb.tolist())):
            ps = [a.copy(), b.copy()]
            AdamW({"a": ps[0], "b": ps[1]}, device=device).step(gradients=form(), **clip)
            results.append(ps)
        parameters = [grilly_optim.Parameter(a), grilly_optim.Parameter(b)]
        for parameter, g in zip(parameters, (ga, gb), strict=True):
            parameter.grad = g
        AdamW(parameters, device=device).step(**clip)
        for others in (*results[1:], parameters):
            for x, y in zip(others, results[0], strict=True):
                assert_bits(np.asarray(x), y)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ({"max_norm": 1.0, "clip_value": 1.0}, ValueError, "max_norm and clip_value are both given"),
        ({"max_norm": -1.0}, ValueError, "max_norm must be 0 or more, got -1.0"),
        ({"max_norm": np.nan}, ValueError, "max_norm must be 0 or more, got nan"),
        ({"max_norm": "2"}, TypeError, "max_norm must be a real number, got '2'"),
        ({"clip_value": -0.5}, ValueError, "clip_value must be 0 or more, got -0.5"),
        ({"clip_value": np.nan}, ValueError, "clip_value must be 0 or more, got nan"),
        ({"clip_value": [1.0]}, TypeError, r"clip_value must be a real number, got \[1.0\]"),
    ],
)
def test_bad_limits_get_one_error_and_change_nothing(clip: Any, error: type[Exception], message: str) -> None:
    p = draw(20)
    before = p.copy()
    optimizer = AdamW([p], device="numpy")
    with pytest.raises(error, match=message):
        optimizer.step(gradients=[draw(20)], **clip)
    assert_bits(p, before)
    assert optimizer.state_dict()["state"][0]["step"] == 0
