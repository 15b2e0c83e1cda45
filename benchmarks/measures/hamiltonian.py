"""What Hamiltonian Monte Carlo costs: against blackjax on its processors, and against a loop in NumPy."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling import HMC, SamplingWarning, potentials, sample

from ..errors import MissingRival
from ..hamiltonian_rivals import NumpyHmc, eight_schools, hmc, workers
from ..harness import Contestant, race
from ..rivals import load, thread_counts
from .table import Measure, at_least, not_measured

Array = NDArray[Any]

# Four chains of as many warm-up transitions as draws.
SCHOOLS_CHAINS, SCHOOLS_DRAWS, SCHOOLS_ROUNDS = 4, 1000, 12
SCHOOLS_TARGET = 1.0
# As blackjax's documentation does it, and what makes it faster.
USUAL, FASTER = ("vmap", "threefry2x32"), (("vmap", "rbg"), ("threads", "rbg"))

CHAINS, STEPS, STEPSIZE = 1024, 10, 0.1
TRANSITIONS = {10: 100, 1000: 5}  # in a call, by dimensions
HMC_TARGET = 2.0

CALLABLE_DIM, CALLABLE_TARGET = 1000, 2.0
BLOCKS = (CHAINS, 128, 64, 32)


def hamiltonian(budget: float) -> Iterator[Measure]:
    """All measures of this module."""
    yield from schools()
    yield from transitions(budget)
    yield numpy_callable(budget)


def schools() -> Iterator[Measure]:
    """Effective draws per second of NUTS on the eight schools, the whole call."""
    whats = {
        "usual": "NUTS, eight schools: effective draws/s / blackjax (vmap)",
        "fastest": "NUTS, eight schools: effective draws/s / blackjax (its fastest form)",
    }
    jobs = [(eight_schools, *form, SCHOOLS_CHAINS, SCHOOLS_DRAWS, SCHOOLS_DRAWS) for form in (USUAL, *FASTER)]
    try:
        arviz = load("arviz")
        with workers(*jobs, threads=thread_counts()[-1:]) as rivals:
            names = [f"blackjax {form} {generator}" for _, form, generator, *_ in jobs]
            calls: dict[str, Callable[[int], tuple[float, Array]]] = {"ours": _our_schools}
            calls |= {name: partial(_their_schools, rival) for name, rival in zip(names, rivals, strict=True)}
            rates = _effective_rates(arviz, calls)
    except MissingRival as error:
        yield from (not_measured(what, f"{SCHOOLS_TARGET:.1f}x", str(error)) for what in whats.values())
        return
    usual = rates[f"blackjax {' '.join(USUAL)}"]
    fastest = max(rate for name, rate in rates.items() if name != "ours")
    for key, rival in (("usual", usual), ("fastest", fastest)):
        yield at_least(
            whats[key], rates["ours"] / rival, SCHOOLS_TARGET, **{f"{n} (/s)": rate for n, rate in rates.items()}
        )


def _our_schools(seed: int) -> tuple[float, Array]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)  # blackjax has its divergences too
        begin = time.perf_counter()
        trace = sample(
            potentials.EightSchools(),
            SCHOOLS_DRAWS,
            num_warmup=SCHOOLS_DRAWS,
            num_chains=SCHOOLS_CHAINS,
            seed=seed,
        )
        return time.perf_counter() - begin, trace.draws


def _their_schools(rival: Any, seed: int) -> tuple[float, Array]:
    answer = rival(seed)
    return answer.seconds, answer.result[0]


def _effective_rates(arviz: Any, calls: dict[str, Callable[[int], tuple[float, Array]]]) -> dict[str, float]:
    """Median over seeds of the least bulk ESS of all quantities, by seconds; everyone in turn."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(0)
    for seed in range(1, SCHOOLS_ROUNDS + 1):
        for name in calls if seed % 2 else reversed(calls):
            seconds, draws = calls[name](seed)
            least = min(float(arviz.ess(draws[..., k], method="bulk")) for k in range(draws.shape[-1]))
            rates[name].append(least / seconds)
    return {name: statistics.median(values) for name, values in rates.items()}


