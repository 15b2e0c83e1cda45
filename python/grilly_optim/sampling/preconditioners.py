"""Preconditioners: by what factors gradient, prior and noise come into a step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim import random
from grilly_optim.optim._options import Range, Steady
from grilly_optim.sampling._options import own_array

Array = NDArray[Any]

__all__ = [
    "CompositePreconditioner",
    "IdentityPreconditioner",
    "MaskPreconditioner",
    "NHTPreconditioning",
    "Preconditioner",
    "PreconditionerCoefs",
    "RMSpropPreconditioner",
]


class PreconditionerCoefs(NamedTuple):
    """The factors of one step: d = overall (grad g + prior grad_prior), noise = overall noise z.

    Attributes:
        grad_coef: Of the gradient.
        prior_coef: Of the prior's gradient.
        noise_coef: Of the noise.
        overall_coef: Of all three.
        grad_correction: What would come on top of the gradient; steps do not use it. None: nothing.
    """

    grad_coef: Any = 1.0
    prior_coef: Any = 1.0
    noise_coef: Any = 1.0
    overall_coef: Any = 1.0
    grad_correction: Any = None


class Form(NamedTuple):
    """What the kernels know: RMSprop's decay and eps (None: no RMSprop), a factor of the noise, masks."""

    rmsprop: tuple[float, float] | None = None
    noise: float = 1.0
    masks: tuple[tuple[Array, ...], ...] = ()

    def __repr__(self) -> str:
        names = [] if self.rmsprop is None else [f"RMSprop{self.rmsprop}"]
        names += [] if self.noise == 1 else [f"noise times {self.noise:g}"]
        return " and ".join(names + ["a mask"] * bool(self.masks)) or "the identity"


class Preconditioner(Steady, ABC):
    """What samplers take as ``preconditioner``. Its kernel is in the sampler; this object names it, and its options."""

    @abstractmethod
    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        """The factors for one parameter, in NumPy, by itself: not part of a sampler's step.

        Args:
            param: The parameter.
            grad: The gradient of the loss, without nbeta.
            state: What is kept from step to step, by name; it is changed.
        """

    def form(self) -> Form:
        """As the kernels have it."""
        raise TypeError(
            "preconditioner must be one of this package, which the kernels know, or a CompositePreconditioner of "
            f"them, got {type(self).__name__}"
        )

    def describe(self) -> dict[str, Any]:
        """In plain containers, without its masks: those are arrays, and part of the state."""
        form = self.form()
        return {"rmsprop": form.rmsprop, "noise": form.noise}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class IdentityPreconditioner(Preconditioner):
    """All factors are 1.

    Source: `devinterp.optim.preconditioner.IdentityPreconditioner`.

    Example:
        >>> from grilly_optim.sampling import SGMCMC, IdentityPreconditioner
        >>> import numpy as np
        >>> SGMCMC([np.ones(2)], preconditioner=IdentityPreconditioner(), device="numpy").param_groups[0]["lr"]
        0.01
    """

    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        """See `Preconditioner`."""
        return PreconditionerCoefs()

    def form(self) -> Form:
        """See `Preconditioner`."""
        return Form()


class MaskPreconditioner(Preconditioner):
    """What of each parameter moves: gradient, prior and noise come with the mask as a factor.

    Args:
        masks: An array per parameter of the group, of its shape: 1 moves, 0 stays; between them, the noise's variance
            comes with the square.

    Raises:
        TypeError: Arrays that are not real.

    Source: `devinterp.optim.preconditioner.MaskPreconditioner`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import MaskPreconditioner
        >>> MaskPreconditioner([np.array([1.0, 0.0])]).get_coefficients(
        ...     np.ones(2), np.ones(2), {"param_idx": 0}
        ... ).overall_coef
        array([1., 0.], dtype=float32)
    """

    def __init__(self, masks: Iterable[Any]) -> None:
        self.masks = tuple(mask_array(mask, f"masks[{k}]") for k, mask in enumerate(masks))

    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        """See `Preconditioner`; ``state["param_idx"]`` says which mask is the parameter's."""
        if "param_idx" not in state:
            raise ValueError("state must have 'param_idx', which says which mask is the parameter's")
        return PreconditionerCoefs(overall_coef=self.masks[state["param_idx"]])

    def form(self) -> Form:
        """See `Preconditioner`."""
        return Form(masks=(self.masks,))


