"""Batches that the no-U-turn sampler advances: their draws, their failures, and that chains are on their own."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest

from grilly_optim import random
from grilly_optim.sampling import ChainFailed, _host, _host_nuts, _record, _tree_multinomial, _tree_slice
from grilly_optim.sampling._batch import Batch, Given, Nuts
from grilly_optim.sampling._host_nuts import NutsRunner
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from tests.interrupts import interrupted
from tests.nuts_reference import MultinomialReference, Point, Problem, Result, SliceReference

DIM, SEED = 3, 11
SCALES = np.array([0.5, 1.0, 2.0])
VARIANTS = pytest.mark.parametrize("variant", ["multinomial", "slice"])


class Rows:
    """A potential that takes batches, row by row in the same arithmetic, and counts them."""

    vectorized = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def value_and_grad(self, q: Any) -> tuple[Any, Any]:
        self.seen.append(len(q))
        scaled = q / SCALES.astype(q.dtype)
        return (0.5 * scaled**2 + 0.1 * scaled**4).sum(axis=1), (scaled + 0.4 * scaled**3) / SCALES.astype(q.dtype)


def one(q: Any) -> tuple[float, Any]:
    value, gradient = Rows().value_and_grad(q[None])
    return float(value[0]), gradient[0]


def masses() -> dict[str, Any]:
    root = np.random.default_rng(0).normal(size=(4, DIM, DIM))
    matrices = root @ np.swapaxes(root, 1, 2) + np.eye(DIM)
    each = np.array([0.5, 1.0, 2.0, 3.0])
    return {
        "one": (1.0, False),
        "scalar": (0.7, False),
        "vector": (SCALES**2, False),
        "matrix": (matrices[0], False),
        "scalars": (each, True),
        "vectors": (each[:, None] * SCALES, True),
        "matrices": (matrices, True),
    }


def batch_of(chains: Any, dtype: Any = np.float64, mass: str = "one", stepsize: Any = 0.2) -> Batch:
    """These of four chains, which differ in all they can differ in."""
    chains = list(chains)
    position = np.random.default_rng(1).normal(size=(4, DIM)).astype(dtype)
    array, per_chain = masses()[mass]
    return Batch(
        position[chains].copy(),
        (np.broadcast_to(stepsize, 4) * np.array([1.0, 1.2, 0.3, 0.8]))[chains],
        InverseMass(np.asarray(array)[chains] if per_chain else array, DIM, dtype, per_chain=per_chain),
        np.array([0, 1, 2, 7], np.uint32)[chains],
        np.array([0, 0, 5, 3])[chains],
        seed=SEED,
    )


def record_of(batch: Batch) -> Record:
    return Record(*batch.position.shape, batch.position.dtype, tree=True)


def run(batch: Batch, transitions: int, potential: Any = one, method: Nuts | None = None, **options: Any) -> Record:
    record = record_of(batch)
    runner = NutsRunner(potential, method or Nuts(), DIM, batch.position.dtype, "cpu")
    runner.run(batch, transitions, record, **options)
    return record


def assert_same(a: Record, b: Record, chain: Any = slice(None)) -> None:
    """The same bits: all of `a`, and these chains of `b`."""
    np.testing.assert_array_equal(a.positions, b.positions[:, chain])
    for name, values in a.stats.items():
        np.testing.assert_array_equal(values, b.stats[name][:, chain], name)


def transition(variant: str, problem: Problem, start: Point, key: tuple[int, int, int]) -> Result:
    depth = problem.max_tree_depth
    accept = random.uniform(2 << depth, *key, purpose="accept", dtype=np.float64).tolist()
    if variant == "slice":
        return SliceReference(problem, iter(accept)).run(start)
    direction = random.uniform(2 * depth, *key, purpose="direction", dtype=np.float64).tolist()
    return MultinomialReference(problem, direction, accept).run(start)


@VARIANTS
@pytest.mark.parametrize("mass", ["one", "vector", "matrices"])
def test_transitions_use_the_random_numbers_of_their_chain_and_number(variant: str, mass: str) -> None:
    batch = batch_of(range(4), mass=mass, stepsize=0.05)
    first = batch.position.copy()
    record = run(batch, 6, method=Nuts(max_tree_depth=8, variant=variant))
    array, per_chain = masses()[mass]
    for c, (stream, done) in enumerate([(0, 0), (1, 0), (2, 5), (7, 3)]):
        problem = Problem(one, array[c] if per_chain else array, float(batch.stepsize[c]), 1000.0, 8)
        q = first[c]
        for k in range(6):
            key = SEED, stream, done + k + 1
            normal = random.normal(DIM, *key, purpose="momentum", dtype=np.float64)
            p = InverseMass(problem.inv_mass, DIM, np.float64).momentum(normal[None].copy())[0]
            result = transition(variant, problem, Point(q, p, *one(q)), key)
            q = result.sample.q
            np.testing.assert_allclose(record.positions[k, c], q, rtol=1e-9)
            assert record.stats["n_steps"][k, c] == len(result.leaves)
            assert record.stats["lp"][k, c] == pytest.approx(-result.sample.u, rel=1e-9)
            q = record.positions[k, c].copy()
    assert record.stats["n_steps"].max() > 2 * 32  # numbers beyond those made ahead


@VARIANTS
@pytest.mark.parametrize("mass", masses())
@pytest.mark.parametrize("potential", [one, Rows()], ids=["rows", "vectorized"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_its_chains(variant: str, mass: str, potential: Any, dtype: Any) -> None:
    method = Nuts(variant=variant)
    together = run(batch_of(range(4), dtype, mass), 5, potential, method)
    assert together.positions.dtype == dtype
    for chain in range(4):
        assert_same(run(batch_of([chain], dtype, mass), 5, potential, method), together, [chain])
    assert_same(run(batch_of([3, 1], dtype, mass), 5, potential, method), together, [3, 1])


@VARIANTS
def test_pieces_are_the_whole(variant: str) -> None:
    whole_batch, batch = batch_of(range(4)), batch_of(range(4))
    runner = NutsRunner(one, Nuts(variant=variant), DIM, np.float64, "cpu")
    record = record_of(batch)
    for transitions in (1, 4, 0, 2):
        runner.run(batch, transitions, record)
    assert_same(record, run(whole_batch, 7, method=Nuts(variant=variant)))
    np.testing.assert_array_equal(batch.done, whole_batch.done)
    np.testing.assert_array_equal(batch.gradient, [one(q)[1] for q in batch.position])
    np.testing.assert_array_equal(batch.potential, [one(q)[0] for q in batch.position])


def test_a_vectorized_potential_sees_the_leaves_of_all_unfinished_trees_at_once() -> None:
    potential = Rows()
    steps = run(batch_of(range(4)), 5, potential).stats["n_steps"]
    assert potential.seen[0] == 4  # where they begin
    assert len(potential.seen) == 1 + steps.max(axis=1).sum()
    assert sum(potential.seen) == 4 + steps.sum()


class Rates:
    """An adaptation that notes what it is told."""

    def __init__(self, batch: Batch) -> None:
        self.stepsize = batch.stepsize.copy()
        self.rates: list[Any] = []

    def update(self, acceptance_rate: Any) -> None:
        self.rates.append(acceptance_rate)
        self.stepsize = self.stepsize * 0.5


def test_step_sizes_follow_the_adaptation() -> None:
    batch = batch_of(range(4))
    first = batch.stepsize.copy()
    adapt = Rates(batch)
    record = run(batch, 3, adapt=adapt)
    np.testing.assert_array_equal(record.stats["step_size"], first * np.array([[1], [0.5], [0.25]]))
    np.testing.assert_array_equal(record.stats["acceptance_rate"], adapt.rates)


class Broken(Exception):
    """What the user's own code raises."""


