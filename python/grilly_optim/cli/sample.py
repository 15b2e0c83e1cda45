"""The sample job: Bayesian logistic regression, from the data to draws that were checked."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import Choice, select
from grilly_optim._extras import load
from grilly_optim.cli import INTERRUPTED
from grilly_optim.sampling import SamplingWarning, Trace, TraceSummary, sample
from grilly_optim.sampling._arviz import arviz
from grilly_optim.sampling.potentials import LogisticRegression

Array = NDArray[Any]
Doubles = NDArray[np.float64]

PRIOR_STD = 1.0
CHAINS, WARMUP, DRAWS = 64, 300, 250
# llvmpipe would take minutes for those.
SOFTWARE_CHAINS, SOFTWARE_DRAWS = 4, 500
SEED = 0
SHOWN = 6  # coefficients in a picture
PICTURES: dict[Literal["trace", "rank", "energy"], str] = {"trace": "traces", "rank": "ranks", "energy": "energies"}


@dataclass(frozen=True)
class Data:
    """Tumours: a column of ones and 30 measurements, standardized; 1 is malignant. A quarter is held out."""

    names: tuple[str, ...]
    train: Doubles
    train_labels: Array
    test: Doubles
    test_labels: Array


def load_data() -> Data:
    """Scikit-learn's breast-cancer data. Held-out rows are standardized with the others' mean and deviation."""
    found = load("sklearn.datasets", extra="demo").load_breast_cancer()
    malignant = found.target == list(found.target_names).index("malignant")
    train, test, train_labels, test_labels = load("sklearn.model_selection", extra="demo").train_test_split(
        found.data, malignant.astype(np.int64), test_size=0.25, stratify=malignant, random_state=SEED
    )
    mean, std = train.mean(axis=0), train.std(axis=0)

    def features(measured: Doubles) -> Doubles:
        return np.column_stack([np.ones(len(measured)), (measured - mean) / std])

    names = ("intercept", *map(str, found.feature_names))
    return Data(names, features(train), train_labels, features(test), test_labels)


def draw(data: Data, chains: int, draws: int, choice: Choice, progress: bool) -> Trace:
    """The posterior's draws."""
    dim = len(data.names)
    # Far apart: chains that agree then do so because they found the same.
    start = np.random.default_rng(SEED).uniform(-2, 2, (chains, dim))
    with warnings.catch_warnings():
        # The report says it.
        warnings.simplefilter("ignore", SamplingWarning)
        trace = sample(
            LogisticRegression(data.train, data.train_labels, PRIOR_STD),
            draws,
            num_warmup=WARMUP,
            num_chains=chains,
            initial_position=start if choice.info.float64 else start.astype(np.float32),
            seed=SEED,
            device=choice.info.device,
            progress=progress,
        )
    return dataclasses.replace(trace, names=data.names)


def predictive(features: Doubles, coefficients: Doubles) -> Doubles:
    """P(malignant) of each row, the mean over all coefficients (draws, D)."""
    # tanh overflows nowhere.
    return np.asarray((1 + np.tanh(features @ coefficients.T / 2)).mean(axis=1) / 2)


def maximum(data: Data) -> Doubles:
    """The posterior's maximum, (D,)."""
    regression = load("sklearn.linear_model", extra="demo").LogisticRegression(
        C=PRIOR_STD**2, fit_intercept=False, tol=1e-8, max_iter=10_000
    )
    return np.asarray(regression.fit(data.train, data.train_labels).coef_[0])


def scores(data: Data, coefficients: Doubles) -> str:
    """How well held-out tumours are told apart."""
    p = predictive(data.test, coefficients)
    right = float(np.mean((p > 0.5) == data.test_labels))
    loss = -np.log(np.where(data.test_labels == 1, p, 1 - p)).mean()
    return f"{right:>8.4f}  {loss:>8.4f}"


def report(trace: Trace, summary: TraceSummary, data: Data) -> str:
    """The table, what it cost, and what the posterior is good for."""
    seconds = trace.seconds or np.nan
    diverged = int(trace.sample_stats["diverging"].sum())
    least = np.minimum(summary.ess_bulk, summary.ess_tail)
    draws = trace.draws.reshape(-1, trace.dim).astype(np.float64)
    worst = summary.worst(1)[0]
    width = len("maximum a posteriori")
    return "\n".join(
        [
            summary.table(max_rows=None),
            "",
            f"{diverged} of {len(draws)} transitions diverged; "
            f"{trace.sample_stats['n_steps'].mean():.0f} gradients for each on average",
            f"{seconds:.1f} s with the warm-up: {least.min() / seconds:.0f} effective draws per second of {worst}, and "
            "more of all others",
            "",
            f"{f'{len(data.test)} held out':<{width}}  accuracy  log loss",
            f"{'posterior predictive':<{width}}  {scores(data, draws)}",
            f"{'maximum a posteriori':<{width}}  {scores(data, maximum(data)[None])}",
        ]
    )


def run(options: argparse.Namespace) -> int:
    """Sample, print the table, and save the pictures."""
    if options.epochs is not None:
        print("grilly-optim: --epochs is for jobs that train; sample does not", file=sys.stderr)
        return 2
    arviz()  # looked for at once, as the others are
    data = load_data()
    dim = len(data.names)
    choice = select(options.device, CHAINS * dim)
    software = choice.info.kind == "vulkan" and choice.info.type == "cpu"
    chains, draws = (SOFTWARE_CHAINS, SOFTWARE_DRAWS) if software else (CHAINS, DRAWS)
    options.output.mkdir(parents=True, exist_ok=True)
    talks = not options.quiet
    if talks:
        print(
            f"{len(data.train)} tumours, malignant or benign, with {dim - 1} measurements of each; "
            f"{len(data.test)} held out\n"
            f"Bayesian logistic regression: {dim} coefficients, prior N(0, {PRIOR_STD:g}) for each\n"
            f"NUTS, {chains} chains of {WARMUP} + {draws} transitions from random places, on {choice.info.device}",
            flush=True,
        )
        if software:
            print(f"software Vulkan is slow: {chains} chains here, instead of {CHAINS}", flush=True)
    trace = draw(data, chains, draws, choice, progress=talks and sys.stdout.isatty() and sys.stderr.isatty())
    summary = trace.summary()
    if talks:
        print()
    print(report(trace, summary, data))
    print(f"device {choice.info.device}, {choice.info.name}: {choice.why}")
    if trace.interrupted:
        return INTERRUPTED

    print()
    shown = summary.worst(SHOWN)
    for kind, what in PICTURES.items():
        path = options.output / f"sample-{kind}.png"
        trace.plot(kind, None if kind == "energy" else shown).savefig(path, dpi=120)
        print(f"{what}: {path}")
    return 0
