"""Checkpoints: save a training run so that it can go on, keep the best ones, survive a kill at any instant.

A checkpoint is one file, ``<file_path>_<train_iter>.npz`` (or ``.safetensors``), written without pickle. It appears
whole or not at all, and carries a checksum over every byte. Saving under one name from several threads or processes is
safe: they take turns. `docs/checkpoints.md` is the guide.
"""

from __future__ import annotations

import math
import operator
import os
import time
from typing import Any, Literal

from grilly_optim.checkpoint import _payload, _store
from grilly_optim.checkpoint._payload import CheckpointError
from grilly_optim.checkpoint._policy import Entry, best_first
from grilly_optim.checkpoint._save import Save, save
from grilly_optim.checkpoint._tree import flatten

__all__ = ["CheckpointError", "get_best_ckpt_path", "load_checkpoint", "make_ckpt_list", "save_checkpoint"]


def save_checkpoint(
    ckpt_dict: dict[Any, Any],
    file_path: str | os.PathLike[str],
    performance_score: float,
    train_iter: int | None = None,
    max_ckpts_to_keep: int = 5,
    keep_ckpt_every: float | None = 2,
    timestamp: float | None = None,
    *,
    format: Literal["npz", "safetensors"] = "npz",
    mode: Literal["max", "min"] = "max",
) -> str:
    """Save a checkpoint, and delete those that the policy no longer keeps.

    Args:
        ckpt_dict: What to save: dicts with str or int keys, lists, tuples, arrays, NumPy scalars, str, int, float, bool
            and None, nested as you like. Each comes back with its type; a subclass of ndarray as a plain array.
        file_path: Directory and name, the same in all saves of a run; missing directories are made.
        performance_score: How good this checkpoint is.
        train_iter: Becomes part of the file's name; a checkpoint of the same iteration is replaced. None: the file is
            ``<file_path>.npz``, and every save replaces the last one.
        max_ckpts_to_keep: The most checkpoints that stay, the new one counted and permanent ones not: the new one, and
            the best of the others (of equal scores the newest).
        keep_ckpt_every: Hours of a window whose best checkpoint becomes permanent: it is never deleted. None: no
            permanent ones.
        timestamp: When, in seconds since the epoch. None: now.
        format: ``"npz"``, or ``"safetensors"`` (needs the extra of that name; real numbers and booleans only).
        mode: Whether high (``"max"``) or low scores (``"min"``, a loss) are good; the same in all saves of a run.

    The policy, at time t with h hours since the first save under this name: when h >= n = `keep_ckpt_every`, a window
    begins at w = (floor(h / n) - 1) n hours. Unless there is a permanent checkpoint from w or later, the best
    checkpoint from w or later becomes permanent if it is better than the new one, and the new one otherwise. Then the
    worst of the others go. It is the policy of hypnettorch.

    Returns:
        The path of the file.

    Raises:
        TypeError: A value or key that could not come back as it is, or an argument of a wrong type.
        ValueError: A score that is not a number, an argument out of range, or another `mode` than before.
        FileExistsError: The file is there and is no checkpoint of this name.
        OSError: The system refused (no space, no permission).
        MissingExtra: `safetensors` is not installed.
        RuntimeError: Called by a signal handler in the middle of a save under the same name.

        After any of them, all checkpoints that were there are still there; after an OSError that comes last, while old
        ones are deleted, with the new one.

    Example:
        >>> import numpy as np, tempfile
        >>> directory = tempfile.mkdtemp()
        >>> content = {"weights": np.arange(3.0), "epoch": 7, "shape": (2, 3)}
        >>> path = save_checkpoint(content, f"{directory}/net", performance_score=0.9, train_iter=100)
        >>> path == f"{directory}/net_100.npz"
        True
        >>> load_checkpoint(path)
        {'weights': array([0., 1., 2.]), 'epoch': 7, 'shape': (2, 3)}
    """
    directory, name = _split(file_path)
    score = _number(performance_score, "performance_score")
    if math.isnan(score):
        raise ValueError(f"performance_score must be a number, got {performance_score!r}")
    iteration = None if train_iter is None else _integer(train_iter, "train_iter")
    most = _integer(max_ckpts_to_keep, "max_ckpts_to_keep")
    if most < 1:
        raise ValueError(f"max_ckpts_to_keep must be 1 or more, got {max_ckpts_to_keep!r}")
    every = None if keep_ckpt_every is None else _number(keep_ckpt_every, "keep_ckpt_every")
    if every is not None and not 0 < every < math.inf:
        raise ValueError(f"keep_ckpt_every must be hours, more than 0 and finite, or None, got {keep_ckpt_every!r}")
    now = time.time() if timestamp is None else _number(timestamp, "timestamp")
    if not math.isfinite(now):
        raise ValueError(f"timestamp must be finite, got {timestamp!r}")
    if format not in _payload.FORMATS:
        raise ValueError(f"format must be 'npz' or 'safetensors', got {format!r}")
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
    nodes, arrays = flatten(ckpt_dict)
    _payload.FORMATS[format].check(arrays)
    return save(Save(directory, name, iteration, score, now, most, every, format, mode, nodes, arrays))


