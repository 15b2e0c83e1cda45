"""Equilibrium propagation beside the original's recurrences in torch, whose autograd makes all gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from grilly_optim import energy, optim
from tests.parity.energy_twins import COSTS, ENERGIES, PHI, Twin, numbers

pytestmark = pytest.mark.equilibrium_propagation

# (layers, batch)
SHAPES = {
    "one pair": ((3, 4), 1),
    "three layers": ((5, 4, 3), 7),
    "four layers": ((7, 19, 6, 5), 8),
    "wide": ((64, 130, 10), 33),
}
DTYPES = {np.float64: 1e-12, np.float32: 1e-5}
BETA, DT, TAU = 0.7, 0.08, 1.3

dtypes = pytest.mark.parametrize("dtype", list(DTYPES), ids=lambda d: d.__name__)
shapes = pytest.mark.parametrize("shape", list(SHAPES))
both_energies = pytest.mark.parametrize("name", list(ENERGIES))
both_costs = pytest.mark.parametrize("cost", list(COSTS))
activations = pytest.mark.parametrize("phi", list(PHI))
# What is computed by the host wherever the states are relaxed.
on_the_host = pytest.mark.cases("numpy", "cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The arrays are small, and threads that wait for them would only take turns with other tests' threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def layers(phi: str, shape: str) -> list[str]:
    """As in the original, the input goes in as it is."""
    return ["identity", *[phi] * (len(SHAPES[shape][0]) - 1)]


def build(
    name: str, cost: str, phi: str, dtype: Any, device: str, shape: str = "three layers", beta: float = BETA
) -> tuple[Any, Twin]:
    """One of our models and its twin, with equal states and parameters, and the input clamped."""
    dims, batch = SHAPES[shape]
    model = getattr(energy, name)(
        dims, getattr(energy, cost)(beta), batch, layers(phi, shape), seed=3, dtype=dtype, device=device
    )
    # Weights of a usual size leave most of an activation's range unvisited.
    rng = np.random.default_rng(0)
    for w, b in zip(model.weights, model.biases, strict=True):
        w[...] = rng.standard_normal(w.shape) / np.sqrt(w.shape[1])
        b[...] = rng.standard_normal(b.shape)
    twin = Twin(model, name, cost, beta, layers(phi, shape))
    x = inputs(shape, dtype)
    model.clamp_layer(0, x)
    twin.clamp(0, x)
    return model, twin


def inputs(shape: str, dtype: Any, seed: int = 1) -> Any:
    dims, batch = SHAPES[shape]
    return np.random.default_rng(seed).standard_normal((batch, dims[0])).astype(dtype)


def targets(shape: str, dtype: Any, seed: int = 2) -> Any:
    """One-hot rows."""
    dims, batch = SHAPES[shape]
    return np.eye(dims[-1], dtype=dtype)[np.random.default_rng(seed).integers(0, dims[-1], batch)]


def nudge(model: Any, twin: Twin, target: Any) -> None:
    model.set_C_target(target)
    twin.set_target(target)


def assert_near(made: Any, expected: Any, tolerance: float) -> None:
    """By the largest element: a sum that cancels has no digits of its own."""
    want = numbers(expected) if isinstance(expected, torch.Tensor) else np.asarray(expected)
    assert np.shape(made) == want.shape
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    assert float(np.abs(np.asarray(made) - want).max(initial=0)) <= tolerance * scale


def assert_same_state(model: Any, twin: Twin, tolerance: float) -> None:
    for u, v in zip(model.u, twin.u, strict=True):
        assert u.dtype == numbers(v).dtype
        assert_near(u, v, tolerance)
    model.update_energy()
    assert_near(model.E, twin.e(), tolerance)


@on_the_host
@dtypes
@shapes
@activations
@both_costs
@both_energies
def test_energies_and_gradients(name: str, cost: str, phi: str, shape: str, dtype: Any, device: str) -> None:
    model, twin = build(name, cost, phi, dtype, device, shape)
    for target in (None, targets(shape, dtype)):
        nudge(model, twin, target)
        model.update_energy()
        assert model.E.dtype == dtype
        assert_near(model.E, twin.e(), DTYPES[dtype])
        made = model.u_get_gradients()
        assert made[0] is None
        for m, t in zip(made[1:], twin.u_gradients()[1:], strict=True):
            assert_near(m, t, DTYPES[dtype])
        for m, t in zip(model.w_get_gradients(), twin.w_gradients(), strict=True):
            assert_near(m, t, DTYPES[dtype])


@on_the_host
@dtypes
@both_energies
def test_weighted_weight_gradients(name: str, dtype: Any, device: str) -> None:
    """Those of any function of the samples' energies, here of one with weights of both signs."""
    model, twin = build(name, "SquaredError", "tanh", dtype, device)
    weights = np.random.default_rng(5).standard_normal(SHAPES["three layers"][1]).astype(dtype)
    expected = torch.autograd.grad((torch.tensor(weights) * twin.e()).sum(), twin.parameters)
    for m, t in zip(model.w_get_gradients(weights), expected, strict=True):
        assert_near(m, t, DTYPES[dtype])


