"""Hamiltonian Learning: its recurrence, its special cases, its books."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.optim import HL, SGD
from grilly_optim.optim._hl_models import Model
from tests.hl_models import Array, Tensors, Written, draw
from tests.table import assert_bits

SHAPES = {"A": (5, 7), "B": (3,), "c": (), "none": (0, 4), "long": (1000,)}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"local": False},
    {"theta": 0.0},
    {"theta": 1.0, "local": False},
    {"flip": 1.0, "theta": 0.05},
    {"beta": 0.01, "theta": 0.7, "local": False},
    {"beta": -0.5},
    {"scale_damping": True, "theta": 0.5},
    {"scale_damping": True, "local": False, "flip": 0.5},
]
settings = pytest.mark.parametrize("options", SETTINGS, ids=str)
dtypes = pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, np.complex64, np.complex128], ids=lambda d: d.__name__
)
TOLERANCE = {"f": 2e-5, "d": 1e-13, "F": 2e-5, "D": 1e-13}


def assert_near(made: Array, expected: Array) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    assert made.dtype == expected.dtype
    assert made.shape == expected.shape
    assert float(np.abs(made - expected).max(initial=0)) <= TOLERANCE[made.dtype.char] * scale


@settings
@dtypes
def test_it_is_the_recurrence(options: dict[str, Any], dtype: Any, device: str) -> None:
    model, rng = Tensors(SHAPES, dtype=dtype), np.random.default_rng(5)
    optimizer, written = HL(model, **options, device=device), Written(model, **options)
    for k in range(20):
        gradients = model.drawn_gradients(rng, missing=("xi", "B") if k % 3 == 2 else ())
        kept = copy.deepcopy(gradients)
        optimizer.step(gradients)
        written.step(gradients)
        for name, gradient in gradients["w"].items():
            if gradient is not None:
                assert_bits(gradient, kept["w"][name])
    state = optimizer.state[0]
    assert_near(state["p"]["xi"], written.xi)
    for name, w in model.w.items():
        assert state["x"]["w"][name] is w
        assert_near(w, written.w[name])
        assert_near(state["p"]["w"][name], written.p[name])


@settings
def test_every_device_gives_the_same_bits(options: dict[str, Any], device: str) -> None:
    models = [Tensors(SHAPES, dtype=np.float32) for _ in "ab"]
    for model, where in zip(models, (device, "numpy"), strict=True):
        optimizer, rng = HL(model, **options, device=where), np.random.default_rng(6)
        for _ in range(10):
            optimizer.step(model.drawn_gradients(rng))
    for name in SHAPES:
        assert_bits(models[0].w[name], models[1].w[name])


def test_a_step_is_one_kernel_run_for_everything(device: str) -> None:
    models = [Tensors(SHAPES), Tensors({"D": (40,)}, state=(1, 9))]
    optimizer = HL([{"params": models[0]}, {"params": models[1], "local": False}], device=device)
    rng = np.random.default_rng(0)
    gradients = [model.drawn_gradients(rng) for model in models]
    optimizer.step(gradients)
    before = grilly_optim.counters(device)
    optimizer.step(gradients)
    after = grilly_optim.counters(device)
    assert after["dispatches"] - before["dispatches"] == 1
    assert after["submits"] - before["submits"] == int(device.startswith("vulkan"))


@pytest.mark.parametrize("pause", [0, 1e-3])
def test_a_model_that_is_worth_waking_threads_for(pause: float, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they sleep or not, and whoever does it: the same bits, and one kernel run for each step."""
    monkeypatch.setenv("GRILLY_THREADS", "3")
    ends = []
    for where in ("numpy", device):
        model = Tensors({"A": (400, 500), "B": (300, 400)}, dtype=np.float32)
        optimizer, gradients = HL(model, device=where), model.drawn_gradients(np.random.default_rng(2))
        before = grilly_optim.counters(where)["dispatches"]
        for _ in range(4):
            time.sleep(pause)
            optimizer.step(gradients)
        assert grilly_optim.counters(where)["dispatches"] == before + 4
        ends.append(list(model.w.values()))
    for a, b in zip(*ends, strict=True):
        assert_bits(a, b)


