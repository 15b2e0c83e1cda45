"""The change that a step would make, without making it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import Range
from grilly_optim.optim.optimizer import Gradients, Optimizer

Array = NDArray[Any]


def calc_delta_theta(
    optimizer: Optimizer, gradients: Gradients | None, use_sgd_change: bool = False, lr: float | None = None
) -> list[Array]:
    """The change of the parameters that an optimizer's next step, or a plain SGD step, would make with these gradients.

    Nothing changes: no parameter, no state, no step count.

    Args:
        optimizer: Any optimizer of this package.
        gradients: In every form that `Optimizer.step` takes; None reads the ``.grad`` of each `Parameter`.
        use_sgd_change: Return ``-lr * gradient`` and look at nothing else of the optimizer: not at its learning rate,
            momentum or decay, and not at maximize.
        lr: Learning rate of that plain step, 0 or more; not used otherwise.

    Returns:
        One array per parameter, of its shape and precision, in the order of `param_groups`; zeros where the gradient is
        None.

    Raises:
        TypeError: As in `Optimizer.step`, or no optimizer, or an lr that is no number.
        ValueError: As in `Optimizer.step`, or no lr where one is needed, or one that is negative or not finite.

    Source: `hypnettorch.utils.optim_step.calc_delta_theta`, whose gradients are those that the parameters hold.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import SGD, calc_delta_theta
        >>> w = np.array([1.0, 2.0])
        >>> optimizer = SGD([w], lr=0.5, weight_decay=1.0)
        >>> calc_delta_theta(optimizer, [np.ones(2)])
        [array([-1. , -1.5])]
        >>> calc_delta_theta(optimizer, [np.ones(2)], use_sgd_change=True, lr=0.1)
        [array([-0.1, -0.1])]
        >>> w
        array([1., 2.])
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer, got {type(optimizer).__name__}")
    if not use_sgd_change:
        return optimizer.peek(gradients)
    if lr is None:
        raise ValueError("lr is None: use_sgd_change=True needs the learning rate of the plain step")
    rate = Range(0).take("lr", lr)
    items = optimizer._turns.run(optimizer._plans.conform, gradients)
    pairs = zip(optimizer._plans.parameters, items, strict=True)
    with np.errstate(all="ignore"):  # what is not finite goes through, as in a step
        return [np.zeros(p.shape, p.dtype) if g is None else np.asarray(p.dtype.type(-rate) * g) for p, g in pairs]
