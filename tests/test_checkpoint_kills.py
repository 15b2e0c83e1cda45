"""A save that is killed, refused or crossed by another at any instant loses nothing."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.benchmarks.measures.checkpoints import kill_often
from grilly_optim.checkpoint import (
    _files,
    _store,
    get_best_ckpt_path,
    load_checkpoint,
    make_ckpt_list,
    save_checkpoint,
)

HOUR = 3600.0


class Killed(BaseException):
    """Nothing of the process runs after it: whatever still tries to touch a file gets it again."""


class Instants:
    """Stops at the n-th instant of a save: a call of the system, or half-way through a write.

    What happens from then on is up to `stop`, which is called at that instant and every later one.
    """

    def __init__(self, stop: Callable[[int], None]) -> None:
        self.stop, self.count = stop, 0
        self.events: list[str] = []

    def tick(self, event: str) -> None:
        self.count += 1
        self.stop(self.count)
        self.events.append(event)

    @contextmanager
    def watching(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        tick = self.tick

        class File(io.BufferedRandom):
            def write(self, data: Any) -> int:
                view = memoryview(data).cast("B")
                super().write(view[: len(view) // 2])
                tick("write")
                super().write(view[len(view) // 2 :])
                return len(view)

        def opened(path: str, mode: str) -> Any:
            if mode != "x+b":
                return builtins.open(path, mode)
            tick("create")
            return File(io.FileIO(path, "x+"))

        def wrapped(name: str, describe: Callable[..., str]) -> None:
            original = getattr(os, name)

            def call(*arguments: Any) -> Any:
                tick(describe(*arguments))
                return original(*arguments)

            patch.setattr(os, name, call)

        def what(handle: int) -> str:
            return "sync directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync"

        with monkeypatch.context() as patch:
            patch.setattr(_files, "open", opened, raising=False)
            wrapped("replace", lambda a, b: f"move to {os.path.basename(b)}")
            wrapped("unlink", lambda path: f"delete {os.path.basename(path)}")
            wrapped("fsync", what)
            yield


def kill_at(instant: int) -> Callable[[int], None]:
    def stop(count: int) -> None:
        if count >= instant:
            raise Killed

    return stop


def refuse_at(instant: int) -> Callable[[int], None]:
    def stop(count: int) -> None:
        if count == instant:
            raise OSError(errno.ENOSPC, "No space left on device")

    return stop


SCORES = [1, 5, 3, 4, 2, 0, 6, 3]


def save(directory: Path, i: int, iteration: int | None, **options: Any) -> str:
    content = {"i": i, "w": np.full(1000, i)}
    return save_checkpoint(content, directory / "net", SCORES[i], iteration, 3, timestamp=i * HOUR, **options)


# What was saved before, and the save that is stopped: (number, iteration).
SITUATIONS: dict[str, tuple[list[tuple[int, int | None]], tuple[int, int | None]]] = {
    "the first": ([], (0, 0)),
    "another becomes permanent, and one goes": ([(0, 0), (1, 1), (3, 3)], (4, 4)),
    "it becomes permanent itself": ([(0, 0), (1, 1), (3, 3)], (6, 6)),
    "it replaces one": ([(0, 0), (1, 1), (3, 3)], (4, 3)),
    "it replaces a permanent one": ([(0, 0), (1, 1), (2, 2), (3, 3)], (5, 1)),
    "without an iteration": ([(0, None)], (1, None)),
}
situations = pytest.mark.parametrize(("before", "now"), SITUATIONS.values(), ids=SITUATIONS.keys())
formats = pytest.mark.parametrize("format", ["npz", "safetensors"])


def look(directory: Path) -> dict[str, tuple[int, bool]]:
    """Everything that is listed, loaded: file -> (number, whether it is permanent)."""
    there = _store.survey(str(directory), "net")
    found = {}
    for path, score in make_ckpt_list(directory / "net"):
        content = load_checkpoint(path)
        assert score == SCORES[content["i"]]
        assert (content["w"] == content["i"]).all()
        entry = next(e for e in there.entries if e.file == os.path.basename(path))
        found[entry.file] = (content["i"], entry.serial in there.permanent)
    if found:
        best = get_best_ckpt_path(directory / "net")
        assert best is not None
        assert SCORES[load_checkpoint(best)["i"]] == max(SCORES[i] for i, _ in found.values())
    return found


def check_the_manifest(directory: Path) -> None:
    """It is whole, and every file it lists is there and is the one it describes."""
    manifest = directory / ".net.checkpoints.json"
    if manifest.exists():
        for entry in json.loads(manifest.read_bytes())["content"]["checkpoints"]:
            content = load_checkpoint(directory / entry["file"])
            assert entry["score"] == SCORES[content["i"]]


def stopped_everywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: list[tuple[int, int | None]],
    now: tuple[int, int | None],
    stop_at: Callable[[int], Callable[[int], None]],
    error: type[BaseException],
    format: str,
) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Every instant: the directory after it, what was there before, and what would be there without it."""
    start, end = tmp_path / "start", tmp_path / "end"
    start.mkdir()
    for i, iteration in before:
        save(start, i, iteration, format=format)
    shutil.copytree(start, end)
    save(end, *now, format=format)
    old, new = look(start), look(end)
    for instant in range(1, 1000):
        directory = tmp_path / str(instant)
        shutil.copytree(start, directory)
        instants = Instants(stop_at(instant))
        with instants.watching(monkeypatch):
            try:
                save(directory, *now, format=format)
            except error:
                pass
            else:
                assert instants.count < instant, "the error came out"
                assert instant > 12, "there were instants"
                return
        yield directory, old, new
    raise AssertionError("it never came through")


