"""HMC: a state that was saved goes on bit for bit, and a bad one changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import HMC
from tests.chains import (
    MASSES,
    Counting,
    assert_same,
    quartic,
)
from tests.table import assert_bits

masses = pytest.mark.parametrize("mass", MASSES.values(), ids=list(MASSES))
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


@masses
@dtypes
def test_a_resumed_chain_goes_on_bit_for_bit(mass: Any, dtype: Any, device: str) -> None:
    chain = HMC(np.ones((2, 5), dtype), quartic, [0.3, 0.5], 3, mass(5), seed=8, device=device)
    chain.simulate_chain(6)
    chain.clear_position_trajectory(2)
    saved = chain.state_dict()
    kept = copy.deepcopy(saved)
    chain.simulate_chain(5)
    np.testing.assert_equal(saved, kept)
    other = HMC(np.zeros((2, 5), dtype), quartic, device=device)
    other.load_state_dict(saved)
    other.simulate_chain(5)
    np.testing.assert_equal(saved, kept)
    assert_same(chain, other)
    np.testing.assert_equal(other.state_dict(), chain.state_dict())
    assert_bits(np.asarray(other.inv_mass), np.asarray(chain.inv_mass))


def test_a_state_of_another_potential_is_refused() -> None:
    """One evaluation tells."""
    chain = HMC(np.ones(3), quartic, device="numpy")
    chain.simulate_chain(2)
    potential = Counting()
    other = HMC(np.zeros(3), potential, device="numpy")
    other.load_state_dict(chain.state_dict())
    assert potential.count == 2
    another = HMC(np.zeros(3), lambda q: (1.0 + quartic(q)[0], quartic(q)[1]), device="numpy")
    before = another.state_dict()
    with pytest.raises(ValueError, match="state_dict is of another potential: where chain 0 is, U was"):
        another.load_state_dict(chain.state_dict())
    np.testing.assert_equal(another.state_dict(), before)


BAD_STATES: dict[str, tuple[Any, type[Exception], str]] = {
    "no dict": (lambda s: [1], TypeError, "state_dict must be a dict, got list"),
    "empty": (lambda s: {}, ValueError, "state_dict has no 'sampler'"),
    "of another": (lambda s: s | {"sampler": "MCMC"}, ValueError, "is of the sampler 'MCMC', expected 'HMC'"),
    "shape": (lambda s: s | {"position": np.ones((1, 2))}, ValueError, r"'position' has shape \(1, 2\) .* \(1, 3\)"),
    "text": (lambda s: s | {"gradient": [["a"] * 3]}, TypeError, "'gradient' of state_dict must hold real numbers"),
    "NaN": (lambda s: s | {"potential": [np.nan]}, ValueError, "'potential' of state_dict must be finite"),
    "stepsize": (lambda s: s | {"stepsize": [0.0]}, ValueError, "'stepsize' of state_dict must be above 0"),
    "mass": (lambda s: s | {"inv_mass": -1.0}, ValueError, "inv_mass must be positive"),
    "steps": (
        lambda s: s | {"num_steps": 0},
        ValueError,
        "'num_steps' of state_dict must be from 1 to 2.24 - 1, got 0",
    ),
    "seed": (lambda s: s | {"seed": -1}, ValueError, "'seed' of state_dict must be from 0"),
    "too long": (
        lambda s: s | {"num_states": 1, "accepted": [1]},
        ValueError,
        "has 2 positions, and there were 1 transitions",
    ),
    "accepted": (lambda s: s | {"accepted": [3]}, ValueError, "'accepted' .* from 0 to the 2 transitions, got .3."),
    "below 0": (lambda s: s | {"accepted": [-1]}, ValueError, "'accepted' .* from 0 to the 2 transitions, got .-1."),
    "thin": (lambda s: s | {"thin": 0}, ValueError, "'thin' of state_dict must be 1 or more, got 0"),
    "thinner": (lambda s: s | {"thin": 2}, ValueError, "has 2 positions, and there were 2 transitions"),
    "no trajectory": (lambda s: s | {"trajectory": None}, TypeError, "'trajectory' .* must hold real numbers"),
    "count": (lambda s: s | {"num_states": 2**60}, ValueError, "'num_states' of state_dict must be from 0 to 2.40"),
    "diverged": (lambda s: s | {"diverged": [0, 1]}, ValueError, r"'diverged' has shape \(2,\)"),
    "stats": (lambda s: s | {"sample_stats": {}}, ValueError, "'sample_stats' of state_dict must have lp, energy"),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "accepted"}, ValueError, "has no 'accepted'"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD_STATES.values(), ids=list(BAD_STATES))
def test_bad_states_change_nothing(change: Any, error: type[Exception], message: str) -> None:
    chain = HMC(np.ones(3), quartic, device="numpy")
    chain.simulate_chain(2)
    before = chain.state_dict()
    with pytest.raises(error, match=message):
        chain.load_state_dict(change(chain.state_dict()))
    np.testing.assert_equal(chain.state_dict(), before)
