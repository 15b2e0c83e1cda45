"""The standard normal distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grilly_optim.sampling.potentials._builtin import BuiltIn, dot
from grilly_optim.sampling.potentials._tables import dimension

Doubles = NDArray[np.float64]


class StandardNormal(BuiltIn):
    r"""The standard normal distribution: U(q) = \|q\|^2 / 2, without its constant.

    Args:
        dim: D.

    Raises:
        TypeError: `dim` is no integer.
        ValueError: It is below 1.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import StandardNormal
        >>> StandardNormal(2)(np.array([3.0, 4.0]))
        (12.5, array([3., 4.]))
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dimension(dim), "standard_normal")

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        return 0.5 * dot(q, q), q.copy()
