"""Devices: what there is, which one to take and why, and opening it once per process."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from grilly_optim._errors import DeviceUnavailable
from grilly_optim.kernels.numpy_device import COUNTERS, NumpyDevice

try:
    from grilly_optim import _core
except ImportError as error:
    _core = None  # type: ignore[assignment]  # a module or None: mypy has no type for that
    _CORE_REASON = f"the compiled core cannot be loaded ({error}): install grilly_optim anew, with a C++ compiler"
else:
    _CORE_REASON = ""

if TYPE_CHECKING:
    from typing import TypeAlias

    Backend: TypeAlias = "_core.Device | NumpyDevice"

_log = logging.getLogger("grilly_optim")

# Below this many elements `auto` takes the CPU even where there is a GPU: handing work to a GPU and waiting for it
# costs about as much as the compiled CPU needs for that many.
AUTO_GPU_MIN_ELEMENTS = 1_000_000

# `auto` and "vulkan" take the first of these; a software device ("cpu") runs only when it is named.
GPU_TYPES = ("discrete", "integrated", "virtual", "other")

# Environment variables that a Vulkan device reads when it is opened.
_OPENING_SWITCHES = ("GRILLY_FORCE_STAGING", "GRILLY_MAX_ALLOCATION", "GRILLY_MAX_GROUPS")
# And the ones that decide what the compiled CPU is.
_CPU_SWITCHES = ("GRILLY_ISA", "GRILLY_THREADS")

_EXPECTED = "'auto', 'cpu', 'numpy', 'vulkan' or 'vulkan:' with an index, a uuid or a part of a name"


@dataclass(frozen=True)
class DeviceInfo:
    """A device, usable or not.

    Attributes:
        name: What the driver calls it.
        kind: "vulkan", "cpu" (the compiled core) or "numpy".
        type: "discrete", "integrated", "virtual", "cpu" or "other"; a software Vulkan device is "cpu".
        usable: Whether `device` can be opened.
        reason: Why it cannot be used, and what to do; empty when it can.
        device: The string that selects it.
        float64: Whether it takes float64 parameters.
        shares_memory: Whether arrays of `grilly_optim.empty` are used where they lie, without a copy.
        uuid: As the driver gives it, for "vulkan:<uuid>".
        driver: The driver's name and version.
        api_version: The Vulkan version.
        limits: What bounds it, in elements, bytes or counts, by name.
    """

    name: str
    kind: Literal["vulkan", "cpu", "numpy"]
    type: str
    usable: bool
    reason: str = ""
    device: str = ""
    float64: bool = True
    shares_memory: bool = True
    uuid: str = ""
    driver: str = ""
    api_version: str = ""
    limits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A device, and why it was taken."""

    info: DeviceInfo
    why: str


def _vulkan_infos() -> list[DeviceInfo]:
    if _core is None:
        return [DeviceInfo("Vulkan", "vulkan", "other", usable=False, reason=_CORE_REASON)]
    found, reason = _core.vulkan_devices()
    if not found:
        return [DeviceInfo("Vulkan", "vulkan", "other", usable=False, reason=reason)]
    return [
        DeviceInfo(
            name=d.name,
            kind="vulkan",
            type=d.type,
            usable=not d.reason,
            reason=d.reason,
            device=f"vulkan:{index}",
            float64=d.float64,
            shares_memory=d.shares_memory,
            uuid=d.uuid,
            driver=d.driver,
            api_version=d.api_version,
            limits=d.limits,
        )
        for index, d in enumerate(found)
    ]


def _cpu_info() -> DeviceInfo:
    if _core is None:
        return DeviceInfo("compiled CPU", "cpu", "cpu", usable=False, reason=_CORE_REASON, device="cpu")
    try:
        threads, isa = _core.cpu_threads(), _core.cpu_instruction_set()
    except DeviceUnavailable as error:
        return DeviceInfo("compiled CPU", "cpu", "cpu", usable=False, reason=str(error), device="cpu")
    name = f"compiled CPU ({isa}, {threads} threads)"
    return DeviceInfo(name, "cpu", "cpu", usable=True, device="cpu", limits={"threads": threads})


def _numpy_info() -> DeviceInfo:
    return DeviceInfo("NumPy", "numpy", "cpu", usable=True, device="numpy")


