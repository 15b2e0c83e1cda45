"""The rule of the leapfrog integrator: NumPy's bits on every device, measured or not, with and without a vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim._devices import open_device
from grilly_optim.kernels.rule import Rule
from grilly_optim.sampling._kick_drift import KICK_DRIFT
from grilly_optim.sampling._sampler import having
from tests.table import Array, assert_bits, draw, works

CHAINS = 3
RULES = [having(KICK_DRIFT, ()), having(KICK_DRIFT, ("w",))]
ROWS = [(0.05, 0.1, 1.0), (0.25, 0.5, 0.5), (0.5, 0.0, 2.0)]
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def run(rule: Rule, device: str, dtype: Any, dim: int, measured: bool, steps: int = 3) -> tuple[list[Array], Any]:
    """Position and momentum after some steps, with a step size for each chain; and the last step's sums."""
    rng = np.random.default_rng(8)
    q = draw((CHAINS, dim), dtype, rng)
    backend: Any = open_device(device)[1]
    plan = backend.plan(rule, [q], [0], CHAINS)
    plan.write_state("p", 0, draw(q.shape, dtype, rng))
    if "w" in rule.owned_fields:
        plan.write_state("w", 0, np.abs(draw(q.shape, dtype, rng)))
    sums = np.zeros((CHAINS, 2)) if measured else None
    for _ in range(steps):
        gradient = draw(q.shape, dtype, rng)
        assert backend.run([plan], ([gradient],), [ROWS], [np.arange(CHAINS, dtype=np.uint32)], True, sums)
    p = np.empty_like(q)
    plan.read_state("p", 0, p)
    return [q, p], sums


@dtypes
@rules
@pytest.mark.parametrize("dim", [1, 5, 4097])
@pytest.mark.parametrize("measured", [False, True], ids=["plain", "measured"])
def test_every_bit_is_numpys(rule: Rule, dtype: Any, dim: int, measured: bool, device: str) -> None:
    with works(device, 3):
        found, sums = run(rule, device, dtype, dim, measured)
    expected, expected_sums = run(rule, "numpy", dtype, dim, measured)
    for a, b in zip(found, expected, strict=True):
        assert_bits(a, b)
    np.testing.assert_array_equal(sums, expected_sums)


@rules
def test_measuring_changes_no_bit(rule: Rule, device: str) -> None:
    plain, measured = (run(rule, device, np.float32, 300, way)[0] for way in (False, True))
    for a, b in zip(plain, measured, strict=True):
        assert_bits(a, b)


@dtypes
@rules
def test_a_step_is_the_formula_and_the_sums_are_kinetic_energies_but_for_a_constant(
    rule: Rule, dtype: Any, device: str
) -> None:
    rng = np.random.default_rng(9)
    q, p, g, w = (rng.standard_normal((2, 700)).astype(dtype) for _ in range(4))
    w = np.abs(w)
    backend: Any = open_device(device)[1]
    moved = q.copy()
    plan = backend.plan(rule, [moved], [0], 2)
    plan.write_state("p", 0, p)
    if "w" in rule.owned_fields:
        plan.write_state("w", 0, w)
    else:
        w[:] = 1
    sums = np.zeros((2, 2))
    assert backend.run([plan], ([g],), [[(0.25, 0.5, 1.5)]], [None], True, sums)
    after = p - dtype(0.25) * g
    assert_bits(moved, q + dtype(0.5) * (w * after))
    for column, momentum in enumerate((p, after)):
        expected = (1.5 * w.astype(float) * momentum.astype(float) ** 2 - 1).sum(axis=1)
        np.testing.assert_allclose(sums[:, column], expected, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_energies_of_a_million_elements_keep_their_digits() -> None:
    rng = np.random.default_rng(10)
    q, p = np.zeros((1, 1_000_000), np.float32), rng.standard_normal((1, 1_000_000), np.float32)
    backend: Any = open_device("numpy")[1]
    plan = backend.plan(RULES[0], [q], [0], 1)
    plan.write_state("p", 0, p)
    sums = np.zeros((1, 2))
    assert backend.run([plan], ([np.zeros_like(q)],), [[(0.0, 0.0, 1.0)]], [None], True, sums)
    # Half of the sum is the energy. Without the 1 that is taken off it was wrong by 2e-3.
    assert abs(sums[0, 0] - ((p.astype(float) ** 2).sum() - q.size)) / 2 < 5e-4


def test_the_gradient_may_be_the_position_itself(device: str) -> None:
    """A potential may return its argument: that of a standard normal distribution does."""
    q = draw((2, 5000))
    plans = []
    backend: Any = open_device(device)[1]
    for gradient in (q.copy(), None):
        position = q.copy()
        plan = backend.plan(RULES[0], [position], [0], 2)
        plan.write_state("p", 0, np.ones_like(q))
        assert backend.run([plan], ([position if gradient is None else gradient],), [[(0.1, 0.2, 1.0)]], [None])
        plans.append(position)
    assert_bits(*plans)
