"""Side by side with hypnettorch's many chains, and its reports to loggers and writers."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import pytest
from hypnettorch.utils import hmc as theirs

from grilly_optim import random
from grilly_optim.sampling import HMC, MCMC, NUTS, MultiChainHMC
from tests.parity.hamiltonian import Case, Writer, given, recorded, tensor
from tests.parity.hamiltonian_potentials import POTENTIALS, momenta

pytestmark = pytest.mark.hypnettorch

CHAINS, SEED, MOST_UNIFORMS = 4, 11, 400
BANANA = POTENTIALS["banana"]
OPTIONS: dict[str, dict[str, Any]] = {
    "hmc": {"stepsize": 0.15, "num_steps": 6, "inv_mass": np.array([0.7, 1.2])},
    "nuts": {"stepsize": 0.2, "inv_mass": np.array([[0.7, 0.3], [0.3, 1.2]])},
}
kinds = pytest.mark.parametrize("kind", OPTIONS)


def starts() -> list[Any]:
    return [BANANA.start(chain) for chain in range(CHAINS)]


def ours(kind: str, potential: Any = BANANA, **more: Any) -> MultiChainHMC:
    variant = {"variant": "slice"} if kind == "nuts" else {}
    return MultiChainHMC(starts(), potential, kind, **OPTIONS[kind], **variant, seed=SEED, **more)


def original(kind: str, **more: Any) -> Any:
    options = {name: tensor(value) if name == "inv_mass" else value for name, value in OPTIONS[kind].items()}
    return theirs.MultiChainHMC([tensor(q) for q in starts()], BANANA.energy, kind, **options, **more)


def draws(kind: str, chain: int, first: int, last: int) -> tuple[Any, Any]:
    """Those of a chain of ours for transitions counted from 1: momenta, and uniforms, as many as each may take."""
    steps = range(first, last + 1)
    normal = [random.normal(2, SEED, chain, t, purpose="momentum", dtype=np.float64) for t in steps]
    count = 1 if kind == "hmc" else MOST_UNIFORMS
    uniform = [random.uniform(count, SEED, chain, t, purpose="accept", dtype=np.float64) for t in steps]
    return momenta(OPTIONS[kind]["inv_mass"], np.array(normal)), np.array(uniform)


def simulate(kind: str, chain: Any, number: int, transitions: int) -> None:
    """Advance a chain of the original's with our draws."""
    first = chain.num_states + 1
    normal, uniform = draws(kind, number, first, first + transitions - 1)
    for p, u in zip(normal, uniform, strict=True):
        with given(chain, uniform=u, normal=p[None]):
            chain.simulate_chain(1)


def same_chains(mine: MultiChainHMC, other: Any) -> None:
    assert mine.num_chains == other.num_chains == len(mine.chains) == CHAINS
    assert [c.num_states for c in mine.chains] == [c.num_states for c in other.chains]
    assert mine.avg_acceptance_probability == other.avg_acceptance_probability
    for a, b in zip(mine.chains, other.chains, strict=True):
        assert a.acceptance_probability == b.acceptance_probability
        assert len(a.position_trajectory) == len(b.position_trajectory)
        theirs_ = [q.detach().numpy() for q in b.position_trajectory]
        np.testing.assert_allclose(a.position_trajectory, theirs_, rtol=1e-8, atol=1e-8)


class Vectorized:
    """The potential for many chains at once."""

    vectorized = True

    def value_and_grad(self, q: Any) -> Any:
        values, gradients = zip(*map(BANANA.value_and_grad, q), strict=True)
        return np.array(values), np.array(gradients)


@kinds
@pytest.mark.parametrize("potential", [BANANA, Vectorized()], ids=["one by one", "vectorized"])
@pytest.mark.parametrize("num_parallel", [None, 1, 3])
def test_chains_are_the_original_s_on_their_own_draws(kind: str, potential: Any, num_parallel: int | None) -> None:
    mine, other = ours(kind, potential), original(kind)
    assert [type(c) for c in mine.chains] == [HMC if kind == "hmc" else NUTS] * CHAINS
    same_chains(mine, other)
    # All; some, by number; and as many as are behind: those three.
    for chosen, numbers in ((-1, range(CHAINS)), ([3, 1], (3, 1)), ([0], (0,)), (2, (2, 0))):
        mine.simulate_chains(4, num_chains=chosen, num_parallel=num_parallel)
        for number in numbers:
            simulate(kind, other.chains[number], number, 4)
        same_chains(mine, other)


@pytest.mark.parametrize("make", [HMC, MCMC])
def test_chains_side_by_side_in_one_sampler_with_their_own_step_sizes(make: Any, device: str) -> None:
    rng = np.random.default_rng(5)
    normal, uniform = rng.standard_normal((12, CHAINS, 2)), rng.random((12, CHAINS))
    sizes = np.array([0.1, 0.15, 0.2, 0.3]) * (1 if make is HMC else 4)
    name, more = ("stepsize", {"num_steps": 4}) if make is HMC else ("proposal_std", {})
    sampler = make(np.array(starts()), Vectorized(), **{name: sizes}, **more, device=device)
    sampler.simulate_chain(12, **{"momentum" if make is HMC else "normal": normal}, uniform=uniform)
    trajectory = np.array(sampler.position_trajectory)
    for chain, start in enumerate(starts()):
        other = getattr(theirs, make.__name__)(tensor(start), BANANA.energy, **{name: sizes[chain]}, **more)
        run = recorded(other, 12, normal[:, chain], uniform[:, chain])
        np.testing.assert_allclose(trajectory[:, chain], run.positions, rtol=1e-9, atol=1e-9)
        assert sampler.acceptance_probability[chain] == run.acceptance


