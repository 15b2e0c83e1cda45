"""Many chains: each is what it is alone, whichever way they are advanced."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC, ChainFailed, MultiChainHMC, _chain_state, _together
from tests.chains import Counting, Lines, Scalars, assert_same, assert_whole, failing_at, left_behind, quartic, row_wise
from tests.interrupts import interrupted
from tests.table import Array, assert_bits, works

STARTS = np.random.default_rng(12).standard_normal((5, 4))
OPTIONS: dict[str, Any] = {"stepsize": 0.5, "num_steps": 3, "seed": 17}
MASS = {"inv_mass": np.linspace(0.5, 1.5, 4)}


def many(potential: Any, device: str, **options: Any) -> MultiChainHMC:
    return MultiChainHMC(STARTS, potential, device=device, **OPTIONS, **options)


def alone(c: int, device: str, **options: Any) -> HMC:
    """Chain c by itself."""
    chain = HMC(STARTS[c], quartic, device=device, **OPTIONS, **options)
    chain._batch.streams[:] = c
    return chain


@pytest.mark.parametrize("potential", [quartic, row_wise, [quartic, row_wise] + [quartic] * 3], ids=["1", "C", "list"])
@pytest.mark.parametrize("num_parallel", [None, 1, 2, 100])
@pytest.mark.parametrize("options", [{}, MASS], ids=["", "mass"])
def test_every_chain_is_what_it_is_alone(potential: Any, num_parallel: int | None, options: Any, device: str) -> None:
    chains = many(potential, device, **options)
    for n in (4, 3):
        chains.simulate_chains(n, num_parallel=num_parallel)
    for c, chain in enumerate(chains.chains):
        expected = alone(c, device, **options)
        expected.simulate_chain(7)
        assert_same(chain, expected)
        assert_whole(chain)
    rates = [chain.acceptance_probability for chain in chains.chains]
    assert chains.avg_acceptance_probability == np.mean(rates)
    assert chains.num_chains == len(chains.chains) == 5


def test_chains_with_a_vectorized_potential_share_dispatches(device: str) -> None:
    """Two draws, and num_steps + 1 kicks, for each batch and transition; none of them depends on their number."""
    chains = many(row_wise, device)
    with works(device, 2 * 6):
        chains.simulate_chains(2)
    with works(device, 3 * 2 * 6):
        chains.simulate_chains(2, num_parallel=2)
    potential = Counting(row_wise)
    chains = many(potential, device)
    chains.simulate_chains(2)
    assert potential.count == 5 + 2 * 3


def test_a_batch_of_chains_out_of_step(device: str) -> None:
    """Chains with other settings are in other batches; step sizes may differ within one."""
    chains = many(row_wise, device)
    chains.simulate_chains(2, num_chains=[1, 3])
    chains.chains[2].stepsize = 0.25
    chains.chains[4].num_steps = 1
    chains.chains[1].inv_mass = 0.5
    chains.chains[0].load_state_dict({**chains.chains[0].state_dict(), "seed": 3})
    chains.simulate_chains(3)
    expected = [alone(c, device) for c in range(5)]
    expected[0].load_state_dict({**expected[0].state_dict(), "seed": 3})
    for c in (1, 3):
        expected[c].simulate_chain(2)
    expected[2].stepsize, expected[4].num_steps, expected[1].inv_mass = 0.25, 1, 0.5
    for found, chain in zip(chains.chains, expected, strict=True):
        chain.simulate_chain(3)
        assert_same(found, chain)


def test_the_fewest_states_go_first() -> None:
    chains = many(quartic, "numpy")

    def counts() -> list[int]:
        return [chain.num_states for chain in chains.chains]

    steps: list[tuple[Any, list[int]]] = [
        (1, [1, 0, 0, 0, 0]),
        (2, [1, 1, 1, 0, 0]),
        ([0, 4], [2, 1, 1, 0, 1]),
        (3, [2, 2, 2, 1, 1]),
        (np.int64(2), [2, 2, 2, 2, 2]),
        (9, [3, 3, 3, 3, 3]),
        ((2,), [3, 3, 4, 3, 3]),
        (np.array([4, 3]), [3, 3, 4, 4, 4]),
        ([], [3, 3, 4, 4, 4]),
        (-1, [4, 4, 5, 5, 5]),
    ]
    for num_chains, expected in steps:
        chains.simulate_chains(1, num_chains)
        assert counts() == expected


def test_a_list_of_positions_and_of_other_dimensions(device: str) -> None:
    starts: list[Array] = [np.ones(2), np.ones(3, np.float32), np.zeros(2)]
    chains = MultiChainHMC(starts, row_wise, device=device, **OPTIONS)
    chains.simulate_chains(4)
    for c, start in enumerate(starts):
        expected = HMC(start, quartic, device=device, **OPTIONS)
        expected._batch.streams[:] = c
        expected.simulate_chain(4)
        assert_same(chains.chains[c], expected)


@pytest.mark.parametrize("potential", [quartic, row_wise], ids=["1", "C"])
def test_reports(potential: Any) -> None:
    """The writer gets all chains, a single logger the first one, and a list of them one each; no draw changes."""
    writer, logger, others = Scalars(), Lines(), [Lines(), None, Lines(), None, None]
    told: list[dict[str, Any]] = [
        {"writer": writer, "writer_tag": "x/"},
        {"logger": logger, "log_interval": 2},
        {"logger": others, "log_interval": 3},
    ]
    silent = many(potential, "numpy")
    silent.simulate_chains(4)
    for options in told:
        chains = many(potential, "numpy", **options)
        chains.simulate_chains(4)
        for a, b in zip(chains.chains, silent.chains, strict=True):
            assert_same(a, b)
    for c, chain in enumerate(silent.chains):
        np.testing.assert_array_equal(writer.of(f"x/chain_{c}/hmc/potential"), -chain.sample_stats["lp"])
    assert [line.split(":")[0] for line in logger.lines] == ["HMC state 1", "HMC state 3"]
    assert [None if x is None else len(x.lines) for x in others] == [2, None, 2, None, None]
    assert f"{silent.chains[2].sample_stats['energy'][0]:f}" in others[2].lines[0]  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [ZeroDivisionError("no data"), KeyboardInterrupt()], ids=["raises", "Ctrl-C"])
def test_a_chain_that_fails(error: BaseException, device: str) -> None:
    """Chains before it are done, it keeps what is over, and all can go on as if nothing had been."""
    potentials = [quartic, quartic, failing_at(1 + 2 * 3 + 1, error), quartic, quartic]
    chains = many(potentials, device)
    kind = ChainFailed if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(kind) as caught:
        chains.simulate_chains(4)
    if isinstance(caught.value, ChainFailed):
        assert str(caught.value) == "chain 2 failed in transition 2: ZeroDivisionError: no data"
        assert (caught.value.chain, caught.value.step) == (2, 2)
        assert caught.value.__cause__ is error
    assert [chain.num_states for chain in chains.chains] == [4, 4, 2, 0, 0]
    chains.simulate_chains(2, [2])
    chains.simulate_chains(4, 2)
    for c, chain in enumerate(chains.chains):
        expected = alone(c, device)
        expected.simulate_chain(4)
        assert_same(chain, expected)


@pytest.mark.parametrize("error", [ZeroDivisionError("no data"), KeyboardInterrupt()], ids=["raises", "Ctrl-C"])
def test_a_batch_that_fails(error: BaseException, device: str) -> None:
    def act(count: int) -> Any:
        if count == 5 + 2 * 3 + 1:
            raise error

    chains = many(Counting(row_wise, act), device)
    kind = ChainFailed if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(
        kind, match="the batch of chains 0 to 4 failed in transition 2" if kind is ChainFailed else None
    ):
        chains.simulate_chains(4)
    assert [chain.num_states for chain in chains.chains] == [2] * 5
    chains.simulate_chains(2)
    for c, chain in enumerate(chains.chains):
        expected = alone(c, device)
        expected.simulate_chain(4)
        assert_same(chain, expected)


def test_the_chain_of_a_batch_that_fails_is_named(device: str) -> None:
    """A potential that fails where chain 3 is, whoever is with it."""

    def picky(q: Array) -> Any:
        if ready and (np.abs(q - marked) < 0.6).all(axis=1).any():
            raise ValueError("not here")
        return row_wise(q)

    picky.vectorized = True  # type: ignore[attr-defined]
    ready, marked = False, STARTS[3]
    chains = MultiChainHMC(STARTS, picky, device=device, stepsize=0.01, num_steps=1)
    ready = True
    for num_chains in (-1, [4, 3]):
        with pytest.raises(ChainFailed, match=r"^chain 3 failed in transition 0: ValueError: not here") as caught:
            chains.simulate_chains(1, num_chains)
        assert caught.value.chain == 3


def test_a_failure_at_an_initial_position_names_the_chain() -> None:
    potentials: list[Any] = [quartic] * 5
    potentials[3] = failing_at(0, KeyError("x"))
    with pytest.raises(ChainFailed, match=r"^chain 3 failed at the initial position: KeyError: 'x'") as caught:
        many(potentials, "numpy")
    assert caught.value.chain == 3
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ValueError, match=r"^chain 1: the potential energy at initial_position must be finite, got inf"):
        MultiChainHMC([np.zeros(2), np.ones(2)], lambda q: (np.inf if q[0] else 0.0, q), device="numpy")


@pytest.mark.parametrize("potential", [quartic, row_wise], ids=["1", "C"])
def test_resumed_chains_go_on_bit_for_bit(potential: Any, device: str) -> None:
    chains = many(potential, device, **MASS)
    chains.simulate_chains(3)
    chains.simulate_chains(1, [2])
    saved = chains.state_dict()
    kept = copy.deepcopy(saved)
    others = MultiChainHMC(np.zeros((5, 4)), potential, device=device)
    others.load_state_dict(saved)
    for c in (chains, others):
        c.simulate_chains(3)
    np.testing.assert_equal(saved, kept)
    for a, b in zip(chains.chains, others.chains, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: None, TypeError, "state_dict must be a dict with the list 'chains'"),
        (lambda s: {"chains": s["chains"][:2]}, ValueError, "state_dict has 2 chains, expected 5"),
        (lambda s: {"chains": [*s["chains"][:4], {}]}, ValueError, "state_dict has no 'sampler'"),
    ],
)
def test_bad_states_change_nothing(change: Any, error: type[Exception], message: str) -> None:
    chains, advanced = many(quartic, "numpy"), many(quartic, "numpy")
    advanced.simulate_chains(2)
    before = [left_behind(chain) for chain in chains.chains]
    with pytest.raises(error, match=message):
        chains.load_state_dict(change(advanced.state_dict()))
    np.testing.assert_equal([left_behind(chain) for chain in chains.chains], before)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([], quartic), {}, ValueError, "initial_positions is empty"),
        ((np.empty((0, 3)), quartic), {}, ValueError, "initial_positions is empty"),
        ((3, quartic), {}, TypeError, "initial_positions must be a sequence of arrays, one per chain, got int"),
        ((np.ones(3), quartic), {}, ValueError, r"initial_positions\[0\] must have shape \(D,\), got \(\)"),
        (
            ([np.ones(2), np.ones((2, 2))], quartic),
            {},
            ValueError,
            r"initial_positions\[1\] must have shape .* \(2, 2\)",
        ),
        ((STARTS, [quartic] * 4), {}, ValueError, "pot_energy_func has 4 entries for 5 chains"),
        ((STARTS, quartic, "gibbs"), {}, ValueError, "chain_type must be 'hmc' or 'nuts', got 'gibbs'"),
        ((STARTS, quartic), {"logger": [None]}, ValueError, "logger has 1 entries for 5 chains"),
        ((STARTS, quartic), {"writer_tag": 3}, TypeError, "writer_tag must be a string, got 3"),
        ((STARTS, quartic), {"writer": "runs"}, TypeError, r"writer must have add_scalar"),
        ((STARTS, quartic), {"stepsize": 0}, ValueError, "chain 0: stepsize must be above 0, got 0"),
        ((STARTS, quartic), {"steps": 2}, TypeError, "unexpected keyword argument 'steps'"),
        ((STARTS, quartic), {"device": "cuda"}, RuntimeError, "device='cuda' is not known"),
    ],
)
def test_bad_input(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MultiChainHMC(*arguments, **{"device": "numpy", **options})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, "num_states must be 0 or more, got -1"),
        ((1.5,), TypeError, r"num_states must be a whole number, got 1\.5"),
        ((1, 0), ValueError, "num_chains must be 1 or more, got 0"),
        ((1, -2), ValueError, "num_chains must be 1 or more, got -2"),
        ((1, 1.0), TypeError, r"num_chains must be a whole number, got 1\.0"),
        ((1, "all"), TypeError, "num_chains must be a whole number, got 'all'"),
        ((1, [0, 5]), ValueError, "num_chains must have indices below 5, got 5"),
        ((1, [-1]), ValueError, "num_chains must be 0 or more, got -1"),
        ((1, [2, 2]), ValueError, r"num_chains must have every index once, got \[2, 2\]"),
        ((1, -1, 0), ValueError, "num_parallel must be 1 or more, got 0"),
    ],
)
def test_bad_requests_advance_nothing(arguments: Any, error: type[Exception], message: str) -> None:
    chains = many(row_wise, "numpy")
    with pytest.raises(error, match=message):
        chains.simulate_chains(*arguments)
    assert [chain.num_states for chain in chains.chains] == [0] * 5


def test_an_interrupt_while_draws_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chain gets all of what the batch has done."""
    real, calls = _together._share_out, []

    def interrupted(chains: Any, batch: Any, record: Any, places: Any) -> None:
        calls.append(None)
        if len(calls) == 1:
            real(chains[:2], batch, record, places[:2])
            raise KeyboardInterrupt
        real(chains, batch, record, places)

    monkeypatch.setattr(_together, "_share_out", interrupted)
    chains = many(row_wise, "numpy")
    with pytest.raises(KeyboardInterrupt):
        chains.simulate_chains(3)
    for c, chain in enumerate(chains.chains):
        expected = alone(c, "numpy")
        expected.simulate_chain(3)
        assert_same(chain, expected)