class RMSpropPreconditioner(Preconditioner):
    """RMSprop's: V = alpha V + (1 - alpha) g^2, G = 1 / (sqrt(V) + eps): gradient and prior times G, noise its root.

    V is made of the gradient of the loss as it is given, without nbeta and prior. The term for the change of G is left
    out, as in the original: the sampler is biased by that.

    Args:
        alpha: Decay, in [0, 1].
        eps: Added to the root, 0 or more; in units of the gradient.
        add_grad_correction: Not there, in the original neither.

    Raises:
        NotImplementedError: `add_grad_correction`.
        ValueError: A number out of its range.

    Source: `devinterp.optim.preconditioner.RMSpropPreconditioner`; Li et al., "Preconditioned stochastic gradient
    Langevin dynamics for deep neural networks" (2016).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import RMSpropPreconditioner
        >>> state = {}
        >>> RMSpropPreconditioner(alpha=0.75).get_coefficients(np.ones(1), np.array([2.0]), state).grad_coef.round(3)
        array([0.909])
        >>> state["square_avg"]
        array([1.])
    """

    def __init__(self, alpha: float = 0.99, eps: float = 0.1, add_grad_correction: bool = False) -> None:
        if add_grad_correction:
            raise NotImplementedError("add_grad_correction is not there: the term for the change of G is left out")
        self.alpha: float = Range(0, 1, closed=True).take("alpha", alpha)
        self.eps: float = Range(0).take("eps", eps)

    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        """See `Preconditioner`; V is ``state["square_avg"]``."""
        before = state.get("square_avg")
        mean = (1 - self.alpha) * grad * grad
        state["square_avg"] = mean if before is None else self.alpha * before + mean
        scale = 1 / (np.sqrt(state["square_avg"]) + self.eps)
        return PreconditionerCoefs(scale, scale, np.sqrt(scale))

    def form(self) -> Form:
        """See `Preconditioner`."""
        return Form((self.alpha, self.eps))

    def __repr__(self) -> str:
        return f"RMSpropPreconditioner(alpha={self.alpha}, eps={self.eps})"


class NHTPreconditioning(Preconditioner):
    """What the original calls a Nose-Hoover thermostat: noise times sqrt(2 A), and a correction that no step uses.

    That is SGLD at the temperature 2 A. For the thermostat itself use `SGNHT` or ``SGMCMC.sgnht``.

    Args:
        diffusion_factor: A, 0 or more.
        eps: Has no effect.

    Raises:
        ValueError: A number out of its range.

    Source: `devinterp.optim.preconditioner.NHTPreconditioning`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import NHTPreconditioning
        >>> state = {"momentum": np.array([2.0, 0.0])}
        >>> NHTPreconditioning(0.5).get_coefficients(np.ones(2), np.ones(2), state).grad_correction
        array([-1., -0.])
        >>> float(state["thermostat"])
        1.5
    """

    def __init__(self, diffusion_factor: float = 0.01, eps: float = 1e-8) -> None:
        self.diffusion_factor: float = Range(0).take("diffusion_factor", diffusion_factor)
        self.eps: float = Range(0).take("eps", eps)

    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        """See `Preconditioner`; the correction is minus ``state["thermostat"]`` times ``state["momentum"]``.

        A momentum that is not there yet is drawn.
        """
        if "momentum" not in state:
            # Another stream for each parameter.
            stream = state.get("param_idx", 0)
            state["momentum"] = random.normal(
                param.shape, 0, stream, purpose="momentum", dtype=param.dtype, device="numpy"
            )
        xi = state.setdefault("thermostat", np.float32(self.diffusion_factor))
        momentum = state["momentum"]
        # Rounded where the original rounds: what is added is the same in every step, and an error in it adds up.
        energy = np.sum(momentum * momentum, dtype=np.float32) / np.float32(momentum.size)
        state["thermostat"] = np.float32(xi + (energy - 1))
        return PreconditionerCoefs(
            noise_coef=np.sqrt(np.float32(2 * self.diffusion_factor)), grad_correction=-xi * momentum
        )

    def form(self) -> Form:
        """See `Preconditioner`."""
        return Form(noise=math.sqrt(2 * self.diffusion_factor))

    def __repr__(self) -> str:
        return f"NHTPreconditioning(diffusion_factor={self.diffusion_factor})"


