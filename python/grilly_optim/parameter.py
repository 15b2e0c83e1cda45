"""A parameter: an array with a place for its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    _Base = NDArray[Any]
else:
    _Base = np.ndarray


class Parameter(_Base):
    """An array that carries its gradient in ``.grad``, as torch's parameters do.

    Args:
        x: The initial value, copied. float32 and float64 keep their precision, everything else becomes float32.

    Results of arithmetic are plain arrays; views (``w[0]``, ``w.T``) are parameters of their own, without a gradient.

    Example:
        >>> import numpy as np
        >>> from grilly_optim import Parameter
        >>> w = Parameter(np.ones(3))
        >>> w.grad is None, type(w * 2).__name__
        (True, 'ndarray')
    """

    grad: NDArray[Any] | None

    def __new__(cls, x: ArrayLike) -> Parameter:
        """Copy `x`; see the class."""
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"x must hold real numbers, got dtype {array.dtype}")
        native = array.dtype.newbyteorder("=")
        dtype = native if native in (np.float32, np.float64) else np.dtype(np.float32)
        return np.array(array, dtype=dtype, copy=True, order="C").view(cls)

    def __array_finalize__(self, obj: object) -> None:
        self.grad = None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False, /) -> Any:
        if array is self:
            return self
        return array[()] if return_scalar else array.view(np.ndarray)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def __reduce__(self) -> Any:
        return _rebuild, (np.asarray(self), self.grad)

    def __copy__(self) -> Parameter:
        return _rebuild(np.asarray(self), self.grad)

    def __deepcopy__(self, memo: Any) -> Parameter:
        return _rebuild(np.asarray(self), None if self.grad is None else np.array(self.grad))


def _rebuild(value: NDArray[Any], grad: NDArray[Any] | None) -> Parameter:
    parameter = Parameter(value)
    parameter.grad = grad
    return parameter
