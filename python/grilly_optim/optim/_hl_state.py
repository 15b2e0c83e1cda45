"""The costates of Hamiltonian Learning: how callers read them, and what snapshots hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._hl_models import XI, Model
from grilly_optim.optim._pairs import conformed

Array = NDArray[Any]


class Costates(Mapping[str, Any]):
    """Of one model: "xi", and "w" by name, fetched one by one.

    Args:
        names: Of the model's parameters.
        fetch: Gives a copy of the costate of the model's k-th tensor.
    """

    def __init__(self, names: Sequence[str], fetch: Callable[[int], Array]) -> None:
        self._names, self._fetch = names, fetch

    def __getitem__(self, name: str) -> Any:
        if name == "w":
            return _Weights(self._names, self._fetch)
        if name == XI:
            return _read_only(self._fetch(0))
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter((XI, "w"))

    def __len__(self) -> int:
        return 2


class _Weights(Costates):
    """Those of the parameters."""

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return _read_only(self._fetch(1 + self._names.index(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read_only(costate: Array) -> Array:
    costate.flags.writeable = False
    return costate


def saved_parts(state_dict: Any, models: int) -> tuple[Sequence[Any], Sequence[Mapping[str, Any]]]:
    """The states and the options in a snapshot of as many models.

    Raises:
        TypeError: Not a state dict.
        ValueError: Of another number of models.
    """
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise TypeError("state_dict must be a dict with the keys 'state' and 'param_groups'")
    states, groups = state_dict["state"], state_dict["param_groups"]
    for name, part in (("state", states), ("param_groups", groups)):
        if not isinstance(part, list | tuple) or len(part) != models:
            raise ValueError(f"{name!r} of state_dict must be a list of {models} dicts, one for each model")
    for saved in groups:
        if not isinstance(saved, Mapping):
            raise TypeError(f"'param_groups' of state_dict must hold dicts, got {type(saved).__name__}")
    return states, groups


def saved_costates(model: Model, saved: Any) -> list[Array]:
    """The costates of a model's tensors that a snapshot has, as the engine takes them.

    Raises:
        TypeError: Another form, or something that is no such array.
        ValueError: Other names, or another shape.
    """
    what = f"the state of {model.who} in state_dict"
    if not isinstance(saved, Mapping) or not isinstance(saved.get("w"), Mapping):
        raise TypeError(f"{what} must be a dict with the keys 'xi' and 'w'")
    if XI not in saved:
        raise ValueError(f"{what} has no 'xi', the costate of the model's state")
    weights = saved["w"]
    if set(weights) != set(model.names):
        raise ValueError(
            f"{what} has the parameters {', '.join(map(repr, weights))}; expected {', '.join(map(repr, model.names))}"
        )
    found = [(XI, saved[XI]), *((name, weights[name]) for name in model.names)]
    return [
        conformed(costate, array, f"the costate of {name!r} of {model.who} in state_dict")
        for (name, costate), array in zip(found, model.arrays, strict=True)
    ]


def as_like(tensor: Array, array: Array) -> Array:
    """Real numbers as what they stand for."""
    if array.dtype.kind != "c":
        return tensor
    return np.ascontiguousarray(tensor).view(array.dtype)[..., 0]
