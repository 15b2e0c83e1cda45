"""State dicts of chains: taking a snapshot, and checking one before it is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels import philox
from grilly_optim.optim._options import Whole
from grilly_optim.sampling import _initial
from grilly_optim.sampling._batch import Batch, Method, Runner
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import STATS, TREE_STATS, History, Record

if TYPE_CHECKING:
    from grilly_optim.sampling._chain import Chain

Array = NDArray[Any]


class Reader:
    """A state dict whose entries are looked at one by one."""

    def __init__(self, state_dict: Any, sampler: str) -> None:
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a dict, got {type(state_dict).__name__}")
        self._state = state_dict
        found = self.get("sampler")
        if found != sampler:
            raise ValueError(f"state_dict is of the sampler {found!r}, expected {sampler!r}")

    def get(self, name: str) -> Any:
        """What is there."""
        if name not in self._state:
            raise ValueError(f"state_dict has no {name!r}")
        return self._state[name]

    def whole(self, name: str, low: int = 0, bits: int | None = None) -> int:
        """A whole number."""
        return Whole(low, bits).take(f"{name!r} of state_dict", self.get(name))

    def array(self, name: str, shape: tuple[int, ...], dtype: Any, value: Any = None) -> Array:
        """A copy of an array of real numbers."""
        array = np.asarray(self.get(name) if value is None else value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name!r} of state_dict must hold real numbers, got {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"{name!r} has shape {array.shape} in state_dict, expected {shape}")
        return np.array(array, dtype, order="C")

    def finite(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """The same, of finite numbers."""
        array = self.array(name, shape, dtype)
        if not np.isfinite(array).all():
            raise ValueError(f"{name!r} of state_dict must be finite")
        return array

    def optional(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array | None:
        """The same, or None."""
        return None if self.get(name) is None else self.finite(name, shape, dtype)


def snapshot(chain: Chain) -> dict[str, Any]:
    """Everything that an exact resume needs, copied."""
    batch, (initial, record) = chain._batch, chain._history

    def own(array: Array | None) -> Array | None:
        return None if array is None else array.copy()

    return {
        "sampler": type(chain).__name__,
        "seed": batch.seed,
        "num_states": chain.num_states,
        "streams": batch.streams.copy(),
        "position": batch.position.copy(),
        "potential_is": _initial.identity(chain._potential),
        "potential": own(batch.potential),
        "gradient": own(batch.gradient),
        "stepsize": batch.stepsize.copy(),
        "same_stepsize": chain._same_stepsize,
        "inv_mass": batch.inv_mass.array.copy(),
        "accepted": record.moved.copy(),
        "thin": record.thin,
        "diverged": record.diverged.copy(),
        "initial_position": own(initial),
        "trajectory": record.positions.copy(),
        "sample_stats": {name: array.copy() for name, array in record.stats.items()},
        **chain._own_state(),
    }


@dataclass(frozen=True)
class Checked:
    """What a snapshot comes to, in arrays of its own."""

    chain: Chain
    batch: Batch
    history: History
    method: Method
    runner: Runner
    same_stepsize: bool

    def take(self) -> None:
        """Let the chain go on from here."""
        chain = self.chain
        chain._same_stepsize = self.same_stepsize
        chain._method, chain._runner, chain._batch, chain._history = (
            self.method,
            self.runner,
            self.batch,
            self.history,
        )


def checked(chain: Chain, state_dict: Any) -> Checked:
    """A snapshot for this chain.

    Raises:
        TypeError: Not a state dict of such a chain.
        ValueError: Something is missing, has another shape, or is out of range.
    """
    state = Reader(state_dict, type(chain).__name__)
    dtype, (chains, dim) = chain._batch.position.dtype, chain._batch.position.shape
    done = state.whole("num_states", bits=philox.STEP_BITS)
    stepsize = state.array("stepsize", (chains,), np.float64)
    for size in stepsize.tolist():
        chain._stepsize_of("'stepsize' of state_dict", size)
    same_stepsize = bool(state.get("same_stepsize")) and bool((stepsize == stepsize[0]).all())
    if (found := np.asarray(state.get("position")).dtype) == np.float64 != dtype:
        raise ValueError(f"'position' of state_dict is {found}, and this sampler computes in {dtype}")
    batch = Batch(
        state.finite("position", (chains, dim), dtype),
        stepsize,
        InverseMass(state.get("inv_mass"), dim, dtype),
        state.array("streams", (chains,), np.uint32),
        np.full(chains, done, np.int64),
        state.whole("seed", bits=philox.SEED_BITS),
        state.finite("potential", (chains,), np.float64),
        state.finite("gradient", (chains, dim), dtype) if chain.GRADIENT else None,
    )
    if state.get("potential_is") != _initial.identity(chain._potential):
        raise ValueError("state_dict is of another potential")
    assert batch.potential is not None
    _initial.check_same(
        chain._potential,
        batch.position,
        batch.potential,
        batch.streams.tolist(),
        name="pot_energy_func",
        what="state_dict",
    )
    accepted = state.array("accepted", (chains,), np.int64)
    if ((accepted < 0) | (accepted > done)).any():
        raise ValueError(f"'accepted' of state_dict must be from 0 to the {done} transitions, got {accepted}")
    thin = state.whole("thin", 1)
    initial = state.optional("initial_position", (chains, dim), dtype)
    found = np.shape(state.get("trajectory"))
    count = found[0] if found else 0
    if count * thin > done:
        raise ValueError(f"'trajectory' of state_dict has {count} positions, and there were {done} transitions")
    trajectory = state.array("trajectory", (count, chains, dim), dtype)
    saved = state.get("sample_stats")
    kinds = STATS | TREE_STATS if chain.TREE else STATS
    if not isinstance(saved, Mapping) or set(saved) != set(kinds):
        raise ValueError(f"'sample_stats' of state_dict must have {', '.join(kinds)}")
    stats = {name: state.array(name, (count, chains), kind, saved[name]) for name, kind in kinds.items()}
    method = chain._checked_method(state)

    diverged = state.array("diverged", (chains,), np.bool_)
    record = Record(chains, dim, dtype, tree=chain.TREE, thin=thin, seen=done - count * thin, moved=accepted)
    record.extend(count * thin, trajectory, stats, np.zeros(chains, np.int64), diverged)
    runner = chain._runner if method == chain._method else chain._runner_of(method)
    return Checked(chain, batch, History(initial, record), method, runner, same_stepsize)
