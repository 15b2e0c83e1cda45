"""What goes into a checkpoint comes out with its type, or is refused."""

from __future__ import annotations

import collections
import copy
import enum
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import grilly_optim
from grilly_optim.checkpoint import _payload, load_checkpoint, save_checkpoint
from grilly_optim.checkpoint._tree import flatten
from tests.checkpoints import FORMATS, formats, names, same
from tests.table import Array, layouts


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here; what is written when is the matter of test_checkpoint_kills.py."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def through(tree: dict[Any, Any], directory: Path, format: Any = "npz") -> dict[Any, Any]:
    """Save and load."""
    before = copy.deepcopy(tree)
    loaded = load_checkpoint(save_checkpoint(tree, directory / "one", 0.0, format=format))
    same(tree, before, "the caller's")
    return loaded


VALUES: dict[str, Any] = {
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**128 - 1, -(2**200), 10**5000],
    "floats": [0.0, -0.0, 1e-320, 1.7e308, 0.1, math.pi, 5.0],
    "no numbers": [math.nan, -math.nan, struct.unpack("d", b"\x01\0\0\0\0\0\xf8\x7f")[0], math.inf, -math.inf],
    "float, no number, float": [1.0, math.nan, 2.0],
    "text": ["", "a\0b", "ünï\U0001f600", "\ud800", '"sha256":"', "list", "x" * 100_000],
    "empty": [[], (), {}, [[]], [()], ((),), {"": {}}],
    "like our own nodes": [["list", 2], ["array", 0], ["dict", ["a"]], ["float", "00"], ("tuple", 1)],
    "keys": {1: "int", "1": "str", -1: 0, "": 1, "a/b": 2, "a.b": 3, "../x": 4, "ü": 5, 2**100: 6, "\n": 7, " ": 8},
    "deep": {"a": [({"b": ([{"c": (1, [2, (3,)])}],)},)]},
    "a generator": np.random.PCG64(7).state,
    "another generator": np.random.Philox(7).state,
}


@formats
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_plain_values_come_back_with_their_types(value: Any, format: str, tmp_path: Path) -> None:
    same(through({"value": value}, tmp_path, format), {"value": value})


def arrays() -> Iterator[tuple[str, Array]]:
    for dtype in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        yield dtype, np.array([[1, 0, 1]], dtype)
    for dtype in (">i2", ">u8", ">f4", ">f8"):
        yield dtype, np.arange(6).astype(dtype)
    for name, make in layouts(np.float32):
        yield name, make()
    for shape in ((0,), (0, 5), (3, 0, 2), (1, 1, 1)):
        yield str(shape), np.zeros(shape)
    yield "no numbers", np.array([0x7FF8000000000001, 0xFFF0000000000000, 1 << 63], np.uint64).view(np.float64)
    yield "signalling", np.array([0x7FF0000000000001], np.uint64).view(np.float64)
    yield "signalling, swapped", np.array([0x7FF0000000000001], np.uint64).view(np.float64).astype(">f8")
    yield "zero strides", np.broadcast_to(np.float32(3), (4, 5))
    yield "metadata", np.zeros(3, np.dtype("i4", metadata={"unit": "m"}))


def npz_only() -> Iterator[tuple[str, Array]]:
    yield "complex64", np.array([1 + 2j, complex(-0.0, math.nan)], np.complex64)
    yield "complex128", np.array(1j)
    yield "swapped complex", np.array([1 + 2j]).astype(">c16")
    yield "longdouble", np.array([1, 2], np.longdouble)
    yield "text", np.array(["a", "ünï\U0001f600", ""])
    yield "swapped text", np.array(["ab"]).astype(">U2")
    yield "bytes", np.array([b"a", b"b\0c"])
    yield "dates", np.array(["2026-11-21", "NaT"], "M8[ns]")
    yield "durations", np.array([1, -1], "m8[25s]")


ARRAYS = dict(arrays())
NPZ_ONLY = dict(npz_only())
both = [(f, n) for f in FORMATS for n in ARRAYS] + [("npz", n) for n in NPZ_ONLY]


