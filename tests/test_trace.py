"""Traces: what they hold, what their summary says, what their pictures show, and that files give them back."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim._extras import MissingExtra
from grilly_optim.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from grilly_optim.sampling import Trace, _trace_file, ess, r_hat
from grilly_optim.sampling._arviz import arviz
from grilly_optim.sampling._trace_plots import COLOURS, SHOWN_CHAINS, density, rank_counts

Array = np.ndarray[Any, np.dtype[Any]]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def autoregressive(a: float, *shape: int, seed: int = 0) -> Array:
    """Chains (C, n, D) of x' = a x + sqrt(1 - a^2) xi, from their stationary law N(0, 1)."""
    x = normal(*shape, seed=seed)
    for t in range(1, shape[1]):
        x[:, t] = a * x[:, t - 1] + math.sqrt(1 - a * a) * x[:, t]
    return x


def of_a_run(chains: int = 4, count: int = 200, dim: int = 3, **options: Any) -> Trace:
    shape = (chains, count)
    momenta = normal(*shape, dim, seed=1)
    q = normal(*shape, dim)
    stats = {
        "lp": -(q**2).sum(axis=-1) / 2,
        "energy": ((q**2).sum(axis=-1) + (momenta**2).sum(axis=-1)) / 2,
        "diverging": np.zeros(shape, bool),
        "n_steps": np.full(shape, 7),
        "reached_max_treedepth": np.zeros(shape, bool),
    }
    options = {"kernel": "nuts", "seed": 3, "num_warmup": 500, "stepsize": np.full(chains, 0.3), **options}
    stats.update(options.pop("stats", {}))
    return Trace(options.pop("draws", q), stats, **options)


def at(shape: tuple[int, ...], *places: tuple[int, ...]) -> Array:
    made = np.zeros(shape, bool)
    for place in places:
        made[place] = True
    return made


# What it holds.


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


Q = normal(2, 5, 3)


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


# Its summary.


def newer() -> bool:
    return int(arviz().__version__.partition(".")[0]) >= 1


def test_columns_are_arvizs() -> None:
    trace = Trace(autoregressive(0.5, 4, 300, 3) * [1, 10, 0.1] + [5, 0, -3])
    found, data = trace.summary(), trace.to_arviz()
    expected = arviz().summary(data, round_to="none")
    for name in ("mean", "sd", "mcse_mean", "ess_bulk", "r_hat"):
        np.testing.assert_allclose(getattr(found, name), np.asarray(expected[name], float), rtol=1e-9, err_msg=name)
    # The tails of 1.x's table are others.
    tails = arviz().ess(data, method="tail", prob=(0.05, 0.95))
    np.testing.assert_allclose(found.ess_tail, tails["q"], rtol=1e-9)
    assert found.r_hat[1] == pytest.approx(r_hat(trace["q[1]"]))
    assert found.ess_bulk[1] == pytest.approx(ess(trace["q[1]"]))


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_effective_sample_size_and_error_of_autoregressive_chains(a: float) -> None:
    """(1 - a) / (1 + a) of the draws are effective; and the means of 60 coordinates err as much as MCSE says."""
    summary = Trace(autoregressive(a, 4, 2000, 60)).summary()
    effective = 8000 * (1 - a) / (1 + a)
    assert np.mean(summary.ess_bulk) == pytest.approx(effective, rel=0.1)
    assert np.mean(summary.mcse_mean) == pytest.approx(effective**-0.5, rel=0.1)
    assert np.mean(summary.sd) == pytest.approx(1, rel=0.05)
    assert 0.75 < np.sqrt(np.mean((summary.mean / summary.mcse_mean) ** 2)) < 1.3


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_r_hat_of_a_shifted_chain(shift: float) -> None:
    """Two chains, each in two halves: their means have the variance shift^2 / 3, and R-hat^2 is 1 + that."""
    q = normal(2, 5000, 1)
    q[1] += shift
    assert Trace(q).summary().r_hat[0] == pytest.approx(math.sqrt(1 + shift**2 / 3), abs=0.015)


