"""What optimizers share whose learning rate follows from the gradients: one scale for all groups, and its history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels.rule import Control
from grilly_optim.optim._options import Options, Range
from grilly_optim.optim._past import Past, Pasts
from grilly_optim.optim.optimizer import Optimizer

Array = NDArray[Any]


class HyperPast(NamedTuple):
    """What a parameter has been through.

    Attributes:
        step: The number of its steps.
        last: The optimizer's step that was its last one.
        fresh: Whether, at that step, it had taken part in the one before: then it had a direction.
        seen: Whether its mean gradient has begun.
        product: Of its beta1, over its steps.
    """

    step: int = 0
    last: int = -1
    fresh: int = 0
    seen: int = 0
    product: float = 1.0


class Hypergradient(Optimizer):
    """Base of the optimizers whose learning rate is decided on the device, between two passes.

    All groups share one scale: the rate of a group is its base times the scale. A value that somebody writes to
    ``group["lr"]`` is what the next decision starts from for that group, whose new base is the value over the scale. A
    group at 0 stays there until something else is written.
    """

    START = HyperPast()
    # What has to be in a state dict, with the numbers of the control that last from step to step.
    MEMORY: tuple[str, ...] = ()

    _options_of_control: dict[str, float]

    @property
    def _control(self) -> Control:
        control = self._rule({}).control
        assert control is not None
        return control

    def __init__(self, params: Any, defaults: dict[str, Any], device: str | None) -> None:
        self._steps_done = 0
        self._memory = dict.fromkeys(self.MEMORY, 0.0)
        self._scale = 1.0
        self._bases: list[float] = []
        self._shown: list[float] = []
        super().__init__(params, defaults, device)
        self._histories: dict[str, list[float]] = {"lr": [self.current_lr]}

    @property
    def current_lr(self) -> float:
        """The learning rate of the first group, as the last step used it."""
        return float(self.param_groups[0]["lr"])

    @property
    def lr_history(self) -> list[float]:
        """The first group's learning rate: at first, and after each adaptation."""
        return self._histories["lr"]

    # The scale.

    def _use(self, options: list[Options]) -> None:
        super()._use(options)
        rates = [o["lr"] for o in options]
        # What was there before stands as it was left; what is new or has been written sets its base.
        for k, rate in enumerate(rates):
            if k >= len(self._bases):
                self._bases.append(rate / self._scale)
            elif rate != self._shown[k]:
                self._bases[k] = rate / self._scale
        self._shown = rates
        self._set_shares()

    def _reference(self) -> int:
        """The group whose rate is adapted, and which the others follow: the first that is not at 0."""
        return next((k for k, rate in enumerate(self._shown) if rate > 0), 0)

    def _set_shares(self) -> None:
        """The rate of each group as a part of the reference's."""
        reference = self._reference()
        for k, (options, base) in enumerate(zip(self._options, self._bases, strict=True)):
            options["share"] = 1.0 if k == reference else base / (self._bases[reference] or 1.0)

    # A step.

    def _advance(self, options: Options, past: Past) -> HyperPast:
        was: HyperPast = past
        fresh = was.step > 0 and was.last == self._steps_done
        return was._replace(step=was.step + 1, last=self._steps_done + 1, fresh=int(fresh))

    def _asked(self) -> dict[str, float]:
        """The numbers of the control that the caller's options set."""
        return self._options_of_control

    def _numbers(self, after: Pasts) -> Array:
        given = {**dict.fromkeys(self._control.numbers._fields, 0.0), **self._asked(), **self._memory}
        given["lr"] = self._shown[self._reference()]
        now = self._steps_done + 1
        directed = given["lr"] > 0 and any(past.last == now and past.fresh for past in after)
        given["directed"] = float(directed)
        return np.array([given[name] for name in self._control.numbers._fields])

    def _settle(self, numbers: Array | None) -> None:
        assert numbers is not None
        found = dict(zip(self._control.numbers._fields, map(float, numbers), strict=True))
        reference = self._reference()
        if self._bases[reference] > 0:
            self._scale = found["lr"] / self._bases[reference]
            rates = [base * self._scale for base in self._bases]
            rates[reference] = found["lr"]
            self._shown = rates
        self._memory = {name: found[name] for name in self.MEMORY}
        self._steps_done += 1
        for group, options, rate in zip(self.param_groups, self._options, self._shown, strict=True):
            group["lr"] = options["lr"] = rate
        self._learn(found)
        self._remember()

    def _learn(self, found: Mapping[str, float]) -> None:
        """Take note of what a step came to: histories, and whatever else a subclass keeps."""
        if found["adapted"]:
            self._histories["lr"].append(self.current_lr)

    # State.

    def _own_state(self) -> dict[str, Any]:
        return {
            "hypergradient": {
                "steps": self._steps_done,
                "scale": self._scale,
                "bases": list(self._bases),
                "memory": dict(self._memory),
                "histories": {name: list(values) for name, values in self._histories.items()},
            }
        }

    def _checked_own_state(self, state_dict: Mapping[str, Any]) -> Any:
        saved = state_dict.get("hypergradient")
        expected = self._own_state()["hypergradient"]
        if not isinstance(saved, Mapping) or set(saved) != set(expected):
            raise ValueError(
                f"state_dict has no 'hypergradient' with {', '.join(expected)}: it is not one of this class"
            )
        for name in ("memory", "histories"):
            if not isinstance(saved[name], Mapping) or set(saved[name]) != set(expected[name]):
                raise ValueError(
                    f"{name!r} of 'hypergradient' in state_dict must have {', '.join(expected[name])}: the optimizer "
                    "that was saved was built with other options"
                )
        if len(saved["bases"]) != len(expected["bases"]):
            raise ValueError(f"'bases' of 'hypergradient' in state_dict must have {len(expected['bases'])} numbers")
        numbers = [saved["steps"], saved["scale"], *saved["bases"], *saved["memory"].values()]
        numbers += [x for values in saved["histories"].values() for x in values]
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
            raise ValueError("'hypergradient' in state_dict must hold finite numbers")
        return {
            "steps": int(saved["steps"]),
            "scale": float(saved["scale"]),
            "bases": [float(x) for x in saved["bases"]],
            "memory": {name: float(x) for name, x in saved["memory"].items()},
            "histories": {name: [float(x) for x in values] for name, values in saved["histories"].items()},
        }

    def _take_own_state(self, saved: Any) -> None:
        self._steps_done, self._scale, self._memory = saved["steps"], saved["scale"], saved["memory"]
        self._bases = saved["bases"]
        for name, values in saved["histories"].items():
            self._histories[name][:] = values
        self._set_shares()


def rate_limits(lr_min: Any, lr_max: Any) -> tuple[float, float]:
    """The limits of the learning rate as floats.

    Raises:
        TypeError: Not numbers.
        ValueError: Negative, infinite, or in the wrong order.
    """
    low, high = Range(0).take("lr_min", lr_min), Range(0).take("lr_max", lr_max)
    if low > high:
        raise ValueError(f"lr_min must be at most lr_max, got {lr_min!r} and {lr_max!r}")
    return low, high
