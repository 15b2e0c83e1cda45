"""Layers with an energy: what conditional Gaussians and restricted Hopfield networks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy import _contrast
from grilly_optim.energy._layers import Layers
from grilly_optim.energy._numbers import copied, real_array
from grilly_optim.energy._relax import gradient
from grilly_optim.energy._relaxation import Outcome, Relaxation, Request
from grilly_optim.energy._relaxing import relaxation
from grilly_optim.optim._options import ABOVE_0, AT_LEAST_0, Flag, Range, Whole
from grilly_optim.optim._turns import in_turn

Array = NDArray[Any]
NOTHING: Mapping[int, Array] = MappingProxyType({})

POSITIVE = Range(0, above=True)
STEP_BITS = 31  # more steps than that are no relaxation


class EnergyModel(Layers, ABC):
    """An energy and its gradients, written out; the dynamics that follow from them; what is learned by a nudge.

    A subclass says what the energy is made of; see `ConditionalGaussian` for what users see.
    """

    _gain: float  # how much a layer's gradient has of what it hears
    _sends_errors: bool  # what a layer sends back depends on its state u, not on r alone
    _relaxation: Relaxation
    _found: tuple[Array, float, Any] | None = None  # energies, and the beta and target that they are for

    def _open(self) -> None:
        super()._open()
        self._relaxation = relaxation(self._choice, self._backend, self)

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

    # Energy and gradients.

    @in_turn
    def set_C_target(self, target: Any) -> None:  # noqa: N802  # the original's name
        """Nudge the last layer towards a target from now on; None: not at all.

        Args:
            target: (batch, n) numbers, for `CrossEntropy` also (batch,) whole numbers, classes; or None.

        Raises:
            TypeError: No real numbers.
            ValueError: A target of another shape, one that is not finite, or a class that there is not.
        """
        self._set_target(target)

    def _set_target(self, target: Any) -> None:
        before = self.c_energy.target
        self.c_energy.set_target(target)
        try:
            self.c_energy.require_target(self._u[-1])
        except ValueError:
            self.c_energy.target = before
            raise

    @property
    def E(self) -> Array:  # noqa: N802  # the original's name
        """(batch,), energies as `update_energy` or `u_relax` has found them.

        Found anew where calls have changed states, target or beta since; not where something was written in place.
        """
        return self._turns.run(self._known_energies).copy()

    def _known_energies(self) -> Array:
        cost = self.c_energy
        if self._found is None or self._found[1] != cost.beta or self._found[2] is not cost.target:
            self._remember(self._energies(self._u))
        assert self._found is not None
        return self._found[0]

    def _remember(self, energies: Array) -> None:
        self._found = energies, self.c_energy.beta, self.c_energy.target

    def _changed(self) -> None:
        self._found = None

    @in_turn
    def update_energy(self) -> None:
        """Compute `E` for the states, parameters and target as they are.

        Raises:
            ValueError: The energy is NaN or infinite; the message names the layer. Or the target is for another batch.
        """
        self._remember(self._energies(self._u))

    def _outputs(self, u: Sequence[Array]) -> list[Array]:
        return [phi.function(state) for phi, state in zip(self.phi, u, strict=True)]

    def _predictions(self, r: Sequence[Array], known: Mapping[int, Array] = NOTHING) -> list[Array]:
        """W_i r_i + b_i of each connection, but for those that are known."""
        layers = enumerate(zip(r, self.weights, self.biases, strict=False))
        return [known[i] if i in known else x @ weight.T + b for i, (x, weight, b) in layers]

    def _energies(self, u: Sequence[Array], known: Mapping[int, Array] = NOTHING, steps: int = 0) -> Array:
        with np.errstate(all="ignore"):
            r = self._outputs(u)
            terms = self._terms(u, r, self._predictions(r, known))
            terms[-1] = terms[-1] + self.c_energy.compute_energy(u[-1])
        for i, (state, term) in enumerate(zip(u, terms, strict=True)):
            _require_finite(f"the state of layer {i}", state, steps)
            _require_finite(f"the energy of layer {i}", term, steps)
        return np.sum(terms, 0)  # type: ignore[no-any-return]

    @in_turn
    def u_get_gradients(self) -> list[Array | None]:
        """dE/du (batch, n) of each layer, each sample's own; None for a clamped one.

        Raises:
            ValueError: The target is for another batch.
        """
        with np.errstate(all="ignore"):
            return self._gradients()

    def _gradients(self) -> list[Array | None]:
        r = self._outputs(self._u)
        predictions: list[Array | None] = [None, *self._predictions(r)]
        gradients: list[Array | None] = []
        last = self.n_layers - 1
        for i, (phi, u) in enumerate(zip(self.phi, self._u, strict=True)):
            if self._clamped[i]:
                gradients.append(None)
                continue
            returned, ahead = None, predictions[i + 1] if i < last else None
            if ahead is not None:
                message = self._message(ahead, self._u[i + 1], r[i + 1], np.empty_like(ahead))
                returned = message @ self.weights[i]
            cost = self.c_energy.gradient(u) if i == last else None
            pull, back = self._heard(predictions[i], returned, cost, np.zeros_like(u), np.empty_like(u))
            gradients.append(gradient(u, pull, back, phi.derivative(u), *map(u.dtype.type, (self._own(i), self._gain))))
        return gradients

    @in_turn
    def w_get_gradients(self, loss: Any = None) -> list[Array]:
        """Gradients [W0, b0, W1, b1, ...] of the mean energy, or of a loss that depends on the energies.

        Args:
            loss: (batch,), the loss's derivative by the energy of each sample; None: 1 / batch each.

        Raises:
            TypeError: No real numbers.
            ValueError: Another shape.
        """
        if loss is None:
            return self._parameter_gradients()
        taken = real_array("loss", loss)
        if taken.shape != (self._batch_size,):
            raise ValueError(
                f"loss must have the shape ({self._batch_size},), a number for each sample, got {taken.shape}"
            )
        return self._parameter_gradients(copied(taken, self.dtype))

    def _parameter_gradients(self, loss: Array | None = None) -> list[Array]:
        if loss is None:
            loss = np.full(self._batch_size, 1 / self._batch_size, self.dtype)
        gradients = []
        with np.errstate(all="ignore"):
            r = self._outputs(self._u)
            for x, before in zip(self._errors(self._u, r, self._predictions(r)), r, strict=False):
                weighted = loss[:, None] * x
                gradients += [weighted.T @ before, weighted.sum(0)]
        return gradients

    # Dynamics.

    @in_turn
    def u_step(self, dt: float, tau: float = 1.0) -> float:
        """One step of all layers that are not clamped, at once: u <- u - dt / tau dE/du.

        Args:
            dt: How far, above 0.
            tau: Time constant, above 0.

        Returns:
            The norms of dE/du by layer and sample, their mean over the samples, summed over the layers.

        Raises:
            TypeError: dt or tau is no real number.
            ValueError: dt or tau is not above 0; or states are NaN or infinite before or after: then they are left as
                they are, and the message names the layer.
        """
        outcome = self._relaxed(Request(self._step_size(dt, tau), 1, measured=True), self._fixed())
        for i, (before, after) in enumerate(zip(self._u, outcome.u, strict=True)):
            _require_finite(f"the state of layer {i}", before)
            _require_finite(f"the state of layer {i}", after, 1)
        assert outcome.norms is not None
        self._take(outcome)
        return float(outcome.norms.mean())

    @in_turn
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
        return self._relax(dt, n_relax, tol, tau, per_sample)

    def _relax(self, dt: Any, n_relax: Any, tol: Any = 0.0, tau: Any = 1.0, per_sample: Any = False) -> float:
        request = Request(
            self._step_size(dt, tau),
            Whole(0, STEP_BITS).take("n_relax", n_relax),
            # No norm is infinite, and devices compare numbers.
            min(AT_LEAST_0.take("tol", tol), float(np.finfo(self.dtype).max)),
            Flag().take("per_sample", per_sample),
        )
        fixed = self._fixed()
        before = self._energies(self._u, fixed)
        outcome = self._relaxed(request._replace(measured=request.tol > 0), fixed)
        energy = self._energies(outcome.u, fixed, int(outcome.steps.max()))
        self._take(outcome)
        self._remember(energy)
        return float(np.sum(energy - before, dtype=np.float64))

    def _step_size(self, dt: Any, tau: Any) -> float:
        step = float(POSITIVE.take("dt", dt) / ABOVE_0.take("tau", tau))
        if step > float(np.finfo(self.dtype).max):
            raise ValueError(f"dt / tau must be a number of {self.dtype}, got {dt} / {tau}")
        return step

    def _fixed(self) -> dict[int, Array]:
        """W_i r_i + b_i of the connections whose r_i is clamped."""
        layers = enumerate(zip(self.phi, self._u, self.weights, self.biases, strict=False))
        with np.errstate(all="ignore"):
            return {i: phi.function(u) @ weight.T + b for i, (phi, u, weight, b) in layers if self._clamped[i]}

    def _relaxed(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        self.c_energy.require_target(self._u[-1])
        return self._relaxation.run(request, fixed)

    def _take(self, outcome: Outcome) -> None:
        self._put(outcome.u)
        self._steps = outcome.steps

    @in_turn
    def fast_init(self) -> None:
        """Set each layer that is not clamped to what the one before predicts: a feed-forward pass.

        Where only the input is clamped that is the minimum of `ConditionalGaussian`'s energy without a target, 0.

        Raises:
            NotImplementedError: Of `RestrictedHopfield`, whose minimum takes a relaxation.
        """
        self._feed_forward()

    @abstractmethod
    def _feed_forward(self) -> None: ...

    # Learning.

    @in_turn
    def w_optimize(self, free_grad: Sequence[Any] | None, nudged_grad: Sequence[Any], w_optimizer: Any) -> None:
        """A step of an optimizer with the contrast (nudged_grad - free_grad) / beta.

        Args:
            free_grad: What `w_get_gradients` gave at the end of the free phase; None: zeros, as after `fast_init`.
            nudged_grad: What it gave at the end of the nudged phase.
            w_optimizer: An optimizer over `parameters`.

        Raises:
            TypeError: No sequences of arrays of real numbers, or no optimizer.
            ValueError: Not one array per parameter, or of another shape.
        """
        if not callable(getattr(w_optimizer, "step", None)):
            raise TypeError(f"w_optimizer must be an optimizer, got {w_optimizer!r}")
        w_optimizer.step(gradients=_contrast.contrast(self, free_grad, nudged_grad, self.c_energy.beta))

    @in_turn
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

        The states are left where the free phase has ended, without a target; `steps` are those of the free phase.

        Args:
            target: As for `set_C_target`, but for None.
            dt: As for `u_relax`, in each phase; so are the others.
            n_relax: The most steps of a phase.
            tol: When a phase ends before.
            tau: Time constant.
            nudging: "one_sided", "symmetric" or "random_sign".
            fast_init: The free phase is `fast_init`, of models that have it; no layer but the input may be clamped.

        Returns:
            [W0, b0, W1, b1, ...].

        Raises:
            ValueError: As for `set_C_target` and `u_relax`, or an unknown nudging. Nothing has changed.
            NotImplementedError: fast_init of a model without it.

        Source: Laborieux et al., "Scaling equilibrium propagation to deep ConvNets" (2021), for symmetric nudging.
        """
        phase = {"dt": dt, "n_relax": n_relax, "tol": tol, "tau": tau}
        return _contrast.estimate(self, target, phase, nudging, Flag().take("fast_init", fast_init))


def _require_finite(who: str, numbers: Array, steps: int = 0) -> None:
    """Raise a ValueError that names the first sample and its number, if there is one that is NaN or infinite."""
    finite = np.isfinite(numbers)
    if not finite.all():
        sample = int(np.flatnonzero(~finite.reshape(len(numbers), -1).all(1))[0])
        found = f"{who} is {numbers[sample][~finite[sample]][0]} in sample {sample}"
        if steps:
            found = f"after {steps} step{'s' * (steps > 1)} {found}: a smaller dt may help"
        raise ValueError(found)
