"""Which device is taken, why, and what is said when it cannot be."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

import grilly_optim
from grilly_optim import DeviceUnavailable, _devices
from grilly_optim._devices import AUTO_GPU_MIN_ELEMENTS, DeviceInfo, choose
from tests.test_vulkan import run_python


def vulkan(index: int, name: str, kind: str, *, usable: bool = True) -> DeviceInfo:
    return DeviceInfo(
        name, "vulkan", kind, usable, "" if usable else "it lacks int64", f"vulkan:{index}", uuid=f"{index}" * 8
    )


LAVAPIPE = vulkan(0, "llvmpipe (LLVM 15)", "cpu")
INTEGRATED, DISCRETE = vulkan(1, "Iris Graphics", "integrated"), vulkan(2, "Radeon Pro", "discrete")
TWIN = vulkan(3, "Radeon Pro", "discrete")
BROKEN = vulkan(4, "Old Card", "discrete", usable=False)
NO_VULKAN = DeviceInfo("Vulkan", "vulkan", "other", usable=False, reason="there is no Vulkan loader")
CPU, NUMPY = (
    DeviceInfo("compiled", "cpu", "cpu", True, device="cpu"),
    DeviceInfo("NumPy", "numpy", "cpu", True, device="numpy"),
)
NO_CPU = DeviceInfo("compiled", "cpu", "cpu", usable=False, reason="not built", device="cpu")
HOST = [CPU, NUMPY]
MANY = 10 * AUTO_GPU_MIN_ELEMENTS


@pytest.mark.parametrize(
    ("device", "infos", "elements", "expected"),
    [
        (None, [LAVAPIPE, *HOST], None, CPU),
        ("auto", [NO_VULKAN, *HOST], MANY, CPU),
        (None, [NO_VULKAN, NO_CPU, NUMPY], None, NUMPY),
        (None, [LAVAPIPE, INTEGRATED, DISCRETE, *HOST], MANY, DISCRETE),
        (None, [LAVAPIPE, INTEGRATED, *HOST], MANY, INTEGRATED),
        (None, [LAVAPIPE, INTEGRATED, *HOST], None, INTEGRATED),
        (None, [INTEGRATED, *HOST], 10, CPU),
        (None, [INTEGRATED, NO_CPU, NUMPY], 10, INTEGRATED),
        (None, [BROKEN, *HOST], MANY, CPU),
        ("vulkan", [LAVAPIPE, BROKEN, INTEGRATED, *HOST], 10, INTEGRATED),
        ("vulkan:0", [LAVAPIPE, DISCRETE, *HOST], None, LAVAPIPE),
        ("vulkan:llvmPIPE", [LAVAPIPE, DISCRETE, *HOST], None, LAVAPIPE),
        ("vulkan:22222222", [LAVAPIPE, DISCRETE, *HOST], None, DISCRETE),
        ("vulkan:3", [LAVAPIPE, DISCRETE, TWIN, *HOST], None, TWIN),
        ("cpu", [DISCRETE, *HOST], MANY, CPU),
        ("numpy", [DISCRETE, *HOST], MANY, NUMPY),
    ],
)
def test_choice(device: str | None, infos: list[DeviceInfo], elements: int | None, expected: DeviceInfo) -> None:
    choice = choose(device, infos, elements)
    assert choice.info == expected
    assert choice.why


@pytest.mark.parametrize(
    ("device", "infos", "message"),
    [
        ("cuda", HOST, r"device='cuda' is not known; expected 'auto', 'cpu', 'numpy', 'vulkan'"),
        ("cpu:1", HOST, r"device='cpu:1' is not known"),
        ("cpu", [NO_CPU, NUMPY], r"device='cpu' cannot be used: not built"),
        ("vulkan", [NO_VULKAN, *HOST], r"device='vulkan': there is no Vulkan loader"),
        (
            "vulkan",
            [LAVAPIPE, *HOST],
            r"there is no usable GPU \(llvmpipe.*: a software device, used only when it is named",
        ),
        ("vulkan:9", [LAVAPIPE, *HOST], r"there is no such Vulkan device; there is vulkan:0 llvmpipe"),
        ("vulkan:Old", [BROKEN, *HOST], r"device='vulkan:Old' \(Old Card\) cannot be used: it lacks int64"),
        ("vulkan:Radeon", [DISCRETE, TWIN, *HOST], r"fits several devices: .* select one by index or uuid"),
    ],
)
def test_refusal(device: str, infos: list[DeviceInfo], message: str) -> None:
    with pytest.raises(DeviceUnavailable, match=message):
        choose(device, infos)


def test_grilly_device_decides_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRILLY_DEVICE", "numpy")
    assert grilly_optim.default_device().kind == "numpy"
    assert _devices.select("auto", 10).info.kind == "numpy"
    assert _devices.select("cpu").info.kind == "cpu"
    monkeypatch.setenv("GRILLY_DEVICE", "tpu")
    with pytest.raises(DeviceUnavailable, match=r"'tpu' is not known.*\(from GRILLY_DEVICE\)"):
        grilly_optim.default_device()


def test_auto_says_once_what_it_chose(caplog: pytest.LogCaptureFixture) -> None:
    _devices._announced.clear()
    with caplog.at_level(logging.INFO, "grilly_optim"):
        _devices.select(None, 10)
        _devices.select(None, 10)
    assert [r.getMessage() for r in caplog.records] == [
        f"device 'auto' is {_devices._cpu_info().name}: "
        f"10 elements are too few for a GPU (the limit is {AUTO_GPU_MIN_ELEMENTS})"
    ]


def test_devices_lists_lavapipe_with_its_limits(device: str, case: str) -> None:
    info = next(d for d in grilly_optim.devices() if d.kind == {"staged": "vulkan"}.get(case, case))
    assert info.usable
    assert info.reason == ""
    if info.kind == "vulkan":
        assert info.type == "cpu"
        assert "llvmpipe" in info.name
        assert info.limits["max_groups"] == 65_535
        assert info.shares_memory == (case == "vulkan")


def test_bad_switches_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRILLY_THREADS", "many")
    info = next(d for d in grilly_optim.devices() if d.kind == "cpu")
    assert not info.usable
    assert info.reason == "GRILLY_THREADS=many: expected a number from 1 to 256"
    monkeypatch.delenv("GRILLY_THREADS")
    monkeypatch.setenv("GRILLY_ISA", "mmx")
    from grilly_optim.optim import AdamW
    from tests.table import draw

    with pytest.raises(DeviceUnavailable, match=r"GRILLY_ISA=mmx: this processor and build have .*base"):
        AdamW([draw(3)], device="cpu")


SHOW = """
import grilly_optim, numpy as np
from grilly_optim.optim import AdamW
for d in grilly_optim.devices():
    print(d.kind, d.usable, d.reason)