def breaking(at: int, error: BaseException, potential: Any) -> Any:
    """The potential, but for its `at`-th call."""
    calls = 0

    def broken(q: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return potential(q)

    return broken


@VARIANTS
@pytest.mark.parametrize("error", [Broken("no data"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_ends_a_run_leaves_whole_transitions(variant: str, error: BaseException) -> None:
    method = Nuts(variant=variant)
    whole = run(batch_of(range(4)), 6, method=method)
    evaluations = 4 + int(whole.stats["n_steps"][:3].sum())
    batch, record = batch_of(range(4)), record_of(batch_of(range(4)))
    # The second evaluation of the fourth transition: chain 1's first leaf.
    runner = NutsRunner(breaking(evaluations + 2, error, one), method, DIM, np.float64, "cpu")
    with pytest.raises(ChainFailed if isinstance(error, Broken) else KeyboardInterrupt) as caught:
        runner.run(batch, 6, record)
    if isinstance(error, Broken):
        assert isinstance(caught.value, ChainFailed)
        assert str(caught.value) == "chain 1 failed in transition 3: Broken: no data"
        assert (caught.value.chain, caught.value.step) == (1, 3)
        assert caught.value.__cause__ is error
    assert record.count == 3
    np.testing.assert_array_equal(batch.position, record.positions[-1])
    runner.run(batch, 3, record)
    assert_same(record, whole)


@VARIANTS
@pytest.mark.parametrize("chains", [[1], [0, 1]], ids=["single", "several"])
def test_an_interrupt_anywhere_leaves_whole_transitions(variant: str, chains: list[int]) -> None:
    """Ctrl-C in front of any line that grows trees and writes transitions down, and then on as if nothing had been."""
    method = Nuts(variant=variant, max_tree_depth=2)
    whole = run(batch_of(chains), 3, method=method)
    trees = ("multinomial_tree", "slice_tree", "_straight", "_numbers")
    places = ("run", "_write", "add", "_transition", "_begin", "_trees", "_grow", "_grow_one", *trees)
    modules = (_record, _host, _host_nuts, _tree_multinomial, _tree_slice)
    for line in range(1, 2000):
        batch = batch_of(chains)
        record = record_of(batch)
        runner = NutsRunner(one, method, DIM, np.float64, "cpu")
        done = not interrupted(partial(runner.run, batch, 2, record), line, places, *modules)
        assert record.count <= 2
        if record.count:
            np.testing.assert_array_equal(batch.position, record.positions[-1])
        runner.run(batch, 3 - record.count, record)
        assert_same(record, whole)
        if done:
            break
    assert done
    assert line > 100


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda q: q, "tuple"),
        (lambda q: (0.0, np.zeros(DIM + 1)), "gradient"),
        (lambda q: (np.zeros(DIM), q), "single number"),
        (lambda q: (1j, q), "real"),
        (lambda q: (None, q), "real"),
        (lambda q: (0.0, "abc"), "real"),
    ],
)
@pytest.mark.parametrize("chains", [[3], [3, 1]], ids=["single", "several"])
def test_what_a_potential_may_not_return(bad: Any, message: str, chains: list[int]) -> None:
    for good in (0, len(chains)):
        answers = itertools.chain([one] * good, itertools.repeat(bad))
        with pytest.raises(ChainFailed, match=f"^chain 7 failed in transition 3: .*{message}"):
            run(batch_of(chains), 2, lambda q, answers=answers: next(answers)(q))


def test_the_chain_that_failed_is_named_where_others_are_done() -> None:
    steps = run(batch_of(range(4)), 1).stats["n_steps"][0]
    last = int(np.argmax(steps))
    assert np.sum(steps == steps[last]) == 1
    assert last != 0
    with pytest.raises(ChainFailed) as caught:
        run(batch_of(range(4)), 1, breaking(4 + int(steps.sum()), Broken(), one))
    assert caught.value.chain == [0, 1, 2, 7][last]


def test_a_gradient_may_be_the_potentials_own_array() -> None:
    own = np.empty(DIM)

    def reusing(q: Any) -> tuple[float, Any]:
        value, own[:] = one(q)
        return value, own

    assert_same(run(batch_of([0]), 5, reusing), run(batch_of([0]), 5))


def test_positions_that_a_potential_sees_cannot_be_changed() -> None:
    seen = []

    def noting(q: Any) -> tuple[float, Any]:
        seen.append((q, q.copy()))
        return one(q)

    for chains in ([0], [0, 1]):
        run(batch_of(chains), 2, noting)
    assert not any(q.flags.writeable for q, _ in seen)


def test_given_momenta_are_used_as_they_are() -> None:
    momentum = np.random.default_rng(2).normal(size=(4, 1, DIM))
    batch = batch_of([2], mass="vector")
    q = batch.position[0].copy()
    record = run(batch, 4, given=Given(momentum.copy()))
    problem = Problem(one, SCALES**2, float(batch.stepsize[0]), 1000.0, 10)
    for k in range(4):
        result = transition("multinomial", problem, Point(q, momentum[k, 0], *one(q)), (SEED, 2, 6 + k))
        np.testing.assert_allclose(record.positions[k, 0], result.sample.q, rtol=1e-9)
        q = record.positions[k, 0].copy()


def test_given_uniforms_of_the_slice_are_consumed_in_a_row() -> None:
    rng = np.random.default_rng(2)
    momentum, uniform = rng.normal(size=(4, 1, DIM)), rng.random(4000)
    batch = batch_of([2])
    q = batch.position[0].copy()
    record = run(batch, 4, method=Nuts(variant="slice"), given=Given(momentum, uniform))
    problem = Problem(one, 1.0, float(batch.stepsize[0]), 1000.0, 10)
    numbers = iter(uniform.tolist())
    for k in range(4):
        result = SliceReference(problem, numbers).run(Point(q, momentum[k, 0], *one(q)))
        np.testing.assert_allclose(record.positions[k, 0], result.sample.q, rtol=1e-9)
        q = record.positions[k, 0].copy()
    used = 4000 - len(list(numbers))

    again, short = batch_of([2]), record_of(batch)
    runner = NutsRunner(one, Nuts(variant="slice"), DIM, np.float64, "cpu")
    with pytest.raises(ValueError, match=r"^uniform has too few numbers: \d+ of \d+ were used by 3 whole") as caught:
        runner.run(again, 4, short, given=Given(momentum, uniform[: used - 1]))
    assert short.count == 3
    # And what was used is left out to go on.
    spent = int(str(caught.value).split()[5])
    runner.run(again, 1, short, given=Given(momentum[3:], uniform[spent:]))
    assert_same(short, record)
