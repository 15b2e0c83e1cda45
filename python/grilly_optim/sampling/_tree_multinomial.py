"""One transition of the multinomial no-U-turn sampler (Betancourt 2017), leaf by leaf, without recursion.

Order of operations. Energies, weights and all dot products are in double, vectors and step size in the precision of the
chain; H0 is that of the start, H that of a leaf.

A transition begins at (q0, p0) with U0, g0, v0 = W p0, K0 = p0.v0 / 2. The tree is one leaf: both of its edges are
(q0, p0, v0, g0), the sum of its momenta rho is p0, its sample q0, its weight 1.

Weights are sums of exp(H0 - H). A sum is a pair (m, s) that means s exp(m), where m is the largest exponent in it; the
tree begins with (0, 1), a subtree with (-inf, 0). Adding exp(d):

    (m, s) <- (d, s exp(m - d) + 1) if d > m, else (m, s + exp(d - m))

Doubling j = 0, 1, ... while j < max_tree_depth:

 1. It goes backward iff direction[2 j] < 0.5: e = -stepsize, from the tree's left edge; else e = stepsize, from its
    right edge.
 2. A subtree of 2^j leaves is grown from that edge (q, p, v, g); total = 0. Leaf n = 0, 1, ...:
    a. p <- p - (e/2) g;  q <- q + e (W p);  U, g at q;  p <- p - (e/2) g;  v = W p;  K = p.v / 2.
    b. d = (U0 - U) + (K0 - K). n_steps counts every leaf; acceptance sums min(1, exp(d)), 0 where d is NaN or +inf.
    c. Divergence: d < -delta_max, or d is not finite. The transition ends, the subtree is thrown away.
    d. exp(d) is added to the subtree's weight (m, s). Its sample becomes this leaf iff accept[k] s < exp(d - m), with
       the new m and s; k counts all leaves of the transition from 0.
    e. U-turns within the subtree. For l = 1, 2, ... up to the number of trailing ones of n, leaf n completes a pair of
       halves L, R of 2^(l - 1) leaves each. The pair has turned unless all of these are > 0:

           with the sum of L and R:                 v(first of L).sum   v(last of R).sum
           with the sum of L, and p(first of R):    v(first of L).sum   v(first of R).sum
           with p(last of L), and the sum of R:     v(last of L).sum    v(last of R).sum

       First and last are in the order of growth. For l = 1 the three are one, p(L) + p(R). A turn ends the transition,
       the subtree is thrown away.
 3. The tree's sample becomes the subtree's iff direction[2 j + 1] b < a, where both weights are taken relative to the
    larger m of the two: a = s exp(m - larger) of the subtree, b that of the tree. Then the tree's weight is
    (larger, b + a).
 4. U-turns between the tree as it was (L) and the subtree (R), by the checks of 2e: the first of L is the tree's edge
    on the other side, the last of L the edge that the subtree grew from, the sum of L is rho, that of R is total. A
    turn ends the transition; the sample stays.
 5. rho <- rho + total; the tree's edge on this side is the subtree's last leaf.

What 2e needs of the past is in two small tables, total being the sum of p over the leaves so far:
    begun[b]: of an even leaf n with b ones in n >> 1: p, v, and the total before it;
    ended[l]: of a leaf n with l trailing ones that has not turned: p, v. It ends a half of 2^l leaves.
With b the ones in n >> 1, the halves of pair l begin at begun[b - l + 1] and begun[b - l + 2], and for l > 1 the first
of them ends at ended[l - 1]. The sum of L is total(R) - total(L), that of R is total - total(R), that of both is
total - total(L), where total(X) is the one before X.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, inf

import numpy as np

from grilly_optim.sampling._tree import Array, Dynamics, Outcome, State, Tree


def multinomial_tree(
    start: State, momentum: Array, dynamics: Dynamics, direction: Sequence[float], accept: Iterator[float]
) -> Tree:
    """Grow the tree of one transition.

    Args:
        start: Where the chain is.
        momentum: (D,).
        dynamics: How it moves.
        direction: 2 max_tree_depth uniform numbers.
        accept: Uniform numbers, one for each leaf.

    Source: Betancourt, "A conceptual introduction to Hamiltonian Monte Carlo" (2017), appendix A; the checks across
    the join of two halves are Stan's.
    """
    stepsize, velocity, dot, delta_max, max_tree_depth = dynamics
    q, potential0, g = start
    v = velocity(momentum)
    kinetic0 = 0.5 * float(dot(momentum, v))
    left = right = (q, momentum, v, g)
    rho = momentum
    m, s = 0.0, 1.0
    state, kinetic, moved = start, kinetic0, False
    acceptance, n_steps, depth = 0.0, 0, 0
    diverging = turned = False
    nothing = np.zeros_like(momentum)
    begun: list[tuple[Array, Array, Array]] = [(nothing, nothing, nothing)] * max_tree_depth
    ended: list[tuple[Array, Array]] = [(nothing, nothing)] * max_tree_depth

    while depth < max_tree_depth and not turned:
        backward = direction[2 * depth] < 0.5
        step = np.asarray(-stepsize if backward else stepsize, momentum.dtype)
        half = step * step.dtype.type(0.5)
        inner, outer = (left, right) if backward else (right, left)
        q, p, v, g = inner
        kick = half * g
        total = nothing
        m_new, s_new = -inf, 0.0
        leaves = 1 << depth
        depth += 1
        for n in range(leaves):
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
            diverging = not (d >= -delta_max and -inf < d < inf)
            if diverging:
                break
            if d > m_new:
                m_new, s_new, weight = d, s_new * exp(m_new - d) + 1.0, 1.0
            else:
                weight = exp(d - m_new)
                s_new += weight
            if next(accept) * s_new < weight:
                sample, kinetic_sample = (q, potential, g), kinetic_here

            at = (n >> 1).bit_count()
            if not n & 1:
                begun[at] = p, v, total
                total = total + p
                continue
            total = total + p
            level = 1
            p_first, v_first, before = begun[at]
            both = p_first + p
            turned = not (dot(v_first, both) > 0.0 and dot(v, both) > 0.0)
            while not turned and n >> level & 1:
                p_next, v_next, middle = begun[at]
                at -= 1
                _, v_first, before = begun[at]
                p_last, v_last = ended[level]
                level += 1
                both, first, last = total - before, (middle - before) + p_next, p_last + (total - middle)
                turned = not (
                    dot(v_first, both) > 0.0
                    and dot(v, both) > 0.0
                    and dot(v_first, first) > 0.0
                    and dot(v_next, first) > 0.0
                    and dot(v_last, last) > 0.0
                    and dot(v, last) > 0.0
                )
            if turned:
                break
            ended[level] = p, v
        if diverging or turned:
            break

        top = max(m, m_new)
        old, new = s * exp(m - top), s_new * exp(m_new - top)
        if direction[2 * depth - 1] * old < new:
            state, kinetic, moved = State(*sample), kinetic_sample, True
        m, s = top, old + new
        v_far = outer[2]
        _, p_near, v_near, _ = inner
        p_first, v_first, _ = begun[0]
        both, first, last = rho + total, rho + p_first, p_near + total
        turned = not (
            dot(v_far, both) > 0.0
            and dot(v, both) > 0.0
            and dot(v_far, first) > 0.0
            and dot(v_first, first) > 0.0
            and dot(v_near, last) > 0.0
            and dot(v, last) > 0.0
        )
        rho = both
        edge = q, p, v, g
        left, right = (edge, right) if backward else (left, edge)

    return Outcome(
        state=state,
        energy=state.potential + kinetic,
        moved=moved,
        acceptance_rate=acceptance / n_steps,
        n_steps=n_steps,
        tree_depth=depth,
        diverging=diverging,
        reached_max_treedepth=not (diverging or turned),
    )
