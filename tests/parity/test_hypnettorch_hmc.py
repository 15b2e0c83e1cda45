"""Side by side with hypnettorch's leapfrog, HMC and random walk, on the same draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypnettorch.utils import hmc as theirs

from grilly_optim.sampling import HMC, MCMC, leapfrog
from grilly_optim.sampling import potentials as library
from tests.parity import hamiltonian_potentials as known
from tests.parity.hamiltonian import DTYPES, Case, Run, Writer, moves, recorded, tensor
from tests.parity.hamiltonian_potentials import MASSES, POTENTIALS

pytestmark = pytest.mark.hypnettorch

TRANSITIONS, APART = 120, 10
# Over `APART` transitions from a common state; banana and funnel amplify rounding.
POSITIONS = {"float64": 1e-9, "float32": 5e-3}
TAGS = {
    "HMC": ("hmc/kinetic", "hmc/potential", "hmc/hamiltonian", "hmc/accept"),
    "MCMC": ("mh/potential", "mh/accept"),
}
STEPS = {"leapfrog": {"float64": 1e-10, "float32": 1e-4}, "whole": 1e-3}

potentials = pytest.mark.parametrize("name", POTENTIALS)
masses = pytest.mark.parametrize("mass", MASSES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def close(mine: Any, other: Any, tolerance: float) -> None:
    """Relative to the size, or to 1 where that is larger."""
    np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


@potentials
def test_the_gradients_of_both_writings_are_the_same(name: str) -> None:
    potential = POTENTIALS[name]
    for seed in range(5):
        q = tensor(potential.start(seed)).requires_grad_()
        value = potential.energy(q)
        (gradient,) = torch.autograd.grad(value, q)
        mine = potential.value_and_grad(q.detach().numpy())
        close(mine[0], value.item(), 1e-13)
        close(mine[1], gradient, 1e-13)


@dtypes
@masses
@potentials
@pytest.mark.parametrize(("factor", "num_steps"), [(1.0, 1), (0.5, 7), (-0.7, 5), (0.3, 20)])
def test_leapfrog(name: str, mass: str, dtype: str, factor: float, num_steps: int) -> None:
    case = Case(name, mass, dtype)
    stepsize = factor * case.potential.stepsize
    p = case.momentum(1)[0]
    start, kinetic = case.start.copy(), p.copy()
    mine = leapfrog(case.start, p, stepsize, num_steps, case.inv_mass, case.potential.value_and_grad)
    other = theirs.leapfrog(
        tensor(start, DTYPES[dtype]).requires_grad_(),
        tensor(kinetic, DTYPES[dtype]),
        stepsize,
        num_steps,
        tensor(case.inv_mass, DTYPES[dtype]),
        case.potential.energy,
    )
    for a, b in zip(mine, other, strict=True):
        assert a.dtype == dtype
        close(a, b.detach().numpy(), STEPS["leapfrog"][dtype])
    np.testing.assert_array_equal(case.start, start)
    np.testing.assert_array_equal(p, kinetic)


def ours(case: Case, make: Any, device: str, start: Any = None, **options: Any) -> Any:
    """Our sampler of that case, at its start or elsewhere."""
    if make is not MCMC:
        options["inv_mass"] = case.inv_mass
    position = case.start if start is None else start
    return make(position, case.ours, device=device, **options)


def advance(sampler: Any, run: Run, first: int, last: int) -> list[Any]:
    """Make the transitions of a run of the original's with our sampler; every position from the first on."""
    draws = {"normal" if isinstance(sampler, MCMC) else "momentum": run.normal[first:last]}
    sampler.simulate_chain(last - first, uniform=run.uniforms(first, last), **draws)
    trajectory: list[Any] = sampler.position_trajectory
    return trajectory