def devices() -> list[DeviceInfo]:
    """Every device of this machine, the ones that cannot be used too, with the reason. Never raises, opens no device.

    It asks the Vulkan loader, after which a forked child cannot use Vulkan any more.

    Example:
        >>> import grilly_optim
        >>> [d.kind for d in grilly_optim.devices() if d.kind != "vulkan"]
        ['cpu', 'numpy']
    """
    return [*_vulkan_infos(), _cpu_info(), _numpy_info()]


def choose(device: str | None, infos: Sequence[DeviceInfo], elements: int | None = None) -> Choice:
    """Pick one of `infos`. A pure function: nothing is opened.

    Args:
        device: The device string; None is "auto".
        infos: What there is, as `devices` lists it.
        elements: How much there is to do, where that is known: "auto" takes the CPU for little.

    Raises:
        TypeError: If `device` is not a string.
        DeviceUnavailable: If it is unknown, not there, not usable or ambiguous.
    """
    if device is not None and not isinstance(device, str):
        raise TypeError(f"device must be a string, got {type(device).__name__}; expected {_EXPECTED}")
    device = "auto" if device is None else device
    kind, _, which = device.partition(":")
    if device == "auto":
        return _choose_automatically(infos, elements)
    if device in ("cpu", "numpy"):
        info = next(i for i in infos if i.kind == kind)
        if not info.usable:
            raise DeviceUnavailable(f"device={device!r} cannot be used: {info.reason}")
        return Choice(info, "it was asked for")
    if kind == "vulkan" and device != "vulkan:":
        return Choice(_choose_vulkan(device, which, [i for i in infos if i.kind == "vulkan"]), "it was asked for")
    raise DeviceUnavailable(f"device={device!r} is not known; expected {_EXPECTED}")


def _choose_vulkan(device: str, which: str, infos: Sequence[DeviceInfo]) -> DeviceInfo:
    present = [i for i in infos if i.device]
    if not present:
        raise DeviceUnavailable(f"device={device!r}: {infos[0].reason}")
    there = ", ".join(f"{i.device} {i.name}" for i in present)
    if not which:
        gpu = _best_gpu(present)
        if gpu is not None:
            return gpu
        why = "; ".join(f"{i.name}: {i.reason or 'a software device, used only when it is named'}" for i in present)
        raise DeviceUnavailable(f"device={device!r}: there is no usable GPU ({why})")
    matches = (
        [i for i in present if i.device == f"vulkan:{which}"]
        or [i for i in present if i.uuid == which.lower()]
        or ([] if which.isdecimal() else [i for i in present if which.lower() in i.name.lower()])
    )
    if not matches:
        raise DeviceUnavailable(f"device={device!r}: there is no such Vulkan device; there is {there}")
    if len(matches) > 1:
        raise DeviceUnavailable(f"device={device!r} fits several devices: {there}; select one by index or uuid")
    if not matches[0].usable:
        raise DeviceUnavailable(f"device={device!r} ({matches[0].name}) cannot be used: {matches[0].reason}")
    return matches[0]


def _best_gpu(infos: Sequence[DeviceInfo]) -> DeviceInfo | None:
    usable = [i for i in infos if i.usable and i.type in GPU_TYPES]
    return min(usable, key=lambda i: GPU_TYPES.index(i.type), default=None)


def _is_small(elements: int | None) -> bool:
    return elements is not None and elements < AUTO_GPU_MIN_ELEMENTS


def _choose_automatically(infos: Sequence[DeviceInfo], elements: int | None) -> Choice:
    cpu = next((i for i in infos if i.kind == "cpu" and i.usable), None)
    if cpu is not None and _is_small(elements):
        return Choice(cpu, f"{elements} elements are too few for a GPU (the limit is {AUTO_GPU_MIN_ELEMENTS})")
    gpu = _best_gpu([i for i in infos if i.kind == "vulkan"])
    if gpu is not None:
        return Choice(gpu, f"it is the best GPU here ({gpu.type})")
    if cpu is not None:
        return Choice(cpu, "no usable GPU was found, and compiled code is the fastest on the processor")
    return Choice(next(i for i in infos if i.kind == "numpy"), f"nothing compiled can be used: {_CORE_REASON}")


