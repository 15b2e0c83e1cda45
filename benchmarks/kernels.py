"""The table of what is measured: each optimizer with the options of its race, and its rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from grilly_optim.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    AutoHypergradientAdamW,
    HypergradientAdamW,
    Lion,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from . import adamw_rivals, expressions, hyper_expressions
from .expressions import Each, Expression, Steps, in_float64
from .ours import Subject
from .problem import Array, Expected, Problem, Team, blocks, by_element
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

    @by_element
    def expected(p: Array, g: Array, steps: int) -> Array:
        return in_float64(expression, p, [g] * steps, **options)

    rivals: dict[str, Rival] = {"numpy": partial(numpy_teams, partial(Each, expression, **options))}
    if torch_forms:
        rivals["torch"] = partial(torch_teams, make.__name__, torch_forms, options)
    return Kernel(Subject(_builder(make, options), expected), {**rivals, **(others or {})})


def with_sums(make: type[Any], recurrence: Callable[..., Steps], **options: Any) -> Kernel:
    """An entry of an optimizer whose steps need sums over all parameters.

    Args:
        make: Our class.
        recurrence: Its steps as one writes them in NumPy, over a sequence of arrays.
        options: For both.
    """

    def expected(parameters: Sequence[Array], gradients: Sequence[Array], steps: int) -> list[Array]:
        answers = [p.astype(np.float64) for p in parameters]
        # A sum over all elements is one over all blocks: to the recurrence each block is a parameter.
        exact = recurrence(_cut(answers), **options)
        for _ in range(steps):
            exact.step(_cut(gradients))
        return [a.astype(np.float32) for a in answers]

    rival = partial(numpy_teams, partial(recurrence, **options))
    return Kernel(Subject(_builder(make, options), expected), {"numpy": rival})


def _cut(arrays: Sequence[Array]) -> list[Array]:
    return [a[block] for a in arrays for block in blocks(a.size)]


def _builder(make: type[Any], options: Mapping[str, Any]) -> Callable[[Sequence[Array], str], Optimizer]:
    def build(parameters: Sequence[Array], device: str) -> Optimizer:
        optimizer: Optimizer = make(parameters, **options, device=device)
        return optimizer

    return build


FUSED = ("fused", "foreach")
FOREACH = ("foreach",)
# Adapted from the second step on, so that the check of the first three sees it.
CORRECTED = {"rule": "corrected", "warmup_steps": 0}

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
    "hypergradientadamw": with_sums(HypergradientAdamW, hyper_expressions.Hypergradient),
    "autohypergradientadamw": with_sums(AutoHypergradientAdamW, hyper_expressions.Auto, **CORRECTED),
    "autohypergradientadamw-all": with_sums(
        AutoHypergradientAdamW, hyper_expressions.Auto, **CORRECTED, adapt_momentum=True, track_surprise=True
    ),
}
