"""The kernels of `sample`: which method, which acceptance rate, where step sizes begin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from grilly_optim.optim._options import Whole
from grilly_optim.sampling._batch import Hmc, Method, Nuts, Rwm

NAMES = "nuts", "hmc", "mala", "ghmc", "rwm"
TRAJECTORY = math.pi / 2
# Jitter makes nearly twice as many of them, and chains count in float32.
STEPS = Whole(1, 23)
# Acceptance rates of single steps scatter more than those of trajectories, for which 0.05 was chosen. With that, random
# walks end their warm-up at rates from 0.01 to 0.3, instead of the 0.234 they are to have; with this, from 0.1 to 0.35.
ONE_STEP = 0.15
# With a target of 0.8, of all that was tried (0 to 0.98; 0.574 to 0.95) the most effective draws of q and of q^2: with
# more persistence q moves faster, but the energy hardly changes from draw to draw.
PERSISTENCE = 0.5


@dataclass(frozen=True)
class Kernel:
    """A transition, and how it is adapted.

    Attributes:
        method: What runs.
        target_accept: The acceptance rate that step sizes are adapted to.
        stepsize: Where they begin, and begin anew with every new mass; None: where a search finds them.
        gamma: See `DualAveraging`.
    """

    method: Method
    target_accept: float
    stepsize: float | None = None
    gamma: float = 0.05


def kernel_of(name: Any, num_steps: Any, dim: int) -> Kernel:
    """The kernel of this name.

    Raises:
        ValueError: There is none, or `num_steps` is out of range or not for this one.
        TypeError: `num_steps` is no whole number.
    """
    if name not in NAMES:
        raise ValueError(f"kernel must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    if num_steps is not None and name != "hmc":
        raise ValueError(f"num_steps is for kernel='hmc', got {num_steps!r} for kernel={name!r}")
    if name == "nuts":
        return Kernel(Nuts(), 0.8)
    if name == "mala":
        return Kernel(Hmc(), 0.574, gamma=ONE_STEP)
    if name == "ghmc":
        return Kernel(Hmc(persistence=PERSISTENCE), 0.8, gamma=ONE_STEP)
    if name == "rwm":
        return Kernel(Rwm(), 0.234, 2.38 / math.sqrt(dim), gamma=ONE_STEP)
    if num_steps is None:
        return Kernel(Hmc(trajectory=TRAJECTORY, jitter=True), 0.8)
    return Kernel(Hmc(STEPS.take("num_steps", num_steps), jitter=True), 0.8)