@dtypes
@activations
@both_energies
def test_kinks_and_far_ends(name: str, phi: str, dtype: Any, device: str) -> None:
    """Where derivatives jump, where softplus becomes a line, and where exp overflows."""
    model, twin = build(name, "SquaredError", phi, dtype, device)
    ends = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 19.9, 20.0, 20.1, -20.0, 100.0, -100.0, 0.999, 1.001, 1e-3, -1e-3]
    for k in (1, 2):
        model.u[k][...] = np.resize(np.roll(ends, k), model.u[k].shape)
    twin.take(model.u)
    nudge(model, twin, targets("three layers", dtype))
    for m, t in zip(model.u_get_gradients()[1:], twin.u_gradients()[1:], strict=True):
        assert_near(m, t, DTYPES[dtype])
    assert_near(model.u_step(DT, TAU), twin.u_step(DT, TAU), DTYPES[dtype])
    assert_same_state(model, twin, DTYPES[dtype])


@pytest.mark.cases("numpy", "cpu", "vulkan")
@dtypes
@shapes
@activations
@both_costs
@both_energies
def test_relaxation(name: str, cost: str, phi: str, shape: str, dtype: Any, device: str) -> None:
    """A free phase step by step, then a nudged one at once: states, energies, norms, the change of the energy."""
    tolerance = DTYPES[dtype]
    model, twin = build(name, cost, phi, dtype, device, shape)
    for _ in range(10):
        assert_near(model.u_step(DT, TAU), twin.u_step(DT, TAU), tolerance)
        assert_same_state(model, twin, tolerance)
    nudge(model, twin, targets(shape, dtype))
    size = max(1.0, float(np.abs(numbers(twin.e())).sum()))
    change, as_the_original, steps = twin.u_relax(DT, 20, 0.0, TAU)
    assert (as_the_original, steps) == (change, 20)  # they differ when a tolerance ends it
    # A difference of sums has no more digits than the sums.
    assert abs(model.u_relax(DT, 20, 0.0, TAU) - change) <= tolerance * size
    assert_same_state(model, twin, tolerance)


@both_energies
def test_inner_and_last_layers_can_be_clamped(name: str, device: str) -> None:
    model, twin = build(name, "CrossEntropy", "sigmoid", np.float64, device, "four layers")
    rng = np.random.default_rng(4)
    nudge(model, twin, targets("four layers", np.float64))
    for layer in (1, 3):
        values = rng.standard_normal(model.u[layer].shape)
        model.clamp_layer(layer, values)
        twin.clamp(layer, values)
        for _ in range(3):
            assert_near(model.u_step(DT, TAU), twin.u_step(DT, TAU), 1e-12)
        assert_same_state(model, twin, 1e-12)
        np.testing.assert_array_equal(model.u[layer], values)
    for layer in (0, 3):
        model.release_layer(layer)
        twin.clamped[layer] = False
    assert_near(model.u_relax(DT, 5, 0.0, TAU), twin.u_relax(DT, 5, 0.0, TAU)[0], 1e-12)
    assert_same_state(model, twin, 1e-12)


