"""The normal distribution with any mean and covariance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling._options import own_array
from grilly_optim.sampling._products import rows_times
from grilly_optim.sampling.potentials._builtin import BuiltIn, dot
from grilly_optim.sampling.potentials._tables import precision_of, table

Doubles = NDArray[np.float64]


class Gaussian(BuiltIn):
    """A normal distribution: U(q) = (q - mean)' P (q - mean) / 2 with the precision P, without its constant.

    Args:
        mean: (D,).
        std: Standard deviations of independent elements: (D,), or one number for all.
        cov: The covariance, (D, D).
        precision: The inverse of the covariance, (D, D). Exactly one of the three is given.

    Raises:
        TypeError: None or several of them are given, or something does not hold real numbers.
        ValueError: Something has the wrong shape or is not finite; a standard deviation is not above 0; a matrix is
            not symmetric and positive definite.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import Gaussian
        >>> potential = Gaussian([1.0, 2.0], cov=[[2.0, 1.0], [1.0, 1.0]])
        >>> potential(np.array([[1.0, 2.0], [3.0, 2.0]]))
        (array([0., 2.]), array([[ 0.,  0.],
               [ 2., -2.]]))
    """

    def __init__(
        self,
        mean: ArrayLike,
        *,
        std: ArrayLike | None = None,
        cov: ArrayLike | None = None,
        precision: ArrayLike | None = None,
    ) -> None:
        center = table("mean", mean, ("D",))
        given = [name for name, a in (("std", std), ("cov", cov), ("precision", precision)) if a is not None]
        if len(given) != 1:
            raise TypeError(
                f"Gaussian takes exactly one of std, cov and precision, got {' and '.join(given) or 'none'}"
            )
        dim = len(center)
        if std is not None:
            each = own_array(std, "std")
            scale = np.broadcast_to(table("std", each, (dim,) if each.ndim else ()), (dim,))
            weights = np.array([precision_of("std", s) for s in scale.tolist()])
        elif cov is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                inverse = np.linalg.inv(_cholesky("cov", cov, dim)[1])
                weights = inverse.T @ inverse
            if not np.isfinite(weights).all():
                raise ValueError("cov must be so large that its inverse is finite")
        else:
            assert precision is not None
            weights = _cholesky("precision", precision, dim)[0]
        kernel = "gaussian" if weights.ndim == 1 else "gaussian_dense"
        super().__init__(dim, kernel, tables={"mean": center, "precisions": weights})

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        away, precision = q - self.tables["mean"], self.tables["precisions"]
        gradient = away * precision if precision.ndim == 1 else rows_times(away, precision)
        return 0.5 * dot(away, gradient), gradient


def _cholesky(name: str, value: ArrayLike, dim: int) -> tuple[Doubles, Doubles]:
    """A matrix, made symmetric to the last bit, and its lower factor."""
    matrix = table(name, value, (dim, dim))
    diagonal = np.diagonal(matrix)
    if not (diagonal > 0).all():
        raise ValueError(f"{name} must be positive definite, got {diagonal.min():g} on its diagonal")
    # Rounding is of the size of the elements that went into an element, and the element itself may be near 0.
    scale = np.sqrt(diagonal)
    if (np.abs(matrix - matrix.T) > 1e-8 * np.outer(scale, scale)).any():
        raise ValueError(f"{name} must be symmetric")
    matrix = (matrix + matrix.T) / 2
    try:
        return matrix, np.asarray(np.linalg.cholesky(matrix))
    except np.linalg.LinAlgError as error:
        raise ValueError(f"{name} must be positive definite") from error
