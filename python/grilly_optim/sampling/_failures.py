"""What can go wrong on the way: a chain that does not get to its end."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


class ChainFailed(RuntimeError):
    """A chain did not get to its end. The cause is ``__cause__``.

    Attributes:
        chain: Its number; of several chains that ran as one batch and cannot be told apart, the first one's.
        step: The step or transition it was in, from 0; None where that is not known.
        diverged: The loss was NaN or infinite.
        results: What is not lost, by the number of the chain. Of an estimate: the losses, (num_draws,), of every chain
            that did finish. Of `sample`: the draws, (n, D), of every chain that has some. A chain's numbers do not
            depend on the others, so these are what the whole run would have had.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import ChainFailed, estimate_learning_coeff
        >>> def broken(params):
        ...     raise ZeroDivisionError("no data")
        >>> try:
        ...     estimate_learning_coeff(
        ...         np.ones(3), broken, optimizer_kwargs={"lr": 1e-3, "nbeta": 10.0}, init_loss=0.0, device="numpy"
        ...     )
        ... except ChainFailed as error:
        ...     print(error, error.chain, error.results)
        chain 0 failed in step 0: ZeroDivisionError: no data 0 {}
    """

    def __init__(self, message: str, chain: int, step: int | None = None, diverged: bool = False) -> None:
        super().__init__(message, chain, step, diverged)  # all of them, so that it travels between processes
        self.chain, self.step, self.diverged = chain, step, diverged
        self.results: dict[int, NDArray[Any]] = {}

    def __str__(self) -> str:
        return str(self.args[0])


class SamplingWarning(UserWarning):
    """Draws are there, and something about them is to be known: `sample` says what, and what to do.

    It can be made an error, or silenced, as all warnings can.

    Example:
        >>> import warnings
        >>> from grilly_optim.sampling import SamplingWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", SamplingWarning)  # divergences end the program
    """


class SweepFailed(RuntimeError):
    """A point of a sweep could not be computed. The cause is ``__cause__``.

    Attributes:
        epsilon: Its learning rate.
        nbeta: Its inverse temperature.
        sweep: What is not lost: an `EpsilonBetaSweep` with NaN where points are missing.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import SweepFailed, epsilon_beta_sweep
        >>> def broken(params):
        ...     raise ZeroDivisionError("no data")
        >>> try:
        ...     epsilon_beta_sweep(np.ones(3), broken, nbeta=10.0, init_loss=0.0, device="numpy")
        ... except SweepFailed as error:
        ...     print(error)
        lr=1e-06, nbeta=0.1: chain 0 failed in step 0: ZeroDivisionError: no data
    """

    def __init__(self, message: str, epsilon: float, nbeta: float, sweep: Any = None) -> None:
        super().__init__(message, epsilon, nbeta, sweep)
        self.epsilon, self.nbeta, self.sweep = epsilon, nbeta, sweep

    def __str__(self) -> str:
        return str(self.args[0])


def reason(error: BaseException) -> str:
    """What went wrong, for the middle of a message."""
    return f"{type(error).__name__}: {error}"
