"""The rule of relaxation, one per activation: what it computes on every device, and the activations in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim._devices import open_device
from grilly_optim.energy._relax import RelaxScalars, RelaxState, relax_rule
from grilly_optim.energy.activations import ACTIVATIONS, get_activation
from tests.table import Array, assert_bits, works

DTYPES = [np.float32, np.float64]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
names = pytest.mark.parametrize("name", ACTIVATIONS)
# Selection and multiplication alone: every device gives NumPy's bits. exp is the engine's own.
EXACT = {"hard_sigmoid", "identity", "leaky_relu", "relu"}
ROW = (2.0, 1.5, 0.1)
WIDE = np.longdouble


def e(x: Array) -> Array:
    return np.asarray(np.exp(-np.abs(x)))


# In wider numbers, and written otherwise: function and derivative.
WANTED: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "hard_sigmoid": (lambda x: np.minimum(np.maximum(x, 0), 1), lambda x: 1.0 * (x >= 0) * (x <= 1)),
    "identity": (lambda x: x, np.ones_like),
    "leaky_relu": (lambda x: np.where(x > 0, x, x / 20), lambda x: np.where(x > 0, 1, x.dtype.type(1) / 20)),
    "relu": (lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0)),
    "sigmoid": (lambda x: np.exp(np.minimum(x, 0)) / (1 + e(x)), lambda x: e(x) / (1 + e(x)) ** 2),
    "softplus": (
        lambda x: np.where(x > 20, x, np.logaddexp(0, x)),
        lambda x: np.where(x > 20, 1, np.exp(np.minimum(x, 0)) / (1 + e(x))),
    ),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(np.clip(x, -2000, 2000)) ** 2),
}


def run(name: str, device: str, dtype: Any, measured: bool, steps: int = 3) -> tuple[list[Array], Any]:
    """Rates and states of three layers after some steps, and the last step's sums by group."""
    rng, rule = np.random.default_rng(4), relax_rule(name)

    def numbers(shape: tuple[int, ...]) -> Array:
        return np.asarray(2 * rng.standard_normal(shape), dtype)

    rs = [np.zeros(shape, dtype) for shape in [(1, 1), (3, 1367), (7, 40)]]
    backend: Any = open_device(device)[1]
    plan = backend.plan(rule, rs, [0, 1, 2], groups=[0, 1, 1])
    for k, r in enumerate(rs):
        u = numbers(r.shape)
        r[...] = get_activation(name).function(u)
        plan.write_state("u", k, u)
    sums = np.zeros((2, 1)) if measured else None
    for _ in range(steps):
        inputs = [[numbers(r.shape) for r in rs] for _ in range(2)]
        assert backend.run([plan], tuple(inputs), [[ROW]], [None], numbers=sums)
    us = [np.empty_like(r) for r in rs]
    for k, u in enumerate(us):
        plan.read_state("u", k, u)
    return rs + us, sums


@dtypes
@names
@pytest.mark.parametrize("measured", [False, True], ids=["plain", "measured"])
def test_devices_agree_with_numpy(name: str, dtype: Any, measured: bool, device: str) -> None:
    with works(device, 3):
        found, sums = run(name, device, dtype, measured)
    expected, expected_sums = run(name, "numpy", dtype, measured)
    for a, b in zip(found, expected, strict=True):
        if name in EXACT or device == "numpy":
            assert_bits(a, b)
        tolerance = 2e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    if measured:
        np.testing.assert_allclose(sums, expected_sums, rtol=1e-5 if dtype == np.float32 else 1e-13)
        assert np.count_nonzero(expected_sums) == 2


@dtypes
@names
def test_measuring_changes_no_bit(name: str, dtype: Any, device: str) -> None:
    plain, measured = (run(name, device, dtype, way)[0] for way in (False, True))
    for a, b in zip(plain, measured, strict=True):
        assert_bits(a, b)


