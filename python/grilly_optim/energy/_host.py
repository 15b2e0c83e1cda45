"""Relaxations that the host drives: products of matrices by BLAS, the rest by the rule `relax` on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.energy._relax import relax_rule
from grilly_optim.energy._relaxation import Outcome, Recent, Request
from grilly_optim.energy.activations import Activation
from grilly_optim.optim._plans import REFUSED

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel

Array = NDArray[Any]


class _Launch(NamedTuple):
    """Layers that move and have one activation: one kernel run per step."""

    layers: list[int]
    plan: Any
    sums: NDArray[np.float64]  # (layers, batch): squared norms of gradients


class HostRelaxation:
    """Relaxations of one model.

    Args:
        backend: The device.
        model: Whose layers they are.
    """

    def __init__(self, backend: Any, model: EnergyModel) -> None:
        self._backend, self._model = backend, model
        self._workspaces: Recent[tuple[Any, ...], _Workspace] = Recent()

    def run(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        """See `Relaxation`."""
        model = self._model
        wanted = model.batch_size, tuple(model.clamp_du.tolist()), request.measured
        workspace = self._workspaces.get(wanted, lambda: _Workspace(self._backend, model, request.measured))
        # Overflow is the caller's, and passes through as it does on every other device.
        with np.errstate(all="ignore"):
            return workspace.run(request, fixed)


class _Workspace:
    """Memory and plans, for one batch size and some clamped layers; with norms by sample, or without."""

    def __init__(self, backend: Any, model: EnergyModel, measured: bool) -> None:
        self._backend, self._model = backend, model
        batch, count = model.batch_size, model.n_layers

        def blank() -> list[Array]:
            return [np.zeros((batch, n), model.dtype) for n in model.dimensions]

        self._r, self._u, self._pull, self._back, self._prediction, self._message = (blank() for _ in range(6))
        self._zero = blank()
        self._free = [i for i in range(count) if not model.clamp_du[i]]
        by_phi: dict[Activation, list[int]] = {}
        for i in self._free:
            by_phi.setdefault(model.phi[i], []).append(i)
        # Norms are by sample; without them a layer is one piece.
        chains = batch if measured else 1
        self._launches = [
            _Launch(
                layers,
                self._backend.plan(
                    relax_rule(phi),
                    [self._r[i] for i in layers],
                    layers,
                    chains,
                    groups=list(range(len(layers))),
                ),
                np.zeros((len(layers), batch)),
            )
            for phi, layers in by_phi.items()
        ]

    def run(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        """See `Relaxation`."""
        model, batch = self._model, self._model.batch_size
        for i, (phi, u, r, own) in enumerate(zip(model.phi, model.u, self._r, self._u, strict=True)):
            r[...] = phi.function(u)
            own[...] = u
            if i in fixed:
                self._prediction[i + 1] = fixed[i]
        for launch in self._launches:
            for k, i in enumerate(launch.layers):
                launch.plan.write_state("u", k, self._u[i])
        steps, norms = np.zeros(batch, np.uint32), np.zeros(batch)
        moving = np.ones(batch, bool)
        done = 0
        while done < request.most:
            self._listen()
            self._step(request, None if moving.all() else moving)
            done += 1
            steps[moving] = done
            if not request.measured:
                continue
            found = sum((np.sqrt(launch.sums).sum(0) for launch in self._launches), np.zeros(batch))
            norms[moving] = found[moving]
            # NaN is not below anything, and goes on.
            if request.per_sample:
                moving &= ~(norms < request.tol)
                if not moving.any():
                    break
            elif norms.mean() < request.tol:
                break
        self._fetch(self._free)
        ends = [self._u[i].copy() if i in self._free else u for i, u in enumerate(model.u)]
        return Outcome(ends, steps, norms if request.measured else None)

    def _predict(self, i: int) -> None:
        """What layer i makes the next one expect."""
        model, into = self._model, self._prediction[i + 1]
        np.matmul(self._r[i], model.weights[i].T, out=into)
        into += model.biases[i]

    def _fetch(self, layers: list[int]) -> None:
        """Bring states of layers from the plans."""
        for launch in self._launches:
            for k, i in enumerate(launch.layers):
                if i in layers:
                    launch.plan.read_state("u", k, self._u[i])

    def _listen(self) -> None:
        """What each layer that moves is pulled to, and what it hears from its neighbours."""
        model, last = self._model, self._model.n_layers - 1
        nudged = last in self._free and model.c_energy.target is not None
        # States stay with the device, but for those that products or the cost are made of.
        needed = {i + 1 for i in self._free if i < last} if model._sends_errors else set()
        self._fetch([i for i in self._free if i in needed or (nudged and i == last)])
        for i in self._free:
            if i < last:
                self._predict(i)
        for i in self._free:
            returned = None
            if i < last:
                message = model._message(self._prediction[i + 1], self._u[i + 1], self._r[i + 1], self._message[i + 1])
                returned = np.matmul(message, model.weights[i], out=self._back[i])
            prediction = self._prediction[i] if i else None
            cost = model.c_energy.gradient(self._u[i]) if nudged and i == last else None
            self._pull[i], self._back[i] = model._heard(prediction, returned, cost, self._zero[i], self._back[i])

    def _step(self, request: Request, moving: NDArray[np.bool_] | None) -> None:
        model, batch = self._model, self._model.batch_size
        for launch in self._launches:
            rows = [(model._own(i), model._gain, request.step) for i in launch.layers]
            index: Any = None
            chains = batch if request.measured else 1
            if moving is not None:
                # A sample that has come to rest makes steps of length 0.
                rows += [(own, gain, 0.0) for own, gain, _ in rows]
            if len(rows) > 1:
                of_layer = np.arange(len(launch.layers), dtype=np.uint32)
                rest = np.zeros(chains, np.uint32) if moving is None else (~moving).astype(np.uint32)
                index = (of_layer[:, None] + np.uint32(len(launch.layers)) * rest).reshape(-1)
            numbers = launch.sums.reshape(-1) if request.measured else None
            if not self._backend.run([launch.plan], (self._pull, self._back), [rows], [index], True, numbers):
                raise RuntimeError(REFUSED)
