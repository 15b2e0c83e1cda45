"""Optimizers."""

from grilly_optim.optim.adamw import AdamW
from grilly_optim.optim.auto_hypergradient_adamw import AutoHypergradientAdamW
from grilly_optim.optim.clipping import clip_grad_norm, clip_grad_value
from grilly_optim.optim.hypergradient_adamw import HypergradientAdamW
from grilly_optim.optim.optimizer import Optimizer

__all__ = [
    "AdamW",
    "AutoHypergradientAdamW",
    "HypergradientAdamW",
    "Optimizer",
    "clip_grad_norm",
    "clip_grad_value",
]
