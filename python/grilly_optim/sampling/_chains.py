"""Chains that go down a loss function's landscape, and the losses they see."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import grilly_optim
from grilly_optim.sampling import _executors
from grilly_optim.sampling._failures import ChainFailed, reason
from grilly_optim.sampling.mala import MalaAcceptance

Array = NDArray[Any]
Losses = NDArray[np.float64]
LossAndGrad = Callable[[list[Array]], tuple[Any, Any]]
Report = Callable[[int, str], None]


class Outcome(NamedTuple):
    """What some chains saw: losses (chains, draws), and their MALA acceptance (chains,), NaN where not measured."""

    losses: Losses
    acceptance: Losses


@dataclass(frozen=True)
class Job:
    """What every chain does. It can be sent to another process, if the loss function can.

    Attributes:
        params: Where chains begin.
        loss_and_grad: See `estimate_learning_coeff`.
        vectorized: It takes the parameters of many chains at once.
        sampling_method: Makes a sampler.
        kwargs: Its options.
        draws: Losses to be kept.
        burn_in: Steps before the first of them may come.
        spacing: Steps from one to the next.
        seed: Of the noise.
        device: Where the sampler's steps run.
        mala: Measure the acceptance.
        number: Of the run, see `_executors.check`.
    """

    params: tuple[Array, ...]
    loss_and_grad: LossAndGrad
    vectorized: bool
    sampling_method: Callable[..., Any]
    kwargs: Mapping[str, Any]
    draws: int
    burn_in: int
    spacing: int
    seed: int
    device: str
    mala: bool = False
    number: int = field(default_factory=_executors.new_number)

    @property
    def steps(self) -> int:
        """How often a chain evaluates the loss."""
        return self.burn_in + self.draws * self.spacing

    def draw_at(self, step: int) -> int | None:
        """Which draw the loss in a step is, None for none."""
        k, rest = divmod(step + 1 - self.burn_in, self.spacing)
        return k - 1 if step >= self.burn_in and rest == 0 else None

    def sampler(self, params: list[Array], chains: range) -> Any:
        """A sampler of these chains."""
        count = len(chains) if self.vectorized else None
        return self.sampling_method(
            params, **self.kwargs, seed=self.seed, stream=chains.start, num_chains=count, device=self.device
        )


def evaluate(loss_and_grad: LossAndGrad, params: list[Array], shape: tuple[int, ...]) -> tuple[Losses, list[Any]]:
    """Losses, and gradients as many as parameters.

    Raises:
        TypeError: The function gave something else than a loss and gradients.
        ValueError: It gave a loss of another shape, or another number of gradients.
    """
    result = loss_and_grad(params)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"loss_and_grad must return a tuple (loss, gradients), got {_kind(result)}")
    losses, gradients = np.asarray(result[0]), result[1]
    if losses.dtype.kind not in "iuf":
        raise TypeError(f"loss_and_grad must return a real loss, got {_kind(result[0])}")
    if losses.shape != shape:
        expected = "a single number" if shape == () else f"shape {shape}, one loss per chain"
        raise ValueError(f"the loss of loss_and_grad must be {expected}, got shape {losses.shape}")
    if not isinstance(gradients, list | tuple):
        raise TypeError(f"loss_and_grad must return a list of gradients, got {_kind(gradients)}")
    if len(gradients) != len(params):
        raise ValueError(f"loss_and_grad returned {len(gradients)} gradients for {len(params)} parameters")
    return losses.astype(np.float64), list(gradients)


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def run(job: Job, chains: range, report: Report | None = None) -> Outcome:
    """All steps of some chains: one, or with a vectorized loss function as many as are to run side by side.

    Args:
        job: What they do.
        chains: Which.
        report: Called after each step with how many steps of chains that were, and the mean loss so far.

    Raises:
        ChainFailed: The loss function raised, or gave what it should not.
    """
    count, step = len(chains), 0
    shape = (count,) if job.vectorized else ()
    try:
        losses = np.empty((count, job.draws))
        loss_sum = 0.0
        # Memory of the device: where it has such memory, no step copies anything.
        params = [
            grilly_optim.asarray(np.broadcast_to(p, (*shape, *p.shape)), copy=True, device=job.device)
            for p in job.params
        ]
        sampler = job.sampler(params, chains)
        for_chains = getattr(job.loss_and_grad, "for_chains", None)
        loss_and_grad = job.loss_and_grad if for_chains is None else for_chains(chains)
        acceptance = MalaAcceptance.of(job.kwargs, params, job.vectorized) if job.mala else None
        for step in range(job.steps):
            _executors.check(job.number)
            loss, gradients = evaluate(loss_and_grad, params, shape)
            if not np.isfinite(loss).all():
                raise _diverged(job, chains, step, loss.reshape(-1))
            if (draw := job.draw_at(step)) is not None:
                losses[:, draw] = loss
            if acceptance is not None and step >= job.burn_in:
                acceptance.update(params, loss, gradients)
            if step < job.steps - 1:  # nobody would look at where the last one leads
                sampler.step(gradients=gradients)
            if report is not None:
                loss_sum += float(loss.mean())
                report(count, f"loss {loss_sum / (step + 1):.4f}")
    except (ChainFailed, _executors.Stopped):
        raise
    except Exception as error:
        who = f"chain {chains[0]}" if count == 1 else f"the batch of chains {chains[0]} to {chains[-1]}"
        raise ChainFailed(f"{who} failed in step {step}: {reason(error)}", chains[0], step) from error
    rates = np.full(count, np.nan) if acceptance is None else np.reshape(acceptance.rate(), -1)
    return Outcome(losses, rates)


def _diverged(job: Job, chains: range, step: int, losses: Losses) -> ChainFailed:
    k = int(np.flatnonzero(~np.isfinite(losses))[0])
    if step < job.burn_in:
        where = f"step {step}, in the burn-in"
    else:
        where = f"step {step}, for draw {(step - job.burn_in) // job.spacing}"
    return ChainFailed(
        f"the loss of chain {chains[k]} is {losses[k]} in {where}: a smaller lr, a smaller nbeta or more localization "
        "keeps chains where the loss is finite",
        chains[k],
        step,
        diverged=True,
    )


def batches(job: Job, num_chains: int, executor: Executor | None) -> list[range]:
    """Which chains run side by side: with an executor, parts enough to keep the processors of this machine busy."""
    if not job.vectorized:
        return [range(c, c + 1) for c in range(num_chains)]
    parts = 1 if executor is None else min(num_chains, os.cpu_count() or 1)
    size = math.ceil(num_chains / parts)
    return [range(c, min(c + size, num_chains)) for c in range(0, num_chains, size)]


def run_chains(job: Job, num_chains: int, executor: Executor | None, report: Report | None = None) -> Outcome:
    """All chains, wherever they run.

    Raises:
        ChainFailed: One of them did not get to its end.
    """
    parts = batches(job, num_chains, executor)
    found = Outcome(np.full((num_chains, job.draws), np.nan), np.full(num_chains, np.nan))
    finished: list[int] = []

    def keep(k: int, outcome: Outcome) -> None:
        chains = parts[k]
        found.losses[chains.start : chains.stop] = outcome.losses
        found.acceptance[chains.start : chains.stop] = outcome.acceptance
        finished.extend(chains)
        if executor is not None and report is not None:
            report(job.steps * len(chains), f"loss {found.losses[finished].mean():.4f}")

    tasks = [(job, chains) if executor is not None else (job, chains, report) for chains in parts]
    try:
        _executors.run_all(run, tasks, executor, job.number, keep)
    except _executors.TaskFailed as failed:
        error, chain = failed.cause, parts[failed.index].start
        if not isinstance(error, ChainFailed):
            error = ChainFailed(f"chain {chain} did not finish: {reason(error)}", chain)
            error.__cause__ = failed.cause
        error.results = {c: found.losses[c] for c in sorted(finished)}
        raise error from error.__cause__
    return found