@pytest.mark.parametrize(("format", "name"), both)
def test_arrays_come_back_with_values_and_dtype(format: str, name: str, tmp_path: Path) -> None:
    array = {**ARRAYS, **NPZ_ONLY}[name]
    # Others around it: it must not take their place in the file.
    loaded = through({"a": array, "b": [np.ones(3), array[()]], "c": array}, tmp_path, format)
    same(loaded["a"], np.asarray(array))
    same(loaded["c"], np.asarray(array))
    same(loaded["b"], [np.ones(3), array[()] if array.shape == () else np.asarray(array)])
    assert loaded["a"].flags.writeable
    assert not np.shares_memory(loaded["a"], loaded["c"]) or not array.size


@pytest.mark.parametrize("name", NPZ_ONLY)
def test_safetensors_refuses_what_it_cannot_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"ckpt_dict\['a'\]\[1\] has dtype .* use format='npz'"):
        save_checkpoint({"a": [1, NPZ_ONLY[name]]}, tmp_path / "net", 0.0, format="safetensors")
    assert names(tmp_path) == []


@formats
@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.float64(-0.0), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True)]
)
def test_numpy_scalars_keep_their_types(scalar: Any, format: str, tmp_path: Path) -> None:
    same(through({"x": (scalar, [scalar])}, tmp_path, format), {"x": (scalar, [scalar])})


@pytest.mark.parametrize("scalar", [np.complex64(1j), np.str_("ü"), np.bytes_(b"x"), np.datetime64("2026-11-21", "D")])
def test_npz_keeps_other_numpy_scalars(scalar: Any, tmp_path: Path) -> None:
    same(through({"x": scalar}, tmp_path), {"x": scalar})


@formats
def test_subclasses_of_ndarray_come_back_as_arrays(format: Any, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(3,))
    ours = [grilly_optim.Parameter([1.0, 2.0]), grilly_optim.zeros(5, device="numpy"), mapped, mapped[:0]]
    path = save_checkpoint({"x": ours}, tmp_path / "n", 0, format=format)
    same(load_checkpoint(path), {"x": [np.asarray(a) for a in ours]})


@formats
def test_nothing_is_nested_too_deeply(format: str, tmp_path: Path) -> None:
    deep: Any = ()
    for i in range(30_000):
        deep = [deep] if i % 2 else {"": (deep,)}
    loaded = load_checkpoint(save_checkpoint({"x": deep}, tmp_path / "n", 0, format=format))  # type: ignore[arg-type]
    depth, level = 0, loaded["x"]
    while level:
        depth, level = depth + 1, level[""][0] if type(level) is dict else level[0]
    assert depth == 30_000


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.floats(width=32).map(np.float32)
    | hnp.arrays(st.sampled_from(["?", "i8", ">i2", "f4", "f8"]), hnp.array_shapes(min_dims=0, min_side=0))
)
trees = st.recursive(
    plain,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=15,
)


@formats
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text() | st.integers(), trees))
def test_any_tree_comes_back(format: str, tmp_path: Path, tree: dict[Any, Any]) -> None:
    path = tmp_path / "one"
    with open(path, "w+b") as file:
        _payload.write(file, format, _payload.Meta("one", None, 0, 0.0, 0.0, 0.0, "max", []), *flatten(tree))
    same(_payload.read(str(path)), tree)


class Shape(NamedTuple):
    n: int


class Colour(enum.IntEnum):
    RED = 1


def cycles() -> Iterator[tuple[Any, str]]:
    a: list[Any] = [1]
    a.append([a])
    yield a, r"ckpt_dict\['x'\]\[1\]\[0\] contains itself"
    b: dict[Any, Any] = {}
    b["y"] = {"z": (b,)}
    yield b, r"ckpt_dict\['x'\]\['y'\]\['z'\]\[0\] contains itself"


