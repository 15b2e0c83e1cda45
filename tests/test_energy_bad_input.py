"""What is refused: one clear error, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim import DeviceUnavailable
from grilly_optim.energy import (
    Activation,
    ConditionalGaussian,
    CrossEntropy,
    PersistentStates,
    RestrictedHopfield,
    SquaredError,
    check_gradients,
    get_activation,
)
from grilly_optim.optim import SGD
from tests.energies import copies, model, soft_target

ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one layer": ({"dimensions": [5]}, ValueError, "dimensions must name an input and at least one more layer"),
    "a width of 0": ({"dimensions": [5, 0]}, ValueError, r"dimensions\[1\] must be 1 or more, got 0"),
    "a broken width": ({"dimensions": [5, 2.5]}, TypeError, r"dimensions\[1\] must be a whole number, got 2.5"),
    "no dimensions": ({"dimensions": 5}, TypeError, "dimensions must be a sequence"),
    "dimensions in a string": ({"dimensions": "53"}, TypeError, "dimensions must be a sequence"),
    "no cost": ({"c_energy": "squared"}, TypeError, r"c_energy must be SquaredError\(...\) or CrossEntropy"),
    "no samples": ({"batch_size": 0}, ValueError, "batch_size must be 1 or more, got 0"),
    "a broken batch": ({"batch_size": 2.0}, TypeError, "batch_size must be a whole number"),
    "an unknown activation": ({"phi": "swish"}, ValueError, r"phi\[1\] must be one of 'identity', .* got 'swish'"),
    "one of them unknown": ({"phi": ["identity", "swish", "tanh"]}, ValueError, r"phi\[1\] must be one of"),
    "one of them no name": ({"phi": ["identity", np.tanh, "tanh"]}, TypeError, r"phi\[1\] must be the name"),
    "too few activations": ({"phi": ["tanh", "tanh"]}, ValueError, "phi must have 3 activations, .* got 2"),
    "too many activations": ({"phi": ["tanh"] * 4}, ValueError, "phi must have 3 activations, .* got 4"),
    "no activations": ({"phi": None}, TypeError, "phi must be an activation"),
    "a negative seed": ({"seed": -1}, ValueError, "seed must be from 0"),
    "half precision": ({"dtype": np.float16}, TypeError, "dtype must be float32 or float64, got float16"),
    "an unknown device": ({"device": "tpu"}, DeviceUnavailable, "device='tpu' is not known"),
}


@pytest.mark.parametrize("what", ARGUMENTS)
@pytest.mark.parametrize("kind", [ConditionalGaussian, RestrictedHopfield])
def test_arguments(kind: Any, what: str) -> None:
    changed, error, message = ARGUMENTS[what]
    arguments: dict[str, Any] = {
        "dimensions": [5, 7, 3],
        "c_energy": SquaredError(),
        "batch_size": 6,
        "phi": "tanh",
        "device": "numpy",
    }
    with pytest.raises(error, match=message):
        kind(**arguments | changed)


Call = Callable[[Any], Any]
STEP: dict[str, Any] = {"dt": 0.1, "n_relax": 3}
CALLS: dict[str, tuple[Call, type[Exception], str]] = {
    "dt of 0": (lambda m: m.u_step(0), ValueError, "dt must be above 0"),
    "negative dt": (lambda m: m.u_relax(-0.1, 3), ValueError, "dt must be above 0"),
    "dt that is NaN": (lambda m: m.u_step(np.nan), ValueError, "dt must be above 0"),
    "dt that is no number": (lambda m: m.u_step("0.1"), TypeError, "dt must be a real number, got '0.1'"),
    "tau of 0": (lambda m: m.u_step(0.1, 0), ValueError, "tau must be above 0"),
    "negative steps": (lambda m: m.u_relax(0.1, -1), ValueError, "n_relax must be from 0 to 2\\^31 - 1, got -1"),
    "broken steps": (lambda m: m.u_relax(0.1, 2.5), TypeError, "n_relax must be a whole number"),
    "negative tolerance": (lambda m: m.u_relax(0.1, 3, -1.0), ValueError, "tol must be 0 or more"),
    "a tolerance that is NaN": (lambda m: m.u_relax(0.1, 3, np.nan), ValueError, "tol must be 0 or more"),
    "per_sample that is no flag": (
        lambda m: m.u_relax(0.1, 3, 0.1, per_sample=1),
        TypeError,
        "per_sample must be True or False",
    ),
    "an input of another width": (
        lambda m: m.clamp_layer(0, np.ones((6, 4))),
        ValueError,
        r"u_i must have the shape \(batch, 5\) for layer 0, .* got \(6, 4\)",
    ),
    "a flat input": (lambda m: m.clamp_layer(0, np.ones(5)), ValueError, r"got \(5,\)"),
    "an empty batch": (lambda m: m.clamp_layer(0, np.ones((0, 5))), ValueError, "at least one sample"),
    "a complex input": (lambda m: m.clamp_layer(0, np.ones((6, 5), complex)), TypeError, "must hold real numbers"),
    "a batch beside a clamped layer": (
        lambda m: m.clamp_layer(2, np.ones((4, 3))),
        ValueError,
        "u_i has 4 samples, and layer 0 is clamped with 6: release it first",
    ),
    "no such layer": (lambda m: m.clamp_layer(3, np.ones((6, 3))), ValueError, "i must be a layer from 0 to 2, got 3"),
    "no such layer to release": (lambda m: m.release_layer(-4), ValueError, "i must be -3 or more, got -4"),
    "a layer by name": (lambda m: m.release_layer("out"), TypeError, "i must be a whole number, got 'out'"),
    "a target of another width": (
        lambda m: m.set_C_target(np.ones((6, 4))),
        ValueError,
        r"target has the shape \(6, 4\), and the last layer \(6, 3\)",
    ),
    "a target for another batch": (lambda m: m.set_C_target(np.ones((5, 3))), ValueError, r"shape \(5, 3\)"),
    "labels for another batch": (lambda m: m.set_C_target([0, 1]), ValueError, r"shape \(2,\)"),
    "a label too high": (lambda m: m.set_C_target([0, 1, 2, 3, 0, 1]), ValueError, "classes from 0 to 2, got 3"),
    "a label below 0": (lambda m: m.set_C_target([0, 1, 2, -1, 0, 1]), ValueError, "classes from 0 to 2, got -1"),
    "broken labels": (lambda m: m.set_C_target(np.ones(6)), TypeError, "must hold whole numbers, classes, got float64"),
    "a target in words": (lambda m: m.set_C_target(["one"] * 6), TypeError, "target must hold real numbers"),
    "a cubic target": (lambda m: m.set_C_target(np.ones((6, 3, 1))), ValueError, r"target must have the shape"),
    "a loss of another shape": (
        lambda m: m.w_get_gradients(np.ones((6, 1))),
        ValueError,
        r"loss must have the shape \(6,\), .* got \(6, 1\)",
    ),
    "a complex loss": (lambda m: m.w_get_gradients(np.ones(6, complex)), TypeError, "loss must hold real numbers"),
    "states of another layout": (lambda m: m.set_states([np.ones((6, 5))]), ValueError, "states must be arrays"),
    "no states": (lambda m: m.set_states([]), ValueError, "states must be arrays"),
    "an unknown nudging": (
        lambda m: m.contrastive_gradient(soft_target(), **STEP, nudging="centered"),
        ValueError,
        "nudging must be one of 'one_sided', 'symmetric', 'random_sign', got 'centered'",
    ),
    "a contrast without a target": (
        lambda m: m.contrastive_gradient(None, **STEP),
        ValueError,
        "target must not be None: without one nothing is nudged",
    ),
    "a contrast's target": (
        lambda m: m.contrastive_gradient(np.ones((6, 4)), **STEP),
        ValueError,
        r"target has the shape \(6, 4\)",
    ),
    "a contrast that diverges": (
        lambda m: m.contrastive_gradient(soft_target(), dt=1e6, n_relax=100),
        ValueError,
        "of layer . is",
    ),
    "a contrast of too few gradients": (
        lambda m: m.w_optimize(None, m.w_get_gradients()[:2], SGD(m.parameters)),
        ValueError,
        "nudged_grad must have 4 arrays, W0, b0, W1, ..., got 2",
    ),
    "a contrast of other shapes": (
        lambda m: m.w_optimize(m.w_get_gradients()[::-1], m.w_get_gradients(), SGD(m.parameters)),
        ValueError,
        r"free_grad\[0\] must have the shape \(7, 5\), got \(3,\)",
    ),
    "a contrast of nothing": (
        lambda m: m.w_optimize(None, None, SGD(m.parameters)),
        TypeError,
        "nudged_grad must be a list of 4 arrays, .* got NoneType",
    ),
    "a complex contrast": (
        lambda m: m.w_optimize(None, [g * 1j for g in m.w_get_gradients()], SGD(m.parameters)),
        TypeError,
        r"nudged_grad\[0\] must hold real numbers, got complex64",
    ),
    "a contrast with a hole": (
        lambda m: m.w_optimize(None, [None, *m.w_get_gradients()[1:]], SGD(m.parameters)),
        TypeError,
        r"nudged_grad\[0\] must hold real numbers, got NoneType",
    ),
    "no optimizer": (
        lambda m: m.w_optimize(None, m.w_get_gradients(), None),
        TypeError,
        "w_optimizer must be an optimizer, got None",
    ),
    "a ragged input": (
        lambda m: m.clamp_layer(0, [[1.0] * 5] * 5 + [[1.0]]),
        ValueError,
        "u_i must be an array, and NumPy cannot make one of it",
    ),
    "a ragged target": (lambda m: m.set_C_target([[1, 2, 3], [1]]), ValueError, "target must be an array"),
    "a target that is NaN": (
        lambda m: m.set_C_target(np.full((6, 3), np.nan)),
        ValueError,
        "target must hold numbers of float32, got nan",
    ),
    "complex states": (
        lambda m: m.set_states([u * 1j for u in m.u]),
        TypeError,
        r"states\[0\] must hold real numbers, got complex64",
    ),
    "states that are none": (lambda m: m.set_states(None), TypeError, "states must be a sequence of arrays"),
    "flags that are numbers": (
        lambda m: setattr(m, "clamp_du", [1, 0, 0]),
        TypeError,
        "clamp_du must hold True or False, got int64",
    ),
    "too few flags": (lambda m: setattr(m, "clamp_du", [True]), ValueError, "clamp_du must have 3 entries"),
    "a cost by name": (lambda m: setattr(m, "c_energy", "squared"), TypeError, "c_energy must be SquaredError"),
    "a check of nothing": (lambda m: check_gradients("m"), TypeError, "model must be a ConditionalGaussian"),
    "a check in float32": (check_gradients, TypeError, "needs a model of dtype float64, got float32"),
    "a state dict that is none": (lambda m: m.load_state_dict([]), TypeError, "state_dict must be a dict"),
    "a state dict of another model": (
        lambda m: m.load_state_dict(model(m.kind, dims=(5, 8, 3), device="numpy").state_dict()),
        ValueError,
        r"weights\[0\] of state_dict must have the shape \(7, 5\), got \(8, 5\)",
    ),
    "a state dict of another energy": (
        lambda m: m.load_state_dict(m.state_dict() | {"energy": "ising"}),
        ValueError,
        "'energy' of state_dict must be '(gaussian|hopfield)', got 'ising'",
    ),
    "a state dict without a beta": (
        lambda m: m.load_state_dict(m.state_dict() | {"beta": 0}),
        ValueError,
        "beta must not be 0",
    ),
    "a state dict with another target": (
        lambda m: m.load_state_dict(m.state_dict() | {"target": np.ones((6, 2))}),
        ValueError,
        "target has the shape",
    ),
    "states kept for something else": (lambda m: PersistentStates([m], 3), TypeError, "model must be"),
    "states of no samples": (lambda m: PersistentStates(m, 0), ValueError, "samples must be 1 or more"),
    "states of a sample that is not there": (
        lambda m: PersistentStates(m, 9).load(np.array([0, 1, 2, 3, 4, 9])),
        ValueError,
        "indices must be from 0 to 8, got 0 to 9",
    ),
    "states of another batch": (lambda m: PersistentStates(m, 9).save([0]), ValueError, "indices has 1 samples"),
    "states by name": (lambda m: PersistentStates(m, 9).load(["a"] * 6), TypeError, "indices must hold real numbers"),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("energy", ["gaussian", "hopfield"])
def test_calls(energy: str, what: str) -> None:
    call, error, message = CALLS[what]
    m = model(energy, phi="identity", device="numpy")
    m.set_C_target(soft_target())
    before = copies([*m.u, *m.parameters, m.E, m.clamp_du, m.c_energy.target])
    with pytest.raises(error, match=message):
        call(m)
    after = [*m.u, *m.parameters, m.E, m.clamp_du, m.c_energy.target]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
    assert m.c_energy.beta == 0.7


@pytest.mark.parametrize("cost", [SquaredError, CrossEntropy])
@pytest.mark.parametrize(
    ("beta", "error"),
    [(0, ValueError), (0.0, ValueError), (np.nan, ValueError), (np.inf, ValueError), ("1", TypeError)],
)
def test_beta(cost: Any, beta: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="beta must"):
        cost(beta)
    made = cost(-0.5)
    with pytest.raises(error, match="beta must"):
        made.beta = beta
    assert made.beta == -0.5


def test_a_target_of_the_batch_before() -> None:
    m = model(device="numpy")
    m.set_C_target(soft_target())
    m.clamp_layer(0, np.ones((4, 5)))
    for call in (m.update_energy, lambda: m.u_step(0.1), lambda: m.u_relax(0.1, 3)):
        with pytest.raises(ValueError, match=r"target has the shape \(6, 3\), and the last layer \(4, 3\)"):
            call()
    m.set_C_target(None)
    m.u_step(0.1)


def test_a_contrast_from_what_is_no_equilibrium() -> None:
    m = model(device="numpy")
    m.clamp_layer(1, m.u[1])
    with pytest.raises(ValueError, match=r"fast_init is no equilibrium where a layer behind .* and layer 1 is"):
        m.contrastive_gradient(soft_target(), **STEP, fast_init=True)


def test_labels_are_for_cross_entropy() -> None:
    with pytest.raises(ValueError, match=r"target must have the shape \(batch, outputs\), got \(6,\)"):
        model(cost="squared", device="numpy").set_C_target([0] * 6)


def test_a_list_of_parameters_cannot_be_exchanged() -> None:
    m = model(device="numpy")
    with pytest.raises(TypeError):
        m.weights[0] = np.zeros((7, 5))  # type: ignore[index]


def test_an_activation_by_another_type() -> None:
    with pytest.raises(TypeError, match="phi must be the name of an activation or an Activation, got 3"):
        get_activation(3)  # type: ignore[arg-type]
    assert get_activation(a := Activation("a", np.tanh, np.cos)) is a


@pytest.mark.parametrize(
    ("function", "derivative", "message"),
    [
        (lambda u: u.astype(np.float64), np.ones_like, "function of phi.1., 'odd', must keep shape and dtype"),
        (np.tanh, lambda u: 1.0, "derivative of phi.1., 'odd', must keep shape and dtype, and makes 1.0"),
        (np.tanh, lambda u: u.sum(0), r"makes float32 of shape \(3,\) of float32 of shape \(2, 3\)"),
    ],
)
def test_activations_that_make_something_else(function: Any, derivative: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(phi=Activation("odd", function, derivative), device="numpy")


def test_an_activation_without_functions() -> None:
    with pytest.raises(TypeError, match="derivative of the activation 'odd' must be a function of an array, got None"):
        Activation("odd", np.tanh, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("u", "error"), [([["a"]], TypeError), ([1.0], ValueError), (1.0, ValueError), ([[1j]], TypeError)]
)
@pytest.mark.parametrize("cost", [SquaredError, CrossEntropy])
def test_states_that_a_cost_refuses(cost: Any, u: Any, error: type[Exception]) -> None:
    made = cost()
    for target in (None, [[1.0]]):
        made.set_target(target)
        for call in (made.compute_energy, made.gradient):
            with pytest.raises(error, match=r"^u must"):
                call(u)
