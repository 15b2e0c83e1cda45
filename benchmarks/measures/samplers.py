"""What a step of Langevin dynamics costs: against torch, measured, and for many chains at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim import DeviceInfo, empty
from grilly_optim.sampling import SGMCMC

from ..errors import MissingRival
from ..harness import Contestant, race
from ..rivals import load
from .table import Measure, at_least, not_measured

Array = NDArray[Any]

AGAINST_TORCH = 5.0
SOFTWARE_AGAINST_TORCH = 1.0
MEASURED = 1.6  # times the step that is not, at most
CHAINS, EACH = 64, 10_000
AGAINST_ONE = 0.9
OPTIONS: dict[str, Any] = {"lr": 1e-4, "nbeta": 100.0}


def _sampler(shape: int | tuple[int, ...], device: str = "cpu", make: Any = SGMCMC.sgld, **options: Any) -> Any:
    """A sampler's step with a gradient that stays the same, in memory that the device reaches."""
    rng = np.random.default_rng(0)
    p, g = (empty(shape, np.float32, device) for _ in range(2))
    for array in (p, g):
        array[...] = rng.standard_normal(array.shape, dtype=np.float32)
    return partial(make([p], **OPTIONS, **options, device=device).step, gradients=[g])


def _torch_steps(elements: int) -> list[Contestant]:
    """Plain SGLD in torch: in place, with noise in an array of its own or in a new one."""
    torch = load("torch")
    p, g, z = (torch.randn(elements) for _ in range(3))
    drift, spread = -OPTIONS["lr"] / 2 * OPTIONS["nbeta"], OPTIONS["lr"] ** 0.5

    def in_place() -> None:
        p.add_(g, alpha=drift)
        p.add_(z.normal_(), alpha=spread)

    def new_noise() -> None:
        p.add_(g, alpha=drift)
        p.add_(torch.randn_like(p), alpha=spread)

    def threads(count: int) -> Callable[[], None]:
        return partial(torch.set_num_threads, count)

    return [
        Contestant("torch", f"{name}, {count} threads", "rival", call, prepare=threads(count))
        for name, call in (("normal_()", in_place), ("randn_like", new_noise))
        for count in (1, 2)
    ]


def _ratios(ours: dict[str, Callable[[], object]], rivals: list[Contestant], budget: float) -> dict[str, float]:
    """Median seconds of each of ours, and "rival": of the fastest."""
    mine = [Contestant(name, "", "step", call) for name, call in ours.items()]
    timings = race([*mine, *rivals], budget)
    seconds = {name: timing.median for name, timing in zip(ours, timings, strict=False)}
    if rivals:
        seconds["rival"] = min(timing.median for timing in timings[len(mine) :])
    return seconds


def against_torch(software: DeviceInfo | None, budget: float) -> Iterator[Measure]:
    """SGLD on the compiled CPU and on software Vulkan, against torch at its best."""
    for elements in (1_000_000, 10_000_000):
        size = f"{elements:.0e}".replace("e+0", "e")
        ours: dict[str, Callable[[], object]] = {"cpu": _sampler(elements)}
        if software is not None:
            ours["software"] = _sampler(elements, software.device)
        try:
            rivals = _torch_steps(elements)
        except MissingRival as error:
            yield not_measured(f"SGLD step, compiled CPU / torch, n = {size}", f"{AGAINST_TORCH}x", str(error))
            continue
        seconds = _ratios(ours, rivals, budget)
        times = {f"{name} (us)": t * 1e6 for name, t in seconds.items()}
        ratio = seconds["rival"] / seconds["cpu"]
        yield at_least(f"SGLD step, compiled CPU / torch, n = {size}", ratio, AGAINST_TORCH, **times)
        what = f"SGLD step, lavapipe / torch, n = {size}"
        if software is None:
            yield not_measured(what, f"{SOFTWARE_AGAINST_TORCH}x", "there is no lavapipe")
        else:
            yield at_least(what, seconds["rival"] / seconds["software"], SOFTWARE_AGAINST_TORCH, **times)


def measured_steps(budget: float, elements: int = 1_000_000) -> Iterator[Measure]:
    """Metrics on against metrics off."""
    cases: tuple[tuple[str, Any, dict[str, Any]], ...] = (
        ("SGLD", SGMCMC.sgld, {}),
        ("SGLD, localized", SGMCMC.sgld, {"localization": 10.0}),
        ("RMSprop-SGLD, localized", SGMCMC.rmsprop_sgld, {"localization": 10.0}),
    )
    for name, make, options in cases:
        steps = {kind: _sampler(elements, make=make, save_metrics=kind == "on", **options) for kind in ("on", "off")}
        seconds = _ratios(steps, [], budget)
        ratio = seconds["on"] / seconds["off"]
        yield Measure(
            f"{name}: metrics on / off, n = {elements:.0e}".replace("e+0", "e"),
            f"{MEASURED}x or less",
            f"{ratio:.2f}x",
            ratio <= MEASURED,
            {f"{kind} (us)": t * 1e6 for kind, t in seconds.items()},
        )


def many_chains(budget: float) -> Measure:
    """Chains as rows of one parameter, against one parameter of that size and against samplers of their own."""
    separate = [_sampler(EACH) for _ in range(CHAINS)]

    def one_by_one() -> None:
        for step in separate:
            step()

    calls: dict[str, Callable[[], object]] = {
        "together": _sampler((CHAINS, EACH), num_chains=CHAINS),
        "one": _sampler(CHAINS * EACH),
        "separate": one_by_one,
    }
    seconds = _ratios(calls, [], budget)
    rate = seconds["one"] / seconds["together"]
    return Measure(
        f"{CHAINS} chains of {EACH:,} parameters / one parameter of {CHAINS * EACH:,} elements, rate",
        f"{AGAINST_ONE}x or more",
        f"{rate:.2f}x (and {seconds['separate'] / seconds['together']:.2f}x of {CHAINS} samplers)",
        rate >= AGAINST_ONE,
        {f"{name} (us)": t * 1e6 for name, t in seconds.items()},
    )
