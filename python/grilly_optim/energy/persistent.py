"""States that outlive their batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._model import EnergyModel
from grilly_optim.energy._numbers import real_array
from grilly_optim.optim._options import Whole

Array = NDArray[Any]


class PersistentStates:
    """The states of every sample of a data set, so that a relaxation goes on where the sample's last one has ended.

    Args:
        model: Whose states they are. Every sample begins with those that the model draws.
        samples: How many there are.

    Raises:
        TypeError: Not a model, or no whole number.
        ValueError: No samples.

    Source: Scellier & Bengio, "Equilibrium propagation" (2017), whose training keeps them.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.energy import PersistentStates, RestrictedHopfield, SquaredError
        >>> model = RestrictedHopfield([3, 4, 2], SquaredError(), 2, "sigmoid", device="numpy")
        >>> x, states = np.ones((6, 3)), PersistentStates(model, samples=6)
        >>> for batch in (np.array([0, 3]), np.array([5, 1])):
        ...     model.clamp_layer(0, x[batch])
        ...     states.load(batch)
        ...     change = model.u_relax(dt=0.1, n_relax=10)
        ...     states.save(batch)
    """

    def __init__(self, model: EnergyModel, samples: int) -> None:
        if not isinstance(model, EnergyModel):
            raise TypeError(f"model must be a ConditionalGaussian or a RestrictedHopfield, got {model!r}")
        self._model = model
        self._samples = Whole(1).take("samples", samples)
        self._states = model._drawn(range(model.n_layers), self._samples)

    def _taken(self, indices: Any) -> NDArray[np.intp]:
        which = real_array("indices", indices)
        if which.dtype.kind not in "iu" or which.ndim != 1:
            raise TypeError(f"indices must be whole numbers (batch,), got {which.dtype} of shape {which.shape}")
        if which.size and not 0 <= which.min() <= which.max() < self._samples:
            raise ValueError(f"indices must be from 0 to {self._samples - 1}, got {which.min()} to {which.max()}")
        if len(which) != self._model.batch_size:
            raise ValueError(f"indices has {len(which)} samples, and the model's batch {self._model.batch_size}")
        return which.astype(np.intp)

    def load(self, indices: Any) -> None:
        """Set the model's layers that are not clamped to the states of these samples.

        Raises:
            TypeError: Not whole numbers.
            ValueError: No such sample, or not as many as the model's batch.
        """
        which = self._taken(indices)
        states = zip(self._model.u, self._states, self._model.clamp_du, strict=True)
        self._model.set_states([u if clamped else kept[which] for u, kept, clamped in states])

    def save(self, indices: Any) -> None:
        """Keep the model's states for these samples; layers that are clamped are left out.

        Raises:
            TypeError: Not whole numbers.
            ValueError: No such sample, or not as many as the model's batch.
        """
        which = self._taken(indices)
        for u, kept, clamped in zip(self._model.u, self._states, self._model.clamp_du, strict=True):
            if not clamped:
                kept[which] = u
