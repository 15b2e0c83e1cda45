"""Samplers with a momentum and a friction that stays: SGHMC, BAOA, BAOAB."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Option, Options, Range
from grilly_optim.optim._past import Past
from grilly_optim.sampling import _momentum_rules
from grilly_optim.sampling._sampler import Array, Arrays, Sampler
from grilly_optim.sampling.priors import Pull, pull_of_numbers

_SIGMA = Range(1e-100, 1e100, closed=True)  # its square and what that divides are numbers


class Momentum(Sampler):
    """What the samplers of this file share: the prior in numbers, and momenta that begin in their stationary law."""

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **Sampler.OPTIONS,
        "sigma": _SIGMA,
        "temperature": Range(0),
        "weight_decay": Range(0),
        "localization": Range(0),
    }

    def __init__(
        self,
        params: Any,
        own: Mapping[str, Any],
        *,
        lr: float,
        sigma: float,
        temperature: float,
        nbeta: Any,
        weight_decay: float,
        localization: float,
        bounding_box_size: float | None,
        mask: Any,
        device: str | None,
        **settings: Any,
    ) -> None:
        defaults = {
            "lr": lr,
            **own,
            "sigma": sigma,
            "temperature": temperature,
            "nbeta": nbeta,
            "weight_decay": weight_decay,
            "localization": localization,
            "bounding_box_size": bounding_box_size,
            "mask": mask,
        }
        super().__init__(params, defaults, device, **settings)

    def _pull(self, options: Options) -> Pull:
        return pull_of_numbers(options["weight_decay"], options["localization"])

    def _present(self, options: Options) -> tuple[str, ...]:
        # The initial parameters are the one center there is.
        present = [name for name in super()._present(options) if name != "center"]
        if self._pull(options).pull > 0 and "start" not in present:
            present.insert(0, "start")
        return tuple(present)

    def _momentum_scale(self, options: Options) -> float:
        return float(options["sigma"] * math.sqrt(options["temperature"]))

    def _kick(self, options: Options) -> tuple[float, float, float]:
        h = options["lr"]
        return h * options["nbeta"], h * options["localization"], h * options["weight_decay"]


def _box(options: Options) -> float:
    box = options["bounding_box_size"]
    return math.inf if box is None else float(box)


class SGHMC(Momentum):
    r"""Stochastic gradient Hamiltonian Monte Carlo.

    For each element, with f = nbeta g + weight_decay w + localization (w - w0), the gradient g of the loss, the initial
    value w0, a standard normal number z and h = lr::

        w = w + h m / sigma^2                                           (the old m)
        m = m - h f - h alpha m / sigma^2 + sqrt(temperature h (2 alpha - temperature h beta)) z      (f at the old w)

    It samples exp(-nbeta loss(w) / temperature) times the prior to that power, for small h. The momenta begin as sigma
    sqrt(temperature) times standard normal numbers. With a box, w is clamped, and a momentum that led to its faces
    or out of it turns around.

    Args:
        params: As for `SGMCMC`.
        lr: The step h, above 0.
        alpha: Friction, 0 or more.
        beta: Estimate of the gradients' noise, 0 or more; temperature lr beta is at most 2 alpha.
        sigma: Standard deviation of the momenta, whose square is the mass; 1e-100 to 1e100.
        temperature: 0 or more.
        nbeta: As for `SGMCMC`.
        weight_decay: Precision of a normal prior around 0, 0 or more.
        localization: Precision of a normal prior around the initial parameters, 0 or more.
        bounding_box_size: As for `SGMCMC`.
        mask: As for `SGMCMC`; 0 and 1 make sense.
        save_metrics: Measure every step, see `get_metrics`: the parts are those of the momentum's change, with lr where
            `Metrics` has lr / 2.
        seed: Of the noise and the first momenta, 0 to 2^64 - 1.
        momentum: Standard normal numbers for the first momenta instead of drawn ones, one array per parameter.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".
        num_chains: As for `SGMCMC`.
        stream: As for `SGMCMC`.

    Raises:
        TypeError: As for `SGMCMC`.
        ValueError: As for `SGMCMC`; temperature lr beta above 2 alpha.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the momenta.

    Source: Chen, Fox & Guestrin, "Stochastic gradient Hamiltonian Monte Carlo" (2014); `posteriors.sgmcmc.sghmc`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SGHMC
        >>> w = np.zeros(10_000)
        >>> sampler = SGHMC([w], lr=0.02, alpha=2.0, nbeta=4.0, device="numpy")
        >>> for _ in range(400):
        ...     sampler.step(gradients=[w])  # of w^2 / 2
        >>> float(w.var().round(2))  # 1 / nbeta
        0.26
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {**Momentum.OPTIONS, "alpha": Range(0), "beta": Range(0)}
    RULE: ClassVar[Rule] = _momentum_rules.SGHMC

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        alpha: float = 0.01,
        beta: float = 0.0,
        sigma: float = 1.0,
        temperature: float = 1.0,
        nbeta: Any = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        bounding_box_size: float | None = None,
        mask: Any = None,
        save_metrics: bool = False,
        seed: int = 0,
        momentum: Arrays | None = None,
        device: str | None = None,
        num_chains: int | None = None,
        stream: int = 0,
    ) -> None:
        super().__init__(
            params,
            {"alpha": alpha, "beta": beta},
            lr=lr,
            sigma=sigma,
            temperature=temperature,
            nbeta=nbeta,
            weight_decay=weight_decay,
            localization=localization,
            bounding_box_size=bounding_box_size,
            mask=mask,
            device=device,
            seed=seed,
            num_chains=num_chains,
            stream=stream,
            save_metrics=save_metrics,
            momentum=momentum,
        )

    def _initial(self, options: Options, params: list[Array]) -> dict[str, Sequence[Array]]:
        self._spread(options)  # refused before there is a step
        return super()._initial(options, params)

    @staticmethod
    def _spread(options: Options) -> float:
        heat, alpha = options["temperature"], options["alpha"]
        known = heat * options["lr"] * options["beta"]
        if known > 2 * alpha:
            raise ValueError(f"temperature * lr * beta must be at most 2 * alpha = {2 * alpha}, got {known}")
        return math.sqrt(heat * options["lr"] * (2 * alpha - known))

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        drift = options["lr"] / options["sigma"] ** 2
        return *self._kick(options), drift, drift * options["alpha"], self._spread(options), _box(options)


