"""`sample`: a potential that fails, in every executor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import ChainFailed
from tests.sampling_potentials import Breaks, BreaksAt, Ends, gaussian
from tests.sampling_runs import EXECUTORS, draw, processes


def test_a_failure_keeps_the_draws_of_all_chains() -> None:
    counting = Breaks(0, KeyError())
    expected = draw(counting, kernel="mala", num_samples=50)
    with pytest.raises(ChainFailed, match=r"chain 1 failed in transition 10\d: OSError: no data") as raised:
        draw(Breaks(counting.calls - 13, OSError("no data")), kernel="mala", num_samples=50)
    error = raised.value
    assert isinstance(error.__cause__, OSError)
    assert error.chain == 1
    assert error.step is not None
    assert sorted(error.results) == [0, 1, 2]
    for chain, draws in error.results.items():
        assert len(draws) == error.step - 60
        np.testing.assert_array_equal(draws, expected.draws[chain, : len(draws)])


@pytest.mark.subprocess
@pytest.mark.parametrize("name", EXECUTORS)
def test_a_failure_in_an_executor_keeps_the_draws_of_all_chains(name: str) -> None:
    options: dict[str, Any] = {"kernel": "rwm", "num_samples": 3000, "num_warmup": 200}
    expected = draw(**options)
    there = expected.draws[1, 1500]
    first = int(np.flatnonzero((expected.draws[1] == there).all(axis=1))[0])
    message = f"chain 1 failed in transition {200 + first}: ZeroDivisionError: not here"
    with EXECUTORS[name]() as executor, pytest.raises(ChainFailed, match=message) as raised:
        draw(BreaksAt(there), **options, executor=executor)
    results = raised.value.results
    assert (raised.value.chain, raised.value.step) == (1, 200 + first)
    assert len(results[1]) == first
    for chain, draws in results.items():
        np.testing.assert_array_equal(draws, expected.draws[chain, : len(draws)])


@pytest.mark.subprocess
def test_a_process_that_dies_names_the_chain() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match="chain 0 did not finish: BrokenProcessPool"):
        draw(Ends(), executor=executor)


def test_a_potential_that_cannot_be_sent() -> None:
    with processes(1) as executor, pytest.raises(ChainFailed, match=r"chain 0 did not finish: .*(local|lambda|pickle)"):
        draw(lambda q: gaussian(q), executor=executor)