@both_energies
def test_a_tolerance_ends_it_where_the_original_ends(name: str, device: str) -> None:
    model, twin = build(name, "SquaredError", "sigmoid", np.float64, device)
    first = twin.u_step(0.1, 1.0)
    twin.take(model.u)
    change, as_the_original, steps = twin.u_relax(0.1, 200, first / 10, 1.0)
    assert 2 < steps < 200
    assert_near(model.u_relax(0.1, 200, first / 10, 1.0), change, 1e-12)
    assert np.unique(model.steps).tolist() == [steps]
    assert_same_state(model, twin, 1e-12)
    # The last step of the original is missing from its sum.
    assert abs(change - as_the_original) > 1e-6


@both_energies
def test_a_step_counts_though_it_is_the_first_and_last(name: str, device: str) -> None:
    """Here the original says 0: what a tolerance ended is not in its sum."""
    model, twin = build(name, "SquaredError", "sigmoid", np.float64, device)
    change, as_the_original, steps = twin.u_relax(0.1, 50, 1e9, 1.0)
    assert (as_the_original, steps) == (0.0, 1)
    made = model.u_relax(0.1, 50, 1e9, 1.0)
    assert abs(made) > 0.1
    assert_near(made, change, 1e-12)
    assert_same_state(model, twin, 1e-12)


@both_energies
def test_a_norm_as_large_as_the_tolerance_is_not_below_it(name: str, device: str) -> None:
    model, twin = build(name, "SquaredError", "sigmoid", np.float64, device)
    start = [u.copy() for u in model.u]
    first, first_twin = model.u_step(0.1, 1.0), twin.u_step(0.1, 1.0)
    model.set_states(start)
    twin.take(start)
    change, _, steps = twin.u_relax(0.1, 50, first_twin, 1.0)
    assert steps == 2
    assert_near(model.u_relax(0.1, 50, first, 1.0), change, 1e-12)
    assert np.unique(model.steps).tolist() == [steps]


@both_energies
def test_without_a_tolerance_nothing_ends_it(name: str, device: str) -> None:
    """Not even rest."""
    model, twin = build(name, "SquaredError", "sigmoid", np.float64, device)
    for steps in (600, 5):
        assert_near(model.u_relax(0.2, steps, 0.0, 1.0), twin.u_relax(0.2, steps, 0.0, 1.0)[0], 1e-12)
        assert np.unique(model.steps).tolist() == [steps]
    assert_same_state(model, twin, 1e-12)


@on_the_host
@dtypes
@shapes
@activations
def test_fast_init(phi: str, shape: str, dtype: Any, device: str) -> None:
    """Every prediction is exact: there is no energy and no gradient of it, which are zeros and not small numbers."""
    model, twin = build("ConditionalGaussian", "CrossEntropy", phi, dtype, device, shape)
    model.fast_init()
    twin.fast_init()
    for u, v in zip(model.u, twin.u, strict=True):
        assert_near(u, v, DTYPES[dtype])
    model.update_energy()
    assert not model.E.any()
    assert not any(g.any() for g in model.w_get_gradients())


TRAINING: dict[str, dict[str, Any]] = {
    "CG": {"name": "ConditionalGaussian", "cost": "CrossEntropy"},
    "CG fast": {"name": "ConditionalGaussian", "cost": "CrossEntropy", "fast": True},
    "CG, squared error": {"name": "ConditionalGaussian", "cost": "SquaredError"},
    "CG fast, squared error": {"name": "ConditionalGaussian", "cost": "SquaredError", "fast": True},
    "RH": {"name": "RestrictedHopfield", "cost": "SquaredError"},
    "RH, cross-entropy": {"name": "RestrictedHopfield", "cost": "CrossEntropy"},
    "RH, pushed away": {"name": "RestrictedHopfield", "cost": "SquaredError", "beta": -0.5},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1},
    "Adam": {"lr": 1e-3},
    # eps of a size with the gradients: where a gradient cancels to nothing, its sign is noise in float32, of which Adam
    # would make a whole step.
    "Adam, float32": {"lr": 1e-3, "eps": 1e-3},
}


