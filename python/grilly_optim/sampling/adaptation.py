"""Adaptation of the warm-up: step sizes by dual averaging, the mass from windows of draws."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling._batch import Batch, Given, Runner
from grilly_optim.sampling._chain_draws import chain_normals
from grilly_optim.sampling._failures import ChainFailed
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record

Array = NDArray[Any]
Doubles = NDArray[np.float64]

# Stan's: transitions before the first window and after the last one, and the length of the first window.
INIT_BUFFER, TERM_BUFFER, BASE_WINDOW = 75, 50, 25
LEAST = 20  # fewer transitions teach nothing about the mass

# Between these a step size is searched: beyond them the potential is flat, or no energy.
SMALLEST, LARGEST = 1e-20, 1e10


class DualAveraging:
    """Step sizes that make the mean acceptance rate what it is to be, for many chains, each on its own.

    After the t-th transition with acceptance rate a, from t = 1::

        h     = (1 - 1 / (t + t0)) h + (delta - a) / (t + t0)
        log e = mu - sqrt(t) / gamma h
        log m = t^-kappa log e + (1 - t^-kappa) log m

    The next transition has step size e, and once the warm-up is over the step size is m. In double, but for
    float32 chains in the engine, which adapt themselves in float32.

    Args:
        stepsize: (C,), where they begin, above 0; a number for one chain.
        target_accept: delta, in (0, 1).
        gamma: How slowly step sizes follow h.
        t0: How little the first transitions count.
        kappa: How fast the average forgets.

    Attributes:
        stepsize: e, (C,), and so are the others: float64 arrays.
        log_average: log m.
        h_bar: h.
        count: t.
        mu: log(10 times the step size that it began with): larger steps are preferred, as they are cheaper.

    Raises:
        ValueError: A step size that is not above 0 and finite, or a target outside (0, 1).

    Source: Hoffman & Gelman, "The no-U-turn sampler" (2014), section 3.2.1; the constants are theirs, and Stan's.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import DualAveraging
        >>> adapt = DualAveraging([1.0, 1.0], target_accept=0.8)
        >>> for _ in range(200):  # two chains whose acceptance rate is exp(-e) and exp(-10 e)
        ...     adapt.update(np.exp(-np.array([1.0, 10.0]) * adapt.stepsize))
        >>> bool(np.allclose(np.exp(-np.array([1.0, 10.0]) * adapt.final()), 0.8, atol=0.02))
        True
    """

    def __init__(
        self,
        stepsize: ArrayLike,
        target_accept: float = 0.8,
        *,
        gamma: float = 0.05,
        t0: float = 10.0,
        kappa: float = 0.75,
    ) -> None:
        if not 0 < target_accept < 1:
            raise ValueError(f"target_accept must be in (0, 1), got {target_accept!r}")
        self.target_accept, self.gamma, self.t0, self.kappa = target_accept, gamma, t0, kappa
        self.restart(stepsize)

    def restart(self, stepsize: ArrayLike) -> None:
        """Begin anew from (C,)."""
        begin = np.array(stepsize, np.float64, ndmin=1)
        if not ((begin > 0) & np.isfinite(begin)).all():
            raise ValueError(f"stepsize must be above 0 and finite, got {stepsize!r}")
        self.stepsize: Doubles = begin
        self.log_average: Doubles = np.log(begin)
        self.h_bar: Doubles = np.zeros_like(begin)
        self.count: Doubles = np.zeros_like(begin)
        self.mu: Doubles = np.log(10 * begin)

    def update(self, acceptance_rate: Doubles) -> None:
        """Take note of the acceptance rates (C,) of a transition; NaN is 0, and what is above 1 is 1."""
        rate = np.where(np.isnan(acceptance_rate), 0.0, np.minimum(acceptance_rate, 1.0))
        count = self.count + 1
        weight = 1 / (count + self.t0)
        h_bar = (1 - weight) * self.h_bar + weight * (self.target_accept - rate)
        log_step = self.mu - np.sqrt(count) / self.gamma * h_bar
        share = count**-self.kappa
        log_average = share * log_step + (1 - share) * self.log_average
        self.stepsize, self.log_average, self.h_bar, self.count = np.exp(log_step), log_average, h_bar, count

    def final(self) -> Doubles:
        """The averages m, (C,): the step sizes to go on with; before the first transition those it began with."""
        return np.exp(self.log_average)


class Window(NamedTuple):
    """A part of the warm-up.

    Attributes:
        length: How many transitions.
        learns_mass: Whether the mass is learned from them, at their end; step sizes are adapted in all of them.
    """

    length: int
    learns_mass: bool


def warmup_schedule(num_warmup: int) -> tuple[Window, ...]:
    """Stan's: a buffer to get to where the mass of the distribution is, windows of doubling length, and a last buffer.

    The buffers have 75 and 50 transitions. The first window has 25, and each other one twice as many as the one before;
    when the one after it would not fit any more, a window reaches to the last buffer. With fewer than 150 transitions
    there is one window, between buffers of 15 % and 10 %; with fewer than 20 only the step size is adapted.

    Args:
        num_warmup: Transitions altogether, 0 or more.

    Source: Stan Reference Manual, "HMC algorithm parameters", automatic parameter tuning.

    Example:
        >>> from grilly_optim.sampling.adaptation import warmup_schedule
        >>> [length for length, _ in warmup_schedule(1000)]
        [75, 25, 50, 100, 200, 500, 50]
    """
    if num_warmup < LEAST:
        windows = [Window(num_warmup, False)]
    elif num_warmup < INIT_BUFFER + BASE_WINDOW + TERM_BUFFER:
        init, term = int(0.15 * num_warmup), int(0.1 * num_warmup)
        windows = [Window(init, False), Window(num_warmup - init - term, True), Window(term, False)]
    else:
        begin, end = INIT_BUFFER + BASE_WINDOW, num_warmup - TERM_BUFFER
        lengths, length = [BASE_WINDOW], 2 * BASE_WINDOW
        while begin < end:
            lengths.append(length if begin + 3 * length <= end else end - begin)
            begin, length = begin + lengths[-1], 2 * length
        windows = [Window(INIT_BUFFER, False), *(Window(n, True) for n in lengths), Window(TERM_BUFFER, False)]
    return tuple(window for window in windows if window.length)


def learned_inv_mass(draws: Array, dense: bool) -> Doubles:
    """The inverse mass that a window teaches: variances, or covariances, drawn a little towards small ones.

    W = n / (n + 5) S + 5 / (n + 5) 1e-3 I, with S of n draws (ddof 1): so it is positive for chains that did not move.

    Args:
        draws: (n, C, D), two or more.
        dense: Covariances, else variances.

    Returns:
        (C, D), or (C, D, D) with `dense`: of each chain from its own draws.

    Source: Stan Reference Manual, "HMC algorithm parameters".

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.adaptation import learned_inv_mass
        >>> draws = np.array([[[1.0, 2.0]], [[3.0, 6.0]]])  # two of one chain: variances 2 and 8
        >>> learned_inv_mass(draws, dense=False).round(3)
        array([[0.572, 2.286]])
    """
    n, chains, dim = draws.shape
    weight = n / (n + 5)
    found = np.empty((chains, dim, dim) if dense else (chains, dim))
    # Chain by chain: sums over arrays of the same shape have the same bits, however many chains there are.
    for c in range(chains):
        own = np.array(draws[:, c], np.float64, order="C")
        own -= own.mean(axis=0)
        if dense:
            found[c] = weight * (own.T @ own / (n - 1)) + (1 - weight) * 1e-3 * np.eye(dim)
        else:
            found[c] = weight * ((own * own).sum(axis=0) / (n - 1)) + (1 - weight) * 1e-3
    return found


def reasonable_stepsize(runner: Runner, batch: Batch, search: int = 0, threshold: float = 0.8) -> Doubles:
    """Step sizes to begin with: doubled, or halved, until the acceptance rate of one step crosses a threshold.

    Every chain begins at its step size and its position, and keeps its momentum: standard normal numbers with purpose
    "momentum" and step 0. Nothing of the batch changes.

    Args:
        runner: Of transitions with one step of the integrator.
        batch: The chains.
        search: How many searches there were: each has momenta of its own.
        threshold: The acceptance rate.

    Returns:
        (C,): the first ones beyond the threshold.

    Raises:
        ChainFailed: The potential failed; or there is no such step size, because the potential is flat there or its
            gradient is wrong.

    Source: Hoffman & Gelman, "The no-U-turn sampler" (2014), algorithm 4, with Stan's threshold.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling._batch import Batch, Hmc
        >>> from grilly_optim.sampling._mass import InverseMass
        >>> from grilly_optim.sampling._runners import runner_for
        >>> from grilly_optim.sampling.potentials import Gaussian
        >>> runner = runner_for(Gaussian(np.zeros(2), std=1000.0), Hmc(), 2, np.float64, "numpy")
        >>> streams, done = np.zeros(1, np.uint32), np.zeros(1, np.int64)
        >>> batch = Batch(np.ones((1, 2)), np.ones(1), InverseMass(1.0, 2, np.float64), streams, done)
        >>> reasonable_stepsize(runner, batch)  # powers of two
        array([4096.])
    """
    chains, dim = batch.position.shape
    normal = chain_normals(batch.seed, batch.streams, search, dim, batch.position.dtype)
    momentum = batch.inv_mass.momentum(normal)[None]

    def accepts(stepsize: Doubles) -> NDArray[np.bool_]:
        tried = copy.copy(batch)
        tried.stepsize = stepsize
        record = Record(chains, dim, batch.position.dtype)
        runner.run(tried, 1, record, given=Given(momentum=momentum))
        return np.asarray(record.stats["acceptance_rate"][0] > threshold)

    stepsize = batch.stepsize.copy()
    grows = accepts(stepsize)
    searching = np.ones(chains, np.bool_)
    while searching.any():
        stepsize = np.where(searching, np.where(grows, 2 * stepsize, stepsize / 2), stepsize)
        _check_range(batch, stepsize, grows)
        searching &= accepts(stepsize) == grows
    return stepsize


def _check_range(batch: Batch, stepsize: Doubles, grows: NDArray[np.bool_]) -> None:
    for row in np.flatnonzero(np.where(grows, stepsize > LARGEST, stepsize < SMALLEST)):
        chain, done = int(batch.streams[row]), int(batch.done[row])
        why = (
            f"even steps of {stepsize[row]:.0e} are accepted: the potential is flat around it"
            if grows[row]
            else f"even steps of {stepsize[row]:.0e} are rejected: the gradient does not belong to the potential, or "
            "the potential jumps there"
        )
        raise ChainFailed(f"chain {chain} has no step size at {batch.position[row]}: {why}", chain, done)


def with_learned_mass(batch: Batch, draws: Array, dense: bool) -> InverseMass:
    """The inverse mass of each chain of a batch after a window of draws (n, C, D)."""
    dim = batch.position.shape[1]
    return InverseMass(learned_inv_mass(draws, dense), dim, batch.position.dtype, per_chain=True)
