"""The leapfrog integrator, gradient by gradient, for chains side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import Choice
from grilly_optim.arrays import empty
from grilly_optim.optim._plans import REFUSED
from grilly_optim.sampling._kick_drift import KICK_DRIFT
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._sampler import having

Array = NDArray[Any]
Doubles = NDArray[np.float64]


class Steps(NamedTuple):
    """Steps of an integrator.

    Attributes:
        stepsize: (C,), their sizes.
        first: How far momenta are kicked and positions drift, as the integrator takes it, in a trajectory's first step,
        inner: in those between,
        last: and in the last one.
    """

    stepsize: Doubles
    first: Any
    inner: Any
    last: Any


class Integrator(ABC):
    """Positions and momenta (C, D) on their way.

    A trajectory is `begin`, `first`, any number of `inner`, `last`; each takes the gradient where the position is.

    Attributes:
        position: Where the chains are: what the potential is to be evaluated at.
        inv_mass: Of their momenta.
    """

    def __init__(self, position: Array, inv_mass: InverseMass) -> None:
        self.position, self.inv_mass = position, inv_mass

    def steps(self, stepsize: Doubles) -> Steps:
        """What steps of these sizes (C,) are."""
        half, nothing = stepsize / 2, np.zeros_like(stepsize)
        first, inner, last = (self._phase(*x) for x in ((half, stepsize), (stepsize, stepsize), (half, nothing)))
        return Steps(stepsize, first, inner, last)

    def begin(self, position: Array, momentum: Array, steps: Steps) -> None:
        """Take copies of positions and momenta."""
        self.position[...] = position
        self._take_momentum(momentum)
        self._steps = steps

    def first(self, gradient: Array) -> Doubles:
        """Half a kick, and a drift. Kinetic energies (C,) before it."""
        return self._measured(gradient, self._steps.first)[0]

    def inner(self, gradient: Array) -> None:
        """A kick, and a drift."""
        self._step(gradient, self._steps.inner)

    def last(self, gradient: Array) -> Doubles:
        """Half a kick. Kinetic energies (C,) after it."""
        return self._measured(gradient, self._steps.last)[1]

    def mixed(self, gradient: Array, ends: NDArray[np.bool_], goes_on: NDArray[np.bool_]) -> Doubles:
        """`last` for some chains, `inner` for others; the rest stand still, if their gradient is finite."""
        stepsize = self._steps.stepsize
        drift = np.where(goes_on, stepsize, 0.0)
        return self._measured(gradient, self._phase(np.where(ends, stepsize / 2, drift), drift))[1]

    @abstractmethod
    def momentum(self) -> Array:
        """A copy of the momenta."""

    @abstractmethod
    def _take_momentum(self, momentum: Array) -> None: ...

    @abstractmethod
    def _phase(self, kick: Doubles, drift: Doubles) -> Any:
        """How far momenta are kicked and positions drift, as `_step` takes it."""

    @abstractmethod
    def _step(self, gradient: Array, phase: Any) -> None: ...

    @abstractmethod
    def _measured(self, gradient: Array, phase: Any) -> tuple[Doubles, Doubles]:
        """A step, and the kinetic energies before and after its kick."""


class RuleIntegrator(Integrator):
    """Diagonal inverse masses: the rule `kick_drift` on a device."""

    def __init__(self, choice: Choice, backend: Any, position: Array, inv_mass: InverseMass) -> None:
        super().__init__(empty(position.shape, position.dtype, choice.info.device), inv_mass)
        chains = len(position)
        self._backend = backend
        self._plan = backend.plan(having(KICK_DRIFT, ("w",) if inv_mass.rank else ()), [self.position], [0], chains)
        if inv_mass.rank:
            w = np.broadcast_to(inv_mass.array.astype(position.dtype), position.shape)
            self._plan.write_state("w", 0, np.ascontiguousarray(w))
        # A number comes with the drift, and with the sums.
        self._scale = np.broadcast_to(1.0 if inv_mass.rank else inv_mass.array, (chains,))
        self._everyone = np.arange(chains, dtype=np.uint32)
        self._sums = np.zeros((chains, 2))

    def momentum(self) -> Array:
        """See `Integrator`."""
        found = np.empty_like(self.position)
        self._plan.read_state("p", 0, found)
        return found

    def _take_momentum(self, momentum: Array) -> None:
        self._plan.write_state("p", 0, momentum)

    def _phase(self, kick: Doubles, drift: Doubles) -> Any:
        rows = list(zip(kick.tolist(), (drift * self._scale).tolist(), self._scale.tolist(), strict=True))
        if rows.count(rows[0]) == len(rows):
            return [rows[:1]], [None]
        return [rows], [self._everyone]

    def _step(self, gradient: Array, phase: Any, sums: Doubles | None = None) -> None:
        if not self._backend.run([self._plan], ([gradient],), *phase, True, sums):
            raise RuntimeError(REFUSED)

    def _measured(self, gradient: Array, phase: Any) -> tuple[Doubles, Doubles]:
        self._step(gradient, phase, self._sums)
        before, after = 0.5 * (self._sums.T + self.position.shape[1])
        return before, after


class MatrixIntegrator(Integrator):
    """Dense inverse masses: expressions of NumPy, with one product of matrix and vector per chain and step."""

    def __init__(self, position: Array, inv_mass: InverseMass) -> None:
        super().__init__(np.empty(position.shape, position.dtype), inv_mass)

    def momentum(self) -> Array:
        """See `Integrator`."""
        return self._momentum.copy()

    def _take_momentum(self, momentum: Array) -> None:
        self._momentum = momentum.copy()

    def _phase(self, kick: Doubles, drift: Doubles) -> Any:
        return tuple(x[:, None].astype(self.position.dtype) for x in (kick, drift))

    def _step(self, gradient: Array, phase: Any) -> None:
        kick, drift = phase
        self._momentum -= kick * gradient
        self.position += drift * self.inv_mass.velocity(self._momentum)

    def _measured(self, gradient: Array, phase: Any) -> tuple[Doubles, Doubles]:
        before = self.inv_mass.kinetic(self._momentum)
        self._step(gradient, phase)
        return before, self.inv_mass.kinetic(self._momentum)


def integrator(choice: Choice, backend: Any, position: Array, inv_mass: InverseMass) -> Integrator:
    """The one for these positions (C, D) and this inverse mass; its own positions are yet to be set."""
    if inv_mass.rank == 2:
        return MatrixIntegrator(position, inv_mass)
    return RuleIntegrator(choice, backend, position, inv_mass)
