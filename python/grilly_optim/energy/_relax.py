"""The rule of a relaxation: the twin of shaders/rules/relax.glsl, for each activation."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.energy.activations import Activation, get_activation
from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class RelaxState(NamedTuple):
    """What units give to others, and their state."""

    r: Array
    u: Array


class RelaxScalars(NamedTuple):
    """See shaders/rules/relax.glsl."""

    own: Any
    gain: Any
    step: Any


class RelaxSums(NamedTuple):
    """See shaders/rules/relax.glsl."""

    gg: Array
    r: Array
    u: Array


def gradient(u: Array, pull: Array, back: Array, slope: Array, own: Any, gain: Any) -> Array:
    """dE/du of units that are pulled to `pull`, and hear `back` from their neighbours."""
    return own * (u - pull) - gain * slope * back  # type: ignore[no-any-return]


@cache
def relax_rule(phi: str | Activation) -> Rule:
    """The rule for units with this activation: one step towards equilibrium.

    ::

        g = own (u - pull) - gain phi'(u) back,    u <- u - step g,    r <- phi(u)

    Raises:
        ValueError: There is no activation of that name.

    Example:
        >>> rule = relax_rule("tanh")
        >>> rule.name, rule.inputs, rule.sum_fields
        ('relax_tanh', ('pull', 'back'), ('gg',))
    """
    activation = get_activation(phi)

    def relax(s: RelaxState, pull: Array, back: Array, h: RelaxScalars) -> RelaxState:
        u = s.u - h.step * gradient(s.u, pull, back, activation.derivative(s.u), h.own, h.gain)
        return RelaxState(activation.function(u), u)

    def relax_sums(s: RelaxState, pull: Array, back: Array, h: RelaxScalars) -> RelaxSums:
        g = gradient(s.u, pull, back, activation.derivative(s.u), h.own, h.gain)
        return RelaxSums(g * g, *relax(s, pull, back, h))

    return Rule(relax, RelaxState, RelaxScalars, relax_sums, RelaxSums, choice=activation.name)