class CompositePreconditioner(Preconditioner):
    """Several of them: their factors are multiplied, their corrections added.

    Args:
        preconditioners: The preconditioners; one RMSprop at most can be run by a sampler.

    Raises:
        TypeError: Something else.

    Source: `devinterp.optim.preconditioner.CompositePreconditioner`. Unlike there, the object is a composite even where
    it has one member or none.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import CompositePreconditioner, MaskPreconditioner, RMSpropPreconditioner
        >>> both = CompositePreconditioner([RMSpropPreconditioner(), MaskPreconditioner([np.array([0.0, 1.0])])])
        >>> both.get_coefficients(np.ones(2), np.ones(2), {"param_idx": 0}).overall_coef
        array([0., 1.], dtype=float32)
    """

    def __init__(self, preconditioners: Iterable[Preconditioner]) -> None:
        self.preconditioners = tuple(preconditioners)
        for k, one in enumerate(self.preconditioners):
            if not isinstance(one, Preconditioner):
                raise TypeError(f"preconditioners[{k}] must be a Preconditioner, got {type(one).__name__}")

    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        """See `Preconditioner`."""
        total = PreconditionerCoefs()
        for one in self.preconditioners:
            *factors, correction = one.get_coefficients(param, grad, state)
            both = [c for c in (total.grad_correction, correction) if c is not None]
            scale, prior, noise, overall = (a * b for a, b in zip(total[:4], factors, strict=True))
            total = PreconditionerCoefs(scale, prior, noise, overall, sum(both[1:], both[0]) if both else None)
        return total

    def form(self) -> Form:
        """See `Preconditioner`."""
        forms = [one.form() for one in self.preconditioners]
        rmsprops = [form.rmsprop for form in forms if form.rmsprop is not None]
        if len(rmsprops) > 1:
            raise ValueError("preconditioner has more than one RMSprop: they would share one mean square")
        masks = tuple(masks for form in forms for masks in form.masks)
        return Form(rmsprops[0] if rmsprops else None, math.prod(form.noise for form in forms), masks)

    def __repr__(self) -> str:
        return f"CompositePreconditioner([{', '.join(map(repr, self.preconditioners))}])"


class _Restored(Preconditioner):
    """Out of a state dict."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def get_coefficients(self, param: Array, grad: Array, state: dict[str, Any]) -> PreconditionerCoefs:
        own = IdentityPreconditioner() if self._form.rmsprop is None else RMSpropPreconditioner(*self._form.rmsprop)
        found = own.get_coefficients(param, grad, state)
        return found._replace(noise_coef=found.noise_coef * self._form.noise)

    def form(self) -> Form:
        return self._form

    def __repr__(self) -> str:
        return f"<preconditioner out of a state dict: {self._form}>"


def mask_array(mask: Any, who: str) -> Array:
    """A mask as an array of its own."""
    array = own_array(mask, who).astype(np.float32)
    if not np.all((array >= 0) & (array < np.inf)):
        raise ValueError(f"{who} must hold finite numbers, 0 or more, got {array.min()} to {array.max()}")
    array.setflags(write=False)
    return array


def resolve_preconditioner(given: Any, kwargs: Mapping[str, Any] | None, where: str) -> Preconditioner:
    """What a caller gives as ``preconditioner``, as an object.

    Raises:
        TypeError: Options for one that takes none.
        ValueError: No preconditioner of this package.
    """
    if isinstance(given, str) and given == "rmsprop":
        return RMSpropPreconditioner(**(kwargs or {}))
    if kwargs:
        raise TypeError(f"preconditioner_kwargs{where} are for preconditioner='rmsprop', got {dict(kwargs)!r}")
    if given is None or (isinstance(given, str) and given == "identity"):
        return IdentityPreconditioner()
    if not isinstance(given, Preconditioner):
        raise ValueError(f"preconditioner{where} must be 'identity', 'rmsprop' or a Preconditioner, got {given!r}")
    return given


def restore_preconditioner(saved: Any, current: Preconditioner, where: str) -> Preconditioner:
    """The preconditioner of a description: the current one where that says the same.

    Raises:
        ValueError: It is no such description.
    """
    try:
        rmsprop, noise = saved["rmsprop"], saved["noise"]
        form = Form(None, Range(0).take("noise", noise))
        if rmsprop is not None:
            alpha, eps = rmsprop
            form = form._replace(rmsprop=RMSpropPreconditioner(alpha, eps).form().rmsprop)
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"preconditioner{where} in state_dict must be a dict, got {saved!r}") from None
    return current if current.form()[:2] == form[:2] else _Restored(form)


def taken_masks(masks: Sequence[Any], params: Sequence[Array], chains: bool, where: str) -> tuple[Array, ...]:
    """Masks of the parameters of a group. With `chains`, one may be given once for all rows; None is 1 everywhere.

    Raises:
        TypeError: A mask that is not real.
        ValueError: A wrong number or shape, or numbers out of range.
    """
    if len(masks) != len(params):
        raise ValueError(f"mask{where} has {len(masks)} arrays for {len(params)} parameters")
    result = []
    for k, (mask, p) in enumerate(zip(masks, params, strict=True)):
        array = mask_array(np.ones(p.shape) if mask is None else mask, f"mask[{k}]{where}")
        if array.shape != p.shape and not (chains and array.shape == p.shape[1:]):
            raise ValueError(f"mask[{k}]{where} has shape {array.shape}, expected {p.shape}")
        result.append(array)
    return tuple(result)


def product_of_masks(masks: Iterable[Sequence[Array]]) -> tuple[Array, ...] | None:
    """What moves where all of these say so; None where there are none."""
    product: tuple[Array, ...] | None = None
    for one in masks:
        product = tuple(one) if product is None else tuple(a * b for a, b in zip(product, one, strict=True))
    return product
