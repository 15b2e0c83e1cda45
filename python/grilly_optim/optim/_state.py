"""State dicts: taking a snapshot, and checking one before it is taken over."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from grilly_optim.optim._options import check_options
from grilly_optim.optim._steps import StepCounts

if TYPE_CHECKING:
    from grilly_optim.optim.optimizer import Group, Optimizer

StateDict = dict[str, Any]


def snapshot(optimizer: Optimizer) -> StateDict:
    """Everything that a bit-exact resume needs, copied."""
    counts = optimizer._counts.of_all(len(optimizer._parameters))
    state: dict[int, dict[str, Any]] = {i: {"step": int(t)} for i, t in enumerate(counts)}
    for launch in optimizer._launches:
        for k, i in enumerate(launch.members):
            for field in launch.rule.owned_fields:
                state[i][optimizer.STATE_NAMES[field]] = launch.read_state(field, k)
    groups, first = [], 0
    for group in optimizer.param_groups:
        options = copy.deepcopy({k: v for k, v in group.items() if k != "params"})
        groups.append({**options, "params": list(range(first, first + len(group["params"])))})
        first += len(group["params"])
    return {"state": state, "param_groups": groups}


def checked_state(optimizer: Optimizer, state_dict: Any) -> tuple[list[Group], StepCounts, list[dict[str, Any]]]:
    """The groups, counts and arrays of a state dict, copied and brought to the optimizer's precisions."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise TypeError("state_dict must be a dict with the keys 'state' and 'param_groups'")
    saved_groups = state_dict["param_groups"]
    sizes = [len(g["params"]) for g in saved_groups]
    expected = [len(g["params"]) for g in optimizer.param_groups]
    if sizes != expected:
        raise ValueError(f"state_dict has groups of {sizes} parameters, expected {expected}")

    groups = []
    for saved, group in zip(saved_groups, optimizer.param_groups, strict=True):
        # Names belong to the parameters that are here, not to the ones that were saved.
        options = copy.deepcopy({k: v for k, v in saved.items() if k not in ("params", "param_names")})
        for name, value in options.items():
            if isinstance(value, list) and isinstance(group.get(name), tuple):
                options[name] = tuple(value)
        merged = {**group, **options}
        check_options(optimizer.RANGES, merged)
        groups.append(merged)

    positions = [i for g in saved_groups for i in g["params"]]
    group_of = [g for g in groups for _ in g["params"]]
    arrays: list[dict[str, Any]] = []
    counts = np.zeros(len(positions), np.int64)
    for i, position in enumerate(positions):
        saved = state_dict["state"].get(position, {})
        counts[i] = _step(saved.get("step", 0), optimizer._who[i])
        fields = optimizer._rule(group_of[i]).owned_fields
        parameter = optimizer._parameters[i]
        mine: dict[str, Any] = {}
        for name in (optimizer.STATE_NAMES[field] for field in fields):
            if name not in saved:
                if counts[i] > 0:
                    raise ValueError(
                        f"state_dict has no {name!r} for {optimizer._who[i]}, which has had {counts[i]} steps"
                    )
                continue
            array = np.asarray(saved[name])
            if array.shape != parameter.shape:
                raise ValueError(
                    f"{name!r} of {optimizer._who[i]} has shape {array.shape} in state_dict, expected {parameter.shape}"
                )
            mine[name] = np.array(array, dtype=parameter.dtype, order="C", copy=True)
        arrays.append(mine)
    return groups, StepCounts(0, counts), arrays


def _step(value: Any, who: str) -> int:
    number = float(value)
    if not (number >= 0 and number == int(number)):
        raise ValueError(f"'step' of {who} in state_dict must be a whole number, 0 or more, got {value!r}")
    return int(number)
