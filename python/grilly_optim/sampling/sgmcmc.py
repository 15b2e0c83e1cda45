"""Stochastic gradient Langevin dynamics with priors and preconditioners."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import NoneType
from typing import Any, ClassVar

import numpy as np

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Option, Options, Range
from grilly_optim.optim._parameters import Group
from grilly_optim.optim._past import Past
from grilly_optim.sampling import _rules
from grilly_optim.sampling._options import Kept
from grilly_optim.sampling._sampler import Array, Sampler, having
from grilly_optim.sampling.preconditioners import (
    Form,
    NHTPreconditioning,
    Preconditioner,
    RMSpropPreconditioner,
    product_of_masks,
    resolve_preconditioner,
    restore_preconditioner,
    taken_masks,
)
from grilly_optim.sampling.priors import (
    CompositePrior,
    GaussianPrior,
    Prior,
    Pull,
    describe_prior,
    pull_of,
    resolve_prior,
    restore_prior,
)
from grilly_optim.sampling.sketch import CountSketch

METHODS = ("sgld", "rmsprop_sgld", "sgnht")


@dataclass(frozen=True)
class _PriorOption:
    """What `resolve_prior` takes; the kernel's form of it."""

    def take(self, name: str, value: Any, where: str = "") -> Pull:
        return pull_of(resolve_prior(value, None, where))


@dataclass(frozen=True)
class _PreconditionerOption:
    """What `resolve_preconditioner` takes; the kernel's form of it."""

    def take(self, name: str, value: Any, where: str = "") -> Form:
        return resolve_preconditioner(value, None, where).form()


