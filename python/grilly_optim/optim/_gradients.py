"""From the forms in which gradients come to one list, aligned with the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.parameter import Parameter

Array = NDArray[Any]


def collect(gradients: Any, parameters: Sequence[Array], positions: Mapping[str | int, int]) -> list[Any]:
    """Bring gradients into a list: from a sequence, a dict by name or id, or the parameters' own ``.grad``.

    Raises:
        TypeError: Not one of these forms.
        ValueError: A wrong count, an unknown name or id, or no gradients and no `Parameter` that could hold one.
    """
    if gradients is None:
        if not any(isinstance(p, Parameter) for p in parameters):
            raise ValueError(
                "gradients is None and no parameter is a grilly_optim.Parameter, so there is no .grad to read: "
                "pass gradients=[...]"
            )
        return [getattr(p, "grad", None) for p in parameters]
    if isinstance(gradients, Mapping):
        result: list[Any] = [None] * len(parameters)
        for key, gradient in gradients.items():
            position = positions.get(key)
            if position is None:
                what = "id of a parameter" if isinstance(key, int) else "name of a parameter"
                known = (
                    ", ".join(repr(k) for k in positions if isinstance(k, str)) or "none: the parameters have no names"
                )
                raise ValueError(f"gradients has the key {key!r}, which is not the {what}; names are {known}")
            result[position] = gradient
        return result
    if isinstance(gradients, np.ndarray) or not isinstance(gradients, Iterable):
        raise TypeError(
            "gradients must be a sequence aligned with the parameters or a dict by name or id, "
            f"got {type(gradients).__name__}"
        )
    result = list(gradients)
    if len(result) != len(parameters):
        raise ValueError(f"gradients has {len(result)} entries, and there are {len(parameters)} parameters")
    return result


def conform(gradient: Any, parameter: Array, who: str, what: str = "the gradient") -> Array:
    """A contiguous gradient of the parameter's shape and precision, which shares no memory with anything.

    Args:
        gradient: The gradient, or something else that goes with a parameter.
        parameter: The parameter.
        who: What messages call it.
        what: And the gradient.

    Raises:
        TypeError: Complex, or not numbers.
        ValueError: Another shape.
    """
    try:
        array = np.asarray(gradient)
    except ValueError as error:
        raise ValueError(f"{what} of {who} is no array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} of {who} must hold real numbers, got dtype {array.dtype}")
    if array.shape != parameter.shape:
        raise ValueError(f"{what} of {who} has shape {array.shape}, expected {parameter.shape}")
    with np.errstate(over="ignore"):
        return np.array(array, dtype=parameter.dtype, order="C", copy=True)
