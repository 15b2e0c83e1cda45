"""Energies and their gradients, states and clamping, costs, what is learned from."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.checkpoint import load_checkpoint, save_checkpoint
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
from grilly_optim.optim import SGD, Adam
from tests.energies import COSTS, ENERGIES, PHI, copies, model, soft_target

every_energy = pytest.mark.parametrize("energy", ENERGIES)
every_cost = pytest.mark.parametrize("cost", COSTS)
every_phi = pytest.mark.parametrize("phi", PHI)


@every_energy
@every_cost
@every_phi
def test_gradients_are_those_of_the_energy(energy: str, cost: str, phi: str) -> None:
    m = ENERGIES[energy]([5, 4, 6, 3], COSTS[cost](0.7), 7, phi, dtype="float64", device="numpy")
    m.set_C_target(soft_target(7))
    found = check_gradients(m)
    assert len(found) == 4 + 6  # states, weights and biases
    assert max(found.values()) < 1e-6


@every_energy
def test_the_check_finds_a_wrong_gradient(energy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m = ENERGIES[energy]([5, 4, 3], SquaredError(), 7, "tanh", dtype="float64", device="numpy")
    monkeypatch.setattr(type(m), "_gain", 1.01 * m._gain)
    assert check_gradients(m)["u[1]"] > 1e-3
    assert check_gradients(m)["weights[0]"] < 1e-6


@every_energy
def test_an_energy_by_hand(energy: str) -> None:
    m = ENERGIES[energy]([2, 2], SquaredError(0.5), 1, ["identity", "relu"], dtype="float64", device="numpy")
    m.weights[0][...], m.biases[0][...] = [[1, 2], [3, 4]], [0.5, -0.5]
    m.set_states([[[1, -1]], [[2, -3]]])
    # W r + b = (-0.5, -1.5): errors (-2.5, 1.5); outputs (2, 0).
    expected = {"gaussian": 2.5**2 + 1.5**2, "hopfield": 0.5 * (1 + 1 + 4 + 9) - 2 * -0.5}[energy]
    m.update_energy()
    np.testing.assert_allclose(m.E, [expected], rtol=1e-15)
    m.set_C_target([[2, 1]])
    np.testing.assert_allclose(m.E, [expected + 0.25 * 16], rtol=1e-15)


def test_costs_by_hand() -> None:
    u = np.log([[1.0, 3.0], [2.0, 2.0]])
    cost = CrossEntropy(beta=-2.0)
    cost.set_target([[0.25, 0.75], [0.0, 1.0]])
    expected = [2 * (0.25 * np.log(0.25) + 0.75 * np.log(0.75)), 2 * np.log(0.5)]
    np.testing.assert_allclose(cost.compute_energy(u), expected, rtol=1e-14)
    cost.set_target([1, 0])
    np.testing.assert_allclose(cost.compute_energy(u), [2 * np.log(0.75), 2 * np.log(0.5)], rtol=1e-14)
    cost.set_target(None)
    assert cost.compute_energy(u).tolist() == [0, 0]
    # Large states overflow nowhere.
    cost.set_target([0, 0])
    assert cost.compute_energy(np.array([[1e4, 0.0], [0.0, 1e4]])).tolist() == [0, -2e4]


@every_phi
def test_a_derivative_is_that_of_its_function(phi: str) -> None:
    a = get_activation(phi)
    u = np.linspace(-30, 30, 1201) + 0.0137  # between the kinks
    differences = (a.function(u + 1e-6) - a.function(u - 1e-6)) / 2e-6
    np.testing.assert_allclose(a.derivative(u), differences, atol=2e-8)


def test_derivatives_at_kinks() -> None:
    at = np.array([0.0, 1.0])
    assert get_activation("relu").derivative(at).tolist() == [0, 1]
    assert get_activation("leaky_relu").derivative(at).tolist() == [0.05, 1]
    assert get_activation("hard_sigmoid").derivative(at).tolist() == [1, 1]
    assert get_activation("softplus").function(np.array([20.5, 25.0])).tolist() == [20.5, 25.0]


@every_phi
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_keep_the_dtype_and_nan(phi: str, dtype: Any) -> None:
    a, u = get_activation(phi), np.array([np.nan, 0.5, -1e4, 1e4], dtype)
    for found in (a.function(u), a.derivative(u)):
        assert found.dtype == dtype
        assert np.isfinite(found[1:]).all()
    assert np.isnan(a.function(u)[0])


@every_energy
@given(seed=st.integers(0, 2**32), split=st.integers(1, 5))
@settings(deadline=None, max_examples=15)
def test_samples_know_nothing_of_one_another(energy: str, seed: int, split: int) -> None:
    whole = model(energy, seed=seed, dtype="float64", device="numpy")
    whole.set_C_target(soft_target())
    parts = []
    for rows in (slice(0, split), slice(split, 6)):
        part = model(energy, seed=seed, dtype="float64", device="numpy")
        part.release_layer(0)
        part.clamp_layer(0, whole.u[0][rows])
        part.set_states([u[rows] for u in whole.u])
        part.set_C_target(soft_target()[rows])
        part.u_relax(0.1, 5)
        parts.append(part)
    whole.u_relax(0.1, 5)
    for i, u in enumerate(whole.u):
        np.testing.assert_allclose(np.concatenate([p.u[i] for p in parts]), u, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.concatenate([p.E for p in parts]), whole.E, rtol=1e-12)


@every_energy
@given(seed=st.integers(0, 2**32), phi=st.sampled_from(PHI))
@settings(deadline=None, max_examples=25)
def test_small_steps_lose_energy(energy: str, seed: int, phi: str) -> None:
    m = model(energy, phi=phi, seed=seed, dtype="float64", device="numpy")
    m.set_C_target(soft_target())
    assert m.u_relax(1e-3, 10) < 0


# States and clamping.


def test_states_and_parameters_follow_from_the_seed() -> None:
    first, same, other = (
        ConditionalGaussian([4, 3], SquaredError(), 500, "relu", seed=s, device="cpu") for s in (1, 1, 2)
    )
    for a, b, c in zip(*((*m.parameters, *m.u) for m in (first, same, other)), strict=True):
        assert (a == b).all()
        assert not (a == c).any()
    assert all(np.abs(p).max() <= 0.5 for p in first.parameters)
    assert 0.85 < first.u[0].std() < 1.15
    before = copies(first.u)
    first.reset_state()
    assert not any((a == b).any() for a, b in zip(before, first.u, strict=True))


@every_energy
def test_clamped_layers_stand_still(energy: str, device: str) -> None:
    m = model(energy, dims=(5, 7, 4, 3), device=device)
    given_ = np.full((6, 4), 0.25)
    m.clamp_layer(2, given_)
    given_[...] = 7  # it was copied
    before = copies(m.u)
    m.u_relax(0.1, 5)
    m.u_step(0.1)
    m.reset_state()
    for i, (a, b) in enumerate(zip(before, m.u, strict=True)):
        assert (a == b).all() if i in (0, 2) else not (a == b).any()
    m.release_layer(2)
    assert m.clamp_du.tolist() == [True, False, False, False]
    m.u_step(0.1)
    assert not (m.u[2] == 0.25).any()


def test_what_is_written_in_place_counts() -> None:
    m = model(device="numpy")
    m.fast_init()
    m.update_energy()
    assert np.abs(m.E).max() < 1e-10
    m.u[1][...] += 1
    m.update_energy()
    assert m.E.min() > 1
    m.fast_init()
    m.biases[1][0] += 2
    m.update_energy()
    np.testing.assert_allclose(m.E, 4, rtol=1e-5)


@every_energy
def test_everything_clamped(energy: str, device: str) -> None:
    m = model(energy, device=device)
    for i in (1, 2):
        m.clamp_layer(i, m.u[i])
    before = copies(m.u)
    assert (m.u_relax(0.1, 3), m.u_step(0.1), m.u_get_gradients()) == (0, 0, [None] * 3)
    assert all((a == b).all() for a, b in zip(before, m.u, strict=True))


def test_a_batch_of_any_size(device: str) -> None:
    m = model(batch=6, device=device)
    for batch in (1, 11, 6):
        m.clamp_layer(0, np.ones((batch, 5)))
        m.set_C_target(np.zeros(batch, int))
        assert (m.batch_size, len(m.E), [len(u) for u in m.u]) == (batch, batch, [batch] * 3)
        m.u_relax(0.1, 3)
        assert m.steps.tolist() == [3] * batch


def test_fast_init_is_a_feed_forward_pass_and_leaves_clamped_layers() -> None:
    m = model(dims=(5, 7, 4, 3), phi="tanh", dtype="float64", device="numpy")
    m.clamp_layer(2, np.zeros((6, 4)))
    m.fast_init()
    np.testing.assert_allclose(m.u[1], m.u[0] @ m.weights[0].T + m.biases[0])
    assert (m.u[2] == 0).all()
    np.testing.assert_allclose(m.u[3], np.broadcast_to(m.biases[2], (6, 3)))
    with pytest.raises(NotImplementedError, match="u_relax"):
        model("hopfield", device="numpy").fast_init()


def test_a_target_is_copied_and_taken_away() -> None:
    m = model(device="numpy")
    y = soft_target()
    m.set_C_target(y)
    nudged = m.E.copy()
    y[...] = 0
    m.update_energy()
    assert (nudged == m.E).all()
    m.set_C_target(None)
    assert (nudged > m.E).all()


def test_labels_are_one_hot_targets() -> None:
    m = model(dtype="float64", device="numpy")
    m.set_C_target([0, 2, 1, 1, 0, 2])
    by_label = m.E
    m.set_C_target(np.eye(3)[[0, 2, 1, 1, 0, 2]])
    assert (by_label == m.E).all()


def test_a_custom_activation_runs_on_numpy() -> None:
    square = Activation("square", lambda u: u * u, lambda u: 2 * u)
    m = model(phi=["identity", square, "relu"], dtype="float64", device="numpy")
    assert max(check_gradients(m).values()) < 1e-6
    m.u_step(0.01)
    with pytest.raises(ValueError, match=r"phi\[1\], 'square', is an Activation of its own, .* use device='numpy'"):
        model(phi=["identity", square, "relu"], device="cpu")


# Learning.


@every_energy
def test_gradients_of_a_loss_of_energies(energy: str) -> None:
    m = model(energy, dtype="float64", device="numpy")
    one_by_one = [m.w_get_gradients(np.eye(6)[k]) for k in range(6)]
    for k, mean in enumerate(m.w_get_gradients()):
        np.testing.assert_allclose(np.mean([g[k] for g in one_by_one], 0), mean, rtol=1e-12)
    assert all(
        g.dtype == p.dtype and g.shape == p.shape for g, p in zip(m.w_get_gradients(), m.parameters, strict=True)
    )


@pytest.mark.parametrize("nudging", ["one_sided", "symmetric", "random_sign"])
@every_energy
def test_a_contrast_is_that_of_its_phases(energy: str, nudging: str, device: str) -> None:
    m, by_hand = (model(energy, beta=0.3, seed=5, device=device) for _ in range(2))
    y = soft_target()
    got = m.contrastive_gradient(y, dt=0.1, n_relax=20, nudging=nudging)
    by_hand.u_relax(0.1, 20)
    free, states = by_hand.w_get_gradients(), copies(by_hand.u)

    def nudged(beta: float) -> Any:
        by_hand.set_states(states)
        by_hand.c_energy.beta = beta
        by_hand.set_C_target(y)
        by_hand.u_relax(0.1, 20)
        return by_hand.w_get_gradients()

    plus, minus = nudged(0.3), nudged(-0.3)
    one_sided = [(a - b) / np.float32(0.3) for a, b in zip(plus, free, strict=True)]
    other_side = [(b - a) / np.float32(0.3) for a, b in zip(minus, free, strict=True)]
    symmetric = [(a - b) / np.float32(0.6) for a, b in zip(plus, minus, strict=True)]
    expected = {"one_sided": [one_sided], "symmetric": [symmetric], "random_sign": [one_sided, other_side]}[nudging]
    assert any(
        all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(got, found, strict=True)) for found in expected
    )
    # The model is where the free phase ended, with nothing of the nudge left.
    assert all((a == b).all() for a, b in zip(m.u, states, strict=True))
    assert (m.c_energy.beta, m.c_energy.target) == (0.3, None)


def test_random_signs_are_both() -> None:
    m = model(device="numpy")
    assert {m._drawn_sign() for _ in range(20)} == {1, -1}


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize(("nudging", "order", "within"), [("one_sided", 1, 0.1), ("symmetric", 2, 0.2)])
def test_how_the_error_of_a_contrast_falls_with_beta(energy: str, nudging: str, order: int, within: float) -> None:
    """Against finite differences of the cost at the free minimum."""
    cost = {"gaussian": "cross_entropy", "hopfield": "squared"}[energy]
    m = model(energy, cost, dims=(6, 8, 3), phi="sigmoid", dtype="float64", device="numpy")
    y = soft_target()
    converged = {"dt": 0.2, "n_relax": 5_000, "tol": 1e-12}
    m.u_relax(**converged)
    free = copies(m.u)
    costs = COSTS[cost](1.0)
    costs.set_target(y)

    def loss() -> float:
        m.set_C_target(None)
        m.set_states(free)
        m.u_relax(**converged)
        return float(costs.compute_energy(m.u[-1]).mean())

    # Some elements of each parameter stand for all of them.
    random = np.random.default_rng(0)
    chosen = [(k, tuple(random.integers(p.shape))) for k, p in enumerate(m.parameters) for _ in range(4)]
    exact = []
    for k, at in chosen:
        start, found = m.parameters[k][at], []
        for shift in (1e-4, -1e-4):
            m.parameters[k][at] = start + shift
            found.append(loss())
        m.parameters[k][at] = start
        exact.append((found[0] - found[1]) / 2e-4)
    errors = []
    betas = [0.02, 0.01, 0.005]
    for beta in betas:
        m.c_energy.beta = beta
        m.set_states(free)
        g = m.contrastive_gradient(y, **converged, nudging=nudging)
        errors.append(np.linalg.norm([g[k][at] for k, at in chosen] - np.array(exact)))
    slope = np.polyfit(np.log(betas), np.log(errors), 1)[0]
    assert abs(slope - order) <= within


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1), lambda p: Adam(p, lr=0.01)])
@every_energy
def test_w_optimize_is_a_step_with_the_contrast(energy: str, make: Any) -> None:
    m = model(energy, beta=-0.5, dtype="float64", device="cpu")
    free = m.w_get_gradients()
    m.set_C_target(soft_target())
    m.u_relax(0.1, 5)
    nudged = m.w_get_gradients()
    twins = copies(m.parameters)
    make(twins).step(gradients=[(b - a) / -0.5 for a, b in zip(free, nudged, strict=True)])
    m.w_optimize(free, nudged, make(m.parameters))
    assert all((a == b).all() for a, b in zip(m.parameters, twins, strict=True))


def test_without_a_free_gradient_it_is_zero() -> None:
    m = model(device="cpu")
    g, before = m.w_get_gradients(), copies(m.parameters)
    m.w_optimize(None, g, SGD(m.parameters, lr=1.0))
    for p, b, x in zip(m.parameters, before, g, strict=True):
        np.testing.assert_allclose(p, b - x / 0.7, rtol=1e-5, atol=1e-6)


def test_persistent_states_go_on_where_they_were() -> None:
    m = model("hopfield", batch=2, device="cpu")
    states = PersistentStates(m, samples=4)
    x = np.random.default_rng(0).normal(size=(4, 5))
    ends = {}
    for batch in ([0, 2], [1, 3], [0, 1]):
        which = np.array(batch)
        m.clamp_layer(0, x[which])
        states.load(which)
        before = copies(m.u)
        m.u_relax(0.1, 5)
        states.save(which)
        for k, sample in enumerate(batch):
            if sample in ends:
                assert all((a[k] == b).all() for a, b in zip(before[1:], ends[sample][1:], strict=True))
            ends[sample] = [u[k].copy() for u in m.u]


# Snapshots.


@every_energy
def test_a_snapshot_goes_on_bit_for_bit(energy: str, device: str) -> None:
    m, other = (model(energy, seed=s, device=device) for s in (1, 2))
    m.set_C_target(soft_target())
    m.u_relax(0.1, 3)
    saved = m.state_dict()
    m.u_relax(0.1, 4)
    m.reset_state()
    other.load_state_dict(saved)
    assert not any(np.shares_memory(a, b) for a, b in zip(saved["weights"], m.weights, strict=True))
    other.u_relax(0.1, 4)
    other.reset_state()
    for a, b in zip((*m.u, *m.parameters, m.E), (*other.u, *other.parameters, other.E), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@every_energy
def test_copies_go_on_by_themselves(energy: str, copied: Any) -> None:
    m = model(energy, device="cpu")
    m.set_C_target(soft_target())
    twin = copied(m)
    assert (m.u_relax(0.1, 4), type(m)) == (twin.u_relax(0.1, 4), type(twin))
    assert all((a == b).all() and a is not b for a, b in zip(m.u, twin.u, strict=True))
    assert isinstance(twin, ConditionalGaussian | RestrictedHopfield)


def test_repr_names_what_matters() -> None:
    assert repr(model(device="numpy")) == (
        "ConditionalGaussian([5, 7, 3], CrossEntropy(beta=0.7), batch_size=6, phi=[identity, sigmoid, sigmoid]) on "
        "NumPy"
    )


def test_a_snapshot_goes_through_a_checkpoint(tmp_path: Any) -> None:
    m, other = (model("hopfield", seed=s, device="numpy") for s in (2**64 - 1, 2))
    m.set_C_target([0, 1, 2, 0, 1, 2])
    m.u_relax(0.1, 3)
    other.load_state_dict(load_checkpoint(save_checkpoint(m.state_dict(), str(tmp_path / "ep"), 0.5)))
    assert (m.u_relax(0.1, 3), m.E.tolist()) == (other.u_relax(0.1, 3), other.E.tolist())


def test_copies_keep_everything() -> None:
    m = model(device="numpy")
    m.u_relax(0.1, 4)
    m.note = "mine"  # type: ignore[attr-defined]
    twin = copy.deepcopy(m)
    assert (twin.steps.tolist(), twin.note, twin.phi == m.phi) == ([4] * 6, "mine", True)  # type: ignore[attr-defined]


def test_arrays_stay_the_same_ones() -> None:
    """Whoever holds a layer's state holds it until there is another batch size."""
    m = model(device="numpy")
    held = list(m.u)
    m.reset_state()
    m.clamp_layer(0, np.ones((6, 5)))
    m.set_states(copies(m.u))
    m.fast_init()
    m.u_relax(0.1, 2)
    m.contrastive_gradient(soft_target(), dt=0.1, n_relax=2)
    assert all(a is b for a, b in zip(held, m.u, strict=True))