class Langevin(Sampler):
    """What SGLD and SGMCMC share: the rule `sgld`, or with RMSprop `rmsprop_sgld`."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {**Sampler.OPTIONS, "noise_level": Range(0)}
    RULE: ClassVar[Rule] = _rules.SGLD

    def _form(self, options: Options) -> Form:
        return Form()

    def _rule(self, options: Options) -> Rule:
        return having(_rules.SGLD if self._form(options).rmsprop is None else _rules.RMSPROP, self._present(options))

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        half, form, pull = options["lr"] / 2, self._form(options), self._pull(options)
        box = options["bounding_box_size"]
        spread = math.sqrt(options["lr"]) * options["noise_level"] * form.noise
        common = (
            half * options["nbeta"],
            half * pull.pull,
            half * pull.decay,
            spread,
            math.inf if box is None else box,
        )
        if form.rmsprop is None:
            return common
        alpha, eps = form.rmsprop
        return (*common, alpha, 1 - alpha, eps)


class SGMCMC(Langevin):
    r"""Stochastic gradient Langevin dynamics with a prior, a preconditioner, a mask and a box.

    For each element, with the gradient g of the loss, the prior's gradient r, a standard normal number z, the mask O,
    and G = 1, or 1 / (sqrt(V) + eps) of `RMSpropPreconditioner`::

        w = w - lr / 2 O G (nbeta g + r) + sqrt(lr) O sqrt(G) noise_level z

    and then, with `bounding_box_size` b, w is clamped to where it was at first, plus or minus b. Without preconditioner
    and mask, and for small lr, w samples exp(-nbeta loss(w)) prior(w). The prior does not come with nbeta.

    z follows from `seed`, the chain, the number of the step and the place of the element (docs/random.md): it is the
    same on every device, and `state_dict` continues it.

    Args:
        params: float32 or float64 arrays, moved in place: one array, a sequence, (name, array) pairs, a dict of names,
            or group dicts with options of their own, which may have ``"localization"``, the precision of a prior whose
            center is given (default 1).
        lr: Step size, above 0.
        noise_level: Factor of the noise, 0 or more; anything but 1 no longer samples that distribution.
        nbeta: Inverse temperature times the number of samples (see `default_nbeta`), above 0; or a function without
            arguments that gives it, called once per group and step.
        prior: None; a `Prior`; a number, the precision of a normal prior around the parameters as they are now;
            "initial", or arrays, its center.
        preconditioner: "identity" (None), "rmsprop", or a `Preconditioner`.
        preconditioner_kwargs: Arguments of `RMSpropPreconditioner` for "rmsprop".
        bounding_box_size: b, 0 or more; None: no box.
        mask: An array per parameter, of its shape (with `num_chains`, or of a row's): what of it moves. None in the
            list: all of it.
        save_metrics: Measure every step, see `get_metrics`.
        sketch_dim: Keep count sketches of every step, of that many numbers, see `get_sketches`. None: none.
        sketch_seed: What their hashes follow from.
        sketch: Their hashes, over the elements of all parameters of one chain, instead of ``CountSketch.create``'s.
        seed: Of the noise, 0 to 2^64 - 1.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".
        num_chains: C: every parameter, and its gradient, has shape (C, ...), and row c is chain c, with noise of its
            own. What a chain does depends neither on C nor on the other chains. None: one chain, no such axis.
        stream: Chain c draws from the random stream ``stream + c``.

    Raises:
        TypeError: A parameter that is no float32 or float64 array, float64 on a device without it, options of another
            type, or a prior or preconditioner that is none of this package.
        ValueError: A parameter that is read-only or overlaps another, an option out of range, masks or centers of
            another shape or in another number.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the state.

    State takes, per float32 element, 4 bytes each for the center of the prior, where the parameter was at first (with a
    box or metrics), the mask, and V.

    Source: `devinterp.optim.SGMCMC`; Welling & Teh, "Bayesian learning via stochastic gradient Langevin dynamics"
    (2011); Lau et al., "The local learning coefficient" (2023).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SGMCMC
        >>> w = np.zeros((1000, 2))  # 1000 chains
        >>> sampler = SGMCMC.sgld([w], lr=0.1, nbeta=4.0, num_chains=1000, device="numpy")
        >>> for _ in range(100):
        ...     sampler.step(gradients=[w - [1, 2]])  # of |w - (1, 2)|^2 / 2
        >>> w.mean(axis=0).round(1)
        array([1., 2.])
        >>> w.var(axis=0).round(1)  # 1 / (nbeta (1 - lr nbeta / 4))
        array([0.3, 0.3])
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **Langevin.OPTIONS,
        "prior": _PriorOption(),
        "preconditioner": _PreconditionerOption(),
        "localization": Kept(NoneType, "given when the group is made: it is part of the prior then"),
        "preconditioner_kwargs": Kept(NoneType, "given when the group is made: they are part of the preconditioner"),
    }

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        noise_level: float = 1.0,
        nbeta: Any = 1.0,
        prior: Any = None,
        preconditioner: Any = "identity",
        preconditioner_kwargs: Mapping[str, Any] | None = None,
        bounding_box_size: float | None = None,
        mask: Any = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
        sketch: CountSketch | None = None,
        seed: int = 0,
        device: str | None = None,
        num_chains: int | None = None,
        stream: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "noise_level": noise_level,
            "nbeta": nbeta,
            "prior": list(prior) if isinstance(prior, Iterator) else prior,
            "localization": None,
            "preconditioner": preconditioner,
            "preconditioner_kwargs": preconditioner_kwargs,
            "bounding_box_size": bounding_box_size,
            "mask": mask,
        }
        super().__init__(
            params,
            defaults,
            device,
            seed=seed,
            num_chains=num_chains,
            stream=stream,
            save_metrics=save_metrics,
            sketch_dim=sketch_dim,
            sketch_seed=sketch_seed,
            sketch=sketch,
        )

    @classmethod
    def sgld(
        cls,
        params: Any,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: Any = 1.0,
        bounding_box_size: float | None = None,
        mask: Any = None,
        save_metrics: bool = False,
        **others: Any,
    ) -> SGMCMC:
        """SGLD: no preconditioner, and normal priors around 0 (weight_decay) and the initial parameters (localization).

        Args:
            params: As for `SGMCMC`, and so are the others.
            lr: Step size.
            noise_level: Factor of the noise; a warning unless it is 1.
            weight_decay: Precision of the prior around 0, 0 or more.
            localization: Precision of the prior around the parameters as they are now, 0 or more.
            nbeta: Inverse temperature; a warning where it is 1.
            bounding_box_size: How far a coordinate may get.
            mask: What moves.
            save_metrics: Measure every step.
            **others: sketch_dim, sketch_seed, sketch, seed, device, num_chains and stream.

        Source: `devinterp.optim.SGMCMC.sgld`.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import SGMCMC
            >>> sampler = SGMCMC.sgld([np.ones(3)], lr=1e-4, nbeta=100.0, localization=10.0, device="numpy")
            >>> sampler.param_groups[0]["prior"]
            CompositePrior([GaussianPrior(10.0, center='initial')])
        """
        _warn(noise_level, nbeta)
        prior = _priors(weight_decay, localization)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=prior,
            bounding_box_size=bounding_box_size,
            mask=mask,
            save_metrics=save_metrics,
            **others,
        )

    @classmethod
    def rmsprop_sgld(
        cls,
        params: Any,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: Any = 1.0,
        alpha: float = 0.99,
        eps: float = 0.1,
        add_grad_correction: bool = False,
        bounding_box_size: float | None = None,
        mask: Any = None,
        save_metrics: bool = False,
        **others: Any,
    ) -> SGMCMC:
        """SGLD with RMSprop's preconditioner and the priors of `sgld`.

        Args:
            params: As for `sgld`, and so are the others.
            lr: Step size.
            noise_level: Factor of the noise.
            weight_decay: Precision of the prior around 0.
            localization: Precision of the prior around the parameters as they are now.
            nbeta: Inverse temperature.
            alpha: As for `RMSpropPreconditioner`.
            eps: As for `RMSpropPreconditioner`.
            add_grad_correction: As for `RMSpropPreconditioner`.
            bounding_box_size: How far a coordinate may get.
            mask: What moves.
            save_metrics: Measure every step.
            **others: sketch_dim, sketch_seed, sketch, seed, device, num_chains and stream.

        Source: `devinterp.optim.SGMCMC.rmsprop_sgld`.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import SGMCMC
            >>> sampler = SGMCMC.rmsprop_sgld([np.ones(3)], lr=1e-4, nbeta=100.0, device="numpy")
            >>> sampler.param_groups[0]["preconditioner"]
            RMSpropPreconditioner(alpha=0.99, eps=0.1)
        """
        _warn(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=_priors(weight_decay, localization),
            preconditioner=RMSpropPreconditioner(alpha, eps, add_grad_correction),
            bounding_box_size=bounding_box_size,
            mask=mask,
            save_metrics=save_metrics,
            **others,
        )

    @classmethod
    def sgnht(
        cls,
        params: Any,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        nbeta: Any = 1.0,
        bounding_box_size: float | None = None,
        mask: Any = None,
        save_metrics: bool = False,
        *,
        thermostat: bool = True,
        **others: Any,
    ) -> Sampler:
        """The stochastic gradient Nose-Hoover thermostat, `SGNHT`.

        Args:
            params: As for `SGMCMC`, and so are the others.
            lr: Step size. Note that `SGNHT` takes the whole of it where SGLD takes half.
            diffusion_factor: A, 0 or more.
            nbeta: Inverse temperature; a warning where it is 1.
            bounding_box_size: How far a coordinate may get.
            mask: What moves.
            save_metrics: Measure every step.
            thermostat: False gives what the original's factory gives, for comparison: its thermostat has no effect, and
                what is left is SGLD with the noise times sqrt(2 A), at the temperature 2 A (see `NHTPreconditioning`).
            **others: sketch_dim, sketch_seed, sketch, seed, device, num_chains and stream.

        Source: `devinterp.optim.SGMCMC.sgnht`; Ding et al., "Bayesian sampling using stochastic gradient thermostats"
        (2014).

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import SGMCMC
            >>> type(SGMCMC.sgnht([np.ones(3)], lr=1e-4, nbeta=100.0, device="numpy")).__name__
            'SGNHT'
        """
        if thermostat:
            from grilly_optim.sampling.sgnht import SGNHT

            return SGNHT(
                params,
                lr,
                diffusion_factor,
                bounding_box_size,
                nbeta,
                mask=mask,
                save_metrics=save_metrics,
                **others,
            )
        _warn(1.0, nbeta)
        return cls(
            params,
            lr=lr,
            nbeta=nbeta,
            preconditioner=NHTPreconditioning(diffusion_factor),
            bounding_box_size=bounding_box_size,
            mask=mask,
            save_metrics=save_metrics,
            **others,
        )

    @classmethod
    def get_method(cls, name: str) -> Any:
        """The factory of this name: "sgld", "rmsprop_sgld" or "sgnht".

        Raises:
            ValueError: Another name.

        Example:
            >>> from grilly_optim.sampling import SGMCMC
            >>> SGMCMC.get_method("sgld").__name__
            'sgld'
        """
        if name not in METHODS:
            raise ValueError(f"name must be one of {', '.join(map(repr, METHODS))}, got {name!r}")
        return getattr(cls, name)

    def _resolve(self, group: Group, index: int) -> None:
        where = f" of group {index}" if index else ""
        group["prior"] = resolve_prior(group["prior"], group["localization"], where)
        group["preconditioner"] = resolve_preconditioner(group["preconditioner"], group["preconditioner_kwargs"], where)
        group.update(localization=None, preconditioner_kwargs=None)
        super()._resolve(group, index)
        params, chains = group["params"], self.num_chains is not None
        if all(isinstance(p, np.ndarray) for p in params):
            for masks in group["preconditioner"].form().masks:
                taken_masks(masks, params, chains, where)
            try:
                pull_of(group["prior"]).centers(params, chains)
            except ValueError as error:
                raise ValueError(f"prior{where}: {error}") from None

    def _is_masked(self, options: Options) -> bool:
        return super()._is_masked(options) or bool(self._form(options).masks)

    def _masks(self, options: Options) -> tuple[Array, ...] | None:
        own = [] if options["mask"] is None else [options["mask"]]
        return product_of_masks([*own, *self._form(options).masks])

    def _check_options(self, options: list[Options]) -> None:
        super()._check_options(options)
        for k, (old, new) in enumerate(zip(self._options, options, strict=True)):
            before, after = (_flat(o["preconditioner"].masks) for o in (old, new))
            if len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=False)):
                raise ValueError(f"preconditioner of group {k} has another mask: build another sampler")

    def _form(self, options: Options) -> Form:
        form: Form = options["preconditioner"]
        return form

    def _pull(self, options: Options) -> Pull:
        pull: Pull = options["prior"]
        return pull

    def _saved_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """See `Recipe`."""
        prior: Prior | None = resolve_prior(group["prior"], None, "")
        preconditioner: Preconditioner = resolve_preconditioner(group["preconditioner"], None, "")
        plain = super()._saved_options({**group, "prior": None, "preconditioner": None})
        return {**plain, "prior": describe_prior(prior), "preconditioner": preconditioner.describe()}

    def _restored_options(self, saved: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        """See `Recipe`."""
        plain = {k: v for k, v in saved.items() if k not in ("prior", "preconditioner")}
        options = super()._restored_options(plain, group)
        if "prior" in saved:
            options["prior"] = restore_prior(saved["prior"], group["prior"], "")
        if "preconditioner" in saved:
            options["preconditioner"] = restore_preconditioner(saved["preconditioner"], group["preconditioner"], "")
        return options


def _flat(masks: tuple[tuple[Array, ...], ...]) -> list[Array]:
    return [mask for of_one in masks for mask in of_one]


def _priors(weight_decay: Any, localization: Any) -> CompositePrior:
    parts = []
    for name, value, center in (("weight_decay", weight_decay, None), ("localization", localization, "initial")):
        precision = Range(0).take(name, value)
        if precision > 0:
            parts.append(GaussianPrior(precision, center))
    return CompositePrior(parts)


def _warn(noise_level: Any, nbeta: Any) -> None:
    """Tell whoever builds a sampler that it is none of the posterior."""
    messages = []
    if isinstance(noise_level, Real) and noise_level != 1:
        messages.append(f"SGLD with noise_level={noise_level} does not sample the posterior: only noise_level=1 does")
    if isinstance(nbeta, Real) and nbeta == 1:
        messages.append("nbeta is 1: estimates of the local learning coefficient will be wrong; see default_nbeta")
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("grilly_optim."):
        level, frame = level + 1, frame.f_back
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=level)
