"""The least that can be attached to an optimizer, and steps with it against the same by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from grilly_optim.optim import AdamW
from tests.table import Array, assert_bits, draw, plain


class Penalty:
    """The least that can be attached."""

    _integrates = False

    def __init__(self, weights: list[Array] | None = None, anchors: list[Array] | None = None) -> None:
        self.quadratic = None if weights is None or anchors is None else (weights, anchors)
        self._version = 0
        self.parameters: list[Array] | None = None
        self.source: Any = None

    def _quadratic(self) -> Any:
        return self.quadratic

    def _attach(self, parameters: list[Array], source: Any) -> None:
        if self.quadratic is not None and [p.shape for p in parameters] != [w.shape for w in self.quadratic[0]]:
            raise ValueError("other shapes")
        self.parameters, self.source = parameters, source

    def _detach(self) -> None:
        self.parameters = self.source = None

    @classmethod
    def like(cls, ps: list[Array], rng: Any) -> Any:
        weights = [np.asarray(rng.random(p.shape), p.dtype) for p in ps]
        return cls(weights, [draw(p.shape, p.dtype, rng) for p in ps])

    def gradient(self, i: int, p: Array, strength: float) -> Array:
        weights, anchors = self.quadratic or ([], [])
        return np.asarray(p.dtype.type(strength) * (weights[i] * (p - anchors[i])))


class Path(Penalty):
    """One that also wants the path integral."""

    _integrates = True


def against_hand(optimizer: Any, by_hand: Any, ps: list[Array], qs: list[Array], parts: list[Any]) -> None:
    """One step of both; `parts` are the penalties that should be in effect, and their strengths."""
    gradients = [draw(p.shape, p.dtype) for p in ps]
    optimizer.step(gradients=gradients)
    for penalty, strength in parts:
        gradients = [g + penalty.gradient(i, q, strength) for i, (q, g) in enumerate(zip(qs, gradients, strict=True))]
    by_hand.step(gradients=gradients)
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)


def both(device: str) -> tuple[list[Array], list[Array], AdamW, AdamW]:
    ps = [draw(300), draw(100, np.float64)[::2]]
    qs = plain(ps)
    return ps, qs, AdamW(ps, lr=0.1, device=device), AdamW(qs, lr=0.1, device="numpy")
