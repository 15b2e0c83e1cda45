"""The global norm of gradients, as a rule that only measures."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class NormState(NamedTuple):
    """The parameter, which is not looked at."""

    p: Array


class NormScalars(NamedTuple):
    """Nothing."""

    unused: float


class NormSums(NamedTuple):
    """The square of the norm."""

    square: Array


def norm_sums(s: NormState, g: Array, h: NormScalars) -> NormSums:
    """The twin of shaders/rules/norm.glsl."""
    return NormSums(g * g)


NORM = Rule(norm_sums, NormState, NormScalars, norm_sums, NormSums)
