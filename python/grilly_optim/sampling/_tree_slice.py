"""One transition of the no-U-turn sampler with a slice (Hoffman & Gelman 2014, algorithm 3), without recursion.

Energies and dot products are in double; d = (U0 - U) + (K0 - K) is the fall of energy since the start, W p the
velocity.

The order of draws: r of the slice, log u = log r - H0; in each doubling its direction (backward iff < 0.5); inside the
subtree, after both halves of a pair, one if the first half went on and the counts n1, n2 are not both 0 (the second
half's sample is taken iff <= n2 / (n1 + n2)); after the subtree one, if it went on (its sample is taken iff
< min(1, n' / n)).

A leaf counts iff log r <= d, and goes on iff d > log r - delta_max; where d is not finite it does neither. A pair of
halves goes on iff its second half did and (q_right - q_left).(W p) >= 0 at both of its ends, and so does the tree.

Where a leaf or a pair does not go on, the pairs that have it in their second half still are completed, which takes
draws; those that have it in their first half are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp, inf, log
from typing import Any

import numpy as np

from grilly_optim.sampling._tree import Array, Dynamics, Outcome, State, Tree


def slice_tree(start: State, momentum: Array, dynamics: Dynamics, draws: Iterator[float]) -> Tree:
    """Grow the tree of one transition.

    Args:
        start: Where the chain is.
        momentum: (D,).
        dynamics: How it moves.
        draws: Uniform numbers, in the order above.

    Source: Hoffman & Gelman, "The no-U-turn sampler" (2014), algorithm 3.
    """
    stepsize, velocity, dot, delta_max, max_tree_depth = dynamics
    q, potential0, g = start
    v = velocity(momentum)
    kinetic0 = 0.5 * float(dot(momentum, v))
    r = next(draws)
    log_r = log(r) if r > 0.0 else -inf
    left = right = (q, momentum, v, g)
    state, kinetic, moved, count = start, kinetic0, False, 1
    acceptance, n_steps, depth = 0.0, 0, 0
    diverging, goes_on = False, True
    waiting: list[Any] = [None] * max_tree_depth  # first halves of 2^l leaves: count, sample, q and v of the first leaf

    while depth < max_tree_depth and goes_on:
        backward = next(draws) < 0.5
        step = np.asarray(-stepsize if backward else stepsize, momentum.dtype)
        half = step * step.dtype.type(0.5)
        q, p, v, g = left if backward else right
        kick = half * g
        counted: int = 0
        for n in range(1 << depth):
            p = p - kick
            q = q + step * velocity(p)
            potential, g = yield q
            kick = half * g
            p = p - kick
            v = velocity(p)
            kinetic_here = 0.5 * float(dot(p, v))
            d = (potential0 - potential) + (kinetic0 - kinetic_here)
            n_steps += 1
            if d < inf:
                acceptance += 1.0 if d >= 0.0 else exp(d)
            goes_on = -inf < d < inf and d > log_r - delta_max
            diverging = not goes_on
            counted = int(goes_on and log_r <= d)
            sample: Any = q, potential, g, kinetic_here
            q_first, v_first = q, v
            for level in range(depth):
                if n >> level & 1:
                    before, sample_before, q_first, v_first = waiting[level]
                    total = before + counted
                    if total and next(draws) > counted / total:
                        sample = sample_before
                    counted = total
                    goes_on = goes_on and _straight(q_first, v_first, q, v, backward, dot)
                elif goes_on:
                    waiting[level] = counted, sample, q_first, v_first
                    break
            if not goes_on:
                break
        depth += 1
        edge = q, p, v, g
        left, right = (edge, right) if backward else (left, edge)
        if goes_on:
            if next(draws) < min(1.0, counted / count):
                *found, kinetic = sample
                state, moved = State(*found), True
            count += counted
            goes_on = _straight(left[0], left[2], right[0], right[2], False, dot)

    return Outcome(
        state=state,
        energy=state.potential + kinetic,
        moved=moved,
        acceptance_rate=acceptance / n_steps,
        n_steps=n_steps,
        tree_depth=depth,
        diverging=diverging,
        reached_max_treedepth=goes_on,
    )


def _straight(
    q_a: Array, v_a: Array, q_b: Array, v_b: Array, backward: bool, dot: Callable[[Array, Array], Any]
) -> bool:
    """Whether both ends of a span move apart; backward, b is its left end."""
    span = q_a - q_b if backward else q_b - q_a
    return bool(dot(span, v_a) >= 0.0 and dot(span, v_b) >= 0.0)
