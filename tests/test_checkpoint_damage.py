"""Damaged checkpoints are found and named, and a manifest that is lost or damaged is rebuilt."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.checkpoint import (
    CheckpointError,
    _payload,
    _store,
    get_best_ckpt_path,
    load_checkpoint,
    save_checkpoint,
)
from tests.checkpoints import HOUR, formats, names, permanent, run, same, scores


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here; what is written when is the matter of test_checkpoint_kills.py."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


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


def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even from a file that somebody made so, checksum and all."""
    original = np.lib.format.write_array

    def write_array(file: Any, array: Any, allow_pickle: bool) -> None:
        original(file, np.array([Trap()]), allow_pickle=True)

    monkeypatch.setattr(np.lib.format, "write_array", write_array)
    path = save_checkpoint({"w": np.ones(1)}, tmp_path / "net", 1, 1)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_checkpoint(path)


class Trap:
    """Unpickling it fails the test."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("unpickled",)


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
