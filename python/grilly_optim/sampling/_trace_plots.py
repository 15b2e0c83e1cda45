"""Pictures of a trace: draws and densities, ranks, energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._extras import load
from grilly_optim.sampling._figures import new_figure
from grilly_optim.sampling._trace_summary import LEAST_DRAWS, diverging, ebfmi, has_energies, headline

if TYPE_CHECKING:
    from grilly_optim.sampling.trace import Trace

Doubles = NDArray[np.float64]

SHOWN_COORDINATES = 8  # unless others are asked for
SHOWN_CHAINS = 64  # as lines
# Okabe and Ito's, which everybody can tell apart; without yellow, and without black, which marks divergences. More
# chains than these get a scale.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
BINS = 20  # of ranks
FEW_DRAWS = 30  # are points, too
GRID = 400  # points of a density
FAR = 4.0  # standard deviations, where the colours of rank counts end

# Kind -> panels of each coordinate, and their widths.
PANELS = {
    "all": {"draws": 2.0, "density": 1.0, "ranks": 1.3},
    "trace": {"draws": 2.0, "density": 1.0},
    "rank": {"ranks": 1.0},
    "energy": {},
}
X_LABELS = {"draws": "draw", "density": "value", "ranks": "rank among the draws of all chains"}


def plot(trace: Trace, kind: str, chosen: Sequence[int] | None) -> Any:
    """See `Trace.plot`; `chosen` are numbers of coordinates."""
    if kind not in PANELS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, PANELS))}, got {kind!r}")
    if not trace.num_draws:
        raise ValueError("there are no draws to plot")
    energies = kind in ("all", "energy") and has_energies(trace) and trace.num_draws >= LEAST_DRAWS
    if kind == "energy" and not energies:
        raise ValueError(
            f"energy plots take {LEAST_DRAWS} draws, one of each transition, sample_stats['energy'], and a kernel with "
            f"momenta drawn afresh; got {trace.num_draws} draws, thin={trace.thin}, statistics "
            f"{list(trace.sample_stats)}, kernel {trace.kernel!r}"
        )
    panels = PANELS[kind]
    numbers = range(min(trace.dim, SHOWN_COORDINATES)) if chosen is None else chosen
    rows = range(len(numbers) if panels else 0)
    heights = [1.7] * len(rows) + [2.6] * energies
    figure = new_figure(3 + 3 * max(len(panels), 2), 1.0 + sum(heights))
    grid = figure.add_gridspec(len(heights), max(len(panels), 1), height_ratios=heights)
    if panels:
        grid.set_width_ratios(list(panels.values()))
    figure.suptitle(_title(trace, kind, numbers), fontsize="medium")
    shown = _Chains(trace)
    axes = {name: [figure.add_subplot(grid[row, k]) for row in rows] for k, name in enumerate(panels)}
    for row in rows:
        draws = trace.draws[:, :, numbers[row]].astype(np.float64)
        for name in panels:
            _DRAW[name](axes[name][row], draws, shown)
        next(iter(axes.values()))[row].set_title(trace.names[numbers[row]], loc="left", fontsize="medium")
    for name, column in axes.items():
        column[-1].set_xlabel(X_LABELS[name])
    if energies:
        _energies(figure.add_subplot(grid[-1, :]), trace)
    shown.explain(figure, axes)
    return figure


class _Chains:
    """Which chains are drawn, in which colours, and where they diverged."""

    def __init__(self, trace: Trace) -> None:
        chains = trace.num_chains
        self.count = chains
        # Evenly among all of them.
        self.lines = np.unique(np.linspace(0, chains - 1, min(chains, SHOWN_CHAINS)).astype(int))
        self.few = chains <= len(COLOURS)
        colours = load("matplotlib.colors", extra="sampling")
        self.scale = load("matplotlib.cm", extra="sampling").ScalarMappable(
            colours.Normalize(0, max(chains - 1, 1)), colours.ListedColormap(_readable())
        )
        self.colours = COLOURS[:chains] if self.few else self.scale.to_rgba(np.arange(chains))
        self.alpha = 0.8 if self.few else max(0.15, 4 / len(self.lines))
        self.diverged = np.nonzero(diverging(trace))

    def mark(self, axes: Any, places: Doubles | NDArray[np.intp]) -> None:
        """Strokes at the lower edge."""
        if len(places):
            axes.plot(
                places, np.full(len(places), 0.04), "|", color="black", markersize=7, markeredgewidth=0.8,
                transform=axes.get_xaxis_transform(), label="divergent transition", zorder=5,
            )  # fmt: skip

    def explain(self, figure: Any, axes: dict[str, list[Any]]) -> None:
        """A legend and scales for what stands in the panels."""
        lines = [one for name in ("draws", "density") for one in axes.get(name, [])]
        line = load("matplotlib.lines", extra="sampling").Line2D
        handles = []
        if lines and self.few:
            handles = [line([], [], color=colour, label=f"chain {c}") for c, colour in enumerate(self.colours)]
        elif lines:
            handles = [line([], [], color="black", label="all chains")]
        if lines and len(self.diverged[0]):
            label = f"divergent transition ({len(self.diverged[0])})"
            handles.append(line([], [], color="black", marker="|", linestyle="none", label=label))
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
        if lines and not self.few:
            figure.colorbar(self.scale, ax=axes["density"], label="chain", aspect=15 * len(axes["density"]))
        if "ranks" in axes and not self.few:
            image = axes["ranks"][0].images[0]
            figure.colorbar(
                image, ax=axes["ranks"], label="(count - expected) / √expected", extend="both",
                aspect=15 * len(axes["ranks"]),
            )  # fmt: skip


def _readable() -> Any:
    # Without the light end, which is lost on white.
    return load("matplotlib", extra="sampling").colormaps["viridis"](np.linspace(0, 0.85, 256))


def _title(trace: Trace, kind: str, numbers: Sequence[int]) -> str:
    title = headline(trace)
    if PANELS[kind] and len(numbers) < trace.dim:
        title += f" ({len(numbers)} of them shown)"
    if "draws" in PANELS[kind] and trace.num_chains > SHOWN_CHAINS:
        title += f"; lines of {SHOWN_CHAINS} chains"
    return title


def _draws(axes: Any, draws: Doubles, shown: _Chains) -> None:
    count = draws.shape[1]
    look: dict[str, Any] = {"linewidth": 0.6, "alpha": shown.alpha, "marker": "." if count < FEW_DRAWS else None}
    for c in shown.lines:
        axes.plot(np.arange(count), draws[c], color=shown.colours[c], **look)
    shown.mark(axes, np.unique(shown.diverged[1]))
    axes.margins(x=0.01)


def _density(axes: Any, draws: Doubles, shown: _Chains) -> None:
    for c in shown.lines:
        axes.plot(*density(draws[c]), color=shown.colours[c], linewidth=1.0, alpha=shown.alpha)
    if not shown.few:
        axes.plot(*density(draws.ravel()), color="black", linewidth=1.5)
    shown.mark(axes, draws[shown.diverged])
    axes.set_ylim(bottom=0)
    axes.set_yticks([])


def _ranks(axes: Any, draws: Doubles, shown: _Chains) -> None:
    counts, edges, expected = rank_counts(draws)
    chains = len(counts)
    if shown.few:
        width = edges[1] - edges[0]
        for c, row in enumerate(counts):
            # A chain's own stripe, as high as twice what is expected of it.
            axes.bar(edges[:-1], np.minimum(row / expected, 2) / 2.2, width, c, align="edge", color=shown.colours[c])
            axes.plot(edges[[0, -1]], [c + 1 / 2.2] * 2, color="black", linewidth=0.8, linestyle="--")
    else:
        deviation = (counts - expected) / np.sqrt(expected)
        axes.imshow(
            deviation, origin="lower", aspect="auto", interpolation="nearest", cmap="PuOr", vmin=-FAR, vmax=FAR,
            extent=(edges[0], edges[-1], 0, chains),
        )  # fmt: skip
    axes.set_ylim(0, chains)
    ticks = np.arange(chains) if shown.few else np.unique(np.linspace(0, chains - 1, 5).astype(int))
    axes.set_yticks(ticks + 0.5, [str(c) for c in ticks], fontsize="small")
    axes.set_ylabel("chain")
    axes.set_xlim(edges[0], edges[-1])


def _energies(axes: Any, trace: Trace) -> None:
    energies = trace.sample_stats["energy"].astype(np.float64)
    fractions = ebfmi(trace)
    axes.fill_between(
        *density((energies - energies.mean()).ravel()), color=COLOURS[0], alpha=0.35, label="energy - mean"
    )
    changes = np.diff(energies, axis=1).ravel()
    axes.plot(*density(changes), color=COLOURS[5], linewidth=1.5, label="change from draw to draw")
    for text in _ebfmi_lines(fractions):
        axes.plot([], [], " ", label=text)
    axes.set_title("energy", loc="left", fontsize="medium")
    axes.set(xlabel="difference of energy", yticks=[])
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small", loc="upper right")


def _ebfmi_lines(fractions: Doubles) -> list[str]:
    if len(fractions) <= len(COLOURS):
        return [f"E-BFMI, chain {c}: {fraction:.2f}" for c, fraction in enumerate(fractions)]
    lowest = int(np.argmin(fractions))
    return [f"E-BFMI, lowest: {fractions[lowest]:.2f} (chain {lowest})", f"E-BFMI, median: {np.median(fractions):.2f}"]


def density(values: Doubles) -> tuple[Doubles, Doubles]:
    """A Gaussian kernel estimate with Silverman's bandwidth: GRID places, and the density there.

    Values are counted in bins, and the counts are smoothed. Values that are all the same are given a width.
    """
    low, high = values.min(), values.max()
    quartiles = np.quantile(values, [0.25, 0.75])
    spreads = [s for s in (values.std(), (quartiles[1] - quartiles[0]) / 1.34) if s > 0]
    width = 0.9 * min(spreads, default=0.0) * len(values) ** -0.2
    # At least a bin, or heavy tails, which make bins wide, would make combs; and what rounding leaves apart.
    width = max(width, (high - low) / GRID, (1e-9 if high > low else 1e-3) * (np.abs(values).max() or 1.0))
    counts, edges = np.histogram(values, GRID, (low - 4 * width, high + 4 * width))
    step = edges[1] - edges[0]
    kernel = np.exp(-0.5 * (np.arange(-GRID, GRID + 1) * step / width) ** 2)
    smooth = np.convolve(counts, kernel / kernel.sum())[GRID : 2 * GRID]
    return (edges[:-1] + edges[1:]) / 2, smooth / (len(values) * step)


def rank_counts(draws: Doubles) -> tuple[NDArray[np.int64], Doubles, float]:
    """How many draws of each chain have ranks in which bin.

    Args:
        draws: (C, n).

    Returns:
        Counts (C, bins), the bins' edges, and the count that is expected where chains agree.
    """
    count = draws.shape[1]
    _, inverse, repeats = np.unique(draws, return_inverse=True, return_counts=True)
    # Equal draws, which follow rejections, share the middle of their ranks.
    ranks = (np.cumsum(repeats) - repeats / 2)[inverse].reshape(draws.shape)
    bins = max(1, min(BINS, count // 5))
    edges = np.linspace(0, draws.size, bins + 1)
    return np.stack([np.histogram(row, edges)[0] for row in ranks]), edges, count / bins


_DRAW = {"draws": _draws, "density": _density, "ranks": _ranks}
