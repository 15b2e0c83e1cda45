"""Results for people (tables) and for programs (JSON)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from .results import YARDSTICKS, Case, Loss, Row, losses
from .runner import Results

_NOTES = """\
wall: median per call, and the span from the 10 % to the 90 % quantile; the contestants of a table took turns.
device: what the device's own clock says of the kernel, without the way there and back.
GB/s: bytes that a fused update must move, over the wall time. of stream: that rate over the stream kernel's on the same
device (rivals and NumPy: the compiled CPU's), by the device's own clock where it has one.
x torch, x numpy: how many times faster than torch in its best form and than NumPy expressions; below 1 is slower."""


def to_json(results: Results) -> dict[str, Any]:
    """Everything, as plain dicts and lists."""
    return {
        "machine": results.machine,
        "settings": results.settings,
        "cases": [dataclasses.asdict(case) for case in results.cases],
        "where_we_lose": [dataclasses.asdict(loss) for loss in losses(results.cases)],
    }


def to_text(results: Results) -> str:
    """Machine, a table per case, and where we lose."""
    parts = ["\n".join(_machine(results)), _NOTES]
    parts += ["\n".join(_table(case, results.machine.get("last_level_cache_bytes"))) for case in results.cases]
    parts.append("\n".join(_losses(results)))
    return "\n\n".join(parts)


def _machine(results: Results) -> Iterator[str]:
    m = results.machine
    yield f"Measured {m['date']} on {m['system']}"
    sets = ", ".join(m["instruction_sets"])
    yield f"{m['processor']}, {m['cores']} cores, {sets}{_cache(m)}; load average {m['load_average']}"
    yield ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    tried = " and ".join(str(n) for n in m["threads"]["torch"])
    yield f"threads: ours {m['threads']['grilly_optim']}; torch and numba with {tried}, each row names its own"
    for d in m["devices"]:
        if d["device"] in results.settings["devices"]:
            driver = f" ({d['driver']}, Vulkan {d['api_version']})" if d["driver"] else ""
            yield f"{d['device']}: {d['name']}{driver}"
        elif not d["usable"]:
            yield f"{d['device'] or d['name']}: not measured: {d['reason']}"


def _cache(machine: dict[str, Any]) -> str:
    size = machine["last_level_cache_bytes"]
    return f", {size / 2**20:.0f} MiB last-level cache" if size else ""


def _table(case: Case, cache: int | None) -> Iterator[str]:
    moved = case.elements * case.bytes_per_element
    # Parameters, gradients and state: what a step keeps touching.
    fits = cache is not None and 16 * case.elements < cache
    where = "; it fits the cache of this machine, so GB/s are not the memory's" if fits else ""
    per_element = f"{case.bytes_per_element} bytes per element"
    yield f"{case.kernel}, {case.name}: {per_element}, {moved / 1e6:.4g} MB per step{where}"
    header = ["", "wall", "p10 .. p90", "device", "GB/s", "of stream", *(f"x {y}" for y in YARDSTICKS)]
    lines = [header, *(_cells(row) for row in case.rows if row.best)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        yield "  " + "  ".join(cells).rstrip()
    for text in case.left_out:
        yield f"  left out: {text}"


def _cells(row: Row) -> list[str]:
    return [
        row.who,
        seconds(row.median_s),
        f"{seconds(row.p10_s)} .. {seconds(row.p90_s)}",
        "-" if row.device_clock_s is None else seconds(row.device_clock_s),
        f"{row.gb_per_s:.3g}",
        "-" if row.share_of_stream is None else f"{row.share_of_stream:.0%}",
        *(f"{row.ratios[y]:.2f}" if y in row.ratios else "-" for y in YARDSTICKS),
    ]


def _losses(results: Results) -> Iterator[str]:
    yield "Where we lose (a rival's median below that of our best device)"
    found = losses(results.cases)
    if not found:
        compared = ", ".join(results.settings["against"]) or "nobody"
        yield f"  nowhere in this run, against {compared}"
    yield from (_loss(loss) for loss in found)


def _loss(loss: Loss) -> str:
    return (
        f"  {loss.kernel}, {loss.case}: {loss.rival} takes {seconds(loss.rival_s)}, ours ({loss.ours}) "
        f"{seconds(loss.ours_s)}: {loss.rival_s / loss.ours_s:.2f}x"
    )


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
