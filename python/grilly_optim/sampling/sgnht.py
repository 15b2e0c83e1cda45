"""The stochastic gradient Nose-Hoover thermostat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Option, Options, Range
from grilly_optim.optim._parameters import Group
from grilly_optim.optim._past import Past, Pasts
from grilly_optim.optim._plans import Plans, Rows
from grilly_optim.sampling import _rules
from grilly_optim.sampling._sampler import Array, Arrays, Sampler
from grilly_optim.sampling.priors import Pull
from grilly_optim.sampling.sgmcmc import _warn
from grilly_optim.sampling.sketch import CountSketch


class SGNHT(Sampler):
    r"""The stochastic gradient Nose-Hoover thermostat: friction that follows the noise there is in the gradients.

    For each element, with the gradient g of the loss and a standard normal number z::

        m = m - lr nbeta g
        m = m - xi m + sqrt(2 lr A) z
        w = w + m

    and then, with the mean square of all momenta of the group, xi = xi + mean(m^2) - lr. The momenta begin as
    sqrt(lr) times standard normal numbers, xi as A = diffusion_factor. Each chain has a xi of its own. With a box, w is
    clamped, and a momentum that led to its faces or out of it turns around. For small A, w samples exp(-nbeta loss(w));
    there is no prior.

    ``param_groups[k]["thermostat"]`` is xi of group k: a number, or with chains a tuple of one per chain. The momenta
    are drawn when the sampler is built, with the `lr` of then.

    Args:
        params: As for `SGMCMC`.
        lr: Step size, above 0: all of it, where SGLD takes half.
        diffusion_factor: A, 0 or more.
        bounding_box_size: How far a coordinate may get from where it was at first. None: no box.
        nbeta: As for `SGMCMC`; a warning where it is 1.
        mask: As for `SGMCMC`; 0 and 1 only.
        save_metrics: Measure every step, see `get_metrics`: scaled_grad and unscaled_grad are of lr nbeta g, noise of
            sqrt(2 lr A) z.
        sketch_dim: As for `SGMCMC`.
        sketch_seed: As for `SGMCMC`.
        sketch: As for `SGMCMC`.
        seed: Of the noise and the first momenta, 0 to 2^64 - 1.
        momentum: Standard normal numbers for the first momenta instead of drawn ones, one array per parameter.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".
        num_chains: As for `SGMCMC`.
        stream: As for `SGMCMC`.

    Raises:
        TypeError: As for `SGMCMC`.
        ValueError: As for `SGMCMC`.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the momenta.

    Source: `devinterp.optim.SGNHT`; Ding et al., "Bayesian sampling using stochastic gradient thermostats" (2014).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SGNHT
        >>> w = np.zeros(10_000)
        >>> sampler = SGNHT([w], lr=0.01, nbeta=4.0, device="numpy")
        >>> for _ in range(1000):
        ...     sampler.step(gradients=[w])  # of w^2 / 2
        >>> bool(abs(w.var() - 1 / 4) < 0.02)
        True
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {**Sampler.OPTIONS, "diffusion_factor": Range(0)}
    RULE: ClassVar[Rule] = _rules.SGNHT

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        bounding_box_size: float | None = None,
        nbeta: Any = 1.0,
        *,
        mask: Any = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
        sketch: CountSketch | None = None,
        seed: int = 0,
        momentum: Arrays | None = None,
        device: str | None = None,
        num_chains: int | None = None,
        stream: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "diffusion_factor": diffusion_factor,
            "bounding_box_size": bounding_box_size,
            "nbeta": nbeta,
            "mask": mask,
            "thermostat": None,
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
            momentum=momentum,
        )
        _warn(1.0, nbeta)

    def _resolve(self, group: Group, index: int) -> None:
        super()._resolve(group, index)
        for mask in group["mask"] or ():
            if not np.all((mask == 0) | (mask == 1)):
                raise ValueError("mask of SGNHT must be 0 or 1: a momentum cannot move a part of the way")
        if group["thermostat"] is None:
            start = Range(0).take("diffusion_factor", group["diffusion_factor"], f" of group {index}" if index else "")
            group["thermostat"] = self._as_option(np.full(self._rows_each, start))
        self._thermostat(group, index)

    def _pull(self, options: Options) -> Pull:
        return Pull(0.0, 0.0, ())

    def _momentum_scale(self, options: Options) -> float:
        return math.sqrt(options["lr"])

    def _as_option(self, xi: Array) -> float | tuple[float, ...]:
        """As groups have it."""
        return float(xi[0]) if self.num_chains is None else tuple(xi.tolist())

    def _thermostat(self, group: Mapping[str, Any], k: int) -> Array:
        """The xi of each chain of a group."""
        given = group.get("thermostat")
        shape = () if self.num_chains is None else (self.num_chains,)
        try:
            found = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            found = np.zeros(0)
        if given is None or found.shape != shape:
            expected = "a number" if self.num_chains is None else f"{self.num_chains} numbers, one per chain"
            raise ValueError(f"thermostat of group {k} must be {expected}, got {given!r}")
        return found.reshape(-1)

    def _restored_options(self, saved: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
        options = super()._restored_options(saved, group)
        self._thermostat({**group, **options}, 0)
        return options

    def _take(self, groups: list[Group], options: list[Options], plans: Plans, pasts: Pasts) -> None:
        chains = self._rows_each
        # Every chain of every parameter has the row of its own thermostat.
        self._rows_of = [
            (np.repeat(np.zeros(len(own.members)) if of is None else of, chains) * chains)
            + np.tile(np.arange(chains), len(own.members))
            for own, of in zip(plans.launches, plans.index, strict=True)
        ]
        self._rows_of = [index.astype(np.uint32) for index in self._rows_of]
        super()._take(groups, options, plans, pasts)

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        box = options["bounding_box_size"]
        spread = math.sqrt(2 * options["lr"] * options["diffusion_factor"])
        return options["lr"] * options["nbeta"], options["xi"], spread, math.inf if box is None else box

    def _all_rows(self) -> tuple[list[Rows], list[Any]]:
        """Every chain of a group has its own."""
        self._used = [self._thermostat(group, k) for k, group in enumerate(self.param_groups)]
        now = [self._now(o, k) for k, o in enumerate(self._options)]
        scalars = [
            [self._scalars({**o, "xi": float(xi)}, 0) for xi in of] for o, of in zip(now, self._used, strict=True)
        ]
        return [[row for k in groups for row in scalars[k]] for groups in self._plans.groups], self._rows_of

    def _follow(self, sums: Array, numel: Array) -> None:
        squares = sums[:, :, self._sums.index("mm")]
        for k, (energy, n, xi) in enumerate(zip(squares, numel, self._used, strict=True)):
            with np.errstate(all="ignore"):
                change = np.where(n > 0, energy / np.maximum(n, 1) - self._options[k]["lr"], 0.0)
                after = xi + change
            self.param_groups[k]["thermostat"] = self._as_option(after)
