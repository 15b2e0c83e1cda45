"""Gradients of one's own potentials: made by the autograd package, and checked by differences."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim._extras import MissingExtra
from grilly_optim.sampling import check_grad, potentials
from grilly_optim.sampling.potentials import Banana, BuiltIn, from_autograd
from tests.table import assert_bits
from tests.test_potentials import CASES

anp = pytest.importorskip("autograd.numpy")

Array = np.ndarray[Any, np.dtype[Any]]
rng = np.random.default_rng(3)


def banana(q: Any) -> Any:
    x, y = q[..., 0], q[..., 1]
    return (1 - x) ** 2 / 2 + 5 * (y - x**2) ** 2


# --- from_autograd


@pytest.mark.parametrize("vectorized", [False, True])
def test_autograd_gives_the_gradient_of_one_position(vectorized: bool) -> None:
    potential = from_autograd(banana, vectorized=vectorized)
    assert potential.vectorized is vectorized
    for dtype in (np.float32, np.float64):
        q = rng.standard_normal(2).astype(dtype)
        q.flags.writeable = False
        energy, gradient = potential(q)
        expected, slope = Banana()(q)
        assert type(energy) is float
        assert gradient.dtype == dtype
        assert energy == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(gradient, slope, rtol=1e-14 if dtype is np.float64 else 1e-6)
    assert potential([0, 1])[1].dtype == np.float64


def test_autograd_takes_all_chains_at_once() -> None:
    q = rng.standard_normal((50, 2))
    energies, gradients = from_autograd(banana, vectorized=True).value_and_grad(q)
    expected, slopes = Banana()(q)
    assert energies.shape == (50,)
    np.testing.assert_allclose(energies, expected, rtol=1e-13)
    np.testing.assert_allclose(gradients, slopes, rtol=1e-13)


def test_a_function_that_is_constant_has_gradient_0() -> None:
    with pytest.warns(UserWarning, match="independent of input"):
        assert_bits(from_autograd(lambda q: 1.0)(np.ones(3))[1], np.zeros(3))
    with pytest.warns(UserWarning, match="independent of input"):
        assert_bits(from_autograd(lambda q: np.ones(len(q)), vectorized=True)(np.ones((2, 3)))[1], np.zeros((2, 3)))
    with pytest.warns(UserWarning), pytest.raises(TypeError, match="must return a real U, got NoneType"):  # noqa: PT030
        from_autograd(lambda q: None)(np.ones(2))


def test_an_autograd_potential_travels_to_other_processes() -> None:
    potential = pickle.loads(pickle.dumps(from_autograd(banana, vectorized=True)))
    assert potential.vectorized is True
    assert potential(np.array([0.0, 1.0]))[0] == 5.5


def test_without_autograd_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "autograd", None)
    with pytest.raises(MissingExtra, match=r"pip install 'grilly_optim\[autograd\]'"):
        from_autograd(banana)


def test_plain_numpy_inside_gets_a_hint() -> None:
    with pytest.raises(TypeError) as caught:
        from_autograd(lambda q: math.exp(q[0]))(np.ones(2))
    assert "autograd.numpy" in "".join(caught.value.__notes__)
    with pytest.raises(ZeroDivisionError) as other:
        from_autograd(lambda q: 1 / 0)(np.ones(2))
    assert not hasattr(other.value, "__notes__")


AUTOGRAD_BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no function": (lambda: from_autograd(3), TypeError, "function must be a callable q -> U, got int"),  # type: ignore[arg-type]
    "several U": (lambda: from_autograd(lambda q: q)(np.ones(2)), ValueError, r"return one number, got shape \(2,\)"),
    "one U for all": (
        lambda: from_autograd(anp.sum, vectorized=True)(np.ones((3, 2))),
        ValueError,
        r"return shape \(3,\), one U per chain, got shape \(\)",
    ),
    "chains": (lambda: from_autograd(anp.sum)(np.ones((3, 2))), ValueError, r"must have shape \(D,\), got \(3, 2\)"),
    "3-d": (
        lambda: from_autograd(banana, vectorized=True)(np.ones((1, 3, 2))),
        ValueError,
        r"must have shape \(D,\) or \(C, D\), got \(1, 3, 2\)",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), AUTOGRAD_BAD.values(), ids=list(AUTOGRAD_BAD))
def test_bad_input_to_autograd_is_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# --- check_grad


@pytest.mark.parametrize("potential", [p for p, _ in CASES.values()], ids=list(CASES))
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_right_gradient_passes_at_any_scale(potential: BuiltIn, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1e-3, 1.0, 10.0]))
    element = st.floats(-size, size)
    q = np.array(data.draw(st.lists(element, min_size=potential.dim, max_size=potential.dim)))
    assert check_grad(potential, q).error < 1e-6
    assert check_grad(lambda q: potential(q), q).error < 1e-6


@pytest.mark.parametrize("potential", [p for p, _ in CASES.values()], ids=list(CASES))
@pytest.mark.parametrize("factor", [1 + 1e-5, 0.0, -1.0, 2.0, 1e10])
def test_one_wrong_element_is_found(potential: BuiltIn, factor: float) -> None:
    q = rng.uniform(0.3, 1, potential.dim)
    wrong = int(np.argmax(np.abs(potential(q)[1])))

    def broken(q: Array) -> tuple[float, Array]:
        energy, gradient = potential(q)
        gradient[wrong] *= factor
        return energy, gradient

    result = check_grad(broken, q)
    slope = potential(q)[1][wrong]
    assert result.where == wrong
    assert result.error == pytest.approx(abs(factor - 1) / max(1, abs(factor)), rel=1e-2)
    assert result.gradient == slope * factor
    assert result.difference == pytest.approx(slope, rel=1e-6)
    assert abs(result.difference - slope) <= result.uncertainty


def test_a_vectorized_gradient_that_mixes_chains_is_found() -> None:
    def mixed(q: Array) -> tuple[Any, Array]:
        return 0.5 * (q * q).sum(-1), q * len(q) / 3

    mixed.vectorized = True  # type: ignore[attr-defined]
    assert check_grad(mixed, np.ones(2)).error == pytest.approx(2 / 3)


def test_a_constant_does_not_matter() -> None:
    q = np.array([0.3, 0.7])
    for offset in (1e6, -1e6):
        assert check_grad(lambda q, c=offset: (Banana()(q)[0] + c, Banana()(q)[1]), q).error < 1e-6
        wrong = check_grad(lambda q, c=offset: (Banana()(q)[0] + c, 1.001 * Banana()(q)[1]), q)
        assert wrong.error == pytest.approx(1e-3, rel=0.1)


def test_lengths_from_tiny_to_huge() -> None:
    for scale in (1e-5, 1e-2, 1.0, 1e4):
        q = scale * np.array([0.3, -0.7])
        right = lambda q, s=scale: (np.cosh(q / s).sum(), np.sinh(q / s) / s)  # noqa: E731
        assert check_grad(right, q).error < 1e-6
        wrong = lambda q, s=scale: (np.cosh(q / s).sum(), np.sinh(q / s) / s * [1, 1.1])  # noqa: E731
        assert check_grad(wrong, q).error == pytest.approx(0.1 / 1.1, rel=0.05)
        assert check_grad(wrong, q).where == 1


def test_a_rough_energy_is_told_by_its_uncertainty() -> None:
    result = check_grad(lambda q: (np.float32(Banana()(q)[0]), 1.001 * Banana()(q)[1]), [0.3, 0.7])
    assert result.uncertainty > 1e-5
    assert check_grad(lambda q: (Banana()(q)[0], 1.001 * Banana()(q)[1]), [0.3, 0.7]).uncertainty < 1e-7


def test_a_right_gradient_of_an_energy_in_float32_passes() -> None:
    for q in rng.standard_normal((20, 2)):
        rough = check_grad(lambda q: (np.float32(1e4 + Banana()(q)[0]), Banana()(q)[1]), q)
        assert rough.error < 1e-6


def test_next_to_the_end_of_the_support() -> None:
    def half_line(q: Array) -> tuple[Any, Array]:
        return np.where(q > 0, q - np.log(q), math.inf).sum(), 1 - 1 / q

    assert check_grad(half_line, [5e-4]).error < 1e-6
    with pytest.raises(ValueError, match="U must be finite around q, and is not in element 1"):
        check_grad(half_line, [1.0, 1e-9])
    with pytest.raises(ValueError, match="U and its gradient must be finite at q, got inf"):
        check_grad(half_line, [-1.0])


def test_many_elements_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    q = rng.standard_normal(6)
    potential = CASES["logistic_regression"][0]
    whole = check_grad(potential, q)
    monkeypatch.setattr("grilly_optim.sampling.potentials._check._BLOCK", 50)
    assert check_grad(potential, q) == whole


CHECK_BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no potential": (lambda: check_grad(3, np.ones(2)), TypeError, "pot_energy_func must be a callable"),
    "q 2-d": (lambda: check_grad(Banana(), np.ones((1, 2))), ValueError, r"q must have shape \(D,\), got \(1, 2\)"),
    "q empty": (lambda: check_grad(Banana(), []), ValueError, r"q must have shape \(D,\), got \(0,\)"),
    "q complex": (lambda: check_grad(Banana(), [1j, 1]), TypeError, "q must hold real numbers, got complex128"),
    "q long": (lambda: check_grad(Banana(), np.ones(3)), ValueError, r"got \(1, 3\)"),
    "no gradient": (lambda: check_grad(lambda q: 1.0, np.ones(2)), TypeError, r"must return a tuple \(U, gradient\)"),
    "gradient NaN": (lambda: check_grad(lambda q: (1.0, q * math.nan), [1.0]), ValueError, r"got 1 and \[nan\]"),
    "raises": (lambda: check_grad(lambda q: 1 / 0, [1.0]), ZeroDivisionError, "division by zero"),
}


@pytest.mark.parametrize(("make", "error", "message"), CHECK_BAD.values(), ids=list(CHECK_BAD))
def test_bad_input_to_the_check_is_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_both_names_are_one() -> None:
    assert potentials.check_grad is check_grad
