"""``grilly-optim bench``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

# benchmarks/ becomes grilly_optim.benchmarks when the package is installed; in the source tree it lies elsewhere, where
# no type checker would find it.
_PACKAGE = "grilly_optim.benchmarks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="what to measure, by name (default: everything)")
    parser.add_argument("--device", help="measure on this device only (default: every usable device)")
    parser.add_argument(
        "--sizes",
        nargs="+",
        metavar="N",
        help="numbers of elements, and 'many' for 1,000 small tensors (default: 1e3 1e4 1e5 1e6 1e7 5e7 many)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to this file")
    parser.add_argument(
        "--against",
        metavar="LIST",
        help="rivals: numpy, torch, numba, thinc, separated by commas, or 'none' (default: all that are installed)",
    )
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="time spent on each size (default: 20)")


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables, and write the JSON file if one is asked for."""
    runner: Any = importlib.import_module(f"{_PACKAGE}.runner")
    report: Any = importlib.import_module(f"{_PACKAGE}.report")
    errors: Any = importlib.import_module(f"{_PACKAGE}.errors")
    choice = runner.Choice(
        kernels=options.kernels,
        sizes=options.sizes or runner.DEFAULT_SIZES,
        device=options.device,
        against=_names(options.against),
        budget=runner.DEFAULT_BUDGET if options.budget is None else options.budget,
    )
    if options.json is not None:
        # Now, not after minutes of measuring: a file that cannot be written is said at once.
        try:
            options.json.touch()
        except OSError as error:
            print(f"grilly-optim bench: --json: {error}", file=sys.stderr)
            return 1
    try:
        results = runner.run(choice, progress=lambda text: print(f"bench: {text}", file=sys.stderr))
    except errors.BenchError as error:
        print(f"grilly-optim bench: {error}", file=sys.stderr)
        return int(error.status)
    print(report.to_text(results))
    if options.json is not None:
        options.json.write_text(json.dumps(report.to_json(results), indent=2) + "\n")
    return 0


def _names(against: str | None) -> list[str] | None:
    if against is None:
        return None
    return [name for name in against.split(",") if name and name != "none"]
