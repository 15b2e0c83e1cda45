"""Bayesian linear regression with known noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling._products import rows_times
from grilly_optim.sampling.potentials._builtin import BuiltIn, dot
from grilly_optim.sampling.potentials._tables import precision_of, table

Doubles = NDArray[np.float64]


class LinearRegression(BuiltIn):
    r"""Bayesian linear regression: y_n ~ N(x_n'q, noise_std^2), with q ~ N(0, prior_std^2 I).

    U(q) = \|y - Xq\|^2 / (2 noise_std^2) + \|q\|^2 / (2 prior_std^2), without constants. Where there are more rows
    than columns, X and y are replaced by R and Q'y of the factors QR = X: D rows that differ in a constant only, which
    is left out of U on every device. There is no intercept: give X a column of ones.

    Args:
        X: The features, (N, D).
        y: The targets, (N,).
        noise_std: Of the targets around their means, above 0.
        prior_std: Of every coefficient, above 0.

    Raises:
        TypeError: Something does not hold real numbers.
        ValueError: Something has the wrong shape or is not finite, or a standard deviation is not above 0.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import LinearRegression
        >>> potential = LinearRegression([[1.0, 0.0], [1.0, 1.0]], [1.0, 3.0], noise_std=0.5, prior_std=10.0)
        >>> potential(np.zeros(2))
        (20.0, array([-16., -12.]))
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, noise_std: float, prior_std: float) -> None:  # noqa: N803
        features = table("X", X, ("N", "D"))
        rows, dim = features.shape
        targets = table("y", y, (rows,))
        if rows > dim:
            # With y as one more column, Q'y comes out beside R, and Q is never made.
            triangle: Doubles = np.asarray(np.linalg.qr(np.column_stack([features, targets]), mode="r"))
            features, targets = triangle[:dim, :dim], triangle[:dim, dim]
        super().__init__(
            dim,
            "linear_regression",
            tables={"features": features, "targets": targets},
            constants={
                "noise_precision": precision_of("noise_std", noise_std),
                "prior_precision": precision_of("prior_std", prior_std),
            },
        )
        self._columns = np.ascontiguousarray(features.T)

    @property
    def names(self) -> list[str]:
        """See `BuiltIn`."""
        return [f"beta[{i}]" for i in range(self.dim)]

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        noise, prior = self.constants["noise_precision"], self.constants["prior_precision"]
        errors = rows_times(q, self._columns) - self.tables["targets"]
        energy = 0.5 * noise * dot(errors, errors) + 0.5 * prior * dot(q, q)
        return energy, noise * rows_times(errors, self.tables["features"]) + prior * q
