"""Gradients of energies beside finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._layers import Layers
from grilly_optim.optim._options import Range

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]


def check_gradients(model: EnergyModel, eps: float = 1e-5) -> dict[str, float]:
    """How far a model's gradients are from central differences of its energy, where its states and target are now.

    Args:
        model: Of dtype float64; it is left as it is.
        eps: Half of the distance of two energies.

    Returns:
        "u[i]" of layers that are not clamped, "weights[i]" and "biases[i]": the largest difference, in units of the
        largest gradient there. At a kink of an activation that is no small number.

    Raises:
        TypeError: Not a model, or one in float32, whose energies are too coarse.
        ValueError: eps is not above 0.

    Example:
        >>> from grilly_optim.energy import RestrictedHopfield, SquaredError, check_gradients
        >>> model = RestrictedHopfield([3, 4, 2], SquaredError(), 5, "tanh", dtype="float64", device="numpy")
        >>> max(check_gradients(model).values()) < 1e-6
        True
    """
    if not isinstance(model, Layers):
        raise TypeError(f"model must be a ConditionalGaussian or a RestrictedHopfield, got {model!r}")
    eps = Range(0, above=True).take("eps", eps)
    if model.dtype != np.float64:
        raise TypeError(f"check_gradients needs a model of dtype float64, got {model.dtype}")
    found: dict[str, float] = {}
    states = [u.copy() for u in model.u]
    for i, gradient in enumerate(model.u_get_gradients()):
        if gradient is not None:

            def energies(x: Array, i: int = i) -> Array:
                return model._energies([x if k == i else u for k, u in enumerate(states)])

            # Samples know nothing of one another: a unit of all of them moves at once.
            columns = [_difference(energies, states[i], (slice(None), j), eps) for j in range(states[i].shape[1])]
            found[f"u[{i}]"] = _distance(gradient, np.stack(columns, 1))
    gradients = model.w_get_gradients()
    for k, (parameter, gradient) in enumerate(zip(model.parameters, gradients, strict=True)):
        start = parameter.copy()

        def mean_energy(x: Array, parameter: Array = parameter) -> Array:
            parameter[...] = x
            return model._energies(states).mean()  # type: ignore[no-any-return]

        try:
            differences = [_difference(mean_energy, start, at, eps) for at in np.ndindex(*start.shape)]
        finally:
            parameter[...] = start
        found[f"{('weights', 'biases')[k % 2]}[{k // 2}]"] = _distance(gradient, np.reshape(differences, start.shape))
    return found


def _difference(function: Callable[[Array], Array], x: Array, at: Any, eps: float) -> Any:
    ahead, behind = x.copy(), x.copy()
    ahead[at] += eps
    behind[at] -= eps
    return (function(ahead) - function(behind)) / (2 * eps)


def _distance(gradient: Array, differences: Array) -> float:
    largest = np.abs(gradient).max(initial=0.0)
    return float(np.abs(gradient - differences).max(initial=0.0) / (largest or 1.0))
