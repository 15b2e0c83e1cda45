"""Random words out of a counter: the twin of shaders/lib/philox.glsl, and what stands in the counter."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

# What a draw is for (bits 16 to 23 of the counter's second word): no two uses of one seed, stream and step meet.
NOISE, MOMENTUM, ACCEPT, DIRECTION, HASH = range(5)

SEED_BITS, STREAM_BITS, STEP_BITS = 64, 32, 40
MAX_ELEMENTS = 2**50  # four to a block, whose number has 48 bits

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10 of arrays of counters: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011)."""
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    for k in range(10):
        key0, key1 = (np.uint64((key[i] + k * _WEYL[i]) & 0xFFFFFFFF) for i in (0, 1))
        of_a, of_c = _MULTIPLIERS[0] * a, _MULTIPLIERS[1] * c
        a, b, c, d = (of_c >> _HALF) ^ b ^ key0, of_c & _LOW, (of_a >> _HALF) ^ d ^ key1, of_a & _LOW
    return a.astype(np.uint32), b.astype(np.uint32), c.astype(np.uint32), d.astype(np.uint32)


class Draw(NamedTuple):
    """What the numbers of one step follow from, beside stream and element.

    Attributes:
        seed: 0 to 2^64 - 1.
        step: 0 to 2^40 - 1.
        purpose: What the numbers are for, 0 to 255.
    """

    seed: int
    step: int
    purpose: int = NOISE

    def words(self, stream: int, element: int, count: int) -> Words:
        """One word for each of `count` elements from this one on: element e has word e % 4 of block e // 4."""
        first = element // 4
        blocks = np.arange(first, (element + count + 3) // 4, dtype=np.uint64)
        high = (blocks >> _HALF) | np.uint64(self.purpose << 16 | self.step >> 32 << 24)
        counter = blocks & _LOW, high, np.uint64(self.step & 0xFFFFFFFF), np.uint64(stream)
        key = self.seed & 0xFFFFFFFF, self.seed >> 32
        words: Words = np.stack(np.broadcast_arrays(*philox(counter, key)), axis=-1).reshape(-1)
        return words[element - 4 * first :][:count]
