"""The inventory of samplers: each with its arguments, and its step as one writes it in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import (
    BAOA,
    BAOAB,
    SGHMC,
    SGLD,
    SGMCMC,
    SGNHT,
    CompositePreconditioner,
    CompositePrior,
    GaussianPrior,
    MaskPreconditioner,
    NHTPreconditioning,
    RMSpropPreconditioner,
    UniformPrior,
)
from tests.table import Array

State = dict[str, Any]
Step = Callable[[Array, Array, Array, State], Array]

SHAPES: list[tuple[int, ...]] = [(5,), (300, 3), (1,)]


@dataclass(frozen=True)
class SamplerRow:
    """A sampler, and ``step(w, g, z, state) -> w``: its recurrence for one parameter, `state` being what it keeps.

    ``state["w0"]`` is where the parameter was at first, ``state["k"]`` which parameter it is, ``state["z0"]`` the
    normal numbers that the momentum begins with.
    """

    name: str
    make: Callable[..., Any]
    step: Step
    options: dict[str, Any] = field(default_factory=dict)
    momentum: bool = False


def boxed(w: Array, w0: Array, b: float | None) -> Array:
    return w if b is None else np.minimum(np.maximum(w, w0 - b), w0 + b)


def turned(w: Array, m: Array, w0: Array, b: float | None) -> Array:
    return m if b is None else np.where(np.abs(w - w0) < b, m, -m)


def mask_of(shape: tuple[int, ...], fraction: float = 0.0) -> Array:
    mask = np.ones(shape)
    mask.reshape(-1)[::3] = fraction
    return mask


MASKS = [mask_of(shape) for shape in SHAPES]
FRACTIONS = [mask_of(shape, 0.5) for shape in SHAPES]
CENTERS = [np.linspace(-1, 1, math.prod(shape)).reshape(shape) for shape in SHAPES]


def sgld(
    lr: float = 0.01,
    nbeta: float = 1.0,
    noise: float = 1.0,
    decay: float = 0.0,
    pull: float = 0.0,
    box: float | None = None,
    center: list[Array] | None = None,
    masks: list[Array] | None = None,
    rmsprop: tuple[float, float] | None = None,
) -> Step:
    def step(w: Array, g: Array, z: Array, state: State) -> Array:
        w0, k = state["w0"], state["k"]
        mask = 1.0 if masks is None else masks[k]
        c = w0 if center is None else center[k]
        scale: Any = 1.0
        if rmsprop:
            state["v"] = rmsprop[0] * state.get("v", 0.0) + (1 - rmsprop[0]) * g**2
            scale = 1 / (np.sqrt(state["v"]) + rmsprop[1])
        prior = decay * w + pull * (w - c)
        w = w - lr / 2 * mask * scale * (nbeta * g + prior) + math.sqrt(lr) * mask * np.sqrt(scale) * noise * z
        return boxed(w, w0, box)

    return step


def sgnht(lr: float = 0.01, diffusion: float = 0.01, nbeta: float = 1.0, box: float | None = None) -> Step:
    def step(w: Array, g: Array, z: Array, state: State) -> Array:
        m = state.setdefault("m", math.sqrt(lr) * state["z0"])
        m = m - lr * nbeta * g
        m = m - state["xi"].setdefault("xi", diffusion) * m + math.sqrt(2 * lr * diffusion) * z
        w = w + m
        state["xi"].setdefault("squares", []).append(m**2)
        state["m"] = turned(w, m, state["w0"], box)
        return boxed(w, state["w0"], box)

    return step


def sghmc(
    lr: float = 0.01,
    alpha: float = 0.01,
    beta: float = 0.0,
    sigma: float = 1.0,
    heat: float = 1.0,
    nbeta: float = 1.0,
    decay: float = 0.0,
    pull: float = 0.0,
    box: float | None = None,
    masks: list[Array] | None = None,
) -> Step:
    def step(w: Array, g: Array, z: Array, state: State) -> Array:
        mask = 1.0 if masks is None else masks[state["k"]]
        m = state.setdefault("m", mask * sigma * math.sqrt(heat) * state["z0"])
        force = nbeta * g + decay * w + pull * (w - state["w0"])
        spread = math.sqrt(heat * lr * (2 * alpha - heat * lr * beta))
        after = mask * (m - lr * force - lr * alpha / sigma**2 * m + spread * z)
        w = w + lr * mask * m / sigma**2
        state["m"] = turned(w, after, state["w0"], box)
        return boxed(w, state["w0"], box)

    return step


def baoa(
    lr: float = 0.01,
    alpha: float = 0.01,
    sigma: float = 1.0,
    heat: float = 1.0,
    nbeta: float = 1.0,
    decay: float = 0.0,
    pull: float = 0.0,
    box: float | None = None,
    halves: bool = False,
) -> Step:
    """With `halves`, BAOAB as it is written: the gradient where a step ends is the one where the next begins."""

    def step(w: Array, g: Array, z: Array, state: State) -> Array:
        m = state.get("m")
        force = nbeta * g + decay * w + pull * (w - state["w0"])
        if m is None:
            m = sigma * math.sqrt(heat) * state["z0"]
        elif halves:
            m = m - lr / 2 * force  # what ends the step before
        m = m - (lr / 2 if halves else lr) * force
        w = w + lr / 2 * m / sigma**2
        keep = math.exp(-alpha / sigma**2 * lr)
        m = keep * m + sigma * math.sqrt(heat * (1 - keep**2)) * z
        w = w + lr / 2 * m / sigma**2
        state["m"] = turned(w, m, state["w0"], box)
        return boxed(w, state["w0"], box)

    return step


def both(precision: float) -> CompositePrior:
    return CompositePrior([GaussianPrior(1.0), GaussianPrior(precision, center=CENTERS), UniformPrior()])


def two_centers(lr: float, nbeta: float, precision: float) -> Step:
    def step(w: Array, g: Array, z: Array, state: State) -> Array:
        prior = (w - state["w0"]) + precision * (w - CENTERS[state["k"]])
        return w - lr / 2 * (nbeta * g + prior) + math.sqrt(lr) * z

    return step


FACTORY: dict[str, Any] = {"lr": 0.02, "nbeta": 5.0}
FULL: dict[str, Any] = {"lr": 0.02, "nbeta": 5.0, "localization": 3.0, "weight_decay": 0.5, "bounding_box_size": 0.4}
FULL_STEP: dict[str, Any] = {"lr": 0.02, "nbeta": 5.0, "pull": 3.0, "decay": 0.5, "box": 0.4}

SAMPLERS = [
    SamplerRow("sgld", SGLD, sgld(0.02, 5.0), FACTORY),
    SamplerRow("sgld-full", SGLD, sgld(**FULL_STEP), FULL),
    SamplerRow("sgmcmc", SGMCMC, sgld(0.02, 5.0), FACTORY),
    SamplerRow("sgmcmc.sgld", SGMCMC.sgld, sgld(**FULL_STEP), FULL),
    SamplerRow("sgmcmc.sgld-mask", SGMCMC.sgld, sgld(**FULL_STEP, masks=MASKS), {**FULL, "mask": MASKS}),
    SamplerRow("sgmcmc.sgld-half", SGMCMC.sgld, sgld(0.02, 5.0, masks=FRACTIONS), {**FACTORY, "mask": FRACTIONS}),
    SamplerRow("sgmcmc-prior-number", SGMCMC, sgld(0.02, 5.0, pull=2.0), {**FACTORY, "prior": 2.0}),
    SamplerRow("sgmcmc-prior-initial", SGMCMC, sgld(0.02, 5.0, pull=1.0), {**FACTORY, "prior": "initial"}),
    SamplerRow("sgmcmc-prior-arrays", SGMCMC, sgld(0.02, 5.0, pull=1.0, center=CENTERS), {**FACTORY, "prior": CENTERS}),
    SamplerRow("sgmcmc-prior-two", SGMCMC, two_centers(0.02, 5.0, 3.0), {**FACTORY, "prior": both(3.0)}),
    SamplerRow("sgmcmc-prior-uniform", SGMCMC, sgld(0.02, 5.0), {**FACTORY, "prior": UniformPrior()}),
    SamplerRow(
        "sgmcmc-mask-object",
        SGMCMC,
        sgld(0.02, 5.0, masks=MASKS, rmsprop=(0.9, 0.2)),
        {
            **FACTORY,
            "preconditioner": CompositePreconditioner([RMSpropPreconditioner(0.9, 0.2), MaskPreconditioner(MASKS)]),
        },
    ),
    SamplerRow("sgmcmc.rmsprop_sgld", SGMCMC.rmsprop_sgld, sgld(**FULL_STEP, rmsprop=(0.99, 0.1)), FULL),
    SamplerRow(
        "sgmcmc-rmsprop",
        SGMCMC,
        sgld(0.02, 5.0, rmsprop=(0.5, 1.0)),
        {**FACTORY, "preconditioner": "rmsprop", "preconditioner_kwargs": {"alpha": 0.5, "eps": 1.0}},
    ),
    SamplerRow(
        "sgmcmc.sgnht-original",
        SGMCMC.sgnht,
        sgld(0.02, 5.0, noise=math.sqrt(0.02)),
        {**FACTORY, "thermostat": False},
    ),
    SamplerRow(
        "sgmcmc-nht", SGMCMC, sgld(0.02, 5.0, noise=1.0), {**FACTORY, "preconditioner": NHTPreconditioning(0.5)}
    ),
    SamplerRow("sgnht", SGNHT, sgnht(0.02, 0.1, 5.0), {**FACTORY, "diffusion_factor": 0.1}, True),
    SamplerRow(
        "sgmcmc.sgnht", SGMCMC.sgnht, sgnht(0.02, nbeta=5.0, box=0.5), {**FACTORY, "bounding_box_size": 0.5}, True
    ),
    SamplerRow("sghmc", SGHMC, sghmc(0.02, 0.5, nbeta=5.0), {**FACTORY, "alpha": 0.5}, True),
    SamplerRow(
        "sghmc-full",
        SGHMC,
        sghmc(alpha=2.0, beta=3.0, sigma=2.0, heat=0.5, masks=MASKS, **FULL_STEP),
        {**FULL, "alpha": 2.0, "beta": 3.0, "sigma": 2.0, "temperature": 0.5, "mask": MASKS},
        True,
    ),
    SamplerRow("baoa", BAOA, baoa(0.02, 0.5, nbeta=5.0), {**FACTORY, "alpha": 0.5}, True),
    SamplerRow(
        "baoa-full",
        BAOA,
        baoa(alpha=2.0, sigma=2.0, heat=0.5, **FULL_STEP),
        {**FULL, "alpha": 2.0, "sigma": 2.0, "temperature": 0.5},
        True,
    ),
    SamplerRow("baoab", BAOAB, baoa(0.05, 2.0, nbeta=5.0, halves=True), {"lr": 0.05, "nbeta": 5.0, "alpha": 2.0}, True),
]
samplers = pytest.mark.parametrize("row", SAMPLERS, ids=lambda row: row.name)
