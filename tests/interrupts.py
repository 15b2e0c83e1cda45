"""Ctrl-C at the worst moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def interrupt_at(line: int, functions: tuple[str, ...]) -> Callable[..., Any]:
    """A trace function that raises at one line of all that these functions run."""
    seen = 0

    def local(frame: Any, event: str, argument: Any) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == line:
                raise KeyboardInterrupt
        return local

    return lambda frame, event, argument: local if frame.f_code.co_name in functions else None


class Interrupting:
    """A device whose user presses Ctrl-C at the end of the next run, or before it."""

    def __init__(self, device: Any, after: bool) -> None:
        self.device, self.after = device, after

    def run(self, *args: Any) -> None:
        if self.after:
            self.device.run(*args)
        raise KeyboardInterrupt