def compare(run: Run, case: Case, make: Any, device: str, **options: Any) -> None:
    """Ten transitions at a time, from where the original was; and then all of them in one go."""
    assert {True, False} == set(run.moved), "a run should have both decisions"
    for first in range(0, TRANSITIONS, APART):
        sampler = ours(case, make, device, run.positions[first], **options)
        positions = advance(sampler, run, first, first + APART)
        rows = slice(first, first + APART)
        assert moves(positions) == run.moved[rows]
        close(positions, run.positions[first : first + APART + 1], POSITIONS[case.dtype])
        compare_statistics(sampler, run, rows, POSITIONS[case.dtype])
    if case.dtype == "float64":
        writer = Writer()
        whole = ours(case, make, device, writer=writer, **options)
        positions = advance(whole, run, 0, TRANSITIONS)
        assert moves(positions) == run.moved
        close(positions, run.positions, STEPS["whole"])
        assert whole.acceptance_probability == run.acceptance
        assert whole.num_states == TRANSITIONS
        compare_writers(writer, run.writer, STEPS["whole"])


def compare_statistics(sampler: Any, run: Run, rows: slice, tolerance: float) -> None:
    """What each transition left behind."""
    stats = sampler.sample_stats
    values = {tag.rpartition("/")[2]: run.writer.values(tag)[rows] for tag in {t for t, _, _ in run.writer.written}}
    close(-stats["lp"], values["potential"], 10 * tolerance)
    if "hamiltonian" in values:
        close(stats["energy"], values["hamiltonian"], 10 * tolerance)
    falls = np.array([exponents[-1] for exponents in run.exponents[rows]])  # of the energy, to the proposal
    close(stats["acceptance_rate"], np.exp(np.minimum(0.0, falls)), 100 * tolerance)
    assert stats["diverging"].tolist() == (falls < -1000).tolist()


def compare_writers(mine: Writer, other: Writer, tolerance: float) -> None:
    """The same tags and steps in the same order, and the same values."""
    assert [(tag, step) for tag, _, step in mine.written] == [(tag, step) for tag, _, step in other.written]
    close([value for _, value, _ in mine.written], [value for _, value, _ in other.written], tolerance)


@dtypes
@masses
@potentials
@pytest.mark.parametrize(("factor", "num_steps"), [(1.0, 5), (1.4, 1)])
def test_hmc(name: str, mass: str, dtype: str, factor: float, num_steps: int) -> None:
    case = Case(name, mass, dtype)
    options: dict[str, Any] = {"stepsize": factor * case.potential.stepsize, "num_steps": num_steps}
    compare(case.hmc(TRANSITIONS, **options), case, HMC, "numpy", **options)


@dtypes
@potentials
def test_mcmc(name: str, dtype: str) -> None:
    case = Case(name, "scalar", dtype)
    options = {"proposal_std": case.potential.proposal_std}
    compare(case.mcmc(TRANSITIONS, **options), case, MCMC, "numpy", **options)


@dtypes
@masses
def test_on_every_device(mass: str, dtype: str, device: str) -> None:
    case = Case("diagonal Gaussian", mass, dtype)
    options: dict[str, Any] = {"stepsize": 0.4, "num_steps": 8}
    compare(case.hmc(TRANSITIONS, **options), case, HMC, device, **options)
    walk = {"proposal_std": case.potential.proposal_std}
    compare(case.mcmc(TRANSITIONS, **walk), case, MCMC, device, **walk)


BUILT_IN = {
    "standard normal": library.StandardNormal(7),
    "diagonal Gaussian": library.Gaussian(np.zeros(6), std=known.STDS),
    "dense Gaussian": library.Gaussian(known.MEAN, precision=known.PRECISION),
    "logistic regression": library.LogisticRegression(known.X, known.Y, known.PRIOR_STD),
    "banana": library.Banana(),
    "funnel": library.Funnel(5, known.FUNNEL_SCALE),
}


@dtypes
@pytest.mark.parametrize("mass", ["scalar", "vector"])
@potentials
def test_built_in_potentials(name: str, mass: str, dtype: str, device: str) -> None:
    case = Case(name, mass, dtype, potential=BUILT_IN[name])
    options: dict[str, Any] = {"stepsize": case.potential.stepsize, "num_steps": 5}
    compare(case.hmc(TRANSITIONS, **options), case, HMC, device, **options)


