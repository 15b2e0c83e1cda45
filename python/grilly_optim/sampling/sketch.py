"""Count sketches: vectors of a few numbers whose inner products are those of much longer ones, on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels import philox
from grilly_optim.kernels.philox import Draw
from grilly_optim.optim._options import Whole

Array = NDArray[Any]
Floats = NDArray[np.float32]

SKETCH_QUANTITIES = ("scaled_grad", "unscaled_grad", "localization", "weight_decay", "noise")

_MOST = 2**31 - 1  # buckets


@dataclass(frozen=True, eq=False)
class CountSketch:
    r"""A count sketch: element i of a vector is added, with the sign s(i), to number h(i) of the sketch.

    For two vectors v and w and random h and s, the expectation of the inner product of their sketches is their own
    inner product, and its variance at most 2 \|v\|^2 \|w\|^2 / output_dim. Only sketches with the same h and s compare.

    Args:
        hash_indices: h: whole numbers from 0 to output_dim - 1, one for each element.
        hash_signs: s: 1 or -1 for each element.
        output_dim: How many numbers a sketch has.

    Raises:
        TypeError: Indices that are no whole numbers, signs that are no numbers.
        ValueError: Numbers out of range, or not as many indices as signs.

    Source: Charikar, Chen & Farach-Colton, "Finding frequent items in data streams" (2002);
    `devinterp.optim.sketch.CountSketch`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import CountSketch
        >>> CountSketch([0, 1, 0], [1, 1, -1], output_dim=2).sketch(np.array([1.0, 2.0, 4.0]))
        array([-3.,  2.], dtype=float32)
    """

    hash_indices: Array
    hash_signs: Array
    output_dim: int

    def __post_init__(self) -> None:
        size = Whole(1).take("output_dim", self.output_dim)
        if size > _MOST:
            raise ValueError(f"output_dim must be at most 2^31 - 1, got {size}")
        indices, signs = np.array(self.hash_indices), np.array(self.hash_signs)
        if indices.dtype.kind not in "iu" or indices.ndim != 1:
            raise TypeError(f"hash_indices must be a list of whole numbers, got {indices.dtype} of {indices.shape}")
        if signs.dtype.kind not in "iuf" or signs.shape != indices.shape:
            raise ValueError(f"hash_signs must be {indices.size} numbers, got {signs.dtype} of shape {signs.shape}")
        if indices.size and not (indices.min() >= 0 and indices.max() < size):
            raise ValueError(f"hash_indices must be from 0 to {size - 1}, got {indices.min()} to {indices.max()}")
        if not np.all(np.abs(signs) == 1):
            raise ValueError(f"hash_signs must be 1 or -1, got {signs[np.abs(signs) != 1][0]}")
        for name, value in (("output_dim", size), ("hash_indices", indices), ("hash_signs", signs.astype(np.int8))):
            object.__setattr__(self, name, value)

    @classmethod
    def create(cls, input_dim: int, output_dim: int, seed: int) -> CountSketch:
        """A random sketch: element i has the i-th word of Philox for this seed (docs/random.md).

        Not the original's numbers, which are torch's; give those to the constructor. A longer sketch of the same seed
        begins with the same elements.

        Args:
            input_dim: How many elements the vectors have.
            output_dim: How many numbers a sketch has.
            seed: 0 to 2^64 - 1.

        Raises:
            TypeError: Something that is no whole number.
            ValueError: A number out of range.

        Example:
            >>> from grilly_optim.sampling import CountSketch
            >>> CountSketch.create(4, 100, seed=1).hash_indices.shape
            (4,)
        """
        count, size = Whole(0).take("input_dim", input_dim), Whole(1).take("output_dim", output_dim)
        words = Draw(Whole(0, philox.SEED_BITS).take("seed", seed), 0, philox.HASH).words(0, 0, count)
        indices = (words.astype(np.uint64) * np.uint64(size)) >> np.uint64(32)
        return cls(indices.astype(np.int64), 1 - 2 * (words & 1).astype(np.int8), size)

    @property
    def input_dim(self) -> int:
        """How many elements the vectors have."""
        return int(self.hash_indices.size)

    def sketch(self, v: Any) -> Floats:
        """The sketch of a vector, or of an array in C order: float32, added up in double.

        Raises:
            ValueError: Another number of elements.
        """
        flat = np.asarray(v, np.float32).reshape(-1)
        if flat.size != self.input_dim:
            raise ValueError(f"v must have {self.input_dim} elements, got {flat.size}")
        sums = np.bincount(self.hash_indices, weights=self.hash_signs * flat, minlength=self.output_dim)
        return sums.astype(np.float32)


@dataclass
class SketchBuffer:
    """The sketches of the parts of a step: float32, of shape (output_dim,), or (num_chains, output_dim).

    The parts are those of `Metrics`, added up over all groups.
    """

    scaled_grad: Floats
    unscaled_grad: Floats
    localization: Floats
    weight_decay: Floats
    noise: Floats