@formats
@situations
def test_killed_at_every_instant(
    before: Any, now: Any, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for directory, old, new in stopped_everywhere(tmp_path, monkeypatch, before, now, kill_at, Killed, format):
        check_the_manifest(directory)
        found = look(directory)
        # As before; or the new one is there, and those that go may not have gone yet.
        if found != old:
            assert new.items() <= found.items() <= (old | new).items()
        seen.add("old" if found == old else "new" if found == new else "between")
        # The next save clears up: all is as if there had been no kill.
        save(directory, 7, 7, format=format)
        reference = tmp_path / "reference"
        shutil.copytree(tmp_path / ("start" if found == old else "end"), reference)
        save(reference, 7, 7, format=format)
        assert look(directory) == look(reference)
        files = [sorted(p.name for p in d.iterdir()) for d in (directory, reference)]
        assert files[0] == files[1]
        shutil.rmtree(reference)
    assert {"old", "new"} <= seen


@formats
@situations
def test_refused_by_the_system_at_every_instant(
    before: Any, now: Any, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory, old, new in stopped_everywhere(tmp_path, monkeypatch, before, now, refuse_at, OSError, format):
        check_the_manifest(directory)
        found = look(directory)
        if found != old:
            assert new.items() <= found.items() <= (old | new).items()
        assert not [p.name for p in directory.iterdir() if p.name.endswith(".tmp")]
        save(directory, *now, format=format)
        assert set(look(directory)) == set(new)


def test_each_step_is_durable_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(i: int, iteration: int) -> list[str]:
        instants = Instants(lambda count: None)
        with instants.watching(monkeypatch):
            save(tmp_path, i, iteration, keep_ckpt_every=None)
        return [event for event, _ in itertools.groupby(instants.events) if not event.endswith(".tmp")]

    def written(file: str) -> list[str]:
        return ["create", "write", "sync", f"move to {file}", "sync directory"]

    manifest = written(".net.checkpoints.json")
    for i in range(3):
        assert steps(i, i) == [*written(f"net_{i}.npz"), *manifest]
    assert steps(3, 1) == [*manifest, *written("net_1.npz"), *manifest]
    assert steps(4, 4) == [*written("net_4.npz"), *manifest, "delete net_0.npz"]


def test_new_directories_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(_files, "_sync", lambda directory: synced.append(directory))
    save_checkpoint({}, tmp_path / "a" / "b" / "net", 1, 1)
    assert synced[:2] == [str(tmp_path), str(tmp_path / "a")]


def test_a_file_system_without_directory_sync_or_locks_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        original(handle)

    def lock(handle: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(_files, "_wait_for_lock", lock)
    path = save(tmp_path, 0, 0)
    assert load_checkpoint(path)["i"] == 0
    assert "no locks on this file system" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of this kind there")
@formats
def test_a_full_disk_leaves_what_was_there(format: Any, tmp_path: Path) -> None:
    import resource

    save(tmp_path, 0, 0, format=format)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint({"w": np.ones(100_000)}, tmp_path / "net", 9, 9, format=format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_leftover_of_another_name_is_not_touched(tmp_path: Path) -> None:
    for name in ("net2", "net_1", "ne", "net.checkpoint.tmp"):
        (tmp_path / f".{name}.checkpoint.tmp").write_bytes(b"being written")
    (tmp_path / ".net.checkpoint.tmp").write_bytes(b"left over")
    (tmp_path / ".net.manifest.tmp").write_bytes(b"left over")
    save(tmp_path, 0, 1)
    left = sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp"))
    assert left == [
        ".ne.checkpoint.tmp",
        ".net.checkpoint.tmp.checkpoint.tmp",
        ".net2.checkpoint.tmp",
        ".net_1.checkpoint.tmp",
    ]


def test_a_leftover_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".net.checkpoint.tmp").symlink_to("precious")
    save(tmp_path, 0, 0)
    assert (tmp_path / "precious").read_text() == "mine"


# --- several at once


def test_threads_take_turns_under_one_name(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(lambda i: save_checkpoint({"i": i}, tmp_path / "net", i, i, 4), range(24)))
    listed = {load_checkpoint(path)["i"] for path, _ in make_ckpt_list(tmp_path / "net")}
    assert {23, 22, 21} <= listed
    assert len(listed) == 4
    serials = [e.serial for e in _store.survey(str(tmp_path), "net").entries]
    assert len(set(serials)) == 4
    assert max(serials) == 23


_SAVER = """
import sys
from grilly_optim.checkpoint import save_checkpoint
path, first = sys.argv[1], int(sys.argv[2])
for i in range(first, first + 15):
    save_checkpoint({"i": i}, path, i, i, 4)
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("names", [("net", "net"), ("net", "net2")])
def test_processes_save_at_once(names: tuple[str, str], tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", _SAVER, str(tmp_path / name), str(100 * k)])
        for k, name in enumerate(names)
    ]
    while any(child.poll() is None for child in children):
        for path, score in make_ckpt_list(tmp_path / "net"):  # a reader meanwhile
            with suppress(FileNotFoundError):
                assert load_checkpoint(path)["i"] == score
    assert [child.wait() for child in children] == [0, 0]
    if names[0] == names[1]:
        scores = [score for _, score in make_ckpt_list(tmp_path / "net")]
        assert scores[:3] == [114, 113, 112]
        assert len(scores) == 4
        assert max(e.serial for e in _store.survey(str(tmp_path), "net").entries) == 29
    else:
        assert [score for _, score in make_ckpt_list(tmp_path / "net")] == [14, 13, 12, 11]
        assert [score for _, score in make_ckpt_list(tmp_path / "net2")] == [114, 113, 112, 111]


def test_a_lock_held_elsewhere_is_waited_for(tmp_path: Path) -> None:
    done = threading.Event()

    def other() -> None:
        save(tmp_path, 0, 0)
        done.set()

    thread = threading.Thread(target=other)
    with _files.locked(_store.lock_path(str(tmp_path), "net")):
        thread.start()
        assert not done.wait(0.2)
        assert make_ckpt_list(tmp_path / "net") == []  # readers do not wait
        save_checkpoint({}, tmp_path / "net2", 1, 1)  # nor do other names
    thread.join()
    assert done.is_set()


def test_a_save_within_a_save_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler might try: it would wait for itself."""
    original = os.replace

    def replace(a: str, b: str) -> None:
        with pytest.raises(RuntimeError, match="in the middle of save_checkpoint under the same name"):
            save(tmp_path, 1, 1)
        original(a, b)

    monkeypatch.setattr(os, "replace", replace)
    save(tmp_path, 0, 0)
    assert set(look(tmp_path)) == {"net_0.npz"}


# A signal right behind open(), or in a destructor, which swallows it.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_during_a_save_leaves_a_checkpoint_or_none(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    interrupted = 0
    content = {"i": 1, "w": np.ones(300_000)}
    try:
        for k in range(30):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 * 1.25**k)
                for _ in range(100):
                    save_checkpoint(content, tmp_path / "net", 1, k, 3)
            except Stop:
                interrupted += 1
            assert not list(tmp_path.glob(".net.*.tmp"))
            for path, _ in make_ckpt_list(tmp_path / "net"):
                assert load_checkpoint(path)["i"] == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted >= 25


@pytest.mark.subprocess
def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """As measured by the benchmark, with fewer kills."""
    tally = kill_often(tmp_path / "net", saves=40, seed=3)
    assert (tally.lost, tally.unreadable, tally.strange, tally.left_over) == (0, 0, 0, 0)
    assert tally.kills >= 10
    assert tally.cut_off >= 8
