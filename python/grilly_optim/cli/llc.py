"""The llc job: the local learning coefficient of a trained classifier, with all that says whether to believe it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import select
from grilly_optim._extras import load
from grilly_optim.cli import digits, mlp
from grilly_optim.cli.demo import Progress
from grilly_optim.sampling import (
    ChainFailed,
    EpsilonBetaSweep,
    SweepFailed,
    default_nbeta,
    epsilon_beta_sweep,
    ess,
    estimate_learning_coeff_with_summary,
    plot_sweep,
    plot_trace,
    r_hat,
)
from grilly_optim.sampling._arviz import arviz

Array = NDArray[Any]

# The digits job's classifier with fewer units: a chain then takes seconds.
HIDDEN = (32,)

# Chosen on seed 1 so that the chains settle and agree: with smaller steps they do not get around in so few of them
# (lr 1e-4: R-hat 1.09), and a weaker pull lets them go further than that (localization 30: R-hat 1.04).
LR, LOCALIZATION = 1e-3, 100.0
CHAINS, BURN_IN, DRAWS = 4, 300, 1000
SEED = 0

EPSILONS = np.logspace(-4, -2, 5)
BETAS = np.logspace(-2, 1, 4)
SWEEP_CHAINS, SWEEP_BURN_IN, SWEEP_DRAWS = 2, 100, 50

# What R-hat may be before chains are said to disagree; so few draws do not tell 1.00 from 1.01.
AGREE = 1.05


@dataclass(frozen=True)
class Loss:
    """The mean loss over all images to learn from. It can be sent to other processes."""

    images: Array
    labels: Array

    def __call__(self, params: list[Array]) -> tuple[float, list[Array]]:
        """The loss and its gradients."""
        # Of its own for each call: chains may run in threads.
        gradients = [np.empty_like(p) for p in params]
        loss, _ = mlp.loss_and_gradients(params, self.images, self.labels, gradients)
        return loss, gradients


def estimate(params: Sequence[Array], loss: Loss, device: str, progress: bool) -> dict[str, Any]:
    """The coefficient by chains."""
    return estimate_learning_coeff_with_summary(
        params,
        loss,
        optimizer_kwargs={"lr": LR, "nbeta": default_nbeta(len(loss.images)), "localization": LOCALIZATION},
        num_draws=DRAWS,
        num_chains=CHAINS,
        num_burnin_steps=BURN_IN,
        seed=SEED,
        device=device,
        progress=progress,
        measure_mala=True,
    )


def sweep(params: Sequence[Array], loss: Loss, device: str, progress: bool) -> EpsilonBetaSweep:
    """The coefficient for other step sizes and temperatures."""
    return epsilon_beta_sweep(
        params,
        loss,
        nbeta=default_nbeta(len(loss.images)),
        epsilons=EPSILONS,
        betas=BETAS,
        optimizer_kwargs={"localization": LOCALIZATION},
        num_draws=SWEEP_DRAWS,
        num_chains=SWEEP_CHAINS,
        num_burnin_steps=SWEEP_BURN_IN,
        seed=SEED,
        device=device,
        progress=progress,
    )


def report(results: Mapping[str, Any]) -> str:
    """The table, and whether the chains agree."""
    losses = results["loss/trace"]
    lines = [f"{'chain':<10} {'LLC':>14}  {'mean loss':>10}  {'MALA acceptance':>15}"]
    for c, (row, rate) in enumerate(zip(losses, results["mala/acceptance"], strict=True)):
        lines.append(f"{c:<10} {results[f'llc-chain/{c}']:>14.3f}  {row.mean():>10.4f}  {rate:>15.3f}")
    llc = f"{results['llc/mean']:.3f} +- {results['llc/std']:.3f}"
    rate = results["mala/acceptance"].mean()
    lines.append(f"{'all':<10} {llc:>14}  {losses.mean():>10.4f}  {rate:>15.3f}")
    lines.append("mean +- standard deviation over chains; LLC = nbeta (mean loss - initial loss)")
    mixing = r_hat(losses)
    verdict = "the chains agree" if mixing < AGREE else "the chains do NOT agree: more steps, or another step size"
    lines.append(f"R-hat {mixing:.3f}, effective sample size {ess(losses):.0f} of {losses.size}: {verdict}")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Train, estimate, print the table, and save the pictures."""
    arviz()  # looked for at once, as the others are
    sizes = (64, *HIDDEN, 10)
    initial = mlp.initial_parameters(sizes, SEED)
    elements = sum(p.size for p in initial)
    choice = select(options.device, elements)
    device = choice.info.device
    options.output.mkdir(parents=True, exist_ok=True)
    data = digits.load_data()
    loss = Loss(data.train_images, data.train_labels)
    talks = not options.quiet
    bar = talks and sys.stdout.isatty() and sys.stderr.isatty()
    if talks:
        print(
            f"perceptron {'-'.join(map(str, sizes))} with {elements} parameters learns {len(loss.images)} images of "
            f"handwritten digits, AdamW on {device}",
            flush=True,
        )
    epochs = options.epochs or digits.EPOCHS
    with Progress(total=epochs * -(-len(loss.images) // digits.BATCH), quiet=options.quiet) as progress:
        history = digits.train(data, initial, device, epochs, progress)
    nbeta = default_nbeta(len(loss.images))
    if talks:
        print(
            f"\n{CHAINS} chains of {BURN_IN} + {DRAWS} steps of SGLD from there, lr {LR:g}, nbeta {nbeta:.1f} "
            f"(n / ln n), localization {LOCALIZATION:g}",
            flush=True,
        )
    # The matrices are so small that sharing one between threads takes longer than multiplying it.
    one_thread = load("threadpoolctl", extra="demo").threadpool_limits(1)
    try:
        results = estimate(history.parameters, loss, device, bar)
        print(report(results), flush=True)
        if talks:
            points = f"{len(EPSILONS)} step sizes by {len(BETAS)} inverse temperatures"
            print(f"\n{points}, {SWEEP_CHAINS} chains of {SWEEP_BURN_IN} + {SWEEP_DRAWS} steps each", flush=True)
        grid = sweep(history.parameters, loss, device, bar)
    except (ChainFailed, SweepFailed) as error:
        print(f"grilly-optim: {error}", file=sys.stderr)
        return 1
    finally:
        one_thread.restore_original_limits()
    print(f"device {device}, {choice.info.name}: {choice.why}")

    trace, heat = options.output / "llc-trace.png", options.output / "llc-sweep.png"
    title = f"Handwritten digits: {elements} parameters, SGLD with lr {LR:g}, nbeta {nbeta:.1f}, localization "
    plot_trace(results, title + f"{LOCALIZATION:g}").savefig(trace, dpi=120)
    plot_sweep(grid, f"Handwritten digits, localization {LOCALIZATION:g}").savefig(heat, dpi=120)
    print(f"\ntraces: {trace}\nsweep: {heat}")
    return 0
