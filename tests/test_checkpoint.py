"""Checkpoints: what goes in comes out with its type, the best ones stay, and damage is found and named."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import json
import logging
import math
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import grilly_optim
from grilly_optim.checkpoint import (
    CheckpointError,
    _payload,
    _policy,
    _store,
    get_best_ckpt_path,
    load_checkpoint,
    make_ckpt_list,
    save_checkpoint,
)
from grilly_optim.checkpoint._tree import Named, flatten
from grilly_optim.optim import AdamW
from tests.table import Array, assert_bits, draw, layouts

FORMATS = ["npz", "safetensors"]
formats = pytest.mark.parametrize("format", FORMATS)
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here; what is written when is the matter of test_checkpoint_kills.py."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def same(a: Any, b: Any, where: str = "") -> None:
    """Equal in value, to the last bit, and in type, all the way down."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert [(type(k), k) for k in a] == [(type(k), k) for k in b], where
        for k in a:
            same(a[k], b[k], f"{where}[{k!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(a, np.ndarray | np.generic):
        assert (a.dtype.str, a.shape) == (b.dtype.str, b.shape), where
        assert a.tobytes() == b.tobytes(), where
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b), where
    else:
        assert a == b, where


def through(tree: dict[Any, Any], directory: Path, format: Any = "npz") -> dict[Any, Any]:
    """Save and load."""
    before = copy.deepcopy(tree)
    loaded = load_checkpoint(save_checkpoint(tree, directory / "one", 0.0, format=format))
    same(tree, before, "the caller's")
    return loaded


def names(directory: Path) -> list[str]:
    """The files that are no bookkeeping."""
    return sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))


def scores(file_path: Path) -> dict[str, float]:
    return {Path(path).name: score for path, score in make_ckpt_list(file_path)}


def permanent(directory: Path, name: str = "net") -> list[str]:
    there = _store.survey(str(directory), name)
    return sorted(e.file for e in there.entries if e.serial in there.permanent)


# --- what goes in comes out

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
def test_subclasses_of_ndarray_come_back_as_arrays(format: str, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(3,))
    ours = [grilly_optim.Parameter([1.0, 2.0]), grilly_optim.zeros(5, device="numpy"), mapped, mapped[:0]]
    same(load_checkpoint(save_checkpoint({"x": ours}, tmp_path / "n", 0)), {"x": [np.asarray(a) for a in ours]})


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


# --- files


def test_a_checkpoint_is_an_ordinary_npz(tmp_path: Path) -> None:
    path = save_checkpoint({"w": np.arange(3.0), "b": np.float32(2)}, tmp_path / "net", 0.5, 7)
    assert path == f"{tmp_path}/net_7.npz"
    with np.load(path, allow_pickle=False) as content:
        assert sorted(content.files) == ["0", "1", "checkpoint.json", "tree.json"]
        assert_bits(content["0"], np.arange(3.0))
        assert json.loads(content["checkpoint.json"])["score"] == 0.5


def test_a_checkpoint_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    path = save_checkpoint({"w": array}, tmp_path / "net", 0.5, 7, format="safetensors")
    assert path == f"{tmp_path}/net_7.safetensors"
    assert_bits(load_file(path)["0"], array)


def test_safetensors_says_which_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint({"w": np.ones(2)}, tmp_path / "net", 0.5, 7, format="safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'grilly_optim\[safetensors\]'"):
        save_checkpoint({"w": np.ones(2)}, tmp_path / "net", 0.5, 8, format="safetensors")
    assert names(tmp_path) == ["net_7.safetensors"]
    # Reading needs no more than NumPy.
    assert_bits(load_checkpoint(path)["w"], np.ones(2))
    assert scores(tmp_path / "net") == {"net_7.safetensors": 0.5}


def test_equal_checkpoints_are_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for now, place in enumerate(("a", "b")):
        monkeypatch.setattr("time.time", lambda now=now: 1.7e9 + now * HOUR)
        (tmp_path / place).mkdir()
        files.append(save_checkpoint({"w": np.arange(3)}, tmp_path / place / "net", 0.5, 7, timestamp=1.0))
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()


