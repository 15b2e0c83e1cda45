"""Neal's funnel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling.potentials._builtin import BuiltIn, dot
from grilly_optim.sampling.potentials._tables import dimension, precision_of

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class Funnel(BuiltIn):
    r"""Neal's funnel: v ~ N(0, scale^2), and x_i ~ N(0, exp(v)) for each of the other elements.

    Centered, q = (v, x): U(q) = v^2 / (2 scale^2) + exp(-v) \|x\|^2 / 2 + (D - 1) v / 2. Its neck is too narrow for any
    fixed step size: samplers must report divergences there, and do. Not centered, q = (v, z) with x = z exp(v / 2):
    U(q) = v^2 / (2 scale^2) + \|z\|^2 / 2, the same distribution of (v, x) in coordinates that are easy. Constants are
    left out.

    Args:
        dim: D, 2 or more: v and the others.
        scale: The standard deviation of v, above 0.
        centered: The coordinates.

    Raises:
        TypeError: `dim` is no integer, or `scale` no number.
        ValueError: `dim` is below 2, or `scale` not above 0.

    Source: R. M. Neal, "Slice Sampling", Annals of Statistics 31 (2003), section 8.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import Funnel
        >>> Funnel(3)(np.array([0.0, 1.0, 1.0]))
        (1.0, array([0., 1., 1.]))
        >>> Funnel(3, centered=False).transform(np.array([0.0, 1.0, 1.0]))
        {'v': array(0.), 'x': array([1., 1.])}
    """

    def __init__(self, dim: int, scale: float = 3.0, centered: bool = True) -> None:
        self.centered = bool(centered)
        super().__init__(
            dimension(dim, 2),
            "funnel" if self.centered else "funnel_noncentered",
            constants={"scale_precision": precision_of("scale", scale)},
        )

    @property
    def names(self) -> list[str]:
        """See `BuiltIn`."""
        return ["v", *(f"{'x' if self.centered else 'z'}[{i}]" for i in range(self.dim - 1))]

    def transform(self, q: ArrayLike) -> dict[str, Array]:
        """What positions (..., D) stand for: v (...) and x (..., D - 1)."""
        position = np.asarray(q)
        v, others = position[..., 0], position[..., 1:]
        return {"v": v, "x": others if self.centered else others * np.exp(v / 2)[..., None]}

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        v, others, precision = q[:, 0], q[:, 1:], self.constants["scale_precision"]
        gradient = np.empty_like(q)
        gradient[:, 0] = precision * v
        energy = 0.5 * precision * v * v
        if not self.centered:
            gradient[:, 1:] = others
            return energy + 0.5 * dot(others, others), gradient
        shrink, half = np.exp(-0.5 * v), 0.5 * others.shape[1]
        # exp(-v) by itself may be infinite where its product with the squares is not.
        z = others * shrink[:, None]
        squares = 0.5 * dot(z, z)
        gradient[:, 0] += half - squares
        gradient[:, 1:] = z * shrink[:, None]
        return energy + half * v + squares, gradient