class BAOA(Momentum):
    r"""Langevin dynamics, split: kick, half drift, friction and noise, half drift.

    For each element, with f as in `SGHMC`, h = lr and k = exp(-h alpha / sigma^2)::

        m = m - h f
        w = w + h / 2 m / sigma^2
        m = k m + sigma sqrt(temperature (1 - k^2)) z
        w = w + h / 2 m / sigma^2

    It samples what `SGHMC` samples, with an error of the second order in h. The momenta begin as there, and box, mask
    and metrics are those of `SGHMC`.

    Args:
        params: As for `SGMCMC`.
        lr: The step h, above 0.
        alpha: Friction, 0 or more.
        sigma: Standard deviation of the momenta, whose square is the mass; 1e-100 to 1e100.
        temperature: 0 or more.
        nbeta: As for `SGMCMC`.
        weight_decay: Precision of a normal prior around 0, 0 or more.
        localization: Precision of a normal prior around the initial parameters, 0 or more.
        bounding_box_size: As for `SGMCMC`.
        mask: As for `SGHMC`.
        save_metrics: As for `SGHMC`.
        seed: Of the noise and the first momenta, 0 to 2^64 - 1.
        momentum: As for `SGHMC`.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".
        num_chains: As for `SGMCMC`.
        stream: As for `SGMCMC`.

    Raises:
        TypeError: As for `SGMCMC`.
        ValueError: As for `SGMCMC`.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the momenta.

    Source: Leimkuhler & Matthews, "Rational construction of stochastic numerical methods for molecular sampling"
    (2013); `posteriors.sgmcmc.baoa`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import BAOA
        >>> w = np.zeros(10_000)
        >>> sampler = BAOA([w], lr=0.1, alpha=2.0, nbeta=4.0, device="numpy")
        >>> for _ in range(100):
        ...     sampler.step(gradients=[w])  # of w^2 / 2
        >>> float(w.var().round(2))  # 1 / nbeta
        0.25
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {**Momentum.OPTIONS, "alpha": Range(0)}
    RULE: ClassVar[Rule] = _momentum_rules.BAOA

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        alpha: float = 0.01,
        sigma: float = 1.0,
        temperature: float = 1.0,
        nbeta: Any = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        bounding_box_size: float | None = None,
        mask: Any = None,
        save_metrics: bool = False,
        seed: int = 0,
        momentum: Arrays | None = None,
        device: str | None = None,
        num_chains: int | None = None,
        stream: int = 0,
    ) -> None:
        super().__init__(
            params,
            {"alpha": alpha},
            lr=lr,
            sigma=sigma,
            temperature=temperature,
            nbeta=nbeta,
            weight_decay=weight_decay,
            localization=localization,
            bounding_box_size=bounding_box_size,
            mask=mask,
            device=device,
            seed=seed,
            num_chains=num_chains,
            stream=stream,
            save_metrics=save_metrics,
            momentum=momentum,
        )

    def _scalars(self, options: Options, past: Past) -> tuple[float, ...]:
        h, mass, heat = options["lr"], options["sigma"] ** 2, options["temperature"]
        rate = h * options["alpha"] / mass
        spread = math.sqrt(heat * mass * -math.expm1(-2 * rate))
        return *self._kick(options), h / (2 * mass), math.exp(-rate), spread, _box(options)


class BAOAB(BAOA):
    r"""Langevin dynamics, split: half kick, half drift, friction and noise, half drift, half kick.

    The recurrence is `BAOA`'s, with half a kick in the first step: the half kick that ends a step takes the gradient
    where the next one begins, and is made together with the half kick that begins it. A step that only some parameters
    are in is a first step where it is the sampler's first.

    Args:
        params: As for `SGMCMC`.
        lr: The step h, above 0.
        alpha: Friction, 0 or more (gamma in the literature, for sigma = 1).
        sigma: As for `BAOA`.
        temperature: 0 or more.
        nbeta: As for `SGMCMC`.
        weight_decay: As for `BAOA`.
        localization: As for `BAOA`.
        bounding_box_size: As for `SGMCMC`.
        mask: As for `SGHMC`.
        save_metrics: As for `SGHMC`.
        seed: Of the noise and the first momenta, 0 to 2^64 - 1.
        momentum: As for `SGHMC`.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".
        num_chains: As for `SGMCMC`.
        stream: As for `SGMCMC`.

    Raises:
        TypeError: As for `SGMCMC`.
        ValueError: As for `SGMCMC`.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the momenta.

    Source: Leimkuhler & Matthews (2013); `sgmcmcjax.kernels.build_baoab_kernel`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import BAOAB
        >>> w = np.zeros(10_000)
        >>> sampler = BAOAB([w], lr=0.1, alpha=2.0, nbeta=4.0, device="numpy")
        >>> for _ in range(100):
        ...     sampler.step(gradients=[w])  # of w^2 / 2
        >>> float(w.var().round(2))  # 1 / nbeta
        0.25
    """

    def _kick(self, options: Options) -> tuple[float, float, float]:
        kick = super()._kick(options)
        return kick if max(self._pasts) > 0 else (kick[0] / 2, kick[1] / 2, kick[2] / 2)
