"""Priors: what pulls the parameters beside the loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import Range, Steady, real
from grilly_optim.sampling._options import own_array

Array = NDArray[Any]

__all__ = ["CompositePrior", "GaussianPrior", "Prior", "UniformPrior"]


class Prior(Steady, ABC):
    """A prior of the parameters of a group: what samplers take as ``prior``. It does not change once it is made.

    The samplers' kernels know Gaussian and uniform priors and sums of them. For any other, add the gradient of its
    negative logarithm, divided by nbeta, to the gradient of the loss.
    """

    key = "prior"

    @abstractmethod
    def initialize(self, params: Sequence[Array]) -> dict[int, dict[str, Any]]:
        """For each parameter, by its id, what `grad` needs to know of where it is now."""

    @abstractmethod
    def grad(self, param: Array, state: Mapping[str, Any]) -> Array:
        """The gradient of the negative log density at `param`, by itself: not part of a sampler's step."""

    def parts(self) -> list[GaussianPrior]:
        """The Gaussian priors whose sum it is."""
        raise TypeError(
            f"prior must be a GaussianPrior, a UniformPrior or a CompositePrior, got {type(self).__name__}: add the "
            "gradient of its negative logarithm, divided by nbeta, to the gradient of the loss"
        )


class GaussianPrior(Prior):
    r"""An isotropic normal prior: exp(-localization / 2 \|w - center\|^2).

    Args:
        localization: The precision, 0 or more.
        center: "initial", the parameters as they are when a sampler is built; None, 0; or an array for each parameter
            of the group, which is copied.

    Raises:
        TypeError: `localization` is no number, or `center` none of these.
        ValueError: `localization` is below 0 or not finite.

    Source: `devinterp.optim.prior.GaussianPrior`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import GaussianPrior
        >>> prior, w = GaussianPrior(10.0), np.array([1.0, 2.0])
        >>> state = prior.initialize([w])[id(w)]
        >>> prior.grad(w + 0.5, state)
        array([5., 5.])
    """

    key = "prior_center"

    def __init__(self, localization: float, center: str | Iterable[Array] | None = "initial") -> None:
        self.localization: float = Range(0).take("localization", localization)
        self.center: str | tuple[Array, ...] | None
        if isinstance(center, str) and center != "initial":
            raise ValueError(f"center must be None, 'initial' or an array per parameter, got {center!r}")
        if center is None or isinstance(center, str):
            self.center = center
        elif isinstance(center, Iterable) and np.ndim(center if isinstance(center, np.ndarray) else [0]) > 0:
            self.center = tuple(own_array(c, f"center[{k}]") for k, c in enumerate(center))
        else:
            raise TypeError(f"center must be None, 'initial' or an array per parameter, got {center!r}")

    def centers(self, params: Sequence[Array], chains: bool = False) -> Sequence[Array | None]:
        """The center of each parameter, not copied; None: 0. With `chains`, one may be given once for all rows."""
        if self.center is None:
            return [None] * len(params)
        if not isinstance(self.center, tuple):
            return params
        if len(self.center) != len(params):
            raise ValueError(f"center has {len(self.center)} arrays for {len(params)} parameters")
        for k, (c, p) in enumerate(zip(self.center, params, strict=True)):
            if c.shape != p.shape and not (chains and c.shape == p.shape[1:]):
                raise ValueError(f"center[{k}] has shape {c.shape}, expected {p.shape}")
        return self.center

    def initialize(self, params: Sequence[Array]) -> dict[int, dict[str, Any]]:
        """See `Prior`."""
        centers = self.centers(params)
        return {id(p): {self.key: None if c is None else np.array(c)} for p, c in zip(params, centers, strict=True)}

    def grad(self, param: Array, state: Mapping[str, Any]) -> Array:
        """See `Prior`."""
        center = state[self.key]
        return self.localization * (param if center is None else param - center)

    def parts(self) -> list[GaussianPrior]:
        """See `Prior`."""
        return [self]

    def __repr__(self) -> str:
        center = f"{len(self.center)} arrays" if isinstance(self.center, tuple) else repr(self.center)
        return f"GaussianPrior({self.localization}, center={center})"


