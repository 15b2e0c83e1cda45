"""Built-in potentials: their numbers, gradients, shapes and dtypes, far-out positions, and bad tables."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling.potentials import (
    Banana,
    BuiltIn,
    EightSchools,
    Funnel,
    Gaussian,
    LinearRegression,
    LogisticRegression,
    StandardNormal,
)
from tests.table import assert_bits

Array = np.ndarray[Any, np.dtype[Any]]

rng = np.random.default_rng(5)
ROOT = rng.standard_normal((7, 7))
COV = ROOT @ ROOT.T + np.eye(7)
MEAN = rng.standard_normal(7)
STD = rng.uniform(0.1, 3, 7)
X = rng.standard_normal((53, 6))
Y = rng.integers(0, 2, 53)
TARGETS = X @ np.arange(6) + rng.standard_normal(53)
EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


# Minus the log density as one writes it down, for one position.
def normal(x: Any, mean: Any = 0.0, std: Any = 1.0) -> float:
    return float(np.sum(0.5 * ((x - mean) / std) ** 2 + np.log(std) + 0.5 * math.log(2 * math.pi) + 0 * x))


def multivariate(q: Array) -> float:
    return float(0.5 * (q - MEAN) @ np.linalg.solve(COV, q - MEAN))


def logistic(q: Array) -> float:
    p = 1 / (1 + np.exp(-X @ q))
    return normal(q, 0, 2.0) - float(np.sum(Y * np.log(p) + (1 - Y) * np.log(1 - p)))


def linear(rows: int) -> Callable[[Array], float]:
    return lambda q: normal(TARGETS[:rows], X[:rows] @ q, 0.7) + normal(q, 0, 1.5)


def funnel(q: Array) -> float:
    return normal(q[0], 0, 2.5) + normal(q[1:], 0, np.exp(q[0] / 2))


def flat_funnel(q: Array) -> float:
    return normal(q[0], 0, 3) + normal(q[1:])


def banana(q: Array) -> float:
    return normal(q[0], 1, 1) + normal(q[1], q[0] ** 2, math.sqrt(0.1))


def eight_schools(q: Array) -> float:
    tau = np.exp(q[1])
    half_cauchy = float(np.log(1 + (tau / 5) ** 2) - np.log(tau))
    return normal(q[0], 0, 5) + half_cauchy + normal(q[2:]) + normal(EFFECTS, q[0] + tau * q[2:], ERRORS)


CASES: dict[str, tuple[BuiltIn, Callable[[Array], float]]] = {
    "standard_normal": (StandardNormal(4), normal),
    "one number": (StandardNormal(1), normal),
    "gaussian": (Gaussian(MEAN, std=STD), lambda q: normal(q, MEAN, STD)),
    "gaussian of one std": (Gaussian(MEAN, std=0.3), lambda q: normal(q, MEAN, 0.3)),
    "gaussian_dense": (Gaussian(MEAN, cov=COV), multivariate),
    "gaussian_dense by precision": (Gaussian(MEAN, precision=np.linalg.inv(COV)), multivariate),
    "logistic_regression": (LogisticRegression(X, Y, 2.0), logistic),
    "logistic_regression of bools": (LogisticRegression(X, Y.astype(bool), prior_std=2), logistic),
    "linear_regression": (LinearRegression(X, TARGETS, 0.7, 1.5), linear(53)),
    "linear_regression, N = D": (LinearRegression(X[:6], TARGETS[:6], 0.7, 1.5), linear(6)),
    "linear_regression, N = D + 1": (LinearRegression(X[:7], TARGETS[:7], 0.7, 1.5), linear(7)),
    "linear_regression, N < D": (LinearRegression(X[:3], TARGETS[:3], 0.7, 1.5), linear(3)),
    "funnel": (Funnel(5, scale=2.5), funnel),
    "funnel_noncentered": (Funnel(5, centered=False), flat_funnel),
    "banana": (Banana(), banana),
    "eight_schools": (EightSchools(), eight_schools),
}
cases = pytest.mark.parametrize(("potential", "density"), CASES.values(), ids=list(CASES))
potentials = pytest.mark.parametrize("potential", [p for p, _ in CASES.values()], ids=list(CASES))


def positions(dim: int, size: float = 2.0) -> st.SearchStrategy[Array]:
    element = st.floats(-size, size, allow_nan=False)
    return st.lists(element, min_size=dim, max_size=dim).map(np.array)


@cases
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_energy_is_the_log_density_up_to_a_constant(
    potential: BuiltIn, density: Callable[[Array], float], data: st.DataObject
) -> None:
    a, b = (data.draw(positions(potential.dim)) for _ in range(2))
    expected = density(a) - density(b)
    assert potential(a)[0] - potential(b)[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@cases
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_gradient_is_that_of_the_log_density(
    potential: BuiltIn, density: Callable[[Array], float], data: st.DataObject
) -> None:
    q = data.draw(positions(potential.dim))
    h = 1e-4
    steps = h * np.eye(potential.dim)
    # Of fourth order: exact to some 1e-9 of the terms.
    near, far = ([density(q + k * e) - density(q - k * e) for e in steps] for k in (1, 2))
    expected = (8 * np.array(near) - np.array(far)) / (12 * h)
    np.testing.assert_allclose(potential(q)[1], expected, rtol=1e-6, atol=1e-6 * max(1, abs(density(q))))


@potentials
def test_shapes_and_dtypes(potential: BuiltIn) -> None:
    d = potential.dim
    assert potential.vectorized is True
    assert len(potential.names) == len(set(potential.names)) == d
    for dtype in (np.float32, np.float64):
        energy, gradient = potential.value_and_grad(np.full(d, 0.5, dtype))
        assert (type(energy), gradient.shape, gradient.dtype) == (float, (d,), dtype)
        for chains in (0, 1, 3):
            energies, gradients = potential.value_and_grad(np.full((chains, d), 0.5, dtype))
            assert (energies.shape, energies.dtype) == ((chains,), np.float64)
            assert (gradients.shape, gradients.dtype) == ((chains, d), dtype)
            assert all(abs(energies - energy) <= 1e-14 * abs(energy))
    assert potential(np.ones(d, int))[1].dtype == np.float64
    assert_bits(potential([1.0] * d)[1], potential(np.ones(d, int))[1])


@potentials
def test_float32_positions_are_computed_in_double(potential: BuiltIn) -> None:
    q = rng.standard_normal((5, potential.dim)).astype(np.float32)
    energy, gradient = potential(q)
    exact, slope = potential(q.astype(np.float64))
    assert_bits(energy, exact)
    assert_bits(gradient, slope.astype(np.float32))


@potentials
def test_a_chain_has_the_same_bits_in_every_batch(potential: BuiltIn) -> None:
    q = rng.standard_normal((37, potential.dim))
    energies, gradients = potential(q)
    for size in (1, 2, 3, 8, 9, 16, 36):
        for start in range(0, 37 - size + 1, size):
            energy, gradient = potential(q[start : start + size])
            assert_bits(energy, energies[start : start + size], f"{size} from {start}")
            assert_bits(gradient, gradients[start : start + size], f"{size} from {start}")
    assert potential(q[4])[0] == energies[4]
    assert_bits(potential(np.asfortranarray(q))[0], energies)
    assert_bits(potential(q[::-1])[1], gradients[::-1])


@potentials
def test_the_gradient_is_a_new_array_and_the_position_stays(potential: BuiltIn) -> None:
    q = rng.standard_normal((2, potential.dim))
    q.flags.writeable = False
    kept = q.copy()
    gradient = potential(q)[1]
    assert not np.shares_memory(gradient, q)
    gradient[:] = 7
    assert_bits(potential(q)[1], potential(kept)[1])
    assert not any(np.shares_memory(potential(q)[1], table) for table in potential.tables.values())


@potentials
def test_far_out_there_are_numbers_infinities_or_nan_and_no_warnings(potential: BuiltIn) -> None:
    d = potential.dim
    for size in (1e3, 1e100, 1e200, 1e308, math.inf):
        for signs in (np.ones(d), -np.ones(d), (-1.0) ** np.arange(d)):
            with np.errstate(all="raise"):
                energy, gradient = potential(size * signs)
                assert energy > 0 or math.isnan(energy)
                assert gradient.shape == (d,)
                potential(np.full((2, d), 1e30, np.float32))
    assert math.isnan(potential(np.full(d, math.nan))[0])
    mixed = np.stack([np.zeros(d), np.full(d, math.nan), np.full(d, math.inf)])
    assert_bits(potential(mixed)[1][0], potential(np.zeros(d))[1], "the chains beside it are not touched")


def test_sums_of_logarithms_do_not_overflow() -> None:
    potential = LogisticRegression([[1.0], [-2.0]], [1, 1], prior_std=1e150)
    energy, gradient = potential(np.array([1e5]))
    assert energy == pytest.approx(2e5, rel=1e-12)
    np.testing.assert_allclose(gradient, [2.0], rtol=1e-12)
    energy, gradient = potential(np.array([40.0]))
    assert energy == pytest.approx(80.0, rel=1e-15)
    # What is left of the row that fits: exp(-40), not 0.
    tiny = LogisticRegression([[1.0]], [1], prior_std=1e150)
    assert tiny(np.array([40.0]))[0] == pytest.approx(math.exp(-40), rel=1e-12, abs=0)
    assert tiny(np.array([40.0]))[1][0] == pytest.approx(-math.exp(-40), rel=1e-12, abs=0)


def test_the_scale_of_eight_schools_may_be_any_number_whose_logarithm_is_one() -> None:
    q = np.zeros(10)
    q[1] = 600.0  # tau^2 is beyond double
    energy, gradient = EightSchools()(q)
    at_0 = 0.5 * float(((EFFECTS / ERRORS) ** 2).sum())
    assert energy == pytest.approx(600 - 2 * math.log(5) + at_0, rel=1e-12)
    assert gradient[1] == pytest.approx(1.0)


def test_the_neck_of_the_funnel_is_computed_where_its_width_is_no_float32() -> None:
    energy, gradient = Funnel(2)(np.array([-800.0, 1e-170]))
    z = 1e-170 * math.exp(400)
    assert energy == pytest.approx(800**2 / 18 - 400 + 0.5 * z * z, rel=1e-12)
    assert gradient[1] == pytest.approx(z * math.exp(400), rel=1e-12)


def test_many_rows_of_data_are_taken_in_blocks_of_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    q = rng.standard_normal((20, 6))
    potential = LogisticRegression(X, Y)
    whole = potential(q)
    monkeypatch.setattr("grilly_optim.sampling.potentials.logistic_regression._BLOCK", 3 * 53)
    for a, b in zip(whole, potential(q), strict=True):
        assert_bits(a, b)


def test_what_kernels_read() -> None:
    signs = np.where(Y == 1, 1.0, -1.0)
    potential: BuiltIn = LogisticRegression(X, Y, prior_std=0.5)
    assert potential.constants == {"prior_precision": 4.0}
    assert_bits(potential.tables["features"], X * signs[:, None])
    potential = LinearRegression(X, TARGETS, 0.5, 2.0)
    assert potential.constants == {"noise_precision": 4.0, "prior_precision": 0.25}
    assert {n: t.shape for n, t in potential.tables.items()} == {"features": (6, 6), "targets": (6,)}
    assert LinearRegression(X[:7], TARGETS[:7], 0.5, 2.0).tables["targets"].shape == (6,)
    potential = LinearRegression(X[:3], TARGETS[:3], 0.5, 2.0)
    assert_bits(potential.tables["features"], X[:3])
    assert_bits(potential.tables["targets"], TARGETS[:3])
    potential = Gaussian(MEAN, std=STD)
    assert_bits(potential.tables["mean"], MEAN)
    assert_bits(potential.tables["precisions"], 1 / STD / STD)
    assert_bits(Gaussian(MEAN, std=2).tables["precisions"], np.full(7, 0.25))
    dense = Gaussian(MEAN, cov=COV).tables["precisions"]
    np.testing.assert_allclose(dense @ COV, np.eye(7), atol=1e-12)
    assert_bits(dense, dense.T.copy())
    rounded = Gaussian([0, 0], precision=[[1, 0.5], [0.5 + 1e-12, 1]]).tables["precisions"]
    assert rounded[0, 1] == rounded[1, 0]
    assert Funnel(3, scale=2.0).constants == Funnel(3, 2.0, centered=False).constants == {"scale_precision": 0.25}
    assert {n: t.tolist() for n, t in EightSchools().tables.items()} == {
        "effects": EFFECTS.tolist(),
        "errors": ERRORS.tolist(),
    }
    for case, (made, _) in CASES.items():
        assert made.kernel == case.partition(",")[0].partition(" of ")[0].partition(" by ")[0].replace(
            "one number", "standard_normal"
        )
        for table in made.tables.values():
            assert table.dtype == np.float64
            assert table.flags.c_contiguous


def test_tables_are_the_potential_s_own() -> None:
    mean, precision = np.zeros(2), np.eye(2)
    potential = Gaussian(mean, precision=precision)
    mean[:], precision[:] = 9, 9
    assert potential(np.ones(2))[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        potential.tables["mean"][0] = 1


@potentials
def test_they_travel_to_other_processes(potential: BuiltIn) -> None:
    q = rng.standard_normal((3, potential.dim))
    copy = pickle.loads(pickle.dumps(potential))
    assert_bits(copy(q)[1], potential(q)[1])
    assert repr(copy) == repr(potential)


def test_what_positions_stand_for() -> None:
    q = rng.standard_normal((2, 5, 10))
    schools = EightSchools().transform(q)
    np.testing.assert_allclose(schools["tau"], np.exp(q[..., 1]))
    np.testing.assert_allclose(schools["theta"][1, 2, 3], q[1, 2, 0] + schools["tau"][1, 2] * q[1, 2, 5])
    flat, centered = Funnel(10, centered=False).transform(q), Funnel(10).transform(q)
    np.testing.assert_allclose(flat["x"][1, 2], q[1, 2, 1:] * np.exp(q[1, 2, 0] / 2))
    assert_bits(centered["x"], q[..., 1:])
    assert_bits(flat["v"], q[..., 0])


def test_names_of_elements() -> None:
    assert Funnel(3).names == ["v", "x[0]", "x[1]"]
    assert Funnel(3, centered=False).names == ["v", "z[0]", "z[1]"]
    assert EightSchools().names[1:3] == ["log_tau", "t[0]"]
    assert LogisticRegression(X, Y).names[5] == "beta[5]"
    assert StandardNormal(2).names == ["q[0]", "q[1]"]


def test_an_ill_conditioned_covariance_keeps_its_precision() -> None:
    d = 100
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    scales = np.logspace(-2, 2, d)
    potential = Gaussian(np.zeros(d), cov=rotation @ np.diag(scales**2) @ rotation.T)
    z = rng.standard_normal(d)
    assert potential(rotation @ (scales * z))[0] == pytest.approx(0.5 * z @ z, rel=1e-5)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "dim": (lambda: StandardNormal(0), ValueError, "dim must be 1 or more, got 0"),
    "dim real": (lambda: StandardNormal(2.0), TypeError, "dim must be an integer, got 2.0"),  # type: ignore[arg-type]
    "dim bool": (lambda: StandardNormal(True), TypeError, "dim must be an integer, got True"),
    "funnel's dim": (lambda: Funnel(1), ValueError, "dim must be 2 or more, got 1"),
    "funnel's scale": (lambda: Funnel(3, scale=0), ValueError, "scale must be above 0, got 0"),
    "scale a string": (lambda: Funnel(3, scale="3"), TypeError, "scale must be a real number"),  # type: ignore[arg-type]
    "mean 0-d": (lambda: Gaussian(1.0, std=1), ValueError, r"mean must have shape \(D,\), got \(\)"),
    "mean empty": (lambda: Gaussian([], std=1), ValueError, r"mean must have shape \(D,\), got \(0,\)"),
    "mean infinite": (lambda: Gaussian([math.inf], std=1), ValueError, "mean must be finite"),
    "mean of strings": (lambda: Gaussian(["a"], std=1), TypeError, "mean must hold real numbers"),
    "mean ragged": (lambda: Gaussian([[1], [1, 2]], std=1), ValueError, "mean is no array"),  # type: ignore[list-item]
    "no spread": (lambda: Gaussian([1.0]), TypeError, "exactly one of std, cov and precision, got none"),
    "two spreads": (
        lambda: Gaussian([1.0], std=1, cov=[[1.0]]),
        TypeError,
        "exactly one of std, cov and precision, got std and cov",
    ),
    "std 0": (lambda: Gaussian([1.0, 2.0], std=[1.0, 0.0]), ValueError, "std must be above 0, got 0"),
    "std tiny": (
        lambda: Gaussian([1.0], std=1e-200),
        ValueError,
        r"std must be so large that 1 / std\^2 is finite, got 1e-200",
    ),
    "std ragged": (lambda: Gaussian([1.0], std=[[1], [1, 2]]), ValueError, "std is no array"),  # type: ignore[list-item]
    "prior_std tiny": (lambda: LogisticRegression(X, Y, 1e-200), ValueError, "prior_std must be so large"),
    "std's shape": (lambda: Gaussian([1.0, 2.0], std=[1.0]), ValueError, r"std must have shape \(2,\), got \(1,\)"),
    "cov's shape": (lambda: Gaussian([1.0, 2.0], cov=[1, 2]), ValueError, r"cov must have shape \(2, 2\), got \(2,\)"),
    "cov NaN": (lambda: Gaussian([1.0], cov=[[math.nan]]), ValueError, "cov must be finite"),
    "cov tiny": (
        lambda: Gaussian([1.0], cov=[[1e-320]]),
        ValueError,
        "cov must be so large that its inverse is finite",
    ),
    "cov asymmetric": (lambda: Gaussian([0, 0], cov=[[1, 0.5], [0, 1]]), ValueError, "cov must be symmetric"),
    "cov indefinite": (lambda: Gaussian([0, 0], cov=[[1, 2], [2, 1]]), ValueError, "cov must be positive definite"),
    "cov negative": (lambda: Gaussian([0, 0], cov=[[1, 0], [0, -1]]), ValueError, "definite, got -1 on its diagonal"),
    "precision singular": (
        lambda: Gaussian([0, 0], precision=np.ones((2, 2))),
        ValueError,
        "precision must be positive definite",
    ),
    "X 1-d": (lambda: LogisticRegression([1.0], [1]), ValueError, r"X must have shape \(N, D\), got \(1,\)"),
    "X empty": (lambda: LogisticRegression(np.empty((0, 2)), []), ValueError, r"X must have shape \(N, D\)"),
    "X NaN": (lambda: LinearRegression([[math.nan]], [1], 1, 1), ValueError, "X must be finite"),
    "y short": (lambda: LogisticRegression(X, Y[:5]), ValueError, r"y must have shape \(53,\), got \(5,\)"),
    "y a column": (lambda: LinearRegression(X, TARGETS[:, None], 1, 1), ValueError, r"y must have shape \(53,\)"),
    "y signs": (lambda: LogisticRegression(X, 2 * Y - 1), ValueError, "y must hold 0 and 1, got -1"),
    "y NaN": (lambda: LogisticRegression([[1.0]], [math.nan]), ValueError, "y must be finite"),
    "prior_std": (lambda: LogisticRegression(X, Y, -1), ValueError, "prior_std must be above 0, got -1"),
    "prior_std vector": (lambda: LogisticRegression(X, Y, [1, 2]), TypeError, "prior_std must be a real number"),  # type: ignore[arg-type]
    "noise_std": (lambda: LinearRegression(X, TARGETS, 0, 1), ValueError, "noise_std must be above 0, got 0"),
    "position's shape": (lambda: Banana()(np.zeros(3)), ValueError, r"shape \(2,\) or \(C, 2\), got \(3,\)"),
    "position 0-d": (lambda: StandardNormal(1)(0.5), ValueError, r"shape \(1,\) or \(C, 1\), got \(\)"),
    "position 3-d": (lambda: Banana()(np.zeros((1, 1, 2))), ValueError, r"got \(1, 1, 2\)"),
    "position complex": (lambda: Banana()(np.zeros(2, complex)), TypeError, "must hold real numbers, got complex128"),
}


@pytest.mark.parametrize(("make", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_input_is_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
