"""Traces: what they hold, and what they refuse."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from grilly_optim._extras import MissingExtra
from grilly_optim.sampling import Trace
from tests.traces import Q, at, normal, of_a_run, same


def test_a_trace_is_what_it_was_given() -> None:
    q = normal(4, 200, 3)
    trace = of_a_run(draws=q, names=["mu", "log tau", "t"], inv_mass=np.ones((4, 3)), seconds=1.5, thin=2)
    assert np.shares_memory(trace.draws, q)
    assert (trace.num_chains, trace.num_draws, trace.dim) == (4, 200, 3)
    assert (trace.names, trace.thin, trace.seconds, trace.interrupted) == (("mu", "log tau", "t"), 2, 1.5, False)
    assert (trace["log tau"] == q[:, :, 1]).all()
    assert repr(trace) == "Trace(nuts: 4 chains of 200 draws, 3 coordinates, float64)"
    assert Trace(q).names == ("q[0]", "q[1]", "q[2]")
    assert repr(Trace(q[:1, :1, :1].astype(np.float32), interrupted=True)) == (
        "Trace(1 chain of 1 draw, 1 coordinate, interrupted, float32)"
    )


def test_a_trace_does_not_change() -> None:
    trace = of_a_run(inv_mass=np.ones(4))
    for array in (trace.draws, trace.sample_stats["lp"], trace.stepsize, trace.inv_mass, trace["q[0]"]):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        trace.seed = 4  # type: ignore[misc]


def test_what_is_given_stays_writable() -> None:
    q, lp = normal(2, 5, 1), np.zeros((2, 5))
    Trace(q, {"lp": lp})
    q[0] = lp[0, 0] = 1


def test_copies_and_pickles() -> None:
    trace = of_a_run()
    for other in (copy.deepcopy(trace), pickle.loads(pickle.dumps(trace))):
        assert same(trace, other)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"draws": Q[0]}, ValueError, r"draws must be \(chains, draws, D\), .* got \(5, 3\)"),
        ({"draws": Q[:0]}, ValueError, r"draws must be .* got \(0, 5, 3\)"),
        ({"draws": Q[:, :, :0]}, ValueError, r"draws must be .* got \(2, 5, 0\)"),
        ({"draws": Q.astype(int)}, TypeError, "draws must be float32 or float64, got int64"),
        ({"draws": np.where(at(Q.shape, (1, 4, 2)), np.inf, Q)}, ValueError, "got inf for chain 1, draw 4, coord.* 2"),
        ({"sample_stats": [1]}, TypeError, "sample_stats must be a dict of arrays, got list"),
        ({"sample_stats": {"lp": np.zeros(5)}}, ValueError, r"sample_stats\['lp'\] must be \(2, 5\).* got \(5,\)"),
        ({"sample_stats": {"lp": np.full((2, 5), "a")}}, TypeError, r"sample_stats\['lp'\] must be numbers"),
        ({"sample_stats": {"a/b": np.zeros((2, 5))}}, ValueError, "sample_stats has 'a/b'"),
        ({"names": ["a", "b"]}, ValueError, "names must be 3, one for each coordinate, got 2"),
        ({"names": ["a", "b", "a"]}, ValueError, "names must be different and not empty, got 'a' twice"),
        ({"names": ["a", "b", ""]}, ValueError, "names must be different and not empty, got ''"),
        ({"names": ["a", "b", 3]}, TypeError, "names must be str, got 3"),
        ({"names": "abc"}, TypeError, "names must be a list of str, got 'abc'"),
        ({"kernel": None}, TypeError, "kernel must be a str, got None"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        ({"thin": 0}, ValueError, "thin must be 1 or more"),
        ({"num_warmup": 1.5}, TypeError, "num_warmup must be a whole number"),
        ({"stepsize": np.ones(3)}, ValueError, r"stepsize must be \(2,\), got \(3,\)"),
        ({"stepsize": [0.1, 0.0]}, ValueError, "stepsize must be finite and above 0"),
        ({"stepsize": [0.1, math.nan]}, ValueError, "stepsize must be finite and above 0"),
        ({"stepsize": ["a", "b"]}, TypeError, "stepsize must be numbers"),
        ({"inv_mass": np.ones(3)}, ValueError, r"inv_mass must be \(2,\) or \(2, 3\) or \(2, 3, 3\), got \(3,\)"),
        ({"inv_mass": -np.ones((2, 3, 3))}, ValueError, "inv_mass must be finite and above 0"),
        ({"interrupted": 1}, TypeError, "interrupted must be True or False, got 1"),
        ({"seconds": -1.0}, ValueError, "seconds must be 0 or more"),
    ],
)
def test_a_trace_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Trace(**{"draws": Q, **arguments})


def test_matrices_may_have_negative_entries_beside_the_diagonal() -> None:
    matrices = np.tile([[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 1.0]], (2, 1, 1))
    assert Trace(Q, inv_mass=matrices).inv_mass is not None


def test_coordinates_that_are_not_there() -> None:
    trace = Trace(normal(2, 5, 7))
    with pytest.raises(KeyError, match=r"no coordinate is called 'mu'; they are 'q\[0\]', .*, \.\.\."):
        trace["mu"]
    with pytest.raises(TypeError, match="by its name, got 0"):
        trace[0]  # type: ignore[index]
    for wrong, error, message in (
        (["mu"], ValueError, r"coordinates has 'mu', and they are called 'q\[0\]'"),
        ([7], ValueError, "coordinates has 7, and there are 7"),
        (-1, ValueError, "coordinates has -1"),
        ([], ValueError, "coordinates must be one at least"),
        ([1.0], TypeError, r"coordinates must be names or numbers, got 1\.0"),
        ([True], TypeError, "coordinates must be names or numbers, got True"),
        (1.0, TypeError, r"coordinates must be names or numbers, got 1\.0"),
    ):
        for function in (trace.summary, lambda c: trace.plot(coordinates=c)):
            with pytest.raises(error, match=message):
                function(wrong)


@pytest.mark.parametrize(
    ("module", "function"),
    [("matplotlib.figure", Trace.plot), ("arviz", Trace.summary), ("arviz", Trace.to_arviz)],
)
def test_without_the_extra(module: str, function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'grilly_optim\[sampling\]'"):
        function(of_a_run())
