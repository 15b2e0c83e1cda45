"""The posterior of a network's weights as a potential."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.optim._options import real
from grilly_optim.sampling._options import POSITIVE

Array = NDArray[Any]

__all__ = ["Network", "log_prob_standard_normal_prior", "nn_pot_energy"]


def log_prob_standard_normal_prior(
    position: ArrayLike, mean: ArrayLike = 0.0, std: ArrayLike = 1.0, grad: bool = False
) -> Any:
    """The log density of independent normal elements.

    log p(q) = sum_i (-((q_i - mean_i) / std_i)^2 / 2 - log std_i - log(2 pi) / 2).

    Args:
        position: q, (D,) or one row per chain (C, D).
        mean: A number or (D,).
        std: The standard deviation: a number or (D,), above 0.
        grad: Return its gradient as well: for `nn_pot_energy`, ``partial(log_prob_standard_normal_prior, grad=True)``.

    Returns:
        log p in double, a float or (C,); with `grad` a pair of it and the gradient, in the shape and dtype of
        `position`.

    Raises:
        TypeError: `position` does not hold real numbers.
        ValueError: Something has the wrong shape, or `std` is not above 0.

    Source: `hypnettorch.utils.hmc.log_prob_standard_normal_prior`, whose `std` is documented as a covariance.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import log_prob_standard_normal_prior
        >>> log_p, gradient = log_prob_standard_normal_prior(np.array([1.0, -2.0]), std=2.0, grad=True)
        >>> round(log_p, 4), gradient
        (-3.8492, array([-0.25,  0.5 ]))
    """
    q = np.asarray(position)
    if q.dtype.kind not in "iuf":
        raise TypeError(f"position must hold real numbers, got {q.dtype}")
    if q.ndim not in (1, 2):
        raise ValueError(f"position must have shape (D,) or (C, D), got {q.shape}")
    center, scale = (_of_elements(name, value, q.shape[-1]) for name, value in (("mean", mean), ("std", std)))
    if not (scale > 0).all():
        raise ValueError(f"std must be above 0, got {scale.min():g}")
    with np.errstate(all="ignore"):
        z = (q - center) / scale
        constant = q.shape[-1] * 0.5 * math.log(2 * math.pi) + np.broadcast_to(np.log(scale), q.shape[-1:]).sum()
        log_p = -0.5 * np.einsum("...d,...d->...", z, z) - constant
        result: Any = float(log_p) if q.ndim == 1 else np.asarray(log_p)
        if not grad:
            return result
        return result, np.asarray(-z / scale).astype(q.dtype if q.dtype.kind == "f" else np.float64)


def _of_elements(name: str, value: ArrayLike, dim: int) -> NDArray[np.float64]:
    array = np.asarray(value, np.float64)
    if array.shape not in ((), (dim,)):
        raise ValueError(f"{name} must be a number or have shape ({dim},), got {array.shape}")
    return array


class Network(Protocol):
    """What `nn_pot_energy` takes for a network: its weights are arguments.

    Attributes:
        param_shapes: The shape of each weight. A position is all of them in this order, each in row-major order.
    """

    @property
    def param_shapes(self) -> Sequence[Sequence[int]]: ...  # noqa: D102

    def forward(self, inputs: Any, weights: list[Array]) -> Array:
        """The outputs for a batch of inputs: (N, ...)."""

    def backward(self, inputs: Any, weights: list[Array], grad_outputs: Array) -> Sequence[Array]:
        """The gradient of each weight, given that of the outputs."""


class _NetworkEnergy(ABC):
    """What `nn_pot_energy` makes."""

    vectorized = False

    def __init__(self, net: Network, inputs: Any, targets: Array, prior: Callable[[Array], Any], tau: float) -> None:
        self._net, self._inputs, self._targets, self._prior, self._tau = net, inputs, targets, prior, tau
        self._shapes = [tuple(shape) for shape in net.param_shapes]
        self._ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        self.dim = int(self._ends[-1]) if self._shapes else 0
        if not self.dim:
            raise ValueError("net.param_shapes must hold the shape of a weight, got none")

    def value_and_grad(self, q: Array) -> tuple[float, Array]:
        """U and its gradient at a position (D,)."""
        if q.shape != (self.dim,):
            raise ValueError(f"a position of this network must have shape ({self.dim},), got {q.shape}")
        prior = self._prior(q)
        if not (isinstance(prior, tuple) and len(prior) == 2):
            raise TypeError(
                f"prior_log_prob_func must return a tuple (log p, gradient), got {type(prior).__name__}; for "
                "log_prob_standard_normal_prior give functools.partial(log_prob_standard_normal_prior, grad=True)"
            )
        if np.shape(prior[1]) != (self.dim,):
            raise ValueError(
                f"prior_log_prob_func must return a gradient of shape ({self.dim},), got {np.shape(prior[1])}"
            )
        weights = [part.reshape(s) for part, s in zip(np.split(q, self._ends[:-1]), self._shapes, strict=True)]
        outputs = np.asarray(self._net.forward(self._inputs, weights))
        loss, slope = self._loss(outputs.astype(np.float64))
        gradients = self._net.backward(self._inputs, weights, slope.astype(outputs.dtype))
        if len(gradients) != len(self._shapes):
            raise ValueError(f"net.backward must return {len(self._shapes)} gradients, got {len(gradients)}")
        gradient = np.empty(self.dim)
        for k, (part, made) in enumerate(zip(np.split(gradient, self._ends[:-1]), gradients, strict=True)):
            if np.shape(made) != self._shapes[k]:
                expected = f"shape {self._shapes[k]}, got {np.shape(made)}"
                raise ValueError(f"net.backward must return for weight {k} a gradient of {expected}")
            part[:] = np.ravel(made)
        return loss - float(prior[0]), gradient - prior[1]

    def __call__(self, q: Array) -> tuple[float, Array]:
        """The same as `value_and_grad`."""
        return self.value_and_grad(q)

    @abstractmethod
    def _loss(self, outputs: Array) -> tuple[float, Array]:
        """The negative log-likelihood of outputs, and its gradient."""


class _Regression(_NetworkEnergy):
    def _loss(self, outputs: Array) -> tuple[float, Array]:
        if outputs.shape != self._targets.shape:
            raise ValueError(f"targets must have the shape {outputs.shape} of the outputs, got {self._targets.shape}")
        misses = outputs - self._targets
        return 0.5 * self._tau * float(np.vdot(misses, misses)), self._tau * misses


class _Classification(_NetworkEnergy):
    def _loss(self, outputs: Array) -> tuple[float, Array]:
        if outputs.ndim != 2 or len(outputs) != len(self._targets):
            raise ValueError(f"the outputs must have shape ({len(self._targets)}, classes), got {outputs.shape}")
        if self._targets.max() >= outputs.shape[1]:
            raise ValueError(
                f"targets must be below {outputs.shape[1]}, the number of classes, got {self._targets.max()}"
            )
        rows = np.arange(len(outputs))
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        likely = np.exp(shifted)
        total = likely.sum(axis=1)
        loss = float((np.log(total) - shifted[rows, self._targets]).sum())
        slope = likely / total[:, None]
        slope[rows, self._targets] -= 1
        return loss, slope


def nn_pot_energy(
    net: Network,
    inputs: Any,
    targets: ArrayLike,
    prior_log_prob_func: Callable[[Array], Any],
    tau_pred: float = 1.0,
    nll_type: str = "regression",
) -> Callable[[Array], tuple[float, Array]]:
    """The potential of a network's weights, given data: the negative log-likelihood minus the log prior.

    Of regression that is tau_pred / 2 sum (f(x_n) - y_n)^2 over data and outputs, without a constant; of classification
    sum_n -log softmax(f(x_n))_(y_n), of all data at once.

    Args:
        net: An object with ``param_shapes``, ``forward(inputs, weights)`` and ``backward(inputs, weights,
            grad_outputs)``. Weights are read-only views of the position, in its dtype.
        inputs: Goes to `net` as it is.
        targets: In regression, in the shape of the outputs. In classification, labels (N,): integers from 0.
        prior_log_prob_func: q (D,) -> (log p, gradient).
        tau_pred: The precision of targets around outputs, above 0; 1 in classification.
        nll_type: "regression" or "classification".

    Returns:
        A potential q (D,) -> (U, gradient), with ``dim`` and ``value_and_grad``, for the samplers. D is how many
        numbers the weights have together. It raises an error where net or prior give another shape than expected.

    Raises:
        TypeError: `net` lacks something, targets do not hold numbers (in classification: integers), `tau_pred` is no
            number, or the prior cannot be called.
        ValueError: `nll_type` is something else, `tau_pred` is not above 0, or not 1 in classification, a label is
            below 0, or there are no weights or no targets.

    Source: `hypnettorch.utils.hmc.nn_pot_energy`.

    Example:
        >>> import functools
        >>> import numpy as np
        >>> from grilly_optim.sampling import check_grad, log_prob_standard_normal_prior, nn_pot_energy
        >>> class OneLayer:
        ...     param_shapes = [(2, 3), (2,)]
        ...
        ...     def forward(self, inputs, weights):
        ...         return np.tanh(inputs @ weights[0].T + weights[1])
        ...
        ...     def backward(self, inputs, weights, grad_outputs):
        ...         before = grad_outputs * (1 - self.forward(inputs, weights) ** 2)
        ...         return [before.T @ inputs, before.sum(axis=0)]
        >>> rng = np.random.default_rng(0)
        >>> inputs, targets = rng.standard_normal((10, 3)), rng.standard_normal((10, 2))
        >>> prior = functools.partial(log_prob_standard_normal_prior, std=2.0, grad=True)
        >>> potential = nn_pot_energy(OneLayer(), inputs, targets, prior, tau_pred=4.0)
        >>> assert check_grad(potential, rng.standard_normal(8)).error < 1e-6
    """
    for name in ("param_shapes", "forward", "backward"):
        if not hasattr(net, name):
            raise TypeError(f"net must have param_shapes, forward and backward, {type(net).__name__} has no {name}")
    if not callable(prior_log_prob_func):
        raise TypeError(f"prior_log_prob_func must be a callable q -> (log p, gradient), got {prior_log_prob_func!r}")
    if nll_type not in ("regression", "classification"):
        raise ValueError(f"nll_type must be 'regression' or 'classification', got {nll_type!r}")
    wanted = np.array(targets)
    if not wanted.size:
        raise ValueError("targets must not be empty")
    if nll_type == "regression":
        if wanted.dtype.kind not in "biuf":
            raise TypeError(f"targets must hold real numbers, got {wanted.dtype}")
        return _Regression(net, inputs, wanted, prior_log_prob_func, POSITIVE.take("tau_pred", tau_pred))
    if real("tau_pred", tau_pred) != 1:
        raise ValueError(f"tau_pred must be 1 in classification, got {tau_pred!r}")
    if wanted.dtype.kind not in "iu":
        raise TypeError(f"targets must be integers in classification, got {wanted.dtype}")
    if wanted.ndim != 1 or wanted.min() < 0:
        raise ValueError(f"targets must be labels (N,) from 0, got shape {wanted.shape} and a least of {wanted.min()}")
    return _Classification(net, inputs, wanted, prior_log_prob_func, 1.0)
