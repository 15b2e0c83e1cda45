"""Functions called before and after each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Hook = Callable[..., Any]


class Handle:
    """Removes its hook."""

    def __init__(self, hooks: dict[Handle, Hook]) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self, None)


class Hooks:
    """The hooks of one optimizer, with torch's calling convention."""

    def __init__(self) -> None:
        self.pre: dict[Handle, Hook] = {}
        self.post: dict[Handle, Hook] = {}

    def add(self, hooks: dict[Handle, Hook], hook: Hook) -> Handle:
        """Register a hook."""
        if not callable(hook):
            raise TypeError(f"hook must be callable, got {type(hook).__name__}")
        handle = Handle(hooks)
        hooks[handle] = hook
        return handle

    def before(self, optimizer: Any, closure: Any, gradients: Any) -> tuple[Any, Any]:
        """Call the pre-hooks; each may replace the arguments of the step."""
        for hook in list(self.pre.values()):
            result = hook(optimizer, (), {"closure": closure, "gradients": gradients})
            if result is not None:
                args, kwargs = result
                closure, gradients = _arguments(*args, **kwargs)
        return closure, gradients

    def after(self, optimizer: Any, closure: Any, gradients: Any) -> None:
        """Call the post-hooks."""
        for hook in list(self.post.values()):
            hook(optimizer, (), {"closure": closure, "gradients": gradients})


def _arguments(closure: Any = None, gradients: Any = None) -> tuple[Any, Any]:
    return closure, gradients
