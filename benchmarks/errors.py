"""What ends a benchmark early, and with which exit status."""


class BenchError(RuntimeError):
    """The benchmark cannot go on; the message says why."""

    status = 1


class UsageError(BenchError):
    """The command line names something that does not exist."""

    status = 2


class MissingRival(BenchError):
    """A rival was asked for by name and is not installed."""


class WrongResult(BenchError):
    """A contestant computes something else: its time would mean nothing."""
