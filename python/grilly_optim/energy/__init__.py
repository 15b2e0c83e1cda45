"""Equilibrium propagation: layers with an energy, which learn from what a nudge changes."""

from grilly_optim.energy._check import check_gradients
from grilly_optim.energy.activations import Activation, get_activation
from grilly_optim.energy.conditional_gaussian import ConditionalGaussian
from grilly_optim.energy.costs import Cost, CrossEntropy, SquaredError
from grilly_optim.energy.persistent import PersistentStates
from grilly_optim.energy.restricted_hopfield import RestrictedHopfield

__all__ = [
    "Activation",
    "ConditionalGaussian",
    "Cost",
    "CrossEntropy",
    "PersistentStates",
    "RestrictedHopfield",
    "SquaredError",
    "check_gradients",
    "get_activation",
]
