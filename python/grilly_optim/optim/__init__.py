"""Optimizers."""

from grilly_optim.optim.adam import Adam
from grilly_optim.optim.adamw import AdamW
from grilly_optim.optim.optimizer import Optimizer

__all__ = ["Adam", "AdamW", "Optimizer"]
