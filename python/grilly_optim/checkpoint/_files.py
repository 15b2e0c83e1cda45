"""Files that appear whole or not at all, and one process at a time."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_log = logging.getLogger("grilly_optim")
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_mine = threading.local()


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Wait until no other thread or process is in here with this path. The file stays: removing it would be a race.

    Raises:
        RuntimeError: This thread is in here already, so that it would wait for itself.
    """
    mine: dict[str, IO[bytes]] = _mine.__dict__.setdefault("files", {})
    key = os.path.abspath(path)
    if key in mine and not mine[key].closed:
        raise RuntimeError(
            "this thread is in the middle of save_checkpoint under the same name (called from a signal handler?): "
            "set a flag in the handler, and act on it after the save"
        )
    with open(path, "ab") as file:
        mine[key] = file
        try:
            _wait_for_lock(file.fileno())
            has_lock = True
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            has_lock = False
            _log.warning("%s: no locks on this file system; save under one name from one process only", path)
        try:
            yield
        finally:
            # Closing it would do, but for a process that was forked meanwhile and has it open too.
            if has_lock:
                _unlock(file.fileno())


@contextmanager
def replacing(temporary: str, path: str) -> Iterator[BufferedRandom]:
    """A new file that takes the place of `path`, durably, when the block ends; after an error nothing has changed."""
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # left over by a process that was killed
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync(os.path.dirname(path))


def make_directory(path: str) -> None:
    """Make a directory and those above it, durably, where they are missing."""
    if not path or os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directory(parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    _sync(parent)


def _sync(directory: str) -> None:
    """Make the names in a directory durable, where the system can do that."""
    if sys.platform == "win32":
        return
    handle = os.open(directory or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


if sys.platform == "win32":

    def _wait_for_lock(handle: int) -> None:
        while True:
            os.lseek(handle, 0, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
            except OSError as error:
                if error.errno != errno.EDEADLK:  # ten seconds have passed
                    raise
            else:
                return

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:

    def _wait_for_lock(handle: int) -> None:
        # flock and not lockf: two threads of one process exclude each other too.
        fcntl.flock(handle, fcntl.LOCK_EX)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