w = np.ones(3, np.float32)
AdamW([w], lr=0.1).step(gradients=[np.ones(3, np.float32)])
print(w)
try:
    AdamW([w], device="vulkan:llvmpipe")
except grilly_optim.DeviceUnavailable as error:
    print("refused:", error)
"""


@pytest.mark.subprocess
def test_a_machine_without_a_vulkan_loader(tmp_path: Any) -> None:
    for name in ("libvulkan.so.1", "libvulkan.so"):
        (tmp_path / name).touch()  # found first, and no library
    result = run_python(SHOW, LD_LIBRARY_PATH=str(tmp_path), GRILLY_VALIDATION="")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("vulkan False there is no Vulkan loader (libvulkan.so.1) on this machine: install")
    assert lines[1] == "cpu True "
    assert lines[-1].startswith("refused: device='vulkan:llvmpipe': there is no Vulkan loader")


@pytest.mark.subprocess
def test_a_machine_without_a_vulkan_driver() -> None:
    result = run_python(SHOW, VK_DRIVER_FILES="/nowhere.json", VK_ICD_FILENAMES="/nowhere.json", GRILLY_VALIDATION="")
    assert result.returncode == 0, result.stderr
    assert "vulkan False the Vulkan loader found no driver: install" in result.stdout


@pytest.mark.subprocess
def test_a_missing_validation_layer_is_an_error_that_names_it(tmp_path: Any) -> None:
    result = run_python(SHOW, VK_LAYER_PATH=str(tmp_path), GRILLY_VALIDATION="1")
    assert "the layer VK_LAYER_KHRONOS_validation is not installed" in result.stdout, result.stderr


@pytest.mark.subprocess
def test_without_the_compiled_core_numpy_is_left() -> None:
    code = "import sys; sys.modules['grilly_optim._core'] = None\n" + SHOW + "print(grilly_optim.default_device().kind)"
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert "cpu False the compiled core cannot be loaded" in result.stdout
    assert result.stdout.splitlines()[-1] == "numpy"


@pytest.mark.subprocess
def test_import_opens_no_device_and_prints_nothing() -> None:
    code = "import grilly_optim; print(grilly_optim.counters()['allocations'], grilly_optim._devices._opened)"
    result = run_python(code, LD_LIBRARY_PATH=os.devnull)
    assert (result.stdout, result.stderr) == ("0 []\n", "")
