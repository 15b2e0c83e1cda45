"""Products of rows with a matrix, where a row's result does not depend on the rows around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# BLAS rounds differently for different numbers of rows. Products of one size only give every row the same bits.
_ROWS = 8


def rows_times(rows: Array, matrix: Array) -> Array:
    """Rows (C, D) times a matrix (D, N), both contiguous, each row as if it were alone."""
    count, blocks = len(rows), -(-len(rows) // _ROWS)
    if count % _ROWS:
        padded = np.zeros((blocks * _ROWS, rows.shape[1]), rows.dtype)
        padded[:count] = rows
        rows = padded
    product = rows.reshape(blocks, _ROWS, rows.shape[1]) @ matrix
    return np.asarray(product.reshape(blocks * _ROWS, matrix.shape[1])[:count])
