"""Who advances chains: the one place that decides."""

from __future__ import annotations

from typing import Any, TypeGuard

from grilly_optim._devices import open_device
from grilly_optim.sampling._batch import Hmc, Method, Nuts, Runner, Rwm
from grilly_optim.sampling._device_runner import DeviceRunner
from grilly_optim.sampling._host_hmc import HmcRunner, RwmRunner
from grilly_optim.sampling._host_nuts import NutsRunner
from grilly_optim.sampling.potentials import SHIPPED


def runner_for(potential: Any, method: Method, dim: int, dtype: Any, device: str | None) -> Runner:
    """A runner of this method with this potential.

    Args:
        potential: Whose chains they are, see `Evaluator`.
        method: How they move.
        dim: D.
        dtype: float32 or float64.
        device: See `grilly_optim.devices`.

    Raises:
        DeviceUnavailable: The device is unknown or cannot be used.
        TypeError: The potential cannot be called, or the device has no float64.
    """
    # The classes themselves: a subclass may compute something else.
    if type(potential) in SHIPPED and (isinstance(method, Hmc) or _is_multinomial(method)):
        name = open_device(device)[0].info.device
        if name != "numpy":
            return DeviceRunner(potential, method, dtype, name)
    if isinstance(method, Hmc):
        return HmcRunner(potential, method, dim, dtype, device)
    if isinstance(method, Rwm):
        return RwmRunner(potential, dim, dtype, device)
    return NutsRunner(potential, method, dim, dtype, device)


def _is_multinomial(method: Method) -> TypeGuard[Nuts]:
    return isinstance(method, Nuts) and method.variant == "multinomial"
