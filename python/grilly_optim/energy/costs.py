"""Costs that nudge the last layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._numbers import copied, real_array
from grilly_optim.optim._options import Range

Array = NDArray[Any]


class Cost(ABC):
    """beta C(u, y): what the energy of a model has on top while there is a target.

    Args:
        beta: How hard the last layer is nudged; below 0 away from the target.

    A cost belongs to one model: another that has the same cost is nudged by the same target. There are two, which every
    device knows. One of your own runs on the processor: it has ``_cost(u, y)`` and ``_gradient(u, y)``.

    Attributes:
        target: The target, or None while nothing is nudged.

    Raises:
        TypeError: beta is no real number.
        ValueError: beta is 0, with which there is nothing to learn from, or not finite.
    """

    kind = ""  # what the engine calls it

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta
        self.target: Array | None = None

    @property
    def beta(self) -> float:
        """How hard the last layer is nudged; never 0."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        beta = Range().take("beta", beta)
        if beta == 0:
            raise ValueError("beta must not be 0: gradients are what a nudge has changed, divided by beta")
        self._beta = beta

    def set_target(self, target: Any) -> None:
        """Nudge towards this target from now on; None: not at all.

        Args:
            target: (batch, n) numbers, or None. It is copied.

        Raises:
            TypeError: No real numbers.
            ValueError: Another number of dimensions.
        """
        if target is None:
            self.target = None
            return
        array = real_array("target", target).copy()
        self._check(array)
        self.target = array

    def _check(self, target: Array) -> None:
        if target.ndim != 2:
            raise ValueError(f"target must have the shape (batch, outputs), got {target.shape}")

    def require_target(self, u: Array) -> None:
        """Check that the target, if there is one, is for a last layer with a state like this.

        Raises:
            ValueError: It is not.
        """
        self.dense_target(u)

    def dense_target(self, u: Array) -> Array | None:
        """The target as an array of the shape and dtype of the last layer's state, or None.

        Raises:
            ValueError: It is for another layer.
        """
        return None if self.target is None else self._dense(self.target, u.shape, u.dtype)

    def _dense(self, target: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if target.shape != shape:
            raise ValueError(
                f"target has the shape {target.shape}, and the last layer {shape}: set_C_target anew, or to None"
            )
        dense = copied(target, dtype)
        if not np.isfinite(dense).all():
            raise ValueError(f"target must hold numbers of {dtype}, got {target[~np.isfinite(dense)][0]}")
        return dense

    def compute_energy(self, u: Any) -> Array:
        """What the cost adds to each sample's energy, beta included.

        Args:
            u: (batch, n), state of the last layer.

        Returns:
            (batch,), in the dtype of u, where that is float32 or float64; zeros without a target.

        Raises:
            TypeError: u does not hold real numbers.
            ValueError: u has another number of dimensions, or the target is for another shape.
        """
        state = _state(u)
        target = self.dense_target(state)
        if target is None:
            return np.zeros(len(state), state.dtype)
        return state.dtype.type(self.beta) * self._cost(state, target)  # type: ignore[no-any-return]

    def gradient(self, u: Any) -> Array | None:
        """The cost's gradient (batch, n), beta included, or None without a target.

        Raises:
            TypeError: As for `compute_energy`.
            ValueError: As for `compute_energy`.
        """
        state = _state(u)
        target = self.dense_target(state)
        return None if target is None else state.dtype.type(self.beta) * self._gradient(state, target)

    @abstractmethod
    def _cost(self, u: Array, y: Array) -> Array: ...

    @abstractmethod
    def _gradient(self, u: Array, y: Array) -> Array: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}(beta={self.beta!r})"


def _state(u: Any) -> Array:
    array = real_array("u", u)
    if array.ndim != 2:
        raise ValueError(f"u must have the shape (batch, outputs), got {array.shape}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


class SquaredError(Cost):
    """beta / 2 |u - y|^2, of the state u of the last layer.

    Args:
        beta: How hard the last layer is nudged, not 0; below 0 away from the target.

    Raises:
        TypeError: beta is no real number.
        ValueError: beta is 0 or not finite.

    Source: Scellier & Bengio, "Equilibrium propagation" (2017).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.energy import SquaredError
        >>> cost = SquaredError(beta=0.5)
        >>> cost.set_target(np.array([[1.0, 0.0]]))
        >>> cost.compute_energy(np.array([[1.0, 2.0]])).tolist()
        [1.0]
    """

    kind = "squared"

    def _cost(self, u: Array, y: Array) -> Array:
        return 0.5 * np.square(u - y).sum(1, dtype=u.dtype)  # type: ignore[no-any-return]

    def _gradient(self, u: Array, y: Array) -> Array:
        return u - y


class CrossEntropy(Cost):
    """-beta sum_k y_k log softmax(u)_k, of the state u of the last layer.

    Args:
        beta: How hard the last layer is nudged, not 0; below 0 away from the target.

    Targets are probabilities (batch, n), or the numbers of classes, whole numbers (batch,).

    Raises:
        TypeError: beta is no real number.
        ValueError: beta is 0 or not finite.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.energy import CrossEntropy
        >>> cost = CrossEntropy()
        >>> cost.set_target(np.array([1]))
        >>> cost.compute_energy(np.zeros((1, 4))).round(3).tolist()  # log 4
        [1.386]
    """

    kind = "cross_entropy"

    def _check(self, target: Array) -> None:
        if target.ndim == 1 and target.dtype.kind not in "iu":
            raise TypeError(f"a target of shape (batch,) must hold whole numbers, classes, got {target.dtype}")
        if target.ndim not in (1, 2):
            raise ValueError(f"target must have the shape (batch, outputs) or (batch,), got {target.shape}")

    def _dense(self, target: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if target.ndim == 2 or target.shape != shape[:1]:  # the latter to be refused
            return super()._dense(target, shape, dtype)
        classes = shape[1]
        if target.size and not 0 <= target.min() <= target.max() < classes:
            wrong = target[(target < 0) | (target >= classes)][0]
            raise ValueError(f"target must hold classes from 0 to {classes - 1}, got {wrong}")
        dense = np.zeros(shape, dtype)
        dense[np.arange(len(target)), target] = 1
        return dense

    def _cost(self, u: Array, y: Array) -> Array:
        shifted = u - u.max(1, keepdims=True)
        log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True, dtype=u.dtype))
        return -(y * log_softmax).sum(1, dtype=u.dtype)  # type: ignore[no-any-return]

    def _gradient(self, u: Array, y: Array) -> Array:
        e = np.exp(u - u.max(1, keepdims=True))
        return y.sum(1, keepdims=True) * (e / e.sum(1, keepdims=True)) - y  # type: ignore[no-any-return]