def test_more_draws_than_are_shared_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_together, "SHARED", 5 * (4 * 8 + _together.STATS_BYTES) * 3)
    chains = many(row_wise, "numpy")
    chains.simulate_chains(10)
    for c, chain in enumerate(chains.chains):
        expected = alone(c, "numpy")
        expected.simulate_chain(10)
        assert_bits(np.array(chain.position_trajectory), np.array(expected.position_trajectory))


def test_an_interrupt_anywhere_while_a_batch_is_advanced() -> None:
    """Nothing is lost of what is over, and what the chains have belongs together."""
    expected = [alone(c, "numpy") for c in range(5)]
    for chain in expected:
        chain.simulate_chain(4)
    places, count = ("advance", "_share_out", "_of", "_rows", "_gathered"), 0
    for line in range(1, 300):
        chains = many(row_wise, "numpy")
        done = not interrupted(partial(chains.simulate_chains, 2), line, places, _together)
        assert len({chain.num_states for chain in chains.chains}) == 1
        chains.simulate_chains(4 - chains.chains[0].num_states)
        for chain, wanted in zip(chains.chains, expected, strict=True):
            assert_same(chain, wanted)
        if done:
            break
        count += 1
    assert done
    assert count > 30


def test_states_are_taken_by_all_chains_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (many(row_wise, "numpy") for _ in range(2))
    first.simulate_chains(3)
    real, calls = _chain_state.Checked.take, []

    def interrupted(self: Any) -> None:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(_chain_state.Checked, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        second.load_state_dict(first.state_dict())
    for chain, wanted in zip(second.chains, first.chains, strict=True):
        assert_same(chain, wanted)


def test_a_chain_is_not_advanced_while_all_are() -> None:
    chains: Any = None

    def curious(q: Any) -> Any:
        if chains is not None:
            chains.chains[0].simulate_chain(1)
        return row_wise(q)

    curious.vectorized = True  # type: ignore[attr-defined]  # how potentials say it
    chains = many(curious, "numpy")
    with pytest.raises(ChainFailed, match="in the middle of a step"):
        chains.simulate_chains(1)


def test_a_chain_and_all_of_them_from_two_threads() -> None:
    chains = many(row_wise, "numpy")
    threads = [
        threading.Thread(target=work)
        for work in (
            lambda: chains.simulate_chains(60),
            lambda: [chains.chains[0].simulate_chain(1) for _ in range(60)],
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for c, chain in enumerate(chains.chains):
        expected = alone(c, "numpy")
        expected.simulate_chain(60 + 60 * (c == 0))
        assert_same(chain, expected)


def test_runners_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have memory, and know how fast they are."""
    made: list[Any] = []
    real = HMC._runner_of
    chains = many(row_wise, "numpy")
    monkeypatch.setattr(HMC, "_runner_of", lambda self, method: made.append(method) or real(self, method))
    for _ in range(3):
        chains.simulate_chains(2, num_parallel=2)
    assert len(made) == 1
    chains.chains[0].num_steps += 1
    made.clear()
    for _ in range(3):
        chains.simulate_chains(2, num_parallel=2)
    assert len(made) == 1
