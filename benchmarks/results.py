"""From timings to rows: bandwidth, shares, ratios, and where somebody else is faster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .harness import Kind, Timing

# Columns of ratios: the libraries that every row is compared with, each at its best.
YARDSTICKS = ("torch", "numpy")


@dataclass
class Row:
    """One contestant of one case.

    Attributes:
        who: Family and variant.
        median_s: Seconds per call, wall time; p10_s and p90_s likewise.
        device_clock_s: What the device's own clock says of the kernel; None where it has none.
        rounds: How many turns the median is of, `calls` calls each.
        gb_per_s: Bytes that a fused update must move, over the median.
        share_of_stream: `gb_per_s` over that of the stream kernel on the same device, both by the device's own clock
            where it has one; None where there is no such kernel.
        ratios: How many times faster than the best of each yardstick: above 1 is faster.
        best: Whether it is the fastest variant of its family and kind.
    """

    who: str
    family: str
    variant: str
    kind: Kind
    device: str
    median_s: float
    p10_s: float
    p90_s: float
    device_clock_s: float | None
    rounds: int
    calls: int
    gb_per_s: float
    share_of_stream: float | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    best: bool = False


@dataclass
class Case:
    """All rows of one kernel at one size."""

    kernel: str
    name: str
    elements: int
    tensors: int
    bytes_per_element: int
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def best(self, kind: Kind, family: str | None = None) -> Row | None:
        """The fastest row of a kind, of one family or of all."""
        rows = [r for r in self.rows if r.kind == kind and family in (None, r.family)]
        return min(rows, key=lambda r: r.median_s, default=None)


@dataclass
class Loss:
    """A rival that is faster than our best device."""

    kernel: str
    case: str
    rival: str
    rival_s: float
    ours: str
    ours_s: float


def fill(case: Case, timings: Sequence[Timing], reference_bytes_per_element: int, host: str) -> None:
    """Put the rows into a case.

    Args:
        case: Everything but the rows.
        timings: Of one race.
        reference_bytes_per_element: What the stream kernel moves.
        host: The device whose stream kernel is the ceiling of NumPy and of the rivals.
    """
    for timing in timings:
        c = timing.contestant
        case.rows.append(
            Row(
                who=c.who,
                family=c.family,
                variant=c.variant,
                kind=c.kind,
                device=c.device,
                median_s=timing.median,
                p10_s=timing.quantile(1),
                p90_s=timing.quantile(9),
                device_clock_s=timing.device_median,
                rounds=len(timing.seconds),
                calls=timing.calls,
                gb_per_s=case.elements
                * (reference_bytes_per_element if c.kind == "reference" else case.bytes_per_element)
                / timing.median
                * 1e-9,
            )
        )
    _compare(case, reference_bytes_per_element / case.bytes_per_element, host)


def _compare(case: Case, more_bytes: float, host: str) -> None:
    streams = {r.device: r for r in case.rows if r.kind == "reference"}
    # NumPy is compared with what the memory gives to compiled code.
    ceiling = streams.get(host)
    rivals = [r for r in case.rows if r.kind == "rival"]
    yardsticks = {}
    for name in YARDSTICKS:
        forms = [r for r in rivals if r.family.split()[0] == name]
        if forms:
            yardsticks[name] = min(forms, key=lambda r: r.median_s)
    for row in case.rows:
        fastest = case.best(row.kind, row.family)
        row.best = row is fastest
        stream = ceiling if row.kind == "rival" or row.device == "numpy" else streams.get(row.device)
        if stream is not None:
            row.share_of_stream = _clock(stream, row) / _clock(row, stream) / more_bytes
            if row.kind == "reference":
                row.share_of_stream = 1.0
        if row.kind != "reference":
            row.ratios = {name: best.median_s / row.median_s for name, best in yardsticks.items()}


def _clock(row: Row, other: Row) -> float:
    """The device's own clock if both have one, so that transfers and waiting count on both sides or on none."""
    if row.device_clock_s is not None and other.device_clock_s is not None:
        return row.device_clock_s
    return row.median_s


def losses(cases: Sequence[Case]) -> list[Loss]:
    """Every case and rival that beats the best of our devices, from the medians alone."""
    found = []
    for case in cases:
        ours = case.best("step")
        if ours is None:
            continue
        found += [
            Loss(case.kernel, case.name, r.who, r.median_s, ours.who, ours.median_s)
            for r in case.rows
            if r.kind == "rival" and r.best and r.median_s < ours.median_s
        ]
    return found
