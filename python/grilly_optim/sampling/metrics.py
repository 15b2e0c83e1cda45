"""How large the parts of a step are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Sums of the rules -> norms and inner products.
_NORMS = {
    "scaled_grad": "gg",
    "unscaled_grad": "uu",
    "localization": "ll",
    "weight_decay": "ww",
    "noise": "nn",
    "distance": "dd",
}
_PRODUCTS = {"dot_grad_prior": "g_prior", "dot_grad_noise": "g_noise", "dot_prior_noise": "prior_noise"}


@dataclass
class Metrics:
    """L2 norms and inner products of the parts of the last step: float32, one number per chain.

    Squares are taken in the parameter's precision: parts of less than 1e-19 or more than 1e19 leave that of float32.

    With the preconditioner's factors (overall O, gradient G, noise N), before the box::

        w = w - (scaled_grad + localization + weight_decay) + noise

    Attributes:
        scaled_grad: Of lr / 2 O G nbeta g.
        unscaled_grad: Of lr / 2 nbeta g, without preconditioner and mask.
        localization: Of the pull of the priors that have a center.
        weight_decay: Of the pull of those at 0.
        noise: Of sqrt(lr) N O noise_level z.
        distance: From where the parameter was when the sampler was built to where it was before the step.
        dot_grad_prior: Inner product of scaled_grad and localization + weight_decay.
        dot_grad_noise: Of scaled_grad and noise.
        dot_prior_noise: Of localization + weight_decay and noise.
        numel: How many elements of the first chain can move and had a gradient.

    Source: `devinterp.optim.metrics.Metrics`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SGMCMC
        >>> w = np.array([3.0, 4.0])
        >>> sampler = SGMCMC([w], lr=0.5, nbeta=4.0, save_metrics=True, device="numpy")
        >>> sampler.step(gradients=[w.copy()])
        >>> sampler.get_metrics().scaled_grad
        array([5.], dtype=float32)
    """

    scaled_grad: Floats
    unscaled_grad: Floats
    localization: Floats
    weight_decay: Floats
    noise: Floats
    distance: Floats
    dot_grad_prior: Floats
    dot_grad_noise: Floats
    dot_prior_noise: Floats
    numel: int = 0

    @classmethod
    def zero(cls, chains: int) -> Metrics:
        """Before the first step."""
        zeros = {field: np.zeros(chains, np.float32) for field in (*_NORMS, *_PRODUCTS)}
        return cls(**zeros, numel=0)

    @property
    def prior(self) -> Floats:
        """The root of the squares of localization and weight_decay: the norm of both where they are orthogonal."""
        return np.hypot(self.localization, self.weight_decay)

    def take(self, sums: NDArray[np.float64], names: Sequence[str], numel: int) -> None:
        """Set everything from the sums of a step, (chains, names)."""
        at = {name: sums[:, k] for k, name in enumerate(names)}
        at.setdefault("uu", at.get("gg", np.zeros(len(sums))))  # where nothing scales the gradient
        none = np.zeros(len(sums))
        with np.errstate(all="ignore"):
            for field, name in _NORMS.items():
                setattr(self, field, np.sqrt(at.get(name, none)).astype(np.float32))
            for field, name in _PRODUCTS.items():
                setattr(self, field, at.get(name, none).astype(np.float32))
        self.numel = numel

    @classmethod
    def total(cls, parts: Sequence[Metrics]) -> Metrics:
        """Of several groups together."""
        result: dict[str, Any] = {}
        for field in _NORMS:
            squares = [np.square(getattr(m, field), dtype=np.float64) for m in parts]
            result[field] = np.sqrt(sum(squares)).astype(np.float32)
        for field in _PRODUCTS:
            result[field] = sum(getattr(m, field).astype(np.float64) for m in parts).astype(np.float32)
        return cls(**result, numel=sum(m.numel for m in parts))
