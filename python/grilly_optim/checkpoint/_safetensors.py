"""Checkpoints as .safetensors, with the texts and the digest in its metadata.

Written by the package `safetensors`, an extra. Reading takes nothing but the header, which is JSON behind its length.
"""

from __future__ import annotations

import json
import struct
from io import BufferedRandom, BufferedReader
from typing import Any

import numpy as np

from grilly_optim._extras import load
from grilly_optim.checkpoint._tree import Array, Named

SUFFIX = ".safetensors"
# The byte behind the length, where a zip archive has the number of its compression.
NINTH = b"{"
_DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
# Quotes inside other metadata are escaped, so that this stands in the header once.
_KEY = b'"sha256":"'
# As the format itself limits it.
_LONGEST_HEADER = 100_000_000


def check(arrays: list[Named]) -> None:
    """Refuse what the format has no name for; of complex64 only newer versions of the package know."""
    load("safetensors.numpy", "safetensors")
    for named in arrays:
        if named.array.dtype.newbyteorder("=") not in _DTYPES:
            raise TypeError(
                f"{named.where} has dtype {named.array.dtype}, which format='safetensors' cannot hold: use format='npz'"
            )


def write(file: BufferedRandom, texts: dict[str, str], arrays: list[Named], blank: bytes) -> int:
    """Write all but the digest; returns the place that is left blank for it."""
    dtypes = json.dumps([named.array.dtype.str for named in arrays])
    # The package takes the memory as it lies: C order and little-endian are up to us.
    tensors = {
        str(i): np.asarray(named.array, named.array.dtype.newbyteorder("<"), order="C")
        for i, named in enumerate(arrays)
    }
    metadata = {**texts, "dtypes": dtypes, "sha256": blank.decode()}
    content: bytes = load("safetensors.numpy", "safetensors").save(tensors, metadata)
    file.write(content)
    return content.index(_KEY + blank) + len(_KEY)


def digest_at(file: BufferedReader, length: int) -> int | None:
    """Where the digest of this length is, or None if this is not a file that `write` wrote."""
    file.seek(0)
    first = file.read(8)
    if len(first) < 8:
        return None
    size = struct.unpack("<Q", first)[0]
    found = file.read(size).find(_KEY) if size <= _LONGEST_HEADER else -1
    return None if found < 0 else 8 + found + len(_KEY)


def read_text(file: BufferedReader, name: str) -> str:
    """One of the texts."""
    text: str = _header(file)["__metadata__"][name]
    return text


def read_arrays(file: BufferedReader) -> list[Array]:
    """The arrays, in their order and with their byte order."""
    header = _header(file)
    start = file.tell()
    arrays = []
    for i, name in enumerate(json.loads(header["__metadata__"]["dtypes"])):
        info, dtype = header[str(i)], np.dtype(name)
        file.seek(start + info["data_offsets"][0])
        array = np.empty(info["shape"], dtype.newbyteorder("<"))
        file.readinto(array.reshape(-1).view(np.uint8).data)
        arrays.append(array.astype(dtype, copy=False))
    return arrays


def _header(file: BufferedReader) -> Any:
    file.seek(0)
    return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
