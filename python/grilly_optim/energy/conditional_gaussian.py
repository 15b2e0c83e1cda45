"""Conditional Gaussians: predictive coding as an energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]


class ConditionalGaussian(EnergyModel):
    r"""Each layer predicts the next one, and errors of predictions are the energy.

    With states u_i (layers 0 to L), r_i = phi_i(u_i) and errors e_{i+1} = W_i r_i + b_i - u_{i+1} each sample has::

        E = sum_i |e_i|^2 + beta C(u_L)                                        i = 1 ... L; C while there is a target
        dE/du_i = -2 e_i [i >= 1] + 2 phi_i'(u_i) (W_i^T e_{i+1}) [i < L]
        dE/dW_i = 2 e_{i+1} r_i^T,   dE/db_i = 2 e_{i+1}

    With the input clamped and no target, a feed-forward pass has the energy 0, so that `fast_init` is the whole free
    phase. phi_L is never used.

    Args:
        dimensions: Units of each layer, the input's first.
        c_energy: `SquaredError` or `CrossEntropy`, with beta.
        batch_size: Samples at first; `clamp_layer` with another number changes it.
        phi: An activation for each layer, or one: then the input has "identity" and all others that one. Names as for
            `get_activation`.
        seed: Of parameters and states, 0 to 2^64 - 1.
        dtype: float32 or float64.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Attributes:
        weights: W_i (out, in), uniform in +-1/sqrt(in) at first; what is written into them counts at once.
        biases: b_i (out,), likewise.
        u: States (batch, n), N(0, 1) at first.
        clamp_du: For each layer whether it stands still.
        E: (batch,), energies.
        steps: (batch,), steps of the last relaxation.

    Raises:
        TypeError: Something of another type.
        ValueError: Something out of its range, an unknown activation, or not as many as layers.
        DeviceUnavailable: The device is unknown or cannot be used.

    Source: Scellier & Bengio, "Equilibrium propagation" (2017); Whittington & Bogacz, "An approximation of the error
    backpropagation algorithm in a predictive coding network" (2017).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.energy import ConditionalGaussian, CrossEntropy
        >>> from grilly_optim.optim import Adam
        >>> model = ConditionalGaussian([2, 8, 2], CrossEntropy(), 4, "tanh", device="numpy")
        >>> optimizer = Adam(model.parameters, lr=0.05, device="numpy")
        >>> x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
        >>> for _ in range(60):
        ...     model.clamp_layer(0, x)
        ...     gradient = model.contrastive_gradient(y, dt=0.1, n_relax=20, fast_init=True)
        ...     optimizer.step(gradients=gradient)
        >>> model.fast_init()
        >>> model.u[-1].argmax(1).tolist()
        [0, 1, 1, 0]
    """

    kind = "gaussian"
    _gain = -2.0
    _sends_errors = True

    @staticmethod
    def _own(layer: int) -> float:
        return 2.0 if layer else 0.0

    @staticmethod
    def _message(prediction: Array, u: Array, r: Array, out: Array) -> Array:
        return np.subtract(prediction, u, out=out)

    @staticmethod
    def _heard(
        prediction: Array | None, returned: Array | None, cost: Array | None, zero: Array, out: Array
    ) -> tuple[Array, Array]:
        pull = zero if prediction is None else prediction
        if cost is not None:
            pull = pull - cost / 2
        return pull, zero if returned is None else returned

    def _terms(self, u: Sequence[Array], r: Sequence[Array], predictions: Sequence[Array]) -> list[Array]:
        errors = (prediction - state for prediction, state in zip(predictions, u[1:], strict=True))
        return [np.zeros(len(u[0]), u[0].dtype), *(np.square(e).sum(1, dtype=e.dtype) for e in errors)]

    def _errors(self, u: Sequence[Array], r: Sequence[Array], predictions: Sequence[Array]) -> list[Array]:
        return [2 * (prediction - state) for prediction, state in zip(predictions, u[1:], strict=True)]

    def _feed_forward(self) -> None:
        with np.errstate(all="ignore"):
            for i, (weight, b) in enumerate(zip(self.weights, self.biases, strict=True)):
                if not self._clamped[i + 1]:
                    self._u[i + 1][...] = self.phi[i].function(self._u[i]) @ weight.T + b
        self._changed()
