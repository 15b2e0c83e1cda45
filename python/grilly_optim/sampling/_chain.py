"""What HMC, NUTS and MCMC share: where the chains are, what they leave behind, errors, reports, state."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.kernels import philox
from grilly_optim.optim._options import Whole
from grilly_optim.optim._turns import Turns, in_turn
from grilly_optim.sampling import _chain_state
from grilly_optim.sampling._batch import Array, Batch, Doubles, Given, History, Method, Record, Runner
from grilly_optim.sampling._evaluating import EvaluationFailed, Evaluator
from grilly_optim.sampling._failures import ChainFailed
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._options import POSITIVE
from grilly_optim.sampling._reporting import Reporting
from grilly_optim.sampling._runners import runner_for


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
    ) -> None:
        position = _own_position(initial_position)
        self._shape = position.shape
        self._dtype = position.dtype
        position = position.reshape(-1, self._shape[-1])
        chains, dim = position.shape
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
        record = Record(chains, dim, position.dtype, tree=self.TREE)
        self._history = History(position.copy(), np.zeros(chains, np.int64), record)
        self._turns = Turns()

    def _evaluate_start(self) -> None:
        batch = self._batch
        try:
            with np.errstate(all="ignore"):
                evaluate = Evaluator(self._potential, batch.position.dtype, gradient=self.GRADIENT)
                potential, gradient = evaluate(batch.position)
        except EvaluationFailed as failed:
            raise failed_at_start(failed.row, failed.cause) from failed.cause
        for k, energy in enumerate(potential):
            of = "" if len(self._shape) == 1 else f" of chain {k}"
            if not np.isfinite(energy):
                raise ValueError(f"the potential energy at initial_position{of} must be finite, got {energy}")
            if self.GRADIENT and not np.isfinite(gradient[k]).all():
                raise ValueError(f"the gradient at initial_position{of} must be finite, got {gradient[k]}")
        batch.potential, batch.gradient = potential, gradient if self.GRADIENT else None

    # What it was built with.

    @property
    def seed(self) -> int:
        """Of the random numbers."""
        return self._batch.seed

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
        wanted, start = Whole(0).take("n", n), self.num_states
        # The draws of the slice sampler cannot be told apart by transition.
        whole = given.uniform is not None and given.uniform.ndim == 1
        if self._reporting.wanted:
            self._reporting.begin(self._moved())
        while (made := self.num_states - start) < wanted:
            part = wanted - made if whole else self._reporting.transitions(self.num_states, wanted - made)
            rest = given if whole else Given(*(None if a is None else a[made : made + part] for a in given))
            record = self._history.record
            before = record.count
            try:
                self._runner.run(self._batch, part, record, given=rest)
            finally:
                self._report(start + made + 1, record, before)

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

    def _report(self, state: int, record: Record, first: int) -> None:
        """Report what stands in a record from an entry on, which has this number."""
        reporting = self._reporting
        if not reporting.wanted:
            return
        for row in range(first, record.count):
            stats = {name: array[row] for name, array in record.stats.items()}
            rates = reporting.accepted(stats["accepted"]) / (state + row - first)
            for c, rate in enumerate(rates if reporting.writer is not None else ()):
                scalars = self._scalars({name: values[c] for name, values in stats.items()}, float(rate))
                chain = "" if len(self._shape) == 1 else f"chain_{c}/"
                reporting.write(f"{chain}{self.TAG}/", scalars, state + row - first)
            what, values = self._logged(stats)
            reporting.log(self.NAME, state + row - first, what, float(np.mean(values)), float(rates.mean()))

    def _scalars(self, stats: dict[str, Any], rate: float) -> dict[str, float]:
        """What a writer gets of one chain's state."""
        return {"potential": -float(stats["lp"]), "accept": rate}

    def _logged(self, stats: dict[str, Array]) -> tuple[str, Array]:
        """What a logger gets, and its name."""
        return "potential energy", -stats["lp"]

    # What they left.

    @property
    def position_trajectory(self) -> list[Array]:
        """Copies of all positions, the initial one first, until it is cleared; a list made when it is asked for."""
        initial, _, record = self._history
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

    def _moved(self) -> NDArray[np.int64]:
        _, accepted, record = self._history
        return np.asarray(accepted + record.stats["accepted"].sum(axis=0))

    @property
    def acceptance_probability(self) -> Any:
        """The share of transitions that moved, 1.0 before the first; several chains: (C,)."""
        rates = self._moved() / self.num_states if self.num_states else np.ones(len(self._batch.done))
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
        initial, accepted, record = self._history
        length = record.count + (initial is not None)
        first = length if n is None else slice(_whole("n", n), None).indices(length)[0]
        if first == 0:
            return
        gone = first - (initial is not None)
        rest = copy.copy(record)
        rest.drop(gone)
        self._history = History(None, accepted + record.stats["accepted"][:gone].sum(axis=0), rest)

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

        Raises:
            TypeError: Not a state dict of this class.
            ValueError: Something is missing, has another shape, or is out of range.
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


def failed_at_start(chain: int | None, cause: BaseException) -> ChainFailed:
    """What is raised where a chain, or all of them as a batch, cannot begin."""
    who = "the batch of chains" if chain is None else f"chain {chain}"
    return ChainFailed(f"{who} failed at the initial position: {type(cause).__name__}: {cause}", chain or 0)


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
