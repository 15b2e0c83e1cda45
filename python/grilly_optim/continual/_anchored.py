"""What EWC and synaptic intelligence have in common: one quadratic around an anchor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from grilly_optim.continual._arrays import Array, Arrays, Form, Layout, take_theta


class Anchored(ABC):
    """A penalty whose gradient is ``weight * (theta - anchor)``, element by element.

    An optimizer that adds this gradient in its own kernel reads `_quadratic` and computes in the same order as `grad`,
    so that both ways give the same bits. `_version` tells it when to read again.
    """

    # Whether an optimizer that this is attached to has to sum up the path integral.
    _integrates = False

    def __init__(self) -> None:
        self._version = 0
        self._layout: Layout | None = None

    @abstractmethod
    def _quadratic(self) -> tuple[list[Array], list[Array]] | None:
        """Weights and anchors, an array each per parameter and in its precision; None before the first task's end."""

    def penalty(self, theta: Arrays) -> float:
        """The penalty of these parameters, summed in float64; 0 before the first `consolidate`.

        Args:
            theta: The parameters: an array, a sequence of them or a dict by name. NaN and infinity go through.

        Raises:
            TypeError: Not arrays of float32 or float64.
            ValueError: Another count, other names or other shapes than before.
        """
        return self._penalty(take_theta(theta, self._layout)[0])

    @abstractmethod
    def _penalty(self, arrays: list[Array]) -> float:
        """The same, of parameters that fit."""

    def grad(self, theta: Arrays) -> Any:
        """The gradient of the penalty; zeros before the first `consolidate`.

        Args:
            theta: The parameters: an array, a sequence of them or a dict by name. NaN and infinity go through.

        Returns:
            The same form that came, new arrays in the precision of `theta`. Multiplied by the strength of the penalty
            this is added to the gradient of the loss.

        Raises:
            TypeError: Not arrays of float32 or float64.
            ValueError: Another count, other names or other shapes than before.
        """
        arrays, form, _ = take_theta(theta, self._layout)
        terms = self._quadratic()
        if terms is None:
            return form.restore([np.zeros(x.shape, x.dtype) for x in arrays])
        with np.errstate(all="ignore"):
            return form.restore([np.asarray(w * (x - a), x.dtype) for x, w, a in zip(arrays, *terms, strict=True)])

    def _attach(self, parameters: list[Array], source: Any) -> None:
        """An optimizer of these parameters adds the gradient in its own kernel from now on.

        Raises:
            TypeError: Another precision than before.
            ValueError: Another count or other shapes than before.
        """
        self._take(parameters)

    def _detach(self) -> None:
        """It does so no more."""
        return

    def _take(self, theta: Arrays) -> tuple[list[Array], Form, Layout]:
        """The parameters where they decide what is kept: they must have the precision that they had before."""
        arrays, form, layout = take_theta(theta, self._layout)
        for i, (array, dtype) in enumerate(zip(arrays, self._dtypes() or [a.dtype for a in arrays], strict=True)):
            if array.dtype != dtype:
                raise TypeError(f"theta of {layout.who(i)} is {array.dtype}, and was {dtype} before")
        return arrays, form, layout

    @abstractmethod
    def _dtypes(self) -> list[np.dtype[Any]] | None:
        """The precision of each parameter; None while none has been seen."""


def squared_distance(weight: Array, distance: Array) -> float:
    """The sum of weight * distance^2; float64 in, and pairwise, so that it keeps its digits."""
    with np.errstate(all="ignore"):
        return float(np.sum(weight * distance * distance))
