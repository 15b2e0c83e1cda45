"""From losses along chains to a local learning coefficient."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import Range, Whole, real

Losses = NDArray[np.float64]

_NBETA = Range(0, above=True)


def default_nbeta(n: float) -> float:
    """The inverse temperature for `n` samples: n / ln n.

    It is that of the widely applicable Bayesian information criterion, for a loss that is a mean over samples. `n` is
    the size of the data set that the loss is about, not that of a batch.

    Args:
        n: The number of samples. 1 or less: the result is 1, with a UserWarning.

    Raises:
        TypeError: `n` is no number.
        ValueError: `n` is not finite.

    Source: Watanabe, "A widely applicable Bayesian information criterion" (2013).

    Example:
        >>> from grilly_optim.sampling import default_nbeta
        >>> round(default_nbeta(1347), 1)
        186.9
    """
    number: float = Range().take("n", n)
    if number <= 1:
        warnings.warn(f"n / ln n makes no sense for n={n!r}: nbeta is 1", UserWarning, stacklevel=2)
        return 1.0
    return number / math.log(number)


def summary(losses: Losses, nbeta: float, init_loss: float) -> dict[str, Any]:
    """The results of `LLCEstimator` for losses (chains, draws)."""
    chains = nbeta * (losses.mean(axis=1) - init_loss)
    return {
        "llc/mean": float(chains.mean()),
        "llc/std": float(_std(chains)),
        **{f"llc-chain/{i}": float(llc) for i, llc in enumerate(chains)},
        "loss/trace": losses,
        "init_loss": init_loss,
        "nbeta": nbeta,
    }


def online_summary(losses: Losses, nbeta: float, init_loss: float) -> dict[str, Any]:
    """The results of `OnlineLLCEstimator` for losses (chains, draws)."""
    trace = nbeta * (losses - init_loss)
    return {
        "llc/means": trace.mean(axis=0),
        "llc/stds": _std(trace),
        "llc/trace": trace,
        "loss/trace": losses,
        "init_loss": init_loss,
        "nbeta": nbeta,
    }


def _std(values: Losses) -> Losses:
    """Over chains, the first axis: NaN for one chain, which says nothing about others."""
    if len(values) == 1:
        return np.full(values.shape[1:], np.nan)
    with np.errstate(over="ignore"):  # of a run that is about to diverge
        return np.asarray(values.std(axis=0, ddof=1))


class _Estimator(ABC):
    """What both estimators share: a table of losses that is filled in any order."""

    def __init__(self, num_chains: int, num_draws: int, nbeta: float, init_loss: float) -> None:
        self.num_chains, self.num_draws = Whole(1).take("num_chains", num_chains), Whole(1).take("num_draws", num_draws)
        self.nbeta: float = _NBETA.take("nbeta", nbeta)
        self.init_loss: float = Range().take("init_loss", init_loss)
        self._losses = np.full((self.num_chains, self.num_draws), np.nan)

    def update(self, chain: int, draw: int, loss: float) -> None:
        """Take the loss of a draw.

        Raises:
            TypeError: Not whole numbers and a number.
            ValueError: There is no such chain or draw.
            RuntimeError: The loss is NaN or infinite; the chain and the draw are named.
        """
        for name, value, end in (("chain", chain, self.num_chains), ("draw", draw, self.num_draws)):
            if Whole(0).take(name, value) >= end:
                raise ValueError(f"{name} must be from 0 to {end - 1}, got {value}")
        number = real("loss", loss)
        if not math.isfinite(number):
            raise RuntimeError(f"the loss of chain {chain} in draw {draw} is {number}")
        self._losses[chain, draw] = number

    @abstractmethod
    def get_results(self) -> dict[str, Any]:
        """What the losses come to."""


class LLCEstimator(_Estimator):
    """The local learning coefficient of each chain: nbeta (mean loss - init_loss).

    Args:
        num_chains: How many chains there are, 1 or more.
        num_draws: How many draws each of them has, 1 or more.
        nbeta: The sampler's.
        init_loss: The loss where the chains began.

    Raises:
        TypeError: An argument that is no number.
        ValueError: An argument out of range, `nbeta` of 0 or less, or NaN.

    Source: `devinterp.slt.llc.LLCEstimator`; Lau et al., "The local learning coefficient" (2023).

    Example:
        >>> from grilly_optim.sampling import LLCEstimator
        >>> estimator = LLCEstimator(num_chains=2, num_draws=2, nbeta=10.0, init_loss=0.5)
        >>> for chain, draw, loss in [(0, 0, 0.5), (0, 1, 0.7), (1, 0, 0.6), (1, 1, 0.8)]:
        ...     estimator.update(chain, draw, loss)
        >>> results = estimator.get_results()
        >>> round(results["llc/mean"], 6), round(results["llc/std"], 3)
        (1.5, 0.707)
    """

    def get_results(self) -> dict[str, Any]:
        """What the losses come to.

        Returns:
            ``"llc/mean"`` over chains, ``"llc/std"`` between them (ddof 1; NaN for one chain), ``"llc-chain/<i>"`` of
            each, ``"loss/trace"`` (num_chains, num_draws), ``"init_loss"`` and ``"nbeta"``.

        Raises:
            RuntimeError: A draw is missing; its chain is named.
        """
        counts = np.count_nonzero(~np.isnan(self._losses), axis=1)
        for chain, count in enumerate(counts):
            if count < self.num_draws:
                raise RuntimeError(f"chain {chain} has {count} of {self.num_draws} draws")
        return summary(self._losses.copy(), self.nbeta, self.init_loss)


class OnlineLLCEstimator(_Estimator):
    """The local learning coefficient by draws: nbeta (loss - init_loss), for each draw by itself.

    Args:
        num_chains: How many chains there are, 1 or more.
        num_draws: How many draws each of them has, 1 or more.
        nbeta: The sampler's.
        init_loss: The loss where the chains began.

    Raises:
        TypeError: An argument that is no number.
        ValueError: An argument out of range, `nbeta` of 0 or less, or NaN.

    Source: `devinterp.slt.llc.OnlineLLCEstimator`.

    Example:
        >>> from grilly_optim.sampling import OnlineLLCEstimator
        >>> estimator = OnlineLLCEstimator(num_chains=2, num_draws=3, nbeta=10.0, init_loss=0.5)
        >>> for chain, draw, loss in [(0, 0, 0.5), (0, 1, 0.7), (1, 0, 0.6), (1, 1, 0.8)]:
        ...     estimator.update(chain, draw, loss)
        >>> estimator.get_results()["llc/means"].round(6)  # as far as it has come
        array([0.5, 2.5, nan])
    """

    def get_results(self) -> dict[str, Any]:
        """What the losses come to; NaN for draws that have not come.

        Returns:
            ``"llc/means"`` and ``"llc/stds"`` (ddof 1; NaN for one chain), (num_draws,), over chains; ``"llc/trace"``
            and ``"loss/trace"``, (num_chains, num_draws); ``"init_loss"`` and ``"nbeta"``.
        """
        return online_summary(self._losses.copy(), self.nbeta, self.init_loss)
