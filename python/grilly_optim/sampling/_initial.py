"""The potential where chains begin, or go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._evaluating import EvaluationFailed, Evaluator
from grilly_optim.sampling._failures import ChainFailed, reason
from grilly_optim.sampling.potentials import SHIPPED

Array = NDArray[Any]
Doubles = NDArray[np.float64]


def evaluate(potential: Any, position: Array, *, gradient: bool, name: str, first: int = 0) -> tuple[Doubles, Array]:
    """U (C,) and, if it is wanted, its gradient (C, D), of chains from number `first` on.

    Raises:
        TypeError: It cannot be called, and errors call it `name`.
        ChainFailed: It raised, or gave what it should not.
    """
    called = Evaluator(potential, position.dtype, gradient=gradient, name=name)
    try:
        with np.errstate(all="ignore"):
            return called(position)
    except EvaluationFailed as failed:
        raise failed_at_start(failed.among(range(first, first + len(position))).row, failed.cause) from failed.cause


def failed_at_start(chain: int | None, cause: BaseException) -> ChainFailed:
    """What is raised where a chain, or all of them as a batch, cannot begin."""
    who = "the batch of chains" if chain is None else f"chain {chain}"
    return ChainFailed(f"{who} failed at the initial position: {reason(cause)}", chain or 0, 0)


def check_finite(values: Doubles, gradients: Array, *, single: bool = False) -> None:
    """U (C,), and gradients (C, D) or none at all, where chains begin; a `single` one needs no number.

    Raises:
        ValueError: Something is not finite.
    """
    for chain, value in enumerate(values):
        where = "at initial_position" + ("" if single else f" of chain {chain}")
        if not np.isfinite(value):
            raise ValueError(f"the potential energy {where} must be finite, got {value}")
        if gradients.size and not np.isfinite(gradients[chain]).all():
            raise ValueError(f"the gradient {where} must be finite, got {gradients[chain]}")


def identity(potential: Any) -> str:
    """What tells the engine's potentials apart; "" for functions."""
    return potential.digest() if type(potential) in SHIPPED else ""


def check_same(potential: Any, position: Array, saved: Doubles, chains: Sequence[int], *, name: str, what: str) -> None:
    """Whether U is still what was saved with positions, as far as it tells.

    Of functions only, which give nearly the same numbers again, and in double, where they nearly do whatever U is made
    of. Potentials of the engine have an `identity`.

    Raises:
        TypeError: As for `evaluate`.
        ChainFailed: As for `evaluate`.
        ValueError: It is not: `what` is of another potential.
    """
    if identity(potential) or position.dtype != np.float64:
        return
    now = evaluate(potential, position, gradient=False, name=name, first=chains[0])[0]
    for chain, was, value in zip(chains, saved, now, strict=True):
        if not np.isclose(value, was, rtol=1e-4, atol=1e-4):
            raise ValueError(
                f"{what} is of another potential: where chain {chain} is, U was {was:g} and now is {value:g}"
            )