def test_e_bfmi_is_arvizs() -> None:
    energies = autoregressive(0.9, 3, 500, 1)[:, :, 0]
    trace = of_a_run(3, 500, stats={"energy": energies})
    expected = arviz().bfmi(trace.to_arviz())
    np.testing.assert_allclose(trace.summary().ebfmi, expected["energy"] if newer() else expected, rtol=1e-9)
    # Of x' = a x + ...: E (x' - x)^2 = 2 (1 - a).
    assert trace.summary().ebfmi.mean() == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("kernel", ["rwm", "ghmc"])
def test_e_bfmi_is_not_asked_of_kernels_that_move_energies_slowly(kernel: str) -> None:
    energies = autoregressive(0.99, 4, 1000, 1)[:, :, 0]
    trace = of_a_run(4, 1000, kernel=kernel, stats={"energy": energies})
    summary = trace.summary()
    assert summary.ebfmi.shape == (0,)
    assert summary.problems == ()
    with pytest.raises(ValueError, match=f"drawn afresh; got 1000 draws, statistics .* kernel '{kernel}'"):
        trace.plot("energy")
    assert "energy" not in titles(trace.plot())


def test_a_random_walk_does_not_diverge() -> None:
    trace = of_a_run(4, 500, kernel="rwm", stats={"diverging": np.ones((4, 500), bool)})
    assert trace.summary().problems == ()
    assert legend(trace.plot("trace")) == ["chain 0", "chain 1", "chain 2", "chain 3"]


def test_one_chain_and_no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arviz(), "rhat", None)  # it would write to the terminal that it cannot
    summary = Trace(normal(1, 1000, 2)).summary()
    assert np.isnan(summary.r_hat).all()
    assert (summary.ess_bulk > 500).all()
    assert [problem[:9] for problem in summary.problems] == ["One chain"]
    assert str(summary).splitlines()[3].split()[-1] == "-"


@settings(max_examples=60, deadline=None)
@given(
    chains=st.integers(1, 3),
    draws=st.integers(0, 9),
    dim=st.integers(1, 3),
    kind=st.sampled_from(["normal", "rounded", "one chain still", "chains still", "still"]),
    scale=st.sampled_from([1e-300, 1e-5, 1.0, 1e9, 1e150]),
)
def test_small_and_still_traces_have_summaries_and_curves(
    chains: int, draws: int, dim: int, kind: str, scale: float
) -> None:
    """Without warnings, which are errors here."""
    q = normal(chains, draws, dim)
    if kind == "rounded":
        q = np.round(q)
    elif kind == "one chain still" and draws:
        q[0] = q[0, 0]
    elif kind == "chains still" and draws:
        q[:] = q[:, :1]
    elif kind == "still":
        q[:] = 1.0
    trace = of_a_run(chains, draws, dim, draws=q * scale, stats={"energy": np.zeros((chains, draws))})
    summary = trace.summary()
    assert len({len(line) for line in summary.table(None).splitlines()[2 : 3 + dim]}) == 1
    if draws < 4:
        assert np.isnan([summary.mcse_mean, summary.ess_bulk, summary.ess_tail, summary.r_hat]).all()
    if draws >= 4 and kind in ("still", "chains still"):
        assert any("never moved" in problem for problem in summary.problems)
    if draws:
        for d in range(dim):
            x, y = density(trace.draws[:, :, d].ravel())
            assert np.isfinite([x, y]).all()
            assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)
            assert rank_counts(trace.draws[:, :, d])[0].sum() == chains * draws
    else:
        assert np.isnan(summary.mean).all()


@pytest.mark.parametrize("q", [np.ones((2, 1, 1)), np.ones((1, 6, 1)), np.zeros((7, 6, 2)), normal(2, 3, 1) * 1e150])
def test_small_and_still_traces_have_pictures(q: Array) -> None:
    of_a_run(*q.shape, draws=q, stats={"energy": np.zeros(q.shape[:2])}).plot().draw_without_rendering()
    with pytest.raises(ValueError, match="no draws to plot"):
        Trace(q[:, :0]).plot()


