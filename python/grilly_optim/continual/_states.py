"""State dicts of this package: taken apart and checked before anything of them is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grilly_optim.continual._arrays import Array, Form, Layout, require_finite, take

StateDict = dict[str, Any]


def require_keys(state_dict: Any, keys: Sequence[str], owner: str) -> None:
    """Refuse what is not a state dict of this class.

    Raises:
        TypeError: Not a dict.
        ValueError: A key is missing.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict must be a dict, got {type(state_dict).__name__}")
    missing = [key for key in keys if key not in state_dict]
    if missing:
        raise ValueError(f"state_dict is not one of {owner}: it has no {missing[0]!r}")


def packed(arrays: list[Array] | None, layout: Layout | None) -> Any:
    """Copies of the arrays: a dict where the parameters have names, else a list."""
    if arrays is None or layout is None:
        return None
    copies = [a.copy() for a in arrays]
    return Form("dict", layout.names).restore(copies) if layout.names else copies


def unpacked(state_dict: Mapping[str, Any], key: str, layout: Layout | None = None) -> tuple[list[Array], Layout]:
    """Copies of the arrays under this key, and their layout.

    Raises:
        TypeError: Not float32 or float64 arrays.
        ValueError: NaN, infinity, or a layout that does not fit the one given.
    """
    what = f"{key!r} of state_dict"
    arrays, _, layout = take(state_dict[key], what, layout)
    for array in arrays:
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(f"{what} must hold float32 or float64 arrays, got dtype {array.dtype}")
        require_finite(array, what)
    return [np.array(a, order="C") for a in arrays], layout


def unpacked_like(state_dict: Mapping[str, Any], key: str, layout: Layout, like: list[Array]) -> list[Array]:
    """As `unpacked`, and refuses other precisions than those of `like`."""
    arrays, _ = unpacked(state_dict, key, layout)
    for array, other in zip(arrays, like, strict=True):
        if array.dtype != other.dtype:
            raise TypeError(f"{key!r} of state_dict has an array of {array.dtype}, expected {other.dtype}")
    return arrays
