"""From a potential to draws: warm-up, chains, and everything in between."""

from __future__ import annotations

import dataclasses
import os
import warnings
from concurrent.futures import Executor
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim._devices import select
from grilly_optim.kernels import philox
from grilly_optim.optim._options import Flag, Range, Whole
from grilly_optim.sampling import _executors
from grilly_optim.sampling._bar import bar
from grilly_optim.sampling._batch import Rwm
from grilly_optim.sampling._failures import SamplingWarning
from grilly_optim.sampling._initial import identity
from grilly_optim.sampling._sampling_chains import Job, Part, split
from grilly_optim.sampling._sampling_checkpoint import Checkpoint
from grilly_optim.sampling._sampling_kernels import kernel_of
from grilly_optim.sampling._sampling_run import Run
from grilly_optim.sampling._sampling_start import check_potential, check_start, positions_of
from grilly_optim.sampling._warmup import Adapting
from grilly_optim.sampling.potentials import BuiltIn
from grilly_optim.sampling.trace import Trace

Array = NDArray[Any]
Doubles = NDArray[np.float64]


def sample(
    potential: Any,
    num_samples: int,
    *,
    num_warmup: int = 1000,
    num_chains: int = 4,
    kernel: Literal["nuts", "hmc", "mala", "ghmc", "rwm"] = "nuts",
    initial_position: ArrayLike | None = None,
    stepsize: float | None = None,
    num_steps: int | None = None,
    target_accept: float | None = None,
    dense_mass: bool = False,
    thin: int = 1,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
    executor: Executor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Trace:
    """Draws from exp(-U), by chains that adapt themselves in a warm-up.

    Each chain adapts its step size and its mass from its own draws (`DualAveraging`, with gamma = 0.15 for kernels of
    one step; Stan's windows, see `adaptation.warmup_schedule`). Nothing is adapted once the warm-up is over. A chain's
    draws follow from the seed and its own number: they are the same with any number of chains, in any executor, with
    and without breaks, as far as the potential gives the same bits then.

    Kernels:
        - ``"nuts"``: the no-U-turn sampler, which finds the length of its trajectories itself. Target 0.8, as in Stan:
          the cost of a draw is nearly flat between 0.6 and 0.9, and higher is safer.
        - ``"hmc"``: trajectories of a random number of steps, uniform on 1 ... 2 n - 1, so that no length meets a
          period of the distribution. n is `num_steps`, or what makes n steps a quarter of a period of a standard normal
          distribution, ceil(pi / 2 / step size), 1 to 1024, for each chain and each transition: a quarter of a period
          is where the draws of a normal distribution are least correlated, and the mass makes it nearly standard.
          Target 0.8.
        - ``"mala"``: one step (the Metropolis-adjusted Langevin algorithm). Target 0.574, which is optimal in many
          dimensions (Roberts & Rosenthal 1998).
        - ``"ghmc"``: one step, with a momentum p that persists, sqrt(0.5) p + sqrt(0.5) times a fresh one, so that
          steps go in one direction for a while (generalized HMC). Target 0.8. Of all pairs that were tried, this one
          gave the most effective draws, for q and for q^2, on normal distributions, a logistic regression and the
          eight schools.
        - ``"rwm"``: a random walk with normal proposals of covariance e^2 W, e the step size and W the inverse mass:
          the covariance that the windows taught. e begins at 2.38 / sqrt(D), optimal for that covariance (Roberts,
          Gelman & Gilks 1997), and is adapted to their acceptance rate 0.234. It needs no gradient.

    Args:
        potential: A callable q -> (U, gradient of U), with U = -log density up to a constant, or an object with
            ``value_and_grad(q)``, as those of `potentials`. With a true attribute ``vectorized`` it gets the positions
            of many chains, (c, D), and gives (c,) and (c, D), row by row: how many are in a call varies with blocks
            of chains, trees that are done, and numbers of steps. For ``"rwm"`` it may give U alone.
        num_samples: Draws of each chain that are kept, 1 or more.
        num_warmup: Transitions of each chain before them, 0 or more; step sizes need some fifty at least, the mass
            hundreds. 0: nothing is adapted, and all but ``"rwm"`` need `stepsize`.
        num_chains: 1 or more.
        kernel: See above.
        initial_position: Where chains begin: (D,) for all, or (C, D). Transitions compute in its dtype, float32 or
            float64. None: uniform on (-2, 2) in float64, for potentials that have an attribute ``dim``.
        stepsize: Where adaptation begins, above 0. None: 1, from where a search goes to a reasonable one; for ``"rwm"``
            see above.
        num_steps: For ``"hmc"``, see above.
        target_accept: The mean acceptance rate that step sizes are adapted to, in (0, 1). None: the kernel's.
        dense_mass: Learn covariances, and not only variances. For distributions with strong correlations, whose number
            of dimensions is well below the number of warm-up transitions; a step costs D^2.
        thin: Transitions for each draw that is kept, 1 or more. A draw is ``diverging`` if one of its transitions is;
            its other statistics are those of the last.
        seed: 0 to 2^64 - 1.
        device: Where transitions run, see `grilly_optim.devices`. None: chosen by the size of all chains.
        progress: Show a bar over all transitions of all chains, with the median step size, and once the warm-up is over
            with the number of divergences so far (needs tqdm, of the extra ``sampling``).
        executor: Where chains run: any `concurrent.futures.Executor`. For one with other processes the potential must
            be a function, or an object of a class, of a module. It is not shut down. Chains of a vectorized potential
            are split into as many batches as this machine has processors, others run one by one; every two seconds
            they report.
        checkpoint: A file for the state of the run: written now and then (at most a twentieth of the time goes into
            it), at the end, and when the run is interrupted or fails. It always appears whole or not at all. As the
            draws are in it, it is also what keeps them.
        resume: Go on from `checkpoint`, if the file is there: the draws are those of a run without a break. With a
            larger `num_samples` a finished run goes on too. All other arguments must be as they were, but for
            `device`, `progress` and `executor`.

    Returns:
        The draws, and statistics of the transitions that led to them. See `Trace`.

    Raises:
        TypeError: An argument of another type.
        ValueError: An argument out of range; a potential that is not finite where a chain begins; a checkpoint of
            another run.
        ChainFailed: The potential raised or gave what it should not, or the executor broke. It names the chain and the
            transition (from 0, warm-up and all), and its ``results`` are the draws of each chain so far, (n, D).
        FileExistsError: There is a checkpoint already, and `resume` is False.
        CheckpointError: The checkpoint is damaged.
        KeyboardInterrupt: Ctrl-C, before the first draw.
        MissingExtra: tqdm is not installed.

    Warns:
        SamplingWarning: Transitions of some draws diverged: there the energy was not conserved, and parts
            of the distribution nearby may be missing from the draws. Or Ctrl-C ended the run: what is returned then are
            the draws so far, and the trace's ``interrupted`` is True. (With an executor: those of the last report.)

    Source: Hoffman & Gelman, "The no-U-turn sampler" (2014); Betancourt, "A conceptual introduction to Hamiltonian
    Monte Carlo" (2017); Stan Reference Manual; for ``"ghmc"`` Horowitz, "A generalized guided Monte Carlo algorithm"
    (1991).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import sample
        >>> def potential(q):  # a normal distribution with standard deviations 1 and 100
        ...     scale = np.array([1.0, 100.0])
        ...     return ((q / scale) ** 2).sum() / 2, q / scale**2
        >>> trace = sample(potential, 500, num_warmup=500, initial_position=np.zeros(2))
        >>> trace.draws.shape
        (4, 500, 2)
        >>> (trace.draws.std(axis=(0, 1)) / [1, 100]).round()
        array([1., 1.])
        >>> int(trace.sample_stats["diverging"].sum())
        0
    """
    _executors.check_executor(executor)
    shown = Flag().take("progress", progress)
    chains = Whole(1).take("num_chains", num_chains)
    seed = Whole(0, philox.SEED_BITS).take("seed", seed)
    position = positions_of(potential, initial_position, chains, seed)
    dim = position.shape[1]
    warmup = Whole(0).take("num_warmup", num_warmup)
    made = kernel_of(kernel, num_steps, dim)
    if target_accept is not None:
        target = Range(0, 1, above=True).take("target_accept", target_accept)
        made = dataclasses.replace(made, target_accept=target)
    if stepsize is None and warmup == 0 and made.stepsize is None:
        raise ValueError("stepsize is needed where num_warmup is 0: there is no warm-up that could find one")
    size = made.stepsize or 1.0 if stepsize is None else Range(0, above=True).take("stepsize", stepsize)
    job = Job(
        potential=potential,
        adapting=Adapting(warmup, made, Flag().take("dense_mass", dense_mass)),
        num_samples=Whole(1).take("num_samples", num_samples),
        thin=Whole(1).take("thin", thin),
        dim=dim,
        dtype=position.dtype,
        # Chosen once: no batch of chains may be small enough for another device than the others.
        device=select(device, position.size).info.device,
        stepsize=size,
        seed=seed,
    )
    runners = job.runners()
    options = {
        "kernel": kernel,
        "num_chains": chains,
        "dim": dim,
        "dtype": position.dtype.name,
        "seed": seed,
        "num_warmup": warmup,
        "thin": job.thin,
        "stepsize": stepsize if stepsize is None else size,
        "num_steps": num_steps if num_steps is None else int(num_steps),
        "target_accept": made.target_accept,
        "dense_mass": job.adapting.dense,
        "initial_position": position,
        "potential": np.frombuffer(identity(potential).encode(), np.uint8),
    }
    file = _checkpoint(checkpoint, resume, options)
    run = None if file is None else file.load(job)
    if run is None:
        check_start(job, position)
        parts = [Part(job, numbers, position[numbers.start : numbers.stop]) for numbers in split(job, chains, executor)]
        run = Run(job, parts, [job.record(len(part.chains)) for part in parts])
    else:
        check_potential(run)
    if file is not None:
        file.save(run)  # whether it can be written is known before anything is computed
    interrupted = False
    try:
        with bar(job.transitions * chains, shown, "it", run.done) as report:
            run.go(runners, executor, report, lambda _: None if file is None else file.save_when_due(run))
    except KeyboardInterrupt:
        if run.drawn == 0:
            raise
        interrupted = run.drawn < job.num_samples
    finally:
        if file is not None:
            file.save(run)
    return _trace(run, kernel, interrupted)


def _checkpoint(path: Any, resume: bool, options: dict[str, Any]) -> Checkpoint | None:
    resume = Flag().take("resume", resume)
    if path is None:
        if resume:
            raise ValueError("resume=True needs checkpoint: the file to go on from")
        return None
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"checkpoint must be a str or a path, got {type(path).__name__}")
    if os.path.isdir(text) or not os.path.basename(text):
        raise ValueError(f"checkpoint must be the path of a file, got {text!r}")
    if not resume and os.path.lexists(text):
        raise FileExistsError(f"{text!r} is there already: resume=True goes on with it; remove it to begin anew")
    return Checkpoint(text, options)


