"""Samplers: Langevin dynamics and its relatives, and the local learning coefficient."""

from grilly_optim.sampling._failures import ChainFailed, SweepFailed
from grilly_optim.sampling._sampler import Sampler
from grilly_optim.sampling.diagnostics import (
    TraceStatistics,
    ess,
    online_wbic,
    r_hat,
    to_arviz,
    trace_statistics,
    wbic,
)
from grilly_optim.sampling.estimators import LLCEstimator, OnlineLLCEstimator, default_nbeta
from grilly_optim.sampling.llc import estimate_learning_coeff, estimate_learning_coeff_with_summary
from grilly_optim.sampling.mala import MalaAcceptance, mala_acceptance
from grilly_optim.sampling.metrics import Metrics
from grilly_optim.sampling.plots import plot_sweep, plot_trace
from grilly_optim.sampling.preconditioners import (
    CompositePreconditioner,
    IdentityPreconditioner,
    MaskPreconditioner,
    NHTPreconditioning,
    Preconditioner,
    PreconditionerCoefs,
    RMSpropPreconditioner,
)
from grilly_optim.sampling.priors import CompositePrior, GaussianPrior, Prior, UniformPrior
from grilly_optim.sampling.sghmc import BAOA, BAOAB, SGHMC
from grilly_optim.sampling.sgld import SGLD
from grilly_optim.sampling.sgmcmc import SGMCMC
from grilly_optim.sampling.sgnht import SGNHT
from grilly_optim.sampling.sketch import SKETCH_QUANTITIES, CountSketch, SketchBuffer
from grilly_optim.sampling.sweep import EpsilonBetaSweep, epsilon_beta_sweep

__all__ = [
    "BAOA",
    "BAOAB",
    "SGHMC",
    "SGLD",
    "SGMCMC",
    "SGNHT",
    "SKETCH_QUANTITIES",
    "ChainFailed",
    "CompositePreconditioner",
    "CompositePrior",
    "CountSketch",
    "EpsilonBetaSweep",
    "GaussianPrior",
    "IdentityPreconditioner",
    "LLCEstimator",
    "MalaAcceptance",
    "MaskPreconditioner",
    "Metrics",
    "NHTPreconditioning",
    "OnlineLLCEstimator",
    "Preconditioner",
    "PreconditionerCoefs",
    "Prior",
    "RMSpropPreconditioner",
    "Sampler",
    "SketchBuffer",
    "SweepFailed",
    "TraceStatistics",
    "UniformPrior",
    "default_nbeta",
    "epsilon_beta_sweep",
    "ess",
    "estimate_learning_coeff",
    "estimate_learning_coeff_with_summary",
    "mala_acceptance",
    "online_wbic",
    "plot_sweep",
    "plot_trace",
    "r_hat",
    "to_arviz",
    "trace_statistics",
    "wbic",
]
