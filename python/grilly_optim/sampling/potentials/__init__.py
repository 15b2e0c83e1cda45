"""Potential energies: built-in ones, which run on every device, and tools for your own."""

from grilly_optim.sampling.potentials._autograd import FromAutograd, from_autograd
from grilly_optim.sampling.potentials._builtin import BuiltIn
from grilly_optim.sampling.potentials._check import GradientCheck, check_grad
from grilly_optim.sampling.potentials.banana import Banana
from grilly_optim.sampling.potentials.eight_schools import EightSchools
from grilly_optim.sampling.potentials.funnel import Funnel
from grilly_optim.sampling.potentials.gaussian import Gaussian
from grilly_optim.sampling.potentials.linear_regression import LinearRegression
from grilly_optim.sampling.potentials.logistic_regression import LogisticRegression
from grilly_optim.sampling.potentials.standard_normal import StandardNormal

# Those that the engine computes by their shaders.
SHIPPED = frozenset(
    (Banana, EightSchools, Funnel, Gaussian, LinearRegression, LogisticRegression, StandardNormal),
)

__all__ = [
    "Banana",
    "BuiltIn",
    "EightSchools",
    "FromAutograd",
    "Funnel",
    "Gaussian",
    "GradientCheck",
    "LinearRegression",
    "LogisticRegression",
    "StandardNormal",
    "check_grad",
    "from_autograd",
]