def test_gradients_that_fit_are_looked_at_by_the_engine_alone(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models, rng = [Tensors(SHAPES), Tensors({"D": (40,)}, state=(1, 9))], np.random.default_rng(0)
    optimizers = [HL(models[1], device=device), HL([{"params": model} for model in models], device=device)]
    gradients = [model.drawn_gradients(rng, missing=("xi",)) for model in models]
    monkeypatch.setattr(Model, "gradients", None)
    optimizers[0].step(gradients[1])
    optimizers[1].step(gradients)


# What it is in special cases.


@pytest.mark.parametrize("beta", [0.01, 1.5])
def test_without_memory_it_is_sgd(beta: float, device: str) -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(2)
    optimizer = HL(model, theta=1.0, beta=beta, local=False, device=device)
    ws = [w.copy() for w in model.w.values()]
    sgd = SGD(ws, lr=model.delta**2 * beta, device=device)
    for _ in range(50):
        gradients = model.drawn_gradients(rng)
        optimizer.step(gradients)
        sgd.step(gradients=list(gradients["w"].values()))
    for w, plain in zip(model.w.values(), ws, strict=True):
        np.testing.assert_allclose(w, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("theta", [0.1, 0.6])
def test_with_memory_it_is_heavy_ball(theta: float, device: str) -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(3)
    optimizer = HL(model, theta=theta, beta=0.2, local=False, device=device)
    ws = [w.copy() for w in model.w.values()]
    heavy = SGD(ws, lr=model.delta * 0.2, momentum=1 - theta, device=device)
    for _ in range(50):
        gradients = model.drawn_gradients(rng)
        optimizer.step(gradients)
        heavy.step(gradients=[model.delta * g for g in gradients["w"].values()])
    for w, plain in zip(model.w.values(), ws, strict=True):
        np.testing.assert_allclose(w, plain, rtol=1e-12, atol=1e-12)


def test_local_without_memory_it_is_sgd_with_the_gradient_of_the_step_before(device: str) -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(4)
    optimizer = HL(model, theta=1.0, beta=0.2, device=device)
    ws = [w.copy() for w in model.w.values()]
    sgd = SGD(ws, lr=model.delta**2 * 0.2, device=device)
    before = None
    for _ in range(50):
        gradients = model.drawn_gradients(rng)
        optimizer.step(gradients)
        if before is not None:
            sgd.step(gradients=before)
        before = list(gradients["w"].values())
    for w, plain in zip(model.w.values(), ws, strict=True):
        np.testing.assert_allclose(w, plain, rtol=1e-12, atol=1e-12)


# The Hamiltonian, and resets.


@dtypes
def test_the_hamiltonian(dtype: Any, device: str) -> None:
    models, rng = (
        [Tensors(SHAPES, dtype=dtype), Tensors({"D": (4,)}, state=(3,), dtype=dtype)],
        np.random.default_rng(7),
    )
    optimizer = HL([{"params": models[0], "gamma": 2.0}, {"params": models[1]}], device=device)
    optimizer.step([model.drawn_gradients(rng) for model in models])
    costates = [state["p"]["xi"].astype(np.complex128) for state in optimizer.state]
    for model in models:
        model.dh = draw(rng, model.h_init.shape, dtype)
    velocities = [model.dh.astype(np.complex128) for model in models]  # type: ignore[union-attr]  # set above
    plain, paired = (
        sum((p * v).sum().real for p, v in zip(ps, velocities, strict=True))
        for ps in (costates, [p.conj() for p in costates])
    )
    made = optimizer.compute_hamiltonian(0.5, np.float32(3.0))
    assert isinstance(made, float)
    np.testing.assert_allclose(made, 2 * 0.5 + 3.0 + plain, rtol=1e-12)
    for group in optimizer.param_groups:
        group["conjugate"] = True
    np.testing.assert_allclose(optimizer.compute_hamiltonian(0.5, 3.0), 4.0 + paired, rtol=1e-12)


def test_a_velocity_may_have_another_shape(device: str) -> None:
    """Batches are flattened, and what is not contiguous is as good."""
    model = Tensors({"A": (2,)}, state=(2, 3))
    optimizer = HL(model, device=device)
    optimizer.step(model.drawn_gradients(np.random.default_rng(0)))
    flat = np.arange(6.0)
    expected = sum(float(v * p) for v, p in zip(flat, optimizer.state[0]["p"]["xi"].flat, strict=True))
    for dh in (flat, flat.reshape(3, 2), flat.reshape(6, 1), np.repeat(flat, 2).reshape(3, 4)[:, ::2]):
        model.dh = dh
        np.testing.assert_allclose(optimizer.compute_hamiltonian(0.0), expected, rtol=1e-12)


def test_zero_grad(device: str) -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(8)
    optimizer = HL(
        [
            {"params": model, "reset_neuron_costate": True},
            {"params": Tensors(SHAPES), "reset_weight_costate": True, "local": False},
            {"params": Tensors(SHAPES)},
        ],
        device=device,
    )
    model.gradients = model.drawn_gradients(rng, missing=("A",))
    arrays = [model.gradients["xi"], *(g for g in model.gradients["w"].values() if g is not None)]
    optimizer.step([model.gradients] * 3)
    optimizer.zero_grad()
    assert all(not array.any() for array in arrays)
    states = [state["p"] for state in optimizer.state]
    assert [bool(p["xi"].any()) for p in states] == [False, True, True]
    assert [bool(p["w"]["long"].any()) for p in states] == [True, False, True]


def test_the_warning_of_weights_that_never_move_points_to_the_caller() -> None:
    futile = {"params": Tensors(SHAPES), "reset_weight_costate": True}
    with pytest.warns(UserWarning, match=r"models\[0\].*weights never move") as built:
        HL(futile, device="numpy")
    optimizer = HL(Tensors(SHAPES), device="numpy")
    with pytest.warns(UserWarning, match=r"models\[1\].*weights never move") as added:
        optimizer.add_param_group(futile)
    assert [warning.filename for warning in (*built, *added)] == [__file__] * 2


def test_resetting_weight_costates_is_plain_sgd(device: str) -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(9)
    optimizer = HL(model, reset_weight_costate=True, local=False, beta=0.3, device=device)
    ws = [w.copy() for w in model.w.values()]
    sgd = SGD(ws, lr=model.delta**2 * 0.3, device=device)
    for _ in range(10):
        optimizer.zero_grad()
        gradients = model.drawn_gradients(rng)
        optimizer.step(gradients)
        sgd.step(gradients=list(gradients["w"].values()))
    for w, plain in zip(model.w.values(), ws, strict=True):
        np.testing.assert_allclose(w, plain, rtol=1e-12, atol=1e-12)


# Where gradients and parameters lie.


@dtypes
def test_arrays_that_are_not_contiguous(dtype: Any, device: str) -> None:
    plain = Tensors({"A": (4, 6), "B": (8,)}, state=(2, 2), dtype=dtype)
    odd = copy.deepcopy(plain)
    room = np.zeros((6, 8), dtype)
    room[:, ::2] = plain.w["A"].T
    odd.w = {"A": room[:, ::2].T, "B": plain.w["B"].copy()[::-1]}
    odd.w["B"][...] = plain.w["B"]
    optimizers, rng = [HL(model, device=device) for model in (plain, odd)], np.random.default_rng(1)
    for _ in range(5):
        gradients = plain.drawn_gradients(rng)
        strided = {"xi": np.repeat(gradients["xi"], 2, -1)[..., ::2], "w": dict(gradients["w"])}
        strided["w"]["A"] = np.asfortranarray(gradients["w"]["A"])
        optimizers[0].step(gradients)
        optimizers[1].step(strided)
    for name in plain.w:
        assert_bits(np.ascontiguousarray(odd.w[name]), plain.w[name])
    assert not room[:, 1::2].any()


def test_gradients_of_other_precisions_are_cast(device: str) -> None:
    model, other = Tensors(SHAPES, dtype=np.complex64), Tensors(SHAPES, dtype=np.complex64)
    optimizers = [HL(m, device=device) for m in (model, other)]
    gradients = Tensors(SHAPES, dtype=np.float64).drawn_gradients(np.random.default_rng(3))
    cast = {
        "xi": gradients["xi"].astype(np.complex64),
        "w": {n: g.astype(np.complex64) for n, g in gradients["w"].items()},
    }
    optimizers[0].step(gradients)
    optimizers[1].step(cast)
    for name in SHAPES:
        assert_bits(model.w[name], other.w[name])


def test_a_gradient_that_is_the_parameter_itself(device: str) -> None:
    model = Tensors({"A": (10,)})
    optimizer, written = HL(model, local=False, device=device), Written(model, local=False)
    for _ in range(3):
        optimizer.step({"xi": None, "w": {"A": model.w["A"]}})
        written.step({"xi": None, "w": {"A": written.w["A"].copy()}})
    assert_near(model.w["A"], written.w["A"])


def test_gradients_are_read_from_the_model(device: str) -> None:
    model, other = Tensors(SHAPES), Tensors(SHAPES)
    optimizers, rng = [HL(m, device=device) for m in (model, other)], np.random.default_rng(3)
    model.gradients = model.drawn_gradients(rng)
    optimizers[0].step()
    optimizers[1].step(model.gradients)
    assert_bits(model.w["A"], other.w["A"])


class Asking(Tensors):
    """Makes its gradients of its costate when it is asked for them."""

    optimizer: HL

    @property
    def gradients(self) -> Any:
        p = self.optimizer.state[0]["p"]["xi"]
        return {"xi": p + 1, "w": {name: np.full_like(w, p.sum()) for name, w in self.w.items()}}

    @gradients.setter
    def gradients(self, gradients: Any) -> None: ...

    def backward(self, grad: Any, costate: Array, gamma: float) -> None:
        assert_bits(costate, self.optimizer.state[0]["p"]["xi"])


def test_gradients_may_be_made_of_costates_when_they_are_read(device: str) -> None:
    model, plain = Asking(SHAPES), Tensors(SHAPES)
    model.optimizer, other = HL(model, device=device), HL(plain, device=device)
    for _ in range(4):
        gradients = model.gradients
        model.optimizer.backward(None)
        model.optimizer.zero_grad()
        for name, change in model.optimizer.peek()[0].items():
            assert_bits(change, other.peek(gradients)[0][name])
        model.optimizer.step()
        other.step(gradients)
    for name, w in plain.w.items():
        assert_bits(model.w[name], w)


def test_parameters_may_be_new_views_of_the_same_memory(device: str) -> None:
    class Flat(Tensors):
        buffer = np.zeros(10)

        def named_parameters(self) -> list[tuple[str, Array]]:
            return [("A", self.buffer[:6].reshape(2, 3)), ("B", self.buffer[6:])]

    model, plain, rng = Flat({}), Tensors({"A": (2, 3), "B": (4,)}), np.random.default_rng(0)
    model.buffer = np.concatenate([w.reshape(-1) for w in plain.w.values()])
    optimizers = [HL(m, device=device) for m in (model, plain)]
    for _ in range(3):
        gradients = plain.drawn_gradients(rng)
        for optimizer in optimizers:
            optimizer.step(gradients)
    assert_bits(model.buffer, np.concatenate([w.reshape(-1) for w in plain.w.values()]))
    model.buffer = model.buffer.copy()
    with pytest.raises(ValueError, match="parameter 'A' of the model is another array than"):
        optimizers[0].step(gradients)


def test_a_parameter_may_be_called_xi(device: str) -> None:
    model, rng = Tensors({"xi": (4,), "w": (2,)}), np.random.default_rng(0)
    optimizer, written = HL(model, device=device), Written(model)
    for _ in range(3):
        gradients = model.drawn_gradients(rng)
        assert list(optimizer.peek(gradients)[0]) == ["xi", "w"]
        optimizer.step(gradients)
        written.step(gradients)
    p = optimizer.state[0]["p"]
    assert_near(p["xi"], written.xi)
    assert list(p["w"]) == ["xi", "w"]
    for name, w in model.w.items():
        assert_near(w, written.w[name])
        assert_near(p["w"][name], written.p[name])
    other = HL(model, device=device)
    other.load_state_dict(optimizer.state_dict())
    assert_bits(other.state[0]["p"]["xi"], p["xi"])
    assert_bits(other.state[0]["p"]["w"]["xi"], p["w"]["xi"])


def test_precisions_side_by_side(device: str) -> None:
    """Costates have the precision of their parameters, the state's that of the first."""
    model = Tensors({"A": (3,), "B": (4,)}, dtype=np.float32)
    model.w["B"] = model.w["B"].astype(np.float64)
    optimizer = HL(model, device=device)
    optimizer.step(model.drawn_gradients(np.random.default_rng(0)))
    p = optimizer.state[0]["p"]
    assert (p["xi"].dtype, p["w"]["A"].dtype, p["w"]["B"].dtype) == (np.float32, np.float32, np.float64)


def test_a_complex_state_of_real_parameters(device: str) -> None:
    model = Tensors({"A": (3,)}, dtype=np.float32)
    model.h_init = np.zeros((1, 2), np.complex64)
    optimizer = HL(model, device=device)
    optimizer.step({"xi": np.array([[1j, 2.0]]), "w": {"A": None}})
    np.testing.assert_allclose(optimizer.state[0]["p"]["xi"], [[0.3j, 0.6]], rtol=1e-6)


# Books.


def test_peek_is_what_the_step_does(device: str) -> None:
    models = [Tensors(SHAPES, dtype=np.complex128), Tensors(SHAPES, dtype=np.float32)]
    optimizer, rng = HL([{"params": m} for m in models], local=False, device=device), np.random.default_rng(4)
    optimizer.step([m.drawn_gradients(rng) for m in models])
    gradients = [m.drawn_gradients(rng) for m in models]
    before, state = copy.deepcopy([m.w for m in models]), optimizer.state_dict()
    changes = optimizer.peek(gradients)
    for was, model in zip(before, models, strict=True):
        for name in SHAPES:
            assert_bits(was[name], model.w[name])
    assert_bits(optimizer.state_dict()["state"][0]["w"]["A"], state["state"][0]["w"]["A"])
    optimizer.step(gradients)
    for change, was, model in zip(changes, before, models, strict=True):
        assert list(change) == list(SHAPES)
        for name, delta in change.items():
            assert_near(was[name] + delta, model.w[name])


def test_models_can_be_added(device: str) -> None:
    models, rng = [Tensors(SHAPES), Tensors({"D": (6,)}, state=(2,))], np.random.default_rng(7)
    optimizer, written = HL(models[0], device=device), [Written(models[0]), Written(models[1], local=False)]
    first = models[0].drawn_gradients(rng)
    optimizer.step(first)
    written[0].step(first)
    optimizer.add_param_group({"params": models[1], "local": False})
    gradients = [m.drawn_gradients(rng) for m in models]
    for _ in range(2):
        optimizer.step(gradients)
        for own, mine in zip(written, gradients, strict=True):
            own.step(mine)
    assert_near(models[0].w["A"], written[0].w["A"])
    assert_near(models[1].w["D"], written[1].w["D"])


def test_hooks_and_options_that_change(device: str) -> None:
    model, rng, seen = Tensors(SHAPES), np.random.default_rng(8), []
    optimizer, written = HL(model, device=device), Written(model)
    first, second = model.drawn_gradients(rng), model.drawn_gradients(rng)
    handle = optimizer.register_step_pre_hook(lambda o, args, kwargs: ((), {"gradients": second}))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(kwargs["gradients"]))
    optimizer.step(first)
    written.step(second)
    handle.remove()
    optimizer.param_groups[0]["beta"] = written.options["beta"] = 0.1
    optimizer.step(first)
    written.step(first)
    assert seen == [second, first]
    assert_near(model.w["A"], written.w["A"])


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", ["delta", "theta", "beta"])
def test_numbers_that_change_between_steps(name: str, in_place: bool, device: str) -> None:
    """Also those of an array without axes, which stays the same object."""
    model, rng = Tensors(SHAPES), np.random.default_rng(8)
    optimizer, written = HL(model, device=device), Written(model)
    cell = np.array(0.1)
    for value in (0.1, 0.1, 0.7, 0.2):
        cell[...] = value
        given: Any = cell if in_place else value
        if name == "delta":
            model.delta, written.delta = given, value
        else:
            optimizer.param_groups[0][name], written.options[name] = given, value
        gradients = model.drawn_gradients(rng)
        optimizer.step(gradients)
        written.step(gradients)
    assert_near(model.w["A"], written.w["A"])


def test_costates_are_copies_that_cannot_be_written_to(device: str) -> None:
    model = Tensors(SHAPES)
    optimizer = HL(model, device=device)
    state = optimizer.state[0]
    assert state["x"]["xi"] is model.h_init
    assert list(state["p"]) == ["xi", "w"]
    assert list(state["p"]["w"]) == list(SHAPES)
    with pytest.raises(ValueError, match="read-only"):
        state["p"]["w"]["A"][...] = 1
    with pytest.raises(KeyError):
        state["p"]["w"]["Z"]
    assert "theta=0.1" in repr(optimizer)