def _trace(run: Run, kernel: str, interrupted: bool) -> Trace:
    draws, stats = run.results()
    if interrupted:
        warnings.warn(
            f"interrupted: these are {draws.shape[1]} of {run.job.num_samples} draws of each chain", SamplingWarning, 3
        )
    if not isinstance(run.job.adapting.kernel.method, Rwm):  # there a proposal where U is infinite is nothing special
        _warn_of_divergences(stats["diverging"], run.job.adapting.kernel.target_accept)
    masses = [part.batch.inv_mass for part in run.parts]
    return Trace(
        draws,
        stats,
        names=run.job.potential.names if isinstance(run.job.potential, BuiltIn) else (),
        kernel=kernel,
        seed=run.job.seed,
        thin=run.job.thin,
        num_warmup=run.job.adapting.num_warmup,
        stepsize=np.concatenate([part.batch.stepsize for part in run.parts]),
        inv_mass=np.concatenate(
            [
                m.array if m.per_chain else np.broadcast_to(m.array, (len(p.chains), *m.array.shape))
                for m, p in zip(masses, run.parts, strict=True)
            ]
        ),
        interrupted=interrupted,
        seconds=run.seconds,
    )


def _warn_of_divergences(diverging: NDArray[np.bool_], target: float) -> None:
    """(C, n), and the acceptance rate that step sizes were adapted to."""
    by_chain = diverging.sum(axis=1)
    if not by_chain.any():
        return
    chains = ", ".join(f"{c}: {by_chain[c]}" for c in np.flatnonzero(by_chain)[:8])
    more = ", ..." if np.count_nonzero(by_chain) > 8 else ""
    warnings.warn(
        f"{by_chain.sum()} of {diverging.size} draws come from transitions that diverged (by chain: {chains}{more}): "
        f"parts of the distribution may be missing. A target_accept closer to 1 (it is {target:g}) makes smaller "
        "steps; if that does not help, write the potential in other coordinates",
        SamplingWarning,
        stacklevel=4,
    )