def test_paths_are_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file_path, expected in (("net", "net_3.npz"), ("a/b/net", "a/b/net_3.npz"), (Path("c") / "n.1", "c/n.1_3.npz")):
        assert save_checkpoint({}, file_path, 1, np.int64(3)) == expected  # type: ignore[arg-type]
        assert get_best_ckpt_path(file_path) == expected
        assert make_ckpt_list(file_path) == [(expected, 1.0)]
        assert load_checkpoint(expected) == {}
    assert save_checkpoint({}, "last", 1) == "last.npz"
    assert save_checkpoint({}, "last", 1, -5) == "last_-5.npz"


def test_names_that_begin_alike_do_not_mix(tmp_path: Path) -> None:
    several = ["net", "net2", "net_1", "net_x", "net.", "n", ".net", "net_1_2", "net*", "net_-1"]
    for iteration in range(4):
        for k, name in enumerate(several):
            save_checkpoint({"name": name, "i": iteration}, tmp_path / name, k + iteration, 10 + iteration, 2)
    for k, name in enumerate(several):
        assert scores(tmp_path / name) == {f"{name}_13.npz": k + 3, f"{name}_12.npz": k + 2}
        assert load_checkpoint(get_best_ckpt_path(tmp_path / name)) == {"name": name, "i": 3}
        # Without the manifests too: the files know whose they are.
    for manifest in tmp_path.glob(".*.json"):
        manifest.unlink()
    for k, name in enumerate(several):
        assert scores(tmp_path / name) == {f"{name}_13.npz": k + 3, f"{name}_12.npz": k + 2}


@pytest.mark.parametrize("manifests", [True, False])
def test_a_file_that_fits_two_names_belongs_to_one(manifests: bool, tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "net", 0.5, 1)
    save_checkpoint({}, tmp_path / "net_2", 0.7)
    if not manifests:
        for manifest in tmp_path.glob(".*.json"):
            manifest.unlink()
    assert names(tmp_path) == ["net_1.npz", "net_2.npz"]
    with pytest.raises(FileExistsError, match=r"net_1.npz' is there already, and is no checkpoint of 'net_1'"):
        save_checkpoint({}, tmp_path / "net_1", 0.9)
    with pytest.raises(FileExistsError, match=r"net_2.npz' is there already, and is no checkpoint of 'net'"):
        save_checkpoint({}, tmp_path / "net", 0.9, 2)
    assert scores(tmp_path / "net") == {"net_1.npz": 0.5}
    assert scores(tmp_path / "net_2") == {"net_2.npz": 0.7}


def test_files_of_others_are_never_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "net_1.npz", w=np.ones(3))
    (tmp_path / "net_2.npz").mkdir()
    (tmp_path / "net_3.npz").symlink_to("nowhere")
    (tmp_path / "net_4.npz.bak").write_text("mine")
    for iteration in (1, 2, 3):
        with pytest.raises(FileExistsError, match=f"net_{iteration}.npz"):
            save_checkpoint({}, tmp_path / "net", 1, iteration)
    for iteration in range(4, 14):
        save_checkpoint({}, tmp_path / "net", 1, iteration, 1)
    assert names(tmp_path) == ["net_1.npz", "net_13.npz", "net_2.npz", "net_3.npz", "net_4.npz.bak"]
    assert make_ckpt_list(tmp_path / "net") == [(str(tmp_path / "net_13.npz"), 1.0)]
    assert "was not written by save_checkpoint; it is left out" in caplog.text


def test_a_copied_checkpoint_loads_and_is_not_listed(tmp_path: Path) -> None:
    path = Path(save_checkpoint({"a": 1}, tmp_path / "net", 1, 1))
    for copied in ("net_2.npz", "other_1.npz", "best.ckpt"):
        (tmp_path / copied).write_bytes(path.read_bytes())
        assert load_checkpoint(tmp_path / copied) == {"a": 1}
    assert scores(tmp_path / "net") == {"net_1.npz": 1}
    assert scores(tmp_path / "other") == {}


