"""Relaxations that a Vulkan device makes from the first step to the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._relaxation import Outcome, Recent, Request
from grilly_optim.energy.costs import CrossEntropy, SquaredError

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]

# Steps of a submission where the device may be through before the last one. What it finds does not depend on it.
CHECK_EVERY = 8
KNOWN = (SquaredError, CrossEntropy)


class DeviceRelaxation:
    """Relaxations of one model in the engine.

    Args:
        backend: The device.
        model: Whose layers they are.
    """

    def __init__(self, backend: Any, model: EnergyModel) -> None:
        self._backend, self._model = backend, model
        self._engines: Recent[tuple[int, str], Any] = Recent()

    def _made(self, cost: str) -> Any:
        model = self._model
        return self._backend.relaxation(
            model.kind,
            cost,
            model.dtype == np.float64,
            list(model.dimensions),
            model.batch_size,
            [phi.name for phi in model.phi],
        )

    def run(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        """See `Relaxation`; the device makes what is fixed for itself."""
        model = self._model
        cost = model.c_energy
        if type(cost) not in KNOWN:
            raise ValueError(f"c_energy, {cost!r}, is a cost of its own, which no GPU knows: use device='cpu'")
        engine = self._engines.get((model.batch_size, cost.kind), lambda: self._made(cost.kind))
        target = cost.dense_target(model.u[-1])
        clamped = model.clamp_du.tolist()
        u = [state if stays else state.copy() for state, stays in zip(model.u, clamped, strict=True)]
        steps, norms = engine.run(
            u=u,
            weights=list(model.weights),
            biases=list(model.biases),
            target=target,
            beta=cost.beta,
            clamped=clamped,
            step=request.step,
            count=request.most,
            tol=request.tol,
            per_sample=request.per_sample,
            measured=request.measured,
            check_every=CHECK_EVERY,
        )
        return Outcome(u, steps, norms)