@names
@pytest.mark.cases("cpu")
@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
def test_instruction_sets_give_the_same_bits(name: str, isa: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(name, device, np.float64, True)
    monkeypatch.setenv("GRILLY_ISA", isa)
    for a, b in zip(run(name, device, np.float64, True)[0], expected[0], strict=True):
        assert_bits(a, b)


@names
@pytest.mark.cases("vulkan", "staged")
def test_vulkan_gives_the_processors_bits(name: str, device: str) -> None:
    for a, b in zip(run(name, device, np.float64, False)[0], run(name, "cpu", np.float64, False)[0], strict=True):
        assert_bits(a, b)


def test_a_step_is_the_formula(device: str) -> None:
    rng = np.random.default_rng(5)
    u, pull, back = (rng.standard_normal((4, 300)) for _ in range(3))
    r, slope = np.tanh(u), 1 - np.tanh(u) ** 2
    backend: Any = open_device(device)[1]
    plan = backend.plan(relax_rule("tanh"), [r], [0])
    plan.write_state("u", 0, u)
    sums = np.zeros((1, 1))
    assert backend.run([plan], ([pull], [back]), [[ROW]], [None], numbers=sums)
    g = 2.0 * (u - pull) - 1.5 * slope * back
    moved = np.empty_like(u)
    plan.read_state("u", 0, moved)
    np.testing.assert_allclose(moved, u - 0.1 * g, atol=1e-14)
    np.testing.assert_allclose(r, np.tanh(u - 0.1 * g), atol=1e-14)
    np.testing.assert_allclose(sums, [[(g * g).sum()]], rtol=1e-13)


def both(name: str, device: str, x: Array) -> tuple[Array, Array]:
    """Function and derivative as the device computes them: rates after a step from 0 to x, roots of sums."""
    backend: Any = open_device(device)[1]
    r, zeros = np.zeros_like(x), np.zeros_like(x)
    plan = backend.plan(relax_rule(name), [r], [0])
    assert backend.run([plan], ([x], [zeros]), [[(1.0, 0.0, 1.0)]], [None])
    each = range(x.size)
    rates = [np.zeros(1, x.dtype) for _ in each]
    plan = backend.plan(relax_rule(name), rates, list(each), groups=list(each))
    # Infinite states would be 0 * inf in the sum.
    finite = np.where(np.isinf(x), np.sign(x) * np.finfo(x.dtype).max / 4, x)
    for k in each:
        plan.write_state("u", k, finite[k : k + 1])
        rates[k][...] = get_activation(name).function(finite[k : k + 1])
    # Squares of what is asked for must be numbers.
    zero, large = [np.zeros(1, x.dtype) for _ in each], [np.full(1, 2.0**50, x.dtype) for _ in each]
    sums = np.zeros((x.size, 1))
    assert backend.run([plan], (zero, large), [[(0.0, 1.0, 0.0)]], [None], numbers=sums)
    return r, (np.sqrt(sums[:, 0]) / 2.0**50).astype(x.dtype)


def points(dtype: Any) -> Array:
    rng = np.random.default_rng(6)
    near = rng.choice([-1, 1], 400) * 10.0 ** rng.uniform(-15, 1.6, 400)
    return np.concatenate([near, [0.35, 0.350001, -0.35, 20, 20.5, 0, 1, 19.999]]).astype(dtype)


@dtypes
@names
def test_functions_and_derivatives_are_those_of_wider_numbers(name: str, dtype: Any, device: str) -> None:
    """Relative to what they are, near 0 too; but for derivatives that are made of a rate near 1 and go to 0."""
    x = points(dtype)
    found, slopes = both(name, device, x)
    function, derivative = WANTED[name]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found.astype(WIDE), function(x.astype(WIDE)), rtol=8 * eps, atol=0)
    atol = 4 * eps if name in ("sigmoid", "tanh") else 0
    np.testing.assert_allclose(slopes.astype(WIDE), derivative(x.astype(WIDE)), rtol=8 * eps, atol=atol)


@dtypes
@names
def test_the_ends(name: str, dtype: Any, device: str) -> None:
    x = np.array([-np.inf, -1e30, 1e30, np.inf, np.nan, 0.0], dtype)
    found, slopes = both(name, device, x)
    big, small = dtype(1e30), {"leaky_relu": dtype(-1e30) * (dtype(1) / dtype(20)), "identity": dtype(-1e30)}
    bounded = {"hard_sigmoid": (0, 1), "sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, np.inf), "softplus": (0, np.inf)}
    low, high = bounded.get(name, (-np.inf, np.inf))
    at_zero = {"sigmoid": 0.5, "softplus": np.log(2.0)}.get(name, 0.0)
    wanted = [low, small.get(name, low), min(high, big), high, np.nan, at_zero]
    np.testing.assert_allclose(found, np.array(wanted, dtype), rtol=4 * np.finfo(dtype).eps)
    far = {"leaky_relu": (0.05, 1), "identity": (1, 1), "relu": (0, 1), "softplus": (0, 1)}.get(name, (0, 0))
    here = {"relu": 0, "leaky_relu": 0.05, "sigmoid": 0.25, "softplus": 0.5}.get(name, 1)
    wanted = [far[0], far[0], far[1], far[1], np.nan, here]
    np.testing.assert_allclose(slopes, np.array(wanted, dtype), rtol=4 * np.finfo(dtype).eps)


@dtypes
@names
def test_numpys_own_do_not_warn_and_keep_the_dtype(name: str, dtype: Any) -> None:
    phi = get_activation(name)
    x = np.array([-np.inf, np.finfo(dtype).min, -750, 0, 750, np.finfo(dtype).max, np.inf, np.nan], dtype)
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        for made in (phi.function(x), phi.derivative(x)):
            assert made.dtype == dtype
            assert np.isnan(made).tolist() == [False] * 7 + [True]


def test_the_twin_is_the_text_with_the_activation_in_it() -> None:
    rule = relax_rule("relu")
    assert relax_rule("relu") is rule
    after = rule.twin(RelaxState(np.zeros(2), np.array([1.0, -1.0])), np.zeros(2), np.ones(2), RelaxScalars(2, 4, 0.5))
    np.testing.assert_array_equal(after.u, [2.0, 0.0])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(after.r, [2.0, 0.0])  # type: ignore[attr-defined]
