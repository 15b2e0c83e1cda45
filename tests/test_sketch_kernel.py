"""Count sketches of the parts of Langevin steps: NumPy's bits on every device, and what they are sums of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from grilly_optim._devices import open_device
from grilly_optim.kernels.philox import Draw
from grilly_optim.sampling import _rules
from tests.table import Array, assert_bits, draw, works

SCALARS = {
    "sgld": (0.01, 0.02, 0.003, 0.1, 0.5),
    "rmsprop_sgld": (0.01, 0.02, 0.003, 0.1, 0.5, 0.9, 0.1, 0.1),
    "sgnht": (0.01, 0.05, 0.1, 0.5),
}
SINGLE, DOUBLE = np.float32, np.float64
BOTH = ("part_grad", "part_noise")


RULES = {rule.name: rule for rule in (_rules.SGLD, _rules.RMSPROP, _rules.SGNHT)}


class Run:
    """A plan for each rule and precision over parameters given as (elements of a chain, precision, rule)."""

    def __init__(self, device: str, parameters: Sequence[tuple[int, Any, str]], chains: int, seed: int = 0) -> None:
        self.rng, self.chains = np.random.default_rng(seed), chains
        self.ps = [draw((chains, n), dtype, self.rng) for n, dtype, _ in parameters]
        self.backend: Any = open_device(device)[1]
        kinds = [(rule, np.dtype(dtype)) for _, dtype, rule in parameters]
        self.names = list(dict.fromkeys(kinds))
        self.members = [[i for i, kind in enumerate(kinds) if kind == name] for name in self.names]
        self.plans = []
        for (rule, _), mine in zip(self.names, self.members, strict=True):
            self.plans.append(self.backend.plan(RULES[rule], [self.ps[i] for i in mine], mine, chains))
            self.plans[-1].add_parts()
        self.elements = sum(n for n, _, _ in parameters)
        self.steps = 0

    def step(self, skipped: Sequence[int] = (), measured: bool = True) -> None:
        """One step with noise of its own."""
        gradients = [None if i in skipped else draw(p.shape, p.dtype, self.rng) for i, p in enumerate(self.ps)]
        self.steps += 1
        rules = [name for name, _ in self.names]
        # All rules of one run have the same sums: one run each.
        for rule in dict.fromkeys(rules):
            mine = [plan for plan, name in zip(self.plans, rules, strict=True) if name == rule]
            width = len(RULES[rule].sum_fields)
            numbers = np.zeros((self.chains, width)) if measured else None
            rows = [[SCALARS[rule]]] * len(mine)
            done = self.backend.run(
                mine, (gradients,), rows, [None] * len(mine), numbers=numbers, draw=Draw(3, self.steps)
            )
            assert done

    def hash(self, output_dim: int) -> tuple[Array, Array]:
        """A bucket and a sign for each element of a chain."""
        rng = np.random.default_rng(8)
        buckets = rng.integers(0, output_dim, self.elements, dtype=np.uint32)
        return buckets, rng.choice(np.array([-1, 1], np.int8), self.elements)

    def sketch(self, output_dim: int, fields: Sequence[str] = BOTH) -> Array:
        """What all plans have left."""
        sketch = self.backend.sketch(self.plans, list(fields), *self.hash(output_dim), output_dim)
        to = np.full((self.chains, len(fields), output_dim), 7.0)
        sketch.read(to)
        return to

    def part(self, field: str) -> Array:
        """One field of all parameters, one after another: (chains, elements)."""
        found: list[Any] = [None] * len(self.ps)
        for plan, mine in zip(self.plans, self.members, strict=True):
            for k, i in enumerate(mine):
                found[i] = np.empty_like(self.ps[i])
                plan.read_state(field, k, found[i])
        return np.concatenate([np.asarray(x, np.float64) for x in found], axis=1)


MANY = [(300, SINGLE, "sgld"), (0, SINGLE, "sgld"), (70_001, SINGLE, "sgld"), (4_097, SINGLE, "sgld")]
PARAMETERS = {
    "one": [(10_000, SINGLE, "sgld")],
    "several": MANY,
    "doubles": [(n, DOUBLE, rule) for n, _, rule in MANY],
    "both precisions": [(5_000, DOUBLE, "sgld"), (5_000, SINGLE, "sgld"), (3, DOUBLE, "sgld"), (17, SINGLE, "sgld")],
    "several rules": [(5_000, SINGLE, "rmsprop_sgld"), (4_000, DOUBLE, "sgnht"), (900, SINGLE, "sgld")],
    "empty": [(0, SINGLE, "sgld"), (0, SINGLE, "sgld")],
    "tiny": [(1, SINGLE, "sgld")],
}
cases = pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=list(PARAMETERS))


@pytest.mark.parametrize("output_dim", [1, 7, 257, 200_003])
@pytest.mark.parametrize("chains", [1, 3])
@cases
def test_every_bit_is_numpys(parameters: Any, chains: int, output_dim: int, device: str) -> None:
    found, expected = Run(device, parameters, chains), Run("numpy", parameters, chains)
    for run in (found, expected):
        run.step()
    # On Vulkan a dispatch adds up so many elements of a bucket.
    fullest = int(np.bincount(found.hash(output_dim)[0], minlength=1).max())
    with works(device, max(1, -(-fullest // 32_768)) if device.startswith("vulkan") else 1):
        sketched = found.sketch(output_dim)
    assert_bits(sketched, expected.sketch(output_dim))
    assert np.any(sketched) == (found.elements > 0)


@pytest.mark.parametrize("chains", [1, 3])
@cases
def test_buckets_are_sums_in_ascending_order(parameters: Any, chains: int, device: str) -> None:
    """Element by element, as one writes it."""
    run = Run(device, parameters, chains)
    run.step()
    sketched = run.sketch(17)
    buckets, signs = run.hash(17)
    for k, field in enumerate(BOTH):
        for chain, elements in enumerate(run.part(field)):
            expected = np.zeros(17)
            np.add.at(expected, buckets, elements * signs)
            assert_bits(sketched[chain, k], expected, f"{field} of chain {chain}")


def test_skipped_parameters_contribute_nothing(device: str) -> None:
    """Neither now nor from the step before; those of other plans do."""
    run = Run(device, PARAMETERS["both precisions"], 2)
    run.step()
    run.step(skipped=[0, 3])
    buckets, signs = run.hash(31)
    there = np.concatenate([np.full(p.shape[1], i not in (0, 3)) for i, p in enumerate(run.ps)])
    expected = np.stack([np.bincount(buckets[there], (signs * part)[there], 31) for part in run.part("part_grad")])
    assert_bits(run.sketch(31)[:, 0], expected)
    run.step(skipped=range(4))
    assert not run.sketch(31).any()


def test_a_step_without_sums_leaves_nothing(device: str) -> None:
    run = Run(device, PARAMETERS["one"], 1)
    assert not run.sketch(31).any()
    run.step()
    assert run.sketch(31).any()
    run.step(measured=False)
    assert not run.sketch(31).any()


# What is staged goes through buffers of 16 MiB.
CUTS = {
    "vulkan": [(70_000, 3, [300, 70_001]), (100_000, 3, [300, 70_001]), (40_000, 2, [5_000, 5_000, 3, 17, 9_000])],
    "staged": [(16 * 2**20 + 100, 1, [300, 4_300_001])],
}


@pytest.mark.cases("vulkan", "staged")
def test_cut_arenas_make_no_difference(case: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a tensor begins in a block that another has begun, and with the lists of elements in pieces."""
    monkeypatch.setenv("GRILLY_MAX_GROUPS", "7")
    for limit, chains, sizes in CUTS[case]:
        monkeypatch.setenv("GRILLY_MAX_ALLOCATION", str(limit))
        parameters = [(n, SINGLE, "sgld") for n in sizes]
        found, expected = Run(device, parameters, chains), Run("numpy", parameters, chains)
        for run in (found, expected):
            run.step()
        for field in BOTH:
            assert_bits(found.part(field), expected.part(field), field)
        assert_bits(found.sketch(33), expected.sketch(33))


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
def test_threads_and_instruction_sets_make_no_difference(
    threads: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRILLY_THREADS", threads)
    monkeypatch.setenv("GRILLY_ISA", isa)
    found, expected = Run("cpu", PARAMETERS["several"], 2), Run("numpy", PARAMETERS["several"], 2)
    for run in (found, expected):
        run.step()
    assert_bits(found.sketch(100), expected.sketch(100))


def test_parts_stay_on_the_device(device: str) -> None:
    run = Run(device, PARAMETERS["several"], 1)
    run.step()
    sketch = run.backend.sketch(run.plans, list(BOTH), *run.hash(9), 9)
    before, to = run.backend.counters(), np.zeros((1, 2, 9))
    sketch.read(to)
    sketch.read(to)
    after = run.backend.counters()
    assert after["dispatches"] - before["dispatches"] == 2
    assert after["bytes_down"] == before["bytes_down"]
    assert after["bytes_up"] == before["bytes_up"]


def test_a_sketch_keeps_its_plans(device: str) -> None:
    run = Run(device, PARAMETERS["one"], 1)
    run.step()
    expected, to = run.sketch(5), np.zeros((1, 2, 5))
    plans = list(run.plans)
    sketch = run.backend.sketch(plans, list(BOTH), *run.hash(5), 5)
    plans.clear()
    run.plans.clear()
    sketch.read(to)
    assert_bits(to, expected)


def test_infinity_and_nan_pass(device: str) -> None:
    run = Run(device, PARAMETERS["one"], 1)
    gradient = np.ones_like(run.ps[0])
    gradient[0, :3] = np.inf, -np.inf, np.nan
    numbers = np.zeros((1, len(_rules.SGLD.sum_fields)))
    rows = [[SCALARS["sgld"]]]
    assert run.backend.run(run.plans, ([gradient],), rows, [None], numbers=numbers, draw=Draw(3, 1))
    to = np.zeros((1, 1, 10_000))
    run.backend.sketch(run.plans, ["part_grad"], np.arange(10_000), np.full(10_000, -1), 10_000).read(to)
    np.testing.assert_array_equal(to[0, 0, :4], [-np.inf, np.inf, np.nan, -np.float64(np.float32(0.01))])


def test_what_does_not_fit_is_refused(device: str) -> None:
    run = Run(device, PARAMETERS["tiny"], 1)
    one = np.zeros(1, np.uint32), np.ones(1, np.int8)
    for plans, fields, buckets, signs, dim, message in [
        (run.plans, ["part_grad"], np.zeros(2, np.uint32), one[1], 3, "one entry for each of 1 elements"),
        (run.plans, ["part_grad"], one[0], np.ones(2), 3, "one entry for each of 1 elements"),
        (run.plans, ["part_grad"], np.array([3]), one[1], 3, "outside of the sketch"),
        (run.plans, ["part_grad"], np.array([-1]), one[1], 3, "outside of the sketch"),
        (run.plans, ["part_grad"], *one, 0, "one bucket or more"),
        (run.plans, [], *one, 3, "one field or more"),
        ([], ["part_grad"], *one, 3, "one plan or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            run.backend.sketch(plans, fields, buckets, signs, dim)
    with pytest.raises(KeyError, match="owns no state named 'part_other'"):
        run.backend.sketch(run.plans, ["part_other"], *one, 3)
    other = Run(device, PARAMETERS["tiny"], 2)
    with pytest.raises(ValueError, match="as many chains"):
        run.backend.sketch(run.plans + other.plans, ["part_grad"], *one, 3)
