"""devinterp's samplers and ours: equal parameters, stepped with the same gradients and the same normal numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from devinterp import optim as theirs
from devinterp.optim import preconditioner as their_preconditioners
from devinterp.optim import prior as their_priors

from grilly_optim import sampling

SHAPES = [(257,), (13, 7), (3,), ()]
DTYPES = [np.float64, np.float32]
PRIORS = ("CompositePrior", "GaussianPrior", "UniformPrior")
PRECONDITIONERS = (
    "CompositePreconditioner",
    "IdentityPreconditioner",
    "MaskPreconditioner",
    "NHTPreconditioning",
    "RMSpropPreconditioner",
)
NORMS = ("scaled_grad", "unscaled_grad", "localization", "weight_decay", "noise", "distance")
DOTS = {
    "dot_grad_prior": ("scaled_grad", "prior"),
    "dot_grad_noise": ("scaled_grad", "noise"),
    "dot_prior_noise": ("prior", "noise"),
}

# The names of one of the two libraries: its classes, `array`, which makes its kind of array, and `more`, arguments that
# go with every sampler.
Library = Any
Make = Callable[[Library, list[Any]], Any]


def ours(device: str, **more: Any) -> Library:
    """Our library."""
    names = {name: getattr(sampling, name) for name in sampling.__all__}
    return SimpleNamespace(**names, array=np.array, more={"device": device, **more})


def original(**more: Any) -> Library:
    """The original."""
    names = {name: getattr(theirs, name) for name in ("SGLD", "SGMCMC", "SGNHT")}
    names |= {name: getattr(their_priors, name) for name in PRIORS}
    names |= {name: getattr(their_preconditioners, name) for name in PRECONDITIONERS}
    return SimpleNamespace(**names, array=torch.tensor, more=more)


class Pair:
    """A sampler of ours and one of the original's over equal parameters.

    Args:
        make: Builds a sampler of a library over parameters.
        dtype: Of the parameters.
        device: Of ours.
        shapes: Of the parameters.
        seed: Of parameters, gradients and noise.
        more: What both samplers are told besides.
    """

    def __init__(
        self,
        make: Make,
        dtype: Any,
        device: str,
        *,
        shapes: Sequence[tuple[int, ...]] = SHAPES,
        seed: int = 0,
        **more: Any,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        self.dtype = dtype
        self.mine = [np.asarray(self.rng.standard_normal(s), dtype) for s in shapes]
        self.theirs = [torch.nn.Parameter(torch.tensor(p)) for p in self.mine]
        self.steps = 0
        self.make, self.device, self.more = make, device, more
        self.own: dict[str, Any] = {}
        self.build()

    def build(self) -> None:
        """New samplers over the parameters as they are now."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which of them warn is a test of its own
            self.sampler = self.make(ours(self.device, **self.more, **self.own), self.mine)
            self.original = self.make(original(**self.more), list(self.theirs))

    def draw(self, missing: float = 0.0) -> list[Any]:
        """Gradients for the next step, in both libraries; some of them may be missing."""
        gradients = [None if self.rng.random() < missing else self._gradient(p) for p in self.mine]
        for q, g in zip(self.theirs, gradients, strict=True):
            q.grad = None if g is None else torch.tensor(g)
        return gradients

    def _gradient(self, p: Any) -> Any:
        return np.asarray(0.3 * p + self.rng.standard_normal(p.shape), self.dtype)

    def step(self, missing: float = 0.0) -> None:
        """One step of each."""
        gradients = self.draw(missing)
        self.sampler.step(gradients=gradients, noise=self.step_original())

    def step_original(self) -> list[Any]:
        """A step of the original, and the normal numbers of that step."""
        self._step_original()
        same = self._generator()
        self.steps += 1
        return [
            None if q.grad is None else self._normal_numbers(group, i, q, same)
            for group in self.original.param_groups
            for i, q in enumerate(group["params"])
        ]

    def _step_original(self) -> None:
        self.original.step(noise_generator=self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + self.steps)

    def _normal_numbers(self, group: Any, i: int, q: Any, generator: torch.Generator) -> Any:
        return normal_numbers(group, i, q, generator)

    def change(self, **options: Any) -> None:
        """Set options of all groups of both."""
        for group in (*self.sampler.param_groups, *self.original.param_groups):
            group.update(options)

    @property
    def error(self) -> float:
        """The largest difference between the parameters: see `error`."""
        return max(error(p, q.detach().numpy()) for p, q in zip(self.mine, self.theirs, strict=True))

    def assert_close(self) -> None:
        """The parameters agree."""
        assert self.error <= tolerance(self.dtype)

    def states(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """What both keep of each parameter."""
        mine = self.sampler.state_dict()["state"]
        return [(mine[i], self.original.state[q]) for i, q in enumerate(self.theirs)]


class ThermostatPair(Pair):
    """Two SGNHT. The original draws from torch's global generator, which is set before each draw."""

    def build(self) -> None:
        """See `Pair`."""
        torch.manual_seed(self.seed)
        same = torch.Generator().manual_seed(self.seed)
        self.own = {"momentum": [torch.randn(q.shape, dtype=q.dtype, generator=same).numpy() for q in self.theirs]}
        super().build()

    def _step_original(self) -> None:
        torch.set_rng_state(self._generator().get_state())
        self.original.step()

    def _normal_numbers(self, group: Any, i: int, q: Any, generator: torch.Generator) -> Any:
        spread = (group["lr"] * 2 * group["diffusion_factor"]) ** 0.5
        noise = torch.normal(0.0, 1.0, tuple(q.shape), generator=generator) * spread
        return noise.double().numpy() / spread if spread else np.ones(q.shape)

    @property
    def thermostats(self) -> tuple[list[float], list[float]]:
        """Those of all groups, ours and the original's."""
        mine, theirs = (
            [float(group["thermostat"]) for group in of.param_groups] for of in (self.sampler, self.original)
        )
        return mine, theirs

    def share_thermostats(self) -> None:
        """Ours become the original's, which are float32."""
        for group, xi in zip(self.sampler.param_groups, self.thermostats[1], strict=True):
            group["thermostat"] = np.array(xi)


def normal_numbers(group: Any, i: int, p: Any, generator: torch.Generator) -> Any:
    """What the original draws for the i-th parameter of a group, in double.

    It rounds the noise to float32 after each factor. What comes out here, times the same factors in double, is what it
    adds; a comparison in double needs that.
    """
    level = group["noise_level"]
    noise = torch.normal(0.0, level, tuple(p.shape), generator=generator)
    parts = _parts(group.get("preconditioner"))
    masks = [part.masks[i] for part in parts if isinstance(part, their_preconditioners.MaskPreconditioner)]
    if not parts and group.get("mask") is not None:
        masks = [group["mask"]]
    scale: Any = level
    if masks:
        overall = math.prod(masks[1:], start=masks[0])
        noise, scale = overall * noise, scale * overall.double()
    rmsprop = any(isinstance(part, their_preconditioners.RMSpropPreconditioner) for part in parts)
    for part in parts:
        if isinstance(part, their_preconditioners.NHTPreconditioning):
            factor = torch.sqrt(torch.tensor(2.0 * part.diffusion_factor))
            # RMSprop's factor has the parameter's precision, and the product too.
            noise = factor.double() * noise.double() if rmsprop else factor * noise
            scale = scale * math.sqrt(2 * part.diffusion_factor)
    scale = torch.as_tensor(scale, dtype=torch.float64)
    # Where nothing comes of the noise, any number must do.
    return torch.where(scale == 0, 1.0, noise.double() / torch.where(scale == 0, 1.0, scale)).numpy()


def _parts(preconditioner: Any) -> list[Any]:
    if isinstance(preconditioner, their_preconditioners.CompositePreconditioner):
        return [part for one in preconditioner.preconditioners for part in _parts(one)]
    return [] if preconditioner is None else [preconditioner]


def tolerance(dtype: Any) -> float:
    """The largest `error` that is allowed."""
    return 1e-12 if dtype is np.float64 else 5e-6


def error(mine: Any, theirs: Any) -> float:
    """The largest difference, relative to the size, or to 0.1 where that is larger."""
    a, b = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    assert a.shape == b.shape
    return float((np.abs(a - b) / np.maximum(np.abs(b), 0.1)).max(initial=0.0))


def metrics_error(mine: Any, theirs: Any, chain: int = 0) -> float:
    """The largest relative difference of any field, for one of our chains.

    Inner products may be small by chance: theirs is relative to a hundredth of the norms' product where that is larger.
    """
    assert mine.numel == theirs.numel
    worst = 0.0
    for field in (*NORMS, *DOTS, "prior"):
        a, b = float(getattr(mine, field)[chain]), float(getattr(theirs, field))
        size = abs(b)
        if field in DOTS:
            x, y = (float(getattr(theirs, name)) for name in DOTS[field])
            size = max(size, 0.01 * x * y)
        assert size > 0 or a == b, field
        worst = max(worst, abs(a - b) / size if size > 0 else 0.0)
    return worst
