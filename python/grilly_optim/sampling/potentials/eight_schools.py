"""The eight schools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grilly_optim.sampling.potentials._builtin import BuiltIn, dot

Array = NDArray[Any]
Doubles = NDArray[np.float64]

_EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
_SCALE = 5.0  # of both priors


class EightSchools(BuiltIn):
    r"""Effects of coaching in eight schools, not centered: y_j ~ N(theta_j, s_j^2) with theta_j = mu + tau t_j.

    Priors: mu ~ N(0, 5^2), tau ~ half-Cauchy(0, 5), t_j ~ N(0, 1). A position is q = (mu, log tau, t_1 ... t_8), and

        U(q) = mu^2 / 50 + log(1 + tau^2 / 25) - log tau + \|t\|^2 / 2 + sum_j ((y_j - mu - tau t_j) / s_j)^2 / 2

    with the logarithm of tau's Jacobian, without constants. Posterior means: mu 4.397, tau 3.598.

    Source: D. B. Rubin, "Estimation in Parallel Randomized Experiments", Journal of Educational Statistics 6 (1981);
    A. Gelman et al., "Bayesian Data Analysis", section 5.5.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling.potentials import EightSchools
        >>> potential = EightSchools()
        >>> potential.names[:3]
        ['mu', 'log_tau', 't[0]']
        >>> energy, gradient = potential(np.zeros(10))
        >>> print(round(energy, 4), gradient[:2].round(4))
        4.174 [-0.4635 -0.9231]
        >>> {name: values.shape for name, values in potential.transform(np.zeros((4, 1000, 10))).items()}
        {'mu': (4, 1000), 'tau': (4, 1000), 'theta': (4, 1000, 8)}
    """

    def __init__(self) -> None:
        super().__init__(10, "eight_schools", tables={"effects": _EFFECTS, "errors": _ERRORS})

    @property
    def names(self) -> list[str]:
        """See `BuiltIn`."""
        return ["mu", "log_tau", *(f"t[{j}]" for j in range(8))]

    def transform(self, q: ArrayLike) -> dict[str, Array]:
        """What positions (..., 10) stand for: mu (...), tau (...) and theta (..., 8)."""
        position = np.asarray(q)
        mu, tau = position[..., 0], np.exp(position[..., 1])
        return {"mu": mu, "tau": tau, "theta": mu[..., None] + tau[..., None] * position[..., 2:]}

    def _evaluate(self, q: Doubles) -> tuple[Doubles, Doubles]:
        mu, log_tau, t = q[:, 0], q[:, 1], q[:, 2:]
        tau = np.exp(log_tau)[:, None]
        errors = self.tables["errors"]
        misses = (self.tables["effects"] - mu[:, None] - tau * t) / errors
        weights = misses / errors
        # tau^2 may be infinite where its logarithm is not.
        log_ratio = 2 * (log_tau - np.log(_SCALE))
        energy = mu * mu / (2 * _SCALE**2) + np.logaddexp(0, log_ratio) - log_tau
        energy += 0.5 * (dot(t, t) + dot(misses, misses))
        gradient = np.empty_like(q)
        gradient[:, 0] = mu / _SCALE**2 - weights.sum(axis=1)
        gradient[:, 1] = np.tanh(log_ratio / 2) - tau[:, 0] * dot(weights, t)
        gradient[:, 2:] = t - tau * weights
        return energy, gradient
