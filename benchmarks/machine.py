"""What was measured on: a figure without its machine, versions and thread counts says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from grilly_optim import devices

from .rivals import NAMES, thread_counts

Description = dict[str, Any]


def describe(rivals: Sequence[str] = NAMES) -> Description:
    """The machine, the versions of everything that is measured, thread counts and date."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "system": f"{_distribution()}, {platform.system()} {platform.release()}, {platform.machine()}",
        "processor": _processor(),
        "cores": thread_counts()[-1],
        "instruction_sets": instruction_sets(),
        "last_level_cache_bytes": last_level_cache(),
        "memory_bytes": _meminfo("MemTotal"),
        "load_average": _load(),
        "threads": {"grilly_optim": _own_threads(), "torch": thread_counts(), "numba": [1, thread_counts()[-1]]},
        "versions": _versions(["grilly_optim", "numpy", *rivals]),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(("GRILLY_", "OMP_", "LP_"))},
        "devices": [
            {
                "device": d.device,
                "name": d.name,
                "type": d.type,
                "usable": d.usable,
                "reason": d.reason,
                "driver": d.driver,
                "api_version": d.api_version,
                "shares_memory": d.shares_memory,
            }
            for d in devices()
        ],
    }


def available_memory() -> int | None:
    """Bytes that can be had without pushing anything out; None where the system does not say."""
    return _meminfo("MemAvailable")


def last_level_cache() -> int | None:
    """Bytes of the largest cache of the first processor; None where the system does not say."""
    units = {"K": 1 << 10, "M": 1 << 20}
    sizes = [
        int(text[:-1]) * units[text[-1]]
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        if (text := path.read_text().strip()) and text[-1] in units
    ]
    return max(sizes, default=None)


def _meminfo(name: str) -> int | None:
    path = Path("/proc/meminfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) << 10
    return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


def instruction_sets() -> list[str]:
    """Instruction sets of the compiled core that this processor has, best first."""
    try:
        from grilly_optim import _core
    except ImportError:
        return []
    return _core.cpu_instruction_sets()


def _own_threads() -> int | None:
    return next((d.limits.get("threads") for d in devices() if d.kind == "cpu"), None)


def _load() -> list[float]:
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else []


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in dict.fromkeys(packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
