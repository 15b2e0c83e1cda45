"""What a relaxation is asked for, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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


class Relaxation(Protocol):
    """Who relaxes a model."""

    def run(self, request: Request, fixed: Mapping[int, Array]) -> Outcome:
        """Relax from where the model is; the model itself is left as it is.

        `fixed` has W_i r_i + b_i of the connections whose r_i is clamped.
        """
