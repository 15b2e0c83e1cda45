"""Models for tests of Hamiltonian Learning: arrays without a network, the recurrence written out, and real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import HL
from grilly_optim.optim.hl_models import Oscillators, Recurrent, StateSpace

Array = np.ndarray[Any, np.dtype[Any]]


def draw(rng: np.random.Generator, shape: Any, dtype: Any) -> Array:
    """Standard normal numbers, in both parts of complex ones."""
    real = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        real = real + 1j * rng.standard_normal(shape)
    return np.asarray(real, dtype)


class Tensors:
    """What `HL` asks of a model, and no more: parameters, a state, a time step."""

    def __init__(
        self, shapes: dict[str, Any], state: Any = (2, 3), dtype: Any = np.float64, delta: float = 0.3
    ) -> None:
        rng = np.random.default_rng(1)
        self.delta = delta
        self.w = {name: draw(rng, shape, dtype) for name, shape in shapes.items()}
        self.h_init = draw(rng, state, dtype)
        self.h: Array | None = None
        self.dh: Array | None = None
        self.gradients: Any = None

    def named_parameters(self) -> list[tuple[str, Array]]:
        return list(self.w.items())

    def drawn_gradients(self, rng: np.random.Generator, missing: tuple[str, ...] = ()) -> dict[str, Any]:
        xi = None if "xi" in missing else draw(rng, self.h_init.shape, self.h_init.dtype)
        return {"xi": xi, "w": {n: None if n in missing else draw(rng, w.shape, w.dtype) for n, w in self.w.items()}}


class Written:
    """The recurrence of Hamiltonian Learning in plain NumPy, for one model."""

    def __init__(self, model: Tensors, **options: Any) -> None:
        self.delta = model.delta
        self.options = {"flip": -1.0, "theta": 0.1, "beta": 1.0, "local": True, "scale_damping": False} | options
        self.w = {name: w.copy() for name, w in model.w.items()}
        self.xi = np.zeros(model.h_init.shape, next(iter(model.w.values())).dtype)
        self.p = {name: np.zeros_like(w) for name, w in model.w.items()}

    def step(self, gradients: dict[str, Any]) -> None:
        flip, beta = self.options["flip"], self.options["beta"]
        theta = self.options["theta"] * (self.delta if self.options["scale_damping"] else 1.0)

        def moved(p: Array, g: Array | None) -> Array:
            return (1 + flip * theta) * p - self.delta * flip * (np.zeros_like(p) if g is None else g)

        self.xi = moved(self.xi, gradients["xi"])
        for name in self.w:
            new = moved(self.p[name], gradients["w"][name])
            self.w[name] = self.w[name] - self.delta * beta * (self.p[name] if self.options["local"] else new)
            self.p[name] = new


KINDS: dict[str, Any] = {"state space": StateSpace, "oscillators": Oscillators}
LOCALITIES: dict[str, dict[str, Any]] = {
    "local": {},
    "non-local": {"local": False},
    "retained": {"local": False, "retain": True},
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
localities = pytest.mark.parametrize("locality", LOCALITIES.values(), ids=LOCALITIES)


def doubles(kind: Any, **options: Any) -> Recurrent:
    made: Recurrent = kind(3, 6, 2, **{"delta": 0.3, "batch": 4, "dtype": np.float64} | options)
    return made


def run(model: Recurrent, optimizer: HL, steps: int = 30) -> None:
    rng = np.random.default_rng(4)
    for _ in range(steps):
        u, target = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
        optimizer.backward(model(u) - target)
        optimizer.step()
