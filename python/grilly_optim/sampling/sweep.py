"""Estimates over a grid of step sizes and inverse temperatures."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.optim._options import Range, Whole
from grilly_optim.sampling import _chains, _executors
from grilly_optim.sampling._bar import bar
from grilly_optim.sampling._chains import Job, LossAndGrad, Outcome
from grilly_optim.sampling._failures import ChainFailed, SweepFailed, reason
from grilly_optim.sampling.estimators import summary
from grilly_optim.sampling.llc import prepare
from grilly_optim.sampling.sgmcmc import SGMCMC

Floats = NDArray[np.float64]

LARGE_EPSILON = 1e-2


@dataclasses.dataclass(frozen=True)
class EpsilonBetaSweep:
    """The results of `epsilon_beta_sweep`: E step sizes by B inverse temperatures. Points that diverged are NaN.

    Attributes:
        epsilons: Step sizes, (E,).
        betas: Multiples of the reference inverse temperature, (B,).
        nbetas: Inverse temperatures, (B,).
        llc: Means over chains, (E, B).
        std: Between chains, ddof 1, (E, B).
        losses: (E, B, chains, draws).
        acceptance: Mean of `mala_acceptance`, (E, B); NaN where it was not measured.
        init_loss: The loss where all chains began.
        dimension: How many parameters there are: a coefficient is at most half of that.
    """

    epsilons: Floats
    betas: Floats
    nbetas: Floats
    llc: Floats
    std: Floats
    losses: Floats
    acceptance: Floats
    init_loss: float
    dimension: int


def epsilon_beta_sweep(
    params: Any,
    loss_and_grad: LossAndGrad,
    *,
    nbeta: float,
    epsilons: ArrayLike | None = None,
    betas: ArrayLike | None = None,
    optimizer_kwargs: Mapping[str, Any] | None = None,
    sampling_method: Callable[..., Any] = SGMCMC.sgld,
    num_draws: int = 100,
    num_chains: int = 4,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    init_loss: float | None = None,
    seed: int = 0,
    device: str | None = None,
    vectorized: bool = False,
    progress: bool = False,
    executor: Executor | None = None,
    measure_mala: bool = False,
) -> EpsilonBetaSweep:
    """The local learning coefficient for every pair of a step size (epsilon, lr) and an inverse temperature.

    An estimate can be trusted on a plateau: where it changes little with either. Look at it with `plot_sweep`. A point
    whose loss becomes NaN or infinite is NaN in the results; that is an answer, and no failure.

    Args:
        params: As for `estimate_learning_coeff_with_summary`, and so are those that are not listed here.
        loss_and_grad: The same.
        nbeta: The reference, usually ``default_nbeta(n)``; above 0.
        epsilons: Step sizes. None: 8 from 1e-6 to 1e-2, evenly on a logarithmic scale. A warning for any above 1e-2.
        betas: Multiples of `nbeta`. None: 8 from 0.01 to 1000, likewise.
        optimizer_kwargs: Options of the sampler besides lr and nbeta.
        sampling_method: Makes the sampler.
        num_draws: Draws of each chain.
        num_chains: How many chains for each point.
        num_burnin_steps: Steps before the first draw may come.
        num_steps_bw_draws: Steps from one draw to the next.
        init_loss: The loss at `params`.
        seed: Of the noise; the same for all points, so that they differ in nothing else.
        device: Where the samplers' steps run.
        vectorized: loss_and_grad computes many chains at once.
        progress: Show a bar over all points.
        executor: Where points run, each with all its chains.
        measure_mala: Measure the acceptance too.

    Raises:
        TypeError: As for `estimate_learning_coeff_with_summary`.
        ValueError: The same; lr or nbeta in `optimizer_kwargs`; epsilons or betas that are no list of numbers above 0.
        SweepFailed: A RuntimeError that names the point: the loss function raised or returned other shapes, or the
            executor broke. What had been computed is in its ``sweep``.
        MissingExtra: tqdm is not installed.

    Source: `devinterp.vis_utils.EpsilonBetaAnalyzer`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import epsilon_beta_sweep
        >>> def loss_and_grad(params):
        ...     (w,) = params
        ...     return float(w @ w) / 2, [w]
        >>> sweep = epsilon_beta_sweep(
        ...     np.zeros(10), loss_and_grad, nbeta=100.0, epsilons=[1e-3, 1e-2], betas=[1, 10, 1000],
        ...     num_draws=200, num_burnin_steps=100,
        ... )
        >>> sweep.llc.shape, bool(np.isnan(sweep.llc[1, 2]))  # (epsilons, betas); too large a step diverges
        ((2, 3), True)
    """
    reference: float = Range(0, above=True).take("nbeta", nbeta)
    eps = _grid("epsilons", epsilons, np.logspace(-6, -2, 8))
    multiples = _grid("betas", betas, np.logspace(-2, 3, 8))
    nbetas = reference * multiples
    if eps.max() > LARGE_EPSILON * (1 + 1e-9):
        warnings.warn(
            f"epsilons go up to {eps.max():g}: above {LARGE_EPSILON:g} chains usually diverge",
            UserWarning,
            stacklevel=2,
        )
    kwargs = {} if optimizer_kwargs is None else dict(optimizer_kwargs)
    for name in ("lr", "nbeta"):
        if name in kwargs:
            raise ValueError(f"optimizer_kwargs has {name!r}, which the sweep sets: give epsilons, or nbeta and betas")
    count = Whole(1).take("num_chains", num_chains)
    first, init = prepare(
        params,
        loss_and_grad,
        sampling_method=sampling_method,
        optimizer_kwargs={**kwargs, "lr": float(eps[0]), "nbeta": float(nbetas[0])},
        num_draws=num_draws,
        num_burnin_steps=num_burnin_steps,
        num_steps_bw_draws=num_steps_bw_draws,
        init_loss=init_loss,
        seed=seed,
        device=device,
        vectorized=vectorized,
        executor=executor,
        measure_mala=measure_mala,
    )
    points = [(e, b) for e in range(len(eps)) for b in range(len(nbetas))]
    jobs = [
        dataclasses.replace(first, kwargs={**kwargs, "lr": float(eps[e]), "nbeta": float(nbetas[b])}) for e, b in points
    ]
    shape = len(eps), len(nbetas)
    llc, std, acceptance = (np.full(shape, np.nan) for _ in range(3))
    losses = np.full((*shape, count, first.draws), np.nan)
    sweep = EpsilonBetaSweep(
        eps, multiples, nbetas, llc, std, losses, acceptance, init, sum(p.size for p in first.params)
    )
    with bar(len(points), progress, "point") as report:

        def keep(k: int, outcome: Outcome | None) -> None:
            at = points[k]
            if outcome is not None:
                results = summary(outcome.losses, float(nbetas[at[1]]), init)
                llc[at], std[at] = results["llc/mean"], results["llc/std"]
                losses[at], acceptance[at] = outcome.losses, outcome.acceptance.mean()
            if report is not None:
                report(1, f"loss {losses[at].mean():.4f}")

        try:
            _executors.run_all(_point, [(job, count) for job in jobs], executor, first.number, keep)
        except _executors.TaskFailed as failed:
            e, b = points[failed.index]
            cause = failed.cause
            why = str(cause) if isinstance(cause, ChainFailed) else reason(cause)
            message = f"lr={eps[e]:g}, nbeta={nbetas[b]:g}: {why}"
            raise SweepFailed(message, float(eps[e]), float(nbetas[b]), sweep) from cause
    return sweep


def _point(job: Job, num_chains: int) -> Outcome | None:
    """All chains of a point; None where one diverged."""
    try:
        # Some points are there to overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            return _chains.run_chains(job, num_chains, None)
    except ChainFailed as error:
        if error.diverged:
            return None
        raise


def _grid(name: str, values: ArrayLike | None, default: Floats) -> Floats:
    if values is None:
        return default
    grid = np.array(values)
    if grid.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    if grid.ndim != 1 or not grid.size or not all(0 < x < math.inf for x in grid):
        raise ValueError(f"{name} must be a list of finite numbers above 0, got {values!r}")
    return grid.astype(np.float64)