def transitions(budget: float) -> Iterator[Measure]:
    """HMC of many chains in a Gaussian, all in one call."""
    for dim, count in TRANSITIONS.items():
        for name, stds in (("standard normal", np.ones(dim)), ("diagonal Gaussian", np.geomspace(0.5, 2, dim))):
            what = f"HMC transitions/s, {CHAINS:,} chains of {dim:,}, {name}, {STEPS} steps / blackjax"
            jobs = [(hmc, stds, CHAINS, count, STEPS, STEPSIZE, keep, "threefry2x32") for keep in (True, False)]
            try:
                with workers(*jobs, threads=thread_counts()) as rivals:
                    yield _transitions(what, name, stds, count, rivals, budget)
            except MissingRival as error:
                yield not_measured(what, f"{HMC_TARGET:.1f}x", str(error))


def _transitions(what: str, name: str, stds: Array, count: int, rivals: list[Any], budget: float) -> Measure:
    start = _start(stds)
    built_in: Any = potentials.StandardNormal(len(stds))
    if name != "standard normal":
        built_in = potentials.Gaussian(np.zeros(len(stds)), std=stds)
    sampler = HMC(start, built_in, STEPSIZE, STEPS)
    ours = Contestant("HMC", "", "step", partial(_simulate, sampler, count))
    kept = [form for form in ("draws kept", "last kept") for _ in range(len(rivals) // 2)]
    theirs = [
        Contestant("blackjax", f"{form}, {rival.label}", "rival", rival)
        for form, rival in zip(kept, rivals, strict=True)
    ]
    timings = race([ours, *theirs], budget)
    rates = {f"{t.contestant.who} (/s)": CHAINS * count / t.median for t in timings}
    accepted = {"acceptance, ours": float(np.mean(sampler.acceptance_probability)), "blackjax": rivals[0]().result}
    ratio = min(t.median for t in timings[1:]) / timings[0].median
    return at_least(what, ratio, HMC_TARGET, **rates, **accepted)


def _start(stds: Array) -> Array:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((CHAINS, len(stds))) * stds).astype(np.float32)


def _simulate(sampler: HMC, count: int) -> None:
    sampler.simulate_chain(count)
    sampler.clear_position_trajectory()


class _Gaussian:
    """A diagonal Gaussian as one writes it in NumPy, with its gradient in an array that stays."""

    vectorized = True

    def __init__(self, stds: Array) -> None:
        self._precision = (stds**-2.0).astype(np.float32)
        self._gradient = np.empty((CHAINS, len(stds)), np.float32)

    def __call__(self, q: Array) -> tuple[Array, Array]:
        gradient = np.multiply(q, self._precision, out=self._gradient[: len(q)])
        return np.float32(0.5) * np.einsum("cd,cd->c", q, gradient), gradient


def numpy_callable(budget: float) -> Measure:
    """HMC with a potential in NumPy, against the same loop in NumPy."""
    stds = np.geomspace(0.5, 2, CALLABLE_DIM)
    count = TRANSITIONS[CALLABLE_DIM]
    start = _start(stds)
    sampler = HMC(start, _Gaussian(stds), STEPSIZE, STEPS)
    kept = np.empty((count, *start.shape), np.float32)
    loops = {block: NumpyHmc(_Gaussian(stds), start, STEPSIZE, STEPS, block) for block in BLOCKS}
    ours = Contestant("HMC", "", "step", partial(_simulate, sampler, count))
    theirs = [Contestant("numpy", f"{b} chains at once", "rival", partial(loop.run, kept)) for b, loop in loops.items()]
    timings = race([ours, *theirs], budget)
    seconds = {f"{t.contestant.who} (ms a transition)": t.median / count * 1e3 for t in timings}
    accepted = {"acceptance, ours": float(np.mean(sampler.acceptance_probability)), "numpy": loops[CHAINS].run(kept)}
    return at_least(
        f"HMC with a NumPy potential, {CHAINS:,} chains of {CALLABLE_DIM:,}, {STEPS} steps / a loop in NumPy",
        min(t.median for t in timings[1:]) / timings[0].median,
        CALLABLE_TARGET,
        **seconds,
        **accepted,
    )
