"""The no-U-turn sampler as the papers have it, with recursion and with all leaves at hand: the judge of the trees.

Hoffman & Gelman, "The no-U-turn sampler" (2014), algorithm 3, and Betancourt, "A conceptual introduction to Hamiltonian
Monte Carlo" (2017), appendix A, with the further checks across joins that Stan makes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Potential = Callable[[Array], tuple[float, Array]]


class Point(NamedTuple):
    """A point of phase space, with U and its gradient."""

    q: Array
    p: Array
    u: float
    g: Array


@dataclass
class Problem:
    """What a transition depends on beside its draws."""

    potential: Potential
    inv_mass: Any
    stepsize: float
    delta_max: float
    max_tree_depth: int

    def velocity(self, p: Array) -> Array:
        w = np.asarray(self.inv_mass)
        return np.asarray(w @ p if w.ndim == 2 else w * p)

    def energy(self, z: Point) -> float:
        return z.u + 0.5 * float(z.p @ self.velocity(z.p))

    def leapfrog(self, z: Point, sign: int) -> Point:
        p = z.p - sign * self.stepsize / 2 * z.g
        q = z.q + sign * self.stepsize * self.velocity(p)
        u, g = self.potential(q)
        return Point(q, p - sign * self.stepsize / 2 * g, u, g)


@dataclass
class Result:
    """What a transition came to; `leaves` are in the order of their making."""

    sample: Point
    moved: bool = False
    leaves: list[Point] = field(default_factory=list)
    depth: int = 0
    diverging: bool = False
    limited: bool = False


class Span(NamedTuple):
    """A tree, in the order of time: its leaves, what it weighs (multinomial) or holds (slice), its sample."""

    points: list[Point]
    weight: float
    sample: Point | None
    goes_on: bool


class MultinomialReference:
    """One transition. The weights are summed in log space, where the sampler sums pairs."""

    def __init__(self, problem: Problem, direction: Sequence[float], accept: Sequence[float]) -> None:
        self.problem, self.direction, self.accept = problem, direction, accept

    def run(self, start: Point) -> Result:
        self.h0 = self.problem.energy(start)
        self.result = Result(start)
        tree = Span([start], 0.0, start, True)
        for j in range(self.problem.max_tree_depth):
            sign = -1 if self.direction[2 * j] < 0.5 else 1
            self.result.depth += 1
            new = self.grow(tree.points[0 if sign < 0 else -1], sign, j)
            if not new.goes_on:
                return self.result
            if self.direction[2 * j + 1] < math.exp(min(0.0, new.weight - tree.weight)):
                assert new.sample is not None
                self.result.sample, self.result.moved = new.sample, True
            halves = (new, tree) if sign < 0 else (tree, new)
            tree = Span(halves[0].points + halves[1].points, float(np.logaddexp(tree.weight, new.weight)), None, True)
            if self.turns(halves[0].points, halves[1].points):
                return self.result
        self.result.limited = True
        return self.result

    def grow(self, edge: Point, sign: int, depth: int) -> Span:
        if depth == 0:
            z = self.problem.leapfrog(edge, sign)
            k = len(self.result.leaves)
            self.result.leaves.append(z)
            difference = self.h0 - self.problem.energy(z)
            fine = math.isfinite(difference) and difference >= -self.problem.delta_max
            self.result.diverging |= not fine
            if k == self.first_of_subtree(k):
                self.weight, self.sample = -math.inf, z
            if fine:
                self.weight = float(np.logaddexp(self.weight, difference))
                if self.accept[k] < math.exp(difference - self.weight):
                    self.sample = z
            return Span([z], self.weight, self.sample, fine)
        first = self.grow(edge, sign, depth - 1)
        if not first.goes_on:
            return first
        second = self.grow(first.points[-1 if sign > 0 else 0], sign, depth - 1)
        if not second.goes_on:
            return second
        left, right = (first, second) if sign > 0 else (second, first)
        return Span(left.points + right.points, self.weight, self.sample, not self.turns(left.points, right.points))

    @staticmethod
    def first_of_subtree(k: int) -> int:
        """Subtrees have 1, 2, 4, ... leaves: they begin with leaf 0, 1, 3, 7, ..."""
        return (1 << (k + 1).bit_length() - 1) - 1

    def turns(self, left: list[Point], right: list[Point]) -> bool:
        whole = left + right
        spans = whole, [*left, right[0]], [left[-1], *right]
        return not all(self.straight(span) for span in spans)

    def straight(self, span: list[Point]) -> bool:
        rho = np.sum([z.p for z in span], axis=0)
        return all(float(self.problem.velocity(z.p) @ rho) > 0 for z in (span[0], span[-1]))


class SliceReference:
    """One transition of algorithm 3, the slice in log space; draws are consumed in order."""

    def __init__(self, problem: Problem, uniforms: Iterator[float]) -> None:
        self.problem, self.uniforms = problem, uniforms

    def run(self, start: Point) -> Result:
        r = next(self.uniforms)
        self.log_u = (math.log(r) if r > 0 else -math.inf) - self.problem.energy(start)
        self.result = Result(start)
        left = right = start
        n = 1.0
        for j in range(self.problem.max_tree_depth):
            sign = -1 if next(self.uniforms) < 0.5 else 1
            self.result.depth += 1
            new = self.grow(left if sign < 0 else right, sign, j)
            left, right = (new.points[0], right) if sign < 0 else (left, new.points[-1])
            if not new.goes_on:
                return self.result
            if next(self.uniforms) < min(1.0, new.weight / n):
                assert new.sample is not None
                self.result.sample, self.result.moved = new.sample, True
            n += new.weight
            if not self.straight(left, right):
                return self.result
        self.result.limited = True
        return self.result

    def grow(self, edge: Point, sign: int, depth: int) -> Span:
        if depth == 0:
            z = self.problem.leapfrog(edge, sign)
            self.result.leaves.append(z)
            log_p = -self.problem.energy(z)
            fine = math.isfinite(log_p) and log_p > self.log_u - self.problem.delta_max
            self.result.diverging |= not fine
            return Span([z], float(fine and self.log_u <= log_p), z, fine)
        first = self.grow(edge, sign, depth - 1)
        if not first.goes_on:
            return first
        second = self.grow(first.points[-1 if sign > 0 else 0], sign, depth - 1)
        sample, n = first.sample, first.weight + second.weight
        if n > 0 and next(self.uniforms) <= second.weight / n:
            sample = second.sample
        left, right = (first, second) if sign > 0 else (second, first)
        points = left.points + right.points
        return Span(points, n, sample, second.goes_on and self.straight(points[0], points[-1]))

    def straight(self, left: Point, right: Point) -> bool:
        return all(float((right.q - left.q) @ self.problem.velocity(z.p)) >= 0 for z in (left, right))
