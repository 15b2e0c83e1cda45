"""Optimizers."""

from grilly_optim.optim.adadelta import Adadelta
from grilly_optim.optim.adagrad import Adagrad
from grilly_optim.optim.adam import Adam
from grilly_optim.optim.adamw import AdamW
from grilly_optim.optim.auto_hypergradient_adamw import AutoHypergradientAdamW
from grilly_optim.optim.clipping import clip_grad_norm, clip_grad_value
from grilly_optim.optim.euler import euler_step
from grilly_optim.optim.factory import get_optimizer
from grilly_optim.optim.hl import HL
from grilly_optim.optim.hypergradient_adamw import HypergradientAdamW
from grilly_optim.optim.lion import Lion
from grilly_optim.optim.lookahead import calc_delta_theta
from grilly_optim.optim.nadam import NAdam
from grilly_optim.optim.optimizer import Optimizer
from grilly_optim.optim.radam import RAdam
from grilly_optim.optim.rmsprop import RMSprop
from grilly_optim.optim.sgd import SGD

__all__ = [
    "HL",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AutoHypergradientAdamW",
    "HypergradientAdamW",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "calc_delta_theta",
    "clip_grad_norm",
    "clip_grad_value",
    "euler_step",
    "get_optimizer",
]
