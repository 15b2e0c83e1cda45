"""Update rules in NumPy, and the device that runs them: the oracle for every other device."""

from grilly_optim.kernels.numpy_device import NumpyDevice
from grilly_optim.kernels.rule import Rule

__all__ = ["NumpyDevice", "Rule"]
