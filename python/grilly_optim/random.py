"""Random numbers that are a function of seed, stream, step and element: the same bits on every device.

They come from Philox4x32-10 and a transform of multiplications and additions; docs/random.md says how.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.arrays import empty
from grilly_optim.kernels import philox
from grilly_optim.kernels.philox import Draw
from grilly_optim.kernels.random import NORMAL, UNIFORM
from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Whole

Array = NDArray[Any]

__all__ = ["normal", "uniform"]

PURPOSES = {
    "noise": philox.NOISE,
    "momentum": philox.MOMENTUM,
    "accept": philox.ACCEPT,
    "direction": philox.DIRECTION,
}


def normal(
    shape: int | tuple[int, ...],
    seed: int,
    stream: int = 0,
    step: int = 0,
    device: str | None = None,
    *,
    purpose: str = "noise",
    dtype: Any = np.float32,
) -> Array:
    """Standard normal numbers.

    Args:
        shape: Of the array, whose elements count in C order.
        seed: 0 to 2^64 - 1.
        stream: 0 to 2^32 - 1; a sampler's chain c has stream c.
        step: 0 to 2^40 - 1; a sampler counts its steps from 1.
        device: Where they are made; see `grilly_optim.devices`. None takes the best for that many.
        purpose: What for: "noise", "momentum", "accept" or "direction". Each has numbers of its own.
        dtype: float32, or float64: the same numbers, as doubles. The largest is about 5.77.

    Raises:
        TypeError: Something that is no whole number, or another dtype.
        ValueError: A number out of its range, or an unknown purpose.
        DeviceUnavailable: The device is unknown or cannot be used.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); Box & Muller, "A note on the generation
    of random normal deviates" (1958).

    Example:
        >>> import grilly_optim.random
        >>> grilly_optim.random.normal(3, seed=7, device="numpy")
        array([ 2.9155475e-04, -3.0484679e-01,  1.7887572e+00], dtype=float32)
    """
    return _drawn(NORMAL, (1.0,), shape, seed, stream, step, device, purpose, dtype)


def uniform(
    shape: int | tuple[int, ...],
    seed: int,
    stream: int = 0,
    step: int = 0,
    device: str | None = None,
    *,
    purpose: str = "noise",
    dtype: Any = np.float32,
) -> Array:
    """Uniform numbers in [0, 1): multiples of 2^-24.

    Made of the same words as `normal` makes its numbers of: do not use both with one seed, stream, step and purpose.

    Args:
        shape: As for `normal`, and so are the others.
        seed: 0 to 2^64 - 1.
        stream: 0 to 2^32 - 1.
        step: 0 to 2^40 - 1.
        device: Where they are made.
        purpose: What for.
        dtype: float32 or float64.

    Raises:
        TypeError: As for `normal`.
        ValueError: As for `normal`.
        DeviceUnavailable: As for `normal`.

    Example:
        >>> import grilly_optim.random
        >>> grilly_optim.random.uniform(3, seed=7, device="numpy")
        array([0.9545971 , 0.7501522 , 0.11417735], dtype=float32)
    """
    return _drawn(UNIFORM, (0.0, 1.0), shape, seed, stream, step, device, purpose, dtype)


def _drawn(
    rule: Rule,
    scalars: tuple[float, ...],
    shape: Any,
    seed: Any,
    stream: Any,
    step: Any,
    device: str | None,
    purpose: Any,
    dtype: Any,
) -> Array:
    seed = Whole(0, philox.SEED_BITS).take("seed", seed)
    stream = Whole(0, philox.STREAM_BITS).take("stream", stream)
    draw = Draw(seed, Whole(0, philox.STEP_BITS).take("step", step), _purpose(purpose))
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    elements = math.prod(map(operator.index, sizes))
    if elements > philox.MAX_ELEMENTS:
        raise ValueError(f"shape must have at most 2^50 elements, got {elements}")
    choice, backend = open_device(device, elements)
    array = empty(sizes, dtype, choice.info.device)
    plan: Any = backend.plan(rule, [array], [0], stream=stream)
    backend.run([plan], (), [[scalars]], [None], draw=draw)
    return array


def _purpose(purpose: Any) -> int:
    if purpose not in PURPOSES:
        raise ValueError(f"purpose must be one of {', '.join(map(repr, PURPOSES))}, got {purpose!r}")
    return PURPOSES[purpose]