def phases(model: Any, twin: Twin, shape: str, dtype: Any, fast: bool, batch: int) -> Iterator[tuple[Any, Any]]:
    """What the original does with a batch, as far as the gradients: free, then nudged; ours and the twin's."""
    model.reset_state()
    twin.take(model.u)
    x = inputs(shape, dtype, 100 + batch)
    model.clamp_layer(0, x)
    twin.clamp(0, x)
    nudge(model, twin, None)
    if fast:
        model.fast_init()
        twin.fast_init()
        yield [np.zeros_like(p) for p in model.parameters], [torch.zeros_like(p) for p in twin.parameters]
    else:
        model.u_relax(0.1, 20, 0.0, 1.0)
        twin.u_relax(0.1, 20, 0.0, 1.0)
        yield model.w_get_gradients(), twin.w_gradients()
    nudge(model, twin, targets(shape, dtype, 200 + batch))
    model.u_relax(0.1, 20, 0.0, 1.0)
    twin.u_relax(0.1, 20, 0.0, 1.0)
    yield model.w_get_gradients(), twin.w_gradients()


@dtypes
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("shape", ["three layers", "four layers"])
@pytest.mark.parametrize("training", list(TRAINING))
def test_training(training: str, shape: str, optimizer: str, dtype: Any, device: str) -> None:
    """Batches in a row: the weights that one leaves behind are those that the next one relaxes with."""
    options = dict(TRAINING[training])
    fast = options.pop("fast", False)
    model, twin = build(**options, phi="sigmoid", dtype=dtype, device=device, shape=shape)
    start = [p.copy() for p in model.parameters]
    settings = OPTIMIZERS["Adam, float32" if optimizer == "Adam" and dtype is np.float32 else optimizer]
    ours = getattr(optim, optimizer)(model.parameters, **settings, device=device)
    original = getattr(torch.optim, optimizer)(twin.parameters, **settings)
    for batch in range(6):
        (free, free_twin), (nudged, nudged_twin) = phases(model, twin, shape, dtype, fast, batch)
        model.w_optimize(free, nudged, ours)
        twin.w_optimize(free_twin, nudged_twin, original)
        assert_same_state(model, twin, DTYPES[dtype])
        for p, q in zip(model.parameters, twin.parameters, strict=True):
            assert_near(p, q, DTYPES[dtype])
    assert all((p != q).any() for p, q in zip(model.parameters, start, strict=True))


@dtypes
@both_costs
@both_energies
@pytest.mark.parametrize("nudging", ["one_sided", "symmetric", "random_sign"])
def test_contrastive_gradient(nudging: str, name: str, cost: str, dtype: Any, device: str) -> None:
    """From a free phase to the gradient in one call, against the phases by hand."""
    shape, relaxed = "four layers", {"dt": 0.1, "n_relax": 25, "tol": 0.0, "tau": 1.0}
    model, twin = build(name, cost, "tanh", dtype, device, shape)
    target = targets(shape, dtype)
    twin.u_relax(**relaxed)
    free, at_rest = twin.w_gradients(), [numbers(u) for u in twin.u]

    def nudged(sign: int) -> list[torch.Tensor]:
        twin.take(at_rest)
        twin.beta = sign * BETA
        twin.set_target(target)
        twin.u_relax(**relaxed)
        return twin.w_gradients()

    above, below = nudged(+1), nudged(-1)
    candidates = {
        "towards": [(n - f) / BETA for n, f in zip(above, free, strict=True)],
        "away": [(f - n) / BETA for n, f in zip(below, free, strict=True)],
        "between": [(a - b) / (2 * BETA) for a, b in zip(above, below, strict=True)],
    }
    allowed = {"one_sided": ["towards"], "symmetric": ["between"], "random_sign": ["towards", "away"]}[nudging]
    made = model.contrastive_gradient(target, **relaxed, nudging=nudging)
    for u, v in zip(model.u, at_rest, strict=True):
        assert_near(u, v, DTYPES[dtype])
    differences = {
        key: max(float(np.abs(m - numbers(t)).max()) for m, t in zip(made, candidates[key], strict=True))
        for key in candidates
    }
    assert min(differences[key] for key in allowed) <= DTYPES[dtype]
    # The judge itself: the others are elsewhere.
    assert min(differences[key] for key in candidates.keys() - set(allowed)) > 100 * DTYPES[dtype]
