"""A tree of containers, plain values and arrays as a flat list that JSON can hold, and back.

The list is the tree in Polish notation: a container stands before its items and says how many there are. So no nesting
is too deep, and a container type or a dict key is never confused with data. Values that JSON writes and reads unchanged
stand for themselves; everything else is a list that begins with its kind.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ROOT = "ckpt_dict"
# What an .npy file brings back as it was: booleans, numbers, dates, bytes and text.
KINDS = "biufcmMSU"


class Named:
    """An array and where in the tree it stands."""

    __slots__ = ("_where", "array")

    def __init__(self, array: Array, where: Any) -> None:
        self.array, self._where = array, where

    @property
    def where(self) -> str:
        """As in ``ckpt_dict['state'][0]``."""
        return _path(self._where)


def flatten(tree: dict[Any, Any]) -> tuple[list[Any], list[Named]]:
    """Take a tree apart.

    Returns:
        The nodes, and the arrays they refer to by position.

    Raises:
        TypeError: A value or a key that could not come back as it is.
        ValueError: A container that contains itself.
    """
    if type(tree) is not dict:
        raise TypeError(f"{ROOT} must be a dict, got {type(tree).__name__}")
    nodes: list[Any] = []
    arrays: list[Named] = []
    inside: set[int] = set()
    # Where a value stands is (where its container stands, its key): put into words only when there is an error.
    todo: list[tuple[Any, Any]] = [((), tree)]
    while todo:
        where, value = todo.pop()
        kind = type(value)
        if where is None:
            inside.discard(value)  # the last item of this container is done
        elif kind in (dict, list, tuple):
            if id(value) in inside:
                raise ValueError(f"{_path(where)} contains itself")
            inside.add(id(value))
            todo.append((None, id(value)))
            keys = list(value) if kind is dict else range(len(value))
            nodes.append(["dict", [_key(k, where) for k in keys]] if kind is dict else [kind.__name__, len(value)])
            if kind is not dict and set(map(type, value)) == {float} and all(map(math.isfinite, value)):
                nodes.extend(value)  # a history of losses is twenty times as fast in one piece
            else:
                todo.extend(((where, k), value[k]) for k in reversed(keys))
        elif isinstance(value, np.ndarray | np.generic):
            nodes.append(["array" if isinstance(value, np.ndarray) else "scalar", len(arrays)])
            arrays.append(Named(_plain(value, where), where))
        else:
            nodes.append(_value(value, where))
    return nodes, arrays


def unflatten(nodes: list[Any], arrays: list[Array]) -> Any:
    """Put together what `flatten` took apart."""
    # Backwards, every item is there before its container asks for it.
    done: list[Any] = []
    for node in reversed(nodes):
        kind, content = node if type(node) is list else (None, node)
        if kind == "dict":
            done.append({_restored(k): done.pop() for k in content})
        elif kind == "list":
            done.append([done.pop() for _ in range(content)])
        elif kind == "tuple":
            done.append(tuple(done.pop() for _ in range(content)))
        elif kind == "array":
            done.append(arrays[content])
        elif kind == "scalar":
            done.append(arrays[content][()])
        else:
            done.append(_restored(node))
    return done.pop()


def _key(key: Any, where: Any) -> Any:
    if type(key) not in (str, int):
        raise TypeError(f"{_path(where)} has the key {key!r}, a {type(key).__name__}: keys must be str or int")
    return _value(key, where)


def _value(value: Any, where: Any) -> Any:
    kind = type(value)
    if kind is int:
        # Hexadecimal: other readers of JSON round large numbers, and Python refuses decimals of more than 4300 digits.
        return value if -(2**63) <= value < 2**63 else ["int", hex(value)]
    if kind is float:
        # Bits: JSON has no word for infinity, and NaN has a sign and a payload.
        return value if math.isfinite(value) else ["float", struct.pack(">d", value).hex()]
    if value is None or kind in (str, bool):
        return value
    for base in (dict, list, tuple, str, int, float):
        if isinstance(value, base):
            raise TypeError(
                f"{_path(where)} is a {kind.__name__}, which would come back as a {base.__name__}: "
                f"convert it with {base.__name__}(...)"
            )
    raise TypeError(
        f"{_path(where)} must be a dict, list, tuple, array, str, int, float, bool or None, got {kind.__name__}"
    )


def _restored(node: Any) -> Any:
    if type(node) is not list:
        return node
    kind, text = node
    return int(text, 16) if kind == "int" else struct.unpack(">d", bytes.fromhex(text))[0]


def _plain(value: Any, where: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{_path(where)} is a masked array: save its data and its mask")
    array = np.asarray(value)
    if array.dtype.kind not in KINDS:
        raise TypeError(
            f"{_path(where)} has dtype {array.dtype}, which could only be saved by pickling: "
            "save arrays of numbers, booleans, dates or text"
        )
    # Without the dtype's metadata, which no file holds.
    return array.view(np.dtype(array.dtype.str))


def _path(where: Any) -> str:
    keys = []
    while where:
        where, key = where
        keys.append(f"[{key!r}]")
    return ROOT + "".join(reversed(keys))
