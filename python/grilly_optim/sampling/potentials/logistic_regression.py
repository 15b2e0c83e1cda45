"""Bayesian logistic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling._products import rows_times
from grilly_optim.sampling.potentials._builtin import BuiltIn, dot
from grilly_optim.sampling.potentials._tables import precision_of, table

Doubles = NDArray[np.float64]

# Numbers per temporary array of chains x rows: larger ones leave the cache between two operations.
_BLOCK = 2**18


class LogisticRegression(BuiltIn):
    r"""Bayesian logistic regression: P(y_n = 1) = 1 / (1 + exp(-x_n'q)), with q ~ N(0, prior_std^2 I).

    U(q) = sum_n log(1 + exp(-s_n x_n'q)) + \|q\|^2 / (2 prior_std^2), where s_n is 1 for y_n = 1 and -1 for y_n = 0.
    The prior's constant is left out. There is no intercept: give X a column of ones.

    Args:
        X: The features, (N, D).
        y: The labels, (N,): 0 and 1, or bools.
        prior_std: Of every coefficient, above 0.

    Raises:
        TypeError: Something does not hold real numbers.
        ValueError: Something has the wrong shape or is not finite, a label is not 0 or 1, or `prior_std` not above 0.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import LogisticRegression
        >>> X = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 2.0]])
        >>> potential = LogisticRegression(X, [0, 0, 1], prior_std=2.0)
        >>> energy, gradient = potential(np.zeros(2))
        >>> print(round(energy, 4), gradient)
        2.0794 [ 0.5 -1.5]
    """

    def __init__(self, X: ArrayLike, y: ArrayLike, prior_std: float = 1.0) -> None:  # noqa: N803
        features = table("X", X, ("N", "D"))
        labels = table("y", y, (len(features),))
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"y must hold 0 and 1, got {labels[~np.isin(labels, (0, 1))][0]:g}")
        signed = features * (2 * labels - 1)[:, None]
        super().__init__(
            features.shape[1],
            "logistic_regression",
            tables={"features": signed},
            constants={"prior_precision": precision_of("prior_std", prior_std)},
        )
        self._columns = np.ascontiguousarray(signed.T)

    @property
    def names(self) -> list[str]:
        """See `BuiltIn`."""
        return [f"beta[{i}]" for i in range(self.dim)]

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        precision = self.constants["prior_precision"]
        energy, gradient = 0.5 * precision * dot(q, q), precision * q
        size = max(1, _BLOCK // self._columns.shape[1])
        for start in range(0, len(q), size):
            part = slice(start, start + size)
            margins = rows_times(q[part], self._columns)
            # log(1 + exp(-m)) = max(-m, 0) + log(1 + exp(-|m|)), whose exponential is at most 1.
            small = np.exp(-np.abs(margins))
            energy[part] += (np.maximum(-margins, 0) + np.log1p(small)).sum(axis=1)
            misses = np.where(margins > 0, small, 1) / (1 + small)
            gradient[part] -= rows_times(misses, self.tables["features"])
        return energy, gradient
