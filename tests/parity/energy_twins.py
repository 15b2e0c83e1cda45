"""Equilibrium propagation in torch: only energies and costs are written down, and autograd makes every gradient.

The original (github.com/smonsays/equilibrium-propagation) is in no package. This is what it computes, as runs of it and
its source show, and written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Phi = Callable[[Tensor], Tensor]
PHI: dict[str, Phi] = {
    "identity": lambda u: u,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda u: functional.leaky_relu(u, 0.05),
    "hard_sigmoid": lambda u: u.clamp(0, 1),
    "softplus": functional.softplus,
}


def conditional_gaussian(w: list[Tensor], b: list[Tensor], u: list[Tensor], phi: list[Phi]) -> Tensor:
    """Squared errors of the predictions of each layer by the one below: a number per sample."""
    layers = range(len(w))
    return sum(((u[i + 1] - functional.linear(phi[i](u[i]), w[i], b[i])) ** 2).sum(1) for i in layers)  # type: ignore[return-value]  # not empty


def restricted_hopfield(w: list[Tensor], b: list[Tensor], u: list[Tensor], phi: list[Phi]) -> Tensor:
    """Squares of the states less what the layers agree on: a number per sample."""
    energy = sum((x**2).sum(1) for x in u) / 2
    for i in range(len(w)):
        energy = energy - (phi[i + 1](u[i + 1]) * functional.linear(phi[i](u[i]), w[i], b[i])).sum(1)
    return energy  # type: ignore[return-value]  # not an integer: there are layers


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).sum(1) / 2


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


ENERGIES = {"ConditionalGaussian": conditional_gaussian, "RestrictedHopfield": restricted_hopfield}
COSTS = {"SquaredError": squared_error, "CrossEntropy": cross_entropy}


class Twin:
    """A network's states and parameters in torch, copied from one of ours.

    Args:
        model: One of ours.
        energy: A name in `ENERGIES`.
        cost: A name in `COSTS`.
        beta: What the cost is multiplied by.
        phi: A name for each layer.
    """

    def __init__(self, model: Any, energy: str, cost: str, beta: float, phi: list[str]) -> None:
        self.w, self.b = ([torch.tensor(a).requires_grad_() for a in kind] for kind in (model.weights, model.biases))
        self.phi = [PHI[name] for name in phi]
        self.energy, self.cost, self.beta = ENERGIES[energy], COSTS[cost], beta
        self.target: Tensor | None = None
        self.clamped = [False] * len(model.u)
        self.take(model.u)

    @property
    def parameters(self) -> list[Tensor]:
        """W0, b0, W1, b1, and so on."""
        return [p for pair in zip(self.w, self.b, strict=True) for p in pair]

    def take(self, states: list[Any]) -> None:
        """Copy states."""
        self.u = [torch.tensor(x) for x in states]

    def clamp(self, layer: int, values: Any) -> None:
        self.u[layer] = torch.tensor(values)
        self.clamped[layer] = True

    def set_target(self, target: Any) -> None:
        self.target = None if target is None else torch.tensor(target)

    def e(self) -> Tensor:
        """The energy of each sample, with the cost where there is a target."""
        energy = self.energy(self.w, self.b, self.u, self.phi)
        return energy if self.target is None else energy + self.beta * self.cost(self.u[-1], self.target)

    def u_gradients(self) -> list[Tensor | None]:
        """Of the sum over all samples; None where a layer is clamped."""
        free = [u for u, clamped in zip(self.u, self.clamped, strict=True) if not clamped]
        for u in free:
            u.requires_grad_()
        made = iter(torch.autograd.grad(self.e().sum(), free))
        for u in free:
            u.requires_grad_(False)
        return [None if clamped else next(made) for clamped in self.clamped]

    def u_step(self, dt: float, tau: float) -> float:
        """All layers at once, from the same gradients; the mean norm of each layer's gradient, summed over layers."""
        total = 0.0
        for k, gradient in enumerate(self.u_gradients()):
            if gradient is not None:
                self.u[k] = self.u[k] - dt / tau * gradient
                total += float(gradient.norm(dim=1).mean())
        return total

    def u_relax(self, dt: float, n_relax: int, tol: float, tau: float) -> tuple[float, float, int]:
        """Returns: the change of energy over all steps, what the original says it is, and the number of steps.

        The original adds up the differences between the energies before and after each step, and leaves the loop before
        it has added the one of the last step.
        """
        energies = [float(self.e().sum().detach())]
        for _ in range(n_relax):
            norm = self.u_step(dt, tau)
            energies.append(float(self.e().sum().detach()))
            if norm < tol:
                return energies[-1] - energies[0], energies[-2] - energies[0], len(energies) - 1
        return energies[-1] - energies[0], energies[-1] - energies[0], n_relax

    def w_gradients(self) -> list[Tensor]:
        """Of the mean energy; the cost has none."""
        return list(torch.autograd.grad(self.e().mean(), self.parameters))

    def fast_init(self) -> None:
        """Each layer as the one below predicts it."""
        with torch.no_grad():
            for i in range(len(self.w)):
                self.u[i + 1] = functional.linear(self.phi[i](self.u[i]), self.w[i], self.b[i])

    def w_optimize(self, free: list[Tensor], nudged: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
        """A step along the difference of the gradients, over beta."""
        for p, f, n in zip(self.parameters, free, nudged, strict=True):
            p.grad = (n - f) / self.beta
        optimizer.step()


def numbers(tensor: Tensor) -> Any:
    return np.asarray(tensor.detach().numpy())
