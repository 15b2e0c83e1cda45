"""Modules that only some features need: imported where they are used, or a message that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtra(ImportError):
    """A module of an optional extra cannot be imported. The message names the extra to install."""


def load(module: str, extra: str) -> ModuleType:
    """Import a module that only an extra of this package brings.

    Args:
        module: Its full name.
        extra: The extra in pyproject.toml that lists its project.

    Raises:
        MissingExtra: If it is not there or does not load.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} cannot be imported ({error}); install it with: pip install 'grilly_optim[{extra}]'"
        ) from error
