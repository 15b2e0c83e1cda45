"""What the tests of checkpoints share."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.checkpoint import _store, load_checkpoint, make_ckpt_list, save_checkpoint

FORMATS = ["npz", "safetensors"]
formats = pytest.mark.parametrize("format", FORMATS)
HOUR = 3600.0


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


def names(directory: Path) -> list[str]:
    """The files that are no bookkeeping."""
    return sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))


def scores(file_path: Path) -> dict[str, float]:
    return {Path(path).name: score for path, score in make_ckpt_list(file_path)}


def permanent(directory: Path, name: str = "net") -> list[str]:
    there = _store.survey(str(directory), name)
    return sorted(e.file for e in there.entries if e.serial in there.permanent)


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
