"""How often a Metropolis test would accept the steps of Langevin dynamics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Sequence[Array]

# What a Langevin step may have for the formula to be that of its proposals.
KNOWN = ("lr", "nbeta", "localization", "weight_decay", "save_metrics")


def mala_acceptance(
    before: Arrays,
    after: Arrays,
    loss_before: Any,
    loss_after: Any,
    grad_before: Sequence[Array | None],
    grad_after: Sequence[Array | None],
    *,
    lr: float,
    nbeta: float,
    localization: float = 0.0,
    weight_decay: float = 0.0,
    anchor: Arrays | None = None,
    chains: bool = False,
) -> Any:
    r"""The probability that the Metropolis-adjusted Langevin algorithm would accept a step of SGLD.

    With U(w) = nbeta loss(w) + localization / 2 \|w - anchor\|^2 + weight_decay / 2 \|w\|^2, and q(w'|w) the normal
    density of a step, whose mean is w - lr / 2 dU(w) and whose variance is lr::

        min(1, exp(U(w) - U(w') + ln q(w|w') - ln q(w'|w)))

    Near 1 the chain follows the continuous dynamics, whose stationary law is exp(-U). Far below, lr is too large: the
    chain samples something wider. With minibatches the difference of two losses on different data gets in as well.

    Args:
        before: w, as a list of arrays.
        after: w'.
        loss_before: loss(w); with `chains` an array (C,).
        loss_after: loss(w').
        grad_before: The gradient of the loss at w; None for a parameter that does not move.
        grad_after: The same at w'.
        lr: Step size of the sampler.
        nbeta: As for the sampler.
        localization: As for the sampler.
        weight_decay: As for the sampler.
        anchor: The center of the localization; needed where that is not 0.
        chains: The first axis of every array is the chain's.

    Returns:
        A float, or with `chains` an array (C,) in float64.

    Raises:
        ValueError: localization without anchor.

    Source: Roberts & Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations"
    (1996).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import mala_acceptance
        >>> w, v = [np.array([0.5, 0.1])], [np.array([1.0, 0.0])]  # the loss is |w|^2 / 2, its gradient w
        >>> mala_acceptance(w, v, 0.13, 0.5, w, v, lr=0.1, nbeta=10.0).round(4)
        np.float64(0.3965)
    """
    if localization and anchor is None:
        raise ValueError("localization needs anchor, the parameters that it pulls to")
    # Written as densities, both ln q are differences of large numbers. What is left of them:
    #   ln a = nbeta (d (g + g') / 2 - (loss' - loss)) + lr / 8 (|dU|^2 - |dU'|^2),   d = w' - w
    # The quadratic priors are gone from the first part: the trapezoid of their gradient is their difference.
    work: Any = 0.0
    drift: Any = 0.0
    for k, (w, v, g, h) in enumerate(zip(before, after, grad_before, grad_after, strict=True)):
        if g is None or h is None:
            continue
        w, v, g, h = (np.asarray(x, np.float64) for x in (w, v, g, h))
        a, b = nbeta * g + weight_decay * w, nbeta * h + weight_decay * v
        if anchor is not None:
            a, b = a + localization * (w - anchor[k]), b + localization * (v - anchor[k])
        work = work + _sum((v - w) * (g + h), chains)
        drift = drift + _sum((a - b) * (a + b), chains)
    change = np.asarray(loss_after, np.float64) - np.asarray(loss_before, np.float64)
    return np.exp(np.minimum(nbeta * (work / 2 - change) + lr / 8 * drift, 0.0))


def _sum(x: Array, chains: bool) -> Any:
    return x.reshape(len(x), -1).sum(axis=1) if chains else x.sum()


class MalaAcceptance:
    """The mean of `mala_acceptance` over the steps of a run.

    Args:
        lr: Step size of the sampler.
        nbeta: As for the sampler.
        localization: As for the sampler.
        weight_decay: As for the sampler.
        anchor: The center of the localization.
        chains: The first axis of every array is the chain's.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SGLD, MalaAcceptance
        >>> w = [np.zeros(100)]
        >>> sampler = SGLD(w, lr=1e-3, nbeta=100.0, device="numpy")
        >>> acceptance = MalaAcceptance(lr=1e-3, nbeta=100.0)
        >>> for _ in range(50):
        ...     acceptance.update(w, (w[0] ** 2).sum() / 2, w)  # the gradient of |w|^2 / 2 is w
        ...     _ = sampler.step(gradients=w)
        >>> bool(0.9 < acceptance.rate() < 1)
        True
    """

    def __init__(
        self,
        *,
        lr: float,
        nbeta: float,
        localization: float = 0.0,
        weight_decay: float = 0.0,
        anchor: Arrays | None = None,
        chains: bool = False,
    ) -> None:
        self._options: dict[str, Any] = {
            "lr": lr,
            "nbeta": nbeta,
            "localization": localization,
            "weight_decay": weight_decay,
            "anchor": None if anchor is None else [np.array(a) for a in anchor],
            "chains": chains,
        }
        self._last: tuple[list[Array], Any, list[Array | None]] | None = None
        self._sum: Any = 0.0
        self._count = 0

    @classmethod
    def of(cls, kwargs: Mapping[str, Any], anchor: Arrays, chains: bool) -> MalaAcceptance:
        """For a sampler with these options, which begins at the anchor."""
        own = {name: float(value) for name, value in kwargs.items() if name in KNOWN and name != "save_metrics"}
        own.setdefault("lr", 0.01)
        return cls(**own, anchor=anchor if own.get("localization") else None, chains=chains)

    def update(self, params: Arrays, loss: Any, grad: Sequence[Array | None]) -> None:
        """Take the next state, its loss and the gradient there, before the sampler's step."""
        now = [np.array(p) for p in params], loss, [None if g is None else np.array(g) for g in grad]
        if self._last is not None:
            before, loss_before, grad_before = self._last
            self._sum = self._sum + mala_acceptance(
                before, now[0], loss_before, loss, grad_before, now[2], **self._options
            )
            self._count += 1
        self._last = now

    def rate(self) -> Any:
        """The mean so far: a float, or one number per chain; NaN before the second state."""
        if self._count:
            return self._sum / self._count
        return np.full(() if self._last is None else np.shape(self._last[1]), np.nan)
