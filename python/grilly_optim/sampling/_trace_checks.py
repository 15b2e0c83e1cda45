"""What a trace may be made of, and one clear error for what is something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def read_only(array: Array) -> Array:
    view = array.view(np.ndarray)
    view.flags.writeable = False
    return view


def draws_of(draws: Any) -> Array:
    array = np.asarray(draws)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"draws must be float32 or float64, got {array.dtype}")
    if array.ndim != 3 or not array.shape[0] or not array.shape[2]:
        raise ValueError(f"draws must be (chains, draws, D), 1 or more by any number by 1 or more, got {array.shape}")
    for c, chain in enumerate(array):
        if not np.isfinite(chain).all():
            draw, d = (int(i[0]) for i in np.nonzero(~np.isfinite(chain)))
            raise ValueError(f"draws must be finite, got {chain[draw, d]} for chain {c}, draw {draw}, coordinate {d}")
    return read_only(array)


def stats_of(stats: Any, shape: tuple[int, int]) -> dict[str, Array]:
    if not isinstance(stats, Mapping):
        raise TypeError(f"sample_stats must be a dict of arrays, got {type(stats).__name__}")
    checked = {}
    for name, value in stats.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"sample_stats has {name!r}: names must be identifiers")
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"sample_stats[{name!r}] must be numbers or truth values, got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"sample_stats[{name!r}] must be {shape}, as the draws are, got {array.shape}")
        checked[name] = read_only(array)
    return checked


def names_of(names: Any, dim: int) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"names must be a list of str, got {names!r}")
    if not names:
        return tuple(f"q[{d}]" for d in range(dim))
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(f"names must be str, got {wrong!r}")
    if len(names) != dim:
        raise ValueError(f"names must be {dim}, one for each coordinate, got {len(names)}")
    if len(set(names)) < dim or not all(names):
        twice = next(name for name in names if not name or list(names).count(name) > 1)
        raise ValueError(f"names must be different and not empty, got {twice!r}{' twice' if twice else ''}")
    return tuple(names)


def positive(name: str, value: Any, shapes: list[tuple[int, ...]]) -> Array | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    if array.shape not in shapes:
        raise ValueError(f"{name} must be {' or '.join(map(str, shapes))}, got {array.shape}")
    # Of matrices the diagonal.
    numbers = np.diagonal(array, axis1=-2, axis2=-1) if array.ndim == 3 else array
    if not np.isfinite(array).all() or not (numbers > 0).all():
        raise ValueError(f"{name} must be finite and above 0, got {array!r}")
    return read_only(array)


def numbers_of(coordinates: Any, names: Sequence[str]) -> list[int]:
    """Coordinates by their numbers, of what was given as names, numbers, one of them, or None for all.

    Raises:
        TypeError: Something else.
        ValueError: There are no such coordinates, or none were given.
    """
    if coordinates is None:
        return list(range(len(names)))
    if isinstance(coordinates, str | int | np.integer):
        coordinates = [coordinates]
    try:
        asked = list(coordinates)
    except TypeError:
        raise TypeError(f"coordinates must be names or numbers, got {coordinates!r}") from None
    if not asked:
        raise ValueError("coordinates must be one at least, got none")
    return [_number_of(one, names) for one in asked]


def _number_of(coordinate: Any, names: Sequence[str]) -> int:
    if isinstance(coordinate, str):
        if coordinate not in names:
            raise ValueError(f"coordinates has {coordinate!r}, and they are called {some(names)}")
        return names.index(coordinate)
    if isinstance(coordinate, bool) or not isinstance(coordinate, int | np.integer):
        raise TypeError(f"coordinates must be names or numbers, got {coordinate!r}")
    if not 0 <= coordinate < len(names):
        raise ValueError(f"coordinates has {coordinate}, and there are {len(names)}, from 0")
    return int(coordinate)


def some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