REFUSED: list[tuple[Any, str]] = [
    (np.array([None]), r"ckpt_dict\['x'\] has dtype object, which could only be saved by pickling"),
    ({1: [np.zeros(2, "i4,f4")]}, r"ckpt_dict\['x'\]\[1\]\[0\] has dtype \[\('f0'"),
    (np.zeros(2, "V8"), "has dtype"),
    (np.zeros(1, "i4,f4")[0], "has dtype"),
    (np.array(["a"], np.dtypes.StringDType()), "has dtype StringDType"),
    (np.ma.masked_equal([1, 2], 2), "is a masked array: save its data and its mask"),
    (b"x", "must be a dict, list, tuple, array, str, int, float, bool or None, got bytes"),
    (1j, "got complex"),
    ({1, 2}, "got set"),
    (Path("x"), "got Posix|got Windows"),
    (range(3), "got range"),
    (np.random.default_rng(), "got Generator"),
    (collections.OrderedDict(a=1), "is a OrderedDict, which would come back as a dict"),
    (Shape(1), "is a Shape, which would come back as a tuple"),
    (Colour.RED, "is a Colour, which would come back as a int"),
    ({True: 1}, r"ckpt_dict\['x'\] has the key True, a bool: keys must be str or int"),
    ({1.5: 1}, "has the key 1.5, a float"),
    ({None: 1}, "has the key None"),
    ({(1, 2): 1}, r"has the key \(1, 2\), a tuple"),
    ({np.int64(1): 1}, "a int64: keys must be"),
    *cycles(),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_what_could_not_come_back_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    error = ValueError if "itself" in message else TypeError
    with pytest.raises(error, match=message):
        save_checkpoint({"first": 1, "x": value}, tmp_path / "new" / "net", 0.0)
    assert list(tmp_path.iterdir()) == []


@formats
def test_one_thing_in_several_places_is_no_cycle(format: str, tmp_path: Path) -> None:
    a, b = [1], np.ones(2)
    tree = {"a": a, "b": (a, [a, b], {"c": a, "d": b})}
    same(through(tree, tmp_path, format), tree)


ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"ckpt_dict": [1]}, TypeError, "ckpt_dict must be a dict, got list"),
    ({"ckpt_dict": collections.OrderedDict()}, TypeError, "ckpt_dict must be a dict, got OrderedDict"),
    ({"file_path": 3}, TypeError, "file_path must be a str or a path, got int"),
    ({"file_path": b"net"}, TypeError, "file_path must be a str or a path, got bytes"),
    ({"file_path": "new/"}, ValueError, "file_path must end with a name"),
    ({"performance_score": math.nan}, ValueError, "performance_score must be a number, got nan"),
    ({"performance_score": np.float32("nan")}, ValueError, "performance_score must be a number"),
    ({"performance_score": "0.5"}, TypeError, "performance_score must be a real number, got '0.5'"),
    ({"performance_score": None}, TypeError, "performance_score must be a real number, got NoneType"),
    ({"performance_score": 1j}, TypeError, "performance_score must be a real number, got complex"),
    ({"performance_score": 10**400}, ValueError, "performance_score must be a real number"),
    ({"train_iter": 1.0}, TypeError, "train_iter must be an integer, got float"),
    ({"train_iter": "1"}, TypeError, "train_iter must be an integer, got str"),
    ({"max_ckpts_to_keep": 0}, ValueError, "max_ckpts_to_keep must be 1 or more, got 0"),
    ({"max_ckpts_to_keep": None}, TypeError, "max_ckpts_to_keep must be an integer, got NoneType"),
    ({"keep_ckpt_every": 0}, ValueError, "keep_ckpt_every must be hours, more than 0 and finite, or None, got 0"),
    ({"keep_ckpt_every": math.inf}, ValueError, "keep_ckpt_every must be hours"),
    ({"keep_ckpt_every": "2"}, TypeError, "keep_ckpt_every must be a real number, got '2'"),
    ({"timestamp": math.nan}, ValueError, "timestamp must be finite, got nan"),
    ({"timestamp": "now"}, TypeError, "timestamp must be a real number"),
    ({"format": "pickle"}, ValueError, "format must be 'npz' or 'safetensors', got 'pickle'"),
    ({"mode": "best"}, ValueError, "mode must be 'max' or 'min', got 'best'"),
]


@pytest.mark.parametrize(("change", "error", "message"), ARGUMENTS)
def test_bad_arguments_are_named(
    change: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        save_checkpoint(**{"ckpt_dict": {}, "file_path": "new/net", "performance_score": 1.0, **change})
    assert list(tmp_path.iterdir()) == []
