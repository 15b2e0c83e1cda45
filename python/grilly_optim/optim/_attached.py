"""Methods against forgetting that an optimizer carries in its own kernel: a penalty's gradient, a path integral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import Range

if TYPE_CHECKING:
    from grilly_optim.optim._groups import Groups
    from grilly_optim.optim._launch import Launch

Array = NDArray[Any]


class Method(Protocol):
    """What can be attached: `grilly_optim.continual.EWC`, `grilly_optim.continual.SynapticIntelligence`.

    Attributes:
        _integrates: Whether it needs the path integral.
        _version: Changes when `_quadratic` does.
    """

    _integrates: bool
    _version: int

    def _quadratic(self) -> tuple[list[Array], list[Array]] | None:
        """Weights and anchors of the penalty whose gradient is weight * (parameter - anchor); None for no penalty."""

    def _attach(self, parameters: list[Array], source: PathIntegral | None) -> None:
        """It has been attached to the optimizer of these parameters."""

    def _detach(self) -> None:
        """It has been detached."""


class Attached:
    """One method, the parameters it is for, and how far the device knows it."""

    def __init__(self, method: Method, strength: float, members: Sequence[int]) -> None:
        self.method = method
        self.strength = strength
        self.members = list(members)
        self.version = -1

    @staticmethod
    def checked(others: Sequence[Attached], method: Method, strength: float | None, members: list[int]) -> Attached:
        """This method, if it can be attached beside these others."""
        if not all(hasattr(method, name) for name in ("_integrates", "_version", "_quadratic", "_attach", "_detach")):
            expected = "an EWC or a SynapticIntelligence of grilly_optim.continual"
            raise TypeError(f"method must be {expected}, got {type(method).__name__}")
        number = Range(0).take("strength", (0.0 if method._integrates else 1.0) if strength is None else strength)
        for other in others:
            if (number and other.strength) or (method._integrates and other.method._integrates):
                raise ValueError(
                    f"{type(other.method).__name__} is attached already, and a step carries one penalty and one path "
                    "integral: detach it first"
                )
        return Attached(method, number, members)

    def prepare(self, launches: Sequence[Launch], before: Mapping[int, tuple[Launch, int]]) -> None:
        """Make room for it in these plans, and go on with the path integrals of the launches before them."""
        for launch in launches:
            if self.method._integrates:
                launch.plan.add_trace()
                for k, i in enumerate(launch.members):
                    if i in before:
                        old, at = before[i]
                        launch.write_state("trace", k, old.read_state("trace", at))
            if self.strength:
                launch.plan.add_anchor()
                launch.plan.strength = self.strength
        self.version = -1

    def release(self, launches: Sequence[Launch]) -> None:
        """Let its penalty weigh nothing; the room stays until the plans are made anew."""
        if self.strength:
            for launch in launches:
                launch.plan.strength = 0.0

    def rehearse(self, trials: Sequence[Launch]) -> None:
        """Give copies of the plans the penalty; they are not steps, so they integrate nothing."""
        if self.strength:
            for trial in trials:
                trial.plan.add_anchor()
                trial.plan.strength = self.strength
            self._write(trials)

    def refresh(self, launches: Sequence[Launch]) -> None:
        """Bring the penalty up to date on the device."""
        if self.version == self.method._version or not self.strength:
            return
        self._write(launches)
        self.version = self.method._version

    def _write(self, launches: Sequence[Launch]) -> None:
        quadratic = self.method._quadratic()
        if quadratic is not None:
            self._require_fit([w.shape for w in quadratic[0]], launches)
        of = {member: at for at, member in enumerate(self.members)}
        for launch in launches:
            for k, i in enumerate(launch.members):
                if i in of:
                    for n, field in enumerate(("weight", "anchor")):
                        nothing = np.zeros_like(launch.direct[k])
                        launch.write_state(field, k, nothing if quadratic is None else quadratic[n][of[i]])

    def _require_fit(self, found: list[tuple[int, ...]], launches: Sequence[Launch]) -> None:
        """Refuse a penalty that has become one of other parameters since it was attached."""
        shapes = {i: d.shape for launch in launches for i, d in zip(launch.members, launch.direct, strict=True)}
        expected = [shapes[i] for i in self.members]
        if found != expected:
            at = next((k for k, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
            what, rather = (
                (f"{len(found)} parameters", str(len(expected)))
                if at is None
                else (f"shape {found[at]} at {at}", str(expected[at]))
            )
            raise ValueError(
                f"{type(self.method).__name__} is attached and now holds on to {what}, expected {rather}: detach it, "
                "or let it consolidate the parameters that it is attached to"
            )


class PathIntegral:
    """The path integral that an optimizer's kernel adds up."""

    def __init__(self, optimizer: Groups, members: Sequence[int]) -> None:
        self._optimizer = optimizer
        self._members = list(members)

    def take(self) -> list[Array]:
        """What has come together since the last call, an array per parameter; the sums begin at zero again."""
        return self._optimizer._turns.run(self._taken)

    def _taken(self) -> list[Array]:
        found: dict[int, Array] = {}
        for launch in self._optimizer._plans.launches:
            for k, i in enumerate(launch.members):
                found[i] = launch.read_state("trace", k)
                launch.write_state("trace", k, np.zeros_like(found[i]))
        return [found[i] for i in self._members]
