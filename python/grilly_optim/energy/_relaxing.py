"""Who relaxes a model on which device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grilly_optim._devices import Choice
from grilly_optim.energy._device import DeviceRelaxation
from grilly_optim.energy._host import HostRelaxation
from grilly_optim.energy._relaxation import Relaxation
from grilly_optim.energy.activations import ACTIVATIONS

if TYPE_CHECKING:
    from grilly_optim.energy._model import EnergyModel


def relaxation(choice: Choice, backend: Any, model: EnergyModel) -> Relaxation:
    """The one for this model.

    Raises:
        ValueError: An activation that the device does not know.
    """
    for i, phi in enumerate(model.phi):
        if choice.info.kind != "numpy" and ACTIVATIONS.get(phi.name) is not phi:
            raise ValueError(
                f"phi[{i}], {phi.name!r}, is an Activation of its own, and {choice.info.name} has "
                f"{', '.join(ACTIVATIONS)} alone: use device='numpy'"
            )
    return (DeviceRelaxation if choice.info.kind == "vulkan" else HostRelaxation)(backend, model)
