"""What two phases of a relaxation say about the gradient of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._numbers import real_array

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]

NUDGINGS = ("one_sided", "symmetric", "random_sign")


def contrast(model: EnergyModel, free: Any, nudged: Any, beta: float) -> list[Array]:
    """(nudged - free) / beta, checked, and divided in double; free may be None, zeros."""
    second = _gradients(model, "nudged_grad", nudged)
    first = [np.zeros(1)] * len(second) if free is None else _gradients(model, "free_grad", free)
    with np.errstate(over="ignore"):
        return [((b - a) / np.float64(beta)).astype(model.dtype) for a, b in zip(first, second, strict=True)]


def _gradients(model: EnergyModel, name: str, given: Any) -> list[Array]:
    count = len(model.parameters)
    if not isinstance(given, Sequence):
        raise TypeError(f"{name} must be a list of {count} arrays, W0, b0, W1, ..., got {type(given).__name__}")
    if len(given) != count:
        raise ValueError(f"{name} must have {count} arrays, W0, b0, W1, ..., got {len(given)}")
    arrays = [real_array(f"{name}[{k}]", array) for k, array in enumerate(given)]
    for k, (array, parameter) in enumerate(zip(arrays, model.parameters, strict=True)):
        if array.shape != parameter.shape:
            raise ValueError(f"{name}[{k}] must have the shape {parameter.shape}, got {array.shape}")
    return arrays


def estimate(model: EnergyModel, target: Any, phase: Mapping[str, Any], nudging: str, fast_init: bool) -> list[Array]:
    """See `EnergyModel.contrastive_gradient`."""
    if nudging not in NUDGINGS:
        raise ValueError(f"nudging must be one of {', '.join(map(repr, NUDGINGS))}, got {nudging!r}")
    if target is None:
        raise ValueError("target must not be None: without one nothing is nudged")
    behind = np.flatnonzero(model.clamp_du[1:])
    if fast_init and behind.size:
        raise ValueError(
            f"fast_init is no equilibrium where a layer behind the input is clamped, and layer {behind[0] + 1} is: "
            "relax instead"
        )
    cost = model.c_energy
    before, draws, steps = [u.copy() for u in model.u], model._draws, model.steps
    beta, given = cost.beta, cost.target
    model._set_target(target)
    wanted = cost.target
    try:
        cost.target = None
        if fast_init:
            model._feed_forward()
        else:
            model._relax(**phase)
        free, free_steps = [u.copy() for u in model.u], model.steps
        free_gradient = model._parameter_gradients()

        def nudged(strength: float) -> list[Array]:
            model._put(free)
            cost.beta, cost.target = strength, wanted
            model._relax(**phase)
            return model._parameter_gradients()

        if nudging == "symmetric":
            made = contrast(model, nudged(-beta), nudged(beta), 2 * beta)
        else:
            strength = beta * (model._drawn_sign() if nudging == "random_sign" else 1)
            made = contrast(model, free_gradient, nudged(strength), strength)
    except BaseException:
        model._put(before)
        cost.beta, cost.target = beta, given
        model._draws, model._steps = draws, steps
        raise
    model._put(free)
    cost.beta, cost.target = beta, None
    model._steps = free_steps
    return made
