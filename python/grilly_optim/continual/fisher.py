"""The diagonal of the empirical Fisher information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from grilly_optim.continual._arrays import (
    Array,
    Arrays,
    Form,
    Layout,
    of,
    require_finite,
    require_not_negative,
    rounded,
    take,
)
from grilly_optim.continual._states import StateDict, require_keys
from grilly_optim.optim._options import Flag, Range, Whole


class Fisher:
    r"""The diagonal of the empirical Fisher information, from gradients of single samples.

    With g_s the gradient of the negative log-likelihood of sample s alone, and S samples seen::

        F = prior + scale * sum_s g_s^2        scale = 1 / S, or N / S with proper_scaling

    The gradients must be those of single samples: the square of a batch's mean gradient is not the mean of squares.

    Args:
        N: Number of samples in the task's training set; None takes S. Only `proper_scaling` uses it.
        proper_scaling: Weight the task by its number of samples, as the posterior of all tasks does.
        prior: 1 / variance of the prior, 0 or more: a number, or arrays like the parameters. It belongs to the
            posterior once, so it is given with the first task only. It is not scaled.

    Raises:
        TypeError: Not numbers.
        ValueError: N below 1, or a prior that is negative or not finite.

    Squares are summed in float64 (8 bytes per element while this object lives): the square of a float32 number is exact
    there, while a float32 sum of 1e5 squares has only three digits to be sure of; two float32 numbers per element that
    carry the rounding along take the same memory and more time.

    Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", 2017.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.continual import Fisher
        >>> Fisher.from_per_sample_grads(np.array([[1.0, 2.0], [3.0, 0.0]])).values
        array([5., 2.])
        >>> streamed = Fisher(prior=0.5)
        >>> streamed.update(np.array([1.0, 2.0]))
        >>> streamed.update(np.array([3.0, 0.0]))
        >>> streamed.values
        array([5.5, 2.5])
    """

    def __init__(self, N: int | None = None, proper_scaling: bool = False, prior: float | Arrays = 0.0) -> None:
        self._N = None if N is None else Whole(1).take("N", N)
        self._proper_scaling = Flag().take("proper_scaling", proper_scaling)
        self._prior: Any = _checked_prior(prior)
        self._samples = 0
        self._sums: list[Array] = []
        self._dtypes: list[np.dtype[Any]] = []
        self._form: Form | None = None
        self._layout: Layout | None = None

    @classmethod
    def from_per_sample_grads(
        cls, G: Arrays, N: int | None = None, proper_scaling: bool = False, prior: float | Arrays = 0.0
    ) -> Fisher:
        """The Fisher information of gradients that are there all at once.

        Args:
            G: Gradients with one more axis in front, a row per sample: an array (S, ...), a sequence of them or a dict
                by name, with the same S.
            N: See the class.
            proper_scaling: See the class.
            prior: See the class.

        Raises:
            TypeError: Not arrays of real numbers.
            ValueError: No samples, different numbers of them, NaN, infinity, or as in the class.
        """
        fisher = cls(N, proper_scaling, prior)
        arrays, form, layout = take(G, "G")
        for i, array in enumerate(arrays):
            if array.ndim == 0 or len(array) == 0:
                raise ValueError(
                    f"{of('G', i, form.names)} must have a row per sample, and one at least; got shape {array.shape}"
                )
            if len(array) != len(arrays[0]):
                raise ValueError(f"{of('G', i, form.names)} has {len(array)} samples, and the first {len(arrays[0])}")
        sums = [np.asarray(np.einsum("s...,s...->...", a, a, dtype=np.float64, casting="same_kind")) for a in arrays]
        fisher._add(arrays, sums, len(arrays[0]), "G", form, Layout(tuple(s.shape for s in sums), layout.names))
        return fisher

    def update(self, g: Arrays) -> None:
        """Count one more sample.

        Args:
            g: The gradient of this sample: an array, a sequence of them or a dict by name.

        Raises:
            TypeError: Not arrays of real numbers.
            ValueError: NaN, infinity, or another count, other names or other shapes than before. Nothing was counted.
        """
        arrays, form, layout = take(g, "g", self._layout)
        with np.errstate(over="ignore"):
            squares = [np.asarray(np.square(a, dtype=np.float64)) for a in arrays]
        self._add(arrays, squares, 1, "g", form, layout)

    def _add(
        self, gradients: list[Array], squares: list[Array], samples: int, what: str, form: Form, layout: Layout
    ) -> None:
        for i, square in enumerate(squares):
            require_finite(square, f"the square of {of(what, i, layout.names)}")
        if self._form is None:
            if not isinstance(self._prior, float):
                take(self._prior, "prior", layout)
            self._form, self._layout, self._sums = form, layout, squares
            self._dtypes = [np.dtype(np.float32 if np.can_cast(g.dtype, np.float32) else np.float64) for g in gradients]
        else:
            for total, square in zip(self._sums, squares, strict=True):
                total += square
        self._samples += samples

    @property
    def values(self) -> Any:
        """F, in the form in which gradients came, and in their precision; new arrays each time.

        Raises:
            ValueError: No sample has been counted yet, or F is too large for the precision.
        """
        if self._form is None:
            raise ValueError("this Fisher has seen no sample yet: call update() with the gradient of each")
        numerator = (self._N or self._samples) if self._proper_scaling else 1
        scale = numerator / self._samples
        priors: list[Any] = [self._prior] * len(self._sums)
        if not isinstance(self._prior, float):
            priors, _, _ = take(self._prior, "prior", self._layout)
        with np.errstate(over="ignore"):
            exact = [prior + scale * total for prior, total in zip(priors, self._sums, strict=True)]
        return self._form.restore(
            [rounded(f, d, "the Fisher information") for f, d in zip(exact, self._dtypes, strict=True)]
        )

    def state_dict(self) -> StateDict:
        """A snapshot of plain arrays, numbers, strings and containers; `load_state_dict` continues bit for bit."""
        return {
            "N": self._N,
            "proper_scaling": self._proper_scaling,
            "prior": _checked_prior(self._prior),
            "samples": self._samples,
            "sums": self._form.restore([s.copy() for s in self._sums]) if self._form else None,
            "dtypes": [d.name for d in self._dtypes],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot, its N, proper_scaling and prior included; checked before anything is changed.

        Raises:
            TypeError: Not a state dict of this class.
            ValueError: Values that it cannot have.
        """
        require_keys(state_dict, list(self.state_dict()), "Fisher")
        other = Fisher(state_dict["N"], state_dict["proper_scaling"], state_dict["prior"])
        if state_dict["sums"] is not None:
            sums, form, layout = take(state_dict["sums"], "'sums' of state_dict")
            dtypes = state_dict["dtypes"]
            if not isinstance(dtypes, list | tuple) or len(dtypes) != len(sums) or not set(dtypes) <= _PRECISIONS:
                raise ValueError(
                    f"'dtypes' of state_dict must be float32 or float64 for each of {len(sums)} arrays, got {dtypes!r}"
                )
            for i, total in enumerate(sums):
                require_not_negative(total, of("'sums' of state_dict", i, form.names))
            zeros = [np.zeros((), dtype) for dtype in dtypes]
            squares = [np.array(s, np.float64) for s in sums]
            samples = Whole(1).take("'samples' of state_dict", state_dict["samples"])
            other._add(zeros, squares, samples, "sums", form, layout)
        vars(self).update(vars(other))


_PRECISIONS = {"float32", "float64"}


def _checked_prior(prior: Any) -> Any:
    """A number as a float, or copies of the arrays in the form that came."""
    if not isinstance(prior, list | tuple | Mapping) and np.ndim(prior) == 0:
        return Range(0).take("prior", prior)
    arrays, form, _ = take(prior, "prior")
    return form.restore(
        [np.array(require_not_negative(a, of("prior", i, form.names)), np.float64) for i, a in enumerate(arrays)]
    )
