"""Potentials whose gradient the autograd package makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim._extras import load

Array = NDArray[Any]


class FromAutograd:
    """What `from_autograd` makes: a potential with ``value_and_grad(q)``.

    Attributes:
        vectorized: Whether the function takes all chains at once.
    """

    def __init__(self, function: Callable[[Any], Any], vectorized: bool) -> None:
        self._function, self.vectorized = function, vectorized

    def value_and_grad(self, q: ArrayLike) -> tuple[Any, Array]:
        """U and its gradient at (D,); where vectorized also at (C, D), as (C,) and (C, D)."""
        given = np.asarray(q)
        if given.ndim != 1 and not (self.vectorized and given.ndim == 2):
            raise ValueError(f"a position must have shape (D,){' or (C, D)' * self.vectorized}, got {given.shape}")
        position = given.astype(np.float64, copy=False)
        if self.vectorized:
            position = np.atleast_2d(position)
        try:
            backward, energy = load("autograd", "autograd").make_vjp(self._function)(position)
        except Exception as error:
            if "ArrayBox" in str(error):
                error.add_note("A function for from_autograd computes with autograd.numpy in place of numpy.")
            raise
        if np.asarray(energy).dtype.kind not in "iuf":
            raise TypeError(f"the function must return a real U, got {type(energy).__name__}")
        shape = position.shape[:-1]
        if np.shape(energy) != shape:
            expected = f"shape {shape}, one U per chain" if self.vectorized else "one number"
            raise ValueError(f"the function must return {expected}, got shape {np.shape(energy)}")
        # U of a chain depends on its own row alone, so that the gradient of the sum has every chain's.
        gradient = np.asarray(backward(np.ones(shape)))
        if given.dtype.kind == "f":
            with np.errstate(over="ignore"):
                gradient = gradient.astype(given.dtype, copy=False)
        if given.ndim == 1:
            return float(np.asarray(energy).reshape(())), gradient.reshape(given.shape)
        return np.asarray(energy, np.float64), gradient

    def __call__(self, q: ArrayLike) -> tuple[Any, Array]:
        """The same as `value_and_grad`."""
        return self.value_and_grad(q)


def from_autograd(function: Callable[[Any], Any], *, vectorized: bool = False) -> FromAutograd:
    """A potential of a function that says only what U is; the autograd package differentiates it.

    The function is written with ``autograd.numpy`` in place of ``numpy``, and sees positions in double.

    Args:
        function: q (D,) -> U, a number.
        vectorized: It takes all chains in one call, (C, D) -> (C,), each row by itself. That is much faster for many
            chains.

    Raises:
        MissingExtra: The package is not there: ``pip install 'grilly_optim[autograd]'``.
        TypeError: `function` cannot be called.

    Example:
        >>> import autograd.numpy as anp
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import from_autograd
        >>> def rosenbrock(q):
        ...     x, y = q[..., 0], q[..., 1]
        ...     return (1 - x) ** 2 / 2 + 5 * (y - x**2) ** 2
        >>> from_autograd(rosenbrock)(np.array([0.0, 1.0]))
        (5.5, array([-1., 10.]))
        >>> from_autograd(rosenbrock, vectorized=True)(np.array([[0.0, 1.0], [1.0, 2.0]]))
        (array([5.5, 5. ]), array([[ -1.,  10.],
               [-20.,  10.]]))
    """
    load("autograd", "autograd")
    if not callable(function):
        raise TypeError(f"function must be a callable q -> U, got {type(function).__name__}")
    return FromAutograd(function, bool(vectorized))
