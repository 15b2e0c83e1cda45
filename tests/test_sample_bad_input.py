"""`sample`: what it refuses, with one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import ChainFailed
from grilly_optim.sampling.potentials import StandardNormal
from tests.sampling_potentials import Vectorized, gaussian
from tests.sampling_runs import draw, same


def one_by_one(q: Any) -> Any:
    if len(q) > 1:
        raise OSError("too many")
    return gaussian(q)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kernel": (
        {"kernel": "gibbs"},
        ValueError,
        "kernel must be one of 'nuts', 'hmc', 'mala', 'ghmc', 'rwm', got 'gibbs'",
    ),
    "no samples": ({"num_samples": 0}, ValueError, "num_samples must be 1 or more, got 0"),
    "half a sample": ({"num_samples": 1.5}, TypeError, "num_samples must be a whole number, got 1.5"),
    "negative warm-up": ({"num_warmup": -1}, ValueError, "num_warmup must be 0 or more, got -1"),
    "no chains": ({"num_chains": 0}, ValueError, "num_chains must be 1 or more, got 0"),
    "no thinning": ({"thin": 0}, ValueError, "thin must be 1 or more, got 0"),
    "target 0": ({"target_accept": 0.0}, ValueError, r"target_accept must be in \(0, 1\), got 0.0"),
    "target 1": ({"target_accept": 1}, ValueError, r"target_accept must be in \(0, 1\), got 1"),
    "target NaN": ({"target_accept": np.nan}, ValueError, r"target_accept must be in \(0, 1\), got nan"),
    "stepsize 0": ({"stepsize": 0.0}, ValueError, "stepsize must be above 0, got 0.0"),
    "stepsize NaN": ({"stepsize": np.nan}, ValueError, "stepsize must be above 0, and finite, got nan"),
    "stepsize text": ({"stepsize": "1"}, TypeError, "stepsize must be a real number, got '1'"),
    "stepsize missing": ({"num_warmup": 0}, ValueError, "stepsize is needed where num_warmup is 0"),
    "num_steps 0": ({"kernel": "hmc", "num_steps": 0}, ValueError, "num_steps must be from 1 to 2.23 - 1, got 0"),
    "num_steps many": ({"kernel": "hmc", "num_steps": 2**33}, ValueError, "num_steps must be from 1 to 2.23 - 1, got"),
    "num_steps elsewhere": ({"num_steps": 3}, ValueError, "num_steps is for kernel='hmc', got 3 for kernel='nuts'"),
    "dense text": ({"dense_mass": "yes"}, TypeError, "dense_mass must be True or False, got 'yes'"),
    "seed": ({"seed": -1}, ValueError, "seed must be from 0 to"),
    "executor": ({"executor": 4}, TypeError, "executor must be a concurrent.futures.Executor or None, got int"),
    "progress": ({"progress": "bar"}, TypeError, "progress must be True or False, got 'bar'"),
    "no position": ({"initial_position": None}, ValueError, "initial_position is needed for a potential without"),
    "text position": ({"initial_position": ["a"]}, TypeError, "initial_position must hold real numbers"),
    "ragged position": ({"initial_position": [[1.0], [1.0, 2.0]]}, ValueError, "initial_position is no array"),
    "positions of 2": (
        {"initial_position": np.zeros((2, 3))},
        ValueError,
        r"must have shape \(D,\) or \(3, D\), got \(2, 3\)",
    ),
    "empty position": ({"initial_position": np.zeros(0)}, ValueError, r"must have shape .*, got \(0,\)"),
    "number": ({"initial_position": 1.0}, ValueError, r"must have shape .*, got \(\)"),
    "NaN position": ({"initial_position": [0.0, np.nan, 0.0]}, ValueError, "initial_position must be finite"),
    "dim": ({"potential": StandardNormal(4)}, ValueError, r"must have shape \(4,\) or \(3, 4\), got \(3,\)"),
    "no potential": ({"potential": 3}, TypeError, "potential must be a callable"),
    "class": ({"potential": StandardNormal}, TypeError, "^potential must be a potential, got the class Stand"),
    "resume": ({"resume": True}, ValueError, "resume=True needs checkpoint"),
    "checkpoint": ({"checkpoint": 3}, TypeError, "checkpoint must be a str or a path, got int"),
    "directory": ({"checkpoint": "."}, ValueError, "checkpoint must be the path of a file"),
    "infinite": (
        {"potential": lambda q: (np.inf, q)},
        ValueError,
        "the potential energy at initial_position of chain 0 must be finite",
    ),
    "NaN": (
        {"potential": lambda q: (np.nan, q)},
        ValueError,
        "the potential energy at initial_position of chain 0 must be finite",
    ),
    "NaN gradient": (
        {"potential": lambda q: (1.0, q * np.nan)},
        ValueError,
        "the gradient at initial_position of chain 0 must be finite",
    ),
    "raises": (
        {"potential": lambda q: 1 // 0},
        ChainFailed,
        "chain 0 failed at the initial position: ZeroDivisionError",
    ),
    "shape of U": ({"potential": lambda q: (q, q)}, ChainFailed, r"chain 0 failed .* single number, got shape \(3,\)"),
    "shape of the gradient": ({"potential": lambda q: (0.0, q[:2])}, ChainFailed, r"must have the shape \(3,\)"),
    "no gradient": ({"potential": lambda q: 0.0}, ChainFailed, r"must return a tuple \(U, gradient\), got float"),
    "shape of all U": (
        {"potential": Vectorized(lambda q: (0.0, q))},
        ChainFailed,
        "chain 0 failed at the initial position: Value",
    ),
    "batch": (
        {"potential": Vectorized(one_by_one)},
        ChainFailed,
        "the batch of chains failed at the initial position: OSErr",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_clear_error(name: str) -> None:
    options, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        draw(**options)


def test_nothing_is_written_where_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        draw(lambda q: (np.nan, q), checkpoint=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_potential_without_a_gradient_is_enough_for_a_random_walk() -> None:
    same(draw(lambda q: gaussian(q)[0], kernel="rwm"), draw(kernel="rwm"))
