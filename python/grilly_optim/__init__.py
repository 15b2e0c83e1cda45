"""Optimizers for NumPy arrays: one update rule on Vulkan GPUs, compiled SIMD code and pure NumPy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from grilly_optim import optim
from grilly_optim._devices import DeviceInfo, counters, default_device, devices
from grilly_optim._errors import DeviceLost, DeviceUnavailable, OutOfDeviceMemory
from grilly_optim.arrays import asarray, empty, zeros
from grilly_optim.parameter import Parameter

if TYPE_CHECKING:
    from grilly_optim import checkpoint, continual, energy, random, sampling, schedules

__all__ = [
    "DeviceInfo",
    "DeviceLost",
    "DeviceUnavailable",
    "OutOfDeviceMemory",
    "Parameter",
    "asarray",
    "checkpoint",
    "continual",
    "counters",
    "default_device",
    "devices",
    "empty",
    "energy",
    "optim",
    "random",
    "sampling",
    "schedules",
    "zeros",
]

__version__: str

# Imported when they are asked for: each would take a good part of the time of this import.
_LAZY = ("checkpoint", "continual", "energy", "random", "sampling", "schedules")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"grilly_optim.{name}")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("grilly_optim")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
