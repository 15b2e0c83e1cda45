"""What chains tell loggers and writers while they run."""

from __future__ import annotations

from typing import Any

from grilly_optim.optim._options import Whole


class Reporting:
    """Where the states of chains are reported.

    Args:
        logger: Has ``debug(message)``, as `logging.Logger` does, or None.
        log_interval: From one logged state to the next, beginning with the first.
        writer: Has ``add_scalar(tag, value, global_step)``, as tensorboard's and tensorboardX's have, or None.
        writer_tag: Stands before all tags.

    Raises:
        TypeError: A logger or writer without these methods; a tag that is no string.
        ValueError: `log_interval` is below 1.
    """

    def __init__(self, logger: Any, log_interval: Any, writer: Any, writer_tag: Any) -> None:
        if logger is not None and not callable(getattr(logger, "debug", None)):
            raise TypeError(f"logger must have debug(), got {type(logger).__name__}")
        if writer is not None and not callable(getattr(writer, "add_scalar", None)):
            raise TypeError(f"writer must have add_scalar(tag, value, global_step), got {type(writer).__name__}")
        if not isinstance(writer_tag, str):
            raise TypeError(f"writer_tag must be a string, got {writer_tag!r}")
        self.logger, self.writer, self.writer_tag = logger, writer, writer_tag
        self.log_interval = Whole(1).take("log_interval", log_interval)

    @property
    def wanted(self) -> bool:
        """Whether anybody is told."""
        return self.logger is not None or self.writer is not None

    def transitions(self, done: int, wanted: int) -> int:
        """How many to make before the next report is due."""
        if self.writer is not None:
            return 1
        return wanted if self.logger is None else min(wanted, 1 + -done % self.log_interval)

    def logs(self, state: int) -> bool:
        """Whether a state, from 1, is one that is logged."""
        return self.logger is not None and (state - 1) % self.log_interval == 0

    def log(self, sampler: str, state: int, what: str, value: float, rate: float) -> None:
        """Tell the logger of a state."""
        self.logger.debug(f"{sampler} state {state}: {what} {value:f}, accepted {100 * rate:.2f}%")

    def write(self, prefix: str, scalars: dict[str, float], state: int) -> None:
        """Give the writer what it is to know of a state."""
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(f"{self.writer_tag}{prefix}{name}", value, global_step=state)