@pytest.mark.parametrize("path", [b"net_1.npz", 3, None])
def test_a_path_of_another_type_is_named(path: Any) -> None:
    with pytest.raises(TypeError, match=r"^path must be a str or a path, got (bytes|int|NoneType)$"):
        load_checkpoint(path)
    with pytest.raises(TypeError, match=r"^file_path must be"):
        make_ckpt_list(path)


def test_where_there_is_nothing(tmp_path: Path) -> None:
    for file_path in (tmp_path / "net", tmp_path / "missing" / "net"):
        assert get_best_ckpt_path(file_path) is None
        assert make_ckpt_list(file_path) == []
        with pytest.raises(FileNotFoundError, match="net_1"):
            load_checkpoint(f"{file_path}_1.npz")
    assert list(tmp_path.iterdir()) == []


# --- the policy


def run(directory: Path, saves: list[tuple[float, float]], **options: Any) -> list[str]:
    """Saves of (hours, score); returns the iterations that are there, permanent ones with a star."""
    for i, (hours, score) in enumerate(saves):
        save_checkpoint({"i": i}, directory / "net", score, i, timestamp=1.7e9 + hours * HOUR, **options)
    for path, score in make_ckpt_list(directory / "net"):
        assert saves[load_checkpoint(path)["i"]][1] == score
    stars = permanent(directory)
    files = sorted(scores(directory / "net"), key=lambda f: int(f[4:-4]))
    assert sorted(files) == names(directory)
    return [f[4:-4] + "*" * (f in stars) for f in files]


def at_once(*values: float) -> list[tuple[float, float]]:
    return [(0.0, score) for score in values]


POLICY: dict[str, tuple[list[tuple[float, float]], dict[str, Any], str]] = {
    "the best and the new one": (at_once(5, 1, 4, 2, 3, 0), {"max_ckpts_to_keep": 3}, "0 2 5"),
    "low is good": (at_once(5, 1, 4, 2, 3, 9), {"max_ckpts_to_keep": 3, "mode": "min"}, "1 3 5"),
    "of equal scores the newest": (at_once(1, 1, 1, 1), {"max_ckpts_to_keep": 2}, "2 3"),
    "one": (at_once(3, 2, 1), {"max_ckpts_to_keep": 1}, "2"),
    "five": (at_once(*range(9)), {}, "4 5 6 7 8"),
    "infinite scores": (at_once(-math.inf, math.inf, 0, 1), {"max_ckpts_to_keep": 2}, "1 3"),
    "negative scores": (at_once(-3, -1, -2, -9), {"max_ckpts_to_keep": 2}, "1 3"),
    "permanent: the new one": ([(0, 1), (1, 2), (2, 3)], {}, "0 1 2*"),
    "permanent: on equal scores the new one": ([(0, 1), (1, 3), (2, 3)], {}, "0 1 2*"),
    "permanent: a better one": ([(0, 1), (1, 3), (2, 2)], {}, "0 1* 2"),
    "permanent: a lower one": ([(0, 3), (1, 1), (2, 2)], {"mode": "min"}, "0 1* 2"),
    "permanent: of equal ones the newest": ([(0, 3), (1, 3), (2, 2)], {}, "0 1* 2"),
    "permanent: none before time": ([(0, 1), (1.9, 2)], {}, "0 1"),
    "permanent: none": ([(0, 1), (9, 2)], {"keep_ckpt_every": None}, "0 1"),
    "permanent: one per window": ([(0, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)], {}, "0 1* 2 3 4 5*"),
    "permanent: too old for the window": ([(0, 9), (5.9, 5), (6, 4)], {}, "0 1* 2"),
    "permanent: not for the window": ([(0, 9), (1, 8), (6, 4)], {}, "0 1 2*"),
    "permanent ones do not count": (
        [(h, 100 - h) for h in range(12)],
        {"max_ckpts_to_keep": 2, "keep_ckpt_every": 3},
        "0* 2 5* 8* 11",
    ),
    "the clock goes back": ([(0, 1), (5, 2), (-3, 3), (1, 4)], {}, "0 1* 2 3"),
}


