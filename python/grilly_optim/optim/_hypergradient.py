"""What optimizers share whose learning rate follows from the gradients: one rate that the others follow, histories."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    # The control's last numbers: from the first of these on the host wants to know them after a step, from the second
    # on they are what comes out of it, and 0 before.
    WANTED: ClassVar[tuple[str, str]] = ("lr", "adapted")
    # Attributes that say how it was built, which a subclass sets before it calls this constructor.
    SETTINGS: ClassVar[tuple[str, ...]] = ("_options_of_control",)

    _options_of_control: dict[str, float]

    def __init__(self, params: Any, defaults: dict[str, Any], device: str | None) -> None:
        self._begin()
        super().__init__(params, defaults, device)
        self._histories["lr"].append(self.current_lr)

    def _begin(self) -> None:
        control = self._rule({}).control
        assert control is not None
        fields = control.numbers._fields
        self._at = {name: k for k, name in enumerate(fields)}
        # The control's numbers after the last step: what the caller's options set, what is kept, what came out.
        self._kept = np.array([self._options_of_control.get(name, 0.0) for name in fields])
        self._steps_done = 0
        self._wanted, self._outcome = (slice(self._at[name], None) for name in self.WANTED)
        self._rate = 0.0  # the adapted one
        self._rates: list[float] = []
        self._shares: list[float] = []
        self._histories: dict[str, list[float]] = {name: [] for name in self.HISTORIES}
        # What the last step gave the histories, and how long they were before.
        self._entries: dict[str, float] = {}
        self._lengths: dict[str, int] = {}
        # The betas of all groups, where steps adapt them and have done so.
        self._betas: list[tuple[float, float]] | None = None

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
            self._rate = self._kept[self._at["lr"]] = _adapted_rate(rates)
            self._shares = [rate / self._rate if self._rate else 0.0 for rate in rates]
        for own, share in zip(options, self._shares, strict=True):
            own["share"] = share
        self._betas = None

    # A step.

    def _advance(self, options: Options, past: Past) -> HyperPast:
        step, last, _, seen, product = past
        now = self._steps_done + 1
        return HyperPast(step + 1, now, int(step > 0 and last == now - 1), seen, product)

    def _numbers(self, after: Pasts) -> Array:
        numbers, now = self._kept.copy(), self._steps_done + 1
        numbers[self._outcome] = 0.0
        numbers[self._at["directed"]] = self._rate > 0 and any(past.last == now and past.fresh for past in after)
        return numbers

    def _settle(self, numbers: Array) -> None:
        if self._kept is not numbers:
            found, entries = numbers[self._wanted].tolist(), dict[str, float]()
            change = self._change(found, entries)
            lengths = {name: len(self._histories[name]) for name in entries}
            # All at once: what a signal breaks off is taken up by calling this again.
            vars(self).update(
                change, _kept=numbers, _steps_done=self._steps_done + 1, _entries=entries, _lengths=lengths
            )
        for name, value in self._entries.items():
            self._histories[name][self._lengths[name] :] = [value]
        for k, (group, options, rate) in enumerate(zip(self.param_groups, self._options, self._rates, strict=True)):
            group["lr"] = options["lr"] = rate
            if self._betas is not None:
                group["betas"] = options["betas"] = self._betas[k]
            if self._seen[k] is not None:
                self._seen[k] = self._watched(group)

    @abstractmethod
    def _change(self, found: Sequence[float], entries: dict[str, float]) -> dict[str, Any]:
        """The attributes that a step changes which came to these numbers; and what its histories get, by name."""

    def _rates_at(self, rate: float) -> dict[str, Any]:
        """What changes with the adapted rate."""
        if rate == self._rate:
            return {}
        return {"_rate": rate, "_rates": [share * rate for share in self._shares]}

    # State.

    def _own_state(self) -> dict[str, Any]:
        return {
            "hypergradient": {
                "steps": self._steps_done,
                "rates": list(self._rates),
                "shares": list(self._shares),
                "memory": {name: float(self._kept[self._at[name]]) for name in self.MEMORY},
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
        self._steps_done = saved["steps"]
        for name, value in saved["memory"].items():
            self._kept[self._at[name]] = value
        for name, values in saved["histories"].items():
            self._histories[name][:] = values
        # The next step looks at the groups: a rate that had been written, but not looked at yet, is seen then.
        self._rates, self._shares = saved["rates"], saved["shares"]
        self._rate = self._kept[self._at["lr"]] = _adapted_rate(self._rates)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "settings": {name: getattr(self, name) for name in self.SETTINGS}}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        vars(self).update(saved["settings"])
        self._begin()
        super().__setstate__(saved)


def _adapted_rate(rates: Iterable[float]) -> float:
    """The rate that is adapted, out of those of the groups."""
    return next((rate for rate in rates if rate > 0), 0.0)


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