SHAPE = (4, 500)
APART = normal(4, 500, 3)
APART[0, :, 1] += 2
SLOW = autoregressive(0.97, 4, 500, 5)
LOW = {"energy": np.concatenate([autoregressive(0.95, 1, 500, 1), normal(3, 500, 1)])[:, :, 0]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"interrupted": True}, ["The run was interrupted"]),
        (
            {"stats": {"diverging": at(SHAPE, (0, 3), (2, 4), (2, 5))}},
            ["3 of 2000 transitions diverged, in chains 0, 2: "],
        ),
        ({"stats": {"diverging": np.ones(SHAPE, bool)}}, ["2000 of 2000 transitions diverged, in all 4 chains: "]),
        ({"stats": LOW}, ["E-BFMI is below 0.3 in chain 0 (lowest 0."]),
        (
            {"stats": {"reached_max_treedepth": at(SHAPE, (1, 1))}},
            ["1 of 2000 trees reached the maximum depth: this is slow, not wrong."],
        ),
        (
            {"draws": APART},
            ["R-hat is above 1.01 for q[1] (highest 1.3", "Fewer than 400 effective draws for q[1] (fewest "],
        ),
        (
            {"draws": SLOW, "dim": 5},
            ["R-hat is above 1.01 for all 5 coordinates", "Fewer than 400 effective draws for all 5 coordinates"],
        ),
        ({"draws": APART * [1, 0, 1]}, ["q[1] never moved: "]),
    ],
)
def test_problems_are_named(options: dict[str, Any], expected: list[str]) -> None:
    summary = of_a_run(4, 500, **options).summary()
    assert len(summary.problems) == len(expected)
    for problem, start in zip(summary.problems, expected, strict=True):
        assert problem.startswith(start)
    printed = " ".join(str(summary).split())
    for problem in summary.problems:
        assert f"! {problem}" in printed
    assert ("no problems found" in printed) == (not expected)


def test_many_chains_need_no_more_than_400_effective_draws() -> None:
    assert Trace(normal(64, 50, 1)).summary().problems == ()
    assert "Fewer than 400" in Trace(autoregressive(0.9, 64, 50, 1)).summary().problems[-1]
    assert "Fewer than 200" in Trace(normal(2, 50, 1)).summary().problems[-1]


def test_problems_are_those_of_the_coordinates_asked_for() -> None:
    trace = of_a_run(4, 500, draws=APART)
    assert trace.summary([0, "q[2]"]).problems == ()
    assert trace.summary("q[1]").problems[0].startswith("R-hat is above 1.01 for q[1]")
    assert trace.summary([2, 0]).names == ("q[2]", "q[0]")
    assert trace.summary(2).mean[0] == pytest.approx(APART[:, :, 2].mean())


def test_numbers_have_as_many_digits_as_mean_something() -> None:
    q = normal(4, 1000, 4) * [1, 1e-3, 1e4, 1e-12] + [100, 0.5, 123456.7, 1e9]
    rows = [line.split() for line in str(Trace(q).summary()).splitlines()[3:7]]
    assert [len(row) for row in rows] == [7] * 4
    error = float(rows[0][3])
    assert (rows[0][1], len(rows[0][3])) == (f"{q[:, :, 0].mean():.3f}", len("0.016"))
    assert error == pytest.approx(1 / math.sqrt(4000), rel=0.15)
    assert rows[1][1].startswith("0.5000") or rows[1][1].startswith("0.4999")
    assert "." not in rows[2][1]
    assert rows[3][1] == "1e+09"


def test_of_many_coordinates_the_worst_are_shown() -> None:
    q = normal(4, 200, 100)
    slow = autoregressive(0.9, 4, 200, 3, seed=5)
    q[:, :, [7, 70, 31]] = slow
    q[:, :, 50] = 1.0
    summary = Trace(q).summary()
    lines = summary.table(max_rows=4).splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["q[7]", "q[31]", "q[50]", "q[70]"]
    assert lines[7] == "... and 96 more, with larger effective sample sizes"
    assert len(str(summary).splitlines()) < 35
    assert sum(line.startswith("q[") for line in summary.table(None).splitlines()) == 100
    assert summary.worst(1) == ["q[50]"]
    assert set(summary.worst(4)) == {"q[7]", "q[31]", "q[50]", "q[70]"}
    least = np.minimum(summary.ess_bulk, summary.ess_tail)
    order = [least[summary.names.index(name)] for name in summary.worst(100)[1:]]
    assert order == sorted(order)


