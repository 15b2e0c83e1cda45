"""The local learning coefficient of a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import select
from grilly_optim.optim._options import Range, Whole
from grilly_optim.sampling import _chains, _executors, mala
from grilly_optim.sampling._bar import bar
from grilly_optim.sampling._chains import Job, LossAndGrad
from grilly_optim.sampling.estimators import online_summary, summary
from grilly_optim.sampling.sgld import SGLD
from grilly_optim.sampling.sgmcmc import SGMCMC

Array = NDArray[Any]

OURS = ("seed", "device", "num_chains", "stream")


def estimate_learning_coeff(
    params: Any,
    loss_and_grad: LossAndGrad,
    *,
    sampling_method: Callable[..., Any] = SGMCMC.sgld,
    optimizer_kwargs: Mapping[str, Any],
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
) -> float:
    """The local learning coefficient at some parameters, the mean over all chains.

    The arguments and errors are those of `estimate_learning_coeff_with_summary`, which gives more than one number.

    Returns:
        nbeta (mean loss of all draws - init_loss).

    Source: Lau et al., "The local learning coefficient" (2023); `devinterp.slt.sampler.estimate_learning_coeff`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import estimate_learning_coeff
        >>> def loss_and_grad(params):
        ...     (w,) = params
        ...     return float(w @ w) / 2, [w]
        >>> llc = estimate_learning_coeff(
        ...     np.zeros(10),
        ...     loss_and_grad,
        ...     optimizer_kwargs={"lr": 1e-3, "nbeta": 100.0},
        ...     num_draws=500,
        ...     num_burnin_steps=100,
        ... )
        >>> bool(abs(llc - 5) < 0.5)  # half the number of parameters, where the minimum is not degenerate
        True
    """
    results = estimate_learning_coeff_with_summary(
        params,
        loss_and_grad,
        sampling_method=sampling_method,
        optimizer_kwargs=optimizer_kwargs,
        num_draws=num_draws,
        num_chains=num_chains,
        num_burnin_steps=num_burnin_steps,
        num_steps_bw_draws=num_steps_bw_draws,
        init_loss=init_loss,
        seed=seed,
        device=device,
        vectorized=vectorized,
        progress=progress,
        executor=executor,
    )
    return float(results["llc/mean"])


def estimate_learning_coeff_with_summary(
    params: Any,
    loss_and_grad: LossAndGrad,
    *,
    sampling_method: Callable[..., Any] = SGMCMC.sgld,
    optimizer_kwargs: Mapping[str, Any],
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
    online: bool = False,
    measure_mala: bool = False,
) -> dict[str, Any]:
    """The local learning coefficient at some parameters, by chains or by draws, with the losses that the chains saw.

    Each chain begins at a copy of the parameters. In every step the loss and its gradient are computed where the chain
    is, and then the sampler moves it. The loss of step i (from 0) is a draw when i >= b and (i + 1 - b) is a multiple
    of s, with b = num_burnin_steps and s = num_steps_bw_draws: so a draw is a loss before its step, and without burn-in
    the first one, for s = 1, is the loss at the parameters themselves.

    A chain's numbers follow from its own number and the seed. They are the same with any number of chains, in any
    executor, and one by one or side by side, as far as the loss function gives the same bits then.

    Args:
        params: float32 or float64 arrays, which are not changed: one array, a sequence, or a dict of names.
        loss_and_grad: ``loss_and_grad(arrays) -> (loss, gradients)``. `arrays` is always a list, in the order of
            `params`. They are the chain's own arrays: they may be read during the call, and must be neither written to
            nor kept. `gradients` is a list of one array per parameter, of the loss alone, without nbeta; None for a
            parameter that is not to move. The loss is a mean over samples, as nbeta has their number in it already.

            With a method ``for_chains(chains: range)``, `loss_and_grad` is asked for a function of its own for each
            chain (vectorized: for each batch of chains), and is itself used for `init_loss` only. That is the place for
            minibatches: a generator that belongs to one chain gives the same numbers wherever the chain runs.
        sampling_method: Makes the sampler: called with a list of arrays, `optimizer_kwargs`, and seed, stream,
            num_chains and device.
        optimizer_kwargs: Its options, such as ``{"lr": 1e-4, "nbeta": default_nbeta(n), "localization": 100.0}``.
            nbeta is required, and a number.
        num_draws: Draws of each chain, 1 or more.
        num_chains: How many chains, 1 or more.
        num_burnin_steps: Steps before the first draw may come, 0 or more.
        num_steps_bw_draws: Steps from one draw to the next, 1 or more.
        init_loss: The loss at `params`. None: `loss_and_grad` is called there once; for a loss on minibatches, give
            the loss of all data.
        seed: Of the noise.
        device: Where the sampler's steps run, see `grilly_optim.devices`. None: chosen by the size of one chain.
        vectorized: loss_and_grad computes many chains at once: arrays and gradients are (C, ...), losses (C,), for any
            C from 1 to num_chains.
        progress: Show a bar over all steps of all chains with the mean loss (needs tqdm, of the extra ``sampling``).
            With an executor it moves as chains come to their ends.
        executor: Where chains run: any `concurrent.futures.Executor`, from the standard library, Dask or mpi4py. For
            one with other processes loss_and_grad must be a function, or an object of a class, of a module. It is not
            shut down. Vectorized chains are split into as many batches as this machine has processors.
        online: Return what `OnlineLLCEstimator` does instead of what `LLCEstimator` does.
        measure_mala: Also return ``"mala/acceptance"``, (num_chains,): see `mala_acceptance`. Samplers of plain SGLD
            only; it takes two copies of parameters and gradients, and about as long as a step.

    Returns:
        The dict of `LLCEstimator`, or `OnlineLLCEstimator`.

    Raises:
        TypeError: An argument of another type.
        ValueError: nbeta is missing; an argument or an option of the sampler is out of range.
        ChainFailed: A RuntimeError that names the chain and the step: the loss became NaN or infinite, the function
            raised or returned other shapes, or the executor broke. Chains that had finished are in its ``results``;
            no other chain is begun, and those that an executor has begun are waited for.
        MissingExtra: tqdm is not installed.

        Ctrl-C comes through as KeyboardInterrupt, at once: chains that have not begun never will, those in threads end
        with their current step, and other processes are the executor's to end. Nothing is kept then.

    Source: Lau et al., "The local learning coefficient" (2023);
    `devinterp.slt.sampler.estimate_learning_coeff_with_summary`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import estimate_learning_coeff_with_summary
        >>> def loss_and_grad(params):  # of many chains: w is (C, 10)
        ...     (w,) = params
        ...     return (w**2).sum(axis=1) / 2, [w]
        >>> results = estimate_learning_coeff_with_summary(
        ...     np.zeros(10),
        ...     loss_and_grad,
        ...     optimizer_kwargs={"lr": 1e-3, "nbeta": 100.0},
        ...     num_draws=500,
        ...     num_chains=16,
        ...     num_burnin_steps=100,
        ...     vectorized=True,
        ... )
        >>> bool(abs(results["llc/mean"] - 5) < 4 * results["llc/std"] / 4)  # sqrt(16) chains
        True
        >>> results["loss/trace"].shape
        (16, 500)
    """
    count = Whole(1).take("num_chains", num_chains)
    job, init = prepare(
        params,
        loss_and_grad,
        sampling_method=sampling_method,
        optimizer_kwargs=optimizer_kwargs,
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
    with bar(job.steps * count, progress) as report:
        found = _chains.run_chains(job, count, executor, report)
    results = (online_summary if online else summary)(found.losses, float(job.kwargs["nbeta"]), init)
    if measure_mala:
        results["mala/acceptance"] = found.acceptance
    return results


def prepare(
    params: Any,
    loss_and_grad: LossAndGrad,
    *,
    sampling_method: Callable[..., Any],
    optimizer_kwargs: Mapping[str, Any],
    num_draws: int,
    num_burnin_steps: int,
    num_steps_bw_draws: int,
    init_loss: float | None,
    seed: int,
    device: str | None,
    vectorized: bool,
    executor: Executor | None,
    measure_mala: bool,
) -> tuple[Job, float]:
    """Look at all arguments, before anything is computed; the job and the loss at the beginning."""
    for name, value in (("loss_and_grad", loss_and_grad), ("sampling_method", sampling_method)):
        if not callable(value):
            raise TypeError(f"{name} must be callable, got {type(value).__name__}")
    _executors.check_executor(executor)
    arrays = as_list(params)
    kwargs = checked_kwargs(optimizer_kwargs)
    if measure_mala:
        check_mala(sampling_method, kwargs)
    job = Job(
        params=arrays,
        loss_and_grad=loss_and_grad,
        vectorized=bool(vectorized),
        sampling_method=sampling_method,
        kwargs=kwargs,
        draws=Whole(1).take("num_draws", num_draws),
        burn_in=Whole(0).take("num_burnin_steps", num_burnin_steps),
        spacing=Whole(1).take("num_steps_bw_draws", num_steps_bw_draws),
        seed=seed,
        # Chosen once: no batch of chains may be small enough for another device than the others.
        device=select(device, sum(p.size for p in arrays)).info.device,
        mala=bool(measure_mala),
    )
    # It is not used: its errors and warnings are those of all chains.
    job.sampler([p[None].copy() if job.vectorized else p.copy() for p in arrays], range(1))
    if init_loss is not None:
        return job, Range().take("init_loss", init_loss)
    shape = (1,) if job.vectorized else ()
    here = [np.broadcast_to(p, (*shape, *p.shape)).copy() for p in arrays]
    loss = _chains.evaluate(loss_and_grad, here, shape)[0].item()
    if not np.isfinite(loss):
        raise ValueError(f"the loss at params is {loss}: chains must begin where it is finite")
    return job, loss


def as_list(params: Any) -> tuple[Array, ...]:
    """Copies of the arrays that a caller gives as `params`."""
    if isinstance(params, np.ndarray):
        params = [params]
    elif isinstance(params, Mapping):
        params = list(params.values())
    elif not isinstance(params, list | tuple):
        raise TypeError(
            f"params must be an array, a sequence of arrays or a dict of names, got {type(params).__name__}"
        )
    for k, p in enumerate(params):
        if not isinstance(p, np.ndarray):
            raise TypeError(f"params[{k}] must be a NumPy array, got {type(p).__name__}")
    return tuple(np.array(p) for p in params)


def checked_kwargs(optimizer_kwargs: Any) -> dict[str, Any]:
    """The sampler's options, with what an estimate needs of them."""
    if not isinstance(optimizer_kwargs, Mapping):
        raise TypeError(f"optimizer_kwargs must be a dict, got {type(optimizer_kwargs).__name__}")
    kwargs = dict(optimizer_kwargs)
    if "nbeta" not in kwargs:
        raise ValueError('optimizer_kwargs must have "nbeta", usually default_nbeta(n) for n samples')
    if callable(kwargs["nbeta"]):
        raise TypeError('optimizer_kwargs["nbeta"] must be a number: the estimate is a multiple of it')
    Range(0, above=True).take('optimizer_kwargs["nbeta"]', kwargs["nbeta"])
    if taken := [name for name in OURS if name in kwargs]:
        raise ValueError(f"optimizer_kwargs has {taken[0]!r}, which is for the estimate to set")
    return kwargs


def check_mala(sampling_method: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse what has other steps than those the formula is for."""
    if sampling_method not in (SGMCMC.sgld, SGLD):
        raise ValueError(f"measure_mala is for SGMCMC.sgld and SGLD, got sampling_method={sampling_method!r}")
    if others := [name for name in kwargs if name not in mala.KNOWN]:
        known = ", ".join(mala.KNOWN[:4])
        raise ValueError(f"measure_mala is for SGLD with {known}, and optimizer_kwargs has {others[0]!r}")
