"""Snapshots of models with an energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._numbers import copied, real_array
from grilly_optim.kernels.philox import SEED_BITS
from grilly_optim.optim._options import Whole

if TYPE_CHECKING:
    from grilly_optim.energy._layers import Layers

Array = NDArray[Any]

KEYS = ("energy", "cost", "weights", "biases", "u", "clamp_du", "beta", "target", "seed", "draws")


def snapshot(model: Layers) -> dict[str, Any]:
    """See `Layers.state_dict`."""
    cost = model.c_energy
    return {
        "energy": model.kind,
        "cost": type(cost).__name__,
        "weights": [w.copy() for w in model.weights],
        "biases": [b.copy() for b in model.biases],
        "u": [u.copy() for u in model.u],
        "clamp_du": model.clamp_du.tolist(),
        "beta": cost.beta,
        "target": None if cost.target is None else cost.target.copy(),
        "seed": model._seed,
        "draws": model._draws,
    }


def load(model: Layers, saved: Any) -> None:
    """See `Layers.load_state_dict`."""
    if not isinstance(saved, Mapping) or not set(KEYS) <= set(saved):
        raise TypeError(f"state_dict must be a dict with the keys {', '.join(map(repr, KEYS))}")
    for key, own in (("energy", model.kind), ("cost", type(model.c_energy).__name__)):
        if saved[key] != own:
            raise ValueError(f"{key!r} of state_dict must be {own!r}, got {saved[key]!r}")
    weights = _arrays(saved, "weights", [w.shape for w in model.weights], model.dtype)
    biases = _arrays(saved, "biases", [b.shape for b in model.biases], model.dtype)
    u = saved["u"]
    batch = len(u[0]) if isinstance(u, list | tuple) and len(u) and np.ndim(u[0]) == 2 else model.batch_size
    states = _arrays(saved, "u", [(batch, n) for n in model.dimensions], model.dtype)
    clamped = flags("'clamp_du' of state_dict", saved["clamp_du"], model.n_layers)
    seed = Whole(0, SEED_BITS).take("'seed' of state_dict", saved["seed"])
    draws = Whole(0).take("'draws' of state_dict", saved["draws"])
    # The cost checks what concerns it on another of its kind.
    cost = type(model.c_energy)(saved["beta"])
    cost.set_target(saved["target"])
    cost.require_target(states[-1])

    for into, array in zip((*model.weights, *model.biases), (*weights, *biases), strict=True):
        into[...] = array
    model._put(states)
    model._clamped[...] = clamped
    model.c_energy.beta, model.c_energy.target = cost.beta, cost.target
    model._seed, model._draws = seed, draws


def flags(name: str, given: Any, count: int) -> NDArray[np.bool_]:
    """As many times True or False.

    Raises:
        TypeError: Something else.
        ValueError: Another number of them.
    """
    array = real_array(name, given)
    if array.dtype != bool:
        raise TypeError(f"{name} must hold True or False, got {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"{name} must have {count} entries, one for each layer, got the shape {array.shape}")
    return array


def _arrays(saved: Mapping[str, Any], key: str, shapes: list[tuple[int, ...]], dtype: np.dtype[Any]) -> list[Array]:
    given = saved[key]
    if not isinstance(given, list | tuple) or len(given) != len(shapes):
        raise ValueError(f"{key!r} of state_dict must be a list of {len(shapes)} arrays")
    arrays = []
    for i, (one, shape) in enumerate(zip(given, shapes, strict=True)):
        array = real_array(f"{key}[{i}] of state_dict", one)
        if array.shape != shape:
            raise ValueError(f"{key}[{i}] of state_dict must have the shape {shape}, got {array.shape}")
        arrays.append(copied(array, dtype))
    return arrays