# Its pictures.


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def test_lines_are_the_draws_and_their_densities() -> None:
    trace = of_a_run(3, 100, 2, names=["mu", "tau"])
    figure = trace.plot("trace")
    assert titles(figure) == ["mu", "tau"]
    left, right = figure.axes[1], figure.axes[3]  # of tau
    assert [line.get_color() for line in left.lines] == list(COLOURS[:3])
    for chain, (line, curve) in enumerate(zip(left.lines, right.lines, strict=True)):
        assert (line.get_ydata() == trace["tau"][chain]).all()
        assert (line.get_xdata() == np.arange(100)).all()
        assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(1, abs=0.01)
        assert curve.get_color() == line.get_color()
    assert legend(figure) == ["chain 0", "chain 1", "chain 2"]
    assert figure.axes[1].get_xlabel() == "draw"


def test_divergent_transitions_are_marked() -> None:
    places = [(0, 3), (1, 7), (2, 7)]
    trace = of_a_run(3, 100, 2, stats={"diverging": at((3, 100), *places)})
    figure = trace.plot("trace", coordinates=[1])
    left, right = figure.axes
    assert list(left.lines[-1].get_xdata()) == [3, 7]
    assert list(right.lines[-1].get_xdata()) == [trace["q[1]"][place] for place in places]
    assert left.lines[-1].get_color() == right.lines[-1].get_color() == "black"
    assert legend(figure)[-1] == "divergent transition (3)"


def test_densities() -> None:
    law = NormalDist()
    x, y = density(np.array([law.inv_cdf((i + 0.5) / 5000) for i in range(5000)]))
    np.testing.assert_allclose(y, [law.pdf(place) for place in x], atol=0.006)
    for values in (np.ones(5), np.concatenate([normal(1000), [1e6]]), np.array([-1e5]), np.array([0.0, 1.0])):
        x, y = density(values)
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)
        assert (y >= 0).all()


def test_ranks_are_counted() -> None:
    q = normal(4, 1000)
    counts, edges, expected = rank_counts(q)
    assert (counts.shape, edges[-1], expected) == ((4, 20), 4000, 50)
    assert (counts.sum(axis=1) == 1000).all()
    assert (counts.sum(axis=0) == 200).all()
    q[2] += 100  # the 1,000 largest of all
    assert (rank_counts(q)[0][2] == [0] * 15 + [200] * 5).all()
    still = rank_counts(np.zeros((2, 100)))[0]
    assert (still == [[0] * 10 + [100] + [0] * 9] * 2).all()  # in the middle, and not one chain below the other


def test_stripes_of_ranks() -> None:
    q = normal(3, 400, 1)
    (axes,) = of_a_run(3, 400, 1, draws=q).plot("rank").axes
    counts = rank_counts(q[:, :, 0])[0]
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, np.minimum(counts / 20, 2).ravel() / 2.2)
    assert [bar.get_y() for bar in axes.patches[::20]] == [0, 1, 2]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "1", "2"]


def test_many_chains_get_a_map_of_ranks_and_a_scale() -> None:
    trace = of_a_run(64, 100, 2)
    figure = trace.plot()
    images = [image for axes in figure.axes for image in axes.images]
    counts, _, expected = rank_counts(trace["q[1]"])
    np.testing.assert_allclose(images[1].get_array(), (counts - expected) / math.sqrt(expected))
    scales = [axes.get_ylabel() for axes in figure.axes]
    assert scales.count("chain") == 3  # of two maps, and the scale of colours
    assert "(count - expected) / √expected" in scales
    assert legend(figure) == ["all chains"]
    (pooled,) = [line for line in figure.axes[2].lines if isinstance(line.get_color(), str)]
    np.testing.assert_allclose(pooled.get_ydata(), density(trace["q[0]"].ravel())[1])


