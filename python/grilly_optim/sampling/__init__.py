"""Samplers: Langevin dynamics and its relatives, and the local learning coefficient."""

from grilly_optim.sampling import potentials
from grilly_optim.sampling._failures import ChainFailed, SamplingWarning, SweepFailed
from grilly_optim.sampling._sampler import Sampler
from grilly_optim.sampling._trace_summary import TraceSummary
from grilly_optim.sampling.adaptation import DualAveraging
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
from grilly_optim.sampling.hmc import HMC
from grilly_optim.sampling.leapfrog import leapfrog
from grilly_optim.sampling.llc import estimate_learning_coeff, estimate_learning_coeff_with_summary
from grilly_optim.sampling.mala import MalaAcceptance, mala_acceptance
from grilly_optim.sampling.mcmc import MCMC
from grilly_optim.sampling.metrics import Metrics
from grilly_optim.sampling.multi_chain import MultiChainHMC
from grilly_optim.sampling.network_energy import log_prob_standard_normal_prior, nn_pot_energy
from grilly_optim.sampling.nuts import NUTS
from grilly_optim.sampling.plots import plot_sweep, plot_trace
from grilly_optim.sampling.potentials import check_grad
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
from grilly_optim.sampling.sample import sample
from grilly_optim.sampling.sghmc import BAOA, BAOAB, SGHMC
from grilly_optim.sampling.sgld import SGLD
from grilly_optim.sampling.sgmcmc import SGMCMC
from grilly_optim.sampling.sgnht import SGNHT
from grilly_optim.sampling.sketch import SKETCH_QUANTITIES, CountSketch, SketchBuffer
from grilly_optim.sampling.sweep import EpsilonBetaSweep, epsilon_beta_sweep
from grilly_optim.sampling.trace import Trace

__all__ = [
    "BAOA",
    "BAOAB",
    "HMC",
    "MCMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SGMCMC",
    "SGNHT",
    "SKETCH_QUANTITIES",
    "ChainFailed",
    "CompositePreconditioner",
    "CompositePrior",
    "CountSketch",
    "DualAveraging",
    "EpsilonBetaSweep",
    "GaussianPrior",
    "IdentityPreconditioner",
    "LLCEstimator",
    "MalaAcceptance",
    "MaskPreconditioner",
    "Metrics",
    "MultiChainHMC",
    "NHTPreconditioning",
    "OnlineLLCEstimator",
    "Preconditioner",
    "PreconditionerCoefs",
    "Prior",
    "RMSpropPreconditioner",
    "Sampler",
    "SamplingWarning",
    "SketchBuffer",
    "SweepFailed",
    "Trace",
    "TraceStatistics",
    "TraceSummary",
    "UniformPrior",
    "check_grad",
    "default_nbeta",
    "epsilon_beta_sweep",
    "ess",
    "estimate_learning_coeff",
    "estimate_learning_coeff_with_summary",
    "leapfrog",
    "log_prob_standard_normal_prior",
    "mala_acceptance",
    "nn_pot_energy",
    "online_wbic",
    "plot_sweep",
    "plot_trace",
    "potentials",
    "r_hat",
    "sample",
    "to_arviz",
    "trace_statistics",
    "wbic",
]
