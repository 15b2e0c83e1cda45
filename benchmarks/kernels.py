"""The table of what is measured: each optimizer with the options of its race, and its rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from grilly_optim.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Lion, NAdam, Optimizer, RAdam, RMSprop

from . import adamw_rivals, expressions
from .expressions import Expression, in_float64
from .ours import Subject
from .problem import Array, Expected, Problem, Team
from .rivals import numpy_teams, torch_teams

Rival = Callable[[Problem, Expected], list[Team]]


@dataclass(frozen=True)
class Kernel:
    """What is measured under one name.

    Attributes:
        subject: Our optimizer.
        rivals: Library -> what makes its teams for a problem.
    """

    subject: Subject
    rivals: Mapping[str, Rival]


def kernel(
    make: type[Any],
    expression: Expression,
    torch_forms: Sequence[str] = (),
    others: Mapping[str, Rival] | None = None,
    **options: Any,
) -> Kernel:
    """An entry of the table.

    Args:
        make: Our class; torch's has the same name, and takes the same options.
        expression: A step as one writes it in NumPy: the rival, and in float64 the answer that is expected.
        torch_forms: The forms in which torch has it on the CPU.
        others: Rivals of this kernel alone.
        options: For all of them.
    """

    def build(parameters: Sequence[Array], device: str) -> Optimizer:
        optimizer: Optimizer = make(parameters, **options, device=device)
        return optimizer

    def expected(p: Array, g: Array, steps: int) -> Array:
        return in_float64(expression, p, [g] * steps, **options)

    rivals: dict[str, Rival] = {"numpy": partial(numpy_teams, expression, options)}
    if torch_forms:
        rivals["torch"] = partial(torch_teams, make.__name__, torch_forms, options)
    return Kernel(Subject(build, expected), {**rivals, **(others or {})})


FUSED = ("fused", "foreach")
FOREACH = ("foreach",)

KERNELS: dict[str, Kernel] = {
    "adamw": kernel(AdamW, expressions.adamw, FUSED, adamw_rivals.RIVALS, **adamw_rivals.OPTIONS),
    "adam": kernel(Adam, expressions.adam, FUSED),
    "sgd": kernel(SGD, expressions.sgd, FUSED, momentum=0.9),
    "rmsprop": kernel(RMSprop, expressions.rmsprop, FOREACH),
    "adagrad": kernel(Adagrad, expressions.adagrad, FUSED),
    "adadelta": kernel(Adadelta, expressions.adadelta, FOREACH),
    "nadam": kernel(NAdam, expressions.nadam, FOREACH),
    "radam": kernel(RAdam, expressions.radam, FOREACH),
    "lion": kernel(Lion, expressions.lion),
}
