"""Euler's step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.kernels.rule import Rule
from grilly_optim.optim._options import Flag, Range
from grilly_optim.optim._pairs import as_real, checked, conformed
from grilly_optim.optim._plans import REFUSED, Plans, Rows

Array = NDArray[Any]
Tree = TypeVar("Tree", Array, Mapping[str, Any])


class EulerState(NamedTuple):
    """What is integrated."""

    o: Array


class EulerScalars(NamedTuple):
    """See shaders/rules/euler.glsl."""

    keep: float
    step: float


def euler(s: EulerState, d: Array, h: EulerScalars) -> EulerState:
    """The twin of shaders/rules/euler.glsl."""
    return EulerState(h.keep * s.o + h.step * d)


EULER = Rule(euler, EulerState, EulerScalars)


def euler_step(
    o: Tree,
    do: Tree,
    step_size: float,
    decay: float | None = None,
    in_place: bool = False,
    *,
    device: str | None = None,
) -> Tree:
    """One step of Euler's method, for an array or a whole (nested) dict of them, in one kernel run.

    For each element::

        o = (1 - decay) o + step_size do

    Args:
        o: float32, float64, complex64 or complex128 arrays; a dict of these, or of such dicts.
        do: Their derivatives, in the same structure and of the same shapes; a real one goes with a complex array, and
            other precisions are cast.
        step_size: How far, any finite number.
        decay: What is lost of `o`; None: nothing.
        in_place: Write to the arrays of `o`; otherwise they stay as they are.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Returns:
        `o` itself, or as many new arrays in its structure.

    Raises:
        TypeError: Something that is no such array, a complex derivative of a real array, numbers or flags
            that are none.
        ValueError: Other keys or shapes; with `in_place`, arrays that are read-only or share memory.
        DeviceUnavailable: The device is unknown or cannot be used.

        After any of these, nothing has changed.

    Arrays of one precision are one kernel run.

    Source: `_euler_step` of UNaIVERSE's Hamiltonian Learning.

    Example:
        >>> import numpy as np
        >>> state = {"x": np.array([1.0, 2.0]), "y": {"z": np.array([1j])}}
        >>> velocity = {"x": np.array([0.0, -2.0]), "y": {"z": np.array([2.0])}}
        >>> made = euler_step(state, velocity, 0.5, decay=0.5)
        >>> made["x"].tolist(), made["y"]["z"].tolist()
        ([0.5, 0.0], [(1+0.5j)])
    """
    in_place = Flag().take("in_place", in_place)
    step = Range().take("step_size", step_size)
    keep = 1.0 - (0.0 if decay is None else Range().take("decay", decay))
    leaves = list(_leaves(o, do, "o", "do"))
    outputs = [array if in_place else np.array(array, order="C", subok=False) for _, array, _, _ in leaves]
    inputs: list[Any] = [conformed(d, array, who) for _, array, d, who in leaves]
    choice, backend = open_device(device, sum(array.size for array in outputs))
    if leaves:
        group = {"params": [as_real(array) for array in outputs]}
        plans = Plans(backend, choice.info, [group], [EULER], [{}], who=[who for who, _, _, _ in leaves])
        rows: list[Rows] = [[(keep, step)]] * len(plans.launches)
        if not plans.run((inputs,), rows, plans.index, True):
            inputs = [np.array(d) for d in inputs]  # one shares memory with what is written
            if not plans.run((inputs,), rows, plans.index, True):
                raise RuntimeError(REFUSED)
    return o if in_place else _like(o, iter(outputs))


def _leaves(o: Any, do: Any, who: str, who_do: str) -> Iterator[tuple[str, Array, Any, str]]:
    """What each array is called, the array, its derivative, and what that is called."""
    if not isinstance(o, Mapping):
        if isinstance(do, Mapping):
            raise TypeError(f"{who_do} must be an array, as {who} is, got {type(do).__name__}")
        yield who, checked(o, who), do, who_do
        return
    if not isinstance(do, Mapping):
        raise TypeError(f"{who_do} must be a dict, as {who} is, got {type(do).__name__}")
    for key in [*o, *do]:
        if key not in do or key not in o:
            there, missing = (who, who_do) if key in o else (who_do, who)
            raise ValueError(f"{there} has the key {key!r}, and {missing} has not")
    for key in o:
        yield from _leaves(o[key], do[key], f"{who}[{key!r}]", f"{who_do}[{key!r}]")


def _like(o: Any, arrays: Iterator[Array]) -> Any:
    return {key: _like(value, arrays) for key, value in o.items()} if isinstance(o, Mapping) else next(arrays)
