"""What a step costs that does more than its rule: adapts its learning rate, carries a penalty, sums up a path."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.cli import continual
from grilly_optim.cli.demo import Progress
from grilly_optim.continual import EWC, SynapticIntelligence
from grilly_optim.optim import AdamW, AutoHypergradientAdamW, Optimizer

from ..harness import Contestant, race
from .table import Measure, at_least

Array = NDArray[Any]

# Times of a plain AdamW step, at most, and the bytes moved by it as AdamW's 28 per element.
HYPERGRADIENT: dict[str, tuple[dict[str, Any], float]] = {
    "lr alone": ({}, 1.6),
    "doc, momentum and surprise": ({"adapt_momentum": True, "track_surprise": True}, 2.2),
    "corrected, both": ({"rule": "corrected", "adapt_momentum": True, "track_surprise": True}, 2.6),
}
AGAINST_PASSES = 3.0
STRENGTH = 10.0


def _timed(calls: Mapping[str, Callable[[], object]], budget: float) -> dict[str, float]:
    """Median seconds of each call, all in one race."""
    timings = race([Contestant(name, "", "step", call) for name, call in calls.items()], budget)
    return {name: timing.median for name, timing in zip(calls, timings, strict=True)}


def _arrays(elements: int, count: int) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(elements, dtype=np.float32) for _ in range(count)]


def hypergradient(budget: float) -> Iterator[Measure]:
    """AutoHypergradientAdamW against AdamW, on the compiled CPU."""
    for elements in (1_000_000, 10_000_000):
        gradient, *parameters = _arrays(elements, 2 + len(HYPERGRADIENT))
        optimizers: dict[str, Optimizer] = {"AdamW": AdamW([parameters.pop()], device="cpu")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the documented rule has its warnings
            for name, (options, _) in HYPERGRADIENT.items():
                optimizers[name] = AutoHypergradientAdamW([parameters.pop()], **options, device="cpu")
        seconds = _timed({n: partial(o.step, gradients=[gradient]) for n, o in optimizers.items()}, budget)
        for name, (_, target) in HYPERGRADIENT.items():
            ratio = seconds[name] / seconds["AdamW"]
            yield Measure(
                f"AutoHypergradientAdamW / AdamW, {name}, n = {elements:.0e}".replace("e+0", "e"),
                f"{target}x or less",
                f"{ratio:.2f}x",
                ratio <= target,
                {"ratio": ratio, "us": seconds[name] * 1e6, "AdamW (us)": seconds["AdamW"] * 1e6},
            )


def forgetting(budget: float, elements: int = 10_000_000) -> Iterator[Measure]:
    """Penalty and path integral in the kernel, against separate NumPy passes, in place and into one scratch array."""
    gradient, start, anchor, weight = _arrays(elements, 4)
    weight = np.abs(weight)
    scratch, before, omega = np.empty_like(start), np.empty_like(start), np.zeros_like(start)

    def optimizer() -> tuple[Array, AdamW]:
        p = start.copy()
        return p, AdamW([p], lr=1e-5, device="cpu")

    _, plain = optimizer()
    _, with_ewc = optimizer()
    ewc = EWC()
    ewc.consolidate([anchor], [weight])
    with_ewc.attach(ewc, strength=STRENGTH)
    _, with_si = optimizer()
    with_si.attach(SynapticIntelligence(), strength=STRENGTH)
    p, separate = optimizer()

    def penalty() -> None:
        np.subtract(p, anchor, out=scratch)
        np.multiply(scratch, weight, out=scratch)
        np.multiply(scratch, np.float32(STRENGTH), out=scratch)
        np.add(scratch, gradient, out=scratch)

    def ewc_in_passes() -> None:
        penalty()
        separate.step(gradients=[scratch])

    def si_in_passes() -> None:
        np.copyto(before, p)
        penalty()
        separate.step(gradients=[scratch])
        np.subtract(p, before, out=before)
        np.multiply(before, gradient, out=before)
        np.subtract(omega, before, out=omega)

    seconds = _timed(
        {
            "plain": partial(plain.step, gradients=[gradient]),
            "EWC": partial(with_ewc.step, gradients=[gradient]),
            "EWC in passes": ewc_in_passes,
            "SI": partial(with_si.step, gradients=[gradient]),
            "SI in passes": si_in_passes,
        },
        budget,
    )
    for name, what in (("EWC", "penalty gradient"), ("SI", "penalty gradient and path integral")):
        fused, passes = seconds[name], seconds[f"{name} in passes"]
        alone = (passes - seconds["plain"]) / max(fused - seconds["plain"], 1e-9)
        yield at_least(
            f"{name}: {what} in the step / in NumPy passes, n = {elements:.0e}, whole steps".replace("e+0", "e"),
            passes / fused,
            AGAINST_PASSES,
            without_the_plain_step=alone,
            fused_us=fused * 1e6,
            passes_us=passes * 1e6,
            plain_us=seconds["plain"] * 1e6,
        )


def continual_demo() -> Iterator[Measure]:
    """What the methods keep of five tasks, over plain fine-tuning with the same seeds."""
    with Progress(total=1, quiet=True) as progress:
        accuracies = continual.learn("cpu", continual.EPOCHS, progress)
    for name, summary in continual.summarize(accuracies).items():
        if name == continual.METHODS[0].name:
            continue
        yield Measure(
            f"continual demo: {name} over {continual.METHODS[0].name}, final accuracy, {len(continual.SEEDS)} seeds",
            "more than 2 standard errors",
            f"{summary.gain:+.3f} +- {summary.gain_error:.3f}: {summary.gain / summary.gain_error:.1f} standard errors",
            summary.is_better,
            dataclasses.asdict(summary),
        )
