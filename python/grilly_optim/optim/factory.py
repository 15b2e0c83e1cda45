"""An optimizer from flags, as command lines have them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from grilly_optim.optim._parameters import as_groups
from grilly_optim.optim.adadelta import Adadelta
from grilly_optim.optim.adagrad import Adagrad
from grilly_optim.optim.adam import Adam
from grilly_optim.optim.optimizer import Optimizer
from grilly_optim.optim.rmsprop import RMSprop
from grilly_optim.optim.sgd import SGD

BETA2 = 0.999


def get_optimizer(
    params: Any,
    lr: float | Sequence[float],
    momentum: float | Sequence[float] = 0,
    weight_decay: float | Sequence[float] = 0,
    use_adam: bool = False,
    adam_beta1: float | Sequence[float] = 0.9,
    use_rmsprop: bool = False,
    use_adadelta: bool = False,
    use_adagrad: bool = False,
    pgroup_ids: Sequence[int] | None = None,
    *,
    device: str | None = None,
) -> Optimizer:
    """Build `SGD`, or another optimizer by a flag; of several flags the first in the order of the arguments counts.

    Args:
        params: Arrays, (name, array) pairs or a dict of names.
        lr: Learning rate.
        momentum: Of `SGD` and `RMSprop`; the others have none.
        weight_decay: As the optimizers take it.
        use_adam: Build `Adam`, with betas ``(adam_beta1, 0.999)``.
        adam_beta1: Decay of Adam's first moment.
        use_rmsprop: Build `RMSprop`.
        use_adadelta: Build `Adadelta`.
        use_adagrad: Build `Adagrad`.
        pgroup_ids: For each parameter the number of its group; the groups are 0 to the largest number. lr, momentum,
            weight_decay and adam_beta1 may then be lists or tuples with one value per group.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Raises:
        TypeError: As the optimizers raise it; groups for params; pgroup_ids that are no whole numbers.
        ValueError: As the optimizers raise it; a wrong number of pgroup_ids or of values for the groups, or a group
            without parameters.
        DeviceUnavailable: The device is unknown or cannot be used.

    Source: `hypnettorch.utils.torch_utils.get_optimizer`.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import get_optimizer
        >>> weight, bias = np.ones((3, 2)), np.zeros(2)
        >>> optimizer = get_optimizer([weight, bias], [0.1, 0.01], use_adam=True, pgroup_ids=[0, 1], device="numpy")
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.1, 0.01]
    """
    groups = _grouped(params, pgroup_ids)
    count = len(groups)
    make: type[Adam | RMSprop | Adadelta | Adagrad | SGD] = SGD
    options = {"lr": _per_group("lr", lr, count), "weight_decay": _per_group("weight_decay", weight_decay, count)}
    if use_adam:
        make = Adam
        options["betas"] = [(beta1, BETA2) for beta1 in _per_group("adam_beta1", adam_beta1, count)]
    elif use_rmsprop:
        make = RMSprop
    elif use_adadelta:
        make = Adadelta
    elif use_adagrad:
        make = Adagrad
    if make in (SGD, RMSprop):
        options["momentum"] = _per_group("momentum", momentum, count)
    return make([{**g, **{n: v[k] for n, v in options.items()}} for k, g in enumerate(groups)], device=device)


def _grouped(params: Any, ids: Sequence[int] | None) -> list[dict[str, Any]]:
    """The parameters as groups without options."""
    given, *more = as_groups(params)
    if more or set(given) != {"params"}:
        raise TypeError("params must be arrays, (name, array) pairs or a dict of names, got groups: use pgroup_ids")
    items = given["params"]
    items = list(items.items()) if isinstance(items, Mapping) else list(items)
    if ids is None:
        return [{"params": items}]
    try:
        numbers = [operator.index(i) for i in ids]
    except TypeError:
        raise TypeError(f"pgroup_ids must be whole numbers, one per parameter, got {ids!r}") from None
    if len(numbers) != len(items):
        raise ValueError(f"pgroup_ids has {len(numbers)} entries, and there are {len(items)} parameters")
    if min(numbers) < 0:
        raise ValueError(f"pgroup_ids must be 0 or more, got {min(numbers)}")
    groups = [{"params": [p for p, i in zip(items, numbers, strict=True) if i == k]} for k in range(max(numbers) + 1)]
    empty = [k for k, group in enumerate(groups) if not group["params"]]
    if empty:
        raise ValueError(f"pgroup_ids gives group {empty[0]} no parameter, and group {max(numbers)} some")
    return groups


def _per_group(name: str, value: Any, groups: int) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"{name} has {len(value)} values for {groups} groups")
    return value