def load_checkpoint(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Load what `save_checkpoint` saved; either format, no pickle.

    Args:
        path: The file. It may have been renamed or moved.

    Returns:
        A dict equal to the one saved, with arrays of its own. Arrays keep dtype, byte order and shape.

    Raises:
        CheckpointError: The file is damaged, or is no checkpoint. Its attribute `next_best` is the path of the best of
            the others under the same name that can be loaded, or None.
        OSError: The file is not there or cannot be read.

    Example:
        >>> import tempfile
        >>> directory = tempfile.mkdtemp()
        >>> for epoch, accuracy in enumerate([0.7, 0.9]):
        ...     path = save_checkpoint({"epoch": epoch}, f"{directory}/net", accuracy, epoch)
        >>> with open(path, "r+b") as file:
        ...     _ = file.seek(100), file.write(b"!")
        >>> try:
        ...     load_checkpoint(path)
        ... except CheckpointError as error:
        ...     load_checkpoint(error.next_best)
        {'epoch': 0}
    """
    path = _text(path, "path")
    try:
        return _payload.read(path)
    except CheckpointError as error:
        raise CheckpointError(path, error.reason, _next_best(path)) from None


def make_ckpt_list(file_path: str | os.PathLike[str]) -> list[tuple[str, float]]:
    """Paths and scores of all checkpoints of a name, best first; of equal scores the newest first.

    Args:
        file_path: As it was given to `save_checkpoint`.

    Returns:
        An empty list where there are none. Files that are missing or were found damaged are left out, the latter with a
        warning to the logger ``grilly_optim``; files that the manifest lists are not opened.

    Example:
        >>> import os, tempfile
        >>> directory = tempfile.mkdtemp()
        >>> for epoch, accuracy in enumerate([0.7, 0.9, 0.8]):
        ...     path = save_checkpoint({}, f"{directory}/net", accuracy, epoch)
        >>> [(os.path.basename(path), score) for path, score in make_ckpt_list(f"{directory}/net")]
        [('net_1.npz', 0.9), ('net_2.npz', 0.8), ('net_0.npz', 0.7)]
    """
    directory, name = _split(file_path)
    return [(os.path.join(directory, e.file), e.score) for e in _ranking(directory, name)]


def get_best_ckpt_path(file_path: str | os.PathLike[str]) -> str | None:
    """The path of the checkpoint with the best score; None where there is none.

    Args:
        file_path: As it was given to `save_checkpoint`.

    Example:
        >>> import os, tempfile
        >>> directory = tempfile.mkdtemp()
        >>> for epoch, loss in enumerate([0.3, 0.1, 0.2]):
        ...     path = save_checkpoint({}, f"{directory}/net", loss, epoch, mode="min")
        >>> os.path.basename(get_best_ckpt_path(f"{directory}/net"))
        'net_1.npz'
    """
    return next((path for path, _ in make_ckpt_list(file_path)), None)


def _ranking(directory: str, name: str) -> list[Entry]:
    there = _store.survey(directory, name)
    return best_first(there.entries, there.mode or "max")


def _next_best(path: str) -> str | None:
    """The best checkpoint of the same name as this file's that can be loaded."""
    directory, file = os.path.split(path)
    names = _store.possible_names(file)
    # A manifest knows whose the file is; without one its own name is all there is to go by.
    owners = [n for n in names if file in _store.read_manifest(directory, n).owned]
    for name in owners or names:
        for entry in _ranking(directory, name):
            other = os.path.join(directory, entry.file)
            try:
                _payload.read_meta(other)
            except (CheckpointError, FileNotFoundError):
                continue
            return other
    return None


def _split(file_path: Any) -> tuple[str, str]:
    path = _text(file_path, "file_path")
    directory, name = os.path.split(path)
    if not name:
        raise ValueError(f"file_path must end with a name for the checkpoints, got {path!r}")
    return directory, name


def _text(path: Any, who: str) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"{who} must be a str or a path, got {type(text).__name__}")
    return text


def _number(value: Any, who: str) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"{who} must be a real number, got {value!r}")
    try:
        return float(value)
    except TypeError:
        raise TypeError(f"{who} must be a real number, got {type(value).__name__}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{who} must be a real number, got {value!r}: {error}") from None


def _integer(value: Any, who: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{who} must be an integer, got {type(value).__name__}") from None