def test_of_very_many_chains_some_are_drawn_and_the_title_says_so() -> None:
    trace = Trace(normal(200, 20, 9))
    figure = trace.plot("trace")
    assert len(figure.axes[0].lines) == SHOWN_CHAINS
    assert (figure.axes[0].lines[-1].get_ydata() == trace.draws[-1, :, 0]).all()
    assert figure.get_suptitle() == "200 chains of 20 draws, 9 coordinates (8 of them shown); lines of 64 chains"
    assert titles(figure) == [f"q[{d}]" for d in range(8)]
    assert titles(trace.plot("rank", coordinates=["q[8]"])) == ["q[8]"]
    assert len(trace.plot("rank").axes) == 9  # eight maps, one scale


def test_energies() -> None:
    trace = of_a_run(4, 500)
    (axes,) = trace.plot("energy").axes
    e = trace.sample_stats["energy"]
    y = density(np.diff(e, axis=1).ravel())[1]
    (line,) = [line for line in axes.lines if len(line.get_xdata())]
    np.testing.assert_allclose(line.get_ydata(), y)
    (area,) = axes.collections
    assert area.get_paths()[0].vertices[:, 1].max() == pytest.approx(density((e - e.mean()).ravel())[1].max())
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    fractions = trace.summary().ebfmi
    assert texts[2:] == [f"E-BFMI, chain {c}: {fractions[c]:.2f}" for c in range(4)]
    many = of_a_run(30, 100)
    texts = [text.get_text() for text in many.plot("energy").axes[0].get_legend().get_texts()]
    fractions = many.summary().ebfmi
    assert texts[2] == f"E-BFMI, lowest: {fractions.min():.2f} (chain {fractions.argmin()})"
    assert texts[3] == f"E-BFMI, median: {np.median(fractions):.2f}"


def test_all_in_one_has_all() -> None:
    figure = of_a_run(4, 100, 2).plot()
    assert titles(figure) == ["q[0]", "q[1]", "energy"]
    assert len(figure.axes) == 7


@pytest.mark.parametrize("chains", [1, 4, 64])
@pytest.mark.parametrize("kind", ["all", "trace", "rank", "energy"])
def test_nothing_overlaps_and_everything_is_inside(chains: int, kind: Any) -> None:
    trace = of_a_run(chains, 50, 3, stats={"diverging": at((chains, 50), (0, 1))})
    figure = trace.plot(kind)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [one.get_window_extent() for one in figure.legends]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 1 or height <= 1  # of a pixel


def test_pictures_can_be_saved(tmp_path: Path) -> None:
    of_a_run(2, 20).plot().savefig(tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.subprocess
def test_pictures_need_no_pyplot() -> None:
    code = (
        "import sys, numpy as np; from grilly_optim.sampling import Trace; Trace(np.ones((2, 9, 1))).plot(); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_kinds_of_pictures() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'all', 'trace', 'rank', 'energy', got 'pair'"):
        of_a_run().plot("pair")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"energy plots take 4 draws, .* got 3 draws"):
        of_a_run(2, 3).plot("energy")


@pytest.mark.parametrize(
    ("module", "function"),
    [("matplotlib.figure", Trace.plot), ("arviz", Trace.summary), ("arviz", Trace.to_arviz)],
)
def test_without_the_extra(module: str, function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"pip install 'grilly_optim\[sampling\]'"):
        function(of_a_run())


# For ArviZ.


def check_export(data: Any, trace: Trace) -> None:
    q = data["posterior"]["q"]
    assert q.dims == ("chain", "draw", "coordinate")
    assert list(q.coords["coordinate"].values) == list(trace.names)
    np.testing.assert_array_equal(q.values, trace.draws)
    assert set(data["sample_stats"].data_vars) == set(trace.sample_stats)
    for name, values in trace.sample_stats.items():
        assert data["sample_stats"][name].dims == ("chain", "draw")
        np.testing.assert_array_equal(data["sample_stats"][name].values, values)
    for group in ("posterior", "sample_stats"):
        attrs = data[group].attrs
        assert (attrs["inference_library"], attrs["sampler_name"], attrs["tuning_steps"]) == (
            "grilly_optim",
            "nuts",
            500,
        )
        assert (attrs["seed"], attrs["thin"], attrs["interrupted"], attrs["sampling_time"]) == (3, 1, 0, 2.5)
        assert list(attrs["step_size"]) == [0.3, 0.3, 0.3, 0.3]


