"""Ctrl-C at the worst moment."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def interrupted(work: Callable[[], Any], line: int, functions: Sequence[str], *modules: ModuleType) -> bool:
    """Do something, with Ctrl-C in front of this line of all that these functions run; whether it came to that.

    Args:
        work: What is done.
        line: From 1; 0 is none.
        functions: Their names.
        modules: Whose functions these are; none: anybody's. Each must be in one of them: what moves elsewhere is not to
            be left out without a word.
    """
    files = {module.__file__ for module in modules}
    sources = [inspect.getsource(module) for module in modules]
    for name in functions if modules else ():
        assert any(f"def {name}(" in source for source in sources), f"{name} is in none of the modules"
    trace, before = interrupt_at(line, tuple(functions)), sys.gettrace()
    sys.settrace(lambda frame, *rest: trace(frame, *rest) if not files or frame.f_code.co_filename in files else None)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


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
