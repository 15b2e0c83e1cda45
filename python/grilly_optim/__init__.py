"""Optimizers for NumPy arrays: one update rule on Vulkan GPUs, compiled SIMD code and pure NumPy."""

from typing import TYPE_CHECKING, Any

from grilly_optim import optim
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
    "counters",
    "default_device",
    "devices",
    "empty",
    "optim",
    "schedules",
    "zeros",
]


if TYPE_CHECKING:
    from grilly_optim import schedules

__version__: str


def __getattr__(name: str) -> Any:
    # Loaded when they are asked for: schedules take a tenth of the time of this import, and reading the package's
    # metadata takes longer than all of it.
    if name == "schedules":
        import importlib

        return importlib.import_module("grilly_optim.schedules")
    if name == "__version__":
        from importlib.metadata import version

        return version("grilly_optim")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
