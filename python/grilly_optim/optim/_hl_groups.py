"""Groups of Hamiltonian Learning: a model with its options each, and gradients for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from grilly_optim.optim._options import Flag, Option, Options, Range, take_options

OPTIONS: dict[str, Option] = {
    "gamma": Range(),
    "flip": Range(),
    "theta": Range(),
    "beta": Range(),
    "reset_neuron_costate": Flag(),
    "reset_weight_costate": Flag(),
    "local": Flag(),
    "conjugate": Flag(),
    "scale_damping": Flag(),
}


def checked_group(group: Any, defaults: Options, index: int) -> dict[str, Any]:
    """A group with all of its options.

    Raises:
        TypeError: Not a dict with a model, or options of another kind.
        ValueError: An unknown option, or one out of range.
    """
    if not isinstance(group, Mapping) or "params" not in group:
        raise TypeError(
            f"models must be a model or dicts with the key 'params', its model; models[{index}] is {group!r:.100}"
        )
    unknown = [key for key in group if key not in defaults and key != "params"]
    if unknown:
        raise ValueError(
            f"models[{index}] has the option {unknown[0]!r}, which HL does not take; it takes {', '.join(defaults)}"
        )
    made = {**defaults, **group}
    take_options(OPTIONS, made, index)
    return made


def futile(groups: Iterable[Mapping[str, Any]], first: int = 0) -> list[str]:
    """What is to be said of groups that learn nothing; `first` is the index of the first one."""
    return [
        f"models[{index}]: with local=True and reset_weight_costate=True weights never move, because they follow "
        "costates that have just been set to zero; take local=False"
        for index, group in enumerate(groups, first)
        if group["local"] and group["reset_weight_costate"]
    ]


def as_groups(models: Any) -> list[Any]:
    if hasattr(models, "named_parameters"):
        return [{"params": models}]
    if isinstance(models, Mapping):
        return [models]
    if not isinstance(models, Iterable) or isinstance(models, str | bytes):
        raise TypeError(
            "models must be a model, which has named_parameters(), or dicts with the key 'params', got "
            f"{type(models).__name__}"
        )
    groups = list(models)
    if not groups:
        raise ValueError("models is empty: there is nothing to learn")
    return groups


def for_each(gradients: Any, models: int) -> list[Any]:
    """Gradients in the form for one model, or in that for several, one entry per model."""
    if gradients is None:
        return [None] * models
    if isinstance(gradients, Mapping):
        if models > 1:
            raise TypeError(f"gradients must be a list of {models} dicts, one for each model, got one dict")
        return [gradients]
    if not isinstance(gradients, list | tuple):
        raise TypeError(
            f"gradients must be a dict with the keys 'xi' and 'w', or a list of these, got {type(gradients).__name__}"
        )
    if len(gradients) != models:
        raise ValueError(f"gradients has {len(gradients)} entries, and there are {models} models")
    return list(gradients)


def called(k: int, models: int) -> str:
    return "the model" if models == 1 else f"model {k}"
