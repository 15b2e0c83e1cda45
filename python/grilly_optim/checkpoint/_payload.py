"""The file of one checkpoint: what it says about itself, its content, and a digest over every byte of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader
from types import ModuleType
from typing import Any, Literal

from grilly_optim.checkpoint import _npz, _safetensors
from grilly_optim.checkpoint._tree import Named, unflatten

Mode = Literal["max", "min"]

FORMATS: dict[str, ModuleType] = {"npz": _npz, "safetensors": _safetensors}
VERSION = 1
# Stands for the digest while that is computed: one bit changed anywhere, in the digest too, and they differ.
BLANK = b"0" * hashlib.sha256().digest_size * 2
_BLOCK = 1 << 20


class CheckpointError(RuntimeError):
    """A file that is no complete checkpoint: cut short, changed since it was written, or something else altogether.

    Attributes:
        path: The file.
        reason: What is wrong with it.
        next_best: The checkpoint with the best score among the others of that name, read and found good; None where
            there is none.
    """

    def __init__(self, path: str, reason: str, next_best: str | None = None) -> None:
        super().__init__(path, reason, next_best)
        self.path, self.reason, self.next_best = path, reason, next_best

    def __str__(self) -> str:
        other = f"; the next best checkpoint is {self.next_best!r}" if self.next_best is not None else ""
        return f"{self.path!r} cannot be loaded: {self.reason}{other}"


@dataclasses.dataclass(frozen=True)
class Meta:
    """What a checkpoint says about itself, enough to rebuild a manifest.

    Attributes:
        name: The last part of `file_path`.
        train_iter: The iteration in the file's name, None for the file without one.
        serial: Counts the saves under this name.
        score: The performance score.
        timestamp: When it was saved, in seconds since the epoch.
        first_timestamp: When the first one of this name was saved.
        mode: Whether high or low scores are good.
        permanent: The serials of all checkpoints that were permanent once this one was saved.
    """

    name: str
    train_iter: int | None
    serial: int
    score: float
    timestamp: float
    first_timestamp: float
    mode: Mode
    permanent: list[int]


def write(file: BufferedRandom, format: str, meta: Meta, nodes: list[Any], arrays: list[Named]) -> int:
    """Write a checkpoint into an empty file; returns its size."""
    about = json.dumps({"version": VERSION, **dataclasses.asdict(meta)})
    at = FORMATS[format].write(file, {"checkpoint": about, "tree": json.dumps(nodes)}, arrays, BLANK)
    return seal(file, at)


def seal(file: BufferedRandom, at: int) -> int:
    """Put the digest into its place; returns the size of the file."""
    digest = _digest(file, at)
    file.seek(at)
    file.write(digest)
    return file.seek(0, 2)


def is_intact(file: BufferedReader, at: int) -> bool:
    """Whether the digest that stands there is that of the file."""
    file.seek(at)
    return file.read(len(BLANK)) == _digest(file, at)


def read_meta(path: str) -> Meta:
    """What a checkpoint says about itself, once all of it is found good.

    Raises:
        CheckpointError: The file is not good.
        OSError: It cannot be read.
    """
    with _opened(path) as (_, _, meta):
        return meta


def read(path: str) -> dict[Any, Any]:
    """The content of a checkpoint; raises as `read_meta`."""
    with _opened(path) as (file, format, _):
        nodes = json.loads(format.read_text(file, "tree"))
        content: dict[Any, Any] = unflatten(nodes, format.read_arrays(file))
        return content


@contextmanager
def _opened(path: str) -> Iterator[tuple[BufferedReader, ModuleType, Meta]]:
    with open(path, "rb") as file:
        # The digest comes first: nothing is parsed that is not as it was written.
        first = file.read(9)
        format = _safetensors if first[8:] == _safetensors.NINTH else _npz
        at = format.digest_at(file, len(BLANK))
        if at is None:
            reason = "it is cut short, or was not written by save_checkpoint" if first else "it is empty"
            raise CheckpointError(path, reason)
        if not is_intact(file, at):
            raise CheckpointError(path, "it is damaged: its content does not fit its checksum")
        about = json.loads(format.read_text(file, "checkpoint"))
        if about.pop("version") != VERSION:
            raise CheckpointError(path, "it was written by a newer version of grilly_optim")
        yield file, format, Meta(**about)


def _digest(file: BufferedReader | BufferedRandom, at: int) -> bytes:
    """SHA-256, in hexadecimal digits, of the file with zeros where its own digest stands."""
    digest = hashlib.sha256()
    file.seek(0)
    _feed(digest, file, at)
    digest.update(BLANK)
    file.seek(at + len(BLANK))
    _feed(digest, file, sys.maxsize)
    return digest.hexdigest().encode()


def _feed(digest: hashlib._Hash, file: BufferedReader | BufferedRandom, length: int) -> None:
    while length > 0 and (block := file.read(min(length, _BLOCK))):
        digest.update(block)
        length -= len(block)
