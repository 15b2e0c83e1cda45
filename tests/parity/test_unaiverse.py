"""Hamiltonian Learning beside `HL` of UNaIVERSE, on the same gradients."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from importlib.metadata import distribution
from typing import Any

import numpy as np
import pytest
import torch

from grilly_optim.optim import HL, euler_step
from tests.hl_models import Tensors

pytestmark = pytest.mark.unaiverse

STEPS = 60
SHAPES = {"A": (5, 7), "B": (3,), "c": (), "long": (500,)}
# Setting -> options, in the order of what they change.
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "non-local": {"local": False},
    "theta 0": {"theta": 0.0},
    "theta 0, non-local": {"theta": 0.0, "local": False},
    "theta 1": {"theta": 1.0},
    "theta 1, non-local": {"theta": 1.0, "local": False},
    "backward": {"flip": 1.0, "theta": 0.05},
    "backward, non-local": {"flip": 1.0, "theta": 0.05, "local": False},
    "slow": {"beta": 0.01},
    "slow, non-local": {"beta": 0.01, "theta": 0.4, "local": False},
    "ascent": {"beta": -0.1},
    "half a flip": {"flip": -0.5, "local": False},
    "neurons reset": {"reset_neuron_costate": True},
    "weights reset, non-local": {"reset_weight_costate": True, "local": False},
    "both reset, non-local": {"reset_neuron_costate": True, "reset_weight_costate": True, "local": False},
    "gamma": {"gamma": 0.3},
    "gamma, non-local": {"gamma": 2.0, "theta": 0.3, "local": False},
}
DTYPES = {np.float32: 1e-5, np.float64: 1e-12, np.complex64: 1e-5, np.complex128: 1e-12}


@cache
def original() -> Any:
    """Its file by itself: importing the package wants much more than this needs."""
    path = distribution("unaiverse").locate_file("unaiverse/modules/hl/hl_utils.py")
    spec = importlib.util.spec_from_file_location("unaiverse_hl_utils", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Twin(torch.nn.Module):
    """The same tensors in torch."""

    def __init__(self, model: Tensors) -> None:
        super().__init__()
        self.delta = model.delta
        for name, w in model.w.items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(w.copy())))
        self.h_init = torch.from_numpy(model.h_init.copy())
        self.h = self.h_init.clone().requires_grad_()
        self.dh = torch.zeros_like(self.h_init)

    def take(self, gradients: dict[str, Any]) -> None:
        self.h.grad = None if gradients["xi"] is None else torch.from_numpy(gradients["xi"].copy())
        for name, parameter in self.named_parameters():
            gradient = gradients["w"][name]
            parameter.grad = None if gradient is None else torch.from_numpy(np.asarray(gradient).copy())


def assert_near(made: Any, expected: torch.Tensor, tolerance: float) -> None:
    want = expected.detach().numpy()
    assert made.dtype == want.dtype
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    assert float(np.abs(made - want).max(initial=0)) <= tolerance * scale


def run(models: list[Tensors], options: list[dict[str, Any]], tolerance: float, device: str) -> None:
    """Both optimizers for many steps; trajectories, costates and Hamiltonians along the way."""
    twins, rng = [Twin(model) for model in models], np.random.default_rng(11)
    theirs = original().HL([{"params": twin, **own} for twin, own in zip(twins, options, strict=True)])
    ours = HL([{"params": model, **own} for model, own in zip(models, options, strict=True)], device=device)
    for k in range(STEPS):
        gradients = [m.drawn_gradients(rng, missing=("xi", "B") if k % 5 == 4 else ()) for m in models]
        potentials = rng.standard_normal(len(models))
        ours.zero_grad()
        theirs.zero_grad()
        for model, twin, mine in zip(models, twins, gradients, strict=True):
            model.dh = rng.standard_normal(model.h_init.shape).astype(model.h_init.dtype)
            twin.dh = torch.from_numpy(model.dh.copy())
            twin.take(mine)
        expected = float(theirs.compute_hamiltonian(*torch.from_numpy(potentials)))
        assert abs(ours.compute_hamiltonian(*potentials) - expected) <= 10 * tolerance * max(1.0, abs(expected))
        ours.step(gradients)
        theirs.step()
        for model, twin, state, their_state in zip(models, twins, ours.state, theirs.state, strict=True):
            for name, parameter in twin.named_parameters():
                assert_near(model.w[name], parameter, tolerance)
                assert_near(state["p"]["w"][name], their_state["p"]["w"][name], tolerance)
            assert_near(state["p"]["xi"], their_state["p"]["xi"], tolerance)


@pytest.mark.parametrize("device", ["numpy", "cpu", "vulkan:llvmpipe"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.filterwarnings("ignore:models:UserWarning")
def test_trajectories(setting: str, dtype: Any, device: str) -> None:
    run([Tensors(SHAPES, dtype=dtype)], [SETTINGS[setting]], DTYPES[dtype], device)


@pytest.mark.parametrize("device", ["numpy", "cpu", "vulkan:llvmpipe"])
def test_groups_with_options_time_steps_and_precisions_of_their_own(device: str) -> None:
    models = [
        Tensors(SHAPES, delta=0.1),
        Tensors({"A": (4,), "B": (2, 2)}, state=(1, 5), dtype=np.complex128, delta=1.0),
        Tensors(SHAPES, state=(3,), delta=0.5),
    ]
    options: list[dict[str, Any]] = [{"local": False}, {"theta": 0.3, "beta": 0.1}, {"gamma": 3.0, "theta": 0.0}]
    run(models, options, 1e-12, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("decay", [None, 0.0, 0.3])
@pytest.mark.parametrize("in_place", [False, True])
def test_euler_step(in_place: bool, decay: float | None, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    models = [Tensors(SHAPES, dtype=dtype).w, Tensors(SHAPES, dtype=dtype).drawn_gradients(rng)["w"]]
    theirs = [{name: torch.from_numpy(np.asarray(w).copy()) for name, w in tree.items()} for tree in models]
    expected = original()._euler_step(*theirs, 0.7, decay, in_place)
    made = euler_step(*models, 0.7, decay, in_place)
    for name, array in made.items():
        assert_near(array, expected[name], 1e-6 if DTYPES[dtype] > 1e-9 else 1e-15)


# Where the original breaks, or does nothing (docs/differences.md).


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (
            lambda twin: twin.register_parameter("frozen", torch.nn.Parameter(torch.zeros(2), requires_grad=False)),
            AssertionError,
        ),
        (lambda twin: setattr(twin, "h", None), Exception),
    ],
    ids=["frozen parameter", "before the first call"],
)
def test_the_original_fails(spoil: Callable[[Any], None], error: type[Exception]) -> None:
    twin = Twin(Tensors(SHAPES))
    spoil(twin)
    theirs = original().HL(twin)
    with pytest.raises(error):
        theirs.step()


def test_weights_that_never_move_go_unsaid_there_and_are_warned_of_here() -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(2)
    twin = Twin(model)
    theirs = original().HL(twin, reset_weight_costate=True)
    before = {name: p.detach().clone() for name, p in twin.named_parameters()}
    for _ in range(5):
        theirs.zero_grad()
        twin.take(model.drawn_gradients(rng))
        theirs.step()
    assert all(torch.equal(p, before[name]) for name, p in twin.named_parameters())
    with pytest.warns(UserWarning, match="weights never move"):
        HL(model, reset_weight_costate=True)
