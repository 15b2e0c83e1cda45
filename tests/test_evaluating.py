"""Potentials as samplers call them: shapes, dtypes, whose memory it is, and what goes wrong."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling._evaluating import EvaluationFailed, Evaluator
from grilly_optim.sampling.potentials import Banana, StandardNormal
from tests.table import assert_bits

Array = np.ndarray[Any, np.dtype[Any]]

Q = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def vectorized(function: Callable[[Array], Any]) -> Any:
    function.vectorized = True  # type: ignore[attr-defined]
    return function


def square(q: Array) -> tuple[Any, Array]:
    return 0.5 * (q * q).sum(-1), q


class Square:
    """With the method only."""

    def value_and_grad(self, q: Array) -> tuple[Any, Array]:
        return square(q)


class Both(Square):
    """Called by its method, not as a function."""

    vectorized = True

    def __call__(self, q: Array) -> float:
        raise AssertionError("not by this name")


FORMS = {
    "function": square,
    "lambda": lambda q: square(q),
    "method": Square(),
    "both": Both(),
    "vectorized": vectorized(lambda q: square(q)),
    "false": type("False_", (Square,), {"vectorized": False})(),
    "built in": StandardNormal(2),
    "integers": lambda q: (int(q @ q) / 2, [int(x) for x in q]),
    "float32": lambda q: (np.float32(q @ q / 2), q.astype(np.float32)),
    "0-d": lambda q: (np.array(q @ q / 2), q),
    "fortran": vectorized(lambda q: (square(q)[0], np.asfortranarray(q))),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_form_of_a_potential(form: Any, dtype: Any) -> None:
    evaluator = Evaluator(form, dtype)
    assert evaluator.vectorized is bool(getattr(form, "vectorized", False))
    for chains in (3, 1, 0):
        energies, gradients = evaluator(Q[:chains].astype(dtype))
        assert_bits(energies, np.array([2.5, 12.5, 30.5])[:chains])
        assert_bits(gradients, Q[:chains].astype(dtype))
        assert gradients.flags.c_contiguous


def test_what_the_potential_sees() -> None:
    seen: list[tuple[int, ...]] = []

    def one(q: Array) -> tuple[Array, Array]:
        seen.append(q.shape)
        assert not q.flags.writeable
        return q[..., 0], q

    Evaluator(one, np.float64)(Q)
    Evaluator(vectorized(one), np.float64)(Q)
    assert seen == [(2,), (2,), (2,), (3, 2)]


@pytest.mark.parametrize("whole", [False, True])
def test_a_potential_cannot_move_the_chains(whole: bool) -> None:
    def moving(q: Array) -> tuple[float, Array]:
        q += 1
        return 0.0, q

    moving.vectorized = whole  # type: ignore[attr-defined]
    q = Q.copy()
    with pytest.raises(EvaluationFailed) as caught:
        Evaluator(moving, np.float64)(q)
    assert isinstance(caught.value.cause, ValueError)
    assert "read-only" in str(caught.value.cause)
    assert_bits(q, Q)
    assert q.flags.writeable


@pytest.mark.parametrize("whole", [False, True])
def test_results_are_the_evaluator_s_own(whole: bool) -> None:
    kept = np.zeros(3 if whole else ()), np.zeros((3, 2) if whole else 2)

    def reusing(q: Array) -> tuple[Array, Array]:
        kept[0][...], kept[1][...] = q[..., 0], 2 * q
        return kept

    reusing.vectorized = whole  # type: ignore[attr-defined]
    evaluator = Evaluator(reusing, np.float64)
    energies, gradients = evaluator(Q)
    evaluator(Q + 100)
    assert_bits(energies, Q[:, 0].copy())
    assert_bits(gradients, 2 * Q)
    # And a potential that returns its argument does not hand out the chains' own memory.
    assert not np.shares_memory(Evaluator(FORMS["vectorized"], np.float64)(Q)[1], Q)


@pytest.mark.parametrize("form", [lambda q: 0.5 * q @ q, square, StandardNormal(2), lambda q: (0.5 * q @ q, None)])
def test_without_gradient(form: Any) -> None:
    energies, gradients = Evaluator(form, np.float64, gradient=False)(Q)
    assert_bits(energies, np.array([2.5, 12.5, 30.5]))
    assert gradients.size == 0


def test_nan_and_infinity_pass_without_warnings() -> None:
    """The evaluator makes none of its own; NumPy's are switched off by who calls it."""

    def far(q: Array) -> tuple[Any, Array]:
        return np.exp(1000 * q).sum(), np.sqrt(-q) / np.zeros(2) * 1e300

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        energies, gradients = Evaluator(far, np.float32)(Q.astype(np.float32))
        assert (energies == math.inf).all()
        assert np.isnan(gradients).all()
        assert (Evaluator(lambda q: (0, 1e300 * q), np.float32)(Q)[1] == math.inf).all()


