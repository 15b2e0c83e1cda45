"""The rules of the Langevin samplers: NumPy's bits on every device, measured or not, with every set of fields."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from grilly_optim._devices import open_device
from grilly_optim.kernels.philox import Draw
from grilly_optim.kernels.rule import Rule
from grilly_optim.sampling import _rules
from grilly_optim.sampling._momentum_rules import BAOA, SGHMC
from grilly_optim.sampling._sampler import having
from tests.table import Array, assert_bits, draw, works

SCALARS = {
    "sgld": (0.01, 0.02, 0.003, 0.1, 0.5),
    "rmsprop_sgld": (0.01, 0.02, 0.003, 0.1, 0.5, 0.9, 0.1, 0.1),
    "sgnht": (0.01, 0.05, 0.1, 0.5),
    "sghmc": (0.01, 0.02, 0.003, 0.1, 0.05, 0.1, 0.5),
    "baoa": (0.01, 0.02, 0.003, 0.1, 0.9, 0.1, 0.5),
}
WHOLE = [_rules.SGLD, _rules.RMSPROP, _rules.SGNHT, SGHMC, BAOA]
RULES = {
    rule.name: rule
    for whole in WHOLE
    for there in itertools.product([False, True], repeat=len(whole.optional))
    for rule in [having(whole, tuple(itertools.compress(whole.optional, there)))]
}
PARTED = [rule for rule in RULES.values() if rule.parts is not None]
SHAPES: list[tuple[int, ...]] = [(3, 1), (3, 4097), (3, 40, 17)]
CHAINS, GROUPS = 3, [0, 1, 1]


def run(rule: Rule, device: str, dtype: Any, way: str, given: bool, steps: int = 3) -> tuple[list[Array], Any]:
    """Parameters, state and parts after some steps over three chains, and the last step's sums by group and chain."""
    rng = np.random.default_rng(4)
    ps = [draw(shape, dtype, rng) for shape in SHAPES]
    backend: Any = open_device(device)[1]
    elements = [0, 256, 256 + 4352]
    plan = backend.plan(rule, ps, [0, 1, 2], CHAINS, elements, 5, GROUPS)
    if way == "parts":
        plan.add_parts()
    for k, p in enumerate(ps):
        for field in rule.owned_fields:
            value = np.abs(draw(p.shape, dtype, rng))
            plan.write_state(field, k, (value < 0.5).astype(dtype) if field == "mask" else value)
    sums = np.zeros((2 * CHAINS, len(rule.sum_fields))) if way != "plain" else None
    rows = [[SCALARS[rule.twin.__name__.removesuffix("_sums")]]]
    for step in range(steps):
        gradients: list[Any] = [draw(p.shape, dtype, rng) for p in ps]
        noise = [draw(p.shape, dtype, rng) for p in ps]
        if step == 1:
            gradients[1] = None
        inputs = (gradients, noise) if given else (gradients,)
        drawn = None if given else Draw(9, step)
        assert backend.run([plan], inputs, rows, [None], numbers=sums, draw=drawn)
    state = []
    for k, p in enumerate(ps):
        for field in rule.owned_fields + (rule.part_fields if way == "parts" else ()):
            state.append(np.empty_like(p))
            plan.read_state(field, k, state[-1])
    return ps + state, sums


