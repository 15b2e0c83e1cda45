"""Traces: what their summary says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling import Trace, ess, r_hat
from grilly_optim.sampling._arviz import arviz
from grilly_optim.sampling._trace_plots import density, rank_counts
from tests.traces import Array, at, autoregressive, legend, normal, of_a_run, titles


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
    with pytest.raises(ValueError, match=f"drawn afresh; got 1000 draws, thin=1, statistics .* kernel '{kernel}'"):
        trace.plot("energy")
    assert "energy" not in titles(trace.plot())


def test_thinned_draws_are_no_transitions() -> None:
    """E-BFMI is about what one transition changes, and divergences are those of draws."""
    energies = autoregressive(0.99, 4, 1000, 1)[:, :, 0]
    stats = {"energy": energies, "diverging": at((4, 1000), (1, 3)), "reached_max_treedepth": at((4, 1000), (2, 0))}
    each, thinned = (of_a_run(4, 1000, thin=thin, stats=stats).summary() for thin in (1, 5))
    assert [problem[:40] for problem in each.problems] == [
        "1 of 4000 transitions diverged, in chain",
        "E-BFMI is below 0.3 in all 4 chains (low",
        "1 of 4000 trees reached the maximum dept",
    ]
    assert [problem[:60] for problem in thinned.problems] == [
        "1 of 4000 draws come from transitions that diverged, in chai",
        "1 of 4000 trees that were kept reached the maximum depth: th",
    ]
    assert thinned.ebfmi.shape == (0,)


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
