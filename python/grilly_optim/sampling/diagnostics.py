"""Whether chains have settled and agree, and what their losses come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.optim._options import Range
from grilly_optim.sampling._arviz import arviz, from_groups

Losses = NDArray[np.float64]


def _table(trace: ArrayLike, chains: int, draws: int) -> Losses:
    table = np.asarray(trace, np.float64)
    if table.ndim != 2 or table.shape[0] < chains or table.shape[1] < draws:
        raise ValueError(f"trace must be (chains, draws), {chains} or more by {draws} or more, got shape {table.shape}")
    if not np.isfinite(table).all():
        chain, draw = (int(i[0]) for i in np.nonzero(~np.isfinite(table)))
        raise ValueError(f"trace must be finite, got {table[chain, draw]} for chain {chain}, draw {draw}")
    return table


def r_hat(trace: ArrayLike) -> float:
    """Rank-normalized split R-hat: how much chains, and their halves, differ, against how much each of them moves.

    Near 1 they tell the same; above 1.01 they have not settled, or not mixed. Computed by ArviZ, of the extra
    ``sampling``.

    Args:
        trace: ``"loss/trace"`` or any other number along chains, (chains, draws), 2 or more by 4 or more.

    Returns:
        NaN where nothing moves.

    Raises:
        ValueError: Another shape, or NaN.
        MissingExtra: ArviZ is not installed.

    Source: Vehtari et al., "Rank-normalization, folding, and localization: an improved R-hat" (2021).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import r_hat
        >>> trace = np.random.default_rng(0).standard_normal((4, 500))
        >>> r_hat(trace) < 1.01, r_hat(trace + [[0], [1], [2], [3]]) > 1.1
        (True, True)
    """
    table = _table(trace, 2, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(arviz().rhat(table))


def ess(trace: ArrayLike) -> float:
    """Bulk effective sample size: how many independent draws would say as much of the mean.

    A few hundred are enough for most uses. Computed by ArviZ, of the extra ``sampling``.

    Args:
        trace: As for `r_hat`; 1 or more by 4 or more.

    Returns:
        NaN where nothing moves.

    Raises:
        ValueError: Another shape, or NaN.
        MissingExtra: ArviZ is not installed.

    Source: Vehtari et al. (2021), as for `r_hat`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import ess
        >>> steps = np.random.default_rng(0).standard_normal((4, 500))
        >>> bool(ess(steps) > 1000), bool(ess(steps.cumsum(axis=1)) < 100)
        (True, True)
    """
    table = _table(trace, 1, 4)
    if (table == table[0, 0]).all():
        return np.nan
    return float(arviz().ess(table))


def wbic(losses: ArrayLike, n: int) -> float:
    """The widely applicable Bayesian information criterion: n times the mean loss of the draws.

    The draws must come from nbeta = n / ln n (see `default_nbeta`) and a loss that is a mean negative log-likelihood;
    then it approximates minus the logarithm of the evidence.

    Args:
        losses: ``"loss/trace"``, (chains, draws).
        n: The number of samples, 1 or more.

    Raises:
        ValueError: Another shape, NaN, or n below 1.

    Source: Watanabe, "A widely applicable Bayesian information criterion" (2013).

    Example:
        >>> from grilly_optim.sampling import wbic
        >>> wbic([[0.5, 0.7], [0.6, 0.8]], n=1000)
        650.0
    """
    return float(online_wbic(losses, n)[-1])


def online_wbic(losses: ArrayLike, n: int) -> Losses:
    """`wbic` of the first 1, 2, ... draws of all chains.

    Args:
        losses: ``"loss/trace"``, (chains, draws).
        n: The number of samples, 1 or more.

    Returns:
        (draws,): where this has become flat, there are draws enough.

    Raises:
        ValueError: Another shape, NaN, or n below 1.

    Source: `devinterp.slt.wbic.OnlineWBICEstimator`.

    Example:
        >>> from grilly_optim.sampling import online_wbic
        >>> online_wbic([[0.5, 0.7], [0.6, 0.8]], n=1000)
        array([550., 650.])
    """
    return np.asarray(Range(1).take("n", n) * _running_mean(_table(losses, 1, 1).mean(axis=0)))


def _running_mean(values: Losses) -> Losses:
    return np.asarray(np.cumsum(values, axis=-1) / np.arange(1, values.shape[-1] + 1))


class TraceStatistics(NamedTuple):
    """See `trace_statistics`. All are (draws,).

    Attributes:
        mean: Over chains.
        std: Between chains, ddof 1; NaN for one chain.
        running_mean: Of a chain's draws so far, its mean over chains.
        running_std: The same, between chains.
    """

    mean: Losses
    std: Losses
    running_mean: Losses
    running_std: Losses


def trace_statistics(trace: ArrayLike) -> TraceStatistics:
    """How chains behave, draw by draw, and what an estimate would have been after each draw.

    Args:
        trace: ``"loss/trace"`` or any other number along chains, (chains, draws).

    Raises:
        ValueError: Another shape, or NaN.

    Source: `devinterp.slt.trace.OnlineTraceStatistics`.

    Example:
        >>> from grilly_optim.sampling import trace_statistics
        >>> statistics = trace_statistics([[1.0, 3.0], [2.0, 4.0]])
        >>> statistics.mean, statistics.running_mean
        (array([1.5, 3.5]), array([1.5, 2.5]))
    """
    table = _table(trace, 1, 1)
    running = _running_mean(table)
    if len(table) == 1:
        unknown = np.full(table.shape[1], np.nan)
        return TraceStatistics(table[0], unknown, running[0], unknown)
    return TraceStatistics(
        table.mean(axis=0), table.std(axis=0, ddof=1), running.mean(axis=0), running.std(axis=0, ddof=1)
    )


def to_arviz(results: Mapping[str, Any]) -> Any:
    """Results of an estimate for ArviZ's plots and tables.

    Args:
        results: Of `estimate_learning_coeff_with_summary`, or of an estimator whose draws are complete.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` with 1.x: ``llc``, nbeta (loss - init_loss) of each
        draw, in the group ``posterior``, and ``loss`` in ``sample_stats``; both (chain, draw).

    Raises:
        MissingExtra: ArviZ is not installed.

    Example:
        >>> from grilly_optim.sampling import to_arviz
        >>> import numpy as np
        >>> losses = np.random.default_rng(0).random((4, 100))
        >>> data = to_arviz({"loss/trace": losses, "nbeta": 10.0, "init_loss": 0.5})
        >>> data["posterior"]["llc"].shape
        (4, 100)
    """
    losses = np.asarray(results["loss/trace"])
    llc = results["nbeta"] * (losses - results["init_loss"])
    return from_groups({"posterior": {"llc": llc}, "sample_stats": {"loss": losses}})