@pytest.mark.parametrize(("saves", "options", "expected"), POLICY.values(), ids=POLICY.keys())
def test_which_stay(saves: list[tuple[float, float]], options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert " ".join(run(tmp_path, saves, **options)) == expected


hours = st.floats(0, 30)
points = st.floats(-3, 3).map(round)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(hours, points, st.booleans()), max_size=12),
    st.tuples(hours, points),
    st.integers(1, 6),
    st.none() | st.floats(0.1, 9),
    st.sampled_from(["max", "min"]),
)
def test_what_a_decision_promises(
    there: list[tuple[float, int, bool]], new: tuple[float, int], most: int, every: float | None, mode: Any
) -> None:
    entries = [_policy.Entry(f"{i}", 0, i, score, h * HOUR) for i, (h, score, _) in enumerate(there)]
    before = {i for i, (_, _, stays) in enumerate(there) if stays}
    decision = _policy.decide(
        entries,
        before,
        score=new[1],
        timestamp=new[0] * HOUR,
        first_timestamp=0.0,
        mode=mode,
        max_ckpts_to_keep=most,
        keep_ckpt_every=every,
    )
    after = before | ({decision.promoted.serial} if decision.promoted else set())
    assert not (decision.promoted and decision.new_is_permanent)
    assert every is not None or after == before
    assert not any(e.serial in after for e in decision.deleted)
    left = [e for e in entries if e.serial not in after and e not in decision.deleted]
    assert len(left) == min(most - 1, len(entries) - len(after))
    sign = 1 if mode == "max" else -1
    if left and decision.deleted:
        assert max(sign * e.score for e in decision.deleted) <= min(sign * e.score for e in left)
    if decision.promoted:
        assert sign * decision.promoted.score > sign * new[1]


def test_the_first_save_counts_the_hours_even_when_it_is_gone(tmp_path: Path) -> None:
    assert run(tmp_path, [(0, 1), (0, 5), (0, 6), (2, 4)], max_ckpts_to_keep=2) == ["1", "2*", "3"]
    for path in tmp_path.glob("net_*"):
        path.unlink()
    save_checkpoint({}, tmp_path / "net", 1, 9, timestamp=1.7e9 + 5 * HOUR)
    assert permanent(tmp_path) == ["net_9.npz"]


def test_a_save_looks_at_no_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(_store, "read_meta", refuse)
    monkeypatch.setattr(_payload, "_opened", refuse)
    save_checkpoint({}, tmp_path / "net_99", 1)  # might be an iteration of "net", but is another's
    for i in range(9):
        save_checkpoint({}, tmp_path / "net", i, i, 3, timestamp=i * HOUR)
    assert scores(tmp_path / "net") == {f"net_{i}.npz": i for i in (8, 7, 6, 5, 2)}
    assert permanent(tmp_path) == ["net_2.npz", "net_6.npz"]


def test_without_an_iteration_the_file_is_replaced(tmp_path: Path) -> None:
    for i in range(4):
        assert save_checkpoint({"i": i}, tmp_path / "net", -i, timestamp=i * HOUR) == f"{tmp_path}/net.npz"
        assert names(tmp_path) == ["net.npz"]
        assert load_checkpoint(tmp_path / "net.npz") == {"i": i}
        assert scores(tmp_path / "net") == {"net.npz": -i}


def test_the_same_iteration_again_replaces_its_file_and_no_other(tmp_path: Path) -> None:
    for score in (1, 2, 3):
        save_checkpoint({"score": score}, tmp_path / "net", score, score, 3)
    save_checkpoint({"score": 0}, tmp_path / "net", 0, 2, 3)
    assert scores(tmp_path / "net") == {"net_3.npz": 3, "net_1.npz": 1, "net_2.npz": 0}
    assert load_checkpoint(tmp_path / "net_2.npz") == {"score": 0}


