"""Hamiltonian Learning: a step over many tensors, against the original's loop over them in torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim import HL

from ..errors import MissingRival
from ..harness import Contestant, race
from ..rivals import load, thread_counts, threads_label
from .table import Measure, at_least, not_measured

Array = NDArray[Any]

TENSORS, SHAPE = 200, (100, 100)
TARGET = 5.0
OPTIONS: dict[str, Any] = {"beta": 0.01, "theta": 0.1}
# Steps that both take before they are timed, and how far weights may be apart then, of their size.
CHECKED, TOLERANCE = 20, 1e-5
BUDGET = 5.0


class Model:
    """What `HL` asks of a model, and no network."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)

        def drawn(*shape: int) -> Array:
            return rng.standard_normal(shape, dtype=np.float32)

        self.delta = 0.1
        self.w = {f"w{k}": drawn(*SHAPE) for k in range(TENSORS)}
        self.h_init = drawn(1, SHAPE[0])
        self.gradients: dict[str, Any] = {"xi": drawn(1, SHAPE[0]), "w": {name: drawn(*SHAPE) for name in self.w}}

    def named_parameters(self) -> list[tuple[str, Array]]:
        """Pairs of name and array."""
        return list(self.w.items())


def against_the_original(budget: float) -> Iterator[Measure]:
    """The compiled CPU against `HL` of UNaIVERSE on preset gradients."""
    for local in (True, False):
        elements = f"{TENSORS} tensors of {np.prod(SHAPE):.0e}".replace("e+0", "e")
        what = f"HL, {'local' if local else 'non-local'}, {elements}: compiled CPU / UNaIVERSE's on torch, step()"
        try:
            yield _measured(what, local, min(budget, BUDGET))
        except MissingRival as error:
            yield not_measured(what, f"{TARGET:.1f}x", str(error))


def _measured(what: str, local: bool, budget: float) -> Measure:
    torch, model = load("torch"), Model()
    step, weights = _original(torch, Model(), local)
    ours = partial(HL(model, **OPTIONS, local=local, device="cpu").step, model.gradients)
    for _ in range(CHECKED):
        ours()
        step()
    apart = max(float(np.abs(model.w[name] - w).max() / np.abs(w).max()) for name, w in weights.items())
    if not apart <= TOLERANCE:
        raise RuntimeError(f"{what}: weights are apart by {apart:.1e} of their size after {CHECKED} steps")
    counts = thread_counts()
    rivals = [
        Contestant("HL of UNaIVERSE", threads_label(n), "rival", step, prepare=partial(torch.set_num_threads, n))
        for n in counts
    ]
    mine, *theirs = (t.median for t in race([Contestant("HL", "", "step", ours), *rivals], budget))
    times = {f"UNaIVERSE, {threads_label(n)} (us)": s * 1e6 for n, s in zip(counts, theirs, strict=True)}
    return at_least(what, min(theirs) / mine, TARGET, **{"compiled CPU (us)": mine * 1e6, **times})


def _original(torch: Any, model: Model, local: bool) -> tuple[Callable[[], object], dict[str, Array]]:
    """A step of the original, on the memory of a model's arrays; and these."""
    twin = torch.nn.Module()
    for name, w in model.w.items():
        parameter = torch.nn.Parameter(torch.from_numpy(w))
        parameter.grad = torch.from_numpy(model.gradients["w"][name])
        twin.register_parameter(name, parameter)
    twin.delta, twin.h_init = model.delta, torch.from_numpy(model.h_init)
    twin.h = twin.h_init.clone().requires_grad_()
    twin.h.grad = torch.from_numpy(model.gradients["xi"])
    return _hl()(twin, **OPTIONS, local=local).step, model.w


def _hl() -> Any:
    """The original's class, from its file alone: importing the package wants much more than this needs."""
    try:
        path = metadata.distribution("unaiverse").locate_file("unaiverse/modules/hl/hl_utils.py")
    except metadata.PackageNotFoundError:
        raise MissingRival("unaiverse is not installed here: pip install --no-deps unaiverse") from None
    spec = importlib.util.spec_from_file_location("unaiverse_hl_utils", str(path))
    if spec is None or spec.loader is None:
        raise MissingRival(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HL
