"""AdamW in libraries that are compared for it alone: whole steps on the same arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .harness import Contestant
from .problem import OPENING_STEPS, Array, Expected, Problem, Team, by_element
from .rivals import load, thread_counts

LR, BETAS, EPS, WEIGHT_DECAY = 1e-3, (0.9, 0.999), 1e-8, 0.01
OPTIONS: dict[str, Any] = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY}


def numba_adamw(problem: Problem, expected: Expected) -> list[Team]:
    """A compiled loop, serial and parallel, in strict arithmetic as ours is."""
    numba = load("numba")
    one_tensor, many_tensors = _numba_loops(numba)
    parameters, gradients = problem.parameters, problem.gradients
    first, second = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
    if len(parameters) == 1:
        arrays = (parameters[0], gradients[0], first[0], second[0])
        loop = one_tensor
    else:
        # One call for all of them: in a Python loop over tensors numba would pay its dispatch a thousand times.
        arrays = tuple(numba.typed.List(a) for a in (parameters, gradients, first, second))
        loop = many_tensors
    beta1, beta2 = BETAS
    t = 0

    def step(compiled: Any) -> None:
        nonlocal t
        t += 1
        compiled(
            *arrays,
            beta1,
            1 - beta1,
            beta2,
            1 - beta2,
            LR / (1 - beta1**t),
            1 / math.sqrt(1 - beta2**t),
            EPS,
            1 - LR * WEIGHT_DECAY,
        )

    serial = partial(step, numba.njit(error_model="numpy")(loop))
    parallel = partial(step, numba.njit(parallel=True, error_model="numpy")(loop))
    contestants = [_rival("numba", "serial", serial)]
    if thread_counts()[-1] > 1:
        contestants.append(_rival("numba", "parallel", parallel))
    calls = [c.call for c in contestants]
    opening = [calls[i % len(calls)] for i in range(OPENING_STEPS)]
    return [Team(contestants, parameters, opening, expected)]


def _numba_loops(numba: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    """The loops as plain functions; prange is range in a serial compilation."""
    prange, float32, int64, sqrt = numba.prange, np.float32, np.int64, math.sqrt

    def one_tensor(  # type: ignore[no-untyped-def]  # numba compiles it for the types of the call
        p, g, m, v, beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay
    ):
        # Python's floats are doubles: without this every element would be computed in double.
        beta1, c1, beta2, c2 = float32(beta1), float32(c1), float32(beta2), float32(c2)
        step, inv_sqrt_bc2, eps, decay = float32(step), float32(inv_sqrt_bc2), float32(eps), float32(decay)
        for i in prange(p.size):
            m[i] = beta1 * m[i] + c1 * g[i]
            v[i] = beta2 * v[i] + c2 * g[i] * g[i]
            p[i] = p[i] * decay - step * m[i] / (sqrt(v[i]) * inv_sqrt_bc2 + eps)

    def many_tensors(  # type: ignore[no-untyped-def]  # numba compiles it for the types of the call
        ps, gs, ms, vs, beta1, c1, beta2, c2, step, inv_sqrt_bc2, eps, decay
    ):
        beta1, c1, beta2, c2 = float32(beta1), float32(c1), float32(beta2), float32(c2)
        step, inv_sqrt_bc2, eps, decay = float32(step), float32(inv_sqrt_bc2), float32(eps), float32(decay)
        for k in prange(len(ps)):
            p, g, m, v = ps[int64(k)], gs[int64(k)], ms[int64(k)], vs[int64(k)]
            for i in range(p.size):
                m[i] = beta1 * m[i] + c1 * g[i]
                v[i] = beta2 * v[i] + c2 * g[i] * g[i]
                p[i] = p[i] * decay - step * m[i] / (sqrt(v[i]) * inv_sqrt_bc2 + eps)

    return one_tensor, many_tensors


def thinc_adam(problem: Problem, expected: Expected) -> list[Team]:
    """thinc.optimizers.Adam with decoupled decay. It zeroes the gradient, which is filled again outside the time."""
    optimizers = load("thinc.optimizers")
    optimizer = optimizers.Adam(
        LR,
        beta1=BETAS[0],
        beta2=BETAS[1],
        eps=EPS,
        L2=WEIGHT_DECAY,
        L2_is_weight_decay=True,
        grad_clip=0.0,
        use_averages=False,
    )
    parameters, scratch = problem.parameters, [np.empty_like(g) for g in problem.gradients]
    keys = [(0, str(k)) for k in range(len(parameters))]

    def fill() -> None:
        for mine, gradient in zip(scratch, problem.gradients, strict=True):
            np.copyto(mine, gradient)

    def step() -> None:
        for key, parameter, gradient in zip(keys, parameters, scratch, strict=True):
            optimizer(key, parameter, gradient)

    def opening() -> None:
        fill()
        step()

    contestant = _rival("thinc", "", step)
    contestant.before_call = fill
    return [Team([contestant], parameters, [opening] * OPENING_STEPS, thinc_expected)]


@by_element
def thinc_expected(p: Array, g: Array, steps: int) -> NDArray[Any]:
    """Thinc's own arithmetic in float64: eps is added before the bias correction, decay acts on the new parameter."""
    beta1, beta2 = BETAS
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        p = p - LR * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + EPS)
        p = p - LR * WEIGHT_DECAY * p
    return p


def _rival(family: str, variant: str, call: Callable[[], object]) -> Contestant:
    return Contestant(family, variant, "rival", call)


RIVALS: Mapping[str, Callable[[Problem, Expected], list[Team]]] = {
    "numba": numba_adamw,
    "thinc": thinc_adam,
}
