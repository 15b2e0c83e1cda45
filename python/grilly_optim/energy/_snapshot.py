"""Snapshots of models with an energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.philox import SEED_BITS
from grilly_optim.optim._options import Whole

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]

KEYS = ("weights", "biases", "u", "clamp_du", "beta", "target", "seed", "draws")


def snapshot(model: EnergyModel) -> dict[str, Any]:
    """See `EnergyModel.state_dict`."""
    target = model.c_energy.target
    return {
        "weights": [w.copy() for w in model.weights],
        "biases": [b.copy() for b in model.biases],
        "u": [u.copy() for u in model.u],
        "clamp_du": model.clamp_du.tolist(),
        "beta": model.c_energy.beta,
        "target": None if target is None else target.copy(),
        "seed": model._seed,
        "draws": model._draws,
    }


def load(model: EnergyModel, saved: Any) -> None:
    """See `EnergyModel.load_state_dict`."""
    if not isinstance(saved, Mapping) or not set(KEYS) <= set(saved):
        raise TypeError(f"state_dict must be a dict with the keys {', '.join(map(repr, KEYS))}")
    weights = _arrays(saved, "weights", [w.shape for w in model.weights], model.dtype)
    biases = _arrays(saved, "biases", [b.shape for b in model.biases], model.dtype)
    u = saved["u"]
    batch = len(u[0]) if isinstance(u, list | tuple) and len(u) and np.ndim(u[0]) == 2 else model.batch_size
    states = _arrays(saved, "u", [(batch, n) for n in model.dimensions], model.dtype)
    clamped = np.asarray(saved["clamp_du"])
    if clamped.shape != (model.n_layers,) or clamped.dtype != bool:
        raise ValueError(f"'clamp_du' of state_dict must be {model.n_layers} times True or False")
    seed = Whole(0, SEED_BITS).take("'seed' of state_dict", saved["seed"])
    draws = Whole(0).take("'draws' of state_dict", saved["draws"])
    # The cost checks what concerns it on a copy of its own.
    cost = type(model.c_energy)(saved["beta"])
    cost.set_target(saved["target"])
    cost.require_target(states[-1].shape)

    for into, array in zip((*model.weights, *model.biases), (*weights, *biases), strict=True):
        into[...] = array
    model.set_states(states)
    model.clamp_du[...] = clamped
    model.c_energy.beta, model.c_energy.target = cost.beta, cost.target
    model._seed, model._draws = seed, draws


def _arrays(saved: Mapping[str, Any], key: str, shapes: list[tuple[int, ...]], dtype: np.dtype[Any]) -> list[Array]:
    given = saved[key]
    if not isinstance(given, list | tuple) or len(given) != len(shapes):
        raise ValueError(f"{key!r} of state_dict must be a list of {len(shapes)} arrays")
    arrays = []
    for i, (array, shape) in enumerate(zip(given, shapes, strict=True)):
        taken = np.array(array)
        if taken.dtype.kind not in "biuf":
            raise TypeError(f"{key}[{i}] of state_dict must hold real numbers, got {taken.dtype}")
        if taken.shape != shape:
            raise ValueError(f"{key}[{i}] of state_dict must have the shape {shape}, got {taken.shape}")
        arrays.append(taken.astype(dtype))
    return arrays
