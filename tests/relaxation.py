"""Networks to relax in tests, and how one writes their relaxation in NumPy, in float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grilly_optim.energy.activations import ACTIVATIONS
from tests.table import Array


@dataclass
class Net:
    """A network, where it is, and what is asked of it."""

    energy: str
    cost: str
    dims: list[int]
    batch: int
    phi: list[str]
    u: list[Array]
    weights: list[Array]
    biases: list[Array]
    target: Array | None
    beta: float = 0.7
    step: float = 0.1
    clamped: list[bool] = field(default_factory=list)

    def copy(self, dtype: Any) -> Net:
        """The same in this precision, in memory of its own."""
        arrays = {name: [np.array(x, dtype) for x in getattr(self, name)] for name in ("u", "weights", "biases")}
        target = None if self.target is None else np.array(self.target, dtype)
        rest = {n: getattr(self, n) for n in ("energy", "cost", "dims", "batch", "phi", "beta", "step", "clamped")}
        return Net(**rest, **arrays, target=target)


def network(
    energy: str = "gaussian",
    cost: str = "squared",
    dims: tuple[int, ...] = (5, 7, 3),
    batch: int = 4,
    phi: tuple[str, ...] = ("identity", "sigmoid", "sigmoid"),
    clamped: tuple[int, ...] = (0,),
    seed: int = 0,
) -> Net:
    """Random numbers of moderate size in float64; `clamped` are numbers of layers."""
    rng = np.random.default_rng(seed)
    u = [rng.standard_normal((batch, n)) for n in dims]
    pairs = list(itertools.pairwise(dims))
    weights = [rng.uniform(-1, 1, (after, before)) / np.sqrt(before) for before, after in pairs]
    biases = [rng.uniform(-1, 1, after) / np.sqrt(before) for before, after in pairs]
    target = rng.dirichlet(np.ones(dims[-1]), batch) * rng.uniform(0.5, 1.5, (batch, 1)) if cost else None
    fixed = [k in clamped for k in range(len(dims))]
    return Net(energy, cost, list(dims), batch, list(phi), u, weights, biases, target, clamped=fixed)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def gradients(net: Net, u: list[Array]) -> list[Array]:
    """The derivative of energy and cost by the states."""
    phi = [ACTIVATIONS[name] for name in net.phi]
    r = [p.function(x) for p, x in zip(phi, u, strict=True)]
    last = len(u) - 1
    forward = [r[i] @ net.weights[i].T + net.biases[i] for i in range(last)]
    made = []
    for i in range(last + 1):
        slope = phi[i].derivative(u[i])
        if net.energy == "gaussian":
            g = np.zeros_like(u[i])
            if i >= 1:
                g = g - 2 * (forward[i - 1] - u[i])
            if i < last:
                g = g + 2 * slope * ((forward[i] - u[i + 1]) @ net.weights[i])
        else:
            asked = np.zeros_like(u[i])
            if i >= 1:
                asked = asked + forward[i - 1]
            if i < last:
                asked = asked + r[i + 1] @ net.weights[i]
            g = u[i] - slope * asked
        made.append(g)
    if net.target is not None:
        y = net.target
        if net.cost == "squared":
            made[last] = made[last] + net.beta * (u[last] - y)
        else:
            made[last] = made[last] + net.beta * (softmax(u[last]) * y.sum(axis=1, keepdims=True) - y)
    return made


def relaxed(net: Net, count: int, tol: float = 0.0, per_sample: bool = False) -> tuple[list[Array], Array, Array]:
    """States after the steps, the steps of each sample, and the norm of each in its last step."""
    u = [x.copy() for x in net.u]
    moving = np.ones(net.batch, bool)
    steps, norms = np.zeros(net.batch, np.uint32), np.full(net.batch, np.nan)
    free = [i for i, fixed in enumerate(net.clamped) if not fixed]
    for _ in range(count):
        g = gradients(net, u)
        made = sum((np.linalg.norm(g[i], axis=1) for i in free), start=np.zeros(net.batch))
        for i in free:
            u[i][moving] -= net.step * g[i][moving]
        norms[moving] = made[moving]
        steps[moving] += 1
        if per_sample:
            moving &= ~(made < tol)
        elif made.mean() < tol:
            break
        if not moving.any():
            break
    return u, steps, norms


def on_device(backend: Any, net: Net, count: int, **options: Any) -> tuple[Array, Array | None]:
    """The same on a device, in place."""
    double = net.u[0].dtype == np.float64
    made = backend.relaxation(net.energy, net.cost, double, net.dims, net.batch, net.phi)
    result: tuple[Array, Array | None] = made.run(**arguments(net, count, **options))
    return result


def arguments(net: Net, count: int, **options: Any) -> dict[str, Any]:
    """What a run takes."""
    given = {n: getattr(net, n) for n in ("u", "weights", "biases", "target", "beta", "clamped", "step")}
    rest = {"tol": 0.0, "per_sample": False, "measured": False, "check_every": 5}
    return given | {"count": count} | rest | options
