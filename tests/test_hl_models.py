"""The models for Hamiltonian Learning: their recurrences, their gradients, and what they refuse."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grilly_optim.optim import HL, SGD
from grilly_optim.optim.hl_models import Oscillators, Recurrent, StateSpace, _sinc_slope
from tests.hl_models import Array, doubles, kinds, localities, run
from tests.table import assert_bits

activations = pytest.mark.parametrize("activation", ["tanh", "linear"])


def potential(y: Array, target: Array) -> float:
    return float(((y - target) ** 2).sum() / 2)


def differences(f: Callable[[], float], array: Array, step: float = 1e-5) -> Array:
    """The gradient of a function of an array: central differences, extrapolated once."""

    def central(h: float, at: tuple[int, ...]) -> float:
        kept = array[at]
        array[at] = kept + h
        above = f()
        array[at] = kept - h
        below = f()
        array[at] = kept
        return (above - below) / (2 * h)

    made = np.zeros_like(array)
    for at in np.ndindex(array.shape):
        made[at] = (4 * central(step / 2, at) - central(step, at)) / 3
    return made


def assert_gradient(made: Array, expected: Array) -> None:
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=1e-7, atol=1e-7 * max(1e-3, float(np.abs(expected).max())))


def warmed(model: Recurrent, rng: np.random.Generator) -> None:
    """Away from the initial state, so that what is carried along takes part."""
    for _ in range(3):
        model(rng.standard_normal((model.batch, model.inputs)))


def hamiltonian(model: Recurrent, u: Array, target: Array, p: Array, gamma: float) -> float:
    """H of the next call, made in a copy."""
    twin = copy.deepcopy(model)
    y = twin(u)
    assert twin.dh is not None
    return gamma * potential(y, target) + float((twin.dh * p).sum())


def assert_gradients_of_h(model: Recurrent, gamma: float = 0.7) -> None:
    rng = np.random.default_rng(3)
    warmed(model, rng)
    u = rng.standard_normal((model.batch, model.inputs))
    target, p = rng.standard_normal((model.batch, model.outputs)), rng.standard_normal((model.batch, model.units))
    before = copy.deepcopy(model)

    def of_h() -> float:
        return hamiltonian(before, u, target, p, gamma)

    model.backward(model(u) - target, p, gamma)
    assert model.gradients is not None
    assert list(model.gradients["w"]) == [name for name, _ in model.named_parameters()]
    for name, array in before.named_parameters():
        assert_gradient(model.gradients["w"][name], differences(of_h, array))
    if model.local:
        assert_gradient(model.gradients["xi"], differences(of_h, before._next))
    elif model.retain:
        assert model.h is not None
        h = model.h.copy()

        def of_new_state() -> float:
            y = (np.tanh(h) if model.activation == "tanh" else h) @ model.C.T
            return gamma * potential(y, target) + float(((h - before._next) * p).sum()) / model.delta

        assert_gradient(model.gradients["xi"], differences(of_new_state, h))
    else:
        assert model.gradients["xi"] is None


@kinds
@localities
@activations
def test_gradients_equal_finite_differences(kind: Any, locality: dict[str, Any], activation: str) -> None:
    assert_gradients_of_h(doubles(kind, **locality, activation=activation))


@localities
@pytest.mark.parametrize("omega", [0.0, 1e-300, 1e-12, 1e-8, -1e-5, 1e-3, -0.1, 3.3, -3.4, 40.0])
def test_gradients_where_oscillators_stand_still_or_nearly(omega: float, locality: dict[str, Any]) -> None:
    """At delta = 0.3: the closed form of a derivative takes over from a series where omega is 3.33."""
    model = doubles(Oscillators, **locality)
    model.omega[1] = omega
    assert_gradients_of_h(model)


@given(st.floats(-20, 20))
def test_the_drive_is_the_integral_of_the_rotation(omega: float) -> None:
    """Gauss and Legendre's, at any speed."""
    model = Oscillators(1, 2, 1, delta=0.5, dtype=np.float64)
    model.omega[0], model.h_init[...], model.B[...] = omega, 0, [[1.0], [0.0]]
    model(np.ones((1, 1)))
    assert model.dh is not None
    x, y = 0.5 * model.dh[0]
    points, weights = np.polynomial.legendre.leggauss(40)
    t = 0.25 * (points + 1)
    np.testing.assert_allclose(
        [x, y], [0.25 * weights @ np.cos(omega * t), -0.25 * weights @ np.sin(omega * t)], atol=1e-14
    )