class UniformPrior(Prior):
    """No pull at all.

    Args:
        box_size: Infinite; to keep parameters in a box, use the samplers' ``bounding_box_size``.

    Raises:
        NotImplementedError: A finite box.

    Source: `devinterp.optim.prior.UniformPrior`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import UniformPrior
        >>> UniformPrior().grad(np.ones(2), {})
        array([0., 0.])
    """

    def __init__(self, box_size: float = np.inf) -> None:
        if real("box_size", box_size) != np.inf:
            raise NotImplementedError(f"box_size must be infinite, got {box_size!r}: use bounding_box_size")

    def initialize(self, params: Sequence[Array]) -> dict[int, dict[str, Any]]:
        """See `Prior`."""
        return {id(p): {} for p in params}

    def grad(self, param: Array, state: Mapping[str, Any]) -> Array:
        """See `Prior`."""
        return np.zeros_like(param)

    def parts(self) -> list[GaussianPrior]:
        """See `Prior`."""
        return []

    def __repr__(self) -> str:
        return "UniformPrior()"


class CompositePrior(Prior):
    """The product of priors: their gradients are added. Without any, there is no pull.

    Args:
        priors: `GaussianPrior`, `UniformPrior` or `CompositePrior` objects. The state of the k-th that is not uniform
            is called ``<its key>_<k>``.

    Raises:
        TypeError: Something else.

    Source: `devinterp.optim.prior.CompositePrior`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import CompositePrior, GaussianPrior
        >>> prior, w = CompositePrior([GaussianPrior(1.0, center=None), GaussianPrior(10.0)]), np.array([2.0])
        >>> prior.grad(w + 1, prior.initialize([w])[id(w)])
        array([13.])
    """

    def __init__(self, priors: Iterable[Prior] = ()) -> None:
        given = tuple(priors)
        for k, prior in enumerate(given):
            if not isinstance(prior, Prior):
                raise TypeError(f"priors[{k}] must be a Prior, got {type(prior).__name__}")
        self.priors = tuple(prior for prior in given if not isinstance(prior, UniformPrior))

    def initialize(self, params: Sequence[Array]) -> dict[int, dict[str, Any]]:
        """See `Prior`."""
        result: dict[int, dict[str, Any]] = {id(p): {} for p in params}
        for k, prior in enumerate(self.priors):
            for who, state in prior.initialize(params).items():
                result[who].update({f"{name}_{k}": value for name, value in state.items()})
        return result

    def grad(self, param: Array, state: Mapping[str, Any]) -> Array:
        """See `Prior`."""
        total = np.zeros_like(param)
        for k, prior in enumerate(self.priors):
            own = {name.removesuffix(f"_{k}"): value for name, value in state.items() if name.endswith(f"_{k}")}
            total = total + prior.grad(param, own)
        return total

    def parts(self) -> list[GaussianPrior]:
        """See `Prior`."""
        return [part for prior in self.priors for part in prior.parts()]

    def __repr__(self) -> str:
        return f"CompositePrior([{', '.join(map(repr, self.priors))}])"


