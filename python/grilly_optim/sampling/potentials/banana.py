"""A curved ridge in two dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling.potentials._builtin import BuiltIn

Doubles = NDArray[np.float64]


class Banana(BuiltIn):
    """A curved ridge after Rosenbrock: x ~ N(1, 1) and y ~ N(x^2, 0.1).

    U(x, y) = (1 - x)^2 / 2 + 5 (y - x^2)^2, without its constant. Its moments are known: means 1 and 2, variances 1
    and 6.1, covariance 2.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import Banana
        >>> Banana()(np.array([0.0, 1.0]))
        (5.5, array([-1., 10.]))
    """

    def __init__(self) -> None:
        super().__init__(2, "banana")

    @property
    def names(self) -> list[str]:
        """See `BuiltIn`."""
        return ["x", "y"]

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        x, y = q.T
        left, above = 1 - x, y - x * x
        gradient = np.empty_like(q)
        gradient[:, 0] = -left - 20 * x * above
        gradient[:, 1] = 10 * above
        return 0.5 * left * left + 5 * above * above, gradient
