"""``grilly-optim devices``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from grilly_optim._devices import devices, select
from grilly_optim._errors import DeviceUnavailable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print a list of objects, one per device")


def run(options: argparse.Namespace) -> int:
    """Print every device, and the one that device=None takes."""
    found = devices()
    if options.json:
        json.dump([dataclasses.asdict(d) for d in found], sys.stdout, indent=2)
        print()
        return 0
    for d in found:
        state = "usable" if d.usable else "cannot be used"
        print(
            f"{d.device or d.kind:10} {d.name}: {state}"
            + (f", type {d.type}" if d.kind == "vulkan" and d.usable else "")
        )
        if d.reason:
            print(f"{'':10} {d.reason}")
        if d.kind == "vulkan" and d.usable:
            memory = "arrays are used in place" if d.shares_memory else "arrays are copied in every step"
            print(f"{'':10} {d.driver}, Vulkan {d.api_version}, uuid {d.uuid}")
            print(f"{'':10} {memory}; float64 {'works' if d.float64 else 'does not work'}")
    try:
        choice = select(None)
    except DeviceUnavailable as error:
        print(f"device=None fails: {error}")
        return 1
    print(f"device=None takes {choice.info.device}: {choice.why}")
    return 0
