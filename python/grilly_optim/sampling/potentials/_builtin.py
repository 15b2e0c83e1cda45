"""What all built-in potentials have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class BuiltIn(ABC):
    """A potential energy that devices know: whole transitions of all chains run there, without Python in between.

    On the host it is a potential like any other, for one position or a batch. U is computed in double whatever the
    position's dtype; far out, where numbers end, U and its gradient are infinite or NaN, without a warning.
    Constants that do not depend on q may be missing from U.

    Attributes:
        dim: D, the length of a position.
        vectorized: True: the samplers evaluate all chains in one call.
        kernel: The name of the shader that computes it.
        tables: Name -> array in double that the shader reads; read-only.
        constants: Name -> number that the shader reads.
    """

    vectorized = True

    def __init__(
        self,
        dim: int,
        kernel: str,
        *,
        tables: Mapping[str, Doubles] | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        self.dim, self.kernel = dim, kernel
        self.tables: dict[str, Doubles] = {}
        for name, table in (tables or {}).items():
            # A copy of its own: neither the caller's later writes nor a user's may reach it.
            self.tables[name] = np.array(table, np.float64, order="C")
            self.tables[name].flags.writeable = False
        self.constants: dict[str, float] = dict(constants or {})

    def digest(self) -> str:
        """The same for potentials of the same class, tables and constants."""
        content = hashlib.sha256(repr((type(self).__qualname__, self.kernel, sorted(self.constants.items()))).encode())
        for name, table in sorted(self.tables.items()):
            content.update(f"{name} {table.shape}".encode())
            content.update(table.tobytes())
        return content.hexdigest()

    @property
    def names(self) -> list[str]:
        """What the elements of a position are called."""
        return [f"q[{i}]" for i in range(self.dim)]

    @abstractmethod
    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        """U (C,) and its gradient (C, D), a new array, at contiguous positions (C, D)."""

    def value_and_grad(self, q: ArrayLike) -> tuple[Any, Array]:
        """U and its gradient.

        Args:
            q: One position (D,), or one per chain (C, D).

        Returns:
            U in double, a float or (C,); and the gradient in the shape and dtype of `q` (float64 for integers).

        Raises:
            TypeError: `q` does not hold real numbers.
            ValueError: It has another shape.
        """
        given = np.asarray(q)
        if given.dtype.kind not in "iuf":
            raise TypeError(f"a position must hold real numbers, got {given.dtype}")
        if given.ndim not in (1, 2) or given.shape[-1] != self.dim:
            raise ValueError(f"a position must have shape ({self.dim},) or (C, {self.dim}), got {given.shape}")
        rows = np.ascontiguousarray(np.atleast_2d(given), np.float64)
        with np.errstate(all="ignore"):
            energy, gradient = self._evaluate(rows)
            result = gradient.astype(given.dtype if given.dtype.kind == "f" else np.float64, copy=False)
        return (float(energy[0]), result[0]) if given.ndim == 1 else (energy, result)

    def __call__(self, q: ArrayLike) -> tuple[Any, Array]:
        """The same as `value_and_grad`."""
        return self.value_and_grad(q)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dim={self.dim})"


def dot(a: Array, b: Array) -> Doubles:
    """The scalar product of each row with its counterpart: (C, D), (C, D) -> (C,)."""
    return np.asarray(np.einsum("cd,cd->c", a, b))
