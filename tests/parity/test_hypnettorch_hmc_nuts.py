"""Side by side with hypnettorch's NUTS: the slice variant, on the same draws."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypnettorch.utils import hmc as theirs

from grilly_optim.sampling import NUTS
from tests.parity.hamiltonian import DTYPES, Case, Run, Writer, moves
from tests.parity.hamiltonian_potentials import MASSES, POTENTIALS

pytestmark = pytest.mark.hypnettorch

TRANSITIONS = 120
# From a common state; float32 begins anew for every transition, because a tree multiplies rounding by its length.
TOGETHER = {"float64": 10, "float32": 1}
POSITIONS = {"float64": 1e-9, "float32": 5e-3}
WHOLE = 1e-3


def ours(case: Case, start: Any, device: str = "numpy", **options: Any) -> NUTS:
    return NUTS(start, case.potential.value_and_grad, inv_mass=case.inv_mass, variant="slice", device=device, **options)


def advance(sampler: NUTS, run: Run, first: int, last: int) -> list[Any]:
    """Make the transitions of a run of the original's with our sampler; every position from the first on."""
    sampler.simulate_chain(last - first, momentum=run.normal[first:last], uniform=run.uniforms(first, last))
    return sampler.position_trajectory


def compare(sampler: NUTS, run: Run, first: int, last: int, tolerance: float) -> None:
    """Decisions, trees and positions."""
    positions = advance(sampler, run, first, last)
    rows, stats = slice(first, last), sampler.sample_stats
    assert moves(positions) == run.moved[rows]
    assert stats["tree_depth"].tolist() == run.writer.values("nuts/tree_depth")[rows]
    assert stats["n_steps"].tolist() == run.leaves[rows]
    np.testing.assert_allclose(positions, run.positions[first : last + 1], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(-stats["lp"], run.writer.values("nuts/potential")[rows], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mass", MASSES)
@pytest.mark.parametrize("name", POTENTIALS)
def test_trees(name: str, mass: str, dtype: str) -> None:
    case = Case(name, mass, dtype)
    stepsize = case.potential.stepsize
    run = case.nuts(TRANSITIONS, stepsize=stepsize)
    assert {True, False} == set(run.moved), "a run should have both decisions"
    assert len(set(run.leaves)) > 1, "a run should have trees of several sizes"
    for first in range(0, TRANSITIONS, TOGETHER[dtype]):
        sampler = ours(case, run.positions[first], stepsize=stepsize)
        compare(sampler, run, first, first + TOGETHER[dtype], POSITIONS[dtype])


@pytest.mark.parametrize("name", POTENTIALS)
def test_whole_runs(name: str) -> None:
    case = Case(name, "vector", "float64")
    stepsize = 0.6 * case.potential.stepsize
    run = case.nuts(TRANSITIONS, stepsize=stepsize)
    writer = Writer()
    sampler = ours(case, case.start, stepsize=stepsize, writer=writer)
    compare(sampler, run, 0, TRANSITIONS, WHOLE)
    assert sampler.acceptance_probability == run.acceptance
    assert sampler.num_states == TRANSITIONS
    assert [(tag, step) for tag, _, step in writer.written] == [(tag, step) for tag, _, step in run.writer.written]
    mine, other = ([value for _, value, _ in w.written] for w in (writer, run.writer))
    np.testing.assert_allclose(mine, other, rtol=WHOLE, atol=WHOLE)


@pytest.mark.parametrize("mass", MASSES)
def test_on_every_device(mass: str, device: str) -> None:
    case = Case("dense Gaussian", mass, "float64")
    run = case.nuts(20, stepsize=0.5)
    compare(ours(case, case.start, device, stepsize=0.5), run, 0, 20, POSITIONS["float64"])


def test_delta_max_ends_trees() -> None:
    case = Case("diagonal Gaussian", "scalar", "float64")
    runs = {}
    for delta_max in (0.5, 1000.0):
        run = Case("diagonal Gaussian", "scalar", "float64").nuts(40, stepsize=0.55, delta_max=delta_max)
        sampler = ours(case, case.start, stepsize=0.55, delta_max=delta_max)
        compare(sampler, run, 0, 40, POSITIONS["float64"])
        runs[delta_max] = run.leaves
        assert sampler.sample_stats["diverging"].any() == (delta_max == 0.5)
    assert runs[0.5] != runs[1000.0]


def test_a_uniform_number_too_few_is_named() -> None:
    case = Case("banana", "scalar", "float64")
    run = case.nuts(5, stepsize=0.2)
    used = run.offsets[-1]
    sampler = ours(case, case.start, stepsize=0.2)
    with pytest.raises(ValueError, match=rf"\b{used - 1}\b") as caught:
        sampler.simulate_chain(5, momentum=run.normal, uniform=run.uniform[: used - 1])
    assert re.search("uniform", str(caught.value))


def test_there_is_no_number_of_steps() -> None:
    case = Case("banana", "scalar", "float64")
    for sampler in (ours(case, case.start), case.original(theirs.NUTS)):
        with pytest.raises(RuntimeError, match="num_steps"):
            _ = sampler.num_steps
        with pytest.raises(RuntimeError, match="num_steps"):
            sampler.num_steps = 3