def test_formats_mix_under_one_name(tmp_path: Path) -> None:
    for i, format in enumerate(["npz", "safetensors"] * 2):
        save_checkpoint({"i": i}, tmp_path / "net", i, i, 3, format=format)  # type: ignore[arg-type]
    assert scores(tmp_path / "net") == {"net_3.safetensors": 3, "net_2.npz": 2, "net_1.safetensors": 1}


def test_high_and_low_scores_do_not_mix(tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "net", 1, 1, mode="min")
    for _ in range(2):
        with pytest.raises(ValueError, match="mode is 'max', and the checkpoints of 'net' were saved with 'min'"):
            save_checkpoint({}, tmp_path / "net", 1, 2)
        (tmp_path / ".net.checkpoints.json").unlink(missing_ok=True)
    assert names(tmp_path) == ["net_1.npz"]
    (tmp_path / "net_1.npz").unlink()
    save_checkpoint({}, tmp_path / "net", 1, 2)


def test_scores_may_be_numpy_scalars(tmp_path: Path) -> None:
    for i, score in enumerate([np.float32(0.5), np.int64(3), np.array(2.0), True]):
        save_checkpoint({}, tmp_path / "net", score, i)  # type: ignore[arg-type]
    assert make_ckpt_list(tmp_path / "net")[0] == (f"{tmp_path}/net_1.npz", 3.0)
    assert all(type(score) is float for _, score in make_ckpt_list(tmp_path / "net"))


def test_without_a_timestamp_the_clock_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1.7e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    save_checkpoint({}, tmp_path / "net", 1, 0)
    now[0] += 2 * HOUR
    save_checkpoint({}, tmp_path / "net", 2, 1)
    assert permanent(tmp_path) == ["net_1.npz"]


# --- going on


@formats
def test_training_goes_on_to_the_last_bit(format: Any, device: str, tmp_path: Path) -> None:
    def train(interrupt: bool) -> tuple[list[Array], dict[Any, Any]]:
        start = np.random.default_rng(5)
        w = [draw(300, rng=start), draw((7, 9), np.float64, start)]
        optimizer, rng = AdamW(w, lr=0.1, amsgrad=True, device=device), np.random.default_rng(6)
        for step in range(8):
            if interrupt and step == 5:
                content = {"w": w, "optimizer": optimizer.state_dict(), "rng": rng.bit_generator.state, "step": step}
                path = save_checkpoint(content, tmp_path / "net", 0.5, step, format=format)
                del w, optimizer, rng, content
                content = load_checkpoint(path)
                w, rng = content["w"], np.random.default_rng()
                rng.bit_generator.state = content["rng"]
                optimizer = AdamW(w, device=device)
                optimizer.load_state_dict(content["optimizer"])
                assert content["step"] == 5
            optimizer.step(gradients=[rng.standard_normal(p.shape).astype(p.dtype) for p in w])
        return w, optimizer.state_dict()

    (a, after), (e, expected) = train(True), train(False)
    same(a, e)
    same(after, expected)


# --- damage


