"""Columns of a trace's summary, and in words what speaks against believing them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling._arviz import arviz

if TYPE_CHECKING:
    from grilly_optim.sampling.trace import Trace

Array = NDArray[Any]
Doubles = NDArray[np.float64]

# Of Vehtari et al. (2021): chains agree below it.
R_HAT = 1.01
# And: 100 effective draws in each of 4 chains, so that R-hat and quantiles can be estimated. More chains need no more.
ESS_PER_CHAIN, ESS_CHAINS = 100, 4
# Of Betancourt (2016).
EBFMI = 0.3
WIDTH = 100  # of the sentences below a table
# What ArviZ's diagnostics need.
LEAST_DRAWS = 4

COLUMNS = ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
# Their energies change slowly by design: momenta are kept, or there are none.
_NO_EBFMI = ("rwm", "ghmc")


@dataclass(frozen=True, eq=False, repr=False)
class TraceSummary:
    """What `Trace.summary` gives: prints as a table with the problems below it. Columns are (D,), in double.

    Attributes:
        names: Of the D coordinates.
        mean: Of all draws.
        sd: Their standard deviation, ddof 1.
        mcse_mean: Monte Carlo standard error of the mean.
        ess_bulk: Effective sample size, in the bulk: how many independent draws would say as much of the mean.
        ess_tail: The smaller one of those for the 5 % and the 95 % quantile.
        r_hat: Rank-normalized split R-hat.
        ebfmi: E-BFMI, (C,): the share of the variance of energies that one transition can change; empty where it says
            nothing.
        problems: What speaks against believing these numbers, and what to do about it, a sentence or two each:
            divergent transitions, R-hat above 1.01, fewer than 100 effective draws per chain (400 are enough for more
            than 4 chains), E-BFMI below 0.3, trees that were cut off, coordinates that never moved. Empty: none was
            found.
        headline: Of which run.

    Source: Vehtari et al., "Rank-normalization, folding, and localization: an improved R-hat" (2021); Betancourt,
    "Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo" (2016), for E-BFMI.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import Trace
        >>> draws = np.random.default_rng(0).standard_normal((4, 1000, 3)) + [0, 10, 0]
        >>> draws[0, :, 2] += 1
        >>> summary = Trace(draws, names=["mu", "tau", "slope"]).summary()
        >>> summary.worst(1), bool(abs(summary.mean[1] - 10) < 4 * summary.mcse_mean[1])
        (['slope'], True)
        >>> for problem in summary.problems:
        ...     print(problem.partition(" (")[0])
        R-hat is above 1.01 for slope
        Fewer than 400 effective draws for slope
    """

    names: tuple[str, ...]
    mean: Doubles
    sd: Doubles
    mcse_mean: Doubles
    ess_bulk: Doubles
    ess_tail: Doubles
    r_hat: Doubles
    ebfmi: Doubles
    problems: tuple[str, ...]
    headline: str

    def worst(self, count: int) -> list[str]:
        """Names of the coordinates with the lowest effective sample size, bulk or tail, the lowest first."""
        return [self.names[d] for d in self._ranking()[:count]]

    def table(self, max_rows: int | None = 20) -> str:
        """The text that printing gives.

        Args:
            max_rows: Of more coordinates only those with the lowest effective sample sizes are shown, in their order;
                None: all.
        """
        shown, left_out = list(range(len(self.names))), []
        if max_rows is not None and len(self.names) > max_rows:
            shown = sorted(self._ranking()[:max_rows])
            left_out = [f"... and {len(self.names) - max_rows} more, with larger effective sample sizes"]
        rows = [("", *COLUMNS), *(self._row(d) for d in shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            name.ljust(widths[0]) + "".join(cell.rjust(w + 2) for cell, w in zip(cells, widths[1:], strict=True))
            for name, *cells in rows
        ]
        below = [_wrapped(f"! {problem}") for problem in self.problems] or ["no problems found"]
        return "\n".join([self.headline, "", *lines, *left_out, "", *below])

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def _ranking(self) -> list[int]:
        least = np.minimum(self.ess_bulk, self.ess_tail)
        return [int(d) for d in np.argsort(np.where(np.isnan(least), -1, least), kind="stable")]

    def _row(self, d: int) -> tuple[str, ...]:
        error = self.mcse_mean[d]
        # As many digits as mean something: two of the error.
        decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else None
        numbers = [_text(column[d], decimals) for column in (self.mean, self.sd, self.mcse_mean)]
        sizes = [_text(column[d], 0) for column in (self.ess_bulk, self.ess_tail)]
        return self.names[d], *numbers, *sizes, _text(self.r_hat[d], 3)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _text(number: float, decimals: int | None) -> str:
    if math.isnan(number):
        return "-"
    plain = "" if decimals is None or decimals > 8 else f"{number:.{decimals}f}"
    return plain if 0 < len(plain) <= 12 else f"{number:.4g}"


def headline(trace: Trace) -> str:
    """The size of a run, in a line."""
    chains, draws, dim = trace.draws.shape
    size = f"{_count(chains, 'chain')} of {_count(draws, 'draw')}, {_count(dim, 'coordinate')}"
    return (f"{trace.kernel}: " if trace.kernel else "") + size + (", interrupted" if trace.interrupted else "")


def ebfmi(trace: Trace) -> Doubles:
    """E-BFMI of each chain, (C,); empty where the trace has no energies that it would mean something for."""
    if not has_energies(trace):
        return np.empty(0)
    energies = trace.sample_stats["energy"].astype(np.float64)
    if energies.shape[1] < LEAST_DRAWS:
        return np.full(len(energies), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.square(np.diff(energies)).mean(axis=1) / energies.var(axis=1, ddof=1))


def diverging(trace: Trace) -> Array:
    """Which transitions diverged, (C, n). A random walk follows no trajectory: what it rejects is nothing special."""
    if "diverging" not in trace.sample_stats or trace.kernel == "rwm":
        return np.zeros(trace.draws.shape[:2], bool)
    return trace.sample_stats["diverging"]


def has_energies(trace: Trace) -> bool:
    """Whether E-BFMI and the energy plot mean something: they are about what one transition changes."""
    return "energy" in trace.sample_stats and trace.kernel not in _NO_EBFMI and trace.thin == 1


def summarize(trace: Trace, numbers: Sequence[int]) -> TraceSummary:
    """The summary of some coordinates."""
    az = arviz()
    columns = np.array([_columns(az, trace.draws[:, :, d].astype(np.float64)) for d in numbers]).T
    names = tuple(trace.names[d] for d in numbers)
    made = dict(zip(COLUMNS, columns, strict=True))
    fractions = ebfmi(trace)
    found = (*_of_the_run(trace), *_of_coordinates(names, made, trace.draws.shape), *_of_transitions(trace, fractions))
    return TraceSummary(names, **made, ebfmi=fractions, problems=found, headline=headline(trace))


def _columns(az: Any, draws: Doubles) -> list[float]:
    chains, count = draws.shape
    mean = draws.mean() if count else np.nan
    sd = draws.std(ddof=1) if draws.size > 1 else np.nan
    if count < LEAST_DRAWS or (draws == draws[:, :1]).all():
        return [mean, sd, np.nan, np.nan, np.nan, np.nan]
    # Chains that do not move while others do.
    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat = az.rhat(draws) if chains > 1 else np.nan
        tail = az.ess(draws, method="tail", prob=(0.05, 0.95))
        return [float(x) for x in (mean, sd, az.mcse(draws, method="mean"), az.ess(draws, method="bulk"), tail, r_hat)]


def _of_the_run(trace: Trace) -> Iterator[str]:
    if trace.interrupted:
        yield "The run was interrupted: these are the draws until then."
    if trace.num_draws < LEAST_DRAWS:
        yield f"Fewer than {LEAST_DRAWS} draws in a chain: nothing can be said about them."
    if trace.num_chains == 1:
        yield "One chain: R-hat needs two or more. Nothing says whether another start would have led elsewhere."


def _of_coordinates(names: Sequence[str], columns: dict[str, Doubles], shape: tuple[int, ...]) -> Iterator[str]:
    chains, draws, _ = shape
    r_hat, ess = columns["r_hat"], np.minimum(columns["ess_bulk"], columns["ess_tail"])
    if draws >= LEAST_DRAWS and (still := np.flatnonzero(np.isnan(ess))).size:
        yield f"{_of(still, names)} never moved: no proposal was accepted, or the step size is far too small."
    if (apart := np.flatnonzero(r_hat > R_HAT)).size:
        worst = int(np.nanargmax(r_hat))
        yield (
            f"R-hat is above {R_HAT} for {_of(apart, names)} (highest {r_hat[worst]:.3f}, {names[worst]}): the chains "
            "do not agree. Take more warm-up and draws; if they stay apart, reparametrize, or look for several modes."
        )
    least = ESS_PER_CHAIN * min(chains, ESS_CHAINS)
    if (few := np.flatnonzero(ess < least)).size:
        worst = int(np.nanargmin(ess))
        yield (
            f"Fewer than {least} effective draws for {_of(few, names)} (fewest {ess[worst]:.0f}, {names[worst]}): "
            "means and quantiles are rough. Take more draws."
        )


def _of_transitions(trace: Trace, fractions: Doubles) -> Iterator[str]:
    stats, total = trace.sample_stats, trace.draws.shape[0] * trace.draws.shape[1]
    if (counts := np.count_nonzero(diverging(trace), axis=1)).any():
        yield (
            f"{counts.sum()} of {total} {_transitions(trace)} diverged, in {_chains(counts > 0)}: the draws avoid a "
            "region where the step size is too large, and are biased. Raise target_accept, or reparametrize."
        )
    if (low := fractions < EBFMI).any():
        yield (
            f"E-BFMI is below {EBFMI} in {_chains(low)} (lowest {np.nanmin(fractions):.2f}): tails are reached slowly. "
            "Reparametrize, or take a longer warm-up."
        )
    if "reached_max_treedepth" in stats and (cut := np.count_nonzero(stats["reached_max_treedepth"])):
        kept = "" if trace.thin == 1 else " that were kept"
        yield (
            f"{cut} of {total} trees{kept} reached the maximum depth: this is slow, not wrong. Take a longer warm-up, "
            "dense_mass=True for correlated coordinates, or rescale them."
        )


def _transitions(trace: Trace) -> str:
    return "transitions" if trace.thin == 1 else "draws come from transitions that"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _of(chosen: NDArray[np.intp], names: Sequence[str]) -> str:
    if len(chosen) <= 3:
        return ", ".join(names[d] for d in chosen)
    return f"{'all ' if len(chosen) == len(names) else f'{len(chosen)} of '}{len(names)} coordinates"


def _chains(chosen: NDArray[np.bool_]) -> str:
    numbers = np.flatnonzero(chosen)
    if len(numbers) == len(chosen) > 1:
        return f"all {len(chosen)} chains"
    if len(numbers) <= 5:
        return f"chain{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    return f"{len(numbers)} of {len(chosen)} chains"
