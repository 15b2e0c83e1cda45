"""The rules of relaxation: the twins of shaders/rules/relax.glsl, one per activation."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from grilly_optim.energy.activations import get_activation
from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]


class RelaxState(NamedTuple):
    """The rates, which are the caller's array, and the states."""

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


@cache
def relax_rule(name: str) -> Rule:
    """The rule ``relax_<name>``, of the activation of that name: one step of a layer towards equilibrium.

    ::

        g = own * (u - pull) - gain * phi'(u) * back,    u <- u - step * g,    r <- phi(u)

    Raises:
        ValueError: There is no activation of that name.

    >>> rule = relax_rule("tanh")
    >>> rule.name, rule.inputs, rule.sum_fields
    ('relax_tanh', ('pull', 'back'), ('gg',))
    """
    phi = get_activation(name)

    def gradient(u: Array, pull: Array, back: Array, h: RelaxScalars) -> Any:
        return h.own * (u - pull) - h.gain * phi.derivative(u) * back

    def relax(s: RelaxState, pull: Array, back: Array, h: RelaxScalars) -> RelaxState:
        u = s.u - h.step * gradient(s.u, pull, back, h)
        return RelaxState(phi.function(u), u)

    def relax_sums(s: RelaxState, pull: Array, back: Array, h: RelaxScalars) -> RelaxSums:
        g = gradient(s.u, pull, back, h)
        after = relax(s, pull, back, h)
        return RelaxSums(g * g, after.r, after.u)

    return Rule(relax, RelaxState, RelaxScalars, relax_sums, RelaxSums, choice=phi.name)