def pair(make: Any, **options: Any) -> tuple[Any, Any, Run]:
    """Ours and the original after seven transitions with the same draws."""
    case = Case("banana", "scalar", "float64")
    original = case.original(getattr(theirs, make.__name__), **options)
    run = recorded(original, 7, case.momentum(7) if make is HMC else case.normal(7), case.uniform(7))
    sampler = ours(case, make, "numpy", **options)
    advance(sampler, run, 0, 7)
    return sampler, original, run


@pytest.mark.parametrize("make", [HMC, MCMC])
def test_before_the_first_transition(make: Any) -> None:
    case = Case("banana", "scalar", "float64")
    for sampler in (ours(case, make, "numpy"), case.original(getattr(theirs, make.__name__))):
        assert sampler.num_states == 0
        assert sampler.acceptance_probability == 1.0
        assert len(sampler.position_trajectory) == 1
        for q in (sampler.position_trajectory[0], sampler.current_position):
            np.testing.assert_array_equal(q if isinstance(q, np.ndarray) else q.detach(), case.start)


@pytest.mark.parametrize("make", [HMC, MCMC])
@pytest.mark.parametrize("n", [None, 0, 1, 3, 8, 100, -2, -8, -100])
def test_clearing_the_trajectory(n: int | None, make: Any) -> None:
    sampler, original, run = pair(make)
    for one in (sampler, original):
        one.clear_position_trajectory(n) if n is not None else one.clear_position_trajectory()
    left = original.position_trajectory
    assert len(sampler.position_trajectory) == len(left)
    for a, b in zip(sampler.position_trajectory, left, strict=True):
        close(a, b.detach(), 1e-9)
    assert sampler.num_states == original.num_states == 7
    assert sampler.acceptance_probability == original.acceptance_probability
    close(sampler.current_position, original.current_position.detach(), 1e-9)
    kept = len(left) - (len(left) == 8)  # the first is no transition's
    assert all(len(values) == kept for values in sampler.sample_stats.values())
    more = run.normal[:2], run.uniform[:2]
    recorded(original, 2, *more)
    sampler.simulate_chain(2, **{"momentum" if make is HMC else "normal": more[0]}, uniform=more[1])
    assert len(sampler.position_trajectory) == len(original.position_trajectory)
    close(sampler.position_trajectory[-1], original.position_trajectory[-1].detach(), 1e-9)


def test_step_size_and_number_of_steps_may_change_between_transitions() -> None:
    sampler, original, run = pair(HMC, stepsize=0.1, num_steps=3)
    for one in (sampler, original):
        one.stepsize, one.num_steps = 2 * one.stepsize, one.num_steps + 4
        assert (one.stepsize, one.num_steps) == (0.2, 7)
    again = recorded(original, 7, run.normal, run.uniform)
    sampler.simulate_chain(7, momentum=run.normal, uniform=run.uniform)
    assert moves(sampler.position_trajectory[7:]) == again.moved
    close(sampler.position_trajectory[7:], again.positions, 1e-9)


def test_the_proposal_s_standard_deviation_may_change_between_transitions() -> None:
    sampler, original, run = pair(MCMC, proposal_std=0.2)
    for one in (sampler, original):
        one.proposal_std = 3 * one.proposal_std
        assert one.proposal_std == pytest.approx(0.6)
    again = recorded(original, 7, run.normal, run.uniform)
    sampler.simulate_chain(7, normal=run.normal, uniform=run.uniform)
    assert moves(sampler.position_trajectory[7:]) == again.moved
    close(sampler.position_trajectory[7:], again.positions, 1e-9)


@pytest.mark.parametrize("make", [HMC, MCMC])
def test_a_writer_may_have_a_tag(make: Any) -> None:
    case = Case("banana", "scalar", "float64")
    original = case.original(getattr(theirs, make.__name__), writer_tag="run/")
    run = recorded(original, 7, case.normal(7), case.uniform(7))
    writer = Writer()
    advance(ours(case, make, "numpy", writer=writer, writer_tag="run/"), run, 0, 7)
    assert {tag for tag, _, _ in writer.written} == {f"run/{tag}" for tag in TAGS[make.__name__]}
    compare_writers(writer, run.writer, 1e-9)