def test_export_with_the_arviz_that_is_installed() -> None:
    trace = of_a_run(names=["mu", "log tau", "t"], seconds=2.5)
    check_export(trace.to_arviz(), trace)
    bare = Trace(Q).to_arviz()
    assert "step_size" not in bare["posterior"].attrs
    assert "sampling_time" not in bare["posterior"].attrs


def test_export_with_arviz_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its parts only arviz-base, whose from_dict is ArviZ 1's, runs beside ArviZ 0.x and on Python 3.11."""
    base = pytest.importorskip("arviz_base")
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__="1.3.0", from_dict=base.from_dict))  # type: ignore[arg-type]
    trace = of_a_run(names=["mu", "log tau", "t"], seconds=2.5)
    data = trace.to_arviz()
    assert type(data).__name__ == "DataTree"
    check_export(data, trace)


# Its files.


def same(one: Trace, other: Trace) -> bool:
    """Down to bits, dtypes and types."""
    for name, value in vars(one).items():
        theirs = getattr(other, name)
        if isinstance(value, dict):
            assert list(value) == list(theirs)
            pairs = [(value[key], theirs[key]) for key in value]
        else:
            pairs = [(value, theirs)]
        for mine, its in pairs:
            assert type(mine) is type(its)
            if isinstance(mine, np.ndarray):
                assert (mine.dtype, mine.shape) == (its.dtype, its.shape)
                assert mine.tobytes() == its.tobytes()
            else:
                assert mine == its
    return True


@pytest.mark.parametrize(
    "trace",
    [
        Trace(Q),
        Trace(Q.astype(np.float32), names=["µ", "log τ", "a\0"], kernel="hmc", seed=2**64 - 1),
        Trace(Q[:, :0], interrupted=True),
        Trace(np.asfortranarray(Q)[::-1, ::2], seconds=0.1 + 0.2),
        of_a_run(inv_mass=np.tile(np.eye(3), (4, 1, 1)), thin=5, stats={"lp": np.full((4, 200), np.nan)}),
    ],
)
def test_a_file_gives_back_every_bit(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "run.npz")
    assert same(trace, Trace.load(str(tmp_path / "run.npz")))


def test_arrays_can_be_read_without_us(tmp_path: Path) -> None:
    trace = of_a_run()
    trace.save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        assert (file["draws"] == trace.draws).all()
        assert (file["sample_stats.energy"] == trace.sample_stats["energy"]).all()


def test_every_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    Trace(Q[:, :1], {"lp": np.zeros((2, 1))}).save(path)
    good = path.read_bytes()
    for i in range(0, len(good), 3):
        path.write_bytes(good[:i] + bytes([good[i] ^ 16]) + good[i + 1 :])
        with pytest.raises(ValueError, match=r"run\.npz' cannot be loaded: it is (damaged|cut short)"):
            Trace.load(path)
        path.write_bytes(good[:i])
        with pytest.raises(ValueError, match=r"run\.npz' cannot be loaded: it is (damaged|cut short)"):
            Trace.load(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", draws=Q)
    (tmp_path / "b.npz").write_text("draws")
    checkpoint = save_checkpoint({"draws": Q}, str(tmp_path / "c"), 1.0)
    for path in (tmp_path / "a.npz", tmp_path / "b.npz", checkpoint):
        with pytest.raises(ValueError, match=r"was not written by Trace\.save"):
            Trace.load(path)
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "d.npz")
    with pytest.raises(TypeError, match="path must be a str or a path, got int"):
        Trace.load(3)  # type: ignore[arg-type]
    Trace(Q).save(tmp_path / "c_1.npz")
    with pytest.raises(CheckpointError, match="was not written by save_checkpoint"):
        load_checkpoint(tmp_path / "c_1.npz")


def test_a_newer_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trace_file, "VERSION", 2)
    Trace(Q).save(tmp_path / "run.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="written by a newer version of grilly_optim"):
        Trace.load(tmp_path / "run.npz")


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "run.npz"
    Trace(Q).save(path)  # and its directory is made
    before = path.read_bytes()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    for module, name in ((np.lib.format, "write_array"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                Trace(2 * Q).save(path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["run.npz"]
    Trace(2 * Q).save(path)
    assert (Trace.load(path).draws == 2 * Q).all()
