"""Calling potentials: any callable, one position or a batch, with what it gives checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class EvaluationFailed(Exception):
    """A potential raised, or gave what it should not: the cause.

    Attributes:
        row: For which row of the batch; None where it was evaluated as a whole.
        cause: What was raised.
    """

    def __init__(self, row: int | None, cause: Exception) -> None:
        super().__init__(row, cause)
        self.row, self.cause = row, cause

    def among(self, rows: Sequence[int] | NDArray[np.intp]) -> EvaluationFailed:
        """The same in a larger batch, of which these rows were evaluated."""
        return EvaluationFailed(None if self.row is None else int(rows[self.row]), self.cause)


class Evaluator:
    """A potential energy as the samplers call it.

    NaN and infinity pass: whether a position may be there is for the sampler to decide. Callers switch NumPy's warnings
    of them off. What the potential sees is a read-only view of the chains' memory, valid during the call.

    Args:
        potential: A callable q -> (U, gradient), or an object with ``value_and_grad(q)``. With a true attribute
            ``vectorized`` it takes (C, D) and gives (C,), (C, D); otherwise (D,), a number and (D,).
        dtype: In which gradients are returned.
        gradient: Whether it is needed; without, the potential may give U alone.
        name: What errors call it.

    Raises:
        TypeError: It is neither, or a class.
    """

    def __init__(self, potential: Any, dtype: Any, *, gradient: bool = True, name: str = "pot_energy_func") -> None:
        if isinstance(potential, type):
            raise TypeError(f"{name} must be a potential, got the class {potential.__name__}: make one of it")
        function = getattr(potential, "value_and_grad", potential)
        if not callable(function):
            raise TypeError(
                f"{name} must be a callable q -> (U, gradient) or have value_and_grad(q), "
                f"got {type(potential).__name__}"
            )
        self._function, self._gradient, self._dtype = function, gradient, np.dtype(dtype)
        self.vectorized = bool(getattr(potential, "vectorized", False))

    def __call__(self, position: Array, own: bool = True) -> tuple[Doubles, Array]:
        """U in double (C,) and its gradient (C, D) at (C, D).

        The potential sees the array itself, read-only, so what it keeps of it changes when the chains move.
        Without `gradient` the second is empty.

        Args:
            position: Where.
            own: Nothing else refers to the gradient; otherwise it may be the function's own, or the position itself.

        Raises:
            EvaluationFailed: The potential raised, or gave another shape or type.
        """
        seen = position.view()
        seen.flags.writeable = False
        if self.vectorized:
            try:
                return self._evaluate(seen, None, own)
            except EvaluationFailed as failed:
                raise EvaluationFailed(self._first_to_fail(seen), failed.cause) from failed.cause
        if len(seen) == 1:
            value, gradient = self.single(seen[0], own)
            return np.array([value]), gradient[None]
        values = np.empty(len(seen))
        gradients = np.empty(seen.shape if self._gradient else 0, self._dtype)
        for row, q in enumerate(seen):
            values[row], gradient = self._evaluate(q, row, False)
            if self._gradient:
                gradients[row] = gradient
        return values, gradients

    def _first_to_fail(self, seen: Array) -> int | None:
        """The row at which it fails alone as well; None: at no single one."""
        if len(seen) == 1:
            return 0
        for row in range(len(seen)):
            try:
                self._evaluate(seen[row : row + 1], row, False)
            except EvaluationFailed:
                return row
        return None

    def single(self, q: Array, own: bool = True) -> tuple[float, Array]:
        """The same at one position (D,), which is read-only from then on."""
        if self.vectorized:
            values, gradients = self(q[None], own)
            return values.item(), gradients[0]
        q.setflags(write=False)
        try:
            result = self._function(q)
            if type(result) is tuple and len(result) == 2:
                value, gradient = result
                # What potentials nearly always give needs no more looking at.
                plain = isinstance(value, float) and type(gradient) is np.ndarray
                if plain and self._gradient and gradient.dtype == self._dtype and gradient.shape == q.shape:
                    usable = gradient.flags.c_contiguous and gradient.flags.aligned and not own
                    return float(value), gradient if usable else gradient.copy()
            energy, gradient = self._taken(result, q, own)
            return energy.item(), gradient
        except Exception as error:
            raise EvaluationFailed(0, error) from error

    def _evaluate(self, q: Array, row: int | None, own: bool) -> tuple[Doubles, Array]:
        try:
            return self._taken(self._function(q), q, own)
        except Exception as error:
            raise EvaluationFailed(row, error) from error

    def _taken(self, result: Any, q: Array, own: bool) -> tuple[Doubles, Array]:
        if isinstance(result, tuple) and len(result) == 2:
            value, gradient = result
        elif self._gradient:
            raise TypeError(f"the potential must return a tuple (U, gradient), got {_kind(result)}")
        else:
            value, gradient = result, None
        energy = np.asarray(value)
        if energy.dtype.kind not in "iuf":
            raise TypeError(f"the potential must return a real U, got {_kind(value)}")
        if energy.shape != q.shape[:-1]:
            expected = "a single number" if q.ndim == 1 else f"shape {q.shape[:-1]}, one U per chain"
            raise ValueError(f"U must be {expected}, got shape {energy.shape}")
        found = self._checked(gradient, q, own) if self._gradient else np.empty(0, self._dtype)
        return energy.astype(np.float64), found

    def _checked(self, gradient: Any, q: Array, own: bool) -> Array:
        made = np.asarray(gradient)
        if made.dtype.kind not in "iuf":
            raise TypeError(f"the gradient must be real, got {_kind(gradient)}")
        if made.shape != q.shape:
            raise ValueError(f"the gradient must have the shape {q.shape} of the position, got {made.shape}")
        # A function may return its argument, or the same array in every call.
        if own or not made.flags.aligned:
            return np.array(made, self._dtype, order="C")
        return np.asarray(made, self._dtype, order="C")


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
