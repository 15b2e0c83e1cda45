"""Functions called before and after each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = Callable[..., Any]


class Handle:
    """Removes its hook."""

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


class Hooks:
    """The hooks of one optimizer, with torch's calling convention."""

    def __init__(self) -> None:
        self.pre: list[Hook] = []
        self.post: list[Hook] = []

    def add(self, hooks: list[Hook], hook: Hook) -> Handle:
        """Register a hook."""
        if not callable(hook):
            raise TypeError(f"hook must be callable, got {type(hook).__name__}")
        hooks.append(hook)
        return Handle(hooks, hook)

    def before(self, optimizer: Any, closure: Any, gradients: Any) -> tuple[Any, Any]:
        """Call the pre-hooks; each may replace the arguments of the step."""
        for hook in list(self.pre):
            result = hook(optimizer, (), {"closure": closure, "gradients": gradients})
            if result is not None:
                args, kwargs = result
                closure, gradients = _arguments(*args, **kwargs)
        return closure, gradients

    def after(self, optimizer: Any, closure: Any, gradients: Any) -> None:
        """Call the post-hooks."""
        for hook in list(self.post):
            hook(optimizer, (), {"closure": closure, "gradients": gradients})


def _arguments(closure: Any = None, gradients: Any = None) -> tuple[Any, Any]:
    return closure, gradients
