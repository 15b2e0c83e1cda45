"""SGLD, with numbers instead of priors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from grilly_optim.optim._options import Option, Options, Range
from grilly_optim.sampling.priors import Pull, pull_of_numbers
from grilly_optim.sampling.sgmcmc import Langevin, _warn
from grilly_optim.sampling.sketch import CountSketch


class SGLD(Langevin):
    """Stochastic gradient Langevin dynamics, localized around the initial parameters.

    For each element, with the gradient g of the loss, the initial value w0 and a standard normal number z::

        w = w - lr / 2 (nbeta g + weight_decay w + localization (w - w0)) + sqrt(lr) noise_level z

    `SGMCMC.sgld` does the same with prior objects; here the precisions are options of the groups, which schedules and
    callers may change. A parameter without a gradient stays as it is.

    Args:
        params: As for `SGMCMC`; groups may have ``"mask"`` too.
        lr: Step size, above 0.
        noise_level: Factor of the noise, 0 or more; a warning unless it is 1.
        weight_decay: Precision of a prior around 0, 0 or more.
        localization: Precision of a prior around the initial parameters, 0 or more.
        nbeta: As for `SGMCMC`; a warning where it is 1.
        bounding_box_size: How far a coordinate may get from w0; 0 keeps it there. None: no box.
        save_metrics: Measure every step, see `get_metrics`.
        sketch_dim: As for `SGMCMC`.
        sketch_seed: As for `SGMCMC`.
        sketch: As for `SGMCMC`.
        seed: Of the noise, 0 to 2^64 - 1.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".
        num_chains: As for `SGMCMC`.
        stream: As for `SGMCMC`.

    Raises:
        TypeError: As for `SGMCMC`.
        ValueError: As for `SGMCMC`; `localization` that was 0 in the first step and is not any more, or the other way
            round; a box that comes or goes after a step (one of infinite size may change).
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the state.

    Source: `devinterp.optim.SGLD`; Welling & Teh, "Bayesian learning via stochastic gradient Langevin dynamics" (2011).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SGLD
        >>> w = np.ones(100_000)
        >>> sampler = SGLD([w], lr=0.1, nbeta=4.0, localization=4.0, device="numpy")
        >>> for _ in range(50):
        ...     sampler.step(gradients=[w])  # of w^2 / 2
        >>> float(w.mean().round(1))  # between the loss's minimum and the initial value
        0.5
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {**Langevin.OPTIONS, "weight_decay": Range(0), "localization": Range(0)}

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: Any = 1.0,
        bounding_box_size: float | None = None,
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
            "weight_decay": weight_decay,
            "localization": localization,
            "nbeta": nbeta,
            "bounding_box_size": bounding_box_size,
            "mask": None,
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
        _warn(noise_level, nbeta)

    def _pull(self, options: Options) -> Pull:
        return pull_of_numbers(options["weight_decay"], options["localization"])
