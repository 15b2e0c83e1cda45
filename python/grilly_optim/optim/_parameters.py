"""From what a caller passes as parameters to checked groups of arrays with names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grilly_optim._devices import DeviceInfo

Array = NDArray[Any]
Group = dict[str, Any]


def as_groups(params: Any) -> list[Group]:
    """Bring `params` into a list of group dicts: arrays, (name, array) pairs, a dict of names, or group dicts."""
    if isinstance(params, np.ndarray):
        raise TypeError(
            "params must be a sequence of arrays, a dict of names or a sequence of groups, got one array; write [array]"
        )
    if isinstance(params, Mapping):
        return (
            [dict(params)]
            if "params" in params and not isinstance(params["params"], np.ndarray)
            else [{"params": params}]
        )
    if not isinstance(params, Iterable):
        raise TypeError(
            f"params must be a sequence of arrays, a dict of names or a sequence of groups, got {type(params).__name__}"
        )
    items = list(params)
    if not items:
        raise ValueError("params is empty: there is nothing to optimize")
    if all(isinstance(item, Mapping) for item in items):
        return [dict(item) for item in items]
    return [{"params": items}]


def named(params: Any, group: int) -> tuple[list[Array], list[str] | None]:
    """The arrays of one group, and their names where they have any."""
    if isinstance(params, np.ndarray):
        return [params], None
    if isinstance(params, Mapping):
        pairs = list(params.items())
    elif isinstance(params, Iterable) and not isinstance(params, str | bytes):
        items = list(params)
        if not items or not all(isinstance(item, tuple) and len(item) == 2 for item in items):
            return items, None
        pairs = items
    else:
        raise TypeError(
            f"params of group {group} must be a sequence of arrays or a dict of names, got {type(params).__name__}"
        )
    for name, _ in pairs:
        if not isinstance(name, str):
            raise TypeError(f"parameter names of group {group} must be strings, got {name!r}")
    return [array for _, array in pairs], [name for name, _ in pairs]


def describe(index: int, name: str | None) -> str:
    """How messages call a parameter."""
    return f"parameter {index}" if name is None else f"parameter {index} ({name!r})"


def check(array: Any, who: str) -> None:
    """Refuse what cannot be a parameter on any device.

    Raises:
        TypeError: Not an array, or neither float32 nor float64.
        ValueError: Read-only.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{who} must be a NumPy array, got {type(array).__name__}")
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(f"{who} must be float32 or float64, got dtype {array.dtype}")
    if overlaps_itself(array):
        raise ValueError(f"{who} overlaps itself: several of its elements share memory (strides {array.strides})")
    require_writeable(array, who)


def require_precision(array: Array, who: str, device: DeviceInfo) -> None:
    """Refuse float64 on a device without it."""
    if array.dtype == np.float64 and not device.float64:
        raise TypeError(f"{who} is float64, which {device.name} does not support: use float32 or device='cpu'")


def overlaps_itself(array: Array) -> bool:
    """Whether elements may share memory; slices, transposes and reversals of real arrays never do."""
    reach = array.itemsize
    for stride, extent in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach:
            return array.size > 0
        reach = stride * (extent - 1) + reach
    return False


def layout(array: Array) -> tuple[Any, ...]:
    """Where an array lies and how: what a device has taken note of."""
    return array.ctypes.data, array.shape, array.strides, array.dtype


def check_names(group: Group, index: int) -> None:
    """Refuse names that do not fit the parameters of a group."""
    names = group.get("param_names")
    if names is None:
        return
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"param_names of group {index} must be a list of strings, got {names!r}")
    if len(names) != len(group["params"]):
        raise ValueError(f"param_names of group {index} has {len(names)} names for {len(group['params'])} parameters")


def require_writeable(array: Array, who: str) -> None:
    """Refuse a parameter that cannot be updated in place."""
    if not array.flags.writeable:
        raise ValueError(f"{who} is read-only, and would have to be updated in place")


def first_overlap(arrays: Sequence[Array]) -> tuple[int, int] | None:
    """Two arrays that share memory, if there are any; views of one array that do not overlap do not."""
    spans = sorted((*byte_bounds(a), i) for i, a in enumerate(arrays) if a.size)
    reaching: list[tuple[int, int]] = []  # (end, index) of earlier arrays that may reach into the next
    for begin, end, i in spans:
        reaching = [(e, j) for e, j in reaching if e > begin]
        for _, j in reaching:
            if np.shares_memory(arrays[i], arrays[j]):
                return min(i, j), max(i, j)
        reaching.append((end, i))
    return None


def refuse_overlap(arrays: Sequence[Array], who: Sequence[str]) -> None:
    """Refuse parameters that share memory."""
    overlap = first_overlap(arrays)
    if overlap:
        first, second = (who[i] for i in overlap)
        raise ValueError(f"{second} overlaps the memory of {first}: every parameter needs memory of its own")


def is_direct(array: Array) -> bool:
    """Whether a device can work on the array itself: contiguous, in C order, aligned."""
    return array.flags.c_contiguous and array.flags.aligned
