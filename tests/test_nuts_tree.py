"""Trees of the no-U-turn sampler against the papers' recursion, leaf by leaf."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling._tree import Dynamics, Outcome, State, Tree, dot_of
from grilly_optim.sampling._tree_multinomial import multinomial_tree
from grilly_optim.sampling._tree_slice import slice_tree
from tests.nuts_reference import MultinomialReference, Point, Potential, Problem, Result, SliceReference


def grown(tree: Tree, problem: Problem) -> tuple[list[Any], Outcome]:
    """The leaves' positions and what came out."""
    positions: list[Any] = []
    try:
        q = next(tree)
        while True:
            positions.append(q)
            q = tree.send(problem.potential(q))
    except StopIteration as end:
        return positions, end.value


def dynamics_of(problem: Problem) -> Dynamics:
    return Dynamics(problem.stepsize, problem.velocity, dot_of(np.float64), problem.delta_max, problem.max_tree_depth)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, np.random.Generator, int]:
    """Potentials with turns, walls and holes, at step sizes from fine to far too large, and every kind of mass."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim = draw(st.integers(1, 5))
    scales = np.exp(rng.normal(size=dim) * draw(st.sampled_from((0.0, 0.5, 2.0))))
    quartic = draw(st.sampled_from((0.0, 0.3)))
    wall = draw(st.sampled_from((np.inf, 2.0, 0.7)))
    beyond = draw(st.sampled_from((np.nan, np.inf, -np.inf, 500.0)))

    def potential(q: Any) -> tuple[float, Any]:
        if abs(q[0]) > wall:
            return beyond, np.zeros(dim)
        return float(0.5 * (q / scales) @ (q / scales) + quartic * (q**4).sum()), q / scales**2 + 4 * quartic * q**3

    root = rng.normal(size=(dim, dim))
    mass = draw(st.sampled_from(("scalar", "vector", "matrix")))
    inv_mass = {"scalar": 1.7, "vector": scales**2, "matrix": root @ root.T + np.eye(dim)}[mass]
    stepsize = draw(st.sampled_from((0.03, 0.1, 0.3, 0.9, 2.5)))
    delta_max = draw(st.sampled_from((1000.0, 0.5, math.inf)))
    return Problem(potential, inv_mass, stepsize, delta_max, draw(st.integers(1, 8))), rng, dim


def beginning(problem: Problem, rng: np.random.Generator, dim: int) -> Point:
    q = rng.uniform(-0.6, 0.6, dim)
    return Point(q, rng.normal(size=dim), *problem.potential(q))


def assert_same(positions: list[Any], outcome: Outcome, expected: Result, problem: Problem, start: Point) -> None:
    assert len(positions) == outcome.n_steps == len(expected.leaves)
    np.testing.assert_allclose(positions, [z.q for z in expected.leaves], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(outcome.state.position, expected.sample.q, rtol=1e-9, atol=1e-12)
    assert (outcome.moved, outcome.tree_depth) == (expected.moved, expected.depth)
    assert (outcome.diverging, outcome.reached_max_treedepth) == (expected.diverging, expected.limited)
    assert outcome.energy == pytest.approx(problem.energy(expected.sample), rel=1e-9)
    changes = np.array([problem.energy(z) - problem.energy(start) for z in expected.leaves])
    rates = np.where(np.isnan(changes) | (changes == -np.inf), 0.0, np.exp(-np.maximum(changes, 0)))
    assert outcome.acceptance_rate == pytest.approx(rates.mean(), rel=1e-9, abs=1e-300)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_multinomial_trees_are_the_papers(made: tuple[Problem, np.random.Generator, int]) -> None:
    problem, rng, dim = made
    start = beginning(problem, rng, dim)
    direction, accept = (
        rng.random(2 * problem.max_tree_depth).tolist(),
        rng.random(1 << problem.max_tree_depth).tolist(),
    )
    expected = MultinomialReference(problem, direction, accept).run(start)
    tree = multinomial_tree(State(start.q, start.u, start.g), start.p, dynamics_of(problem), direction, iter(accept))
    assert_same(*grown(tree, problem), expected, problem, start)


@settings(max_examples=300, deadline=None)
@given(problems(), st.booleans())
def test_slice_trees_are_the_papers(made: tuple[Problem, np.random.Generator, int], zero: bool) -> None:
    problem, rng, dim = made
    start = beginning(problem, rng, dim)
    uniforms = rng.random(2 << problem.max_tree_depth).tolist()
    if zero:
        uniforms[0] = 0.0  # log u is -inf: every leaf counts
    of_paper, of_sampler = iter(uniforms), iter(uniforms)
    expected = SliceReference(problem, of_paper).run(start)
    tree = slice_tree(State(start.q, start.u, start.g), start.p, dynamics_of(problem), of_sampler)
    assert_same(*grown(tree, problem), expected, problem, start)
    assert next(of_paper) == next(of_sampler)  # as many were consumed


def uniforms_of(rng: np.random.Generator, problem: Problem) -> tuple[list[float], list[float]]:
    """Directions and acceptances of one transition."""
    return rng.random(2 * problem.max_tree_depth).tolist(), rng.random(1 << problem.max_tree_depth).tolist()


def multinomial(problem: Problem, start: Point, direction: list[float], accept: list[float]) -> Tree:
    state = State(start.q, start.u, start.g)
    return multinomial_tree(state, start.p, dynamics_of(problem), direction, iter(accept))


def sliced(problem: Problem, start: Point, uniforms: list[float]) -> Tree:
    return slice_tree(State(start.q, start.u, start.g), start.p, dynamics_of(problem), iter(uniforms))


def half_square(q: Any) -> tuple[float, Any]:
    return 0.5 * float(q @ q), q.copy()


def test_the_checks_across_joins_end_trees_that_resonate() -> None:
    """Nearly 8 steps to a period: halves end where they began, and their sums hide that they went round."""

    class WholeSpansOnly(MultinomialReference):
        def turns(self, left: list[Point], right: list[Point]) -> bool:
            return not self.straight(left + right)

    problem = Problem(half_square, 1.0, 0.78, 1000.0, 10)
    rng = np.random.default_rng(3)
    for _ in range(10):
        start = Point(q := rng.normal(size=100), rng.normal(size=100), *half_square(q))
        direction, accept = uniforms_of(rng, problem)
        assert len(WholeSpansOnly(problem, direction, accept).run(start).leaves) > 100
        _, outcome = grown(multinomial(problem, start, direction, accept), problem)
        assert outcome.n_steps == 7


@pytest.mark.parametrize("constant", [200.0, -200.0, 1e6, -1e6])
@settings(max_examples=25, deadline=None)
@given(made=problems())
def test_a_constant_in_the_potential_changes_nothing(
    constant: float, made: tuple[Problem, np.random.Generator, int]
) -> None:
    problem, rng, dim = made
    base = problem.potential
    shifted = dataclasses.replace(problem, potential=lambda q: (base(q)[0] + constant, base(q)[1]))
    start = beginning(problem, rng, dim)
    high = start._replace(u=start.u + constant)
    direction, accept = uniforms_of(rng, problem)
    uniforms = rng.random(2 << problem.max_tree_depth).tolist()
    for pair in (
        [multinomial(problem, start, direction, accept), multinomial(shifted, high, direction, accept)],
        [sliced(problem, start, uniforms), sliced(shifted, high, uniforms)],
    ):
        leaves, outcome = grown(pair[0], problem)
        shifted_leaves, shifted_outcome = grown(pair[1], shifted)
        np.testing.assert_array_equal(shifted_leaves, leaves)
        np.testing.assert_array_equal(shifted_outcome.state.position, outcome.state.position)
        assert shifted_outcome[3:] == (pytest.approx(outcome.acceptance_rate, rel=1e-6), *outcome[4:])


@pytest.mark.parametrize("variant", ["multinomial", "slice"])
@pytest.mark.parametrize("depth", [1, 2, 5, 10])
def test_nothing_but_the_limit_ends_a_tree_on_a_plane(variant: str, depth: int) -> None:
    problem = Problem(lambda q: (0.0, np.zeros(3)), 1.0, 0.1, 1000.0, depth)
    rng = np.random.default_rng(5)
    start = Point(np.zeros(3), rng.normal(size=3), 0.0, np.zeros(3))
    direction, accept = uniforms_of(rng, problem)
    if variant == "multinomial":
        tree = multinomial(problem, start, direction, accept)
    else:
        tree = sliced(problem, start, rng.random(2 << depth).tolist())
    leaves, outcome = grown(tree, problem)
    assert len(leaves) == outcome.n_steps == 2**depth - 1
    assert (outcome.tree_depth, outcome.reached_max_treedepth, outcome.diverging) == (depth, True, False)
    assert outcome.acceptance_rate == 1.0
    # Each leaf once, in a row through the start.
    steps = np.sort(np.array(leaves) @ start.p / (0.1 * start.p @ start.p)).round(6)
    np.testing.assert_array_equal(np.sort([*steps, 0.0]), np.arange(2**depth) + steps[0].clip(max=0))


@pytest.mark.parametrize("variant", ["multinomial", "slice"])
@pytest.mark.parametrize("there", [math.nan, math.inf, -math.inf, 1e9])
def test_a_leaf_of_such_energy_is_a_divergence(variant: str, there: float) -> None:
    problem = Problem(lambda q: (there, np.zeros(1)), 1.0, 0.1, 1000.0, 10)
    start = Point(np.zeros(1), np.ones(1), 0.0, np.zeros(1))
    tree = (
        multinomial(problem, start, [0.7] * 20, [0.0])
        if variant == "multinomial"
        else sliced(problem, start, [0.5] * 3)
    )
    leaves, outcome = grown(tree, problem)
    assert (len(leaves), outcome.n_steps, outcome.tree_depth) == (1, 1, 1)
    assert (outcome.diverging, outcome.moved, outcome.reached_max_treedepth) == (True, False, False)
    assert outcome.acceptance_rate == 0.0
    assert outcome.state.position is start.q


@pytest.mark.parametrize("fall", [1e3, 1e5, 1e300])
def test_energies_that_fall_far_do_not_overflow(fall: float) -> None:
    """The way into a typical set: weights beyond exp(709)."""
    problem = Problem(lambda q: (-fall * float(q[0] > 0.25), np.zeros(1)), 1.0, 0.1, 1000.0, 4)
    start = Point(np.zeros(1), np.ones(1), 0.0, np.zeros(1))
    _, outcome = grown(multinomial(problem, start, [0.7, 0.9] * 4, [0.5] * 15), problem)
    assert outcome.state.position[0] > 0.25
    assert outcome.acceptance_rate == 1.0
    assert not outcome.diverging


def scripted(energies: list[float], gradients: Any) -> Potential:
    """A potential that gives these, wherever it is asked."""
    answers = zip(energies, gradients, strict=True)
    return lambda q: next(answers)


@pytest.mark.parametrize("variant", ["multinomial", "slice"])
def test_trees_in_a_storm(variant: str) -> None:
    """Forces out of the blue turn momenta in every way, where smooth ones hardly tell the checks apart."""
    rng = np.random.default_rng(4)
    ends = set()
    for _ in range(600):
        start = Point(np.zeros(2), rng.normal(size=2) + 3, 0.0, rng.normal(size=2))
        blows = rng.normal(size=(64, 2)) * 3
        energies = np.where(rng.random(64) < 0.03, np.inf, rng.normal(size=64)).tolist()
        first, second = (Problem(scripted(energies, blows), 1.0, 0.8, 1000.0, 6) for _ in range(2))
        if variant == "multinomial":
            direction, accept = uniforms_of(rng, first)
            expected = MultinomialReference(first, direction, accept).run(start)
            tree = multinomial(second, start, direction, accept)
            rest = iter([]), iter([])
        else:
            uniforms = rng.random(128).tolist()
            rest = iter(uniforms), iter(uniforms)
            expected = SliceReference(first, rest[0]).run(start)
            tree = slice_tree(State(start.q, start.u, start.g), start.p, dynamics_of(second), rest[1])
        assert_same(*grown(tree, second), expected, first, start)
        assert list(rest[0]) == list(rest[1])
        ends.add((len(expected.leaves), expected.diverging))
    assert len(ends) > 15


def test_a_slice_leaf_of_infinite_energy_is_not_in_the_slice() -> None:
    energies = iter([0.0, 0.5, -math.inf])
    problem = Problem(lambda q: (next(energies), np.zeros(1)), 1.0, 0.1, 1000.0, 10)
    start = Point(np.zeros(1), np.ones(1), 0.0, np.zeros(1))
    # The slice; a direction, the sample of its leaf; a direction. The pair that follows has no leaf in the slice.
    uniforms = iter([0.9, 0.7, 0.1, 0.7, 0.123])
    tree = slice_tree(State(start.q, start.u, start.g), start.p, dynamics_of(problem), uniforms)
    _, outcome = grown(tree, problem)
    assert (outcome.n_steps, outcome.diverging) == (3, True)
    assert next(uniforms) == 0.123


def test_dot_products_of_single_precision_are_in_double() -> None:
    a, b = np.random.default_rng(6).normal(size=(2, 1000)).astype(np.float32)
    exact = math.fsum(a.astype(np.float64) * b.astype(np.float64))
    assert float(dot_of(np.float32)(a, b)) == pytest.approx(exact, rel=1e-12)
