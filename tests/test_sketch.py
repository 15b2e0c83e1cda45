"""Count sketches by themselves: sums of signed elements, whose inner products are right on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling import CountSketch
from tests.table import Array


@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_a_sketch_is_linear_in_its_vector(count: int, size: int, seed: int) -> None:
    sketch = CountSketch.create(count, size, seed)
    matrix = np.zeros((size, count))
    matrix[sketch.hash_indices, np.arange(count)] = sketch.hash_signs
    v = np.random.default_rng(1).integers(-100, 100, count).astype(np.float32)
    np.testing.assert_array_equal(sketch.sketch(v), matrix @ v)
    assert sketch.sketch(v).dtype == np.float32


def test_shapes_are_taken_in_c_order() -> None:
    sketch, v = CountSketch.create(12, 5, 1), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(sketch.sketch(v.T), sketch.sketch(v.T.reshape(-1)))


def test_a_longer_sketch_begins_alike() -> None:
    short, long = (CountSketch.create(n, 64, 9) for n in (10, 1000))
    np.testing.assert_array_equal(long.hash_indices[:10], short.hash_indices)
    np.testing.assert_array_equal(long.hash_signs[:10], short.hash_signs)


def _of(seed: int, v: Array, w: Array, size: int) -> float:
    sketch = CountSketch.create(v.size, size, seed)
    return float(sketch.sketch(v) @ sketch.sketch(w))


def test_inner_products_are_right_on_average() -> None:
    """Over 400 sketches, seeds set down before the first look; 4 standard errors fail with probability 6e-5."""
    rng = np.random.default_rng(7)
    v, w = rng.standard_normal((2, 300))
    found = np.array([_of(seed, v, w, 40) for seed in range(400)])
    assert abs(found.mean() - v @ w) < 4 * found.std(ddof=1) / 20
    assert found.var() < 2 * (v @ v) * (w @ w) / 40


def test_hashes_are_uniform() -> None:
    """Chi-squared over 64 buckets and 2 signs of a million elements: 127 expected, above 230 less than once in 1e6."""
    sketch = CountSketch.create(1_000_000, 64, 2026)
    counts = np.bincount(2 * sketch.hash_indices + (sketch.hash_signs > 0), minlength=128)
    assert ((counts - 1e6 / 128) ** 2 / (1e6 / 128)).sum() < 230


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0, 2], [1, 1], 2), ValueError, "hash_indices must be from 0 to 1, got 0 to 2"),
        (([-1, 1], [1, 1], 2), ValueError, "hash_indices must be from 0 to 1, got -1 to 1"),
        (([0.0, 1.0], [1, 1], 2), TypeError, "hash_indices must be a list of whole numbers, got float64"),
        (([[0], [1]], [1, 1], 2), TypeError, r"hash_indices must be a list of whole numbers, got int64 of \(2, 1\)"),
        (([0, 1], [1], 2), ValueError, "hash_signs must be 2 numbers"),
        (([0, 1], [1, 0], 2), ValueError, "hash_signs must be 1 or -1, got 0"),
        (([0, 1], [1, np.nan], 2), ValueError, "hash_signs must be 1 or -1, got nan"),
        (([0, 1], [1, -1], 0), ValueError, "output_dim must be 1 or more, got 0"),
        (([0, 1], [1, -1], 2**31), ValueError, r"output_dim must be at most 2\^31 - 1"),
    ],
)
def test_bad_hashes(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        CountSketch(*arguments)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="v must have 3 elements, got 4"):
        CountSketch.create(3, 2, 0).sketch(np.ones(4))
    with pytest.raises(ValueError, match=r"seed must be from 0 to 2\^64 - 1, got -1"):
        CountSketch.create(3, 2, -1)
    with pytest.raises(TypeError, match=r"input_dim must be a whole number, got 3\.5"):
        CountSketch.create(3.5, 2, 0)  # type: ignore[arg-type]
