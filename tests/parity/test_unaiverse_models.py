"""The models for Hamiltonian Learning beside torch's autograd, under `HL` of UNaIVERSE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from grilly_optim.optim import HL
from grilly_optim.optim.hl_models import Oscillators, Recurrent, StateSpace
from tests.parity.test_unaiverse import original

pytestmark = [
    pytest.mark.unaiverse,
    # The original asks for .grad of a state that is no leaf, where the model is not local.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

STEPS = 60
LOCALITIES: dict[str, dict[str, Any]] = {
    "local": {},
    "non-local": {"local": False},
    "retained": {"local": False, "retain": True},
}


class Twin(torch.nn.Module):
    """A model in torch, as `CSSM` and `CTBE` there are written."""

    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.delta, self.local, self.retain = model.delta, model.local, model.retain
        self.sigma = torch.tanh if model.activation == "tanh" else torch.nn.Identity()
        for name, w in model.named_parameters():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(w.copy())))
        self.h_init = torch.from_numpy(model.h_init.copy())
        self.h_next = self.h_init.clone()

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        h = self.h_next.detach().clone().requires_grad_()
        h_new = self.advance(h, u)
        self.h = h if self.local else h_new
        if self.retain:
            h_new.retain_grad()
        self.dh = (h_new - h) / self.delta
        self.h_next = h_new.detach()
        return self.sigma(self.h) @ self.C.T

    def advance(self, h: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "A"):
            return h @ self.A.T + u @ self.B.T
        x, y = h.view(len(h), -1, 2).unbind(-1)
        a, b = (u @ self.B.T).view(len(h), -1, 2).unbind(-1)
        cos, sin = torch.cos(self.delta * self.omega), torch.sin(self.delta * self.omega)
        new_x = cos * x + sin * y + (sin * a - (cos - 1) * b) / self.omega
        new_y = -sin * x + cos * y + ((cos - 1) * a + sin * b) / self.omega
        return torch.stack([new_x, new_y], -1).flatten(1)


@pytest.mark.parametrize("device", ["numpy", "cpu", "vulkan:llvmpipe"])
@pytest.mark.parametrize("activation", ["tanh", "linear"])
@pytest.mark.parametrize("locality", LOCALITIES)
@pytest.mark.parametrize("kind", [StateSpace, Oscillators], ids=lambda k: k.__name__)
@pytest.mark.parametrize("hl_local", [True, False])
def test_trajectories(kind: Any, locality: str, activation: str, hl_local: bool, device: str) -> None:
    own = LOCALITIES[locality]
    model = kind(3, 8, 2, delta=0.4, batch=5, seed=2, activation=activation, dtype=np.float64, **own)
    if isinstance(model, Oscillators):
        model.omega += 0.5  # near 0 the original's division loses digits
    options: dict[str, Any] = {"beta": 0.02, "gamma": 0.8, "local": hl_local}
    # What is retained doubles costates.
    options["theta"] = 1.2 if locality == "retained" else 0.3
    twin, rng = Twin(model), np.random.default_rng(8)
    ours, theirs = HL(model, **options, device=device), original().HL(twin, **options)
    start = {name: w.copy() for name, w in model.named_parameters()}
    for _ in range(STEPS):
        u, target = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
        y, their_y = model(u), twin(torch.from_numpy(u))
        near(y, their_y)
        theirs.zero_grad()
        potential = ((their_y - torch.from_numpy(target)) ** 2).mean()
        hamiltonian = theirs.compute_hamiltonian(potential)
        near(np.asarray(ours.compute_hamiltonian(float(((y - target) ** 2).mean()))), hamiltonian)
        hamiltonian.backward()
        ours.backward(2 * (y - target) / y.size)
        for name, parameter in twin.named_parameters():
            near(model.gradients["w"][name], parameter.grad)
        near(np.zeros((5, 8)) if model.gradients["xi"] is None else model.gradients["xi"], grad_or_zeros(twin.h))
        ours.step()
        theirs.step()
        for name, w in model.named_parameters():
            near(w, dict(twin.named_parameters())[name])
            near(ours.state[0]["p"]["w"][name], theirs.state[0]["p"]["w"][name])
        near(ours.state[0]["p"]["xi"], theirs.state[0]["p"]["xi"])
    assert all(np.abs(w - start[name]).max() > 1e-3 for name, w in model.named_parameters())
    assert bool(ours.state[0]["p"]["xi"].any()) == (locality != "non-local")


def grad_or_zeros(h: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(h) if h.grad is None else h.grad


def near(made: Any, expected: torch.Tensor | None) -> None:
    want = torch.zeros(made.shape) if expected is None else expected.detach()
    scale = max(1.0, float(want.abs().max()))
    assert made.shape == tuple(want.shape)
    assert float(np.abs(made - want.numpy()).max()) <= 1e-12 * scale


def test_no_input_is_divided_by_a_frequency_of_0_where_the_original_s_is() -> None:
    model = Oscillators(1, 2, 1, dtype=np.float64)
    model.omega[0] = 0.0
    twin = Twin(model)
    twin(torch.ones(1, 1, dtype=torch.float64))
    assert twin.h_next.isnan().any()
    model(np.ones((1, 1)))
    np.testing.assert_allclose(model.h + 0.1 * model.dh, model.h_init + 0.1 * model.B.T)


def test_a_model_that_is_not_local_can_retain_its_costate_where_the_original_s_stays_0() -> None:
    made = {}
    for retain in (False, True):
        model = StateSpace(1, 4, 1, local=False, retain=retain)
        optimizer = HL(model, theta=1.5, beta=0.01)
        model(np.ones((1, 1)))
        optimizer.backward(np.ones((1, 1)))
        optimizer.step()
        made[retain] = bool(optimizer.state[0]["p"]["xi"].any())
    assert made == {False: False, True: True}
