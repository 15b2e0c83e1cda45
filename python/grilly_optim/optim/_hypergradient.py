"""What optimizers share whose learning rate follows from the gradients: one rate that the others follow, histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

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

    One rate is adapted, the one of the first group that is not at 0, and the others follow: each keeps its share of it.
    A value that somebody writes to ``group["lr"]`` is what the next decision starts from, and sets the group's share. A
    group at 0 stays there until something else is written.
    """

    START = HyperPast()
    # Numbers of the control that last from step to step.
    MEMORY: ClassVar[tuple[str, ...]] = ()
    HISTORIES: ClassVar[tuple[str, ...]] = ("lr",)
    # Attributes that say how it was built, which a subclass sets before it calls this constructor.
    SETTINGS: ClassVar[tuple[str, ...]] = ("_options_of_control",)

    _options_of_control: dict[str, float]

    @property
    def _control(self) -> Control:
        control = self._rule({}).control
        assert control is not None
        return control

    def __init__(self, params: Any, defaults: dict[str, Any], device: str | None) -> None:
        self._begin()
        super().__init__(params, defaults, device)
        self._histories["lr"].append(self.current_lr)

    def _begin(self) -> None:
        self._steps_done = 0
        self._memory = dict.fromkeys(self.MEMORY, 0.0)
        self._rates: list[float] = []
        self._shares: list[float] = []
        self._histories: dict[str, list[float]] = {name: [] for name in self.HISTORIES}

    @property
    def current_lr(self) -> float:
        """The first group's learning rate, as the last step used it or somebody has written it since."""
        return float(self.param_groups[0]["lr"])

    @property
    def lr_history(self) -> list[float]:
        """The first group's learning rate: at first, and after each adaptation."""
        return self._histories["lr"]

    # The shares.

    def _use(self, options: list[Options]) -> None:
        super()._use(options)
        rates = [o["lr"] for o in options]
        if rates != self._rates:
            self._rates = rates
            adapted = rates[self._reference()]
            self._shares = [rate / adapted if adapted else 0.0 for rate in rates]
        for own, share in zip(options, self._shares, strict=True):
            own["share"] = share

    def _reference(self) -> int:
        """The group whose rate is adapted."""
        return next((k for k, rate in enumerate(self._rates) if rate > 0), 0)

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
        given["lr"] = self._rates[self._reference()]
        now = self._steps_done + 1
        directed = given["lr"] > 0 and any(past.last == now and past.fresh for past in after)
        given["directed"] = float(directed)
        return np.array([given[name] for name in self._control.numbers._fields])

    def _settle(self, numbers: Array | None) -> None:
        assert numbers is not None
        found = dict(zip(self._control.numbers._fields, map(float, numbers), strict=True))
        if found["lr"] != self._rates[self._reference()]:
            self._rates = [share * found["lr"] for share in self._shares]
        self._memory = {name: found[name] for name in self.MEMORY}
        self._steps_done += 1
        for group, options, rate in zip(self.param_groups, self._options, self._rates, strict=True):
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
                "rates": list(self._rates),
                "shares": list(self._shares),
                "memory": dict(self._memory),
                "histories": {name: list(values) for name, values in self._histories.items()},
            }
        }

    def _checked_own_state(self, state_dict: Mapping[str, Any]) -> Any:
        expected, what = self._own_state()["hypergradient"], "'hypergradient' of state_dict"
        saved = _with_keys(expected, state_dict.get("hypergradient"), what)
        for name in ("memory", "histories"):
            _with_keys(expected[name], saved[name], f"{name!r} in {what}")
        if "rule" in expected and saved["rule"] != expected["rule"]:
            raise ValueError(f"{what} is of rule {saved['rule']!r}, expected {expected['rule']!r}")
        (steps,) = _floats([saved["steps"]], f"'steps' in {what}")
        if steps != int(steps):
            raise ValueError(f"'steps' in {what} must be a whole number, got {saved['steps']!r}")
        rates, shares = (_floats(saved[name], f"{name!r} in {what}") for name in ("rates", "shares"))
        if not len(rates) == len(shares) == len(expected["shares"]):
            raise ValueError(
                f"'rates' and 'shares' in {what} must have {len(expected['shares'])} numbers, one for each group, got "
                f"{len(rates)} and {len(shares)}"
            )
        memory = _floats(saved["memory"].values(), f"'memory' in {what}")
        return {
            "steps": int(steps),
            "rates": rates,
            "shares": shares,
            "memory": dict(zip(saved["memory"], memory, strict=True)),
            "histories": {k: _floats(v, f"{k!r} of 'histories' in {what}") for k, v in saved["histories"].items()},
        }

    def _take_own_state(self, saved: Any) -> None:
        self._steps_done, self._memory = saved["steps"], saved["memory"]
        for name, values in saved["histories"].items():
            self._histories[name][:] = values
        # A rate that had been written but not yet looked at is that again.
        self._rates, self._shares = saved["rates"], saved["shares"]
        self._use(self._options)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "settings": {name: getattr(self, name) for name in self.SETTINGS}}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved["settings"])
        self._begin()
        super().__setstate__(saved)


def _with_keys(expected: Mapping[str, Any], saved: Any, what: str) -> Mapping[str, Any]:
    """A dict out of a state dict, which must have these keys."""
    if not isinstance(saved, Mapping) or set(saved) != set(expected):
        came = ", ".join(map(repr, saved)) or "none" if isinstance(saved, Mapping) else repr(saved)
        raise ValueError(f"{what} must be a dict with the keys {', '.join(map(repr, expected)) or 'none'}, got {came}")
    return saved


def _floats(values: Any, what: str) -> list[float]:
    """A list of numbers out of a state dict, as floats: finite and 0 or more, as all of them are."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{what} must be a list of numbers, got {type(values).__name__}")
    return [Range(0).take(what, value) for value in values]


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
