"""State dicts: taking a snapshot, and checking one before it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from grilly_optim.optim import _past
from grilly_optim.optim._options import Options, take_options
from grilly_optim.optim._past import Pasts

if TYPE_CHECKING:
    from grilly_optim.optim._parameters import Group
    from grilly_optim.optim._stepping import Stepping

StateDict = dict[str, Any]


def snapshot(optimizer: Stepping) -> StateDict:
    """Everything that a bit-exact resume needs, copied."""
    optimizer._require_groups()
    pasts = _past.unpacked(optimizer._pasts, optimizer._plans.sizes)
    state: dict[int, dict[str, Any]] = {i: _past.to_dict(past) for i, past in enumerate(pasts)}
    for launch in optimizer._plans.launches:
        for k, i in enumerate(launch.members):
            for field in launch.rule.owned_fields:
                state[i][optimizer.STATE_NAMES[field]] = launch.read_state(field, k)
    groups, first = [], 0
    for group, size in zip(optimizer.param_groups, optimizer._plans.sizes, strict=True):
        groups.append({**optimizer._saved_options(group), "params": list(range(first, first + size))})
        first += size
    return {"state": state, "param_groups": groups, **optimizer._own_state()}


def checked_state(
    optimizer: Stepping, state_dict: Any
) -> tuple[list[Group], list[Options], Pasts, list[dict[str, Any]]]:
    """The groups, their options, pasts and arrays of a state dict, copied and in the optimizer's precisions."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise TypeError("state_dict must be a dict with the keys 'state' and 'param_groups'")
    saved_groups = state_dict["param_groups"]
    if not isinstance(saved_groups, list | tuple) or not all(
        isinstance(g, Mapping) and "params" in g for g in saved_groups
    ):
        raise TypeError("'param_groups' of state_dict must be a list of dicts with the key 'params'")
    sizes = [len(g["params"]) for g in saved_groups]
    if sizes != optimizer._plans.sizes:
        raise ValueError(f"state_dict has groups of {sizes} parameters, expected {optimizer._plans.sizes}")

    groups = []
    for saved, group in zip(saved_groups, optimizer.param_groups, strict=True):
        groups.append({**group, **optimizer._restored_options(saved, group)})

    positions = [i for g in saved_groups for i in g["params"]]
    state = _by_position(state_dict["state"], positions)
    taken = [take_options(optimizer.OPTIONS, g, k) for k, g in enumerate(groups)]
    rules = [optimizer._rule(o) for o, g in zip(taken, groups, strict=True) for _ in g["params"]]
    arrays: list[dict[str, Any]] = []
    pasts: list[Any] = []
    for i, position in enumerate(positions):
        saved, who = state.get(position, {}), optimizer._plans.who[i]
        if not isinstance(saved, Mapping):
            raise TypeError(f"the state of {who} in state_dict must be a dict, got {type(saved).__name__}")
        pasts.append(_past.from_dict(saved, optimizer.START, who))
        steps = _past.steps_of(pasts[i])
        fields = rules[i].owned_fields
        parameter = optimizer._plans.parameters[i]
        mine: dict[str, Any] = {}
        for name in (optimizer.STATE_NAMES[field] for field in fields):
            if name not in saved:
                if steps > 0:
                    raise ValueError(f"state_dict has no {name!r} for {who}, which has had {steps} steps")
                continue
            array = np.asarray(saved[name])
            if array.dtype.kind not in "biuf":
                raise TypeError(f"{name!r} of {who} in state_dict must hold real numbers, got {array.dtype}")
            if array.shape != parameter.shape:
                raise ValueError(f"{name!r} of {who} has shape {array.shape} in state_dict, expected {parameter.shape}")
            optimizer._check_saved(name, array, i, who)
            mine[name] = np.array(array, dtype=parameter.dtype, order="C", copy=True)
        arrays.append(mine)
    return groups, taken, _past.packed(pasts, sizes), arrays


def _by_position(state: Any, positions: list[Any]) -> dict[Any, Any]:
    """The state of each position; JSON turns these into strings. A parameter that was never stepped may be missing."""
    if not isinstance(state, Mapping):
        raise TypeError(f"'state' of state_dict must be a dict by position, got {type(state).__name__}")
    result = {int(k) if isinstance(k, str) and k.isdecimal() else k: v for k, v in state.items()}
    unknown = [k for k in result if k not in positions]
    if unknown:
        raise ValueError(f"'state' of state_dict has {unknown[0]!r}, which is no position in its param_groups")
    return result
