"""Optimizers for NumPy arrays: one update rule on Vulkan GPUs, compiled SIMD code and pure NumPy."""

from grilly_optim import continual, optim
from grilly_optim._devices import DeviceInfo, counters, default_device, devices
from grilly_optim._errors import DeviceLost, DeviceUnavailable, OutOfDeviceMemory
from grilly_optim.arrays import asarray, empty, zeros
from grilly_optim.parameter import Parameter

__all__ = [
    "DeviceInfo",
    "DeviceLost",
    "DeviceUnavailable",
    "OutOfDeviceMemory",
    "Parameter",
    "asarray",
    "continual",
    "counters",
    "default_device",
    "devices",
    "empty",
    "optim",
    "zeros",
]


def __getattr__(name: str) -> str:
    # Looked up when it is asked for: reading the package's metadata takes longer than the rest of the import.
    if name == "__version__":
        from importlib.metadata import version

        return version("grilly_optim")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
