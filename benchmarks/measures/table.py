"""A measure beside its target, and the table of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass
class Measure:
    """One row.

    Attributes:
        what: What is measured.
        target: What is aimed at, in words.
        measured: What came out, in words.
        met: Whether the target is met; None where it could not be measured.
        values: The numbers behind `measured`.
    """

    what: str
    target: str
    measured: str
    met: bool | None
    values: dict[str, float] = field(default_factory=dict)


def at_least(what: str, value: float, target: float, **values: float) -> Measure:
    """How many times faster than somebody else."""
    return Measure(what, f"{target:.1f}x", f"{value:.2f}x", value >= target, {"ratio": value, **values})


def not_measured(what: str, target: str, why: str) -> Measure:
    """A row for what this machine does not have."""
    return Measure(what, target, f"not measured: {why}", None)


def to_text(measures: Iterable[Measure]) -> str:
    """The table."""
    rows = [["measure", "target", "measured", "met"], *(_cells(m) for m in measures)]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return "\n".join(_lines(rows, widths))


def _cells(measure: Measure) -> list[str]:
    met = {True: "yes", False: "NO", None: "-"}[measure.met]
    return [measure.what, measure.target, measure.measured, met]


def _lines(rows: list[list[str]], widths: list[int]) -> Iterator[str]:
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
