"""The inverse mass of Hamiltonian dynamics: a number, a vector or a matrix, one for all chains or one for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class InverseMass:
    """W in K(p) = p'Wp / 2; momenta are N(0, W^-1), and the velocity is Wp.

    Attributes:
        array: As it was given, in double: () or (D,) or (D, D), behind an axis of chains where `per_chain`.
        rank: 0, 1 or 2: a number, a vector (a diagonal matrix), a matrix.
        per_chain: Whether every chain has its own.
        factor: W in the dtype of momenta, in the shape that multiplies them.
        root: What makes momenta of standard normal numbers: W^-1/2, or R^-1 of a matrix W = RR', from the right.
    """

    @np.errstate(over="ignore", under="ignore")  # what does not fit is refused in words
    def __init__(self, array: ArrayLike, dim: int, dtype: Any, *, per_chain: bool = False) -> None:
        self.array: Doubles = _checked(array, dim, per_chain)
        self.per_chain = per_chain
        self.rank = self.array.ndim - per_chain
        self._dim, self._dtype = dim, np.dtype(dtype)
        # In the shape that multiplies momenta (C, D).
        self.factor: Array = self._spread(self.array).astype(dtype)
        if self.rank < 2:
            self.root: Array = self._spread(self.array**-0.5).astype(dtype)
        else:
            # W = R R' makes R^-T z a momentum; as a row, z R^-1.
            self.root = np.linalg.inv(np.linalg.cholesky(self.array)).astype(dtype)
        for made in (self.factor, self.root):
            if not np.isfinite(made).all() or (self.rank < 2 and not (made > 0).all()):
                low, high = self.array.min(), self.array.max()
                raise ValueError(f"inv_mass is beyond what {self._dtype} can hold, got {low:g} to {high:g}")
        self._is_one = bool(self.rank == 0 and (self.array == 1).all())

    def _spread(self, array: Doubles) -> Doubles:
        return array[:, None] if self.per_chain and self.rank == 0 else array

    def velocity(self, momentum: Array) -> Array:
        """W p for momenta (C, D)."""
        return _times(momentum, self.factor) if self.rank == 2 else np.asarray(self.factor * momentum)

    def kinetic(self, momentum: Array) -> Doubles:
        """K of momenta (C, D), in double: (C,). A chain's number does not depend on the others."""
        products = momentum.astype(np.float64) * self.velocity(momentum)
        return np.asarray(0.5 * products.sum(axis=1))

    def momentum(self, normal: Array) -> Array:
        """Momenta of standard normal numbers (C, D), which they may take the place of."""
        if self.rank == 2:
            return _times(normal, self.root)
        return normal if self._is_one else np.multiply(normal, self.root, out=normal)

    def velocity_of(self, chain: int) -> Callable[[Array], Array]:
        """What gives W p for one chain's momentum p, (D,); where W is 1, p itself."""
        if self._is_one:
            return np.asarray
        factor = self.factor[chain] if self.per_chain else self.factor
        if self.rank == 2:
            return factor.dot
        return factor.reshape(()).__mul__ if self.rank == 0 else factor.__mul__

    def of_chains(self, index: Any) -> InverseMass:
        """That of some of the chains."""
        if not self.per_chain:
            return self
        return InverseMass(self.array[index], self._dim, self._dtype, per_chain=True)


def _times(rows: Array, matrix: Array) -> Array:
    """Rows (C, D) times a matrix (D, D), or each times its own (C, D, D)."""
    # One product per row: a product of all of them rounds otherwise for another number of rows.
    return np.asarray(np.matmul(rows[:, None, :], matrix)[:, 0])


def _checked(array: ArrayLike, dim: int, per_chain: bool) -> Doubles:
    try:
        made = np.array(array, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"inv_mass must be a number, a vector or a matrix, got {type(array).__name__}") from error
    if array is None:
        raise TypeError("inv_mass must be a number, a vector or a matrix, got None")
    chains = made.shape[:1] if per_chain else ()
    shape = made.shape[len(chains) :]
    if shape not in ((), (dim,), (dim, dim)):
        raise ValueError(f"inv_mass must have shape (), ({dim},) or ({dim}, {dim}), got {shape}")
    if not np.isfinite(made).all():
        raise ValueError(f"inv_mass must be finite, got {made[~np.isfinite(made)][0]}")
    if len(shape) < 2:
        if not (made > 0).all():
            raise ValueError(f"inv_mass must be positive, got {made.min():g}")
        return made
    size = np.sqrt(np.abs(np.diagonal(made, axis1=-2, axis2=-1)))
    if (np.abs(made - np.swapaxes(made, -1, -2)) > 1e-8 * size[..., :, None] * size[..., None, :]).any():
        raise ValueError("inv_mass must be symmetric")
    try:
        np.linalg.cholesky(made)
    except np.linalg.LinAlgError as error:
        raise ValueError("inv_mass must be positive definite") from error
    return made
