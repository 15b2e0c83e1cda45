"""Random-walk Metropolis."""

from __future__ import annotations

from typing import Any

from grilly_optim.optim._options import Whole
from grilly_optim.sampling._batch import Array, Rwm
from grilly_optim.sampling._chain import Chain
from grilly_optim.sampling._reporting import Reporting


class MCMC(Chain):
    """Random-walk Metropolis: draws from exp(-U(q)) without a gradient.

    A transition proposes q' = q + proposal_std z with z ~ N(0, I), and moves there with probability
    min(1, exp(U(q) - U(q'))). Where U(q') is NaN or infinite the chain stays.

    Args:
        initial_position: As for `HMC`.
        pot_energy_func: As for `HMC`; it may also return U alone. A gradient is not looked at.
        proposal_std: The standard deviation of proposals, above 0; of several chains also one for each, (C,).
        logger: As for `HMC`.
        log_interval: As for `HMC`.
        writer: As for `HMC`; it gets mh/potential and mh/accept.
        writer_tag: As for `HMC`.
        seed: Of the random numbers.
        device: See `grilly_optim.devices`.
        thin: As for `HMC`.

    Raises:
        TypeError: As for `HMC`.
        ValueError: As for `HMC`.
        ChainFailed: As for `HMC`.
        DeviceUnavailable: As for `HMC`.

    Source: Metropolis, Rosenbluth, Rosenbluth, Teller & Teller, "Equation of state calculations by fast computing
    machines" (1953).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import MCMC
        >>> chain = MCMC(np.zeros(2), lambda q: 0.5 * q @ q, device="numpy")
        >>> chain.simulate_chain(100)
        >>> chain.num_states, chain.current_position.shape
        (100, (2,))
    """

    NAME, TAG, GRADIENT, STEPSIZE = "MH", "mh", False, "proposal_std"

    def __init__(
        self,
        initial_position: Array,
        pot_energy_func: Any,
        proposal_std: Any = 1.0,
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
        super().__init__(initial_position, pot_energy_func, Rwm(), proposal_std, 1.0, reporting, seed, device, thin)

    @property
    def proposal_std(self) -> Any:
        """The standard deviation of proposals. It can be set between transitions."""
        return self._get_stepsize()

    @proposal_std.setter
    def proposal_std(self, value: Any) -> None:
        self._set_stepsize(value)

    def simulate_chain(self, n: int, *, normal: Any = None, uniform: Any = None) -> None:
        """Make `n` transitions; see `HMC.simulate_chain`.

        Args:
            n: How many.
            normal: Standard normal numbers instead of drawn ones: (n, D), or (n, C, D) of several chains.
            uniform: Numbers in [0, 1] that decide about moves, instead of drawn ones: (n,), or (n, C).

        Raises:
            TypeError: As for `HMC`.
            ValueError: As for `HMC`.
            ChainFailed: As for `HMC`.
        """
        self._simulate(n, self._given(Whole(0).take("n", n), normal, uniform, "normal"))