@kinds
def test_a_potential_for_each_chain(kind: str) -> None:
    shifts = np.arange(CHAINS) * 0.3
    options = OPTIONS[kind] | ({"variant": "slice"} if kind == "nuts" else {})
    mine = MultiChainHMC(
        starts(), [lambda q, s=s: BANANA.value_and_grad(q - s) for s in shifts], kind, **options, seed=SEED
    )
    options = OPTIONS[kind] | {"inv_mass": tensor(OPTIONS[kind]["inv_mass"])}
    energies = [lambda q, s=s: BANANA.energy(q - s) for s in shifts]
    other = theirs.MultiChainHMC([tensor(q) for q in starts()], energies, kind, **options)
    mine.simulate_chains(5)
    for number, chain in enumerate(other.chains):
        simulate(kind, chain, number, 5)
    same_chains(mine, other)


@kinds
def test_chains_share_a_writer_by_tags(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs, "SummaryWriter", Writer)  # the only class it takes
    writers = Writer(), Writer()
    mine = ours(kind, writer=writers[0], writer_tag="run/")
    other = original(kind, writer=writers[1], writer_tag="run/")
    mine.simulate_chains(3)
    for number, chain in enumerate(other.chains):
        simulate(kind, chain, number, 3)
    assert {tag.split("/")[1] for tag, _, _ in writers[0].written} == {f"chain_{i}" for i in range(CHAINS)}
    # Which chain writes first is of no concern.
    a, b = (sorted(writer.written, key=lambda entry: (entry[2], entry[0])) for writer in writers)
    assert [(tag, step) for tag, _, step in a] == [(tag, step) for tag, _, step in b]
    np.testing.assert_allclose([v for _, v, _ in a], [v for _, v, _ in b], rtol=1e-8, atol=1e-8)


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.levels: set[int] = set()
        self.logger = logging.Logger(name, logging.DEBUG)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.levels.add(record.levelno)

    @property
    def numbers(self) -> list[list[float]]:
        """Those in each line."""
        return [[float(n) for n in re.findall(r"-?\d+\.?\d*(?:e[+-]?\d+)?", line)] for line in self.lines]


@pytest.mark.parametrize("make", [HMC, NUTS, MCMC])
def test_loggers_are_told_the_same_numbers(make: Any) -> None:
    case = Case("banana", "scalar", "float64")
    loggers = Lines("mine"), Lines("original")
    reports: dict[str, Any] = {"log_interval": 4}
    chain = case.original(getattr(theirs, make.__name__), logger=loggers[1].logger, **reports)
    normal = case.normal(10) if make is MCMC else case.momentum(10)
    run = recorded(chain, 10, normal, case.uniform(4000 if make is NUTS else 10))
    if make is not MCMC:
        reports["inv_mass"] = case.inv_mass
    if make is NUTS:
        reports |= {"variant": "slice", "max_tree_depth": 12}
    sampler = make(case.start, BANANA.value_and_grad, logger=loggers[0].logger, **reports)
    sampler.simulate_chain(10, **{"normal" if make is MCMC else "momentum": normal}, uniform=run.uniforms(0, 10))
    assert [numbers[0] for numbers in loggers[0].numbers] == [1, 5, 9]
    assert loggers[0].levels == loggers[1].levels == {logging.DEBUG}
    for a, b in zip(loggers[0].numbers, loggers[1].numbers, strict=True):
        assert a[0] == b[0]
        assert a[1] == pytest.approx(b[1], abs=2e-6)
        assert a[2] == b[2]


def test_a_logger_is_the_first_chain_s() -> None:
    loggers = Lines("mine"), Lines("original")
    mine, other = ours("hmc", logger=loggers[0].logger, log_interval=1), original("hmc", logger=loggers[1].logger)
    mine.simulate_chains(2)
    other._chains[0]._log_interval = 1
    for number, chain in enumerate(other.chains):
        simulate("hmc", chain, number, 2)
    assert [numbers[:1] for numbers in loggers[0].numbers] == [numbers[:1] for numbers in loggers[1].numbers]
    assert len(loggers[0].lines) == 2


def test_each_chain_may_have_a_logger() -> None:
    loggers = [Lines(f"chain {i}") for i in range(CHAINS)]
    same = [Lines(f"original {i}") for i in range(CHAINS)]
    mine = ours("hmc", logger=[one.logger for one in loggers], log_interval=2)
    other = original("hmc", logger=[one.logger for one in same], log_interval=2)
    mine.simulate_chains(3)
    for number, chain in enumerate(other.chains):
        simulate("hmc", chain, number, 3)
    for a, b in zip(loggers, same, strict=True):
        np.testing.assert_allclose(a.numbers, b.numbers, atol=2e-6)