def damaged(path: str | Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert caught.value.path == str(path)
    return caught.value


CONTENT = {"w": np.arange(3.0), "text": "x", "n": [1, math.nan]}


@formats
def test_one_changed_bit_anywhere_is_found(format: Any, tmp_path: Path) -> None:
    path = Path(save_checkpoint(CONTENT, tmp_path / "net", 1, 1, format=format))
    good = path.read_bytes()
    rng = np.random.default_rng(3)
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        damaged(path)
    path.write_bytes(good)
    same(load_checkpoint(path), CONTENT)


@formats
def test_a_file_that_is_cut_short_or_too_long_is_found(format: Any, tmp_path: Path) -> None:
    path = Path(save_checkpoint(CONTENT, tmp_path / "net", 1, 1, format=format))
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        damaged(path)
    for more in (b"\0", b"PK", good):
        path.write_bytes(good + more)
        damaged(path)


def foreign() -> Iterator[bytes]:
    yield b""
    yield b"x"
    yield b"PK\x05\x06" + bytes(18)
    yield b"\xff" * 1000
    yield (10**8).to_bytes(8, "little") + b"{"
    yield (2).to_bytes(8, "little") + b"{}"
    yield pickle.dumps({"w": 1})
    yield b"grilly_optim sha256 " + b"0" * 64
    rng = np.random.default_rng(9)
    for size in (9, 100, 5000):
        yield rng.bytes(size)
        yield rng.bytes(size)[:8].ljust(8) + b"{" + rng.bytes(size)


@pytest.mark.parametrize("content", list(foreign()), ids=lambda c: repr(c[:12]))
def test_other_files_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net_1.npz"
    path.write_bytes(content)
    assert damaged(path).next_best is None


def test_archives_of_others_are_no_checkpoints(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    np.savez(tmp_path / "a.npz", w=np.ones(3))
    save_file({"w": np.ones(3)}, tmp_path / "b.safetensors", {"sha256": "0" * 64})
    for file in ("a.npz", "b.safetensors"):
        damaged(tmp_path / file)


def test_a_newer_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_payload, "VERSION", 2)
    path = save_checkpoint({}, tmp_path / "net", 1, 1)
    monkeypatch.undo()
    assert "newer version of grilly_optim" in damaged(path).reason


def test_damage_is_told_with_the_next_best(tmp_path: Path) -> None:
    paths = [Path(save_checkpoint({"i": i}, tmp_path / "net", i, i)) for i in range(4)]
    save_checkpoint({}, tmp_path / "net2", 99, 1)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-9])

    def turn(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[50] ^= 1
        path.write_bytes(content)

    expected: list[str | None] = [str(p) for p in (paths[2], paths[1], paths[0])]
    turn(paths[3])
    assert get_best_ckpt_path(tmp_path / "net") == str(paths[3])  # damage of the same size: only a load finds it
    error = damaged(paths[3])
    assert error.next_best == expected[0]
    assert str(error).endswith(f"; the next best checkpoint is {expected[0]!r}")
    assert load_checkpoint(error.next_best) == {"i": 2}
    turn(paths[2])
    assert damaged(paths[3]).next_best == expected[1]
    cut(paths[1])
    assert damaged(paths[1]).next_best == expected[2]
    (tmp_path / ".net.checkpoints.json").unlink()
    assert damaged(paths[3]).next_best == expected[2]
    paths[0].unlink()
    error = damaged(paths[3])
    assert error.next_best is None
    assert "next best" not in str(error)


def test_next_best_is_of_the_same_name(tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "net", 1, 2)
    path = Path(save_checkpoint({}, tmp_path / "net_1", 1))
    path.write_bytes(b"")
    assert damaged(path).next_best is None


def test_the_error_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(CheckpointError("a", "it is empty", "b")))
    assert (again.path, again.reason, again.next_best) == ("a", "it is empty", "b")
    assert str(again) == "'a' cannot be loaded: it is empty; the next best checkpoint is 'b'"


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    """Not even when somebody made the file, checksum and all."""
    path = Path(save_checkpoint({"w": np.ones(1)}, tmp_path / "net", 1, 1))
    meta = _payload.read_meta(str(path))
    array = np.array([None])
    bad = Named(array, ())
    with pytest.raises(ValueError, match="Object arrays cannot be saved"), open(path, "w+b") as file:
        _payload.write(file, "npz", meta, [["array", 0]], [bad])


# --- the manifest


def everything(directory: Path) -> _store.Survey:
    """What there is, whether the manifest says so or the files."""
    there = _store.survey(str(directory), "net")
    return dataclasses.replace(there, entries=sorted(there.entries, key=lambda e: e.serial), owned=set())


