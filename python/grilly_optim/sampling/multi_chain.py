"""Many chains of one kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from grilly_optim._devices import open_device
from grilly_optim.optim._options import Whole
from grilly_optim.optim._turns import Turns, in_turn
from grilly_optim.sampling import _chain_state, _together
from grilly_optim.sampling._batch import Array, Given, Runner
from grilly_optim.sampling._failures import ChainFailed
from grilly_optim.sampling._initial import failed_at_start
from grilly_optim.sampling._record import write_whole

_CLASSES = {"hmc": "HMC", "nuts": "NUTS"}


class MultiChainHMC:
    """Chains of `HMC` or `NUTS`, each with an initial position and random numbers of its own.

    Chain i draws from random stream i, so what it draws does not depend on how many chains there are, on which of them
    are advanced, or on `num_parallel`. Chains with one vectorized potential and equal settings are advanced as one
    batch, as long as these are equal (step sizes may differ); others run one after another.

    Args:
        initial_positions: One (D,) for each chain: a sequence of arrays, or an array (C, D).
        pot_energy_func: The potential of all chains, or a list with one for each; see `HMC`.
        chain_type: "hmc" or "nuts".
        **kwargs: Further arguments of `HMC` or `NUTS`, for every chain. A `logger` is chain 0's; a list of them has one
            for each chain, or None. A `writer` is everybody's: "chain_<i>/" stands behind `writer_tag`.

    Raises:
        TypeError: As for `HMC`; a list of another type.
        ValueError: As for `HMC`, with the chain; no chains; a list of another length; an unknown `chain_type`.
        ChainFailed: The potential failed at the initial position of the chain that it names.

    Source: the class of this name in hypnettorch, whose arguments these are.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import MultiChainHMC
        >>> def normal(q):
        ...     return 0.5 * (q * q).sum(axis=1), q
        >>> normal.vectorized = True
        >>> chains = MultiChainHMC(np.zeros((4, 2)), normal, stepsize=0.5, num_steps=3, device="numpy")
        >>> chains.simulate_chains(10)
        >>> chains.simulate_chains(5, num_chains=[2])
        >>> [chain.num_states for chain in chains.chains]
        [10, 10, 15, 10]
    """

    def __init__(
        self, initial_positions: Sequence[Array] | Array, pot_energy_func: Any, chain_type: str = "hmc", **kwargs: Any
    ) -> None:
        if chain_type not in _CLASSES:
            raise ValueError(f"chain_type must be 'hmc' or 'nuts', got {chain_type!r}")
        if not isinstance(initial_positions, list | tuple | np.ndarray):
            raise TypeError(
                f"initial_positions must be a sequence of arrays, one per chain, got {type(initial_positions).__name__}"
            )
        count = len(initial_positions) if getattr(initial_positions, "ndim", 1) else 0
        if count == 0:
            raise ValueError("initial_positions is empty: there must be one chain or more")
        potentials = _one_each("pot_energy_func", pot_energy_func, count, [pot_energy_func] * count)
        logger = kwargs.pop("logger", None)
        loggers = _one_each("logger", logger, count, [logger] + [None] * (count - 1))
        tag = kwargs.pop("writer_tag", "")
        if not isinstance(tag, str):
            raise TypeError(f"writer_tag must be a string, got {tag!r}")
        elements = sum(np.size(q) for q in initial_positions)
        kwargs["device"] = open_device(kwargs.get("device"), elements)[0].info.device
        # By name: each sampler stands in a module of its own, and this one needs them when it is called.
        made = getattr(importlib.import_module("grilly_optim.sampling"), _CLASSES[chain_type])
        self._chains: list[Any] = []
        self._turns = Turns()
        for i, (position, potential, own) in enumerate(zip(initial_positions, potentials, loggers, strict=True)):
            if np.ndim(position) != 1:
                raise ValueError(f"initial_positions[{i}] must have shape (D,), got {np.shape(position)}")
            try:
                chain = made(position, potential, logger=own, writer_tag=f"{tag}chain_{i}/", **kwargs)
            except ChainFailed as failed:
                cause = failed.__cause__
                assert cause is not None
                raise failed_at_start(i, cause) from cause
            except ValueError as error:
                raise ValueError(f"chain {i}: {error}") from error
            chain._batch.streams[:] = i
            chain._turns = self._turns  # a chain cannot be advanced while all of them are
            self._chains.append(chain)
        self._runners: dict[Any, Runner] = {}

    @property
    def chains(self) -> list[Any]:
        """The chains, `HMC` or `NUTS` objects."""
        return list(self._chains)

    @property
    def num_chains(self) -> int:
        """How many there are."""
        return len(self._chains)

    @property
    def avg_acceptance_probability(self) -> float:
        """The mean of the chains' acceptance probabilities."""
        return float(np.mean([chain.acceptance_probability for chain in self._chains]))

    @in_turn
    def simulate_chains(
        self, num_states: int, num_chains: int | Sequence[int] = -1, num_parallel: int | None = None
    ) -> None:
        """Make `num_states` transitions of some chains.

        Whatever is raised on the way, Ctrl-C among it, the transitions that are over are kept.

        Args:
            num_states: How many.
            num_chains: -1: all chains; k: those k with the fewest states, the first of several with as many, and all of
                them where there are fewer; or a list of indices, which may be empty.
            num_parallel: The most chains that are advanced as one batch: it bounds memory, and no draw depends on it.
                None: all.

        Raises:
            TypeError: Something that is no whole number.
            ValueError: A number out of its range, or an index twice.
            ChainFailed: A potential raised, or gave what it should not; it names the chain and the transition.
        """
        wanted = Whole(0).take("num_states", num_states)
        chosen = self._chosen(num_chains)
        most = len(chosen) if num_parallel is None else Whole(1).take("num_parallel", num_parallel)
        groups: dict[Any, list[Any]] = {}
        for i in chosen:
            chain = self._chains[i]
            together = bool(getattr(chain._potential, "vectorized", False))
            groups.setdefault(_together.alike(chain) if together else i, []).append(chain)
        for alike, chains in groups.items():
            if isinstance(alike, int):
                chains[0]._advance(wanted, Given())
                continue
            for first in range(0, len(chains), most):
                batch = chains[first : first + most]
                _together.advance(batch, self._runner(alike, batch[0]), wanted)

    def _runner(self, alike: Any, chain: Any) -> Runner:
        """The runner of such chains: runners keep what they have made for the last batch."""
        if alike not in self._runners:
            # Settings may have changed since the others were made.
            self._runners = {key: runner for key, runner in self._runners.items() if key in self._alike()}
            self._runners[alike] = chain._runner_of(chain._method)
        return self._runners[alike]

    def _alike(self) -> set[Any]:
        return {_together.alike(chain) for chain in self._chains}

    def _chosen(self, num_chains: Any) -> list[int]:
        if not isinstance(num_chains, list | tuple | np.ndarray):
            if isinstance(num_chains, int | np.integer) and num_chains == -1:
                return list(range(self.num_chains))
            k = Whole(1).take("num_chains", num_chains)
            return sorted(range(self.num_chains), key=lambda i: self._chains[i].num_states)[:k]
        chosen = [Whole(0).take("num_chains", i) for i in num_chains]
        if any(i >= self.num_chains for i in chosen):
            raise ValueError(f"num_chains must have indices below {self.num_chains}, got {max(chosen)}")
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"num_chains must have every index once, got {chosen}")
        return chosen

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """A snapshot that `load_state_dict` continues from bit for bit: one of every chain."""
        return {"chains": [_chain_state.snapshot(chain) for chain in self._chains]}

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot; all of it is checked before anything is written.

        Raises:
            TypeError: Not a state dict of this class.
            ValueError: Another number of chains, or as for `HMC.load_state_dict`.
            ChainFailed: As for `HMC.load_state_dict`.
        """
        if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("chains"), list | tuple):
            raise TypeError("state_dict must be a dict with the list 'chains'")
        saved = state_dict["chains"]
        if len(saved) != self.num_chains:
            raise ValueError(f"state_dict has {len(saved)} chains, expected {self.num_chains}")
        checked = [_chain_state.checked(chain, mine) for chain, mine in zip(self._chains, saved, strict=True)]

        def take() -> None:
            for each in checked:
                each.take()

        write_whole(take)


def _one_each(name: str, value: Any, count: int, default: list[Any]) -> list[Any]:
    """A list with one for each chain."""
    if not isinstance(value, list | tuple):
        return default
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} chains")
    return list(value)
