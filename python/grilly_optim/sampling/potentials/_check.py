"""A gradient against differences of the potential it should belong to."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling._evaluating import EvaluationFailed, Evaluator

Doubles = NDArray[np.float64]

_STEPS = 10.0 ** -np.arange(2, 8)  # relative to max(1, |q_i|)
_BLOCK = 2**20  # numbers in a batch of positions


class GradientCheck(NamedTuple):
    """What `check_grad` found.

    Attributes:
        error: The largest relative error of an element of the gradient: the part of its distance from the difference
            quotient that the quotient's own uncertainty does not explain, in units of the larger of the two.
        where: The element.
        gradient: The potential's gradient there.
        difference: The difference quotient.
        uncertainty: How far that may be off, by rounding and by its step. Large next to both, it says that U is too
            rough (computed in float32, say) to tell anything.
    """

    error: float
    where: int
    gradient: float
    difference: float
    uncertainty: float


def check_grad(potential: Any, q: ArrayLike) -> GradientCheck:
    """Compare a potential's gradient with central differences of its U, in double.

    A wrong gradient is easily missed: samplers still give the right distribution, only they reject more, and slow down.
    U is evaluated 12 D times: of difference quotients with six steps, each element takes the one that agrees best with
    the coarser one before it.

    Args:
        potential: As samplers take it: a callable q -> (U, gradient), or an object with ``value_and_grad(q)``, for one
            position or ``vectorized``.
        q: One position, (D,): some place where the gradient is not small, neither the mode nor 0.

    Returns:
        The largest relative error and where it is: of a right gradient 0 or nearly so.

    Raises:
        TypeError: `potential` cannot be called, gives something else, or `q` does not hold real numbers.
        ValueError: `q` is not (D,), U or its gradient is not finite at `q`, or U nowhere around it.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import check_grad
        >>> def potential(q):
        ...     return np.cosh(q).sum(), np.sinh(q)
        >>> assert check_grad(potential, np.array([0.5, -1.0, 2.0])).error < 1e-6
        >>> def wrong(q):
        ...     return np.cosh(q).sum(), np.sinh(q) * [1, 1, 0.5]
        >>> result = check_grad(wrong, np.array([0.5, -1.0, 2.0]))
        >>> result.where, round(result.error, 3)
        (2, 0.5)
    """
    position = np.asarray(q)
    if position.dtype.kind not in "iuf":
        raise TypeError(f"q must hold real numbers, got {position.dtype}")
    if position.ndim != 1 or not position.size:
        raise ValueError(f"q must have shape (D,), got {position.shape}")
    position = position.astype(np.float64)
    evaluate = Evaluator(potential, np.float64)
    try:
        with np.errstate(all="ignore"):
            energies, gradients = evaluate(position[None])
            energy, gradient = energies[0], gradients[0]
            if not (np.isfinite(energy) and np.isfinite(gradient).all()):
                raise ValueError(f"U and its gradient must be finite at q, got {energy:g} and {gradient}")
            return _compare(evaluate, position, gradient)
    except EvaluationFailed as failed:
        raise failed.cause from None


def _compare(evaluate: Evaluator, q: Doubles, gradient: Doubles) -> GradientCheck:
    up, down, width = (np.stack(a) for a in zip(*(_around(evaluate, q, step) for step in _STEPS), strict=True))
    with np.errstate(all="ignore"):
        # U that is float32 in every place was computed in it.
        single = (up.astype(np.float32) == up).all() and (down.astype(np.float32) == down).all()
        rounding = 4 * float(np.finfo(np.float32 if single else np.float64).eps)
        quotients = (up - down) / width
        # Truncation shows as the distance from the coarser step.
        doubts = np.abs(np.diff(quotients, axis=0)) + (rounding * (np.abs(up) + np.abs(down)) / width)[1:]
        chosen = np.argmin(np.where(np.isfinite(doubts), doubts, np.inf), axis=0), np.arange(len(q))
        doubt, quotient = doubts[chosen], quotients[1:][chosen]
        if not np.isfinite(doubt).all():
            raise ValueError(f"U must be finite around q, and is not in element {np.argmin(np.isfinite(doubt))}")
        size = np.maximum(np.abs(gradient), np.abs(quotient))
        excess = np.maximum(np.abs(gradient - quotient) - doubt, 0)
        error = np.where(excess > 0, excess / size, 0)
    worst = int(np.argmax(error))
    return GradientCheck(
        error=float(error[worst]),
        where=worst,
        gradient=float(gradient[worst]),
        difference=float(quotient[worst]),
        uncertainty=float(doubt[worst]),
    )


def _around(evaluate: Evaluator, q: Doubles, step: float) -> tuple[Doubles, Doubles, Doubles]:
    """U on both sides of each element, and how far these are apart: (D,) each."""
    up, down, width = np.empty_like(q), np.empty_like(q), np.empty_like(q)
    count = max(1, _BLOCK // (2 * len(q)))
    for start in range(0, len(q), count):
        chosen = np.arange(start, min(start + count, len(q)))
        rows = np.arange(len(chosen))
        batch = np.tile(q, (2, len(chosen), 1))
        moves = step * np.maximum(1, np.abs(q[chosen]))
        batch[0, rows, chosen] += moves
        batch[1, rows, chosen] -= moves
        width[chosen] = batch[0, rows, chosen] - batch[1, rows, chosen]
        energies = evaluate(batch.reshape(-1, len(q)))[0]
        up[chosen], down[chosen] = energies.reshape(2, -1)
    return up, down, width