_lock = threading.RLock()
# Every device opened in this process, by what selects it. A lost device stays listed, for its counters.
_opened: list[tuple[DeviceInfo, str, Backend]] = []
_asked: dict[tuple[object, ...], tuple[Choice, Backend]] = {}
_announced: set[str] = set()


def select(device: str | None, elements: int | None = None) -> Choice:
    """Choose among the devices of this machine; None and "auto" look at GRILLY_DEVICE first."""
    source = ""
    if device is None or device == "auto":
        device = os.environ.get("GRILLY_DEVICE") or None
        source = "" if device is None else " (from GRILLY_DEVICE)"
    automatic = device is None or device == "auto"
    # Vulkan is looked at only where it can matter: its loader takes milliseconds, and a small job never uses it.
    infos = [_cpu_info(), _numpy_info()]
    by_name = isinstance(device, str) and device.startswith("vulkan")
    if by_name or (automatic and not (_is_small(elements) and infos[0].usable)):
        infos = [*_vulkan_infos(), *infos]
    try:
        choice = choose(device, infos, elements)
    except DeviceUnavailable as error:
        raise DeviceUnavailable(f"{error}{source}") from None
    choice = Choice(choice.info, choice.why + source)
    if automatic and choice.info.device not in _announced:
        _announced.add(choice.info.device)
        _log.info("device 'auto' is %s: %s", choice.info.name, choice.why)
    return choice


def open_device(device: str | None, elements: int | None = None) -> tuple[Choice, Backend]:
    """Choose a device and open it, once per process.

    Raises:
        TypeError: If `device` is not a string.
        DeviceUnavailable: If it is unknown, not there or not usable.
    """
    # Looking at the machine takes a hundred microseconds and more: what was asked for once is remembered.
    if device is not None and not isinstance(device, str):
        raise TypeError(f"device must be a string, got {type(device).__name__}; expected {_EXPECTED}")
    if device is None or device == "auto":
        switches: tuple[str, ...] = ("GRILLY_DEVICE", *_CPU_SWITCHES, *_OPENING_SWITCHES)
    else:
        switches = _OPENING_SWITCHES if device.startswith("vulkan") else _CPU_SWITCHES
    asked = (device, _is_small(elements), *[os.environ.get(switch) for switch in switches])
    known = _asked.get(asked)
    if known is None or known[1].lost:
        known = _asked[asked] = _open_choice(select(device, elements))
    return known


def _open_choice(choice: Choice) -> tuple[Choice, Backend]:
    # A Vulkan device with staging forced, say, is another device to the engine: it keeps its memory to itself.
    key = choice.info.device
    if choice.info.kind == "vulkan":
        key += "".join(f"|{os.environ.get(switch, '')}" for switch in _OPENING_SWITCHES)
    with _lock:
        for _, opened_key, backend in _opened:
            if opened_key == key and not backend.lost:
                return choice, backend
        backend = _open(choice.info)
        _opened.append((choice.info, key, backend))
        return choice, backend


def _open(info: DeviceInfo) -> Backend:
    if info.kind == "numpy":
        return NumpyDevice()
    if info.kind == "cpu":
        return _core.cpu_device()
    return _core.open_vulkan(int(info.device.removeprefix("vulkan:")))


def default_device() -> DeviceInfo:
    """The device that ``device=None`` takes for large work: GRILLY_DEVICE, else the best GPU, else the compiled CPU.

    Raises:
        DeviceUnavailable: If GRILLY_DEVICE names a device that cannot be used.
    """
    return select(None).info


def counters(device: str | None = None) -> dict[str, int]:
    """What has been done since the process began, by one device or by all of them together.

    Returns:
        ``dispatches`` (kernel runs), ``submits`` (hand-overs to a queue), ``bytes_up`` and ``bytes_down`` (copied to
        and from a device), ``bytes_allocated`` (alive now) and ``allocations`` (made so far).

    Raises:
        DeviceUnavailable: If `device` is unknown or not there.
    """
    total = dict.fromkeys(COUNTERS, 0)
    wanted = None if device is None else select(device).info.device
    for info, _, backend in list(_opened):
        if wanted is None or info.device == wanted:
            for name, value in backend.counters().items():
                total[name] += value
    return total


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close() -> None:
    """Let go of the devices while the interpreter is whole; what arrays and optimizers still hold lives on."""
    _opened.clear()
    _asked.clear()
    if _core is not None:
        _core.shut_down()
