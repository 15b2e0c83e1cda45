"""What two phases of a relaxation say about the gradient of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]

NUDGINGS = ("one_sided", "symmetric", "random_sign")


def contrast(model: EnergyModel, free: Sequence[Any] | None, nudged: Sequence[Any], beta: float) -> list[Array]:
    """(nudged - free) / beta, checked; free may be None, zeros.

    Raises:
        ValueError: Not one array per parameter, or of another shape.
    """
    first = [None] * len(model.parameters) if free is None else free
    for name, given in (("free_grad", first), ("nudged_grad", nudged)):
        if len(given) != len(model.parameters):
            raise ValueError(f"{name} must have {len(model.parameters)} arrays, W0, b0, W1, ..., got {len(given)}")
    made = []
    for k, (parameter, a, b) in enumerate(zip(model.parameters, first, nudged, strict=True)):
        zero = np.zeros_like(parameter)
        arrays = [zero if x is None else np.asarray(x, model.dtype) for x in (a, b)]
        for name, array in zip(("free_grad", "nudged_grad"), arrays, strict=True):
            if array.shape != parameter.shape:
                raise ValueError(f"{name}[{k}] must have the shape {parameter.shape}, got {array.shape}")
        made.append((arrays[1] - arrays[0]) / model.dtype.type(beta))
    return made


def estimate(model: EnergyModel, target: Any, phase: Mapping[str, Any], nudging: str, fast_init: bool) -> list[Array]:
    """See `EnergyModel.contrastive_gradient`."""
    if nudging not in NUDGINGS:
        raise ValueError(f"nudging must be one of {', '.join(map(repr, NUDGINGS))}, got {nudging!r}")
    cost = model.c_energy
    before, beta, given = [u.copy() for u in model.u], cost.beta, cost.target
    model.set_C_target(target)
    wanted = cost.target
    try:
        cost.target = None
        if fast_init:
            model.fast_init()
        else:
            model.u_relax(**phase)
        free = [u.copy() for u in model.u]
        steps = model.steps

        def nudged(strength: float) -> list[Array]:
            model.set_states(free)
            cost.beta, cost.target = strength, wanted
            model.u_relax(**phase)
            return model.w_get_gradients()

        if nudging == "symmetric":
            made = contrast(model, nudged(-beta), nudged(beta), 2 * beta)
        else:
            strength = beta * (model.draw_sign() if nudging == "random_sign" else 1)
            made = contrast(model, None if fast_init else model.w_get_gradients(), nudged(strength), strength)
    except BaseException:
        model.set_states(before)
        cost.beta, cost.target = beta, given
        raise
    model.set_states(free)
    cost.beta, cost.target = beta, None
    model._steps = steps
    return made
