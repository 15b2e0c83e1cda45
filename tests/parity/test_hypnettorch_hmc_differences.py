"""Where hypnettorch's Hamiltonian samplers do something else than ours: each test shows both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypnettorch.utils import hmc as theirs

from grilly_optim.sampling import HMC, MCMC, NUTS, ChainFailed, MultiChainHMC, leapfrog
from tests.parity.hamiltonian import Case, CountedNUTS, Writer, given, moves, recorded, tensor
from tests.parity.hamiltonian_potentials import POTENTIALS

pytestmark = pytest.mark.hypnettorch

NORMAL = POTENTIALS["standard normal"]
TRANSITIONS = 30


def gaussian(q: Any) -> Any:
    return 0.5 * (q * q).sum()


def value_and_grad(q: Any) -> tuple[Any, Any]:
    return 0.5 * (q @ q), q


def calls(limit: int, value: Any) -> Callable[[Any], Any]:
    """A potential that raises Enough after so many calls."""
    left = iter(range(limit))

    def limited(q: Any) -> Any:
        if next(left, None) is None:
            raise Enough
        return value(q)

    return limited


class Enough(Exception):
    pass


# NUTS.


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 200.0), ("float64", 800.0)])
def test_a_constant_in_the_potential_changes_no_draw_where_the_original_s_slice_leaves_its_range(
    dtype: str, offset: float
) -> None:
    case = Case("standard normal", "scalar", dtype)
    momentum, uniform = case.momentum(TRANSITIONS), case.uniform(200 * TRANSITIONS)
    energy, pair = case.potential.energy, case.potential.value_and_grad

    def original(constant: float) -> Any:
        sampler = CountedNUTS(tensor(case.start, case.torch_dtype), lambda q: energy(q) + constant, 1.4)
        return recorded(sampler, TRANSITIONS, momentum, uniform)

    def ours(constant: float) -> list[Any]:
        def shifted(q: Any) -> Any:
            value, gradient = pair(q)
            return value.astype(np.float64) + constant, gradient

        sampler = NUTS(case.start, shifted, 1.4, variant="slice", device="numpy")
        sampler.simulate_chain(TRANSITIONS, momentum=momentum, uniform=plain.uniforms(0, TRANSITIONS))
        return sampler.position_trajectory

    plain, above, below = original(0.0), original(offset), original(-offset)
    assert 0 < plain.acceptance < 1
    assert above.acceptance == 1.0, "log 0: every leaf is in the slice"
    assert below.acceptance == 0.0, "an infinite slice: no leaf is in it"
    for constant in (0.0, offset, -offset, 1e6, -1e6):
        positions = ours(constant)
        assert moves(positions) == plain.moved
        np.testing.assert_array_equal(positions, ours(0.0))


def test_trees_have_a_largest_depth_where_the_original_s_grow_without_end() -> None:
    far = calls(5000, lambda q: 0.0 * q.sum())
    with pytest.raises(Enough):
        theirs.NUTS(torch.ones(2), far, 0.1).simulate_chain(1)
    sampler = NUTS(np.ones(2), lambda q: (0.0, np.zeros(2)), 0.1, device="numpy")
    sampler.simulate_chain(1)
    stats = sampler.sample_stats
    assert (stats["tree_depth"][0], stats["n_steps"][0]) == (10, 1023)
    assert stats["reached_max_treedepth"].all()


@pytest.mark.parametrize("variant", ["multinomial", "slice"])
def test_a_leaf_that_is_no_number_is_a_divergence_that_is_reported(variant: str) -> None:
    def broken(q: Any) -> Any:
        return gaussian(q) if abs(q[0]) < 1 else gaussian(q) * float("nan")

    original = CountedNUTS(torch.zeros(2), broken, 0.9)
    torch.manual_seed(0)
    original.simulate_chain(TRANSITIONS)
    assert all(q.isfinite().all() for q in original.position_trajectory)
    sampler = NUTS(np.zeros(2), lambda q: (broken(q), q), 0.9, variant=variant, device="numpy")
    sampler.simulate_chain(TRANSITIONS)
    assert np.isfinite(sampler.position_trajectory).all()
    assert np.abs(np.array(sampler.position_trajectory)[:, 0]).max() < 1
    assert sampler.sample_stats["diverging"].any()
    assert sampler.acceptance_probability > 0


def test_the_acceptance_rate_of_trees_is_metropolis_where_the_original_has_the_share_of_moves_alone() -> None:
    case = Case("standard normal", "scalar", "float64")
    run = case.nuts(TRANSITIONS, stepsize=1.4)
    sampler = NUTS(case.start, case.potential.value_and_grad, 1.4, inv_mass=case.inv_mass, variant="slice")
    sampler.simulate_chain(TRANSITIONS, momentum=run.normal, uniform=run.uniforms(0, TRANSITIONS))
    assert sampler.acceptance_probability == run.acceptance
    rates = sampler.sample_stats["acceptance_rate"]
    assert ((rates > 0) & (rates <= 1)).all()
    assert rates.mean() < run.acceptance


# Random walks.


def test_a_proposal_that_is_no_number_is_rejected_where_the_original_s_walk_accepts_it() -> None:
    def broken(q: Any) -> Any:
        return gaussian(q) if abs(q[0]) < 1 else gaussian(q) * float("nan")

    case = Case("banana", "scalar", "float64")
    normal, uniform = case.normal(TRANSITIONS), case.uniform(TRANSITIONS)
    original = theirs.MCMC(torch.zeros(2, dtype=torch.float64), broken, 2.0)
    recorded(original, TRANSITIONS, normal, uniform)
    outside = [not bool(abs(q[0]) < 1) for q in original.position_trajectory]
    assert any(outside)
    sampler = MCMC(np.zeros(2), lambda q: (broken(q), q), 2.0, device="numpy")
    sampler.simulate_chain(TRANSITIONS, normal=normal, uniform=uniform)
    assert np.abs(np.array(sampler.position_trajectory)[:, 0]).max() < 1
    assert 0 < sampler.acceptance_probability < original.acceptance_probability


def graph(node: Any) -> int:
    """How many nodes there are behind one."""
    seen, open_ = set(), [node]
    while open_:
        node = open_.pop()
        if node is not None and node not in seen:
            seen.add(node)
            open_ += [parent for parent, _ in node.next_functions]
    return len(seen)


@pytest.mark.parametrize("make", [HMC, MCMC])
def test_a_state_is_an_array_where_the_original_s_drags_its_history_along(make: Any) -> None:
    original = getattr(theirs, make.__name__)(torch.ones(2), gaussian, 0.3)
    sizes = []
    for _ in range(2):
        original.simulate_chain(20)
        sizes.append(graph(original.current_position.grad_fn))
    assert sizes[0] > 1
    if make is MCMC:
        assert sizes[1] > sizes[0] + 10, "it grows with every accepted state"
    sampler = make(np.ones(2), value_and_grad, 0.3, device="numpy")
    sampler.simulate_chain(20)
    assert type(sampler.current_position) is np.ndarray
    assert sampler.current_position.base is None or sampler.current_position.base.size == 2


# Chains.


def test_k_chains_are_those_with_the_fewest_states_where_the_original_takes_all() -> None:
    original = theirs.MultiChainHMC([torch.ones(2) for _ in range(4)], gaussian)
    original.simulate_chains(3, num_chains=1)
    assert [c.num_states for c in original.chains] == [3, 3, 3, 3]
    mine = MultiChainHMC(np.ones((4, 2)), value_and_grad)
    for k, states in ((1, [3, 0, 0, 0]), (2, [3, 3, 3, 0]), (3, [6, 6, 3, 3]), (9, [9, 9, 6, 6])):
        mine.simulate_chains(3, num_chains=k)
        assert [c.num_states for c in mine.chains] == states


HANGS = """
import torch
from hypnettorch.utils.hmc import MultiChainHMC
def potential(q):
    raise RuntimeError("no more")
