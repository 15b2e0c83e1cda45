"""The leapfrog integrator: its recurrence, and the three properties that samplers rest on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import leapfrog
from tests.chains import MASSES, Counting, as_matrix, normal, plain_leapfrog, quartic, row_wise
from tests.table import Array, assert_bits

masses = pytest.mark.parametrize("mass", MASSES.values(), ids=list(MASSES))
dims = pytest.mark.parametrize("dim", [1, 2, 10, 100])


def start(dim: int, seed: int = 0) -> tuple[Array, Array]:
    q, p = np.random.default_rng(seed).standard_normal((2, dim))
    return q, p


@masses
@dims
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_it_is_the_recurrence(mass: Any, dim: int, steps: int) -> None:
    q, p = start(dim)
    found = leapfrog(q, p, 0.05, steps, mass(dim), quartic)
    expected = plain_leapfrog(q, p, 0.05, steps, as_matrix(mass(dim), dim), quartic)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_one_step_by_hand() -> None:
    """Q = 1, p = 2, eps = 0.5, W = 3, U = q^2 / 2: p = 1.75, q = 3.625, p = 0.84375."""
    q, p = leapfrog(np.array([1.0]), np.array([2.0]), 0.5, 1, 3.0, normal)
    assert (q.tolist(), p.tolist()) == ([3.625], [0.84375])


@masses
@dims
def test_it_is_reversible(mass: Any, dim: int) -> None:
    """There, the momentum turned around, and back; and by a negative step size without turning."""
    q, p = start(dim)
    far, turned = leapfrog(q, p, 0.05, 40, mass(dim), quartic)
    assert np.abs(far - q).max() > 0.1
    back, again = leapfrog(far, -turned, 0.05, 40, mass(dim), quartic)
    assert max(np.abs(back - q).max(), np.abs(again + p).max()) < 1e-10
    back, again = leapfrog(far, turned, -0.05, 40, mass(dim), quartic)
    assert max(np.abs(back - q).max(), np.abs(again - p).max()) < 1e-10


@masses
@pytest.mark.parametrize("dim", [1, 10])
def test_the_error_of_the_energy_is_of_second_order(mass: Any, dim: int) -> None:
    q, p = start(dim)
    w = as_matrix(mass(dim), dim)
    sizes = 0.02 / 2.0 ** np.arange(5)
    errors = []
    for eps in sizes:
        x, y = leapfrog(q, p, eps, round(0.6 / eps), mass(dim), quartic)
        errors.append(abs(quartic(x)[0] + y @ w @ y / 2 - quartic(q)[0] - p @ w @ p / 2))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope - 2) < 0.1


@masses
@pytest.mark.parametrize("dim", [1, 3])
def test_it_keeps_volumes(mass: Any, dim: int) -> None:
    """The determinant of the Jacobian, by central differences."""
    q, p = start(dim)
    at, h = np.concatenate([q, p]), 1e-5

    def moved(x: Array) -> Array:
        return np.concatenate(leapfrog(x[:dim].copy(), x[dim:].copy(), 0.1, 10, mass(dim), quartic))

    columns = [(moved(at + h * e) - moved(at - h * e)) / (2 * h) for e in np.eye(2 * dim)]
    assert abs(np.linalg.det(np.array(columns)) - 1) < 1e-6


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_it_takes_one_gradient_more_than_steps(steps: int) -> None:
    potential = Counting()
    leapfrog(*start(3), 0.1, steps, 1.0, potential)
    assert potential.count == steps + 1


@masses
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_comes_is_not_changed_and_what_goes_is_new(mass: Any, dtype: Any) -> None:
    q, p = (x.astype(dtype) for x in start(4))
    before = q.copy(), p.copy()
    x, y = leapfrog(q, p, 0.1, 3, mass(4), normal)
    assert x.dtype == y.dtype == dtype
    for a, b in zip((q, p), before, strict=True):
        assert_bits(a, b)
    x[:], y[:] = 0, 0
    assert_bits(q, before[0])


@pytest.mark.parametrize("mass", [0.5, np.array(0.5), np.array([0.5]), np.array([[0.5]]), [0.5], np.float32(0.5)])
def test_one_dimension_takes_every_form_of_a_mass(mass: Any) -> None:
    q, p = start(1)
    for a, b in zip(leapfrog(q, p, 0.1, 3, mass, quartic), leapfrog(q, p, 0.1, 3, 0.5, quartic), strict=True):
        assert_bits(a, b)


@masses
def test_rows_go_their_own_ways(mass: Any) -> None:
    rng = np.random.default_rng(1)
    q, p = rng.standard_normal((2, 5, 3))
    for potential in (row_wise, quartic):
        found = leapfrog(q, p, 0.1, 6, mass(3), potential)
        for c in range(5):
            for a, b in zip(found, leapfrog(q[c], p[c], 0.1, 6, mass(3), quartic), strict=True):
                assert_bits(a[c], b)


def test_strided_and_read_only_arrays_are_taken() -> None:
    q, p = np.random.default_rng(2).standard_normal((2, 8))[:, ::2]
    q.flags.writeable = False
    for a, b in zip(
        leapfrog(q, p, 0.1, 2, 1.0, quartic), leapfrog(q.copy(), p.copy(), 0.1, 2, 1.0, quartic), strict=True
    ):
        assert_bits(a, b)


ONE = np.ones(3)
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a list": ({"position": [1.0]}, TypeError, r"position must be an array of float32 or float64, got list"),
    "whole numbers": ({"position": np.ones(3, int)}, TypeError, r"position must be .* got int64"),
    "0-d": ({"position": np.array(1.0)}, ValueError, r"position must have shape .*, and not be empty, got \(\)"),
    "another shape": ({"momentum": np.ones(2)}, ValueError, r"momentum must have the shape \(3,\) .* got \(2,\)"),
    "another precision": ({"momentum": np.ones(3, np.float32)}, ValueError, r"momentum must .* float64 .* float32"),
    "no steps": ({"num_steps": 0}, ValueError, r"num_steps must be 1 or more, got 0"),
    "half a step": ({"num_steps": 1.5}, TypeError, r"num_steps must be a whole number, got 1\.5"),
    "a size of NaN": ({"stepsize": np.nan}, ValueError, r"stepsize must be finite, got nan"),
    "a size that is text": ({"stepsize": "x"}, TypeError, r"stepsize must be a real number, got 'x'"),
    "no mass": ({"inv_mass": 0.0}, ValueError, r"inv_mass must be positive, got 0"),
    "a negative mass": ({"inv_mass": np.array([1, -1, 1.0])}, ValueError, r"inv_mass must be positive, got -1"),
    "a mass of NaN": ({"inv_mass": np.nan}, ValueError, r"inv_mass must be finite"),
    "a mass of another shape": ({"inv_mass": ONE[:2]}, ValueError, r"inv_mass must have shape .* got \(2,\)"),
    "an asymmetric mass": ({"inv_mass": np.triu(np.ones((3, 3)))}, ValueError, r"inv_mass must be symmetric"),
    "an indefinite mass": ({"inv_mass": np.ones((3, 3))}, ValueError, r"inv_mass must be positive definite"),
    "a mass that is text": ({"inv_mass": "x"}, TypeError, r"inv_mass must be a number, a vector or a matrix, got str"),
    "no potential": ({"pot_energy": 3}, TypeError, r"^pot_energy must be a callable .* got int"),
    "U alone": ({"pot_energy": lambda q: 0.0}, TypeError, r"must return a tuple \(U, gradient\), got float"),
    "a gradient of another shape": (
        {"pot_energy": lambda q: (0.0, q[:2])},
        ValueError,
        r"gradient must have the shape",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"position": ONE, "momentum": ONE, "stepsize": 0.1, "num_steps": 2, "inv_mass": 1.0, "pot_energy": normal}
    with pytest.raises(error, match=message):
        leapfrog(**{**good, **change})


def test_what_the_potential_raises_comes_as_it_is() -> None:
    def fail(q: Array) -> Any:
        raise KeyError("no data")

    with pytest.raises(KeyError, match="no data"):
        leapfrog(ONE, ONE, 0.1, 1, 1.0, fail)
