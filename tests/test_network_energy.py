"""A network's weights as a position: its loss and prior as U, and what they must look like."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling import check_grad, log_prob_standard_normal_prior, nn_pot_energy
from tests.table import assert_bits

Array = np.ndarray[Any, np.dtype[Any]]
rng = np.random.default_rng(8)
INPUTS = rng.standard_normal((20, 3))
TARGETS = rng.standard_normal((20, 2))
LABELS = rng.integers(0, 2, 20)
prior = functools.partial(log_prob_standard_normal_prior, std=1.5, grad=True)


class TwoLayers:
    """W0 (4, 3), b0 (4,), W1 (2, 4), b1 (2,); tanh in between."""

    param_shapes = ((4, 3), (4,), (2, 4), [2])
    dim = 26

    def forward(self, inputs: Array, weights: list[Array]) -> Array:
        return np.tanh(inputs @ weights[0].T + weights[1]) @ weights[2].T + weights[3]

    def backward(self, inputs: Array, weights: list[Array], grad_outputs: Array) -> list[Array]:
        hidden = np.tanh(inputs @ weights[0].T + weights[1])
        before = grad_outputs @ weights[2] * (1 - hidden**2)
        return [before.T @ inputs, before.sum(0), grad_outputs.T @ hidden, grad_outputs.sum(0)]


NET = TwoLayers()


def outputs(q: Array) -> Array:
    w0, b0, w1, b1 = q[:12].reshape(4, 3), q[12:16], q[16:24].reshape(2, 4), q[24:]
    return np.tanh(INPUTS @ w0.T + b0) @ w1.T + b1


# --- the prior


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5), st.floats(-3, 3), st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_prior_is_the_sum_of_normal_log_densities(q: list[float], mean: float, std: float) -> None:
    expected = sum(-0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi) for x in q)
    assert log_prob_standard_normal_prior(q, mean, std) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    log_p, gradient = log_prob_standard_normal_prior(np.array(q), mean, std, True)
    assert log_p == log_prob_standard_normal_prior(q, mean, std)
    np.testing.assert_allclose(gradient, [(mean - x) / std**2 for x in q], rtol=1e-12, atol=1e-300)


def test_prior_of_vectors_and_chains() -> None:
    q, mean, std = rng.standard_normal((5, 3)), rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    log_p, gradient = log_prob_standard_normal_prior(q, mean, std, grad=True)
    assert log_p.shape == (5,)
    for row, value, slope in zip(q, log_p, gradient, strict=True):
        alone = log_prob_standard_normal_prior(row, mean, std, grad=True)
        assert alone[0] == pytest.approx(value, rel=1e-14)
        assert_bits(alone[1], slope)
    assert (
        check_grad(lambda q: tuple(-x for x in log_prob_standard_normal_prior(q, mean, std, grad=True)), q[0]).error
        == 0
    )
    assert log_prob_standard_normal_prior(q.astype(np.float32), grad=True)[1].dtype == np.float32
    assert type(log_prob_standard_normal_prior(q[0].astype(np.float32))) is float
    assert log_prob_standard_normal_prior(np.array([1e200])) == -math.inf


PRIOR_BAD: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "0-d": ((1.0,), ValueError, r"position must have shape \(D,\) or \(C, D\), got \(\)"),
    "complex": (([1j],), TypeError, "position must hold real numbers, got complex128"),
    "mean": (([1.0, 2.0], [1.0]), ValueError, r"mean must be a number or have shape \(2,\), got \(1,\)"),
    "std's shape": (([1.0, 2.0], 0, [1.0, 1, 1]), ValueError, r"std must be a number or have shape \(2,\), got \(3,\)"),
    "std 0": (([1.0, 2.0], 0, [1.0, 0.0]), ValueError, "std must be above 0, got 0"),
    "std NaN": (([1.0], 0, math.nan), ValueError, "std must be above 0, got nan"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), PRIOR_BAD.values(), ids=list(PRIOR_BAD))
def test_bad_priors_are_named(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        log_prob_standard_normal_prior(*arguments)


# --- the energy


def test_regression_is_half_the_weighted_squares_minus_the_log_prior() -> None:
    q = rng.standard_normal(26)
    potential: Any = nn_pot_energy(NET, INPUTS, TARGETS, prior, tau_pred=3.0)
    expected = 1.5 * ((outputs(q) - TARGETS) ** 2).sum() - log_prob_standard_normal_prior(q, std=1.5)
    assert potential(q)[0] == pytest.approx(expected, rel=1e-13)
    assert potential.dim == 26
    assert potential.value_and_grad(q)[0] == potential(q)[0]


def test_classification_is_the_cross_entropy_minus_the_log_prior() -> None:
    q = rng.standard_normal(26)
    potential = nn_pot_energy(NET, INPUTS, LABELS, prior, nll_type="classification")
    logits = outputs(q)
    chosen = np.exp(logits)[np.arange(20), LABELS] / np.exp(logits).sum(1)
    expected = -np.log(chosen).sum() - log_prob_standard_normal_prior(q, std=1.5)
    assert potential(q)[0] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("targets", "kind", "tau"), [(TARGETS, "regression", 0.3), (LABELS, "classification", 1.0)])
@given(st.integers(0, 2**32), st.sampled_from([0.1, 1.0, 5.0]))
@settings(max_examples=20, deadline=None)
def test_gradients_are_right(targets: Array, kind: str, tau: float, seed: int, size: float) -> None:
    potential = nn_pot_energy(NET, INPUTS, targets, prior, tau, kind)
    assert check_grad(potential, size * np.random.default_rng(seed).standard_normal(26)).error < 1e-6


def test_logits_may_be_any_numbers() -> None:
    class Logits:
        param_shapes = ((1, 2),)

        def forward(self, inputs: Any, weights: list[Array]) -> Array:
            return weights[0]

        def backward(self, inputs: Any, weights: list[Array], grad_outputs: Array) -> list[Array]:
            return [grad_outputs]

    potential = nn_pot_energy(Logits(), None, [0], lambda q: (0.0, 0 * q), nll_type="classification")
    energy, gradient = potential(np.array([-1e4, 1e4]))
    assert energy == 2e4
    assert_bits(gradient, np.array([-1.0, 1.0]))
    energy, gradient = potential(np.array([5000.0, 5000.0]))
    assert energy == pytest.approx(math.log(2))


def test_weights_are_views_in_the_position_s_dtype_and_order() -> None:
    seen: list[list[Array]] = []

    class Spy(TwoLayers):
        def forward(self, inputs: Array, weights: list[Array]) -> Array:
            seen.append(weights)
            return super().forward(inputs, weights)

        def backward(self, inputs: Array, weights: list[Array], grad_outputs: Array) -> list[Array]:
            seen.append(weights)
            assert grad_outputs.dtype == np.float32
            return super().backward(inputs, weights, grad_outputs)

    q = np.arange(26, dtype=np.float32)
    energy, _ = nn_pot_energy(Spy(), INPUTS.astype(np.float32), TARGETS, prior)(q)
    assert type(energy) is float
    assert len(seen) == 2
    for weights in seen:
        assert [w.shape for w in weights] == [(4, 3), (4,), (2, 4), (2,)]
        assert all(w.dtype == np.float32 and np.shares_memory(w, q) for w in weights)
        assert_bits(np.concatenate([w.ravel() for w in weights]), q)


def test_targets_are_copied() -> None:
    targets = TARGETS.copy()
    potential = nn_pot_energy(NET, INPUTS, targets, prior)
    before = potential(np.ones(26))[0]
    targets[:] = 0
    assert potential(np.ones(26))[0] == before


class WrongBackward(TwoLayers):
    """Gives what `made` says."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def backward(self, inputs: Array, weights: list[Array], grad_outputs: Array) -> Any:
        return self.made


