"""Figures that need no screen."""

from __future__ import annotations

from typing import Any

from grilly_optim._extras import load


def new_figure(width: float, height: float) -> Any:
    """A Figure by itself, without pyplot: it draws into files and notebooks, and never looks for a screen."""
    return load("matplotlib.figure", extra="sampling").Figure(figsize=(width, height), layout="constrained")
