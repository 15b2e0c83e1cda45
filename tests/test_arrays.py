"""empty, zeros and asarray: memory that a device uses where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.optim import AdamW
from tests.table import assert_bits, draw


def test_empty_and_zeros(device: str) -> None:
    for shape in (0, 7, (), (3, 4), (0, 5), np.int64(3), [2, 2]):
        array = grilly_optim.zeros(shape, device=device)
        assert array.dtype == np.float32
        assert array.shape == np.zeros(shape).shape
        assert not array.any()
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert array.ctypes.data % 64 == 0 or array.size == 0
    for dtype in (np.float64, np.complex64, np.uint32, bool):
        assert grilly_optim.empty(5, dtype, device).dtype == dtype


@pytest.mark.cases("cpu", "vulkan", "staged")
def test_large_arrays_start_at_a_page_or_a_cache_line(device: str) -> None:
    if device != "cpu":
        assert grilly_optim.empty(10_000_000, device=device).ctypes.data % 64 == 0
    else:
        assert grilly_optim.empty(10_000, device=device).ctypes.data % 4096 == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, r"shape must not have negative sizes, got \(-1,\)"),
        (((2, -3),), ValueError, r"negative sizes, got \(2, -3\)"),
        (([1.5],), TypeError, r"integer"),
        (("ab",), TypeError, r"integer"),
        ((2**62,), grilly_optim.OutOfDeviceMemory, r"takes 18446744073709551616 bytes"),
        ((3, object), TypeError, r"dtype must be a number, got object"),
        ((3, "U4"), TypeError, r"dtype must be a number, got <U4"),
    ],
)
def test_bad_shapes_and_dtypes(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        grilly_optim.empty(*arguments, device="cpu")


def test_memory_lives_as_long_as_a_view_of_it(device: str) -> None:
    before = grilly_optim.counters(device)["bytes_allocated"]
    array = grilly_optim.empty(2_000_000, device=device)
    view = array[5:]
    array[...] = 3
    assert grilly_optim.counters(device)["bytes_allocated"] - before >= array.nbytes
    del array
    assert (view == 3).all()
    del view
    assert grilly_optim.counters(device)["bytes_allocated"] == before


def test_asarray_follows_numpys_rule_for_copies(device: str, case: str) -> None:
    mine, theirs = grilly_optim.asarray(draw(10), copy=True, device=device), draw(10)
    assert grilly_optim.asarray(mine, device=device) is mine or case == "staged"
    assert_bits(grilly_optim.asarray(theirs, copy=True, device=device), theirs)
    assert not np.shares_memory(grilly_optim.asarray(theirs, copy=True, device=device), theirs)
    if case in ("numpy", "cpu"):
        assert grilly_optim.asarray(theirs, device=device) is theirs
        assert grilly_optim.asarray(theirs, copy=False, device=device) is theirs
    else:
        with pytest.raises(ValueError, match=r"copy=False, but llvmpipe.* cannot use the memory of x in place"):
            grilly_optim.asarray(theirs, copy=False, device=device)
    if case == "vulkan":
        assert grilly_optim.asarray(mine, copy=False, device=device) is mine
        copied = grilly_optim.asarray(theirs, device=device)
        assert not np.shares_memory(copied, theirs)
        assert grilly_optim.asarray(copied, copy=False, device=device) is copied
    if case == "staged":
        assert grilly_optim.asarray(theirs, device=device) is theirs


def test_asarray_takes_what_is_like_an_array(device: str) -> None:
    class Interface:
        __array_interface__ = np.arange(3.0).__array_interface__

    class DLPack:
        def __dlpack__(self, **kwargs: Any) -> Any:
            return np.arange(3.0).__dlpack__(**kwargs)

        def __dlpack_device__(self) -> Any:
            return np.arange(3.0).__dlpack_device__()

    for x in ([0.0, 1.0, 2.0], (0, 1, 2), Interface(), DLPack(), np.arange(6.0)[::2] / 2, memoryview(np.arange(3.0))):
        array = grilly_optim.asarray(x, device=device)
        assert array.tolist() == [0, 1, 2]
        assert array.ndim == 1
    with pytest.raises(TypeError, match="must be a number"):
        grilly_optim.asarray(["a"], device=device)


def test_arrays_of_one_device_work_on_another(device: str) -> None:
    p = grilly_optim.asarray(draw(1000), copy=True, device=device)
    expected = p.copy()
    g = draw(1000)
    for other in ("numpy", "cpu"):
        AdamW([p], device=other).step(gradients=[g])
        AdamW([expected], device="numpy").step(gradients=[g])
        assert_bits(p, expected)


def test_an_unusable_device_is_named() -> None:
    with pytest.raises(grilly_optim.DeviceUnavailable, match="'quantum' is not known"):
        grilly_optim.zeros(3, device="quantum")
