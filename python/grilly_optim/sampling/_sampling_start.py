"""Where chains of `sample` begin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.optim._options import Whole
from grilly_optim.sampling import _initial
from grilly_optim.sampling._batch import Rwm
from grilly_optim.sampling._chain_draws import initial_positions
from grilly_optim.sampling._evaluating import Evaluator
from grilly_optim.sampling._sampling_chains import Job
from grilly_optim.sampling._sampling_run import Run

Array = NDArray[Any]


def positions_of(potential: Any, given: ArrayLike | None, chains: int, seed: int) -> Array:
    """The positions (C, D) where chains begin, in the dtype to compute in.

    Raises:
        TypeError: `given` holds no real numbers, or the potential cannot be called.
        ValueError: It has another shape or is not finite; or it is missing where it is needed.
    """
    Evaluator(potential, np.float64, name="potential")  # refuses what cannot be one
    dim = getattr(potential, "dim", None)
    if given is None:
        if dim is None:
            raise ValueError("initial_position is needed for a potential without an attribute dim")
        return initial_positions(seed, chains, Whole(1).take("dim of the potential", dim))
    try:
        position = np.array(given)
    except ValueError as error:
        raise ValueError(f"initial_position is no array: {error}") from None
    if position.dtype.kind not in "iuf":
        raise TypeError(f"initial_position must hold real numbers, got {position.dtype}")
    expected = f"(D,) or ({chains}, D)" if dim is None else f"({dim},) or ({chains}, {dim})"
    shape = position.shape
    fits = position.ndim in (1, 2) and shape[:-1] in ((), (chains,)) and shape[-1] > 0 and dim in (None, shape[-1])
    if not fits:
        raise ValueError(f"initial_position must have shape {expected}, got {shape}")
    if not np.isfinite(position).all():
        raise ValueError("initial_position must be finite")
    dtype = np.float32 if position.dtype == np.float32 else np.float64
    return np.ascontiguousarray(np.broadcast_to(position, (chains, shape[-1])), dtype)


def check_start(job: Job, position: Array) -> None:
    """Look at the potential where chains begin, before anything is computed or saved.

    Raises:
        TypeError: It cannot be called.
        ChainFailed: It raised, or gave what it should not.
        ValueError: It is not finite.
    """
    gradient = not isinstance(job.adapting.kernel.method, Rwm)
    _initial.check_finite(*_initial.evaluate(job.potential, position, gradient=gradient, name="potential"))


def check_potential(run: Run) -> None:
    """Look whether the potential is the one that a run was saved with, as far as its values there tell.

    Raises:
        ChainFailed: It raised, or gave what it should not.
        ValueError: It has other values.
    """
    for part in run.parts:
        batch = part.batch
        if batch.potential is not None:
            _initial.check_same(
                run.job.potential, batch.position, batch.potential, part.chains, name="potential", what="the checkpoint"
            )
