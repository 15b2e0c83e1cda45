"""Pictures of estimates: traces, and the heat map of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from grilly_optim._extras import load
from grilly_optim.sampling._figures import new_figure
from grilly_optim.sampling.diagnostics import trace_statistics
from grilly_optim.sampling.sweep import EpsilonBetaSweep

SHOWN_CHAINS = 16  # more colours cannot be told apart
TOO_LARGE = 0.6  # of the number of parameters: no coefficient is above a half, and estimates have errors


def plot_trace(results: Mapping[str, Any], title: str = "") -> Any:
    """The losses of all chains, draw by draw, and what the estimate would have been after each draw.

    A good run rises from the initial loss, becomes flat, and all chains overlap; the estimate then becomes flat too.

    Args:
        results: Of `estimate_learning_coeff_with_summary`, online or not, or of an estimator whose draws are complete.
        title: Above both plots.

    Returns:
        A `matplotlib.figure.Figure`, for ``.savefig(path)`` or a notebook.

    Raises:
        MissingExtra: matplotlib is not installed.

    Source: `devinterp.vis_utils.plot_trace`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import plot_trace
        >>> losses = 1 + np.random.default_rng(0).random((4, 100))
        >>> figure = plot_trace({"loss/trace": losses, "nbeta": 10.0, "init_loss": 1.0})
        >>> len(figure.axes)
        2
    """
    losses, nbeta, init_loss = np.asarray(results["loss/trace"]), results["nbeta"], results["init_loss"]
    draws = np.arange(1, losses.shape[1] + 1)
    figure = new_figure(10, 4)
    if title:
        figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for chain, row in enumerate(losses[:SHOWN_CHAINS]):
        left.plot(draws, row, linewidth=0.7, alpha=0.7, label=f"chain {chain}" if len(losses) <= 8 else None)
    left.plot(draws, losses.mean(axis=0), color="black", linewidth=1.2, label=f"mean of {len(losses)} chains")
    left.axhline(init_loss, color="black", linestyle=":", label="initial loss")
    left.set(title="Losses", xlabel="draw", ylabel="loss")
    left.legend(fontsize="small")

    estimate = trace_statistics(nbeta * (losses - init_loss))
    middle, spread = estimate.running_mean, estimate.running_std
    end = f"{middle[-1]:.4g}" if len(losses) == 1 else f"{middle[-1]:.4g} ± {spread[-1]:.2g}"
    right.plot(draws, middle, color="C0", label=f"mean of the chains: {end} in the end")
    if len(losses) > 1:
        right.fill_between(
            draws, middle - spread, middle + spread, color="C0", alpha=0.25, label="± standard deviation between them"
        )
    right.set(title="Estimate from the draws so far", xlabel="draw", ylabel="local learning coefficient")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def plot_sweep(sweep: EpsilonBetaSweep, title: str = "") -> Any:
    """The estimates of a sweep as a heat map with numbers in it.

    Colours are logarithmic, and for estimates that can be right. Grey: the run diverged (x), or its losses lay below
    the initial one, so that the estimate is not above 0. Red: it is well above half the number of parameters.

    Args:
        sweep: From `epsilon_beta_sweep`.
        title: Above the plot.

    Returns:
        A `matplotlib.figure.Figure`, for ``.savefig(path)`` or a notebook.

    Raises:
        MissingExtra: matplotlib is not installed.

    Source: `devinterp.vis_utils.EpsilonBetaAnalyzer.plot`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import epsilon_beta_sweep, plot_sweep
        >>> sweep = epsilon_beta_sweep(
        ...     np.zeros(10), lambda params: (float(params[0] @ params[0]) / 2, params), nbeta=100.0,
        ...     epsilons=[1e-3, 1e-2], betas=[1, 10], num_draws=20,
        ... )
        >>> plot_sweep(sweep).axes[0].get_xlabel()
        'inverse temperature nbeta (and as a multiple of the reference)'
    """
    rows, columns = sweep.llc.shape
    figure = new_figure(2.6 + 0.95 * columns, 1.9 + 0.55 * rows)
    axes = figure.subplots()
    axes.set_facecolor("lightgrey")
    positive = np.ma.masked_where(~(sweep.llc > 0), sweep.llc)
    possible = positive[positive <= TOO_LARGE * sweep.dimension].compressed()
    low, high = (possible.min(), possible.max()) if possible.size else (1.0, 1.0)
    norm = load("matplotlib.colors", extra="sampling").LogNorm(low, high * (1 + 1e-9))
    colours = load("matplotlib", extra="sampling").colormaps["viridis"].with_extremes(over="salmon")
    image = axes.imshow(positive, origin="lower", aspect="auto", norm=norm, cmap=colours)
    if possible.size:
        figure.colorbar(image, ax=axes, label="local learning coefficient")
    for (e, b), llc in np.ndenumerate(sweep.llc):
        text = "x" if np.isnan(llc) else f"{llc:.3g}"
        dark = 0 < llc <= low * (high / low) ** 0.6  # the lower part of the scale
        axes.text(b, e, text, ha="center", va="center", color="white" if dark else "black", fontsize="small")
    axes.set_xticks(
        range(columns),
        [f"{nbeta:.3g}\n({beta:.3g})" for nbeta, beta in zip(sweep.nbetas, sweep.betas, strict=True)],
        fontsize="small",
    )
    axes.set_yticks(range(rows), [f"{epsilon:.1e}" for epsilon in sweep.epsilons], fontsize="small")
    axes.set(
        xlabel="inverse temperature nbeta (and as a multiple of the reference)", ylabel="step size epsilon", title=title
    )
    return figure
