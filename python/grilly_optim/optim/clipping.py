"""Clipping gradients in place, by the norm of all of them or by value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import ABOVE_0, AT_LEAST_0, Flag
from grilly_optim.optim._parameters import first_overlap, layout, overlaps_itself
from grilly_optim.parameter import Parameter

Array = NDArray[Any]
Clippable = Array | Iterable[Array | None] | Mapping[Any, Array | None]

# Elements that are looked at together: in double they stay in the first cache, and below the size from which BLAS uses
# threads, with which sums would depend on their number.
BLOCK = 8192


def clip_grad_norm(
    gradients: Clippable, max_norm: float, norm_type: float | str = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale gradients in place, such that the norm of all of them together is no more than `max_norm`.

    Every element is multiplied by min(1, max_norm / (norm + 1e-6)), in the precision of its array. The norm is summed
    up in float64. An array that is there more than once counts as often in the norm, and is scaled once.

    Args:
        gradients: Floating point arrays: a sequence or a dict of them, where None is skipped, or one array.
        max_norm: 0 or more; with infinity a finite norm is returned, and nothing is scaled.
        norm_type: The p of the norm, above 0: 2 for the root of the sum of squares, infinity or "inf" for the largest
            absolute value.
        error_if_nonfinite: Whether a norm that is infinite or NaN is an error. Otherwise, as in torch, an infinite norm
            makes finite elements 0 and infinite ones NaN, and a NaN makes every element NaN.

    Returns:
        The norm before scaling; 0.0 where there are no gradients.

    Raises:
        TypeError: Something that is no array of floating point numbers, or a `Parameter`, whose ``.grad`` is meant.
        ValueError: A read-only array, arrays that overlap without being the same, or a number out of range.
        RuntimeError: The norm is not finite, with `error_if_nonfinite`.

        After any of them, nothing has changed.

    Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013;
    `torch.nn.utils.clip_grad_norm_`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import clip_grad_norm
        >>> gradients = [np.array([3.0]), np.array([[4.0, 0.0]])]
        >>> clip_grad_norm(gradients, max_norm=1.0)
        5.0
        >>> [g.round(4).tolist() for g in gradients]
        [[0.6], [[0.8, 0.0]]]
    """
    limit = AT_LEAST_0.take("max_norm", max_norm)
    p: float = ABOVE_0.take("norm_type", math.inf if norm_type == "inf" else norm_type)
    strict = Flag().take("error_if_nonfinite", error_if_nonfinite)
    named = _named(gradients)
    distinct = _distinct(named)
    with np.errstate(all="ignore"):
        norm = total_norm([array for _, array in named], p)
        if strict and not math.isfinite(norm):
            raise RuntimeError(f"the norm of the gradients is {norm}, so they cannot be clipped; nothing has changed")
        factor = limit / (norm + 1e-6)
        if not factor >= 1:  # NaN is for all of them, as in torch
            for array in distinct:
                np.multiply(array, factor, out=array)
    return norm


def clip_grad_value(gradients: Clippable, clip_value: float) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place. NaN stays NaN.

    Args:
        gradients: Floating point arrays: a sequence or a dict of them, where None is skipped, or one array.
        clip_value: 0 or more; rounded to the precision of each array.

    Raises:
        TypeError: Something that is no array of floating point numbers, or a `Parameter`, whose ``.grad`` is meant.
        ValueError: A read-only array, or `clip_value` out of range.

        After any of them, nothing has changed.

    Source: `torch.nn.utils.clip_grad_value_`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import clip_grad_value
        >>> gradients = {"w": np.array([3.0, -0.5]), "b": None}
        >>> clip_grad_value(gradients, 1.0)
        >>> gradients["w"].tolist()
        [1.0, -0.5]
    """
    limit = AT_LEAST_0.take("clip_value", clip_value)
    with np.errstate(all="ignore"):
        for _, array in _named(gradients):
            bound = array.dtype.type(limit)
            np.clip(array, -bound, bound, out=array)


def _named(gradients: Any) -> list[tuple[str, Array]]:
    """The gradients that are there, and how messages call them; every one can be written to."""
    if isinstance(gradients, np.ndarray):
        given = [("gradients", gradients)]
    elif isinstance(gradients, Mapping):
        given = [(f"gradients[{key!r}]", array) for key, array in gradients.items()]
    elif isinstance(gradients, Iterable) and not isinstance(gradients, str | bytes):
        given = [(f"gradients[{i}]", array) for i, array in enumerate(gradients)]
    else:
        raise TypeError(f"gradients must be an array, or a sequence or dict of them, got {type(gradients).__name__}")
    for who, array in given:
        if array is not None:
            _check(array, who)
    # Plain views: subclasses have their own ideas of arithmetic.
    return [(who, np.asarray(array)) for who, array in given if array is not None]


def _check(array: Any, who: str) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{who} must be a NumPy array, got {type(array).__name__}")
    if isinstance(array, Parameter):
        raise TypeError(f"{who} must be a gradient, got a Parameter, which would be clipped itself: pass its .grad")
    if array.dtype.kind != "f":
        raise TypeError(f"{who} must hold floating point numbers, got dtype {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{who} is read-only, and would have to be clipped in place")


def _distinct(named: list[tuple[str, Array]]) -> list[Array]:
    """Each array once, so that none is scaled twice."""
    once: dict[tuple[Any, ...], tuple[str, Array]] = {}
    for who, array in named:
        if overlaps_itself(array):
            raise ValueError(f"{who} overlaps itself: several of its elements share memory (strides {array.strides})")
        once.setdefault(layout(array), (who, array))
    names, arrays = [who for who, _ in once.values()], [array for _, array in once.values()]
    overlap = first_overlap(arrays)
    if overlap:
        first, second = (names[i] for i in overlap)
        raise ValueError(f"{second} overlaps the memory of {first}, and would be scaled twice in part")
    return arrays


def _blocks(array: Array) -> Iterator[NDArray[np.float64]]:
    """The elements in float64, in the order in which they lie in memory."""
    blocks = np.nditer(
        array,
        ["external_loop", "buffered", "zerosize_ok"],
        ["readonly"],
        np.float64,
        casting="same_kind",
        buffersize=BLOCK,
    )
    return cast("Iterator[NDArray[np.float64]]", blocks)


def total_norm(arrays: Iterable[Array], p: float) -> float:
    """The p-norm of all elements together, summed up in float64."""
    total = np.float64(0.0)
    for array in arrays:
        for block in _blocks(array):
            if p == 2:
                total += np.dot(block, block)
            elif p == math.inf:
                total = np.maximum(total, np.abs(block).max())
            else:
                total += np.sum(np.abs(block) ** p)
    return float(total if p == math.inf else total ** (1 / p))
