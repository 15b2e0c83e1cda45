"""Traces for their tests, and what is looked up in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from grilly_optim.sampling import Trace

Array = np.ndarray[Any, np.dtype[Any]]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def autoregressive(a: float, *shape: int, seed: int = 0) -> Array:
    """Chains (C, n, D) of x' = a x + sqrt(1 - a^2) xi, from their stationary law N(0, 1)."""
    x = normal(*shape, seed=seed)
    for t in range(1, shape[1]):
        x[:, t] = a * x[:, t - 1] + math.sqrt(1 - a * a) * x[:, t]
    return x


def of_a_run(chains: int = 4, count: int = 200, dim: int = 3, **options: Any) -> Trace:
    shape = (chains, count)
    momenta = normal(*shape, dim, seed=1)
    q = normal(*shape, dim)
    stats = {
        "lp": -(q**2).sum(axis=-1) / 2,
        "energy": ((q**2).sum(axis=-1) + (momenta**2).sum(axis=-1)) / 2,
        "diverging": np.zeros(shape, bool),
        "n_steps": np.full(shape, 7),
        "reached_max_treedepth": np.zeros(shape, bool),
    }
    options = {"kernel": "nuts", "seed": 3, "num_warmup": 500, "stepsize": np.full(chains, 0.3), **options}
    stats.update(options.pop("stats", {}))
    return Trace(options.pop("draws", q), stats, **options)


def at(shape: tuple[int, ...], *places: tuple[int, ...]) -> Array:
    made = np.zeros(shape, bool)
    for place in places:
        made[place] = True
    return made


Q = normal(2, 5, 3)


def same(one: Trace, other: Trace) -> bool:
    """Down to bits, dtypes and types."""
    for name, value in vars(one).items():
        theirs = getattr(other, name)
        if isinstance(value, dict):
            assert list(value) == list(theirs)
            pairs = [(value[key], theirs[key]) for key in value]
        else:
            pairs = [(value, theirs)]
        for mine, its in pairs:
            assert type(mine) is type(its)
            if isinstance(mine, np.ndarray):
                assert (mine.dtype, mine.shape) == (its.dtype, its.shape)
                assert mine.tobytes() == its.tobytes()
            else:
                assert mine == its
    return True


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for one in figure.legends for text in one.get_texts()]
