"""Fisher information: against sums written out, in every form, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim import Parameter
from grilly_optim.continual import Fisher
from tests.continual import FORMS, SHAPES, draws, dtypes, forms, listed, same
from tests.table import Array, assert_bits


@pytest.mark.parametrize("prior", [0.0, 0.25])
@pytest.mark.parametrize(
    ("N", "proper_scaling", "scale"),
    [(None, False, 1 / 7), (100, False, 1 / 7), (None, True, 1.0), (100, True, 100 / 7), (3, True, 3 / 7)],
)
@dtypes
@forms
def test_fisher_is_the_prior_and_the_scaled_sum_of_squares(
    form: str, dtype: Any, N: int | None, proper_scaling: bool, scale: float, prior: float
) -> None:
    rng = np.random.default_rng(1)
    samples = [draws(rng, dtype) for _ in range(7)]
    G = [np.stack([s[i] for s in samples]) for i in range(len(SHAPES))]
    options = {"N": N, "proper_scaling": proper_scaling, "prior": prior}
    streamed = Fisher(**options)
    for s in samples:
        streamed.update(FORMS[form](s))
    for fisher in (Fisher.from_per_sample_grads(FORMS[form](G), **options), streamed):
        values = fisher.values
        assert type(values) is type(FORMS[form](G))
        for i, value in enumerate(listed(values)):
            expected = prior + scale * (G[i].astype(np.float64) ** 2).sum(axis=0)
            assert value.dtype == dtype
            assert value.shape == SHAPES[i]
            np.testing.assert_allclose(value, expected, rtol=2 * np.finfo(dtype).eps)


def test_squares_keep_their_digits_over_many_samples() -> None:
    rng = np.random.default_rng(2)
    G = rng.uniform(0.1, 0.3, (100_000, 4)).astype(np.float32)
    G[0] = 1000.0  # one outlier, and all that follows falls below the last digit of a float32 sum
    exact = np.array([math.fsum((G[:, k].astype(np.float64) ** 2).tolist()) for k in range(4)]) / len(G)
    streamed, naive = Fisher(), np.zeros(4, np.float32)
    for g in G:
        streamed.update(g)
        naive += g * g
    assert_bits(Fisher.from_per_sample_grads(G).values, exact.astype(np.float32))
    assert_bits(streamed.values, exact.astype(np.float32))
    assert np.abs(naive / len(G) / exact - 1).max() > 1e-4  # what float32 alone would make of it


def test_a_prior_may_differ_between_elements() -> None:
    prior = [np.array([0.5, 2.0]), np.array(3.0)]
    fisher = Fisher(prior=prior)
    prior[0][:] = 99.0
    fisher.update([np.array([1.0, 2.0]), np.array(1.0)])
    same(fisher.values, [np.array([1.5, 6.0]), np.array(4.0)])


@pytest.mark.parametrize(
    ("given_as", "kept_as"), [(np.float16, np.float32), (np.int8, np.float32), (np.int64, np.float64), (">f4", "f4")]
)
def test_gradients_of_other_types_are_taken(given_as: Any, kept_as: Any) -> None:
    fisher = Fisher()
    fisher.update(np.array([3, -2], given_as))
    assert_bits(fisher.values, np.array([9, 4], kept_as))


def test_views_and_scalars_are_taken() -> None:
    G = np.arange(24.0).reshape(4, 3, 2)
    assert_bits(Fisher.from_per_sample_grads(G.T).values, Fisher.from_per_sample_grads(G.T.copy()).values)
    fisher = Fisher()
    fisher.update([np.float64(3.0), Parameter(np.ones(2))])
    same(fisher.values, [np.array(9.0), np.ones(2)])


def test_fisher_values_are_new_arrays_and_samples_are_copied() -> None:
    g = np.ones(3)
    fisher = Fisher()
    fisher.update(g)
    g[:] = 9.0
    fisher.values[:] = 7.0
    fisher.state_dict()["sums"][:] = 5.0
    assert_bits(fisher.values, np.ones(3))


def test_there_are_no_values_before_a_sample() -> None:
    with pytest.raises(ValueError, match=r"no sample yet: call update\(\)"):
        _ = Fisher().values


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Fisher(N=0), ValueError, "N must be 1 or more, got 0"),
        (lambda: Fisher(N=2.5), TypeError, "N must be a whole number, got 2.5"),
        (lambda: Fisher(proper_scaling=1), TypeError, "proper_scaling must be True or False, got 1"),
        (lambda: Fisher(prior=-1.0), ValueError, "prior must be 0 or more, and finite, got -1.0"),
        (lambda: Fisher(prior=np.inf), ValueError, "prior must be 0 or more, and finite, got inf"),
        (lambda: Fisher(prior="1"), TypeError, "prior must be a real number, got '1'"),
        (lambda: Fisher(prior=[np.array([-1.0])]), ValueError, "prior of parameter 0 must be 0 or more everywhere"),
        (lambda: Fisher(prior=[1.0]), TypeError, "prior of parameter 0 must be a NumPy array, got float"),
        (lambda: Fisher.from_per_sample_grads(np.array(1.0)), ValueError, "must have a row per sample"),
        (lambda: Fisher.from_per_sample_grads(np.zeros((0, 3))), ValueError, "and one at least; got shape (0, 3)"),
        (
            lambda: Fisher.from_per_sample_grads([np.zeros((2, 3)), np.zeros(3)]),
            ValueError,
            "G of parameter 1 has 3 samples, and the first 2",
        ),
        (lambda: Fisher.from_per_sample_grads([]), ValueError, "G is empty"),
        (lambda: Fisher.from_per_sample_grads(1.0), TypeError, "G must be an array, a sequence of arrays or a dict"),
        (lambda: Fisher.from_per_sample_grads({1: np.ones(3)}), TypeError, "names in G must be strings, got 1"),
        (lambda: Fisher.from_per_sample_grads([np.ones(3), None]), TypeError, "G of parameter 1 must be a NumPy array"),
        (
            lambda: Fisher.from_per_sample_grads(np.ones(3, complex)),
            TypeError,
            "must hold real numbers, got dtype comp",
        ),
        (
            lambda: Fisher.from_per_sample_grads(np.array([np.nan])),
            ValueError,
            "the square of G of parameter 0 must be",
        ),
        (lambda: Fisher.from_per_sample_grads(np.array([1e200])), ValueError, "the square of G of parameter 0 must be"),
        (lambda: Fisher.from_per_sample_grads(np.array([1e30], "f4")).values, ValueError, "too large for float32"),
    ],
)
def test_fisher_refuses(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("g", "error", "message"),
    [
        ({"a": np.ones(2)}, ValueError, "g has other names than the parameters: 'b' is missing; names are a, b"),
        ({"a": np.ones(2), "c": np.ones(1)}, ValueError, "'c' is not the name of a parameter; names are a, b"),
        ([np.ones(2)], ValueError, "g has 1 arrays, and there are 2 parameters"),
        ([np.ones(2), np.ones(3)], ValueError, "g of parameter 1 ('b') has shape (3,), expected (1,)"),
        ([np.ones(2), np.array([np.inf])], ValueError, "the square of g of parameter 1 ('b') must be finite"),
        (np.ones(2), ValueError, "g has 1 arrays, and there are 2 parameters"),
    ],
)
def test_nothing_is_counted_of_a_sample_that_is_refused(g: Any, error: type[Exception], message: str) -> None:
    fisher = Fisher()
    fisher.update({"a": np.ones(2), "b": np.ones(1)})
    before = fisher.state_dict()
    with pytest.raises(error) as raised:
        fisher.update(g)
    assert message in str(raised.value)
    same(fisher.state_dict(), before)


def test_a_prior_that_does_not_fit_is_found_at_the_first_sample() -> None:
    fisher = Fisher(prior=[np.ones(3)])
    with pytest.raises(ValueError, match=r"prior of parameter 0 has shape \(3,\), expected \(2,\)"):
        fisher.update(np.ones(2))
    fisher.update(np.ones(3))
    assert_bits(fisher.values, np.full(3, 2.0))


def test_names_may_come_in_another_order() -> None:
    fisher = Fisher()
    fisher.update({"a": np.ones(2), "b": np.zeros(1)})
    fisher.update({"b": np.ones(1), "a": np.zeros(2)})
    same(fisher.values, {"a": np.full(2, 0.5), "b": np.full(1, 0.5)})


@forms
@dtypes
def test_fisher_resumes_exactly(form: str, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    whole, fisher = Fisher(9, True, 0.5), Fisher(9, True, 0.5)
    for step in range(6):
        sample = FORMS[form](draws(rng, dtype))
        whole.update(sample)
        if step in (0, 3):
            saved = fisher.state_dict()
            fisher = Fisher()
            fisher.load_state_dict(saved)
            saved["samples"] = 1000
            for total in listed(saved["sums"] if step else []):
                total[...] = 1e9
        fisher.update(sample)
    same(fisher.values, whole.values)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"samples": 0}, ValueError, "'samples' of state_dict must be 1 or more"),
        ({"dtypes": ["float16"]}, ValueError, "'dtypes' of state_dict must be float32 or float64 for each of 1"),
        ({"dtypes": []}, ValueError, "'dtypes' of state_dict must be float32 or float64 for each of 1"),
        ({"sums": np.array([-1.0])}, ValueError, "must be 0 or more everywhere, got -1"),
        ({"N": -1}, ValueError, "N must be 1 or more"),
        ({"prior": [np.ones(5)]}, ValueError, "prior of parameter 0 has shape (5,)"),
    ],
)
def test_fisher_refuses_a_wrong_state(change: dict[str, Any], error: type[Exception], message: str) -> None:
    fisher = Fisher(5)
    fisher.update(np.ones(2))
    before = fisher.state_dict()
    with pytest.raises(error) as raised:
        fisher.load_state_dict({**before, **change})
    assert message in str(raised.value)
    same(fisher.state_dict(), before)


def test_each_sample_counts_by_itself() -> None:
    fisher = Fisher()
    for g in ([1.0], [-1.0], [3.0]):  # added up on the way they would be 1, 0, 3
        fisher.update(np.array(g))
    assert_bits(fisher.values, np.array([11 / 3]))


def test_the_gradient_of_a_regression_is_that_of_the_negative_log_likelihood() -> None:
    rng = np.random.default_rng(6)
    x, y, w, variance = rng.standard_normal((20, 3)), rng.standard_normal(20), rng.standard_normal(3), 0.3

    def negative_log_likelihood(w: Array, n: int) -> float:
        return float((y[n] - x[n] @ w) ** 2 / (2 * variance) + 0.5 * math.log(2 * math.pi * variance))

    fisher, h = Fisher(), 1e-6
    for n in range(20):
        difference = [negative_log_likelihood(w + h * e, n) - negative_log_likelihood(w - h * e, n) for e in np.eye(3)]
        fisher.update(np.array(difference) / (2 * h))
    residual = (y - x @ w) / variance
    np.testing.assert_allclose(fisher.values, np.mean((residual[:, None] * x) ** 2, axis=0), rtol=1e-6)
