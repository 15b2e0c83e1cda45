"""Side by side with hypnettorch's prior and energy of networks: values, and gradients against autograd's."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypnettorch.mnets.mlp import MLP
from hypnettorch.utils import hmc

from grilly_optim.sampling import log_prob_standard_normal_prior, nn_pot_energy

pytestmark = pytest.mark.hypnettorch

Array = np.ndarray[Any, np.dtype[Any]]
rng = np.random.default_rng(4)
INPUTS = rng.standard_normal((30, 5))
TARGETS = {"regression": rng.standard_normal((30, 3)), "classification": rng.integers(0, 3, 30)}


class Numpy:
    """The same perceptron: one hidden layer of 7 with ReLU, 3 outputs."""

    def __init__(self, shapes: Any) -> None:
        self.param_shapes = shapes

    def forward(self, inputs: Array, weights: list[Array]) -> Array:
        return np.maximum(inputs @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]

    def backward(self, inputs: Array, weights: list[Array], grad_outputs: Array) -> list[Array]:
        hidden = np.maximum(inputs @ weights[0].T + weights[1], 0)
        before = grad_outputs @ weights[2] * (hidden > 0)
        return [before.T @ inputs, before.sum(0), grad_outputs.T @ hidden, grad_outputs.sum(0)]


@pytest.mark.parametrize("mean", [0.5, rng.standard_normal(6)], ids=["scalar", "vector"])
@pytest.mark.parametrize("std", [2.0, rng.uniform(0.5, 3, 6)], ids=["scalar", "vector"])
def test_prior(mean: Any, std: Any) -> None:
    q = rng.standard_normal(6)
    theirs = torch.tensor(q, requires_grad=True)
    tensors = [torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in (mean, std)]
    expected = hmc.log_prob_standard_normal_prior(theirs, *tensors)
    expected.backward()
    log_p, gradient = log_prob_standard_normal_prior(q, mean, std, grad=True)
    assert log_p == pytest.approx(expected.item(), rel=1e-6 if not isinstance(std, np.ndarray) else 1e-13)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("kind", "tau"), [("regression", 2.5), ("classification", 1.0)])
def test_energy_of_a_network(kind: str, tau: float) -> None:
    net = MLP(n_in=5, n_out=3, hidden_layers=[7], no_weights=True, verbose=False)
    ours = nn_pot_energy(
        Numpy(net.param_shapes),
        INPUTS,
        TARGETS[kind],
        functools.partial(log_prob_standard_normal_prior, std=1.5, grad=True),
        tau,
        kind,
    )
    prior = functools.partial(hmc.log_prob_standard_normal_prior, std=torch.tensor(1.5, dtype=torch.float64))
    original = hmc.nn_pot_energy(net, torch.tensor(INPUTS), torch.tensor(TARGETS[kind]), prior, tau, kind)
    for _ in range(5):
        q = rng.standard_normal(66)
        theirs = torch.tensor(q, requires_grad=True)
        expected = original(theirs)
        expected.backward()
        energy, gradient = ours(q)
        assert energy == pytest.approx(expected.item(), rel=1e-12)
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-10, atol=1e-12)
