"""The other optimizers: their steps against torch's best form, and Lion's signs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from grilly_optim import DeviceInfo
from grilly_optim._devices import select

from ..errors import MissingRival
from ..harness import Contestant
from ..kernels import KERNELS
from ..problem import single
from ..rivals import load
from ..runner import measure
from .accuracy import ELEMENTS, STEPS, differing_bits, everywhere, rounded_alike
from .table import Measure, at_least, not_measured

# AdamW has rows of its own in speed.py, and torch has no Lion.
NAMES = ("adam", "sgd", "rmsprop", "adagrad", "adadelta", "nadam", "radam")
AGAINST_TORCH = {1e5: 3.0, 1e6: 1.8, 1e7: 1.0}  # elements -> how many times as fast
BUDGET = 5.0  # seconds per race, at most: there are many of them


def against_torch(budget: float) -> Iterator[Measure]:
    """The compiled CPU against each optimizer of torch in its fastest form on this machine."""
    try:
        load("torch")
    except MissingRival as error:
        yield not_measured("compiled CPU / torch, the other optimizers", "", str(error))
        return
    cpu = select("cpu").info
    for name in NAMES:
        for elements, target in AGAINST_TORCH.items():
            case = measure(name, single(int(elements)), [cpu], ["torch"], min(budget, BUDGET), _is_a_step)
            (step,) = (r for r in case.rows if r.kind == "step")
            best = min((r for r in case.rows if r.kind == "rival"), key=lambda r: r.median_s)
            size = f"{elements:.0e}".replace("e+0", "e")
            times = {f"{r.who} (us)": r.median_s * 1e6 for r in case.rows}
            yield at_least(
                f"compiled CPU / {best.family}, {name}, n = {size}, step()", step.ratios["torch"], target, **times
            )


def _is_a_step(contestant: Contestant) -> bool:
    return contestant.kind in ("step", "rival")


def lion_signs(infos: list[DeviceInfo]) -> Measure:
    """Every step's signs on every device and instruction set; a contracted operation would turn some around."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(ELEMENTS, dtype=np.float32)
    optimizers = rounded_alike(everywhere(KERNELS["lion"].subject, infos, start))
    parameters = {name: o.param_groups[0]["params"][0] for name, o in optimizers.items()}
    found = dict.fromkeys(optimizers, 0.0)
    for _ in range(STEPS):
        before = {name: p.copy() for name, p in parameters.items()}
        gradient = rng.standard_normal(ELEMENTS, dtype=np.float32)
        for optimizer in optimizers.values():
            optimizer.step(gradients=[gradient])
        signs = {name: np.sign(p - before[name]).astype(np.int8) for name, p in parameters.items()}
        for name, mine in signs.items():
            found[name] += float(np.count_nonzero(mine != signs["numpy"]))
    bits = sum(differing_bits(p, parameters["numpy"]) for p in parameters.values())
    others = ", ".join(name for name in optimizers if name != "numpy")
    return Measure(
        f"Lion: signs that differ from NumPy's, {STEPS} steps of {ELEMENTS:,}: {others}",
        "0",
        f"{sum(found.values()):g} (and {bits} bits of the parameters)",
        not any(found.values()) and bits == 0,
        {**found, "bits": float(bits)},
    )
