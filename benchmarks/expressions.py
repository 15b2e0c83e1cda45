"""Optimizers as one writes them in NumPy: whole-array expressions, in the precision of the arrays.

On float32 arrays they are the rivals that our NumPy device has to beat; on float64 arrays they are the reference that
every contestant and every test must come close to. Each is one step, in place: parameter, gradient, what the optimizer
remembers of this parameter (`Memory`), the number of the step (1 for the first), and the options with torch's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Expression = Callable[..., None]


class Memory(dict[str, Any]):
    """What an optimizer keeps of one parameter: arrays of its shape, zeros when first asked for."""

    def __init__(self, parameter: Array) -> None:
        super().__init__()
        self._parameter = parameter

    def __missing__(self, name: str) -> Array:
        self[name] = np.zeros_like(self._parameter)
        return np.asarray(self[name])


class Steps(Protocol):
    """An optimizer over several parameters, which it updates in place."""

    def step(self, gradients: Sequence[Array], /) -> None:
        """One step."""


class Each:
    """Every parameter goes through an expression by itself."""

    def __init__(self, expression: Expression, parameters: Sequence[Array], **options: Any) -> None:
        self._expression, self._parameters, self._options = expression, parameters, options
        self._memories = [Memory(p) for p in parameters]
        self._t = 0

    def step(self, gradients: Sequence[Array], /) -> None:
        """One step."""
        self._t += 1
        for p, g, memory in zip(self._parameters, gradients, self._memories, strict=True):
            self._expression(p, g, memory, self._t, **self._options)


def in_float64(expression: Expression, p: Array, gradients: Iterable[Array], **options: Any) -> Array:
    """The parameter after a step with each of these gradients, computed in float64."""
    theta = p.astype(np.float64)
    memory = Memory(theta)
    for t, g in enumerate(gradients, start=1):
        expression(theta, g.astype(np.float64), memory, t, **options)
    return theta


def slope(p: Array, g: Array, weight_decay: float, maximize: bool) -> Array:
    """The gradient to descend along, with coupled decay."""
    if maximize:
        g = -g
    return g + weight_decay * p if weight_decay else g


def adam(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> None:
    """Adam, with coupled or decoupled decay."""
    g = slope(p, g, 0.0 if decoupled_weight_decay else weight_decay, maximize)
    if decoupled_weight_decay:
        p *= 1 - lr * weight_decay
    m, v = s["m"], s["v"]
    m[...] = betas[0] * m + (1 - betas[0]) * g
    v[...] = betas[1] * v + (1 - betas[1]) * g * g
    if amsgrad:
        np.maximum(s["largest"], v, out=s["largest"])
        v = s["largest"]
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    p -= lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(p: Array, g: Array, s: Memory, t: int, *, weight_decay: float = 0.01, **options: Any) -> None:
    """AdamW."""
    adam(p, g, s, t, weight_decay=weight_decay, decoupled_weight_decay=True, **options)


def sgd(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> None:
    """SGD; the first gradient is the first momentum, whole."""
    g = slope(p, g, weight_decay, maximize)
    if momentum:
        b = s["b"]
        b[...] = g if t == 1 else momentum * b + (1 - dampening) * g
        g = g + momentum * b if nesterov else b
    p -= lr * g


def rmsprop(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> None:
    """RMSprop."""
    g = slope(p, g, weight_decay, maximize)
    v = s["v"]
    v[...] = alpha * v + (1 - alpha) * g * g
    variance = v
    if centered:
        a = s["a"]
        a[...] = alpha * a + (1 - alpha) * g
        variance = v - a * a
    change = g / (np.sqrt(variance) + eps)
    if momentum:
        b = s["b"]
        b[...] = momentum * b + change
        change = b
    p -= lr * change


def adagrad(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
) -> None:
    """Adagrad."""
    g = slope(p, g, weight_decay, maximize)
    v = s["v"]
    if t == 1:
        v += initial_accumulator_value
    v += g * g
    p -= lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(v) + eps)


def adadelta(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Adadelta."""
    g = slope(p, g, weight_decay, maximize)
    v, u = s["v"], s["u"]
    v[...] = rho * v + (1 - rho) * g * g
    change = np.sqrt(u + eps) / np.sqrt(v + eps) * g
    u[...] = rho * u + (1 - rho) * change * change
    p -= lr * change


def nadam(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """NAdam."""
    g = slope(p, g, 0.0 if decoupled_weight_decay else weight_decay, maximize)
    if decoupled_weight_decay:
        p *= 1 - lr * weight_decay
    mu, mu_next = (betas[0] * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
    product = s["product"] = mu * (1.0 if t == 1 else s["product"])
    m, v = s["m"], s["v"]
    m[...] = betas[0] * m + (1 - betas[0]) * g
    v[...] = betas[1] * v + (1 - betas[1]) * g * g
    d = np.sqrt(v / (1 - betas[1] ** t)) + eps
    p -= lr * ((1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m) / d


def radam(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """RAdam."""
    g = slope(p, g, 0.0 if decoupled_weight_decay else weight_decay, maximize)
    if decoupled_weight_decay:
        p *= 1 - lr * weight_decay
    m, v = s["m"], s["v"]
    m[...] = betas[0] * m + (1 - betas[0]) * g
    v[...] = betas[1] * v + (1 - betas[1]) * g * g
    m_hat = m / (1 - betas[0] ** t)
    longest = 2 / (1 - betas[1]) - 1
    length = longest - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
    if length > 5:
        r2 = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
        p -= lr * math.sqrt(r2 * (1 - betas[1] ** t)) * m_hat / (np.sqrt(v) + eps)
    else:
        p -= lr * m_hat


def lion(
    p: Array,
    g: Array,
    s: Memory,
    t: int,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> None:
    """Lion."""
    m = s["m"]
    p *= 1 - lr * weight_decay
    p -= lr * np.sign(betas[0] * m + (1 - betas[0]) * g)
    m[...] = betas[1] * m + (1 - betas[1]) * g
