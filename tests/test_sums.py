"""Sums over all elements: the same bits on every device, whatever the number of threads and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim._devices import open_device
from grilly_optim.kernels.norm import NORM
from tests.table import SIZES, Array, draw, works

DTYPES = [np.float32, np.float64]


def squares(device: str, parts: list[list[Array | None]]) -> float:
    """The sum of squares of all arrays, a plan for each list."""
    backend: Any = open_device(device)[1]
    arrays = [[np.zeros(1, np.float32) if g is None else g for g in part] for part in parts]
    flat = [g for part in parts for g in part]
    plans, first = [], 0
    for part in arrays:
        plans.append(backend.plan(NORM, [np.zeros_like(g) for g in part], range(first, first + len(part))))
        first += len(part)
    numbers = np.zeros(1)
    assert backend.run(plans, (flat,), [[(0.0,)]] * len(plans), [None] * len(plans), numbers=numbers)
    return float(numbers[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("size", SIZES)
def test_sizes_give_the_numpy_answer(size: int, dtype: Any, device: str) -> None:
    g = draw(size, dtype)
    with works(device, 1 if size else 0):
        found = squares(device, [[g]])
    assert found == squares("numpy", [[g]])
    np.testing.assert_allclose(found, (g.astype(np.float64) ** 2).sum(), rtol=1e-6 if dtype == np.float32 else 1e-14)


def test_many_arrays_of_both_precisions(device: str) -> None:
    rng = np.random.default_rng(8)
    singles: list[Array | None] = [draw(int(n), rng=rng) for n in rng.integers(0, 30_000, 40)]
    doubles: list[Array | None] = [draw(int(n), np.float64, rng) for n in rng.integers(0, 5_000, 10)]
    singles[3] = None
    assert squares(device, [singles, doubles]) == squares("numpy", [singles, doubles])


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
def test_threads_and_instruction_sets_make_no_difference(
    threads: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRILLY_THREADS", threads)
    monkeypatch.setenv("GRILLY_ISA", isa)
    g = draw(300_001)
    assert squares("cpu", [[g]]) == squares("numpy", [[g]])


@pytest.mark.cases("vulkan")
def test_group_limits_and_small_allocations_make_no_difference(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second begins in what the first has left of an allocation.
    parts: list[list[Array | None]] = [[draw(300), draw(100_003)]]
    expected = squares("numpy", parts)
    monkeypatch.setenv("GRILLY_MAX_GROUPS", "7")
    monkeypatch.setenv("GRILLY_MAX_ALLOCATION", str(70_000))
    assert squares(device, parts) == expected


def test_nan_and_infinity_pass(device: str) -> None:
    for value, expected in ((np.inf, np.inf), (np.nan, np.nan), (1e30, np.inf)):
        g = draw(5_000)
        g[4_321] = value
        np.testing.assert_equal(squares(device, [[g]]), expected)


def test_numbers_of_another_size_are_refused(device: str) -> None:
    backend: Any = open_device(device)[1]
    p = grilly_optim.zeros(3, device=device)
    plan = backend.plan(NORM, [p], [0])
    if device == "numpy":
        return
    with pytest.raises(ValueError, match="rule norm needs an array of 1 doubles"):
        backend.run([plan], ([p],), [[(0.0,)]], [None], numbers=np.zeros(2))
