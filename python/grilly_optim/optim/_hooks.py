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

    def before(self, optimizer: Any, **arguments: Any) -> tuple[Any, ...]:
        """Call the pre-hooks; each may replace the arguments of the step, whose values come back in their order."""
        for hook in list(self.pre.values()):
            result = hook(optimizer, (), dict(arguments))
            if result is not None:
                arguments = _replaced(result, arguments)
        return tuple(arguments.values())

    def after(self, optimizer: Any, **arguments: Any) -> None:
        """Call the post-hooks."""
        for hook in list(self.post.values()):
            hook(optimizer, (), dict(arguments))


class Hooked:
    """Somebody whose steps may have hooks."""

    _hooks: Hooks

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ``(args, kwargs)``."""
        return self._hooks.add(self._hooks.pre, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return self._hooks.add(self._hooks.post, hook)


def _replaced(result: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a pre-hook gave instead; an argument that it leaves out is None."""
    if isinstance(result, tuple) and len(result) == 2:
        args, kwargs = result
        if isinstance(args, tuple | list) and isinstance(kwargs, dict):
            given = dict(zip(arguments, args, strict=False))
            if len(args) <= len(arguments) and set(kwargs) <= set(arguments) - set(given):
                return {**dict.fromkeys(arguments), **given, **kwargs}
    raise TypeError(
        f"a step pre-hook must return None or (args, kwargs) for step({', '.join(arguments)}), got {result!r:.200}"
    )
