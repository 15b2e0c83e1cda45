"""ArviZ, of either line: 0.x, and 1.x, which needs a newer Python."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from grilly_optim._extras import load


def arviz() -> Any:
    """The module."""
    with warnings.catch_warnings():
        # The last ones of 0.x announce 1.0 whenever they are imported.
        warnings.simplefilter("ignore", FutureWarning)
        return load("arviz", extra="sampling")


def from_groups(
    groups: Mapping[str, Mapping[str, Any]],
    *,
    dims: Mapping[str, list[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """InferenceData (0.x) or a DataTree (1.x) of arrays (chain, draw, ...) by group and name.

    Args:
        groups: Group -> name -> array.
        dims: Name -> names of the axes behind chain and draw.
        coords: Name of an axis -> labels along it.
        attrs: Of every group; numbers, texts and arrays of them, which is what files can hold.
    """
    az = arviz()
    arrays: dict[str, Any] = {group: dict(members) for group, members in groups.items()}
    axes: dict[str, Any] = {"dims": dict(dims or {}), "coords": dict(coords or {})}
    # The form of 1.x is no error in 0.x: it gives a variable that holds a dict.
    newer = int(az.__version__.partition(".")[0]) >= 1
    made = az.from_dict(arrays, **axes) if newer else az.from_dict(**arrays, **axes)
    for group in groups:
        made[group].attrs.update(attrs or {})
    return made
