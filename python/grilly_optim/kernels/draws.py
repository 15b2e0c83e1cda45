"""Random words to numbers in float32: the twin of shaders/lib/draws.glsl, operation by operation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.philox import Draw, Words

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_F = np.float32


def uniform_of(words: Words) -> Floats:
    """Multiples of 2^-24 in [0, 1)."""
    return (words >> np.uint32(8)).astype(np.float32) * _F(2**-24)


def normals_of(words: Words) -> Floats:
    """Standard normal numbers from pairs of words (Box & Muller 1958); as many as there are words, an even number."""
    u, v = words[::2], words[1::2]
    r = _root_of(_minus_two_log(u))
    turned = v + np.uint32(0x20000000)
    t = ((turned & np.uint32(0x3FFFFFC0)).view(np.int32) - np.int32(0x20000000)).astype(np.float32) * _F(2**-29)
    z = t * t
    sine = t * (_F(0.785398163) + z * (_F(-0.0807454586) + z * (_F(0.00249004923) + z * _F(-3.59789774e-5))))
    cosine = _F(1) + z * (_F(-0.308424503) + z * (_F(0.0158503968) + z * _F(-3.19160114e-4)))
    even = (turned & np.uint32(0x40000000)) == 0
    x, y = np.where(even, cosine, sine), np.where(even, sine, cosine)
    sign_x, sign_y = (q & np.uint32(0x80000000) for q in (turned + np.uint32(0x40000000), turned))
    both = [r * (part.view(np.uint32) ^ sign).view(np.float32) for part, sign in ((x, sign_x), (y, sign_y))]
    numbers: Floats = np.stack(both, axis=-1).reshape(-1)
    return numbers


def _minus_two_log(u: Words) -> Floats:
    bits = ((u >> np.uint32(8)) + np.uint32(1)).astype(np.float32).view(np.int32)
    n = (np.int32(0x4BB504F2) - bits) & np.int32(0x7F800000)
    f = (bits + n - np.int32(0x0C000000)).view(np.float32) - _F(1)
    q: Any = np.full(f.shape, -0.174008667, np.float32)
    for c in (0.285349816, -0.298295408, 0.331551671, -0.399261266, 0.500026762, -0.66667819):
        q = q * f + _F(c)
    result: Floats = n.astype(np.float32) * _F(1.6525916635e-7) - f * (_F(2) - f * (f * q + _F(1)))
    return result


def _root_of(x: Floats) -> Floats:
    half_x = _F(0.5) * x
    y = (np.int32(0x5F3759DF) - (x.view(np.int32) >> np.int32(1))).view(np.float32)
    for _ in range(3):
        y = y * (_F(1.5) - half_x * y * y)
    result: Floats = x * y
    return result


def normal(draw: Draw, stream: int, element: int, count: int) -> Floats:
    """Standard normal numbers of `count` elements from this one on."""
    before = element % 2  # a pair of words makes a pair of numbers
    return normals_of(draw.words(stream, element - before, before + count + (before + count) % 2))[before:][:count]


def uniform(draw: Draw, stream: int, element: int, count: int) -> Floats:
    """Uniform numbers in [0, 1) of `count` elements from this one on."""
    return uniform_of(draw.words(stream, element, count))


# By the mark that a rule's input has.
MAKERS: dict[str, Any] = {"normal": normal, "uniform": uniform}
