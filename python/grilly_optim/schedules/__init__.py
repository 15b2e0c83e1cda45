"""Schedules of the learning rate, with torch's names, arguments and numbers, and two helpers of training loops.

They write ``group["lr"]`` of anything that has `param_groups`: optimizers and samplers alike.
"""

from grilly_optim.schedules.composition import ChainedScheduler, SequentialLR
from grilly_optim.schedules.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from grilly_optim.schedules.decay import ExponentialLR, MultiStepLR, StepLR
from grilly_optim.schedules.factors import ConstantLR, LinearLR, PolynomialLR
from grilly_optim.schedules.lambdas import LambdaLR, MultiplicativeLR
from grilly_optim.schedules.one_cycle import OneCycleLR
from grilly_optim.schedules.plateau import ReduceLROnPlateau
from grilly_optim.schedules.scheduler import LRScheduler, Scheduler
from grilly_optim.schedules.training import calc_train_iter, lambda_lr_schedule

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "Scheduler",
    "SequentialLR",
    "StepLR",
    "calc_train_iter",
    "lambda_lr_schedule",
]
