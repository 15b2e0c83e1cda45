"""Optimizers."""

from grilly_optim.optim.adamw import AdamW
from grilly_optim.optim.clipping import clip_grad_norm, clip_grad_value
from grilly_optim.optim.optimizer import Optimizer

__all__ = ["AdamW", "Optimizer", "clip_grad_norm", "clip_grad_value"]
