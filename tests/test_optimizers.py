"""Every optimizer, through the table of inputs, on every device: the NumPy answer, to the last bit."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.benchmarks.expressions import in_float64
from grilly_optim.optim import AdamW
from tests.table import BY_RULE, ROWS, SIZES, Array, Row, assert_bits, draw, layouts, train, works

DTYPES = [np.float32, np.float64]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
kernels = pytest.mark.parametrize("row", BY_RULE.values(), ids=list(BY_RULE))
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


@rows
@dtypes
def test_sizes_give_the_numpy_answer(row: Row, dtype: Any, device: str) -> None:
    start = [draw(n, dtype) for n in SIZES]
    gradients: list[list[Any]] = [[draw(n, dtype) for n in SIZES] for _ in range(4)]
    expected = train(row, [p.copy() for p in start], gradients, "numpy")
    with works(device, 4):
        actual = train(row, [p.copy() for p in start], gradients, device)
    for n, a, e in zip(SIZES, actual, expected, strict=True):
        assert_bits(a, e, f"size {n}")


@kernels
@dtypes
@pytest.mark.parametrize("layout", [name for name, _ in layouts(np.float32)])
def test_layouts_give_the_bits_of_contiguous_arrays(row: Row, dtype: Any, layout: str, device: str) -> None:
    make = dict(layouts(dtype))[layout]
    parameter, gradients = make(), [make() for _ in range(3)]
    parameter[...] = draw(parameter.shape, dtype)
    expected = train(row, [np.array(parameter, order="C")], [[np.array(g, order="C")] for g in gradients], "numpy")
    with works(device, 3 if parameter.size else 0):
        train(row, [parameter], [[g] for g in gradients], device)
    assert_bits(parameter, expected[0], layout)


def test_nothing_outside_a_slice_is_written(device: str) -> None:
    whole = np.ones(5000, np.float32)
    before = whole.copy()
    AdamW([whole[1000:1777]], device=device).step(gradients=[before[:777]])
    assert_bits(whole[:1000], before[:1000])
    assert_bits(whole[1777:], before[1777:])
    assert (whole[1000:1777] != before[1000:1777]).all()


@rows
def test_a_gradient_of_none_leaves_parameter_and_step_count(row: Row, device: str) -> None:
    start = [draw(500) for _ in range(4)]
    pattern = [(1, 1, 1, 1), (1, 0, 1, 0), (0, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 1)]
    gradients: list[list[Any]] = [[draw(500) if on else None for on in step] for step in pattern]
    actual = train(row, [p.copy() for p in start], gradients, device)
    for i, p in enumerate(start):
        alone: list[list[Any]] = [[step[i]] for step in gradients if step[i] is not None]
        assert_bits(actual[i], train(row, [p.copy()], alone, "numpy")[0], f"parameter {i}")


def test_groups_have_their_own_options_and_change_between_steps(device: str) -> None:
    start = [draw(400), draw(300, np.float64), draw(200), draw(100)]
    groups = [
        {"params": start[:2], "lr": 0.05},
        {"params": start[2:3], "amsgrad": True, "maximize": True},
        {"params": start[3:], "betas": (0.5, 0.6)},
    ]

    def run(where: str) -> list[Array]:
        mine = [p.copy() for p in start]
        parts = iter(mine)
        optimizer = AdamW([{**g, "params": [next(parts) for _ in g["params"]]} for g in groups], device=where)  # type: ignore[attr-defined]  # lists
        rng = np.random.default_rng(4)
        for step in range(5):
            optimizer.param_groups[0]["lr"] = 0.05 / (step + 1)
            optimizer.param_groups[2]["weight_decay"] = 0.1 * step
            optimizer.step(gradients=[draw(p.size, p.dtype, rng) for p in start])
        return mine

    before = grilly_optim.counters(device)["dispatches"]
    actual = run(device)
    assert grilly_optim.counters(device)["dispatches"] - before == 3 * 5  # one per rule and precision
    for a, e in zip(actual, run("numpy"), strict=True):
        assert_bits(a, e)


@rows
def test_100_steps_agree_with_float64(row: Row, device: str) -> None:
    rng = np.random.default_rng(7)
    p = rng.standard_normal(2000).astype(np.float32)
    gradients = [rng.standard_normal(2000).astype(np.float32) for _ in range(100)]
    expected = in_float64(row.expression, p, gradients, **row.options)
    train(row, [p], [[g] for g in gradients], device)
    np.testing.assert_allclose(p, expected, rtol=3e-5, atol=1e-6)


def test_a_gradient_may_be_the_memory_of_a_parameter(device: str) -> None:
    def run(alias: bool, make: Any) -> list[Array]:
        rng = np.random.default_rng(3)
        a, b = make(40_000), make(40_000)
        a[...], b[...] = rng.standard_normal(40_000), rng.standard_normal(40_000)
        optimizer = AdamW([a, b], lr=0.1, device=device)
        for _ in range(3):
            optimizer.step(gradients=[b, a] if alias else [b.copy(), a.copy()])
            optimizer.step(gradients=[a, b] if alias else [a.copy(), b.copy()])
            shifted = np.concatenate([a[1:], a[:1]])
            optimizer.step(gradients=[shifted, b])
        return [a, b]

    for make in (lambda n: np.empty(n, np.float32), lambda n: grilly_optim.empty(n, device=device)):
        for actual, expected in zip(run(True, make), run(False, make), strict=True):
            assert_bits(actual, expected)


def test_a_gradient_that_overlaps_a_parameter_in_part_counts_as_a_copy(device: str) -> None:
    def run(alias: bool) -> Array:
        memory = draw(3000, rng=np.random.default_rng(9))
        p, gradient = memory[:2000], memory[500:2500]
        AdamW([p], lr=0.1, device=device).step(gradients=[gradient if alias else gradient.copy()])
        return p

    assert_bits(run(True), run(False))


def test_the_caller_may_change_parameters_between_steps(device: str) -> None:
    def run(where: str) -> list[Array]:
        rng = np.random.default_rng(5)
        ps = [draw(3000, rng=rng), draw(100, rng=rng)]
        optimizer = AdamW(ps, lr=0.1, device=where)
        for step in range(4):
            optimizer.step(gradients=[draw(3000, rng=rng), draw(100, rng=rng) if step % 2 else None])
            ps[0][7] = 100.0 * step
            np.clip(ps[1], -1, 1, out=ps[1])
        return ps

    for a, e in zip(run(device), run("numpy"), strict=True):
        assert_bits(a, e)


@rows
def test_zero_infinite_and_nan_elements_pass_as_they_come(row: Row, device: str) -> None:
    start, g = np.ones(40, np.float32), draw(40)
    start[[1, 2, 20]] = np.nan, np.inf, -np.inf
    g[[3, 5, 7, 11, 17, 33]] = np.nan, 0.0, -0.0, 1e-6, np.inf, -np.inf
    gradients = [g, np.zeros_like(g)]
    (p,), (q,) = (train(row, [start.copy()], [[x] for x in gradients], where) for where in (device, "numpy"))
    assert_bits(p, q)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(p, in_float64(row.expression, start, gradients, **row.options), rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["matrix", "masked", "native mark"])
def test_subclasses_and_marked_dtypes_are_plain_memory(kind: str, device: str) -> None:
    start, g = draw((3, 5)), draw((3, 5))
    wrap: dict[str, Any] = {
        "matrix": lambda x: x.view(np.matrix),
        "masked": lambda x: np.ma.array(x, mask=x > 0, copy=False),
        "native mark": lambda x: x.view(np.dtype(np.float32).newbyteorder("<")),
    }
    p, q = start.copy(), start.copy()
    wrapped = wrap[kind](p)
    optimizer, reference = AdamW([wrapped], lr=0.1, device=device), AdamW([q], lr=0.1, device="numpy")
    for _ in range(2):
        optimizer.step(gradients=[wrap[kind](g)])
        reference.step(gradients=[g])
    assert_bits(np.asarray(wrapped), q)


def test_options_of_any_real_type_count_as_doubles(device: str) -> None:
    p, q, g = draw(50), draw(50), draw(50)
    q[...] = p
    half = {"lr": np.float16(0.1), "betas": (np.float16(0.9), np.float32(0.99)), "weight_decay": np.array(0.25)}
    same: dict[str, Any] = {k: tuple(map(float, v)) if isinstance(v, tuple) else float(v) for k, v in half.items()}
    AdamW([p], **half, device=device).step(gradients=[g])  # type: ignore[arg-type]  # the types under test
    AdamW([q], **same, device=device).step(gradients=[g])
    assert_bits(p, q)


@pytest.mark.parametrize("step", [1, 2], ids=["contiguous", "strided"])
def test_an_optimizer_that_goes_gives_its_memory_back_at_once(step: int, device: str) -> None:
    w = np.zeros(3000, np.float32)[::step]

    def stepped() -> AdamW:
        optimizer = AdamW([w], device=device)
        optimizer.step(gradients=[np.ones_like(w)])
        return optimizer

    stepped()  # what the device keeps for all is there after it
    gc.collect()
    gc.disable()
    try:
        before = grilly_optim.counters()["bytes_allocated"]
        optimizer = stepped()
        assert grilly_optim.counters()["bytes_allocated"] > before
        del optimizer
        assert grilly_optim.counters()["bytes_allocated"] == before
    finally:
        gc.enable()


def test_a_parameter_that_was_resized_is_refused(device: str) -> None:
    p = draw(1000)
    optimizer = AdamW([p], device=device)
    p.resize((500,), refcheck=False)
    with pytest.raises(ValueError, match="parameter 0 has changed since"):
        optimizer.step(gradients=[draw(500)])


@rows
def test_peek_is_the_change_of_the_next_step_and_changes_nothing(row: Row, device: str) -> None:
    ps = [draw(700), draw((5, 6), np.float64), draw(50)[::-1]]
    optimizer = row.make(ps, **row.options, device=device)
    optimizer.step(gradients=[draw(700), draw((5, 6)), draw(50)])
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    gradients = [draw(700), draw((5, 6), np.float64), None]
    deltas = optimizer.peek(gradients)
    for p, b in zip(ps, before, strict=True):
        assert_bits(p, b)
    again = optimizer.state_dict()
    for i in range(3):
        for name, value in state["state"][i].items():
            assert_bits(np.asarray(again["state"][i][name]), np.asarray(value))
    optimizer.step(gradients=gradients)
    for p, b, delta in zip(ps, before, deltas, strict=True):
        assert delta.shape == p.shape
        np.testing.assert_array_less(np.abs(p - (b + delta)), 2 * np.spacing(np.maximum(np.abs(p), np.abs(b))))
    assert not deltas[2].any()


@pytest.mark.cases("vulkan")
@kernels
def test_more_elements_than_65535_groups_of_256(row: Row, device: str) -> None:
    n = 65_535 * 256 + 1_000
    p = grilly_optim.empty(n, device=device)
    p[...] = 1.0
    g = grilly_optim.empty(n, device=device)
    g[...] = 1.0
    with works(device, 1):
        row.make([p], **row.options, device=device).step(gradients=[g])
    assert (p != 1.0).all()
