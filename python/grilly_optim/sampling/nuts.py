"""The no-U-turn sampler."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from grilly_optim.optim._options import Range, Whole
from grilly_optim.sampling._batch import Array, Nuts
from grilly_optim.sampling._chain import HamiltonianChain
from grilly_optim.sampling._chain_state import Reader
from grilly_optim.sampling._reporting import Reporting

VARIANTS = "multinomial", "slice"

DELTA_MAX = Range(0, closed=True, above=True)
DEPTH_BITS = 5  # trees of 2^31 leaves are out of reach


class NUTS(HamiltonianChain):
    """Hamiltonian Monte Carlo whose trajectories end where they begin to turn back.

    A transition draws p ~ N(0, M) and grows a tree of leapfrog steps, which doubles forward or backward in time until
    it makes a U-turn, a step's energy is too high, or `max_tree_depth` is reached. The next position is one of the
    tree's states::

        multinomial:  drawn by their weights exp(-H), later doublings preferred. With rho the sum of the momenta of a
                      tree or a subtree, it has turned if rho . M^-1 p <= 0 at one of its two ends; so it has if one
                      half, together with the state of the other half next to it, has
        slice:        drawn evenly from those with log u <= -H, u ~ Uniform(0, exp(-H0)). A tree or a subtree has
                      turned if (q_right - q_left) . M^-1 p < 0 at one of its two ends

    Each step costs one evaluation of the potential. Energies are in double, and only their differences matter: a
    constant in the potential changes no draw. A state whose energy is NaN or infinite is never drawn.

    Args:
        initial_position: (D,), or (C, D) of several chains that are advanced side by side; float32 or float64, in which
            the sampler computes. It is copied.
        pot_energy_func: The potential energy U, -log of the density up to a constant: a callable q -> (U, gradient), or
            an object with ``value_and_grad(q)``. Where it has a true attribute ``vectorized`` it takes (c, D), a state
            for each tree that still grows, and gives (c,) and (c, D), also for a single chain; otherwise it is called
            for each. It sees read-only arrays, and what it wants to keep of them it has to copy.
        stepsize: Of the integrator, above 0; of several chains also one for each, (C,).
        delta_max: A step whose energy is higher than the first by more than this is a divergence, which ends the tree;
            so is one whose energy is not finite.
        inv_mass: M^-1: a number above 0, a vector (D,) of these (a diagonal matrix), or a symmetric positive definite
            matrix (D, D). The covariance of the positions is a good one.
        logger: Has ``debug(message)``, and gets the potential energy and the share of transitions that moved every
            `log_interval` states.
        log_interval: See there.
        writer: Has ``add_scalar(tag, value, global_step)``, and gets nuts/potential, nuts/accept (the share of
            transitions that moved, so far) and nuts/tree_depth in every state.
        writer_tag: Stands before these tags; "chain_<c>/" comes between, with several chains.
        max_tree_depth: The most doublings, 1 to 31: a transition has at most 2^max_tree_depth - 1 steps.
        variant: "multinomial" or "slice".
        seed: Of the random numbers, 0 to 2^64 - 1.
        device: See `grilly_optim.devices`. With a built-in potential the multinomial variant runs there as a whole;
            otherwise random numbers are made there, and trees are grown in NumPy.
        thin: As for `HMC`.

    Attributes:
        sample_stats: As of all chains. Here n_steps is the number of steps of the tree, acceptance_rate the mean of
            min(1, exp(H0 - H)) over them, diverging says whether one's energy was too high, or not finite. There are
            two more: tree_depth, the doublings that were begun, and reached_max_treedepth, whether the limit alone
            ended the tree.

    Raises:
        TypeError: A wrong type or precision; float64 on a device without it.
        ValueError: A value out of range; an energy or a gradient at `initial_position` that is not finite.
        ChainFailed: The potential raised, or gave what it should not.
        DeviceUnavailable: The device is unknown or cannot be used.

    Source: Hoffman & Gelman, "The no-U-turn sampler" (2014), algorithm 3; Betancourt, "A conceptual introduction to
    Hamiltonian Monte Carlo" (2017), appendix A. The check of a half with its neighbour is Stan's.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import NUTS
        >>> scales = np.array([1.0, 30.0])
        >>> def potential(q):
        ...     return 0.5 * ((q / scales) ** 2).sum(), q / scales**2
        >>> chain = NUTS(np.zeros(2), potential, stepsize=0.5, inv_mass=scales**2, device="numpy")
        >>> chain.simulate_chain(500)
        >>> draws = np.array(chain.position_trajectory)
        >>> bool((np.abs(draws.std(axis=0) / scales - 1) < 0.2).all())
        True
        >>> int(chain.sample_stats["diverging"].sum()), int(chain.sample_stats["tree_depth"].max())
        (0, 3)
    """

    NAME, TAG, TREE = "NUTS", "nuts", True
    _method: Nuts

    def __init__(
        self,
        initial_position: Any,
        pot_energy_func: Any,
        stepsize: Any = 0.02,
        delta_max: float = 1000.0,
        inv_mass: Any = 1.0,
        logger: Any = None,
        log_interval: int = 100,
        writer: Any = None,
        writer_tag: str = "",
        *,
        max_tree_depth: int = 10,
        variant: str = "multinomial",
        seed: int = 0,
        device: str | None = None,
        thin: int = 1,
    ) -> None:
        super().__init__(
            initial_position,
            pot_energy_func,
            _method(max_tree_depth, delta_max, variant),
            stepsize,
            inv_mass,
            Reporting(logger, log_interval, writer, writer_tag),
            seed,
            device,
            thin,
        )

    @property
    def delta_max(self) -> float:
        """The rise of energy that is a divergence."""
        return self._method.delta_max

    @property
    def max_tree_depth(self) -> int:
        """The most doublings."""
        return self._method.max_tree_depth

    @property
    def variant(self) -> str:
        """How a state is drawn from the tree."""
        return self._method.variant

    @property
    def num_steps(self) -> NoReturn:
        """NUTS has none.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError("NUTS has no num_steps: a tree takes as many as it needs, see sample_stats['n_steps']")

    @num_steps.setter
    def num_steps(self, value: Any) -> NoReturn:
        raise RuntimeError(
            "num_steps of NUTS cannot be set: a tree takes as many as it needs; max_tree_depth bounds them"
        )

    def simulate_chain(self, n: int, *, momentum: Any = None, uniform: Any = None) -> None:
        """Make `n` transitions.

        Whatever is raised on the way, Ctrl-C among it, the transitions that are over are kept.

        Args:
            n: How many.
            momentum: Momenta instead of drawn ones, distributed N(0, M): (n, D), or (n, C, D) of several chains.
            uniform: For one chain with variant="slice": numbers in [0, 1] instead of drawn ones, a flat array of which
                each transition takes as many as it needs: one for the slice; then in each doubling one for the
                direction (backward if < 0.5), those of the subtree, and one if the subtree goes on (its sample is taken
                if < min(1, n' / n)). In a subtree a pair of halves takes one when both are there, if the first one goes
                on and their counts are not both 0 (the second one's sample is taken if <= n2 / (n1 + n2)).

        Raises:
            TypeError: `n` is no whole number, or draws are no real ones.
            ValueError: Draws of another shape; `uniform` for several chains or another variant, or too few of them: it
                says how many the transitions that are over have used.
            ChainFailed: The potential raised, or gave what it should not; it names the chain and the transition.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import NUTS
            >>> chain = NUTS(np.zeros(1), lambda q: (q @ q / 2, q), stepsize=1.5, variant="slice", device="numpy")
            >>> chain.simulate_chain(1, momentum=np.ones((1, 1)), uniform=[0.5, 0.7, 0.1])
            >>> chain.current_position, chain.sample_stats["n_steps"]
            (array([1.5]), array([1]))
        """
        count = Whole(0).take("n", n)
        given = self._given(count, momentum, None)
        if uniform is not None:
            given = given._replace(uniform=self._uniforms(uniform))
        self._simulate(count, given)

    def _uniforms(self, value: Any) -> Array:
        if self.variant != "slice":
            raise ValueError(f"uniform needs variant='slice', and this is {self.variant!r}: its numbers have no order")
        if len(self._shape) > 1:
            raise ValueError(f"uniform needs a single chain, and there are {self._shape[0]}")
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"uniform must hold real numbers, got dtype {array.dtype}")
        if array.ndim != 1:
            raise ValueError(f"uniform must be flat, got shape {array.shape}")
        if not ((array >= 0) & (array <= 1)).all():
            raise ValueError(f"uniform must be in [0, 1], got {array.min():g} to {array.max():g}")
        return array

    def _scalars(self, stats: dict[str, Any], rate: float) -> dict[str, float]:
        return {**super()._scalars(stats, rate), "tree_depth": float(stats["tree_depth"])}

    def _own_state(self) -> dict[str, Any]:
        return {"max_tree_depth": self.max_tree_depth, "delta_max": self.delta_max, "variant": self.variant}

    def _checked_method(self, state: Reader) -> Nuts:
        return _method(*(state.get(name) for name in ("max_tree_depth", "delta_max", "variant")))


def _method(max_tree_depth: Any, delta_max: Any, variant: Any) -> Nuts:
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(map(repr, VARIANTS))}, got {variant!r}")
    return Nuts(
        Whole(1, DEPTH_BITS).take("max_tree_depth", max_tree_depth), DELTA_MAX.take("delta_max", delta_max), variant
    )