def test_the_slope_of_the_drive_is_continuous_where_the_series_ends() -> None:
    """Both sides of z = 1, and small z beside the first terms of the series."""
    np.testing.assert_allclose(_sinc_slope(np.array([3.9])), [(math.cos(3.9) - math.sin(3.9) / 3.9) / 3.9], rtol=1e-14)
    z = np.array([1 - 1e-12, 1.0, 1 + 1e-12, -1.0])
    np.testing.assert_allclose(
        _sinc_slope(z), [math.cos(1) - math.sin(1)] * 3 + [math.sin(1) - math.cos(1)], rtol=1e-11
    )
    np.testing.assert_allclose(_sinc_slope(np.array([1e-4, 0.0])), [-1e-4 / 3 + 1e-12 / 30, 0.0], rtol=1e-15)


# The recurrences.


@localities
def test_state_space_is_its_recurrence(locality: dict[str, Any]) -> None:
    model, rng = doubles(StateSpace, **locality), np.random.default_rng(0)
    h = model.h_init
    for _ in range(5):
        u = rng.standard_normal((4, 3))
        y = model(u)
        h_new = np.array([model.A @ h[k] + model.B @ u[k] for k in range(4)])
        tracked = h if model.local else h_new
        np.testing.assert_allclose(model.h, tracked, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(model.dh, (h_new - h) / 0.3, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(y, np.tanh(tracked) @ model.C.T, rtol=1e-12, atol=1e-14)
        h = h_new


@localities
def test_oscillators_are_solved_exactly(locality: dict[str, Any]) -> None:
    """Beside many small steps of Runge and Kutta's."""
    model, rng = doubles(Oscillators, **locality), np.random.default_rng(0)
    model.omega[...] = [0.0, 1.7, -4.0]
    h, steps = model.h_init, 400
    for _ in range(3):
        u = rng.standard_normal((4, 3))
        drive = u @ model.B.T

        def velocity(state: Array, drive: Array = drive) -> Array:
            made = np.empty_like(state)
            made[:, 0::2] = model.omega * state[:, 1::2]
            made[:, 1::2] = -model.omega * state[:, 0::2]
            return made + drive

        tracked, dt = h, 0.3 / steps
        for _ in range(steps):
            k1 = velocity(h)
            k2 = velocity(h + dt / 2 * k1)
            k3 = velocity(h + dt / 2 * k2)
            h = h + dt / 6 * (k1 + 2 * k2 + 2 * k3 + velocity(h + dt * k3))
        y = model(u)
        np.testing.assert_allclose(model.dh, (h - tracked) / 0.3, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(y, (tracked if model.local else h) @ model.C.T, rtol=1e-9, atol=1e-11)


@kinds
def test_reset_starts_from_h_init(kind: Any) -> None:
    model, u = doubles(kind), np.ones((4, 3))
    first = [model(u) for _ in range(3)]
    model.reset()
    again = [model(u) for _ in range(3)]
    for a, b in zip(first, again, strict=True):
        assert_bits(a, b)
    model.h_init[...] = 0
    model.reset()
    assert not model(u).any()


@kinds
def test_the_first_state_is_its_own_array(kind: Any) -> None:
    """What is written to h_init counts for the next start, not for the state that is there."""
    model = doubles(kind)
    start = model.h_init.copy()
    model(np.ones((4, 3)))
    model.h_init[...] = 7
    assert_bits(np.asarray(model.h), start)


@kinds
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@localities
def test_everything_has_one_precision(kind: Any, locality: dict[str, Any], dtype: Any) -> None:
    model = doubles(kind, **locality, dtype=dtype)
    y = model(np.ones((4, 3), int))
    model.backward(np.ones((4, 2)), np.ones((4, 6), np.float32), 2.0)
    assert model.gradients is not None
    made = [y, model.h, model.dh, model.h_init, *model.gradients["w"].values()]
    made += [p for _, p in model.named_parameters()]
    made += [] if model.gradients["xi"] is None else [model.gradients["xi"]]
    assert {np.asarray(array).dtype for array in made} == {np.dtype(dtype)}


@kinds
def test_seeds(kind: Any) -> None:
    one, same, other = (dict(doubles(kind, seed=seed).named_parameters()) for seed in (1, 1, 2))
    for name, array in one.items():
        assert_bits(array, same[name])
        assert not np.array_equal(array, other[name])
        assert np.abs(array).max() <= 1


@kinds
def test_the_input_may_be_overwritten_before_backward(kind: Any) -> None:
    made = []
    for overwrite in (False, True):
        model, u = doubles(kind), np.ones((4, 3))
        model(u)
        u *= 7 if overwrite else 1
        model.backward(np.ones((4, 2)), np.ones((4, 6)))
        assert model.gradients is not None
        made.append(model.gradients["w"]["B"])
    assert_bits(*made)


# With the optimizer.


@kinds
@localities
def test_backward_of_the_optimizer_hands_over_costate_and_weight(
    kind: Any, locality: dict[str, Any], device: str
) -> None:
    model, by_hand = (doubles(kind, **locality) for _ in range(2))
    options: dict[str, Any] = {"gamma": 0.4, "beta": 0.02, "theta": 1.2}
    optimizer, other = HL(model, **options, device=device), HL(by_hand, **options, device=device)
    rng = np.random.default_rng(4)
    run(model, optimizer)
    for _ in range(30):
        u, target = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
        by_hand.backward(by_hand(u) - target, other.state[0]["p"]["xi"], 0.4)
        other.step()
    for (_, a), (_, b) in zip(model.named_parameters(), by_hand.named_parameters(), strict=True):
        assert_bits(a, b)
    # Only a local model, or one that retains, has a costate.
    assert bool(optimizer.state[0]["p"]["xi"].any()) == (model.local or model.retain)


@kinds
def test_what_each_locality_learns(kind: Any) -> None:
    """Without costates a local model's transition has no gradient; with them it has."""
    for local in (True, False):
        model = doubles(kind, local=local)
        model(np.ones((4, 3)))
        model.backward(np.ones((4, 2)))
        assert model.gradients is not None
        moving = {name: bool(g.any()) for name, g in model.gradients["w"].items()}
        assert moving == {name: not local or name == "C" for name in model.NAMES}


@kinds
def test_the_hamiltonian_of_a_model_that_is_not_local_is_its_potential(kind: Any) -> None:
    local, other = doubles(kind), doubles(kind, local=False)
    for model, kinetic in ((local, True), (other, False)):
        optimizer, target = HL(model, beta=0.01, gamma=0.5, device="numpy"), np.ones((4, 2))
        for _ in range(5):
            y = model(np.ones((4, 3)))
            found = optimizer.compute_hamiltonian(potential(y, target))
            optimizer.backward(y - target)
            optimizer.step()
        assert (found != 0.5 * potential(y, target)) == kinetic


@kinds
def test_gradients_are_in_the_order_of_parameters(kind: Any) -> None:
    """So that other optimizers take them: SGD on the gradient of the instant is HL without memory."""
    one, other = (doubles(kind, local=False) for _ in range(2))
    optimizer = HL(one, theta=1.0, beta=0.5, local=False, device="numpy")
    sgd = SGD([array for _, array in other.named_parameters()], lr=0.3**2 * 0.5, device="numpy")
    rng = np.random.default_rng(4)
    run(one, optimizer)
    for _ in range(30):
        u, target = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
        other.backward(other(u) - target)
        assert other.gradients is not None
        sgd.step(gradients=list(other.gradients["w"].values()))
    for (_, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_several_models_each_get_their_own(device: str) -> None:
    models = [doubles(StateSpace), doubles(Oscillators)]
    optimizer = HL([{"params": models[0], "gamma": 3.0}, {"params": models[1], "beta": 0.01}], device=device)
    grads = [np.full((4, 2), 1.0), np.full((4, 2), 2.0)]
    ys = [model(np.ones((4, 3))) for model in models]
    optimizer.backward(*grads)
    for model, grad, weight in zip(models, grads, (3.0, 1.0), strict=True):
        assert model.gradients is not None
        np.testing.assert_allclose(model.gradients["w"]["C"], weight * grad.T @ model._active)
    assert optimizer.compute_hamiltonian(*[float(y.sum()) for y in ys]) == pytest.approx(
        3 * ys[0].sum() + ys[1].sum(), rel=1e-12
    )


def test_a_complex_costate_is_conjugated_on_demand() -> None:
    class Complex:
        delta, h_init, w, seen = 1.0, np.zeros(2, np.complex128), np.zeros(2, np.complex128), None

        def named_parameters(self) -> list[tuple[str, Array]]:
            return [("w", self.w)]

        def backward(self, grad: Any, costate: Array, gamma: float) -> None:
            self.seen = costate

    for conjugate in (False, True):
        model = Complex()
        optimizer = HL(model, conjugate=conjugate, device="numpy")
        optimizer.step({"xi": np.array([1 + 1j, 2j]), "w": {"w": None}})
        optimizer.backward(None)
        np.testing.assert_array_equal(model.seen, np.array([1 - 1j, -2j] if conjugate else [1 + 1j, 2j]))


# What they refuse.

BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no inputs": ({"inputs": 0}, ValueError, "inputs must be 1 or more, got 0"),
    "half a unit": ({"units": 2.5}, TypeError, "units must be a whole number, got 2.5"),
    "outputs": ({"outputs": "3"}, TypeError, "outputs must be a whole number, got '3'"),
    "batch": ({"batch": -1}, ValueError, "batch must be 1 or more, got -1"),
    "delta 0": ({"delta": 0}, ValueError, "delta must be above 0"),
    "delta negative": ({"delta": -0.1}, ValueError, "delta must be above 0, got -0.1"),
    "delta infinite": ({"delta": np.inf}, ValueError, "delta must be above 0, and finite, got inf"),
    "delta words": ({"delta": "small"}, TypeError, "delta must be a real number, got 'small'"),
    "local": ({"local": "yes"}, TypeError, "local must be True or False, got 'yes'"),
    "retain": ({"retain": 1}, TypeError, "retain must be True or False, got 1"),
    "retain, local": ({"retain": True}, ValueError, "retain needs local=False"),
    "activation": ({"activation": "relu"}, ValueError, "activation must be one of 'tanh', 'linear', got 'relu'"),
    "seed": ({"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
    "half precision": ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64, got .*float16"),
    "complex": ({"dtype": np.complex128}, TypeError, "dtype must be float32 or float64, got .*complex128"),
    "no dtype": ({"dtype": "double trouble"}, TypeError, "dtype must be float32 or float64, got 'double trouble'"),
}


@kinds
@pytest.mark.parametrize(("options", "error", "message"), BAD.values(), ids=BAD)
def test_bad_options(kind: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(**{"inputs": 2, "units": 4, "outputs": 1} | options)


def test_an_odd_number_of_units() -> None:
    with pytest.raises(ValueError, match="units must be even, two for each oscillator, got 5"):
        Oscillators(1, 5, 1)


@kinds
def test_bad_arrays_change_nothing(kind: Any) -> None:
    model = doubles(kind)
    with pytest.raises(ValueError, match="call it before its gradients"):
        model.backward(np.ones((4, 2)))
    model(np.ones((4, 3)))
    model.backward(np.ones((4, 2)))
    state, made = model.h, model.gradients
    for call, error, message in (
        (lambda: model(np.ones((1, 3))), ValueError, r"u must have shape \(4, 3\), got \(1, 3\)"),
        (lambda: model(np.ones((4, 3)) * 1j), TypeError, "u must be real"),
        (lambda: model([["a"] * 3] * 4), TypeError, "u must hold numbers"),
        (lambda: model([[1.0], [1.0, 2.0]]), ValueError, "u must be an array, and NumPy cannot make one of it"),
        (lambda: model.backward(np.ones(2)), ValueError, r"grad must have shape \(4, 2\), got \(2,\)"),
        (lambda: model.backward(np.ones((4, 2)), np.ones((4, 3))), ValueError, r"costate must have shape \(4, 6\)"),
        (lambda: model.backward(np.ones((4, 2)), None, "much"), TypeError, "gamma must be a real number, got 'much'"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert model.h is state
    assert model.gradients is made


def test_what_backward_of_the_optimizer_refuses() -> None:
    model = doubles(StateSpace)
    optimizer = HL([{"params": model}, {"params": doubles(Oscillators)}], device="numpy")
    with pytest.raises(ValueError, match="backward needs a gradient for each model, 2, got 1"):
        optimizer.backward(np.ones((4, 2)))

    class Bare:
        delta, h_init, w = 1.0, np.zeros(2), np.zeros(2)

        def named_parameters(self) -> list[tuple[str, Array]]:
            return [("w", self.w)]

    optimizer = HL([{"params": model}, {"params": Bare()}], device="numpy")
    model(np.ones((4, 3)))
    with pytest.raises(TypeError, match=r"model 1 must have backward.*: Bare has none"):
        optimizer.backward(np.ones((4, 2)), np.ones(2))
    assert model.gradients is None


def test_they_say_what_they_are() -> None:
    assert repr(Oscillators(1, 4, 2)).startswith("Oscillators(1, 4, 2, delta=0.1, batch=1, local=True")
