"""The progress bar of a run of chains."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from grilly_optim._extras import load


@contextmanager
def bar(total: int, shown: bool, unit: str = "step", done: int = 0) -> Iterator[Callable[[int, str], None] | None]:
    """What to call with how many more units are done and how things are; None where nothing is to be shown.

    Args:
        total: How many units there are.
        shown: Whether anybody looks.
        unit: What they are called.
        done: How many were done before.
    """
    if not shown:
        yield None
        return
    # A terminal may not know its size (0 x 0, in containers and under `script`), and tqdm would draw nothing there;
    # this function takes 80 x 24 then.
    size = shutil.get_terminal_size()
    with load("tqdm", extra="sampling").tqdm(
        total=total, initial=done, unit=unit, unit_scale=total >= 1000, ncols=size.columns, nrows=size.lines
    ) as drawn:

        def report(steps: int, text: str) -> None:
            drawn.set_postfix_str(text, refresh=False)
            drawn.update(steps)

        yield report
