"""AdamW: its step in float64, which every contestant must agree with, and who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim import AdamW
from grilly_optim.optim.adamw import ADAMW

from . import adamw_rivals
from .adamw_rivals import BETAS, EPS, LR, WEIGHT_DECAY
from .ours import Subject

Array = NDArray[Any]


def build(parameters: Sequence[Array], device: str) -> AdamW:
    """The optimizer that is measured."""
    return AdamW(parameters, lr=LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, device=device)


def expected(p: Array, g: Array, steps: int) -> Array:
    """The parameter after `steps` AdamW steps from a fresh state, in float64."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, steps + 1):
        p, m, v = step(p, m, v, g, t)
    return p


def step(p: Array, m: Array, v: Array, g: Array, t: int) -> tuple[Array, Array, Array]:
    """One AdamW step as the paper writes it."""
    beta1, beta2 = BETAS
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return p - LR * (m_hat / (np.sqrt(v_hat) + EPS) + WEIGHT_DECAY * p), m, v


SUBJECT = Subject(ADAMW, build, expected)
RIVALS = adamw_rivals.RIVALS
