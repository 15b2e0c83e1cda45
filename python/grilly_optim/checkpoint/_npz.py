"""Checkpoints as .npz: what `numpy.load` opens, texts as members of their own, the digest as its comment."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from io import BufferedRandom, BufferedReader

import numpy as np

from grilly_optim.checkpoint._tree import Array, Named

SUFFIX = ".npz"
_COMMENT = b"grilly_optim sha256 "


def check(arrays: list[Named]) -> None:
    """Every array that a tree may have is good."""


def write(file: BufferedRandom, texts: dict[str, str], arrays: list[Named], blank: bytes) -> int:
    """Write all but the digest; returns the place that is left blank for it."""
    return write_archive(file, texts, {str(i): named.array for i, named in enumerate(arrays)}, _COMMENT, blank)


def write_archive(
    file: BufferedRandom, texts: Mapping[str, str], arrays: Mapping[str, Array], comment: bytes, blank: bytes
) -> int:
    """The same for arrays with names, and another comment before the digest."""
    archive = zipfile.ZipFile(file, "w")
    try:
        # ZipInfo and not a name: that would put the time into the file, and equal content should give equal bytes.
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.json"), text)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = comment + blank
        archive.close()
    except BaseException:
        archive.fp = None  # there is nothing to close: it would put an error of its own in place of Ctrl-C
        raise
    return file.seek(0, 2) - len(blank)


def digest_at(file: BufferedReader, length: int, comment: bytes = _COMMENT) -> int | None:
    """Where the digest of this length is, or None if this is not a file that was written with this comment."""
    at = file.seek(0, 2) - length
    if at < len(comment):
        return None
    file.seek(at - len(comment))
    return at if file.read(len(comment)) == comment else None


def read_text(file: BufferedReader, name: str) -> str:
    """One of the texts."""
    with zipfile.ZipFile(file) as archive:
        return archive.read(f"{name}.json").decode()


def read_arrays(file: BufferedReader) -> list[Array]:
    """The arrays, in their order."""
    with zipfile.ZipFile(file) as archive:
        arrays = []
        for i in range(sum(name.endswith(".npy") for name in archive.namelist())):
            with archive.open(f"{i}.npy") as member:
                arrays.append(np.lib.format.read_array(member, allow_pickle=False))
        return arrays
