"""The inventory: every optimizer that goes through the table of inputs, and those inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.benchmarks import expressions
from grilly_optim.benchmarks.expressions import Expression
from grilly_optim.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AutoHypergradientAdamW,
    Lion,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Row:
    """One optimizer with its arguments, and the same as one writes it in NumPy."""

    name: str
    make: Callable[..., Optimizer]
    expression: Expression
    options: dict[str, Any] = field(default_factory=dict)


ROWS = [
    Row("adamw", AdamW, expressions.adamw),
    Row("adamw-lr", AdamW, expressions.adamw, {"lr": 0.1, "weight_decay": 0.0}),
    Row("adamw-betas-0", AdamW, expressions.adamw, {"betas": (0.0, 0.0), "eps": 1e-3}),
    Row("adamw-amsgrad", AdamW, expressions.adamw, {"amsgrad": True, "betas": (0.8, 0.5)}),
    Row("adamw-maximize", AdamW, expressions.adamw, {"maximize": True, "weight_decay": 0.3}),
    Row("adam", Adam, expressions.adam),
    Row("adam-coupled", Adam, expressions.adam, {"weight_decay": 0.1, "maximize": True}),
    Row("adam-decoupled", Adam, expressions.adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    Row("adam-amsgrad", Adam, expressions.adam, {"weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.5)}),
    Row("sgd", SGD, expressions.sgd),
    Row("sgd-decay", SGD, expressions.sgd, {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    Row("sgd-momentum", SGD, expressions.sgd, {"momentum": 0.9, "dampening": 0.3, "maximize": True}),
    Row("sgd-nesterov", SGD, expressions.sgd, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    Row("sgd-nesterov-maximize", SGD, expressions.sgd, {"momentum": 0.5, "nesterov": True, "maximize": True}),
    Row("rmsprop", RMSprop, expressions.rmsprop, {"maximize": True}),
    Row("rmsprop-momentum", RMSprop, expressions.rmsprop, {"momentum": 0.8, "weight_decay": 0.1, "maximize": True}),
    Row("rmsprop-centered", RMSprop, expressions.rmsprop, {"centered": True, "alpha": 0.9}),
    Row("rmsprop-both", RMSprop, expressions.rmsprop, {"centered": True, "momentum": 0.5, "maximize": True}),
    Row("adagrad", Adagrad, expressions.adagrad),
    Row("adagrad-decay", Adagrad, expressions.adagrad, {"lr_decay": 0.1, "weight_decay": 0.1, "maximize": True}),
    Row("adagrad-initial", Adagrad, expressions.adagrad, {"initial_accumulator_value": 0.5, "eps": 1e-3}),
    Row("adadelta", Adadelta, expressions.adadelta),
    Row("adadelta-decay", Adadelta, expressions.adadelta, {"rho": 0.5, "weight_decay": 0.1, "maximize": True}),
    Row("radam", RAdam, expressions.radam),
    Row("radam-coupled", RAdam, expressions.radam, {"betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    Row("radam-decoupled", RAdam, expressions.radam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    Row("nadam", NAdam, expressions.nadam),
    Row("nadam-coupled", NAdam, expressions.nadam, {"momentum_decay": 0.5, "weight_decay": 0.1, "maximize": True}),
    Row("nadam-decoupled", NAdam, expressions.nadam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    Row("lion", Lion, expressions.lion),
    Row("lion-decay", Lion, expressions.lion, {"lr": 0.01, "betas": (0.5, 0.8), "weight_decay": 0.1}),
]


def _one_per_rule() -> dict[str, Row]:
    """A row for each kernel: what depends on the kernel alone need not go over all options."""
    chosen: dict[str, Row] = {}
    for row in ROWS:
        optimizer = row.make([np.zeros(1, np.float32)], **row.options, device="numpy")
        chosen.setdefault(optimizer._plans.launches[0].rule.name, row)
    return chosen


BY_RULE = _one_per_rule()

# One whose step is one pass over the parameters, and one with two.
MAKES: dict[str, Any] = {
    "AdamW": lambda ps, device: AdamW(ps, lr=0.1, device=device),
    "two passes": lambda ps, device: AutoHypergradientAdamW(
        ps, lr=0.1, rule="corrected", adapt_momentum=True, track_surprise=True, warmup_steps=1, device=device
    ),
}
makes = pytest.mark.parametrize("make", MAKES.values(), ids=list(MAKES))

# Around every boundary: pack (8 or 4 elements), vector (16) and three of them, segment alignment (256), workgroup chunk
# (8192 or 4096 on llvmpipe), NumPy block (16384), and large enough for threads with chunks of their own.
SIZES = [0, 1, 3, 4, 5, 7, 8, 9, 17, 47, 49, 255, 256, 257, 511, 513, 1023, 1024, 1025, 4097, 8193, 16385, 70001]

_rng = np.random.default_rng(20)


def draw(shape: int | tuple[int, ...], dtype: Any = np.float32, rng: np.random.Generator = _rng) -> Array:
    """Normal draws, with some exact zeros and some large values."""
    x = rng.standard_normal(shape)
    x = np.where(rng.random(shape) < 0.05, 0.0, x) * np.where(rng.random(shape) < 0.05, 1e4, 1.0)
    return np.asarray(x, dtype=dtype)


def layouts(dtype: Any) -> Iterator[tuple[str, Callable[[], Array]]]:
    """Views that are not plain contiguous arrays, or lie at odd addresses."""
    yield "0-d", lambda: np.array(1.5, dtype)
    yield "matrix", lambda: draw((13, 7), dtype)
    yield "fortran", lambda: np.asfortranarray(draw((13, 7), dtype))
    yield "transposed", lambda: draw((13, 7, 3), dtype).transpose(2, 0, 1)
    yield "strided", lambda: draw(515, dtype)[::2]
    yield "reversed", lambda: draw(300, dtype)[::-1]
    yield "column", lambda: draw((50, 4), dtype)[:, 1]
    yield "empty matrix", lambda: draw((0, 5), dtype)
    for offset in (1, 2, 3, 5):
        yield f"offset {offset}", lambda offset=offset: draw(600 + offset, dtype)[offset:]  # type: ignore[misc]  # bound now
    yield "unaligned", lambda: np.frombuffer(bytearray(8 * 40 + 1), np.uint8)[1:].view(dtype)


def arrays_of_all_layouts(rng: Any) -> list[Array]:
    """Both precisions; 0-d, strided, reversed, empty, unaligned and so on, and one for several threads."""
    found = [make() for dtype in (np.float32, np.float64) for _, make in layouts(dtype)]
    for p in found:
        p[...] = draw(p.shape, p.dtype, rng)
    return [*found, draw(70_001, rng=rng)]


def plain(ps: list[Array]) -> list[Array]:
    """Contiguous copies."""
    return [np.array(p, order="C") for p in ps]


def train(row: Row, parameters: list[Array], gradients: Sequence[Sequence[Array | None]], device: str) -> list[Array]:
    """Step a fresh optimizer through the gradients; the parameters are changed in place."""
    optimizer = row.make(parameters, **row.options, device=device)
    for step in gradients:
        optimizer.step(gradients=list(step))
    return parameters


@contextmanager
def works(device: str, dispatches: int) -> Iterator[None]:
    """Asks that the device did that many kernel runs, and no other device any."""
    before = {d: grilly_optim.counters(d)["dispatches"] for d in (device, None)}
    yield
    after = {d: grilly_optim.counters(d)["dispatches"] for d in (device, None)}
    assert [after[d] - before[d] for d in (device, None)] == [dispatches, dispatches]


def assert_bits(actual: Array, expected: Array, what: str = "") -> None:
    """Equal to the last bit (NaN equals NaN)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    differing = int((~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))).sum())
    assert differing == 0, f"{what}: {differing} of {actual.size} elements differ"
