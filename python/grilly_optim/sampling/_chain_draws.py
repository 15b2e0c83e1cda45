"""Random numbers that chains begin with: of step 0, which no transition uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import Choice, open_device
from grilly_optim._errors import DeviceUnavailable
from grilly_optim.kernels import philox
from grilly_optim.sampling._draws import Draws

Array = NDArray[Any]
Doubles = NDArray[np.float64]
Streams = NDArray[np.uint32]


def chain_normals(seed: int, streams: Streams, row: int, dim: int, dtype: Any) -> Array:
    """Standard normal numbers for each chain, (C, dim): the row with this number of as many as are wanted."""
    return _of_step_0("normal", philox.MOMENTUM, seed, streams, (row + 1) * dim, dtype)[:, row * dim :].copy()


def initial_positions(seed: int, chains: int, dim: int) -> Doubles:
    """Uniform on (-2, 2), (chains, dim): those of chain c are of stream c."""
    uniform = _of_step_0("uniform", philox.NOISE, seed, np.arange(chains, dtype=np.uint32), dim, np.float64)
    return 4 * uniform - 2


def _of_step_0(kind: str, purpose: int, seed: int, streams: Streams, count: int, dtype: Any) -> Array:
    before = np.full(len(streams), -1)
    return Draws(kind, purpose, *_nearest(), streams, before, count, dtype).take(seed, before)


def _nearest() -> tuple[Choice, Any]:
    """The compiled core where there is one. The bits are the same everywhere."""
    try:
        return open_device("cpu")
    except DeviceUnavailable:
        return open_device("numpy")
