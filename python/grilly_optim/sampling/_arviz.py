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


def from_groups(groups: Mapping[str, Mapping[str, Any]]) -> Any:
    """InferenceData (0.x) or a DataTree (1.x) of arrays (chain, draw, ...) by group and name."""
    az = arviz()
    if int(az.__version__.partition(".")[0]) >= 1:
        return az.from_dict({group: dict(arrays) for group, arrays in groups.items()})
    return az.from_dict(**{group: dict(arrays) for group, arrays in groups.items()})
