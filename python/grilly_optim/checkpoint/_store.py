"""What checkpoints there are under a name: a manifest, and the files themselves where it has nothing to say.

The manifest (``.<name>.checkpoints.json``) is an index. Whatever it lists is complete and in place: an entry comes
after its file, and goes before its file is overwritten or deleted. A file that it does not list is read from end to
end, and belongs to the name if it is good and says so itself. So a save that was cut off, a manifest that is lost and
files that somebody deleted are all the same case, and nothing has to be repaired.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import zlib
from contextlib import suppress
from typing import Any

from grilly_optim.checkpoint import _files
from grilly_optim.checkpoint._payload import FORMATS, CheckpointError, Meta, Mode, read_meta
from grilly_optim.checkpoint._policy import Entry

_log = logging.getLogger("grilly_optim")
_VERSION = 1
_SUFFIXES = "|".join(re.escape(format.SUFFIX) for format in FORMATS.values())
_FILE = re.compile(rf"(?P<stem>(?P<name>.+?)(?:_(?:0|-?[1-9][0-9]*))?)(?:{_SUFFIXES})", re.DOTALL)


@dataclasses.dataclass
class Survey:
    """The checkpoints of one name.

    Attributes:
        entries: Those that are there.
        permanent: The serials of the permanent ones.
        next_serial: What the next save gets.
        mode: Whether high or low scores are good; None before the first save.
        first_timestamp: When the first one was saved; None before that.
        owned: All files that the manifest lists, in place or not.
    """

    entries: list[Entry] = dataclasses.field(default_factory=list)
    permanent: set[int] = dataclasses.field(default_factory=set)
    next_serial: int = 0
    mode: Mode | None = None
    first_timestamp: float | None = None
    owned: set[str] = dataclasses.field(default_factory=set)

    def adopt(self, file: str, size: int, meta: Meta) -> None:
        """Take in a checkpoint that speaks for itself."""
        self.entries.append(Entry(file, size, meta.serial, meta.score, meta.timestamp))
        self.permanent.update(meta.permanent)
        if self.first_timestamp is None:
            self.first_timestamp = meta.first_timestamp
        if self.mode is None or meta.serial >= self.next_serial:
            self.mode = meta.mode
        self.next_serial = max(self.next_serial, meta.serial + 1)


def file_name(name: str, train_iter: int | None, suffix: str) -> str:
    """The file of a checkpoint, without its directory."""
    return f"{name}{suffix}" if train_iter is None else f"{name}_{train_iter}{suffix}"


def possible_names(file: str) -> list[str]:
    """The names that a file may belong to: ``net_1.npz`` is ``net``'s at iteration 1, or ``net_1``'s without one."""
    match = _FILE.fullmatch(file)
    return [] if match is None else list(dict.fromkeys((match["name"], match["stem"])))


def survey(directory: str, name: str) -> Survey:
    """Look what there is. Changes nothing, and needs no lock."""
    # The manifest first: a file that goes meanwhile is missed, and one that comes is read.
    listed = read_manifest(directory, name)
    found = dataclasses.replace(listed, entries=[])
    known = {entry.file: entry for entry in listed.entries}
    for file, size in _candidates(directory, name):
        entry = known.get(file)
        if entry is not None and entry.size == size:
            found.entries.append(entry)
        elif not _listed_elsewhere(directory, name, file):
            meta = _verified(os.path.join(directory, file))
            if meta is not None and meta.name == name and file in _file_names(meta):
                found.adopt(file, size, meta)
    found.permanent &= {entry.serial for entry in found.entries}
    return found


def read_manifest(directory: str, name: str) -> Survey:
    """What the manifest lists; nothing where it is missing or damaged."""
    path = _manifest(directory, name)
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return Survey()
    try:
        both = json.loads(raw)
        content = both["content"]
        good = both["crc32"] == _crc32(content) and content["version"] == _VERSION
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        _log.warning("%s is damaged: it is rebuilt from the checkpoints at the next save", path)
        return Survey()
    entries = [Entry(**e) for e in content["checkpoints"]]
    return Survey(
        entries,
        set(content["permanent"]),
        content["next_serial"],
        content["mode"],
        content["first_timestamp"],
        {e.file for e in entries},
    )


def write_manifest(directory: str, name: str, what: Survey) -> None:
    """Replace the manifest, durably."""
    content = {
        "version": _VERSION,
        "mode": what.mode,
        "first_timestamp": what.first_timestamp,
        "next_serial": what.next_serial,
        "permanent": sorted(what.permanent),
        "checkpoints": [dataclasses.asdict(entry) for entry in what.entries],
    }
    with _files.replacing(temporary(directory, name, "manifest"), _manifest(directory, name)) as file:
        file.write(json.dumps({"crc32": _crc32(content), "content": content}, indent=1).encode())


def lock_path(directory: str, name: str) -> str:
    """The file that a process locks while it saves under a name."""
    return os.path.join(directory, f".{name}.lock")


def temporary(directory: str, name: str, what: str) -> str:
    """A file that is being written. One fixed name for each kind: so the next save removes what a killed one left."""
    return os.path.join(directory, f".{name}.{what}.tmp")


def _manifest(directory: str, name: str) -> str:
    return os.path.join(directory, f".{name}.checkpoints.json")


def _crc32(content: Any) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _candidates(directory: str, name: str) -> list[tuple[str, int]]:
    """Files that may be checkpoints of a name, by their own names, and their sizes."""
    found = []
    with suppress(FileNotFoundError), os.scandir(directory or ".") as items:
        for item in items:
            if name in possible_names(item.name):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    if item.is_file():
                        found.append((item.name, item.stat().st_size))
    return sorted(found)


def _file_names(meta: Meta) -> list[str]:
    return [file_name(meta.name, meta.train_iter, format.SUFFIX) for format in FORMATS.values()]


def _listed_elsewhere(directory: str, name: str, file: str) -> bool:
    return any(file in read_manifest(directory, other).owned for other in possible_names(file) if other != name)


def _verified(path: str) -> Meta | None:
    try:
        return read_meta(path)
    except FileNotFoundError:  # deleted meanwhile
        return None
    except CheckpointError as error:
        _log.warning("%s; it is left out", error)
        return None