def test_warnings_of_other_kinds_stay() -> None:
    def old(q: Array) -> tuple[Any, Array]:
        warnings.warn("old", stacklevel=1)
        return square(q)

    with pytest.warns(UserWarning, match="old"):
        Evaluator(old, np.float64)(Q)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no tuple": (lambda q: 1.0, TypeError, r"must return a tuple \(U, gradient\), got float"),
    "a list": (lambda q: [1.0, q], TypeError, r"must return a tuple \(U, gradient\), got a list of 2"),
    "three": (lambda q: (1.0, q, q), TypeError, r"got a tuple of 3"),
    "None": (lambda q: None, TypeError, "got NoneType"),
    "U None": (lambda q: (None, q), TypeError, "must return a real U, got NoneType"),
    "U complex": (lambda q: (1j, q), TypeError, "must return a real U, got complex"),
    "U bool": (lambda q: (True, q), TypeError, "must return a real U, got bool"),
    "U of each element": (lambda q: (q, q), ValueError, r"U must be a single number, got shape \(2,\)"),
    "U in brackets": (lambda q: ([1.0], q), ValueError, r"U must be a single number, got shape \(1,\)"),
    "one U for all": (
        vectorized(lambda q: (1.0, q)),
        ValueError,
        r"U must be shape \(3,\), one U per chain, got shape",
    ),
    "U a column": (vectorized(lambda q: (q[:, :1], q)), ValueError, r"U must be shape \(3,\)"),
    "gradient short": (lambda q: (1.0, q[:1]), ValueError, r"must have the shape \(2,\) of the position, got \(1,\)"),
    "gradient a number": (lambda q: (1.0, 2.0), ValueError, r"must have the shape \(2,\) of the position, got \(\)"),
    "gradient turned": (vectorized(lambda q: (q[:, 0], q.T)), ValueError, r"\(3, 2\) of the position, got \(2, 3\)"),
    "gradient complex": (lambda q: (1.0, q * 1j), TypeError, "the gradient must be real, got an array of complex128"),
    "gradient None": (lambda q: (1.0, None), TypeError, "the gradient must be real, got NoneType"),
    "gradient ragged": (lambda q: (1.0, [[1], [1, 2]]), ValueError, "inhomogeneous"),
    "raises": (lambda q: 1 / 0, ZeroDivisionError, "division by zero"),
}


@pytest.mark.parametrize(("form", "error", "message"), BAD.values(), ids=list(BAD))
def test_what_a_potential_must_not_give(form: Any, error: type[Exception], message: str) -> None:
    evaluator = Evaluator(form, np.float64)
    with pytest.raises(EvaluationFailed) as caught:
        evaluator(Q)
    assert isinstance(caught.value.cause, error)
    assert caught.value.__cause__ is caught.value.cause
    assert caught.value.row == 0  # of a batch: the first that fails alone as well
    with pytest.raises(error, match=message):
        raise caught.value.cause


def test_the_row_that_failed_is_named() -> None:
    def at_the_third(q: Array) -> tuple[float, Array]:
        if q[0] == 5:
            raise OverflowError("too far")
        return square(q)

    with pytest.raises(EvaluationFailed) as caught:
        Evaluator(at_the_third, np.float64)(Q)
    assert (caught.value.row, str(caught.value.cause)) == (2, "too far")


def test_an_interrupt_is_no_failure() -> None:
    def stopped(q: Array) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Evaluator(stopped, np.float64)(Q)


@pytest.mark.parametrize(
    ("potential", "message"),
    [(3.0, r"callable q -> \(U, gradient\) or have value_and_grad\(q\), got float"), (Banana, "got the class Banana")],
)
def test_what_is_no_potential(potential: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Evaluator(potential, np.float64)
