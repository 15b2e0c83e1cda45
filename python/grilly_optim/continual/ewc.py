"""Elastic weight consolidation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from grilly_optim.continual._anchored import Anchored, squared_distance
from grilly_optim.continual._arrays import (
    Array,
    Arrays,
    of,
    require_finite,
    require_not_negative,
    rounded,
    take,
)
from grilly_optim.continual._states import StateDict, packed, require_keys, unpacked, unpacked_like
from grilly_optim.continual.fisher import Fisher
from grilly_optim.optim._options import Flag, Range


class _Term(NamedTuple):
    """sum(total (x - centre)^2) for one parameter, with centre = anchor + rest."""

    total: Array  # float64
    weight: Array  # what the gradient uses of it, in the parameter's precision
    anchor: Array  # the centre, in the parameter's precision
    rest: Array  # what rounding the centre cut off, in the parameter's precision


class EWC(Anchored):
    r"""Elastic weight consolidation: a penalty on moving parameters that earlier tasks need.

    After each task t its parameters a_t and its Fisher information F_t are handed to `consolidate`. In the next tasks
    the penalty, times a strength of your choice, is added to the loss::

        offline   1/2 sum_t F_t (x - a_t)^2
        online    1/2 gamma F (x - a)^2            F = F_new + gamma F_old, once per task; a is the last task's end

    Args:
        online: Keep one decaying Fisher around the last parameters, instead of every task's own.
        gamma: How much of the older tasks' Fisher is left after each task, in [0, 1]. Only `online` uses it.

    Raises:
        TypeError: `online` is no bool, or `gamma` no number.
        ValueError: `gamma` is outside [0, 1].

    Offline the tasks are not kept either, so that neither memory nor time grows with their number: a sum of quadratics
    is one quadratic, ``sum_t F_t (x - a_t)^2 = A (x - c)^2 + constant``, with ``A = sum_t F_t`` and
    ``c = sum_t F_t a_t / A`` (the last a_t where A is 0). c is kept to twice the parameter's precision, A and the
    constant in float64, so that the penalty is the explicit sum's to 1e-6 in float32 and 1e-12 in float64. The gradient
    is computed in the parameter's precision, as ``A (x - c)`` with A and c rounded to it. All this takes 20 bytes per
    float32 element, 32 per float64.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017; Schwarz et al., "Progress
    & compress", 2018, for the online form.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.continual import EWC, Fisher
        >>> ewc = EWC()
        >>> ewc.consolidate(np.array([1.0, 0.0]), Fisher.from_per_sample_grads(np.array([[2.0, 0.0]])))
        >>> ewc.penalty(np.array([2.0, 5.0]))
        2.0
        >>> ewc.grad(np.array([2.0, 5.0]))
        array([4., 0.])
    """

    def __init__(self, online: bool = False, gamma: float = 1.0) -> None:
        super().__init__()
        self._online: bool = Flag().take("online", online)
        self._gamma: float = Range(0, 1, closed=True).take("gamma", gamma)
        self._terms: list[_Term] | None = None
        self._constant = 0.0

    @property
    def online(self) -> bool:
        """Whether one decaying Fisher is kept."""
        return self._online

    @property
    def gamma(self) -> float:
        """How much of the older Fisher is left after each task."""
        return self._gamma

    @property
    def _decay(self) -> float:
        return self._gamma if self._online else 1.0

    def consolidate(self, theta: Arrays, F: Fisher | Arrays) -> None:
        """A task has ended: hold on to these parameters from now on.

        Args:
            theta: The parameters at the end of the task: an array, a sequence of them or a dict by name. Copied.
            F: The task's Fisher information, 0 or more: a `Fisher`, or arrays like `theta`. Copied, and taken in the
                precision of `theta`.

        Raises:
            TypeError: Not arrays of real numbers, or another precision of `theta` than before.
            ValueError: NaN, infinity, a negative F, a sum of F that is too large for the precision, a Fisher that has
                seen no sample, or another count, other names or other shapes than before. Nothing was changed.
        """
        ends, _, layout = self._take(theta)
        fishers, _, _ = take(F.values if isinstance(F, Fisher) else F, "F", layout)
        terms, constant = [], self._constant
        for i, (end, fisher) in enumerate(zip(ends, fishers, strict=True)):
            require_finite(end, of("theta", i, layout.names))
            what = of("F", i, layout.names)
            news = rounded(require_not_negative(fisher, what), end.dtype, what).astype(np.float64)
            if self._terms is None or self._online:
                older = 0.0 if self._terms is None else self._gamma * self._terms[i].total
                term = self._term(news + older, end, np.zeros_like(end), what)
            else:
                term, more = self._merged(self._terms[i], news, end, what)
                constant += more
            terms.append(term)
        if not math.isfinite(constant):
            raise ValueError("the penalty of all tasks together is too large for float64")
        self._layout, self._terms, self._constant = layout, terms, constant
        self._version += 1

    def _term(self, total: Array, anchor: Array, rest: Array, what: str) -> _Term:
        weight = rounded(self._decay * total, anchor.dtype, f"the sum of {what}")
        return _Term(np.asarray(total), weight, np.array(anchor, order="C"), np.array(rest, order="C"))

    def _merged(self, term: _Term, fisher: Array, end: Array, what: str) -> tuple[_Term, float]:
        """The term with fisher (x - end)^2 added to it, and what that adds to the constant."""
        with np.errstate(all="ignore"):  # what overflows is refused, by _term or for the constant
            total = term.total + fisher
            distance = (end.astype(np.float64) - term.anchor) - term.rest
            # The centre is computed from the heavier end: that way the error of its shift is small against the shift.
            # Where nothing was held before, this makes it the new anchor to the last bit.
            new_is_heavier = fisher >= term.total
            lighter, heavier = np.minimum(fisher, term.total), np.maximum(fisher, term.total)
            share = np.divide(lighter, total, out=np.zeros_like(total), where=total > 0)
            more = squared_distance(heavier * share, distance)
            centre, error = _two_sum(
                np.where(new_is_heavier, end, term.anchor).astype(np.float64),
                np.where(new_is_heavier, -share * distance, term.rest + share * distance),
            )
        anchor = centre.astype(end.dtype)
        rest = ((centre - anchor) + error).astype(end.dtype)
        return self._term(total, anchor, rest, what), more

    def _penalty(self, arrays: list[Array]) -> float:
        total = self._constant
        for x, term in zip(arrays, self._terms or [], strict=False):
            distance = (x.astype(np.float64) - term.anchor) - term.rest
            total += squared_distance(term.total, distance)
        return 0.5 * self._decay * total

    def _quadratic(self) -> tuple[list[Array], list[Array]] | None:
        if self._terms is None:
            return None
        return [t.weight for t in self._terms], [t.anchor for t in self._terms]

    def _dtypes(self) -> list[np.dtype[Any]] | None:
        return None if self._terms is None else [t.anchor.dtype for t in self._terms]

    def state_dict(self) -> StateDict:
        """A snapshot of plain arrays, numbers, strings and containers; `load_state_dict` continues bit for bit."""
        terms = self._terms

        def field(name: str) -> Any:
            return packed(None if terms is None else [getattr(t, name) for t in terms], self._layout)

        return {
            "online": self._online,
            "gamma": self._gamma,
            "totals": field("total"),
            "anchors": field("anchor"),
            "rests": field("rest"),
            "constant": self._constant,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot, its online and gamma included; checked before anything is changed.

        Raises:
            TypeError: Not a state dict of this class.
            ValueError: Values that it cannot have.
        """
        require_keys(state_dict, list(self.state_dict()), "EWC")
        other = EWC(state_dict["online"], state_dict["gamma"])
        other._constant = Range(0).take("'constant' of state_dict", state_dict["constant"])
        if state_dict["anchors"] is not None:
            anchors, other._layout = unpacked(state_dict, "anchors")
            rests = unpacked_like(state_dict, "rests", other._layout, anchors)
            totals = unpacked_like(state_dict, "totals", other._layout, [a.astype(np.float64) for a in anchors])
            what = "'totals' of state_dict"
            other._terms = [
                other._term(require_not_negative(total, what), anchor, rest, what)
                for total, anchor, rest in zip(totals, anchors, rests, strict=True)
            ]
        other._version = self._version + 1
        vars(self).update(vars(other))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum, and the error of rounding it (Knuth 1969): together exactly a + b."""
    s = a + b
    seen = s - a
    return s, (a - (s - seen)) + (b - seen)
