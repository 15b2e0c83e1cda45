"""What HMC, NUTS and MCMC share: where the chains are, what they leave behind, errors, reports, state."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from grilly_optim._devices import open_device
from grilly_optim.kernels import philox
from grilly_optim.optim._options import Whole
from grilly_optim.optim._turns import Turns, in_turn
from grilly_optim.sampling import _chain_state, _initial, _together
from grilly_optim.sampling._batch import Array, Batch, Doubles, Given, Method, Runner
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._options import POSITIVE
from grilly_optim.sampling._record import History, Record
from grilly_optim.sampling._reporting import Reporting
from grilly_optim.sampling._runners import runner_for
from grilly_optim.sampling.potentials import BuiltIn


class Chain(ABC):
    """Base of the samplers with a potential: one chain (D,), or several (C, D) side by side.

    Args:
        initial_position: (D,) or (C, D), float32 or float64, in which the sampler computes. A copy is taken.
        pot_energy_func: The potential energy, see `Evaluator`.
        method: How the chains move.
        stepsize: A number, or one for each chain.
        inv_mass: See `InverseMass`.
        reporting: Who is told.
        seed: Of the random numbers.
        device: See `grilly_optim.devices`.
        thin: Every how many-th transition is kept.
    """

    NAME: ClassVar[str]  # in messages
    TAG: ClassVar[str]  # of writers
    GRADIENT: ClassVar[bool] = True  # whether it needs one
    TREE: ClassVar[bool] = False  # whether its transitions are trees
    STEPSIZE: ClassVar[str] = "stepsize"  # what the argument is called

    def __init__(
        self,
        initial_position: Any,
        pot_energy_func: Any,
        method: Method,
        stepsize: Any,
        inv_mass: Any,
        reporting: Reporting,
        seed: Any,
        device: str | None,
        thin: Any,
    ) -> None:
        position = _own_position(initial_position)
        self._shape = position.shape
        self._dtype = position.dtype
        position = position.reshape(-1, self._shape[-1])
        chains, dim = position.shape
        if isinstance(pot_energy_func, BuiltIn) and pot_energy_func.dim != dim:
            raise ValueError(
                f"initial_position must have {pot_energy_func.dim} elements for each chain, "
                f"as many as {type(pot_energy_func).__name__} has dimensions, got shape {self._shape}"
            )
        # What "auto" means is decided once.
        self.device = open_device(device, position.size)[0].info.device
        self._potential, self._method, self._reporting = pot_energy_func, method, reporting
        self._batch = Batch(
            position,
            self._stepsizes(stepsize),
            InverseMass(inv_mass, dim, position.dtype),
            np.arange(chains, dtype=np.uint32),
            np.zeros(chains, np.int64),
            Whole(0, philox.SEED_BITS).take("seed", seed),
        )
        self._same_stepsize = np.ndim(stepsize) == 0
        self._runner = self._runner_of(method)
        self._evaluate_start()
        record = Record(chains, dim, position.dtype, tree=self.TREE, thin=Whole(1).take("thin", thin))
        self._history = History(position.copy(), record)
        self._turns = Turns()

    def _evaluate_start(self) -> None:
        batch = self._batch
        values, gradients = _initial.evaluate(
            self._potential, batch.position, gradient=self.GRADIENT, name="pot_energy_func"
        )
        _initial.check_finite(values, gradients, single=len(self._shape) == 1)
        batch.potential, batch.gradient = values, gradients if self.GRADIENT else None

    # What it was built with.

    @property
    def seed(self) -> int:
        """Of the random numbers."""
        return self._batch.seed

    @property
    def thin(self) -> int:
        """Every how many-th transition is kept."""
        return self._history.record.thin

    @property
    def logger(self) -> Any:
        """Who logs states, or None."""
        return self._reporting.logger

    @property
    def log_interval(self) -> int:
        """From one logged state to the next."""
        return self._reporting.log_interval

    @property
    def writer(self) -> Any:
        """Who writes scalars, or None."""
        return self._reporting.writer

    @property
    def writer_tag(self) -> str:
        """What stands before all tags."""
        return self._reporting.writer_tag

    def _stepsizes(self, value: Any) -> Doubles:
        """One for each chain."""
        chains = 1 if len(self._shape) == 1 else self._shape[0]
        if len(self._shape) == 1 or np.ndim(value) == 0:
            return np.full(chains, self._stepsize_of(self.STEPSIZE, value))
        if np.shape(value) != (chains,):
            raise ValueError(
                f"{self.STEPSIZE} must be a number, or {chains} numbers, one per chain, got shape {np.shape(value)}"
            )
        each = [self._stepsize_of(f"{self.STEPSIZE}[{k}]", x) for k, x in enumerate(np.asarray(value).tolist())]
        return np.array(each)

    def _stepsize_of(self, name: str, value: Any) -> float:
        size = float(POSITIVE.take(name, value))
        with np.errstate(over="ignore"):
            held = self._dtype.type(size)
        if not (held > 0 and np.isfinite(held)):
            raise ValueError(f"{name} is beyond what {self._dtype} can hold, got {value!r}")
        return size

    def _get_stepsize(self) -> Any:
        sizes = self._batch.stepsize
        return float(sizes[0]) if self._same_stepsize else sizes.copy()

    @in_turn
    def _set_stepsize(self, value: Any) -> None:
        self._batch.stepsize = self._stepsizes(value)
        self._same_stepsize = np.ndim(value) == 0

    def _runner_of(self, method: Method) -> Runner:
        position = self._batch.position
        return runner_for(self._potential, method, position.shape[1], position.dtype, self.device)

    @in_turn
    def _set_method(self, method: Method) -> None:
        self._runner, self._method = self._runner_of(method), method

    # Transitions.

    @in_turn
    def _simulate(self, n: Any, given: Given) -> None:
        """Make `n` transitions. Whatever is raised on the way, those that are over stay."""
        self._advance(Whole(0).take("n", n), given)

    def _advance(self, wanted: int, given: Given) -> None:
        """The same when it is the chain's turn already."""
        if self._reporting.wanted:
            _together.advance([self], self._runner, wanted, given)
        else:
            self._runner.run(self._batch, wanted, self._history.record, given=given)

    def _keep(self, before: int, positions: Array, stats: Mapping[str, Array]) -> None:
        """Put transitions behind so many others: (n, C, D), and name -> (n, C). Doing it twice is doing it once."""
        record = self._history.record
        if record.seen == before:
            record.take(positions, stats)

    def _given(self, n: int, normal: Any, uniform: Any, name: str = "momentum") -> Given:
        """Draws that were given, in the shapes of batches."""
        single = len(self._shape) == 1
        chains, dim = self._batch.position.shape
        normals = uniforms = None
        if normal is not None:
            normals = _real(name, normal, (n, *self._shape)).reshape(n, chains, dim)
        if uniform is not None:
            uniforms = _real("uniform", uniform, (n,) if single else (n, chains)).reshape(n, chains)
            if ((uniforms < 0) | (uniforms > 1)).any():
                raise ValueError(f"uniform must be in [0, 1], got {uniforms.min():g} to {uniforms.max():g}")
        return Given(normals, uniforms)

    def _report(self, before: int, stats: Mapping[str, Array]) -> None:
        """Report transitions, name -> (n, C), behind so many others, after they were written down."""
        reporting, accepted = self._reporting, stats["accepted"]
        if not reporting.wanted:
            return
        states = np.arange(before + 1, before + 1 + len(accepted))
        moved = self._history.record.moved - accepted.sum(axis=0) + accepted.cumsum(axis=0)
        rates = moved / states[:, None]
        for row, state in enumerate(states.tolist()):
            now = {name: array[row] for name, array in stats.items()}
            for c, rate in enumerate(rates[row] if reporting.writer is not None else ()):
                scalars = self._scalars({name: values[c] for name, values in now.items()}, float(rate))
                chain = "" if len(self._shape) == 1 else f"chain_{c}/"
                reporting.write(f"{chain}{self.TAG}/", scalars, state)
            if reporting.logs(state):
                what, values = self._logged(now)
                reporting.log(self.NAME, state, what, float(np.mean(values)), float(rates[row].mean()))

    def _scalars(self, stats: dict[str, Any], rate: float) -> dict[str, float]:
        """What a writer gets of one chain's state."""
        return {"potential": -float(stats["lp"]), "accept": rate}

    def _logged(self, stats: dict[str, Array]) -> tuple[str, Array]:
        """What a logger gets, and its name."""
        return "potential energy", -stats["lp"]

    # What they left.

    @property
    def position_trajectory(self) -> list[Array]:
        """Copies of all kept positions; a list made when it is asked for, the initial one first until it is cleared."""
        initial, record = self._history
        positions = record.positions.copy().reshape(-1, *self._shape)
        return [*([] if initial is None else [initial.copy().reshape(self._shape)]), *positions]

    @property
    def current_position(self) -> Array:
        """A copy of where the chain is; several: (C, D)."""
        return self._batch.position.copy().reshape(self._shape)

    @property
    def num_states(self) -> int:
        """How many transitions were made, cleared ones too; the initial position is none."""
        return int(self._batch.done[0])

    @property
    def acceptance_probability(self) -> Any:
        """The share of transitions that moved, 1.0 before the first; several chains: (C,)."""
        rates = self._history.record.moved / self.num_states if self.num_states else np.ones(len(self._batch.done))
        return float(rates[0]) if len(self._shape) == 1 else rates

    @property
    def sample_stats(self) -> dict[str, Array]:
        """Name -> (n,), or (n, C) of several chains: an entry for each transition in `position_trajectory`.

        lp is -U where the chain is then, energy U + K there, acceptance_rate Metropolis' min(1, exp(-dH)), accepted
        whether it moved; step_size, n_steps, diverging.
        """
        single = len(self._shape) == 1
        return {name: (a[:, 0] if single else a).copy() for name, a in self._history.record.stats.items()}

    @in_turn
    def clear_position_trajectory(self, n: int | None = None) -> None:
        """Forget positions and their statistics: all, or the first `n` of the list; with n < 0 all but the last -n.

        Counts, the current position and the acceptance stay.

        Raises:
            TypeError: `n` is no whole number.
        """
        initial, record = self._history
        length = record.count + (initial is not None)
        first = length if n is None else slice(_whole("n", n), None).indices(length)[0]
        if first == 0:
            return
        rest = copy.copy(record)
        rest.drop(first - (initial is not None))
        self._history = History(None, rest)

    # State.

    def _own_state(self) -> dict[str, Any]:
        """Options of the method that a state has."""
        return {}

    def _checked_method(self, state: _chain_state.Reader) -> Method:
        """The method that these options say."""
        return self._method

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """A snapshot that `load_state_dict` continues from bit for bit: plain arrays, numbers and strings."""
        return _chain_state.snapshot(self)

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot; all of it is checked before anything is written.

        Settings come with it, `thin` among them. Whether a function is the potential that the state is of is looked at
        where the chains were, in float64; potentials of the engine are compared.

        Raises:
            TypeError: Not a state dict of this class.
            ValueError: Something is missing, has another shape, or is out of range; or it is of another potential.
            ChainFailed: The potential raised, or gave what it should not.
        """
        _chain_state.checked(self, state_dict).take()


class HamiltonianChain(Chain):
    """Base of the samplers that have momenta."""

    @property
    def stepsize(self) -> Any:
        """Of the integrator: a number, or one for each chain, (C,). It can be set between transitions."""
        return self._get_stepsize()

    @stepsize.setter
    def stepsize(self, value: Any) -> None:
        self._set_stepsize(value)

    @property
    def inv_mass(self) -> Any:
        """The inverse mass: a number, a vector or a matrix, in double. It can be set between transitions."""
        array = self._batch.inv_mass.array
        return float(array) if array.ndim == 0 else array.copy()

    @inv_mass.setter
    def inv_mass(self, value: Any) -> None:
        self._set_inv_mass(value)

    @in_turn
    def _set_inv_mass(self, value: Any) -> None:
        position = self._batch.position
        self._batch.inv_mass = InverseMass(value, position.shape[1], position.dtype)


def _own_position(value: Any) -> Array:
    try:
        position = np.array(value, order="C")
    except ValueError as error:
        raise ValueError(f"initial_position is no array: {error}") from None
    if position.dtype not in (np.float32, np.float64):
        raise TypeError(f"initial_position must be float32 or float64, got dtype {position.dtype}")
    if position.ndim not in (1, 2) or position.size == 0:
        raise ValueError(
            f"initial_position must have shape (D,), or (C, D) of several chains, with D > 0, got {position.shape}"
        )
    if not np.isfinite(position).all():
        raise ValueError("initial_position must be finite")
    return position


def _real(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    return array


def _whole(name: str, value: Any) -> int:
    return Whole(-(2**63)).take(name, value)
