"""Equilibrium propagation: a relaxation against torch's autograd, and what the demo's networks learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.cli import ep
from grilly_optim.cli.demo import Progress
from grilly_optim.energy import ConditionalGaussian, RestrictedHopfield, SquaredError

from ..errors import MissingRival, WrongResult
from ..harness import Contestant, race
from ..rivals import load, thread_counts, threads_label
from .table import Measure, at_least, not_measured

Array = NDArray[Any]
Model = ConditionalGaussian | RestrictedHopfield

DIMENSIONS, BATCH, STEPS, DT = (784, 1000, 10), 100, 50, 0.1
AGAINST_TORCH = 2.0
# What the demo's networks are to name correctly of the held-out digits, after the last epoch.
ACCURACY = {"ConditionalGaussian": 0.96, "RestrictedHopfield": 0.94}
# Of the states after a relaxation, in units of the largest.
TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def _model(kind: type[Model], dtype: Any) -> Model:
    """A network with images of noise clamped to it."""
    model = kind(DIMENSIONS, SquaredError(), BATCH, "sigmoid", dtype=dtype, device="cpu")
    model.clamp_layer(0, np.random.default_rng(0).uniform(-1, 1, (BATCH, DIMENSIONS[0])))
    return model


def _relax(model: Model, start: list[Array]) -> None:
    for u, s in zip(model.u[1:], start[1:], strict=True):
        u[...] = s
    model.u_relax(DT, STEPS)


class _Torch:
    """The same network as its equations stand: the energy is written down, and autograd makes the gradients.

    Only what moves has gradients, and states are changed in place.
    """

    def __init__(self, model: Model, start: list[Array]) -> None:
        self._torch = load("torch")
        as_tensor = self._torch.from_numpy
        self._w, self._b = ([as_tensor(a.copy()) for a in arrays] for arrays in (model.weights, model.biases))
        self._start = [as_tensor(a.copy()) for a in start]
        self.u = [t.clone() for t in self._start]
        self._free = [t.requires_grad_() for t in self.u[1:]]
        self._energy = self._gaussian if isinstance(model, ConditionalGaussian) else self._hopfield

    def _gaussian(self) -> Any:
        x, hidden, output = self.u
        linear = self._torch.nn.functional.linear
        first = linear(x, self._w[0], self._b[0]) - hidden
        second = linear(hidden.sigmoid(), self._w[1], self._b[1]) - output
        return first.square().sum() + second.square().sum()

    def _hopfield(self) -> Any:
        x, hidden, output = self.u
        linear = self._torch.nn.functional.linear
        r1, r2 = hidden.sigmoid(), output.sigmoid()
        squares = x.square().sum() + hidden.square().sum() + output.square().sum()
        agreement = (r1 * linear(x, self._w[0], self._b[0])).sum() + (r2 * linear(r1, self._w[1], self._b[1])).sum()
        return 0.5 * squares - agreement

    def relax(self) -> None:
        """From the start, as many steps as ours."""
        torch = self._torch
        with torch.no_grad():
            for u, s in zip(self._free, self._start[1:], strict=True):
                u.copy_(s)
        for _ in range(STEPS):
            gradients = torch.autograd.grad(self._energy(), self._free)
            with torch.no_grad():
                for u, g in zip(self._free, gradients, strict=True):
                    u.sub_(g, alpha=DT)


def _check(model: Model, rival: _Torch, start: list[Array]) -> None:
    """Both do the same.

    Raises:
        WrongResult: They do not.
    """
    _relax(model, start)
    rival.relax()
    for k, (mine, theirs, before) in enumerate(zip(model.u, rival.u, start, strict=True)):
        expected = theirs.detach().numpy()
        apart = float(np.abs(mine - expected).max() / np.abs(expected).max())
        if not apart <= TOLERANCES[model.dtype]:
            raise WrongResult(f"{type(model).__name__}: the states of layer {k} are {apart:.1g} from torch's")
        if k and np.array_equal(mine, before):
            raise WrongResult(f"{type(model).__name__}: layer {k} has not moved")


def relaxation(budget: float) -> Iterator[Measure]:
    """A free phase from random states on the compiled CPU, with the energies before and after, against autograd."""
    shape = f"{'-'.join(map(str, DIMENSIONS))}, batch {BATCH}"
    for kind in (ConditionalGaussian, RestrictedHopfield):
        for dtype in (np.float32, np.float64):
            what = f"{STEPS}-step relaxation, {kind.__name__} {shape}, {np.dtype(dtype)}: compiled CPU / torch autograd"
            model = _model(kind, dtype)
            start = [u.copy() for u in model.u]
            try:
                rival = _Torch(model, start)
            except MissingRival as error:
                yield not_measured(what, f"{AGAINST_TORCH}x", str(error))
                continue
            _check(model, rival, start)
            ratio, times = _race(model, rival, start, budget)
            yield at_least(what, ratio, AGAINST_TORCH, **times)


def _race(model: Model, rival: _Torch, start: list[Array], budget: float) -> tuple[float, dict[str, float]]:
    def threads(count: int) -> Callable[[], None]:
        return partial(load("torch").set_num_threads, count)

    ours = Contestant("cpu", "", "step", partial(_relax, model, start))
    theirs = [Contestant("torch", threads_label(n), "rival", rival.relax, prepare=threads(n)) for n in thread_counts()]
    mine, *others = race([ours, *theirs], budget)
    times = {f"{t.contestant.who} (ms)": t.median * 1e3 for t in (mine, *others)}
    return min(t.median for t in others) / mine.median, times


def digits() -> Iterator[Measure]:
    """The demo's own training, with its settings and seeds."""
    data = ep.load_data()
    with Progress(total=0, quiet=True) as progress:
        for method in ep.METHODS:
            histories, summary = ep.learn(method, data, "cpu", ep.EPOCHS, progress)
            target = ACCURACY[method.name]
            each = {f"seed {seed}": h.test[-1] for seed, h in zip(ep.SEEDS, histories, strict=True)}
            yield Measure(
                f"demo ep: {method.name}, held-out digits named correctly, last epoch, mean of {len(ep.SEEDS)} seeds",
                f"{target:.2f}",
                f"{summary.test:.4f} ({summary.seconds / len(ep.SEEDS):.1f} s for each)",
                summary.test >= target,
                {**each, "mean": summary.test, "seconds": summary.seconds},
            )
