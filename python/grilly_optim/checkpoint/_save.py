"""One save: the order of its writes is what survives a kill."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress
from typing import Any

from grilly_optim.checkpoint import _files, _payload, _store
from grilly_optim.checkpoint._payload import Mode
from grilly_optim.checkpoint._policy import Entry, decide
from grilly_optim.checkpoint._tree import Named


@dataclasses.dataclass
class Save:
    """The arguments of `save_checkpoint`, checked."""

    directory: str
    name: str
    train_iter: int | None
    score: float
    timestamp: float
    max_ckpts_to_keep: int
    keep_ckpt_every: float | None
    format: str
    mode: Mode
    nodes: list[Any]
    arrays: list[Named]


def save(new: Save) -> str:
    """Save, wait until it is durable, then delete what the policy no longer keeps; returns the path."""
    _files.make_directory(new.directory)
    with _files.locked(_store.lock_path(new.directory, new.name)):
        return _save(new)


def _save(new: Save) -> str:
    there = _store.survey(new.directory, new.name)
    if there.entries and there.mode != new.mode:
        raise ValueError(f"mode is {new.mode!r}, and the checkpoints of {new.name!r} were saved with {there.mode!r}")
    file = _store.file_name(new.name, new.train_iter, _payload.FORMATS[new.format].SUFFIX)
    path = os.path.join(new.directory, file)
    others = [e for e in there.entries if e.file != file]
    if len(others) == len(there.entries) and file not in there.owned and os.path.lexists(path):
        raise FileExistsError(f"{path!r} is there already, and is no checkpoint of {new.name!r}")

    first = new.timestamp if there.first_timestamp is None else there.first_timestamp
    decision = decide(
        others,
        there.permanent,
        score=new.score,
        timestamp=new.timestamp,
        first_timestamp=first,
        mode=new.mode,
        max_ckpts_to_keep=new.max_ckpts_to_keep,
        keep_ckpt_every=new.keep_ckpt_every,
    )
    serial = there.next_serial
    permanent = there.permanent & {e.serial for e in others}
    if decision.promoted is not None:
        permanent.add(decision.promoted.serial)
    if decision.new_is_permanent:
        permanent.add(serial)
    meta = _payload.Meta(new.name, new.train_iter, serial, new.score, new.timestamp, first, new.mode, sorted(permanent))

    # 1. The manifest forgets a file that is about to be overwritten: it never describes another content than is there.
    if file in there.owned:
        _store.write_manifest(new.directory, new.name, dataclasses.replace(there, entries=others))
    # 2. The new checkpoint is written aside and moved into place. Cut off before the move, nothing has changed. Cut off
    #    after it, the next look finds a file that the manifest does not list, checks it and takes it in - and with it
    #    which ones are permanent, so that nothing goes which was to stay.
    with _files.replacing(_store.temporary(new.directory, new.name, "checkpoint"), path) as output:
        size = _payload.write(output, new.format, meta, new.nodes, new.arrays)
    # 3. The manifest, with the new one and without those that go: at no time does it list a file that is not there.
    entries = [e for e in others if e not in decision.deleted]
    entries.append(Entry(file, size, serial, new.score, new.timestamp))
    there = _store.Survey(
        entries, permanent & {e.serial for e in entries}, serial + 1, new.mode, first, {e.file for e in entries}
    )
    _store.write_manifest(new.directory, new.name, there)
    # 4. The deletions. Cut off here, good checkpoints are left over, which are found as in 2 and go with the next save.
    for entry in decision.deleted:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(new.directory, entry.file))
    return path
