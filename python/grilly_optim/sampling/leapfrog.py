"""The leapfrog integrator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.optim._options import Range, Whole
from grilly_optim.sampling._evaluating import EvaluationFailed, Evaluator
from grilly_optim.sampling._mass import InverseMass

Array = NDArray[Any]


def leapfrog(
    position: Array, momentum: Array, stepsize: float, num_steps: int, inv_mass: ArrayLike, pot_energy: Any
) -> tuple[Array, Array]:
    """Follow Hamiltonian dynamics for some steps.

    The recurrence::

        p <- p - stepsize / 2 * grad U(q)
        q <- q + stepsize * W p, and between these p <- p - stepsize * grad U(q)
        p <- p - stepsize / 2 * grad U(q)

    It is reversible and keeps volumes; the energy's error is of second order in the step size. The momentum is not
    negated. The gradient is evaluated num_steps + 1 times, by expressions of NumPy.

    Args:
        position: q, (D,), or (C, D) of several chains; float32 or float64.
        momentum: p, of the same shape and precision.
        stepsize: A number; a negative one goes back in time.
        num_steps: 1 or more.
        inv_mass: W = M^-1: a number, a vector (D,) or a matrix (D, D), as for `HMC`.
        pot_energy: The potential energy, as for `HMC`.

    Returns:
        The position and the momentum at the end, in new arrays: what came is not changed.

    Raises:
        TypeError: Wrong types; another precision than float32 and float64.
        ValueError: Shapes that do not fit, a step size that is not finite, `num_steps` below 1, an `inv_mass` that is
            not positive definite.

        What the potential raises comes as it is.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011).

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import leapfrog
        >>> q, p = leapfrog(np.array([1.0]), np.array([0.0]), 0.1, 10, 1.0, lambda q: (0.5 * q @ q, q))
        >>> q.round(3), p.round(3)
        (array([0.54]), array([-0.841]))
        >>> back, _ = leapfrog(q, p, -0.1, 10, 1.0, lambda q: (0.5 * q @ q, q))
        >>> bool(abs(back[0] - 1) < 1e-12)
        True
    """
    for name, array in (("position", position), ("momentum", momentum)):
        if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
            kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise TypeError(f"{name} must be an array of float32 or float64, got {kind}")
    if position.ndim not in (1, 2) or position.size == 0:
        raise ValueError(f"position must have shape (D,) or (C, D), and not be empty, got {position.shape}")
    if momentum.shape != position.shape or momentum.dtype != position.dtype:
        raise ValueError(
            f"momentum must have the shape {position.shape} and dtype {position.dtype} of position, "
            f"got {momentum.shape} and {momentum.dtype}"
        )
    eps = position.dtype.type(Range().take("stepsize", stepsize))
    steps = Whole(1).take("num_steps", num_steps)
    q, p = (x.copy().reshape(-1, x.shape[-1]) for x in (position, momentum))
    mass = InverseMass(inv_mass, q.shape[1], q.dtype)
    evaluate = Evaluator(pot_energy, q.dtype, name="pot_energy")

    def gradient() -> Array:
        try:
            with np.errstate(all="ignore"):
                return evaluate(q, own=False)[1]
        except EvaluationFailed as failed:
            raise failed.cause from None

    p -= eps / 2 * gradient()
    for step in range(steps):
        q += eps * mass.velocity(p)
        p -= (eps if step < steps - 1 else eps / 2) * gradient()
    return q.reshape(position.shape), p.reshape(position.shape)
