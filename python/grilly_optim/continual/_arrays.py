"""One array, a sequence of arrays or a dict of them by name: from the caller's form to a checked list, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from grilly_optim.optim._parameters import describe

Array = NDArray[Any]
Arrays = Array | Sequence[Array] | Mapping[str, Array]


@dataclass(frozen=True)
class Form:
    """How arrays came: as "array", "list", "tuple" or "dict"."""

    kind: str
    names: tuple[str, ...] | None = None

    def restore(self, arrays: list[Array]) -> Any:
        """The arrays in this form."""
        if self.kind == "array":
            return arrays[0]
        if self.names is not None:
            return dict(zip(self.names, arrays, strict=True))
        return tuple(arrays) if self.kind == "tuple" else arrays


@dataclass(frozen=True)
class Layout:
    """What all later arrays are compared with: the shapes that came first, and the names if they had any."""

    shapes: tuple[tuple[int, ...], ...]
    names: tuple[str, ...] | None

    def who(self, index: int) -> str:
        """How messages call a parameter."""
        return describe(index, self.names[index] if self.names else None)


def take(value: Any, what: str, layout: Layout | None = None) -> tuple[list[Array], Form, Layout]:
    """Real arrays as a list, not copied; the form to give arrays back in; and the layout they have.

    Args:
        value: What the caller passed.
        what: How messages call it.
        layout: What the arrays must fit; None where these are the first.

    Raises:
        TypeError: Not arrays of real numbers, or names where there were none before.
        ValueError: Another count, other names or other shapes.
    """
    items, form = _split(value, what, layout)
    arrays = [real(item, of(what, i, layout.names if layout else form.names)) for i, item in enumerate(items)]
    if layout is None:
        return arrays, form, Layout(tuple(a.shape for a in arrays), form.names)
    _require_shapes(arrays, what, layout)
    return arrays, form, layout


def take_some(value: Any, what: str, layout: Layout) -> list[Array | None]:
    """As `take`, but None, or a name that is missing, stands for a parameter that takes no part."""
    items, _ = _split(value, what, layout, missing=True)
    arrays = [None if item is None else real(item, of(what, i, layout.names)) for i, item in enumerate(items)]
    _require_shapes(arrays, what, layout)
    return arrays


def take_theta(value: Any, layout: Layout | None) -> tuple[list[Array], Form, Layout]:
    """As `take`, for the parameters themselves: float32 or float64.

    Raises:
        TypeError: Another dtype, or as in `take`.
        ValueError: As in `take`.
    """
    arrays, form, layout = take(value, "theta", layout)
    for i, array in enumerate(arrays):
        if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
            raise TypeError(f"theta of {layout.who(i)} must be float32 or float64, got dtype {array.dtype}")
    return arrays, form, layout


def of(what: str, index: int, names: Sequence[str] | None) -> str:
    """How messages call one of several arrays."""
    return f"{what} of {describe(index, names[index] if names else None)}"


def real(value: Any, what: str) -> Array:
    """The array as a plain NumPy array, not copied.

    Raises:
        TypeError: Anything else, or not real numbers.
    """
    # A NumPy scalar is what arithmetic makes of a 0-d array.
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{what} must be a NumPy array, got {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} must hold real numbers, got dtype {array.dtype}")
    return array


def require_finite(array: Array, what: str) -> Array:
    """The array, if it has neither NaN nor infinity.

    Raises:
        ValueError: It has.
    """
    if not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite, and has NaN or infinity")
    return array


def require_not_negative(array: Array, what: str) -> Array:
    """The array, if it is finite and nothing in it is below 0.

    Raises:
        ValueError: It is not.
    """
    require_finite(array, what)
    if (array < 0).any():
        raise ValueError(f"{what} must be 0 or more everywhere, got {array.min():g}")
    return array


def rounded(array: Array, dtype: DTypeLike, what: str) -> Array:
    """A copy in this precision.

    Raises:
        ValueError: A finite number became infinite.
    """
    with np.errstate(over="ignore"):
        result = np.array(array, dtype=dtype, order="C")
    if not np.isfinite(result).all():
        raise ValueError(f"{what} is too large for {np.dtype(dtype)}")
    return result


def _split(value: Any, what: str, layout: Layout | None, missing: bool = False) -> tuple[list[Any], Form]:
    """The items in the order of the layout."""
    if isinstance(value, np.ndarray | np.generic):
        items, form = [value], Form("array")
    elif isinstance(value, Mapping):
        items, form = _by_name(value, what, layout, missing)
    elif isinstance(value, list | tuple):
        items, form = list(value), Form("tuple" if isinstance(value, tuple) else "list")
    else:
        raise TypeError(
            f"{what} must be an array, a sequence of arrays or a dict of arrays by name, got {type(value).__name__}"
        )
    if not items:
        raise ValueError(f"{what} is empty: there are no parameters in it")
    if layout and len(items) != len(layout.shapes):
        raise ValueError(f"{what} has {len(items)} arrays, and there are {len(layout.shapes)} parameters")
    return items, form


def _by_name(value: Mapping[Any, Any], what: str, layout: Layout | None, missing: bool) -> tuple[list[Any], Form]:
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"the names in {what} must be strings, got {name!r}")
    names = tuple(value) if layout is None else layout.names
    if names is None:
        raise TypeError(f"{what} is a dict of names, and the parameters came without names before: pass a list")
    unknown = [name for name in value if name not in names]
    absent = [] if missing else [name for name in names if name not in value]
    if unknown or absent:
        key, trouble = (unknown[0], "is not the name of a parameter") if unknown else (absent[0], "is missing")
        raise ValueError(f"{what} has other names than the parameters: {key!r} {trouble}; names are {', '.join(names)}")
    return [value.get(name) for name in names], Form("dict", names)


def _require_shapes(arrays: Sequence[Array | None], what: str, layout: Layout) -> None:
    for i, (array, shape) in enumerate(zip(arrays, layout.shapes, strict=True)):
        if array is not None and array.shape != shape:
            raise ValueError(f"{what} of {layout.who(i)} has shape {array.shape}, expected {shape}")
