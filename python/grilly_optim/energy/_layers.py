"""Layers: their parameters, their states, which of them stand still, and snapshots of all that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim import random
from grilly_optim._devices import open_device
from grilly_optim.arrays import empty
from grilly_optim.energy import _snapshot
from grilly_optim.energy._numbers import copied, real_array
from grilly_optim.energy.activations import ACTIVATIONS, Activation, get_activation
from grilly_optim.energy.costs import Cost
from grilly_optim.kernels.philox import SEED_BITS
from grilly_optim.optim._options import Whole
from grilly_optim.optim._turns import Turns, in_turn

Array = NDArray[Any]

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Layers:
    """Layers 0 to L, of which each is connected to the next; see `ConditionalGaussian` for what users see."""

    kind: str  # what the engine calls the energy

    def __init__(
        self,
        dimensions: Sequence[int],
        c_energy: Cost,
        batch_size: int,
        phi: str | Activation | Sequence[str | Activation],
        *,
        seed: int = 0,
        dtype: Any = np.float32,
        device: str | None = None,
    ) -> None:
        self._turns = Turns()
        self.dimensions = _dimensions(dimensions)
        self.n_layers = len(self.dimensions)
        self._batch_size = Whole(1).take("batch_size", batch_size)
        self.dtype = _dtype(dtype)
        self.phi = _activations(phi, self.n_layers, self.dtype)
        self._cost = _cost(c_energy)
        self._seed = Whole(0, SEED_BITS).take("seed", seed)
        self._device = device
        self._open()
        self._clamped = np.zeros(self.n_layers, bool)
        self._draws = 0
        self._steps = np.zeros(self._batch_size, np.uint32)
        self._weights, self._biases = self._first_parameters()
        self._u = self._drawn(range(self.n_layers), self._batch_size)

    def _open(self) -> None:
        size = self._batch_size * sum(self.dimensions)
        size += sum(a * b for a, b in zip(self.dimensions, self.dimensions[1:], strict=False))
        self._choice, self._backend = open_device(self._device, size)
        if self.dtype == np.float64 and not self._choice.info.float64:
            raise TypeError(f"dtype is float64, which {self._choice.info.name} does not support: use float32")

    def _first_parameters(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        weights: list[Array] = []
        biases: list[Array] = []
        for i, (before, after) in enumerate(zip(self.dimensions, self.dimensions[1:], strict=False)):
            for into, shape, stream in ((weights, (after, before), 2 * i), (biases, (after,), 2 * i + 1)):
                array = empty(shape, self.dtype, self._choice.info.device)
                drawn = random.uniform(shape, self._seed, stream, device=self._choice.info.device, dtype=self.dtype)
                array[...] = (2 * drawn - 1) / np.sqrt(before)
                into.append(array)
        return tuple(weights), tuple(biases)

    def _drawn(self, layers: Iterable[int], batch: int) -> list[Array]:
        """New states of layers. Numbers follow from the seed, the layer, and how often something has been drawn."""
        self._draws += 1
        device = self._choice.info.device
        return [
            random.normal((batch, self.dimensions[i]), self._seed, i, self._draws, device, dtype=self.dtype)
            for i in layers
        ]

    def _drawn_sign(self) -> int:
        self._draws += 1
        device = self._choice.info.device
        return 1 if random.uniform(1, self._seed, self.n_layers, self._draws, device)[0] < 0.5 else -1

    @property
    def weights(self) -> tuple[Array, ...]:
        """W_i (out, in); what is written into them counts from the next call on."""
        return self._weights

    @property
    def biases(self) -> tuple[Array, ...]:
        """b_i (out,), likewise."""
        return self._biases

    @property
    def parameters(self) -> list[Array]:
        """[W0, b0, W1, b1, ...], what an optimizer for `w_optimize` is built over."""
        return [array for pair in zip(self._weights, self._biases, strict=True) for array in pair]

    @property
    def u(self) -> tuple[Array, ...]:
        """State of each layer (batch, n); what is written into it counts from the next call on.

        The arrays stay the same ones until there is another batch size.
        """
        return tuple(self._u)

    @property
    def batch_size(self) -> int:
        """How many samples the states are for."""
        return self._batch_size

    @property
    def clamp_du(self) -> NDArray[np.bool_]:
        """For each layer whether it stands still; may be written to, and set as a whole.

        Raises:
            ValueError: Not as many as layers.
            TypeError: Not True or False.
        """
        return self._clamped

    @clamp_du.setter
    def clamp_du(self, clamped: Any) -> None:
        self._clamped[...] = _snapshot.flags("clamp_du", clamped, self.n_layers)

    @property
    def c_energy(self) -> Cost:
        """The cost; may be replaced by another.

        Raises:
            TypeError: Not a cost.
        """
        return self._cost

    @c_energy.setter
    def c_energy(self, cost: Cost) -> None:
        self._cost = _cost(cost)

    @property
    def steps(self) -> NDArray[np.uint32]:
        """(batch,), how many steps each sample has made in the last relaxation."""
        return self._steps.copy()

    @in_turn
    def reset_state(self) -> None:
        """Draw the states of all layers that are not clamped from N(0, 1)."""
        free = np.flatnonzero(~self._clamped).tolist()
        for i, drawn in zip(free, self._drawn(free, self._batch_size), strict=True):
            self._u[i][...] = drawn
        self._changed()

    @in_turn
    def set_states(self, states: Sequence[Any]) -> None:
        """Set the states of all layers, clamped or not, to copies of these; another number of samples is a new batch.

        Raises:
            TypeError: Not a sequence of arrays of real numbers.
            ValueError: Not one array (batch, n) for each layer, or different numbers of samples.
        """
        if not isinstance(states, Sequence) or isinstance(states, str):
            raise TypeError(f"states must be a sequence of arrays, got {type(states).__name__}")
        arrays = [real_array(f"states[{i}]", u) for i, u in enumerate(states)]
        shapes = [u.shape for u in arrays]
        batch = shapes[0][0] if shapes and shapes[0] else 0
        if shapes != [(batch, n) for n in self.dimensions] or not batch:
            raise ValueError(f"states must be arrays (batch, n) with n = {list(self.dimensions)}, got shapes {shapes}")
        self._put([copied(u, self.dtype) for u in arrays])

    def _put(self, states: Sequence[Array]) -> None:
        """New states, of the right shapes."""
        if len(states[0]) == self._batch_size:
            for u, new in zip(self._u, states, strict=True):
                u[...] = new
        else:
            self._u, self._batch_size = list(states), len(states[0])
            self._steps = np.zeros(self._batch_size, np.uint32)
        self._changed()

    def _changed(self) -> None:
        """States or parameters are others than before."""

    @in_turn
    def clamp_layer(self, i: int, u_i: Any) -> None:
        """Set the state of a layer, and keep it there until `release_layer`.

        Another number of samples than before is a new batch: the other layers are drawn anew for it.

        Args:
            i: The layer; 0 is the input, -1 the last one.
            u_i: (batch, n) numbers, which are copied.

        Raises:
            TypeError: No real numbers.
            ValueError: No such layer, another width, no samples, or another number of samples than a layer has that
                is clamped already.
        """
        i = self._layer(i)
        given = real_array("u_i", u_i)
        if given.ndim != 2 or given.shape[1] != self.dimensions[i] or not len(given):
            raise ValueError(
                f"u_i must have the shape (batch, {self.dimensions[i]}) for layer {i}, with at least one sample, got "
                f"{given.shape}"
            )
        if len(given) != self._batch_size:
            others = [k for k in np.flatnonzero(self._clamped).tolist() if k != i]
            if others:
                raise ValueError(
                    f"u_i has {len(given)} samples, and layer {others[0]} is clamped with {self._batch_size}: "
                    "release it first"
                )
            self._put(self._drawn(range(self.n_layers), len(given)))
        self._u[i][...] = copied(given, self.dtype)
        self._clamped[i] = True
        self._changed()

    @in_turn
    def release_layer(self, i: int) -> None:
        """Let a layer move again, from where it is.

        Raises:
            TypeError: i is no whole number.
            ValueError: There is no such layer.
        """
        self._clamped[self._layer(i)] = False

    def _layer(self, i: Any) -> int:
        count = self.n_layers
        number = Whole(-count).take("i", i)
        if number >= count:
            raise ValueError(f"i must be a layer from 0 to {count - 1}, got {i}")
        return number % count

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """A snapshot: parameters, states, target, and how often states have been drawn; all copied."""
        return _snapshot.snapshot(self)

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a model of the same kind and dimensions; it is checked before anything changes.

        Raises:
            TypeError: Not a state dict.
            ValueError: Another model's.
        """
        _snapshot.load(self, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        made_anew = ("_turns", "_choice", "_backend", "_relaxation", "phi")  # by __setstate__
        phi = [a.name if ACTIVATIONS.get(a.name) is a else a for a in self.phi]
        return {**{name: x for name, x in vars(self).items() if name not in made_anew}, "phi": phi}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        vars(self).update(saved)
        self._turns = Turns()
        self.phi = tuple(map(get_activation, saved["phi"]))
        self._open()
        # Into memory of the device, where it has such memory.
        self._weights, self._biases = (tuple(map(self._own_copy, saved[n])) for n in ("_weights", "_biases"))

    def _own_copy(self, array: Array) -> Array:
        made = empty(array.shape, array.dtype, self._choice.info.device)
        made[...] = array
        return made

    def __repr__(self) -> str:
        names = ", ".join(a.name for a in self.phi)
        return (
            f"{type(self).__name__}({list(self.dimensions)}, {self._cost!r}, batch_size={self._batch_size}, "
            f"phi=[{names}]) on {self._choice.info.name}"
        )


def _dimensions(dimensions: Any) -> tuple[int, ...]:
    if not isinstance(dimensions, Sequence | np.ndarray) or isinstance(dimensions, str):
        raise TypeError(f"dimensions must be a sequence of whole numbers, got {dimensions!r}")
    taken = tuple(Whole(1).take(f"dimensions[{i}]", n) for i, n in enumerate(dimensions))
    if len(taken) < 2:
        raise ValueError(f"dimensions must name an input and at least one more layer, got {dimensions!r}")
    return taken


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        taken = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
    if taken not in DTYPES or not taken.isnative:
        raise TypeError(f"dtype must be float32 or float64, got {taken}")
    return taken  # type: ignore[no-any-return]


def _cost(cost: Any) -> Cost:
    if not isinstance(cost, Cost):
        raise TypeError(f"c_energy must be SquaredError(...) or CrossEntropy(...), got {cost!r}")
    return cost


def _activations(phi: Any, layers: int, dtype: np.dtype[Any]) -> tuple[Activation, ...]:
    if isinstance(phi, str | Activation):
        phi = ["identity", *[phi] * (layers - 1)]
    if not isinstance(phi, Sequence):
        raise TypeError(f"phi must be an activation, or one for each layer, got {phi!r}")
    if len(phi) != layers:
        raise ValueError(f"phi must have {layers} activations, one for each layer (the input too), got {len(phi)}")
    taken = tuple(get_activation(one, f"phi[{i}]") for i, one in enumerate(phi))
    for i, one in enumerate(taken):
        for what, function in (("function", one.function), ("derivative", one.derivative)):
            found = function(np.zeros((2, 3), dtype))
            if not isinstance(found, np.ndarray) or found.shape != (2, 3) or found.dtype != dtype:
                got = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else repr(found)
                raise ValueError(
                    f"the {what} of phi[{i}], {one.name!r}, must keep shape and dtype, and makes {got} of {dtype} of "
                    "shape (2, 3)"
                )
    return taken
