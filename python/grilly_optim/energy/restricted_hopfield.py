"""Hopfield networks whose units are connected between neighbouring layers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]


class RestrictedHopfield(EnergyModel):
    r"""Units that attract and repel one another, between neighbouring layers, both ways.

    With states u_i (layers 0 to L) and r_i = phi_i(u_i) each sample has::

        E = 1/2 sum_i |u_i|^2 - sum_i r_{i+1}^T (W_i r_i + b_i) + beta C(u_L)      C while there is a target
        dE/du_i = u_i - phi_i'(u_i) (W_{i-1} r_{i-1} + b_{i-1} [i >= 1] + W_i^T r_{i+1} [i < L])
        dE/dW_i = -r_{i+1} r_i^T,   dE/db_i = -r_{i+1}

    The input has no bias, and states are not clipped. Arguments, attributes and errors are those of
    `ConditionalGaussian`; there is no short way to a minimum, so `fast_init` raises NotImplementedError.

    Source: Scellier & Bengio, "Equilibrium propagation" (2017).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.energy import RestrictedHopfield, SquaredError
        >>> model = RestrictedHopfield([3, 4, 2], SquaredError(beta=0.5), 1, "sigmoid", device="numpy")
        >>> model.clamp_layer(0, np.ones((1, 3)))
        >>> change = model.u_relax(dt=0.1, n_relax=100)
        >>> change < 0  # energy has gone down
        True
        >>> model.u_relax(dt=0.1, n_relax=100, tol=0.01) < 0, int(model.steps[0]) < 100
        (True, True)
    """

    kind = "hopfield"
    _gain = 1.0
    _sends_errors = False

    @staticmethod
    def _own(layer: int) -> float:
        return 1.0

    @staticmethod
    def _message(prediction: Array, u: Array, r: Array, out: Array) -> Array:
        return r

    @staticmethod
    def _heard(
        prediction: Array | None, returned: Array | None, cost: Array | None, zero: Array, out: Array
    ) -> tuple[Array, Array]:
        pull = zero if cost is None else -cost
        if prediction is None or returned is None:
            heard = returned if prediction is None else prediction
            return pull, zero if heard is None else heard
        return pull, np.add(prediction, returned, out=out)

    def _terms(self, u: Sequence[Array], r: Sequence[Array], predictions: Sequence[Array]) -> list[Array]:
        terms = [np.square(state).sum(1, dtype=state.dtype) / 2 for state in u]
        for i, prediction in enumerate(predictions):
            terms[i + 1] = terms[i + 1] - (r[i + 1] * prediction).sum(1, dtype=prediction.dtype)
        return terms

    def _errors(self, u: Sequence[Array], r: Sequence[Array], predictions: Sequence[Array]) -> list[Array]:
        return [-x for x in r[1:]]

    def _feed_forward(self) -> None:
        raise NotImplementedError("RestrictedHopfield has no fast_init: its minimum takes a relaxation, u_relax")