def test_what_is_given_back_is_the_caller_s() -> None:
    m = model(device="numpy")
    before = m.E.copy()
    m.E[...] = 7
    m.steps[...] = 7
    assert (before == m.E).all()
    assert m.steps.tolist() == [0] * 6


def test_energies_follow_the_cost() -> None:
    m = model(dtype="float64", device="numpy")
    free = m.E
    m.c_energy.set_target([0, 1, 2, 0, 1, 2])
    nudged = m.E
    m.c_energy.beta = 1.4
    np.testing.assert_allclose(m.E - free, 2 * (nudged - free))
    m.c_energy = SquaredError()
    assert (free == m.E).all()


def test_costs_of_whole_numbers() -> None:
    cost = SquaredError(0.5)
    cost.set_target([[1, 2]])
    assert cost.compute_energy([[3, 5]]).tolist() == [3.25]
    gradient = cost.gradient([[3, 5]])
    assert gradient is not None
    assert gradient.tolist() == [[1.0, 1.5]]


def test_flags_of_clamped_layers_may_be_set() -> None:
    m = model(device="cpu")
    m.clamp_du = [True, False, True]
    before = copies(m.u)
    m.u_step(0.1)
    assert [(a == b).all() for a, b in zip(before, m.u, strict=True)] == [True, False, True]


class Halved(SquaredError):
    """A cost of one's own."""

    def _cost(self, u: Any, y: Any) -> Any:
        return super()._cost(u, y) / 2

    def _gradient(self, u: Any, y: Any) -> Any:
        return super()._gradient(u, y) / 2


@pytest.mark.cases("numpy", "cpu")
def test_a_cost_of_one_s_own_runs_on_the_processor(device: str) -> None:
    m = ConditionalGaussian([5, 7, 3], Halved(), 6, "tanh", dtype="float64", device=device)
    m.set_C_target(soft_target())
    assert max(check_gradients(m).values()) < 1e-6
    m.u_relax(0.1, 3)


@pytest.mark.cases("vulkan")
def test_a_cost_of_one_s_own_is_refused_by_a_gpu(device: str) -> None:
    m = ConditionalGaussian([5, 7, 3], Halved(), 6, "tanh", device=device)
    with pytest.raises(ValueError, match="is a cost of its own, which no GPU knows: use device='cpu'"):
        m.u_relax(0.1, 3)
