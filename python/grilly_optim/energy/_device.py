"""Relaxations that a Vulkan device makes from the first step to the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._relaxation import Outcome, Request

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]

# Steps of a submission where the device may be through before the last one. What it finds does not depend on it.
CHECK_EVERY = 8


class DeviceRelaxation:
    """Relaxations of one model in the engine; what it holds is made anew for another batch size.

    Args:
        backend: The device.
        model: Whose layers they are.
    """

    def __init__(self, backend: Any, model: EnergyModel) -> None:
        self._backend, self._model = backend, model
        self._batch = 0  # what the engine's part is made for

    def run(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        """See `Relaxation`; the device makes what is fixed for itself."""
        model = self._model
        target = model.c_energy.dense_target(model.u[-1])
        if self._batch != model.batch_size:
            self._batch = 0
            self._engine = self._backend.relaxation(
                model.kind,
                model.c_energy.kind,
                model.dtype == np.float64,
                list(model.dimensions),
                model.batch_size,
                [phi.name for phi in model.phi],
            )
            self._batch = model.batch_size
        clamped = model.clamp_du.tolist()
        u = [state if stays else state.copy() for state, stays in zip(model.u, clamped, strict=True)]
        steps, norms = self._engine.run(
            u=u,
            weights=list(model.weights),
            biases=list(model.biases),
            target=target,
            beta=model.c_energy.beta,
            clamped=clamped,
            step=request.step,
            count=request.most,
            tol=request.tol,
            per_sample=request.per_sample,
            measured=request.measured,
            check_every=CHECK_EVERY,
        )
        return Outcome(u, steps, norms)