history = st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=40)
@given(history, st.integers(1, 4), st.sampled_from([None, 0.5, 2]), st.sampled_from(["max", "min"]))
def test_a_manifest_that_is_lost_is_rebuilt(saves: Any, most: int, every: float | None, mode: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory, now = Path(name), 0.0
        for hours_later, score, iteration in saves:
            now += hours_later * HOUR
            save_checkpoint({}, directory / "net", score, iteration, most, every, now, mode=mode)
            expected = everything(directory)
            manifest = directory / ".net.checkpoints.json"
            kept = manifest.read_bytes()
            manifest.unlink()
            assert everything(directory) == expected
            manifest.write_bytes(kept)


def test_a_damaged_manifest_is_rebuilt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, [(0, 1), (1, 3), (2, 2), (3, 5)])
    expected, manifest = everything(tmp_path), tmp_path / ".net.checkpoints.json"
    good = manifest.read_bytes()
    rng = np.random.default_rng(4)
    bad = [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, good[:-1], good[: len(good) // 2]]
    for at in range(0, len(good), 3):
        changed = bytearray(good)
        changed[at] ^= 1 << int(rng.integers(8))
        bad.append(bytes(changed))
    for content in bad:
        manifest.write_bytes(content)
        assert everything(tmp_path) == expected
    assert ".net.checkpoints.json is damaged" in caplog.text
    save_checkpoint({}, tmp_path / "net", 4, 4, timestamp=1.7e9 + 3 * HOUR)
    caplog.clear()
    assert scores(tmp_path / "net") == {f"net_{i}.npz": score for i, score in ((3, 5), (4, 4), (1, 3), (2, 2), (0, 1))}
    assert permanent(tmp_path) == ["net_1.npz"]
    assert not caplog.records


def test_a_damaged_checkpoint_does_not_get_into_a_rebuilt_manifest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [Path(save_checkpoint({}, tmp_path / "net", i, i)) for i in range(5)]
    (tmp_path / ".net.checkpoints.json").unlink()
    paths[4].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:-1])
    content = bytearray(paths[2].read_bytes())
    content[99] ^= 4
    paths[2].write_bytes(content)
    assert scores(tmp_path / "net") == {"net_1.npz": 1, "net_0.npz": 0}
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 3
    for reason in ("net_4.npz' cannot be loaded: it is empty", "net_3.npz' cannot", "net_2.npz' cannot"):
        assert reason in caplog.text
    save_checkpoint({}, tmp_path / "net", 7, 7)
    assert get_best_ckpt_path(tmp_path / "net") == str(tmp_path / "net_7.npz")
    assert names(tmp_path) == [f"net_{i}.npz" for i in (0, 1, 2, 3, 4, 7)]


def test_files_that_are_gone_or_cut_short_are_not_listed(tmp_path: Path) -> None:
    paths = [Path(save_checkpoint({}, tmp_path / "net", i, i)) for i in range(4)]
    paths[3].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    assert scores(tmp_path / "net") == {"net_1.npz": 1, "net_0.npz": 0}
    # Its own damaged file may be saved again.
    save_checkpoint({}, tmp_path / "net", 2, 2)
    assert scores(tmp_path / "net") == {"net_2.npz": 2, "net_1.npz": 1, "net_0.npz": 0}


def test_a_directory_may_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "a", [(0, 1), (1, 3), (2, 2)])
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setattr(_store, "read_meta", None)
    assert scores(tmp_path / "b" / "net") == {"net_1.npz": 3, "net_2.npz": 2, "net_0.npz": 1}


# --- the package


@pytest.mark.subprocess
def test_it_is_there_after_import_and_imported_when_used() -> None:
    code = """
import sys, grilly_optim
before = {"grilly_optim.checkpoint", "zipfile", "json", "hashlib"} & set(sys.modules)
print(sorted(before), callable(grilly_optim.checkpoint.save_checkpoint), "safetensors" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[] True False\n"
