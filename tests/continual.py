"""What the tests of continual learning share: forms and draws of arrays, and penalties that hold something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.continual import EWC, SynapticIntelligence
from tests.table import Array, assert_bits

SHAPES = [(3, 4), (), (5,), (0, 2)]
DTYPES = [np.float32, np.float64]
FORMS: dict[str, Callable[[list[Array]], Any]] = {
    "list": list,
    "tuple": tuple,
    "dict": lambda arrays: {f"p{i}": a for i, a in enumerate(arrays)},
    "array": lambda arrays: arrays[0],
}

forms = pytest.mark.parametrize("form", FORMS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)


def draws(rng: np.random.Generator, dtype: Any = np.float64, scale: float = 1.0) -> list[Array]:
    """An array of each shape."""
    return [np.asarray(scale * rng.standard_normal(s), dtype) for s in SHAPES]


def squares(rng: np.random.Generator, dtype: Any = np.float64) -> list[Array]:
    """As a Fisher information is: not negative, over many magnitudes, often 0."""
    return [
        np.asarray(rng.standard_normal(s) ** 2 * 10.0 ** rng.integers(-6, 6, s) * (rng.random(s) < 0.8), dtype)
        for s in SHAPES
    ]


def listed(arrays: Any) -> list[Array]:
    if isinstance(arrays, dict):
        return list(arrays.values())
    return [arrays] if isinstance(arrays, np.ndarray) else list(arrays)


def same(a: Any, b: Any) -> None:
    """Equal to the last bit, with the same structure and types."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, np.ndarray):
        assert_bits(a, b)
    else:
        assert a == b


def double(arrays: list[Array]) -> list[Array]:
    return [a.astype(np.float64) for a in arrays]


def consolidated_ewc(arrays: list[Array], online: bool = False) -> EWC:
    ewc = EWC(online, 0.5)
    ewc.consolidate(arrays, [np.full(a.shape, 0.3, a.dtype) for a in arrays])
    ewc.consolidate([np.asarray(a + 0.1, a.dtype) for a in arrays], [np.ones(a.shape, a.dtype) for a in arrays])
    return ewc


def consolidated_si(arrays: list[Array]) -> SynapticIntelligence:
    si = SynapticIntelligence()
    for _ in range(2):
        si.pre_step(arrays)
        arrays = [np.asarray(a * 0.7 - 0.1, a.dtype) for a in arrays]
        si.post_step(arrays, [np.asarray(np.abs(a) + 0.5, a.dtype) for a in arrays])
        si.consolidate(arrays)
    return si


CONSOLIDATED: dict[str, Callable[[list[Array]], Any]] = {
    "ewc": consolidated_ewc,
    "online": lambda arrays: consolidated_ewc(arrays, online=True),
    "si": consolidated_si,
}
NEW: dict[str, Callable[[], Any]] = {
    "ewc": EWC,
    "online": lambda: EWC(True, 0.25),
    "si": lambda: SynapticIntelligence(0.5),
}
