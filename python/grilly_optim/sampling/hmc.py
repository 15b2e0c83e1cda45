"""Hamiltonian Monte Carlo."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from grilly_optim.optim._options import Whole
from grilly_optim.sampling import _chain_state
from grilly_optim.sampling._batch import Array, Hmc, Method
from grilly_optim.sampling._chain import HamiltonianChain
from grilly_optim.sampling._reporting import Reporting

# Steps are counted in floats on devices.
STEPS = Whole(1, 24)


class HMC(HamiltonianChain):
    """Hamiltonian Monte Carlo: draws from exp(-U(q)), one trajectory of the leapfrog integrator per draw.

    A transition from q draws p ~ N(0, M), goes `num_steps` steps of the leapfrog integrator to (q', p'), and moves
    there with probability min(1, exp(H(q, p) - H(q', p'))), with H = U(q) + p'M^-1 p / 2 in double. Otherwise the chain
    stays, and so it does where H(q', p') is NaN or infinite. The gradient where the chain is, is kept: a transition
    evaluates the potential `num_steps` times.

    Random numbers are a function of seed, chain and transition: those of chain c in a batch are those of any batch.

    Args:
        initial_position: (D,), or (C, D) of several chains that are advanced side by side; float32 or float64, in which
            the sampler computes. It is copied.
        pot_energy_func: The potential energy U, -log of the density up to a constant: a callable q -> (U, gradient), or
            an object with ``value_and_grad(q)``. Where it has a true attribute ``vectorized`` it takes (c, D) and gives
            (c,) and (c, D), also for a single chain; otherwise it is called for each chain. How many chains are in a
            call may vary: large batches come in blocks that fit into the processor's cache, so a row of what it gives
            must not depend on the others. It sees a read-only view of the sampler's own array: what it wants to keep
            of that it has to copy.
        stepsize: Of the integrator, above 0; of several chains also one for each, (C,).
        num_steps: Of the integrator in a transition, 1 or more.
        inv_mass: M^-1: a number above 0, a vector (D,) of these (a diagonal matrix), or a symmetric positive definite
            matrix (D, D). With a function, numbers and vectors work on the device, a matrix in NumPy; with a built-in
            potential all of them on the device.
        logger: Has ``debug(message)``, and gets the energy and the acceptance every `log_interval` states.
        log_interval: See there.
        writer: Has ``add_scalar(tag, value, global_step)``, and gets hmc/kinetic, hmc/potential, hmc/hamiltonian and
            hmc/accept (the acceptance so far) in every state.
        writer_tag: Stands before these tags; "chain_<c>/" comes between, with several chains.
        seed: Of the random numbers, 0 to 2^64 - 1.
        device: See `grilly_optim.devices`.
        thin: Transitions `thin`, 2 `thin`, ... are kept, 1 or more. Reports and counts are of all of them, and what is
            kept is ``diverging`` if one has diverged since the last that was kept.

    Raises:
        TypeError: A wrong type or precision; float64 on a device without it.
        ValueError: A value out of range; an energy or a gradient at `initial_position` that is not finite.
        ChainFailed: The potential raised, or gave what it should not.
        DeviceUnavailable: The device is unknown or cannot be used.

    Source: Duane, Kennedy, Pendleton & Roweth, "Hybrid Monte Carlo" (1987); Neal, "MCMC using Hamiltonian dynamics"
    (2011).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import HMC
        >>> def normal(q):
        ...     return 0.5 * q @ q, q
        >>> chain = HMC(np.zeros(3), normal, stepsize=0.5, num_steps=4, device="numpy")
        >>> chain.simulate_chain(200)
        >>> len(chain.position_trajectory), chain.acceptance_probability > 0.9
        (201, True)
        >>> sorted(chain.sample_stats)[:3]
        ['acceptance_rate', 'accepted', 'diverging']
    """

    NAME, TAG = "HMC", "hmc"
    _method: Hmc

    def __init__(
        self,
        initial_position: Array,
        pot_energy_func: Any,
        stepsize: Any = 0.02,
        num_steps: int = 1,
        inv_mass: Any = 1.0,
        logger: Any = None,
        log_interval: int = 100,
        writer: Any = None,
        writer_tag: str = "",
        *,
        seed: int = 0,
        device: str | None = None,
        thin: int = 1,
    ) -> None:
        reporting = Reporting(logger, log_interval, writer, writer_tag)
        method = Hmc(STEPS.take("num_steps", num_steps))
        super().__init__(initial_position, pot_energy_func, method, stepsize, inv_mass, reporting, seed, device, thin)

    @property
    def num_steps(self) -> int:
        """Of the integrator in a transition. It can be set between transitions."""
        return self._method.num_steps

    @num_steps.setter
    def num_steps(self, value: int) -> None:
        self._set_method(replace(self._method, num_steps=STEPS.take("num_steps", value)))

    def simulate_chain(self, n: int, *, momentum: Any = None, uniform: Any = None) -> None:
        """Make `n` transitions.

        Whatever is raised on the way, Ctrl-C among it, the transitions that are over are kept.

        Args:
            n: How many.
            momentum: Momenta instead of drawn ones, distributed N(0, M): (n, D), or (n, C, D) of several chains.
            uniform: Numbers in [0, 1] that decide about moves, instead of drawn ones: (n,), or (n, C).

        Raises:
            TypeError: `n` is no whole number, or draws are no real ones.
            ValueError: Draws of another shape.
            ChainFailed: The potential raised, or gave what it should not; it names the chain and the transition.
        """
        self._simulate(n, self._given(Whole(0).take("n", n), momentum, uniform))

    def _scalars(self, stats: dict[str, Any], rate: float) -> dict[str, float]:
        potential, energy = -float(stats["lp"]), float(stats["energy"])
        return {"kinetic": energy - potential, "potential": potential, "hamiltonian": energy, "accept": rate}

    def _logged(self, stats: dict[str, Array]) -> tuple[str, Array]:
        return "Hamiltonian", np.asarray(stats["energy"])

    def _own_state(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps}

    def _checked_method(self, state: _chain_state.Reader) -> Method:
        return replace(self._method, num_steps=state.whole("num_steps", STEPS.low, STEPS.bits))
