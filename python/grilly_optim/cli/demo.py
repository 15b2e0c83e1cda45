"""``grilly-optim demo``: which jobs there are, their common options, and how they show their progress."""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from grilly_optim._extras import load

# Job -> its module in grilly_optim.cli, which has run(options) -> exit status. The first one is the default.
JOBS = {
    "digits": "digits",
    "continual": "continual",
    "llc": "llc",
    "sample": "sample",
    "hl": "hl",
    "ep": "ep",
}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    default = next(iter(JOBS))
    parser.add_argument("job", nargs="?", choices=JOBS, default=default, help=f"what to run (default: {default})")
    parser.add_argument("--device", help="auto, cpu, numpy, vulkan or vulkan:<index, uuid or part of a name>")
    parser.add_argument("--quiet", action="store_true", help="print the results only, no progress")
    parser.add_argument("--epochs", type=_positive, help="how often to go through the data (default: the job's own)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for the pictures (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the job that was asked for."""
    try:
        # Looked for at once: a job must not fail at its end because the picture cannot be drawn.
        for module in ("sklearn", "tqdm", "matplotlib"):
            load(module, extra="demo")
        job = importlib.import_module(f"grilly_optim.cli.{JOBS[options.job]}")
        return int(job.run(options))
    except OSError as error:
        print(f"grilly-optim: {error}", file=sys.stderr)
        return 1


class Progress:
    """Shows how far a job is: a bar on a terminal, a line now and then elsewhere, nothing when quiet.

    Args:
        total: How many times `advance` will be called.
        quiet: Show nothing.
    """

    def __init__(self, total: int, quiet: bool) -> None:
        self._bar: Any = None
        # The bar is drawn on stderr and the results go to stdout: with only one of them a terminal, the bar would
        # be missing in the one or stand among the results in the other.
        on_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._plain = not quiet and not on_terminal
        if not quiet and on_terminal:
            # A terminal may not know its size (0 x 0, in containers and under `script`), and tqdm would draw nothing
            # there; this function takes 80 x 24 then.
            size = shutil.get_terminal_size()
            self._bar = load("tqdm", extra="demo").tqdm(
                total=total,
                mininterval=0,  # drawn every time it moves
                ncols=size.columns,
                nrows=size.lines,
                bar_format="{desc} |{bar}| {percentage:3.0f}%{postfix}",
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        # Also after Ctrl-C: a bar left open would leave the cursor in the middle of its line.
        if self._bar is not None:
            self._bar.close()

    def advance(self, what: str, numbers: str) -> None:
        """Move the bar by one, with `what` before it and `numbers` after it."""
        if self._bar is not None:
            self._bar.set_description_str(what, refresh=False)
            self._bar.set_postfix_str(numbers, refresh=False)
            self._bar.update()

    def line(self, text: str) -> None:
        """Print a line where there is no bar."""
        if self._plain:
            print(text, flush=True)
