"""Traces as .npz: what `numpy.load` opens by name, the facts of the run as JSON, a digest over every byte."""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.checkpoint import _files, _npz, _payload

Array = NDArray[Any]

VERSION = 1
_COMMENT = b"grilly_optim trace sha256 "


def write(path: str, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: Its path; missing directories are made.
        arrays: By name.
        facts: What JSON can hold.
    """
    directory, name = os.path.split(path)
    _files.make_directory(directory)
    # A name of its own for everyone who writes: two that save under one path must not move each other's half file.
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.{threading.get_ident()}.tmp")
    about = json.dumps({"version": VERSION, **facts})
    with _files.replacing(temporary, path) as file:
        at = _npz.write_archive(file, {"trace": about}, arrays, _COMMENT, _payload.BLANK)
        _payload.seal(file, at)


def read(path: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and facts.

    Raises:
        ValueError: The file is damaged, or not one of these.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        # The digest comes first: nothing is parsed that is not as it was written.
        at = _npz.digest_at(file, len(_payload.BLANK), _COMMENT)
        if at is None:
            raise ValueError(f"{path!r} cannot be loaded: it is cut short, or was not written by Trace.save")
        if not _payload.is_intact(file, at):
            raise ValueError(f"{path!r} cannot be loaded: it is damaged: its content does not fit its checksum")
        with zipfile.ZipFile(file) as archive:
            facts = json.loads(archive.read("trace.json"))
            if facts.pop("version") != VERSION:
                raise ValueError(f"{path!r} cannot be loaded: it was written by a newer version of grilly_optim")
            arrays = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as content:
                        arrays[member[: -len(".npy")]] = np.lib.format.read_array(content, allow_pickle=False)
    return arrays, facts