class Pull(NamedTuple):
    """All Gaussian priors of a group as one: pull (w - center) + decay w.

    Attributes:
        pull: The precision of those that have a center.
        decay: The precision of those at 0.
        centered: Those that have a center.
    """

    pull: float
    decay: float
    centered: tuple[GaussianPrior, ...]

    def centers(self, params: Sequence[Array], chains: bool) -> list[Array]:
        """Where the pull goes to: the mean of the centers, weighted by precision."""
        if len(self.centered) == 1:
            return [np.asarray(c) for c in self.centered[0].centers(params, chains)]
        result = [np.zeros(p.shape) for p in params]
        for prior in self.centered:
            for total, center in zip(result, prior.centers(params, chains), strict=True):
                total += prior.localization / self.pull * np.asarray(center)
        return result

    def same_center(self, other: Pull) -> bool:
        """Whether another prior pulls to the same place; one that pulls nowhere does."""
        if not (self.centered and other.centered):
            return True
        if all(p.center == "initial" for p in (*self.centered, *other.centered)):
            return True
        return len(self.centered) == len(other.centered) and all(
            _same(a.center, b.center) and math.isclose(a.localization / self.pull, b.localization / other.pull)
            for a, b in zip(self.centered, other.centered, strict=True)
        )

    def __repr__(self) -> str:
        return f"a prior with precision {self.pull:g} around a center and {self.decay:g} around 0"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(np.array_equal, a, b))
    return bool(type(a) is type(b) and a == b)


@lru_cache(maxsize=64)
def pull_of_numbers(decay: float, pull: float) -> Pull:
    """A prior around 0, and one around the initial parameters; asked in every step."""
    return Pull(pull, decay, (GaussianPrior(pull),) if pull > 0 else ())


def pull_of(prior: Prior | None) -> Pull:
    """A prior as the kernel has it.

    Raises:
        TypeError: It is no sum of Gaussian and uniform priors.
    """
    parts = [p for p in ([] if prior is None else prior.parts()) if p.localization > 0]
    centered = tuple(p for p in parts if p.center is not None)
    pull, decay = (sum(p.localization for p in parts if (p.center is None) is zero) for zero in (False, True))
    return Pull(pull, decay, centered)


def resolve_prior(prior: Any, localization: Any, where: str) -> Prior | None:
    """What a caller gives as ``prior``, with the group's ``localization``, as an object or None.

    Raises:
        TypeError: Neither a prior, a number, a string nor arrays.
        ValueError: A number or a center out of range; `localization` where it has nothing to do.
    """
    strength = None if localization is None else Range(0).take("localization", localization, where)
    number = isinstance(prior, Real) or (isinstance(prior, np.ndarray) and prior.ndim == 0)
    if isinstance(prior, Prior) or (number and not isinstance(prior, bool)):
        if strength is not None:
            raise ValueError(f"localization{where} goes with a center, and prior{where} is {prior!r}")
        return prior if isinstance(prior, Prior) else GaussianPrior(Range(0).take("prior", prior, where))
    if prior is None:
        return None if strength is None else GaussianPrior(strength)
    if isinstance(prior, str | Iterable) and not number:
        return GaussianPrior(1.0 if strength is None else strength, prior)
    raise TypeError(f"prior{where} must be a Prior, a number, 'initial' or an array per parameter, got {prior!r}")


class _Restored(GaussianPrior):
    """Out of a state dict, where its center is."""

    def __init__(self, localization: float) -> None:
        super().__init__(localization, None)
        self.center = "saved"

    def centers(self, params: Sequence[Array], chains: bool = False) -> Sequence[Array | None]:
        """For room only: the center is written there from the state."""
        return params


def describe_prior(prior: Prior | None) -> list[dict[str, Any]]:
    """A prior in plain containers, without the arrays of its centers: those are part of the state."""
    parts = [] if prior is None else prior.parts()
    return [
        {"localization": p.localization, "center": "arrays" if isinstance(p.center, tuple) else p.center} for p in parts
    ]


def restore_prior(saved: Any, current: Prior | None, where: str) -> Prior | None:
    """The prior of such a description: the current one where that says the same.

    Raises:
        ValueError: It is no such description.
    """
    if saved == describe_prior(current):
        return current
    try:
        parts = [
            GaussianPrior(p["localization"], None) if p["center"] is None else _Restored(p["localization"])
            for p in saved
        ]
    except (TypeError, KeyError):
        raise ValueError(f"prior{where} in state_dict must be a list of dicts, got {saved!r}") from None
    return CompositePrior(parts)
