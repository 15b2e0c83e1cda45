"""Synaptic intelligence."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from grilly_optim.continual._anchored import Anchored, squared_distance
from grilly_optim.continual._arrays import (
    Array,
    Arrays,
    Form,
    Layout,
    of,
    require_finite,
    require_not_negative,
    rounded,
    take_some,
)
from grilly_optim.continual._states import StateDict, packed, require_keys, unpacked, unpacked_like
from grilly_optim.optim._options import Range

ATTACHED = (
    "this SynapticIntelligence is attached to an optimizer, which follows every step itself: "
    "pre_step and post_step would count the steps twice"
)

BLOCK = 16384  # elements


class PathIntegral(Protocol):
    """Where an optimizer that this is attached to sums up -(p_new - p_old) * g of its steps."""

    def take(self) -> list[Array]:
        """The sums since the last call, an array per parameter; they begin again at zero."""


class SynapticIntelligence(Anchored):
    r"""Synaptic intelligence: how much each parameter contributed to the fall of the loss says how much it is held.

    In every step, with the gradient g of the task's loss, and at the end of a task that began at a::

        omega -= (x_new - x_old) * g
        Omega += max(0, omega / ((x - a)^2 + epsilon));   a = x;   omega = 0

    In the next tasks the penalty, times a strength of your choice, is added to the loss; note that it has no 1/2::

        sum Omega (x - a)^2

    Args:
        epsilon: Above 0. Bounds the importance of parameters that hardly moved.

    Raises:
        TypeError: `epsilon` is no number.
        ValueError: `epsilon` is not above 0 and finite.

    omega is summed in the parameter's precision, as an optimizer sums it that has this attached. Memory: a, omega, and
    Omega after the first task, each like the parameters; and one copy of them between `pre_step` and `post_step`, which
    `delta` makes unnecessary. Copies and pickles are independent, and attached to no optimizer.

    Source: Zenke, Poole & Ganguli, "Continual learning through synaptic intelligence", 2017.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.continual import SynapticIntelligence
        >>> si = SynapticIntelligence(epsilon=1.0)
        >>> x = np.array([1.0, 1.0])
        >>> gradient = np.array([2.0, 0.0])
        >>> si.pre_step(x)
        >>> x -= 0.5 * gradient
        >>> si.post_step(x, gradient)
        >>> si.consolidate(x)  # Omega = 2 / (1^2 + 1) and 0
        >>> si.penalty(np.array([3.0, 3.0]))
        9.0
    """

    _integrates = True

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        self._epsilon: float = Range(0, above=True).take("epsilon", epsilon)
        self._source: PathIntegral | None = None
        self._anchors: list[Array] | None = None  # the parameters when this task began
        self._before: list[Array] | None = None  # the parameters before the step under way
        self._omega: list[Array] | None = None
        self._weights: list[Array] | None = None  # 2 Omega

    @property
    def epsilon(self) -> float:
        """What is added to the squared distance of a parameter's way."""
        return self._epsilon

    def pre_step(self, theta: Arrays) -> None:
        """Remember the parameters, right before an optimizer's step.

        The first call also says where the first task begins. A call without a `post_step` after it does no harm.

        Args:
            theta: The parameters: an array, a sequence of them or a dict by name. Copied.

        Raises:
            TypeError: Not arrays of float32 or float64, or another precision than before.
            ValueError: NaN, infinity, or another count, other names or other shapes than before.
            RuntimeError: An optimizer that this is attached to does it.
        """
        self._require_unattached()
        arrays, _, layout = self._finite(theta)
        self._begin(arrays, layout)
        self._before = [np.array(x, order="C") for x in arrays]

    def post_step(self, theta: Arrays, grad: Any, delta: Any = None) -> None:
        """Add the step to the path integral, right after it.

        Args:
            theta: The parameters after the step, as in `pre_step`.
            grad: The gradient of the task's loss that the step was made for, without that of any penalty: arrays like
                `theta`. None, or a missing name, for a parameter that had no gradient.
            delta: The change of the parameters, where it is known, like `grad`: no `pre_step` is needed then, and where
                there has been none at all, the first task is taken to begin at ``theta - delta``.

        Raises:
            TypeError: Not arrays of real numbers, or another precision of `theta` than before.
            ValueError: No `pre_step` since the last `post_step` and no `delta`; NaN, infinity; another count, other
                names or other shapes than before. Nothing was added.
            RuntimeError: An optimizer that this is attached to does it.
        """
        self._require_unattached()
        arrays, _, layout = self._finite(theta)
        gradients = _like(arrays, take_some(grad, "grad", layout), "grad", layout)
        if delta is None and self._before is None:
            raise ValueError("post_step needs a pre_step before the optimizer's step, or delta")
        with np.errstate(over="ignore"):  # what overflows is refused by consolidate
            if delta is not None:
                changes = _like(arrays, take_some(delta, "delta", layout), "delta", layout)
                if self._anchors is None:
                    self._begin([x if d is None else x - d for x, d in zip(arrays, changes, strict=True)], layout)
            else:
                changes = [np.subtract(x, old, out=old) for x, old in zip(arrays, self._before or [], strict=True)]
            self._before = None
            if self._omega is None:
                self._omega = [np.zeros(x.shape, x.dtype) for x in arrays]
            for omega, change, g in zip(self._omega, changes, gradients, strict=True):
                if change is not None and g is not None:
                    _subtract_product(omega, change, g)

    def consolidate(self, theta: Arrays) -> None:
        """A task has ended: hold on to these parameters from now on.

        Without a step since the last call this moves the anchors and adds no importance.

        Args:
            theta: The parameters at the end of the task, as in `pre_step`. Copied.

        Raises:
            TypeError: Not arrays of float32 or float64, or another precision than before.
            ValueError: No step has been seen at all; NaN, infinity; an importance that is too large for the precision;
                another count, other names or other shapes than before. Nothing was changed.
        """
        arrays, _, layout = self._finite(theta)
        self._drain()
        if self._anchors is None or (self._omega is None and self._weights is None):
            raise ValueError("there is nothing to consolidate: no post_step has been called, so no step has been seen")
        weights = self._weights or [np.zeros(x.shape, x.dtype) for x in arrays]
        if self._omega is not None:
            weights = [
                self._heavier(*each, of("the path integral", i, layout.names))
                for i, each in enumerate(zip(weights, self._omega, arrays, self._anchors, strict=True))
            ]
        self._anchors = [np.array(x, order="C") for x in arrays]
        self._weights, self._omega, self._before = weights, None, None
        self._version += 1

    def _heavier(self, weight: Array, omega: Array, x: Array, begin: Array, what: str) -> Array:
        """2 Omega with this task's added, computed in float64."""
        require_finite(omega, what)
        with np.errstate(over="ignore"):
            way = x.astype(np.float64) - begin
            importance = np.maximum(omega / (way * way + self._epsilon), 0)
            return rounded(weight + 2 * importance, x.dtype, f"the importance from {what}")

    def _penalty(self, arrays: list[Array]) -> float:
        total = 0.0
        for x, weight, anchor in zip(arrays, *(self._quadratic() or ([], [])), strict=False):
            total += squared_distance(weight.astype(np.float64), x.astype(np.float64) - anchor)
        return 0.5 * total

    def _quadratic(self) -> tuple[list[Array], list[Array]] | None:
        return None if self._weights is None or self._anchors is None else (self._weights, self._anchors)

    def _dtypes(self) -> list[np.dtype[Any]] | None:
        return None if self._anchors is None else [a.dtype for a in self._anchors]

    def _begin(self, arrays: list[Array], layout: Layout) -> None:
        """The first task begins here, if it has not begun before; an optimizer that this is attached to says so too."""
        if self._anchors is None:
            self._anchors, self._layout = [np.array(x, order="C") for x in arrays], layout

    def _finite(self, theta: Arrays) -> tuple[list[Array], Form, Layout]:
        arrays, form, layout = self._take(theta)
        for i, x in enumerate(arrays):
            require_finite(x, of("theta", i, layout.names))
        return arrays, form, layout

    def _attach(self, parameters: list[Array], source: Any) -> None:
        if self._source is not None:
            raise ValueError("this SynapticIntelligence is attached to an optimizer already: detach it there first")
        arrays, _, layout = self._finite(parameters)
        self._begin(arrays, layout)
        self._source, self._before = source, None

    def _detach(self) -> None:
        self._drain()
        self._source = None

    def _require_unattached(self) -> None:
        if self._source is not None:
            raise RuntimeError(ATTACHED)

    def _drain(self) -> None:
        """Take over what the optimizer has summed up so far."""
        if self._source is None:
            return
        more = self._source.take()
        if self._omega is None:
            self._omega = [np.array(m) for m in more]
        else:
            for omega, m in zip(self._omega, more, strict=True):
                omega += m

    def __getstate__(self) -> dict[str, Any]:
        # What an optimizer sums up is handed over once: a copy has what there is so far, and is attached to nothing.
        self._drain()
        return {**copy.deepcopy({k: v for k, v in vars(self).items() if k != "_source"}), "_source": None}

    def state_dict(self) -> StateDict:
        """A snapshot of plain arrays, numbers, strings and containers; `load_state_dict` continues bit for bit.

        It may be taken within a task, also between `pre_step` and `post_step`.
        """
        self._drain()
        return {
            "epsilon": self._epsilon,
            "anchors": packed(self._anchors, self._layout),
            "before": packed(self._before, self._layout),
            "omega": packed(self._omega, self._layout),
            "weights": packed(self._weights, self._layout),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot, its epsilon included; checked before anything is changed.

        Raises:
            TypeError: Not a state dict of this class.
            ValueError: Values that it cannot have; other parameters than those of an optimizer that this is attached
                to.
        """
        require_keys(state_dict, ["epsilon", "anchors", "before", "omega", "weights"], "SynapticIntelligence")
        other = SynapticIntelligence(state_dict["epsilon"])
        if state_dict["anchors"] is not None:
            other._anchors, other._layout = unpacked(state_dict, "anchors")
            for name in ("before", "omega", "weights"):
                if state_dict[name] is not None:
                    setattr(other, f"_{name}", unpacked_like(state_dict, name, other._layout, other._anchors))
            for weight in other._weights or []:
                require_not_negative(weight, "'weights' of state_dict")
        if self._source is not None:
            self._require_same(other._anchors or [])
            other._before = None  # as in _attach
            self._source.take()  # the way to the state that is given up
        other._version, other._source = self._version + 1, self._source
        vars(self).update(vars(other))

    def _require_same(self, anchors: list[Array]) -> None:
        """Refuse a state of other parameters than those of the optimizer that this is attached to."""
        found, expected = ([(a.shape, a.dtype.name) for a in arrays] for arrays in (anchors, self._anchors or []))
        if found != expected:
            raise ValueError(
                "state_dict has other parameters than the optimizer that this SynapticIntelligence is attached to: "
                f"{found or 'none'} and not {expected}; detach it there first"
            )


def _like(arrays: list[Array], others: list[Array | None], what: str, layout: Layout) -> list[Array | None]:
    """The others, finite, in the precisions of the arrays."""
    result: list[Array | None] = []
    for i, (array, other) in enumerate(zip(arrays, others, strict=True)):
        with np.errstate(over="ignore"):
            cast = None if other is None else other.astype(array.dtype, copy=False)
        result.append(None if cast is None else require_finite(cast, of(what, i, layout.names)))
    return result


def _subtract_product(total: Array, a: Array, b: Array) -> None:
    """Take a * b away from the total, block by block: the product is never there as a whole."""
    access: Any = [["readwrite"], ["readonly"], ["readonly"]]  # NumPy's stubs know of flat lists only
    with np.nditer([total, a, b], ["external_loop", "buffered", "zerosize_ok"], access, buffersize=BLOCK) as blocks:
        for t, x, y in blocks:
            t -= x * y
