"""What a relaxation is asked for, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
K = TypeVar("K")
V = TypeVar("V")


class Request(NamedTuple):
    """Steps of a relaxation.

    Attributes:
        step: Their size, dt / tau.
        most: How many there are at most.
        tol: The norm below which a step is the last one; 0: none.
        per_sample: Each sample stops by itself.
        measured: Norms are wanted, as they are with tol.
    """

    step: float
    most: int
    tol: float = 0.0
    per_sample: bool = False
    measured: bool = False


class Outcome(NamedTuple):
    """Where a relaxation has led.

    Attributes:
        u: State of each layer; of clamped ones the model's own.
        steps: (batch,), that each sample has made.
        norms: (batch,), of each sample's gradient in its last step, added up over layers that move; or None.
    """

    u: list[Array]
    steps: NDArray[np.uint32]
    norms: NDArray[np.float64] | None


class Recent(Generic[K, V]):
    """What has been made last: the last batch of an epoch is often smaller, and the next one is not."""

    MOST = 4

    def __init__(self) -> None:
        self._made: dict[K, V] = {}

    def get(self, key: K, make: Callable[[], V]) -> V:
        """What is there for this key, or what is made now."""
        if key not in self._made:
            while len(self._made) >= self.MOST:
                del self._made[next(iter(self._made))]
        value = self._made.pop(key) if key in self._made else make()
        self._made[key] = value
        return value


class Relaxation(Protocol):
    """Who relaxes a model."""

    def run(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        """Relax from where the model is; the model itself is left as it is.

        `fixed` has W_i r_i + b_i of the connections whose r_i is clamped.
        """
