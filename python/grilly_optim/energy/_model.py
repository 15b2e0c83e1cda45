"""Layers with an energy: what conditional Gaussians and restricted Hopfield networks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim import random
from grilly_optim._devices import open_device
from grilly_optim.arrays import empty
from grilly_optim.energy import _contrast, _snapshot
from grilly_optim.energy._relax import gradient
from grilly_optim.energy._relaxation import Outcome, Relaxation, Request
from grilly_optim.energy._relaxing import relaxation
from grilly_optim.energy.activations import ACTIVATIONS, Activation, get_activation
from grilly_optim.energy.costs import Cost
from grilly_optim.kernels.philox import SEED_BITS
from grilly_optim.optim._options import AT_LEAST_0, Flag, Range, Whole

Array = NDArray[Any]

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
POSITIVE = Range(0, above=True)


class EnergyModel(ABC):
    """Layers 0 to L, of which each is connected to the next.

    A subclass says what the energy is made of; see `ConditionalGaussian` for what users see.
    """

    kind: str  # what the engine calls the energy
    _gain: float  # how much a layer's gradient has of what it hears
    _sends_errors: bool  # what a layer sends back depends on its state u, not on r alone

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
        self.dimensions = _dimensions(dimensions)
        self.n_layers = len(self.dimensions)
        if not isinstance(c_energy, Cost):
            raise TypeError(f"c_energy must be SquaredError(...) or CrossEntropy(...), got {c_energy!r}")
        self.c_energy = c_energy
        self._batch_size = Whole(1).take("batch_size", batch_size)
        self.phi = _activations(phi, self.n_layers)
        self._seed = Whole(0, SEED_BITS).take("seed", seed)
        self.dtype = np.dtype(dtype)
        if self.dtype not in DTYPES:
            raise TypeError(f"dtype must be float32 or float64, got {self.dtype}")
        size = self._batch_size * sum(self.dimensions)
        size += sum(a * b for a, b in zip(self.dimensions, self.dimensions[1:], strict=False))
        self._choice, self._backend = open_device(device, size)
        self._device = device
        if self.dtype == np.float64 and not self._choice.info.float64:
            raise TypeError(f"dtype is float64, which {self._choice.info.name} does not support: use float32")
        self._relaxation: Relaxation = relaxation(self._choice, self._backend, self)
        self.clamp_du = np.zeros(self.n_layers, bool)
        self._draws = 0
        self._energy: Array | None = None
        self._steps = np.zeros(self._batch_size, np.uint32)
        self._make_weights()
        self._u = self._drawn(range(self.n_layers), self._batch_size)

    # What an energy is made of.

    @staticmethod
    @abstractmethod
    def _own(layer: int) -> float:
        """How hard a layer is pulled to where it is pulled to."""

    @staticmethod
    @abstractmethod
    def _message(prediction: Array, u: Array, r: Array, out: Array) -> Array:
        """What a layer sends back to the one before, which expected it to be at `prediction`."""

    @staticmethod
    @abstractmethod
    def _heard(
        prediction: Array | None, returned: Array | None, cost: Array | None, zero: Array, out: Array
    ) -> tuple[Array, Array]:
        """Where a layer is pulled to, and what it hears from its neighbours.

        Its gradient is own (u - pull) - gain phi'(u) back. `prediction` comes from the layer before, `returned` from
        the one behind, `cost` is the gradient of the cost; each may be missing. `out` may be written to.
        """

    @abstractmethod
    def _terms(self, u: Sequence[Array], r: Sequence[Array], predictions: Sequence[Array]) -> list[Array]:
        """What each layer adds to the energies (batch,), without the cost."""

    @abstractmethod
    def _errors(self, u: Sequence[Array], r: Sequence[Array], predictions: Sequence[Array]) -> list[Array]:
        """For each connection x (batch, out), such that dE/dW = x^T r and dE/db = x."""

    # Parameters and states.

    def _make_weights(self) -> None:
        weights: list[Array] = []
        biases: list[Array] = []
        for i, (before, after) in enumerate(zip(self.dimensions, self.dimensions[1:], strict=False)):
            for into, shape, stream in ((weights, (after, before), 2 * i), (biases, (after,), 2 * i + 1)):
                array = empty(shape, self.dtype, self._choice.info.device)
                drawn = random.uniform(shape, self._seed, stream, device=self._choice.info.device, dtype=self.dtype)
                array[...] = (2 * drawn - 1) / np.sqrt(before)
                into.append(array)
        self.weights, self.biases = tuple(weights), tuple(biases)

    def _drawn(self, layers: Any, batch: int) -> list[Array]:
        """New states of layers. Numbers follow from the seed, the layer, and how often states have been drawn."""
        self._draws += 1
        device = self._choice.info.device
        return [
            random.normal((batch, self.dimensions[i]), self._seed, i, self._draws, device, dtype=self.dtype)
            for i in layers
        ]

    @property
    def parameters(self) -> list[Array]:
        """[W0, b0, W1, b1, ...], what an optimizer for `w_optimize` is built over."""
        return [array for pair in zip(self.weights, self.biases, strict=True) for array in pair]

    @property
    def u(self) -> tuple[Array, ...]:
        """State of each layer (batch, n); what is written into it counts from the next call on."""
        return tuple(self._u)

    @property
    def batch_size(self) -> int:
        """How many samples the states are for."""
        return self._batch_size

    @property
    def E(self) -> Array:  # noqa: N802  # the original's name
        """(batch,), energies as `update_energy`, `u_relax` or the first look have found them."""
        if self._energy is None:
            self.update_energy()
        assert self._energy is not None
        return self._energy

    @property
    def steps(self) -> NDArray[np.uint32]:
        """(batch,), how many steps each sample has made in the last relaxation."""
        return self._steps

    def set_states(self, states: Sequence[Any]) -> None:
        """Set the states of all layers, clamped or not, to copies of these; another number of samples is a new batch.

        Raises:
            ValueError: Not an array (batch, n) for each layer, or different numbers of samples.
        """
        batch = len(states[0]) if len(states) and np.ndim(states[0]) == 2 else 0
        if [np.shape(u) for u in states] != [(batch, n) for n in self.dimensions] or not batch:
            raise ValueError(
                f"states must be arrays of the shapes (batch, n) with n = {list(self.dimensions)}, got "
                f"{[np.shape(u) for u in states]}"
            )
        taken = [np.array(u, self.dtype, order="C") for u in states]
        if batch == self._batch_size:
            for u, new in zip(self._u, taken, strict=True):
                u[...] = new
        else:
            self._u, self._batch_size, self._steps = taken, batch, np.zeros(batch, np.uint32)
        self._energy = None

    def draw_sign(self) -> int:
        """1 or -1, by the seed and how often something has been drawn."""
        self._draws += 1
        device = self._choice.info.device
        return 1 if random.uniform(1, self._seed, self.n_layers, self._draws, device)[0] < 0.5 else -1

    def reset_state(self) -> None:
        """Draw the states of all layers that are not clamped from N(0, 1)."""
        free = np.flatnonzero(~self.clamp_du).tolist()
        for i, drawn in zip(free, self._drawn(free, self._batch_size), strict=True):
            self._u[i] = drawn
        self._energy = None

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
        given = np.asarray(u_i)
        if given.dtype.kind not in "biuf":
            raise TypeError(f"u_i must hold real numbers, got {given.dtype}")
        if given.ndim != 2 or given.shape[1] != self.dimensions[i] or not len(given):
            raise ValueError(
                f"u_i must have the shape (batch, {self.dimensions[i]}) for layer {i}, with at least one sample, got "
                f"{given.shape}"
            )
        state = given.astype(self.dtype)
        if len(state) != self._batch_size:
            others = [k for k in np.flatnonzero(self.clamp_du).tolist() if k != i]
            if others:
                raise ValueError(
                    f"u_i has {len(state)} samples, and layer {others[0]} is clamped with {self._batch_size}: "
                    "release it first"
                )
            layers = range(self.n_layers)
            self._u = self._drawn(layers, len(state))
            self._batch_size = len(state)
            self._steps = np.zeros(len(state), np.uint32)
        self._u[i] = state
        self.clamp_du[i] = True
        self._energy = None

    def release_layer(self, i: int) -> None:
        """Let a layer move again, from where it is.

        Raises:
            TypeError: i is no whole number.
            ValueError: There is no such layer.
        """
        self.clamp_du[self._layer(i)] = False

    def _layer(self, i: Any) -> int:
        count = self.n_layers
        number = Whole(-count).take("i", i)
        if number >= count:
            raise ValueError(f"i must be a layer from 0 to {count - 1}, got {i}")
        return number % count

    def set_C_target(self, target: Any) -> None:  # noqa: N802  # the original's name
        """Nudge the last layer towards a target from now on; None: not at all.

        Args:
            target: (batch, n) numbers, for `CrossEntropy` also (batch,) whole numbers, classes; or None.

        Raises:
            TypeError: No real numbers.
            ValueError: A target of another shape, or a class that there is not.
        """
        before = self.c_energy.target
        self.c_energy.set_target(target)
        try:
            self.c_energy.require_target(self._u[-1].shape)
        except ValueError:
            self.c_energy.target = before
            raise
        self._energy = None

    # Energy and gradients.

    def _outputs(self, u: Sequence[Array]) -> list[Array]:
        return [phi.function(state) for phi, state in zip(self.phi, u, strict=True)]

    def _predictions(self, r: Sequence[Array], known: Mapping[int, Array] = MappingProxyType({})) -> list[Array]:
        """W_i r_i + b_i of each connection, but for those that are known."""
        layers = enumerate(zip(r, self.weights, self.biases, strict=False))
        return [known[i] if i in known else x @ weight.T + b for i, (x, weight, b) in layers]

    def _energies(self, u: Sequence[Array], known: Mapping[int, Array] = MappingProxyType({})) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            r = self._outputs(u)
            terms = self._terms(u, r, self._predictions(r, known))
            terms[-1] = terms[-1] + self.c_energy.compute_energy(u[-1])
        for i, (state, term) in enumerate(zip(u, terms, strict=True)):
            for what, found in (("state", state), ("energy", term)):
                if not np.isfinite(found).all():
                    sample = int(np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(1))[0])
                    value = found[sample][~np.isfinite(found[sample])][0]
                    raise ValueError(f"the {what} of layer {i} is {value} in sample {sample}")
        return np.sum(terms, 0)  # type: ignore[no-any-return]

    def update_energy(self) -> None:
        """Compute `E` for the states, parameters and target as they are.

        Raises:
            ValueError: The energy is NaN or infinite; the message names the layer. Or the target is for another batch.
        """
        self._energy = self._energies(self._u)

    def u_get_gradients(self) -> list[Array | None]:
        """dE/du (batch, n) of each layer, each sample's own; None for a clamped one."""
        r = self._outputs(self._u)
        predictions: list[Array | None] = [None, *self._predictions(r)]
        gradients: list[Array | None] = []
        last = self.n_layers - 1
        for i, (phi, u) in enumerate(zip(self.phi, self._u, strict=True)):
            if self.clamp_du[i]:
                gradients.append(None)
                continue
            returned, ahead = None, predictions[i + 1] if i < last else None
            if ahead is not None:
                message = self._message(ahead, self._u[i + 1], r[i + 1], np.empty_like(ahead))
                returned = message @ self.weights[i]
            cost = self.c_energy.gradient(u) if i == last else None
            zero = np.zeros_like(u)
            pull, back = self._heard(predictions[i], returned, cost, zero, np.empty_like(u))
            gradients.append(gradient(u, pull, back, phi.derivative(u), *map(u.dtype.type, (self._own(i), self._gain))))
        return gradients

    def w_get_gradients(self, loss: Any = None) -> list[Array]:
        """Gradients [W0, b0, W1, b1, ...] of the mean energy, or of a loss that depends on the energies.

        Args:
            loss: (batch,), the loss's derivative by the energy of each sample; None: 1 / batch each.

        Raises:
            TypeError: No real numbers.
            ValueError: Another shape.
        """
        batch = self._batch_size
        if loss is None:
            loss = np.full(batch, 1 / batch, self.dtype)
        else:
            loss = np.asarray(loss)
            if loss.dtype.kind not in "biuf":
                raise TypeError(f"loss must hold real numbers, got {loss.dtype}")
            if loss.shape != (batch,):
                raise ValueError(f"loss must have the shape ({batch},), a number for each sample, got {loss.shape}")
            loss = loss.astype(self.dtype)
        r = self._outputs(self._u)
        gradients = []
        for x, before in zip(self._errors(self._u, r, self._predictions(r)), r, strict=False):
            weighted = loss[:, None] * x
            gradients += [weighted.T @ before, weighted.sum(0)]
        return gradients

    # Dynamics.

    def u_step(self, dt: float, tau: float = 1.0) -> float:
        """One step of all layers that are not clamped, at once: u <- u - dt / tau dE/du.

        Args:
            dt: How far, above 0.
            tau: Time constant, above 0.

        Returns:
            The norms of dE/du by layer and sample, their mean over the samples, summed over the layers.

        Raises:
            TypeError: dt or tau is no real number.
            ValueError: dt or tau is not above 0; or the gradient is NaN or infinite. States are left as they are.
        """
        outcome = self._relaxed(Request(self._step_size(dt, tau), 1, measured=True), self._fixed())
        assert outcome.norms is not None
        norm = float(outcome.norms.mean())
        if not np.isfinite(norm):
            self._energies(self._u)  # which names the layer, if it is there already
            raise ValueError(f"the norm of dE/du is {norm}")
        self._take(outcome)
        return norm

    def u_relax(
        self, dt: float, n_relax: int, tol: float = 0.0, tau: float = 1.0, *, per_sample: bool = False
    ) -> float:
        """Relax the layers that are not clamped: up to `n_relax` steps as `u_step` makes them.

        Args:
            dt: Size of a step, above 0.
            n_relax: The most steps.
            tol: A step whose norm (see `u_step`) is below it is the last one; 0: all are made.
            tau: Time constant, above 0.
            per_sample: Each sample stops by itself, once its own norm is below `tol`.

        Returns:
            How the energy of all samples together has changed, the last step included. `steps` says how many each
            sample has made.

        Raises:
            TypeError: Not numbers of the right kind.
            ValueError: A number out of its range; or a state or energy is NaN or infinite before or after: then the
                states are left as they are, and the message names the layer.
        """
        request = Request(
            self._step_size(dt, tau),
            Whole(0).take("n_relax", n_relax),
            AT_LEAST_0.take("tol", tol),
            Flag().take("per_sample", per_sample),
        )
        fixed = self._fixed()
        before = self._energies(self._u, fixed)
        outcome = self._relaxed(request._replace(measured=request.tol > 0), fixed)
        energy = self._energies(outcome.u, fixed)
        self._take(outcome)
        self._energy = energy
        return float(np.sum(energy - before, dtype=np.float64))

    def _step_size(self, dt: Any, tau: Any) -> float:
        return float(POSITIVE.take("dt", dt) / POSITIVE.take("tau", tau))

    def _fixed(self) -> dict[int, Array]:
        """W_i r_i + b_i of the connections whose r_i is clamped."""
        with np.errstate(all="ignore"):
            return {
                i: phi.function(u) @ weight.T + b
                for i, (phi, u, weight, b) in enumerate(zip(self.phi, self._u, self.weights, self.biases, strict=False))
                if self.clamp_du[i]
            }

    def _relaxed(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        self.c_energy.require_target(self._u[-1].shape)
        return self._relaxation.run(request, fixed)

    def _take(self, outcome: Outcome) -> None:
        for u, new in zip(self._u, outcome.u, strict=True):
            u[...] = new
        self._steps, self._energy = outcome.steps, None

    # Learning.

    def w_optimize(self, free_grad: Sequence[Any] | None, nudged_grad: Sequence[Any], w_optimizer: Any) -> None:
        """A step of an optimizer with the contrast (nudged_grad - free_grad) / beta.

        Args:
            free_grad: What `w_get_gradients` gave at the end of the free phase; None: zeros, as after `fast_init`.
            nudged_grad: What it gave at the end of the nudged phase.
            w_optimizer: An optimizer over `parameters`.

        Raises:
            ValueError: Not one array per parameter, or of another shape.
        """
        w_optimizer.step(gradients=_contrast.contrast(self, free_grad, nudged_grad, self.c_energy.beta))

    def contrastive_gradient(
        self,
        target: Any,
        *,
        dt: float,
        n_relax: int,
        tol: float = 0.0,
        tau: float = 1.0,
        nudging: str = "one_sided",
        fast_init: bool = False,
    ) -> list[Array]:
        """Relax without a target, then nudged from there, and contrast the two: an estimate of the loss's gradient.

        With f the gradients of the mean energy at the end of the free phase, g(beta) those of a nudged one::

            one_sided:    (g(beta) - f) / beta            error O(beta)
            symmetric:    (g(beta) - g(-beta)) / 2 beta   error O(beta^2)
            random_sign:  (g(s beta) - f) / s beta        s = 1 or -1, drawn; the error's mean is O(beta^2)

        The states are left where the free phase has ended, without a target.

        Args:
            target: As for `set_C_target`.
            dt: As for `u_relax`, in each phase; so are the others.
            n_relax: The most steps of a phase.
            tol: When a phase ends before.
            tau: Time constant.
            nudging: "one_sided", "symmetric" or "random_sign".
            fast_init: The free phase is `fast_init`, of models that have it.

        Returns:
            [W0, b0, W1, b1, ...].

        Raises:
            ValueError: As for `set_C_target` and `u_relax`, or an unknown nudging. States are left as they were.
            NotImplementedError: fast_init of a model without it.

        Source: Laborieux et al., "Scaling equilibrium propagation to deep ConvNets" (2021), for symmetric nudging.
        """
        phase = {"dt": dt, "n_relax": n_relax, "tol": tol, "tau": tau}
        return _contrast.estimate(self, target, phase, nudging, Flag().take("fast_init", fast_init))

    @abstractmethod
    def fast_init(self) -> None:
        """Set the states that are not clamped to a minimum of the energy without a cost, if there is a short way."""

    # Snapshots.

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: parameters, states, target, and how often states have been drawn; all copied."""
        return _snapshot.snapshot(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a model of the same dimensions; all of it is checked before anything changes.

        Raises:
            TypeError: Not a state dict.
            ValueError: Another model's.
        """
        _snapshot.load(self, state_dict)

    def __getstate__(self) -> dict[str, Any]:
        phi = [a.name if ACTIVATIONS.get(a.name) is a else a for a in self.phi]
        arguments = (self.dimensions, self.c_energy, self._batch_size, phi)
        options = {"seed": self._seed, "dtype": self.dtype.name, "device": self._device}
        return {"arguments": arguments, "options": options, "state": self.state_dict()}

    def __setstate__(self, saved: Mapping[str, Any]) -> None:
        EnergyModel.__init__(self, *saved["arguments"], **saved["options"])
        self.load_state_dict(saved["state"])

    def __repr__(self) -> str:
        names = ", ".join(a.name for a in self.phi)
        return (
            f"{type(self).__name__}({list(self.dimensions)}, {self.c_energy!r}, batch_size={self._batch_size}, "
            f"phi=[{names}]) on {self._choice.info.name}"
        )


def _dimensions(dimensions: Any) -> tuple[int, ...]:
    if not isinstance(dimensions, Sequence | np.ndarray) or isinstance(dimensions, str):
        raise TypeError(f"dimensions must be a sequence of whole numbers, got {dimensions!r}")
    taken = tuple(Whole(1).take(f"dimensions[{i}]", n) for i, n in enumerate(dimensions))
    if len(taken) < 2:
        raise ValueError(f"dimensions must name an input and at least one more layer, got {dimensions!r}")
    return taken


def _activations(phi: Any, layers: int) -> tuple[Activation, ...]:
    if isinstance(phi, str | Activation):
        return (get_activation("identity"), *[get_activation(phi)] * (layers - 1))
    if not isinstance(phi, Sequence):
        raise TypeError(f"phi must be an activation, or one for each layer, got {phi!r}")
    if len(phi) != layers:
        raise ValueError(f"phi must have {layers} activations, one for each layer (the input too), got {len(phi)}")
    return tuple(get_activation(one, f"phi[{i}]") for i, one in enumerate(phi))