WAYS = [
    (rule, way) for rule in RULES.values() for way in ("plain", "measured", "parts") if way != "plain" or rule.updates
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize(("rule", "way"), WAYS, ids=lambda x: x.name if isinstance(x, Rule) else str(x))
def test_every_bit_is_numpys(rule: Rule, way: str, dtype: Any, device: str) -> None:
    """With noise of its own and with given noise; the sums of one chain are those of that chain alone."""
    for given in (False, True):
        with works(device, 3):
            found, sums = run(rule, device, dtype, way, given)
        expected, expected_sums = run(rule, "numpy", dtype, way, given)
        for k, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_bits(a, b, str(k))
        np.testing.assert_array_equal(sums, expected_sums)
        if way != "plain":
            assert np.count_nonzero(expected_sums) > 0


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.either], ids=lambda rule: rule.name)
def test_measuring_changes_no_bit(rule: Rule, device: str) -> None:
    plain, measured = (run(rule, device, np.float32, way, False)[0] for way in ("plain", "measured"))
    for a, b in zip(plain, measured, strict=True):
        assert_bits(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("rule", PARTED, ids=lambda rule: rule.name)
def test_keeping_parts_changes_no_bit(rule: Rule, dtype: Any, device: str) -> None:
    measured, sums = run(rule, device, dtype, "measured", False)
    kept, same = run(rule, device, dtype, "parts", False)
    each, fields = len(rule.owned_fields), len(rule.owned_fields + rule.part_fields)
    state = [x for k, x in enumerate(kept[len(SHAPES) :]) if k % fields < each]
    for a, b in zip(measured, kept[: len(SHAPES)] + state, strict=True):
        assert_bits(a, b)
    np.testing.assert_array_equal(sums, same)


def vectors(rule: Rule, s: dict[str, Any], g: Array, z: Array) -> dict[str, Array]:
    """The parts of a step, as one writes them."""
    kind = rule.twin.__name__.removesuffix("_sums")
    h = dict(zip(rule.scalar_fields, map(g.dtype.type, SCALARS[kind]), strict=True))
    s = {"center": 0, "mask": 1} | s
    if kind == "sgnht":
        return {"part_grad": s["mask"] * (h["push"] * g), "part_noise": s["mask"] * (h["spread"] * z)}
    scale: Any = g.dtype.type(1)
    if kind == "rmsprop_sgld":
        scale = 1 / (np.sqrt(h["alpha"] * s["v"] + h["beta"] * g * g) + h["eps"])
    return {
        "part_grad": s["mask"] * (scale * (h["grad"] * g)),
        "part_raw": h["grad"] * g,
        "part_pull": s["mask"] * (scale * (h["pull"] * (s["p"] - s["center"]))),
        "part_decay": s["mask"] * (scale * (h["decay"] * s["p"])),
        "part_noise": s["mask"] * (h["spread"] * np.sqrt(scale) * z),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("rule", PARTED, ids=lambda rule: rule.name)
def test_parts_are_what_a_step_is_made_of(rule: Rule, dtype: Any, device: str) -> None:
    """Vectors of the step's own formula; and the sums are those of their squares."""
    rng = np.random.default_rng(6)
    p, g, z = (draw(5000, dtype, rng) for _ in range(3))
    s = {"p": p.copy()} | {field: np.abs(draw(5000, dtype, rng)) for field in rule.owned_fields}
    backend: Any = open_device(device)[1]
    plan = backend.plan(rule, [p], [0])
    plan.add_parts()
    for field in rule.owned_fields:
        plan.write_state(field, 0, s[field])
    sums = np.zeros((1, len(rule.sum_fields)))
    assert backend.run([plan], ([g], [z]), [[SCALARS[rule.twin.__name__.removesuffix("_sums")]]], [None], numbers=sums)
    squares = {"part_grad": "gg", "part_raw": "uu", "part_pull": "ll", "part_decay": "ww", "part_noise": "nn"}
    for part, expected in vectors(rule, s, g, z).items():
        found = np.empty_like(p)
        plan.read_state(part, 0, found)
        assert_bits(found, expected, part)
        if part != "part_raw" or rule.updates:
            total = (found.astype(np.float64) ** 2).sum()
            np.testing.assert_allclose(sums[0, rule.sum_fields.index(squares[part])], total, rtol=1e-5)


def test_parts_begin_at_zero_and_are_there_when_wanted(device: str) -> None:
    plan = open_device(device)[1].plan(_rules.SGLD, [np.ones(3, np.float32)], [0])  # type: ignore[arg-type]
    found = np.ones(3, np.float32)
    with pytest.raises(KeyError):
        plan.read_state("part_grad", 0, found)
    plan.add_parts()
    plan.add_parts()
    plan.read_state("part_grad", 0, found)
    assert not found.any()
