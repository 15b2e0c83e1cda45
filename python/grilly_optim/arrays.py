"""Arrays that a device uses where they lie."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from grilly_optim._devices import open_device
from grilly_optim._errors import OutOfDeviceMemory

if TYPE_CHECKING:
    from grilly_optim._devices import Backend

Shape = SupportsIndex | Sequence[SupportsIndex]


def _dtype(dtype: DTypeLike) -> np.dtype[Any]:
    result = np.dtype(dtype)
    if result.kind not in "biufc":
        raise TypeError(f"dtype must be a number, got {result}")
    return result


def _allocate(shape: Shape, dtype: np.dtype[Any], backend: Backend) -> NDArray[Any]:
    sizes = shape if isinstance(shape, Iterable) else (shape,)
    extents = tuple([operator.index(n) for n in sizes])
    if extents and min(extents) < 0:
        raise ValueError(f"shape must not have negative sizes, got {extents}")
    nbytes = math.prod(extents) * dtype.itemsize
    if nbytes > sys.maxsize:
        raise OutOfDeviceMemory(
            f"an array of shape {extents} and dtype {dtype} takes {nbytes} bytes: more than addresses"
        )
    memory = memoryview(backend.allocate(nbytes))
    return np.ndarray(extents, dtype, buffer=memory)


def empty(shape: Shape, dtype: DTypeLike = np.float32, device: str | None = None) -> NDArray[Any]:
    """An uninitialised array in memory that the device uses without a copy, where it has such memory.

    On integrated GPUs and software devices parameters and gradients made this way never move. A GPU with memory of its
    own has none that the processor reads at full speed: there this is an ordinary array, and a step copies.

    Args:
        shape: As in `numpy.empty`.
        dtype: A number type; optimizers take float32 and float64.
        device: See `grilly_optim.devices`; None takes `default_device`.

    Raises:
        ValueError: If a size is negative.
        TypeError: If `dtype` is not a number.
        DeviceUnavailable: If the device cannot be used.
        OutOfDeviceMemory: If it has not enough memory, or allows no single allocation of that size.

    Example:
        >>> import grilly_optim
        >>> grilly_optim.empty((2, 3), device="cpu").shape
        (2, 3)
    """
    return _allocate(shape, _dtype(dtype), open_device(device)[1])


def zeros(shape: Shape, dtype: DTypeLike = np.float32, device: str | None = None) -> NDArray[Any]:
    """Zeros in memory that the device uses without a copy; see `empty`.

    Example:
        >>> import grilly_optim
        >>> grilly_optim.zeros(3, device="cpu").tolist()
        [0.0, 0.0, 0.0]
    """
    array = empty(shape, dtype, device)
    array[...] = 0
    return array


def asarray(x: Any, copy: bool | None = None, device: str | None = None) -> NDArray[Any]:
    """An array that the device uses without a copy, made from anything that is like an array.

    Args:
        x: An array, a nested sequence, or an object with ``__dlpack__``, ``__array__`` or the array interface.
        copy: None copies only where the device cannot use the memory of `x`, and could use other memory; True always
            copies; False never does.
        device: See `empty`.

    Raises:
        ValueError: If `copy` is False and a copy is needed.
        TypeError: If `x` does not hold numbers.
        DeviceUnavailable: If the device cannot be used.
        OutOfDeviceMemory: If it has not enough memory.

    Example:
        >>> import numpy as np
        >>> import grilly_optim
        >>> x = np.ones(3, np.float32)
        >>> grilly_optim.asarray(x, device="cpu") is x
        True
    """
    choice, backend = open_device(device)
    array = _as_numpy(x)
    _dtype(array.dtype)
    usable = (
        (array is x or array.base is not None)
        and array.flags.carray
        and array.dtype.isnative
        and backend.reaches(array)
    )
    if copy is False:
        if usable:
            return array
        raise ValueError(
            f"copy=False, but {choice.info.name} cannot use the memory of x in place "
            f"({type(x).__name__}, dtype {array.dtype}): make it with grilly_optim.empty, or let it be copied"
        )
    if copy is None and (usable or (isinstance(x, np.ndarray) and not choice.info.shares_memory)):
        return array
    result = _allocate(array.shape, array.dtype.newbyteorder("="), backend)
    result[...] = array
    return result


def _as_numpy(x: Any) -> NDArray[Any]:
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array_interface__"):
        return np.from_dlpack(x)
    return np.asarray(x)
