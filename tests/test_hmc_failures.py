"""HMC: a potential that fails, an interrupt, and what is left then."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC, ChainFailed, _host, _host_hmc, _record
from tests.chains import (
    Counting,
    assert_same,
    assert_whole,
    failing_at,
    quartic,
    row_wise,
)
from tests.interrupts import interrupted
from tests.table import Array

FAILURES: dict[str, tuple[Any, str]] = {
    "raises": (ZeroDivisionError("no data"), "ZeroDivisionError: no data"),
    "U alone": (1.0, r"TypeError: the potential must return a tuple \(U, gradient\), got float"),
    "several U": ((np.ones(2), np.ones(3)), r"ValueError: U must be a single number, got shape \(2,\)"),
    "a complex U": ((1j, np.ones(3)), "TypeError: the potential must return a real U, got complex"),
    "no gradient": ((1.0, None), "TypeError: the gradient must be real, got NoneType"),
    "a short gradient": ((1.0, np.ones(2)), r"ValueError: the gradient must have the shape \(3,\) of the position"),
}


@pytest.mark.parametrize(("answer", "message"), FAILURES.values(), ids=list(FAILURES))
def test_a_potential_that_fails(answer: Any, message: str, device: str) -> None:
    """Chain and transition are named, what is over is kept, and the chain can go on as if nothing had been."""
    chain = HMC(np.ones(3), failing_at(1 + 4 * 3 + 1, answer), 0.4, 3, device=device)
    with pytest.raises(ChainFailed, match=rf"^chain 0 failed in transition 4: {message}") as caught:
        chain.simulate_chain(10)
    assert (caught.value.chain, caught.value.step) == (0, 4)
    assert type(caught.value.__cause__).__name__ in message
    assert chain.num_states == 4
    assert_whole(chain)
    chain.simulate_chain(6)
    expected = HMC(np.ones(3), quartic, 0.4, 3, device=device)
    expected.simulate_chain(10)
    assert_same(chain, expected)


def test_a_chain_of_several_that_fails(device: str) -> None:
    def far(q: Array) -> tuple[Array, Array]:
        if (q > 50).any():
            raise ValueError("too far")
        return row_wise(q)

    far.vectorized = True  # type: ignore[attr-defined]
    starts = np.zeros((3, 2))
    momentum = np.zeros((1, 3, 2))
    momentum[0, 1] = 1e4
    chain = HMC(starts, far, 0.1, 2, device=device)
    with pytest.raises(ChainFailed, match=r"^chain 1 failed in transition 0: ValueError: too far") as caught:
        chain.simulate_chain(1, momentum=momentum)
    assert (caught.value.chain, caught.value.step) == (1, 0)


def test_a_vectorized_potential_of_one_chain_that_fails_once(device: str) -> None:
    """It does not fail again where one looks for the chain."""

    def act(count: int) -> None:
        if count == 3:
            raise OSError("no data")

    chain = HMC(np.ones((1, 3)), Counting(row_wise, act), device=device)
    with pytest.raises(ChainFailed, match=r"^chain 0 failed in transition 2: OSError: no data"):
        chain.simulate_chain(10)


def test_a_failure_at_the_initial_position() -> None:
    for potential, message in ((failing_at(0, KeyError("x")), "KeyError: 'x'"), (lambda q: 1.0, "TypeError: the pot")):
        with pytest.raises(ChainFailed, match=f"^chain 0 failed at the initial position: {message}"):
            HMC(np.ones(3), potential, device="numpy")

    def together(q: Array) -> Any:
        if len(q) > 1:
            raise KeyError("x")
        return row_wise(q)

    together.vectorized = True  # type: ignore[attr-defined]
    with pytest.raises(ChainFailed, match=r"^the batch of chains failed at the initial position: KeyError: 'x'"):
        HMC(np.ones((2, 3)), together, device="numpy")


def test_an_interrupt_keeps_what_is_over(device: str) -> None:
    chain = HMC(np.ones(3), failing_at(1 + 4 * 3 + 1, KeyboardInterrupt()), 0.4, 3, device=device)
    with pytest.raises(KeyboardInterrupt):
        chain.simulate_chain(10)
    assert chain.num_states == 4
    chain.simulate_chain(6)
    expected = HMC(np.ones(3), quartic, 0.4, 3, device=device)
    expected.simulate_chain(10)
    assert_same(chain, expected)


@pytest.mark.cases("cpu")
def test_an_interrupt_anywhere_leaves_whole_transitions(device: str) -> None:
    """Ctrl-C in front of any line of what runs and writes down transitions, and then on as if nothing had been."""
    expected = HMC(np.ones(2), quartic, 0.4, 2, device=device)
    expected.simulate_chain(6)
    places = ("run", "write_whole", "_write", "add", "reserve", "_transition", "_begin")
    modules = (_host, _host_hmc, _record)
    count = 0
    for line in range(1, 500):
        chain = HMC(np.ones(2), quartic, 0.4, 2, device=device)
        done = not interrupted(partial(chain.simulate_chain, 3), line, places, *modules)
        assert_whole(chain)
        chain.simulate_chain(6 - chain.num_states)
        assert_same(chain, expected)
        if done:
            break
        count += 1
    assert done
    assert count > 100


def test_a_chain_is_not_entered_twice() -> None:
    """A potential that calls its own sampler, say."""
    chain: Any = None

    def curious(q: Array) -> tuple[float, Array]:
        if chain is not None:
            chain.simulate_chain(1)
        return quartic(q)

    chain = HMC(np.ones(2), curious, device="numpy")
    with pytest.raises(ChainFailed, match="in the middle of a step"):
        chain.simulate_chain(1)