print("begins", flush=True)
MultiChainHMC([torch.ones(2)] * 2, potential).simulate_chains(1, num_parallel=2)
"""


def test_a_potential_that_raises_is_an_error_of_its_chain_where_the_original_waits_for_ever() -> None:
    with subprocess.Popen([sys.executable, "-c", HANGS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as original:
        assert original.stdout is not None
        assert original.stderr is not None
        assert original.stdout.readline() == b"begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            original.wait(4)
        original.kill()
        assert original.stderr.read().count(b"RuntimeError: no more") == 2, "both threads are over"

    mine = MultiChainHMC(np.ones((3, 2)), [value_and_grad, calls(10, value_and_grad), value_and_grad])
    with pytest.raises(ChainFailed, match=r"chain 1\b") as failed:
        mine.simulate_chains(30, num_parallel=1)
    assert isinstance(failed.value.__cause__, Enough)
    assert failed.value.chain == 1
    assert mine.chains[0].num_states == 30
    assert 0 < mine.chains[1].num_states < 30
    assert len(mine.chains[1].position_trajectory) == mine.chains[1].num_states + 1


def test_draws_follow_from_the_seed_where_the_original_s_threads_share_a_global_generator() -> None:
    runs = []
    for number in (1, 2):
        torch.manual_seed(0)
        torch.rand(number)
        original = theirs.HMC(torch.ones(2), gaussian)
        original.simulate_chain(3)
        runs.append(original.current_position.tolist())
    assert runs[0] != runs[1]
    chains = []
    for num_parallel in (None, 1, 3):
        mine = MultiChainHMC(np.ones((4, 2)), value_and_grad, seed=3)
        mine.simulate_chains(5, num_parallel=num_parallel)
        chains.append([c.position_trajectory for c in mine.chains])
    np.testing.assert_array_equal(chains[0], chains[1])
    np.testing.assert_array_equal(chains[0], chains[2])
    assert not np.array_equal(chains[0][0], chains[0][1])


def test_a_chain_that_is_named_twice_is_refused_where_the_original_warns_and_reorders() -> None:
    original = theirs.MultiChainHMC([torch.ones(2) for _ in range(3)], gaussian)
    with pytest.warns(UserWarning, match="Duplicates"):
        original.simulate_chains(1, num_chains=[2, 0, 2])
    mine = MultiChainHMC(np.ones((3, 2)), value_and_grad)
    with pytest.raises(ValueError, match="num_chains"):
        mine.simulate_chains(1, num_chains=[2, 0, 2])
    assert [c.num_states for c in mine.chains] == [0, 0, 0]


def test_no_chains_are_refused_where_the_original_takes_them() -> None:
    assert theirs.MultiChainHMC([], gaussian).num_chains == 0
    with pytest.raises(ValueError, match="initial_positions"):
        MultiChainHMC([], value_and_grad)


def test_a_writer_is_whatever_adds_scalars_where_the_original_takes_one_class_alone() -> None:
    with pytest.raises(AssertionError):
        theirs.MultiChainHMC([torch.ones(2), torch.ones(2)], gaussian, writer=Writer())
    writer = Writer()
    MultiChainHMC(np.ones((2, 2)), value_and_grad, writer=writer).simulate_chains(1)
    assert "chain_1/hmc/accept" in {tag for tag, _, _ in writer.written}


def test_a_path_is_no_writer_where_the_original_makes_writers_there(tmp_path: Any) -> None:
    original = theirs.MultiChainHMC([torch.ones(2), torch.ones(2)], gaussian, writer=str(tmp_path))
    original.simulate_chains(1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain_0", "chain_1"]
    with pytest.raises(TypeError, match="writer"):
        MultiChainHMC(np.ones((2, 2)), value_and_grad, writer=str(tmp_path))


class TorchsWriter(Writer):
    """With the arguments of `torch.utils.tensorboard`."""

    def add_scalar(self, tag: str, value: Any, global_step: Any = None) -> None:  # type: ignore[override]
        super().add_scalar(tag, value, global_step)


@pytest.mark.parametrize("make", [HMC, NUTS, MCMC])
def test_torch_s_writers_will_do_where_the_original_names_an_argument_of_tensorboardx_alone(make: Any) -> None:
    original = getattr(theirs, make.__name__)(torch.ones(2), gaussian, 0.1, writer=TorchsWriter())
    with pytest.raises(TypeError, match="display_name"):
        original.simulate_chain(1)
    writer = TorchsWriter()
    make(np.ones(2), value_and_grad, 0.1, writer=writer).simulate_chain(1)
    assert writer.written


def test_a_list_of_loggers_stays_as_it_is_where_the_original_fills_it_in() -> None:
    loggers: list[Any] = [None, None]
    theirs.MultiChainHMC([torch.ones(2), torch.ones(2)], gaussian, logger=loggers)
    assert None not in loggers
    mine: list[Any] = [None, None]
    MultiChainHMC(np.ones((2, 2)), value_and_grad, logger=mine).simulate_chains(1)
    assert mine == [None, None]


# Positions and masses.


def test_the_caller_s_array_is_copied_where_the_original_keeps_and_changes_it() -> None:
    position = torch.ones(2)
    original = theirs.HMC(position, gaussian)
    assert position.requires_grad
    assert original.position_trajectory[0] is position
    start = np.ones(2)
    sampler = HMC(start, value_and_grad)
    start[:] = 9
    np.testing.assert_array_equal(sampler.position_trajectory[0], [1, 1])
    np.testing.assert_array_equal(sampler.current_position, [1, 1])
    sampler.simulate_chain(3)
    np.testing.assert_array_equal(start, [9, 9])
    kept = sampler.current_position.copy()
    sampler.position_trajectory[-1][:] = 7
    np.testing.assert_array_equal(sampler.current_position, kept)


@pytest.mark.parametrize(
    ("dim", "mass"),
    [(1, np.array([[0.5]])), (3, np.array([0.5])), (3, np.array(0.5))],
    ids=["1 x 1 matrix", "vector of one", "array without axes"],
)
def test_a_mass_goes_by_its_axes_where_the_original_goes_by_its_elements(dim: int, mass: Any) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        theirs.HMC(torch.ones(dim), gaussian, 0.1, 3, tensor(mass, torch.float32)).simulate_chain(2)
    if mass.shape == (1,):
        with pytest.raises(ValueError, match="inv_mass"):
            HMC(np.ones(dim), value_and_grad, 0.1, 3, mass)
        return
    samplers = [HMC(np.ones(dim), value_and_grad, 0.1, 3, m) for m in (mass, 0.5)]
    for sampler in samplers:
        sampler.simulate_chain(5)
    np.testing.assert_allclose(samplers[0].position_trajectory, samplers[1].position_trajectory, rtol=1e-12)


def test_numpy_arrays_will_do_where_the_original_fails() -> None:
    with pytest.raises(AttributeError):
        theirs.HMC(np.ones(2), gaussian)
    with pytest.raises((TypeError, ValueError)):
        theirs.HMC(torch.ones(2), gaussian, inv_mass=np.ones(2))
    sampler = HMC(np.ones(2), value_and_grad, inv_mass=np.ones(2))
    sampler.simulate_chain(2)
    assert sampler.num_states == 2


def test_an_inverse_mass_of_0_is_refused_where_the_original_never_moves_again() -> None:
    mass = np.array([1.0, 0.0])
    original = theirs.HMC(torch.ones(2), gaussian, inv_mass=tensor(mass, torch.float32))
    original.simulate_chain(10)
    assert original.acceptance_probability == 0
    with pytest.raises(ValueError, match="inv_mass"):
        HMC(np.ones(2), value_and_grad, inv_mass=mass)


# Steps.


def test_no_steps_are_refused_where_the_original_kicks_twice() -> None:
    q, p = torch.ones(2, requires_grad=True), torch.zeros(2)
    position, momentum = theirs.leapfrog(q, p, 0.1, 0, 1.0, gaussian)
    np.testing.assert_array_equal(position.detach(), [1, 1])
    np.testing.assert_allclose(momentum.detach(), [-0.1, -0.1], rtol=1e-6)
    with pytest.raises(ValueError, match="num_steps"):
        leapfrog(np.ones(2), np.zeros(2), 0.1, 0, 1.0, value_and_grad)
    for num_steps in (0, -1):
        theirs.HMC(torch.ones(2), gaussian, num_steps=num_steps).simulate_chain(1)
        with pytest.raises(ValueError, match="num_steps"):
            HMC(np.ones(2), value_and_grad, num_steps=num_steps)


@pytest.mark.parametrize("stepsize", [0.0, float("nan"), float("inf")])
def test_a_step_size_that_is_none_is_refused_where_the_original_stays_where_it_is(stepsize: float) -> None:
    original = theirs.HMC(torch.ones(2), gaussian, stepsize)
    original.simulate_chain(3)
    assert all(torch.equal(q, torch.ones(2)) for q in original.position_trajectory)
    with pytest.raises(ValueError, match="stepsize"):
        HMC(np.ones(2), value_and_grad, stepsize)


@pytest.mark.parametrize("energy", [float("inf"), float("nan")])
def test_an_infinite_energy_at_first_is_refused_where_the_original_leaves_it_or_stays_for_ever(energy: float) -> None:
    def wall(q: Any) -> Any:
        return gaussian(q) if q[0] != 1 else gaussian(q) * energy

    original = theirs.HMC(torch.ones(2), wall, 0.5, 3)
    original.simulate_chain(5)
    stayed = all(torch.equal(q, torch.ones(2)) for q in original.position_trajectory)
    assert stayed or energy == float("inf")
    with pytest.raises(ValueError, match="initial_position"):
        HMC(np.ones(2), lambda q: (wall(q), q), 0.5, 3).simulate_chain(1)


@pytest.mark.parametrize("num_steps", [1, 10])
def test_a_transition_takes_one_gradient_per_step_where_the_original_computes_it_anew(num_steps: int) -> None:
    counts = {"original": 0, "ours": 0}

    def counted(q: Any) -> Any:
        counts["original"] += 1
        return gaussian(q)

    def ours(q: Any) -> Any:
        counts["ours"] += 1
        return value_and_grad(q)

    theirs.HMC(torch.ones(2), counted, 0.1, num_steps).simulate_chain(TRANSITIONS)
    assert counts["original"] == TRANSITIONS * (num_steps + 3)
    HMC(np.ones(2), ours, 0.1, num_steps, device="numpy").simulate_chain(TRANSITIONS)
    assert counts["ours"] == TRANSITIONS * num_steps + 1


def test_a_leaf_takes_one_gradient_where_the_original_s_takes_three_evaluations() -> None:
    counts = {"original": 0, "ours": 0}
    case = Case("banana", "scalar", "float64")

    def counted(q: Any) -> Any:
        counts["original"] += 1
        return case.potential.energy(q)

    def ours(q: Any) -> Any:
        counts["ours"] += 1
        return case.potential.value_and_grad(q)

    original = CountedNUTS(tensor(case.start), counted, 0.2)
    run = recorded(original, TRANSITIONS, case.momentum(TRANSITIONS), case.uniform(12_000))
    # At the beginning of a transition, and again where it moved.
    assert counts["original"] == 3 * sum(run.leaves) + TRANSITIONS + sum(run.moved)
    sampler = NUTS(case.start, ours, 0.2, variant="slice", device="numpy")
    sampler.simulate_chain(TRANSITIONS, momentum=run.normal, uniform=run.uniforms(0, TRANSITIONS))
    assert sampler.sample_stats["n_steps"].tolist() == run.leaves
    assert counts["ours"] == sum(run.leaves) + 1


def test_energies_are_sums_in_double_where_the_original_s_are_in_the_position_s_precision() -> None:
    rng = np.random.default_rng(0)
    q, p = (rng.standard_normal(1_000_000, dtype=np.float32) for _ in range(2))
    exact = 0.5 * (q.astype(np.float64) @ q + p.astype(np.float64) @ p)
    # A step that is far too long: both reject, and report where they began.
    writer = Writer()
    original = theirs.HMC(torch.tensor(q), gaussian, 1.9, writer=writer)
    with given(original, uniform=[0.5], normal=p[None], dtype=torch.float32):
        original.simulate_chain(1)
    assert original.acceptance_probability == 0
    lost = abs(writer.values("hmc/hamiltonian")[0] - exact)

    def in_double(position: Any) -> Any:
        return 0.5 * np.einsum("d,d->", position, position, dtype=np.float64), position

    sampler = HMC(q, in_double, 1.9, device="numpy")
    sampler.simulate_chain(1, momentum=p[None], uniform=np.array([0.5], np.float32))
    assert sampler.acceptance_probability == 0
    assert abs(sampler.sample_stats["energy"][0] - exact) < lost / 10