class NoBackward:
    """As its name says."""

    param_shapes = ((2,),)

    def forward(self, inputs: Any, weights: list[Array]) -> Array:
        return weights[0]


class NoWeights(TwoLayers):
    """None at all."""

    param_shapes: Any = ()


Q = np.ones(26)
ENERGY_BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "net": (lambda: nn_pot_energy(NoBackward(), 0, [1], prior), TypeError, "NoBackward has no backward"),  # type: ignore[arg-type]
    "no weights": (lambda: nn_pot_energy(NoWeights(), 0, [1], prior), ValueError, "shape of a weight, got none"),
    "prior": (lambda: nn_pot_energy(NET, INPUTS, TARGETS, 1.0), TypeError, "prior_log_prob_func must be a callable"),  # type: ignore[arg-type]
    "nll_type": (
        lambda: nn_pot_energy(NET, INPUTS, TARGETS, prior, nll_type="poisson"),
        ValueError,
        "nll_type must be 'regression' or 'classification', got 'poisson'",
    ),
    "tau_pred": (
        lambda: nn_pot_energy(NET, INPUTS, TARGETS, prior, 0.0),
        ValueError,
        "tau_pred must be above 0, got 0",
    ),
    "tau_pred of classes": (
        lambda: nn_pot_energy(NET, INPUTS, LABELS, prior, 2.0, "classification"),
        ValueError,
        "tau_pred must be 1 in classification, got 2.0",
    ),
    "targets of strings": (
        lambda: nn_pot_energy(NET, INPUTS, ["a"], prior),
        TypeError,
        "targets must hold real numbers",
    ),
    "no targets": (lambda: nn_pot_energy(NET, INPUTS, [], prior), ValueError, "targets must not be empty"),
    "real labels": (
        lambda: nn_pot_energy(NET, INPUTS, LABELS * 1.0, prior, nll_type="classification"),
        TypeError,
        "targets must be integers in classification, got float64",
    ),
    "negative label": (
        lambda: nn_pot_energy(NET, INPUTS, LABELS - 1, prior, nll_type="classification"),
        ValueError,
        r"targets must be labels \(N,\) from 0, got shape \(20,\) and a least of -1",
    ),
    "one-hot": (
        lambda: nn_pot_energy(NET, INPUTS, np.eye(2, dtype=int)[LABELS], prior, nll_type="classification"),
        ValueError,
        r"targets must be labels \(N,\) from 0, got shape \(20, 2\)",
    ),
    "label too high": (
        lambda: nn_pot_energy(NET, INPUTS, LABELS + 1, prior, nll_type="classification")(Q),
        ValueError,
        "targets must be below 2, the number of classes, got 2",
    ),
    "fewer labels": (
        lambda: nn_pot_energy(NET, INPUTS, LABELS[:5], prior, nll_type="classification")(Q),
        ValueError,
        r"the outputs must have shape \(5, classes\), got \(20, 2\)",
    ),
    "targets that would broadcast": (
        lambda: nn_pot_energy(NET, INPUTS, TARGETS[:, :1], prior)(Q),
        ValueError,
        r"targets must have the shape \(20, 2\) of the outputs, got \(20, 1\)",
    ),
    "position": (
        lambda: nn_pot_energy(NET, INPUTS, TARGETS, prior)(np.ones(25)),
        ValueError,
        r"must have shape \(26,\), got \(25,\)",
    ),
    "prior without gradient": (
        lambda: nn_pot_energy(NET, INPUTS, TARGETS, log_prob_standard_normal_prior)(Q),
        TypeError,
        r"must return a tuple \(log p, gradient\), got float; .*grad=True",
    ),
    "too few gradients": (
        lambda: nn_pot_energy(WrongBackward([]), INPUTS, TARGETS, prior)(Q),
        ValueError,
        "net.backward must return 4 gradients, got 0",
    ),
    "a gradient's shape": (
        lambda: nn_pot_energy(
            WrongBackward([np.ones((4, 3)), np.ones(4), np.ones((4, 2)), np.ones(2)]), INPUTS, TARGETS, prior
        )(Q),
        ValueError,
        r"net.backward must return for weight 2 a gradient of shape \(2, 4\), got \(4, 2\)",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), ENERGY_BAD.values(), ids=list(ENERGY_BAD))
def test_bad_networks_and_data_are_named(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("shape", [(), (1,), (1, 17)])
def test_a_prior_gradient_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    class Line:
        param_shapes = ((17,),)

        def forward(self, inputs: Any, weights: Any) -> Any:
            return inputs @ weights[0]

        def backward(self, inputs: Any, weights: Any, grad_outputs: Any) -> Any:
            return [grad_outputs @ inputs]

    potential: Any = nn_pot_energy(Line(), np.ones((3, 17)), np.ones(3), lambda q: (0.0, np.zeros(shape)))
    with pytest.raises(ValueError, match=r"prior_log_prob_func must return a gradient of shape \(17,\), got"):
        potential.value_and_grad(np.ones(17))
