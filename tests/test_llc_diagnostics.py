"""What says whether an estimate can be trusted: acceptance, statistics of traces, sweeps, pictures, ArviZ."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim._extras import MissingExtra
from grilly_optim.benchmarks.deep_linear import DeepLinear, learning_coefficient
from grilly_optim.sampling import (
    EpsilonBetaSweep,
    LLCEstimator,
    SweepFailed,
    epsilon_beta_sweep,
    ess,
    estimate_learning_coeff_with_summary,
    mala_acceptance,
    online_wbic,
    plot_sweep,
    plot_trace,
    r_hat,
    to_arviz,
    trace_statistics,
    wbic,
)
from tests.llc import CURVATURES, KWARGS, quadratic

START = np.array([0.1, -0.2, 0.3, 0.0, 0.05])
LOSSES = np.random.default_rng(3).random((4, 60))


# The Metropolis test.


def literal(w: Any, v: Any, lr: float, nbeta: float, gamma: float, decay: float, anchor: Any) -> float:
    """The definition, with normal densities."""

    def energy(x: Any) -> float:
        return float(
            nbeta * quadratic([x])[0] + gamma / 2 * ((x - anchor) ** 2).sum() + decay / 2 * (x**2).sum(),
        )

    def log_q(to: Any, at: Any) -> float:
        slope = nbeta * CURVATURES * at + gamma * (at - anchor) + decay * at
        return float(-((to - at + lr / 2 * slope) ** 2).sum() / (2 * lr))

    return min(1.0, math.exp(min(0.0, energy(w) - energy(v) + log_q(w, v) - log_q(v, w))))


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lr=st.floats(1e-3, 0.1),
    nbeta=st.floats(0.1, 50),
    gamma=st.sampled_from([0.0, 7.0]),
    decay=st.sampled_from([0.0, 3.0]),
)
def test_acceptance_is_the_definition(seed: int, lr: float, nbeta: float, gamma: float, decay: float) -> None:
    random = np.random.default_rng(seed)
    w, v, anchor = (random.standard_normal((3, 5)) for _ in range(3))
    options: dict[str, Any] = {"lr": lr, "nbeta": nbeta, "localization": gamma, "weight_decay": decay}
    (loss, (g,)), (other, (h,)) = quadratic([w]), quadratic([v])
    found = mala_acceptance([w], [v], loss, other, [g], [h], **options, anchor=[anchor], chains=True)
    expected = [literal(w[c], v[c], lr, nbeta, gamma, decay, anchor[c]) for c in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    alone = mala_acceptance([w[0]], [v[0]], loss[0], other[0], [g[0]], [h[0]], **options, anchor=[anchor[0]])
    assert alone == pytest.approx(expected[0], rel=1e-9, abs=1e-12)


def test_localization_needs_an_anchor() -> None:
    with pytest.raises(ValueError, match="localization needs anchor"):
        mala_acceptance([START], [START], 0.0, 0.0, [START], [START], lr=0.1, nbeta=1.0, localization=1.0)


def test_acceptance_of_a_run_is_that_of_its_states() -> None:
    """Between all states after the burn-in, in every chain; near 1 for small steps."""
    states: list[Any] = []

    def keeping(params: Any) -> Any:
        states.append(params[0].copy())
        return quadratic(params)

    options: dict[str, Any] = {"num_draws": 6, "num_burnin_steps": 3, "num_chains": 2, "init_loss": 0.0}
    found = estimate_learning_coeff_with_summary(
        START, keeping, optimizer_kwargs=KWARGS, **options, device="numpy", measure_mala=True
    )
    for c in range(2):
        own = states[9 * c : 9 * c + 9][3:]
        expected = [literal(w, v, 1e-3, 100.0, 5.0, 0.0, START) for w, v in pairwise(own)]
        assert found["mala/acceptance"][c] == pytest.approx(np.mean(expected))
    side_by_side = estimate_learning_coeff_with_summary(
        START, quadratic, optimizer_kwargs=KWARGS, **options, device="numpy", measure_mala=True, vectorized=True
    )
    np.testing.assert_allclose(side_by_side["mala/acceptance"], found["mala/acceptance"])


def test_acceptance_falls_with_the_step_size() -> None:
    rates = [
        estimate_learning_coeff_with_summary(
            np.zeros(5),
            quadratic,
            optimizer_kwargs={"lr": lr, "nbeta": 100.0},
            num_draws=200,
            num_chains=2,
            device="cpu",
            measure_mala=True,
        )["mala/acceptance"].mean()
        for lr in (1e-5, 1e-3, 8e-3)
    ]
    assert rates[0] > 0.999 > rates[1] > 0.9 > rates[2]


def test_acceptance_needs_two_states() -> None:
    found = estimate_learning_coeff_with_summary(
        START, quadratic, optimizer_kwargs=KWARGS, num_draws=1, device="numpy", measure_mala=True
    )
    assert np.isnan(found["mala/acceptance"]).all()


# Traces.


def test_wbic_is_n_times_the_mean_loss() -> None:
    assert wbic(LOSSES, 500) == pytest.approx(500 * LOSSES.mean())
    running = [500 * LOSSES[:, : k + 1].mean() for k in range(60)]
    np.testing.assert_allclose(online_wbic(LOSSES, 500), running)


def test_trace_statistics() -> None:
    found = trace_statistics(LOSSES)
    np.testing.assert_allclose(found.mean, LOSSES.mean(axis=0))
    np.testing.assert_allclose(found.std, LOSSES.std(axis=0, ddof=1))
    so_far = np.stack([LOSSES[:, : k + 1].mean(axis=1) for k in range(60)])
    np.testing.assert_allclose(found.running_mean, so_far.mean(axis=1))
    np.testing.assert_allclose(found.running_std, so_far.std(axis=1, ddof=1))
    assert np.isnan(trace_statistics(LOSSES[:1]).running_std).all()


def test_r_hat_and_ess_see_what_they_are_for() -> None:
    random = np.random.default_rng(1)
    good = random.standard_normal((4, 1000))
    assert r_hat(good) < 1.01
    assert 3000 < ess(good) < 5000
    assert r_hat(good + np.linspace(0, 3, 1000)) > 1.1  # a drift that all chains share: halves differ
    assert r_hat(good + np.arange(4)[:, None]) > 1.1
    slow = good.copy()
    for t in range(1, 1000):  # an autoregressive process: n (1 - a) / (1 + a) effective draws
        slow[:, t] = 0.9 * slow[:, t - 1] + good[:, t]
    assert 4000 / 19 / 2 < ess(slow) < 4000 / 19 * 2


def test_nothing_is_said_of_a_trace_that_does_not_move() -> None:
    assert math.isnan(r_hat(np.ones((4, 10))))
    assert math.isnan(ess(np.ones((4, 10))))


@pytest.mark.parametrize("function", [r_hat, ess, lambda t: wbic(t, 10), trace_statistics])
def test_traces_are_refused(function: Any) -> None:
    for trace in (LOSSES[0], LOSSES[:, :0], LOSSES[None]):
        with pytest.raises(ValueError, match=r"trace must be \(chains, draws\)"):
            function(trace)
    broken = LOSSES.copy()
    broken[2, 7] = np.nan
    with pytest.raises(ValueError, match="got nan for chain 2, draw 7"):
        function(broken)


def test_what_needs_more_chains_or_draws_says_so() -> None:
    with pytest.raises(ValueError, match="2 or more by 4 or more"):
        r_hat(LOSSES[:1])
    with pytest.raises(ValueError, match="1 or more by 4 or more"):
        ess(LOSSES[:, :3])
    with pytest.raises(ValueError, match="n must be 1 or more"):
        wbic(LOSSES, 0)


# ArviZ.


RESULTS = {"loss/trace": LOSSES, "nbeta": 10.0, "init_loss": 0.25}


def check_export(data: Any) -> None:
    np.testing.assert_allclose(data["posterior"]["llc"].values, 10 * (LOSSES - 0.25))
    np.testing.assert_array_equal(data["sample_stats"]["loss"].values, LOSSES)
    assert data["posterior"]["llc"].dims == ("chain", "draw")


def test_export_with_the_arviz_that_is_installed() -> None:
    check_export(to_arviz(RESULTS))
    estimator = LLCEstimator(4, 60, 10.0, 0.25)
    for (chain, draw), loss in np.ndenumerate(LOSSES):
        estimator.update(chain, draw, loss)
    check_export(to_arviz(estimator.get_results()))


def test_export_with_arviz_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its parts only arviz-base, whose from_dict is ArviZ 1's, runs beside ArviZ 0.x and on Python 3.11."""
    base = pytest.importorskip("arviz_base")
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__="1.3.0", from_dict=base.from_dict))  # type: ignore[arg-type]
    data = to_arviz(RESULTS)
    assert type(data).__name__ == "DataTree"
    check_export(data)


def test_without_arviz(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    for function in (lambda: r_hat(LOSSES), lambda: ess(LOSSES), lambda: to_arviz(RESULTS)):
        with pytest.raises(MissingExtra, match=r"pip install 'grilly_optim\[sampling\]'"):
            function()


# Sweeps.


def sweep(**options: Any) -> EpsilonBetaSweep:
    options = {"epsilons": [1e-3, 1e-2], "betas": [1, 5, 50], "num_draws": 60, "device": "numpy", **options}
    return epsilon_beta_sweep(START, options.pop("loss_and_grad", quadratic), nbeta=100.0, **options)


def test_points_of_a_sweep_are_estimates() -> None:
    found = sweep(optimizer_kwargs={"localization": 5.0}, measure_mala=True, num_chains=3)
    assert (found.llc.shape, found.losses.shape, found.dimension) == ((2, 3), (2, 3, 3, 60), 5)
    np.testing.assert_allclose(found.nbetas, [100, 500, 5000])
    for e, lr in enumerate((1e-3, 1e-2)):
        single = estimate_learning_coeff_with_summary(
            START,
            quadratic,
            optimizer_kwargs={"lr": lr, "nbeta": 100.0, "localization": 5.0},
            num_draws=60,
            num_chains=3,
            device="numpy",
            measure_mala=True,
        )
        assert (found.losses[e, 0] == single["loss/trace"]).all()
        assert found.llc[e, 0] == single["llc/mean"]
        assert found.std[e, 0] == single["llc/std"]
        assert found.acceptance[e, 0] == single["mala/acceptance"].mean()


def test_points_that_diverge_are_nan_and_the_others_are_not() -> None:
    found = sweep(num_draws=400)
    assert np.isnan(found.llc[1, 2])  # lr h / 4 is 50: every step multiplies by about 100
    assert np.isfinite(found.llc[0, :2]).all()


def test_defaults_of_a_sweep() -> None:
    found = epsilon_beta_sweep(START, quadratic, nbeta=50.0, num_draws=1, num_chains=1, device="numpy")
    np.testing.assert_allclose(found.epsilons, np.geomspace(1e-6, 1e-2, 8))
    np.testing.assert_allclose(found.nbetas, np.geomspace(0.5, 5e4, 8))


def test_large_steps_warn() -> None:
    with pytest.warns(UserWarning, match=r"epsilons go up to 0\.02"):
        sweep(epsilons=[0.02], betas=[1], num_draws=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilons": []}, ValueError, "epsilons must be a list of finite numbers above 0"),
        ({"epsilons": [0.0, 1e-3]}, ValueError, "epsilons must be"),
        ({"betas": [[1.0]]}, ValueError, "betas must be"),
        ({"betas": [math.nan]}, ValueError, "betas must be"),
        ({"betas": ["one"]}, TypeError, "betas must be a list of numbers"),
        ({"optimizer_kwargs": {"lr": 1e-3}}, ValueError, "has 'lr', which the sweep sets"),
        ({"optimizer_kwargs": {"nbeta": 1e3}}, ValueError, "has 'nbeta', which the sweep sets"),
        ({"num_chains": 0}, ValueError, "num_chains must be 1 or more"),
        ({"executor": "threads"}, TypeError, "executor must be"),
    ],
)
def test_a_sweep_refuses(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sweep(**options)


def test_a_sweep_that_fails_names_the_point_and_keeps_the_others() -> None:
    calls = []

    def failing(params: Any) -> Any:
        calls.append(1)
        if len(calls) > 1 + 2 * 4 * 60 + 5:  # the initial loss, two points of four chains, and five steps
            raise OSError("disk full")
        return quadratic(params)

    with pytest.raises(SweepFailed, match=r"lr=0\.001, nbeta=5000: chain 0 failed in step 5: OSError: disk") as raised:
        sweep(loss_and_grad=failing)
    assert np.isfinite(raised.value.sweep.llc[0, :2]).all()
    assert np.isnan(raised.value.sweep.llc.ravel()[2:]).all()


# Pictures.


def test_pictures_are_drawn_without_a_screen(tmp_path: Path) -> None:
    figures = [
        plot_trace(RESULTS, "a title"),
        plot_trace({**RESULTS, "loss/trace": LOSSES[:1]}),
        plot_sweep(sweep(num_draws=400), "a title"),
    ]
    for k, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.subprocess
def test_pictures_need_no_pyplot() -> None:
    code = (
        "import sys, numpy as np; from grilly_optim.sampling import plot_trace; "
        "plot_trace({'loss/trace': np.ones((2, 3)), 'nbeta': 1.0, 'init_loss': 0.0}); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_numbers_in_the_heat_map() -> None:
    llc = np.array([[1.0, np.nan], [-2.0, 1e6]])
    found = sweep(epsilons=[1e-3, 1e-2], betas=[1, 2])
    changed = EpsilonBetaSweep(**{**vars(found), "llc": llc})
    axes = plot_sweep(changed).axes[0]
    assert [t.get_text() for t in axes.texts] == ["1", "x", "-2", "1e+06"]
    shown = axes.images[0].get_array()
    assert shown.mask.tolist() == [[False, True], [True, False]]
    assert axes.images[0].norm.vmax < 2  # what cannot be right does not stretch the scale
    nothing = EpsilonBetaSweep(**{**vars(found), "llc": np.full((2, 2), np.nan)})
    assert [t.get_text() for t in plot_sweep(nothing).axes[0].texts] == ["x"] * 4


@pytest.mark.parametrize("function", [lambda: plot_trace(RESULTS), lambda: plot_sweep(sweep())])
def test_without_matplotlib(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'grilly_optim\[sampling\]'"):
        function()


# The models that estimates are measured on.


@pytest.mark.parametrize(
    ("widths", "rank", "expected"),
    [
        ((5, 3, 5), 0, (6.5, 2)),
        ((5, 4, 5), 2, (10.5, 1)),
        ((5, 5, 5), 3, (12.0, 1)),
        ((4, 4, 4, 4), 0, (5.5, 3)),
        ((4, 4, 4, 4), 2, (7.5, 3)),
        ((3, 3, 3, 3, 3), 1, (4.0, 5)),
        ((10, 10, 10), 5, (47.0, 2)),
        ((10, 10, 10), 10, (50.0, 1)),
        ((5, 10, 5), 3, (12.5, 1)),
        ((6, 4, 8, 6), 2, (13.5, 1)),
    ],
)
def test_known_coefficients_of_linear_networks(widths: tuple[int, ...], rank: int, expected: tuple[float, int]) -> None:
    assert learning_coefficient(widths, rank) == expected


def test_gradients_of_linear_networks_are_finite_differences() -> None:
    network = DeepLinear((3, 4, 2, 5), 2, seed=1)
    assert network([p[None] for p in network.params])[0] == pytest.approx(0, abs=1e-25)
    random = np.random.default_rng(2)
    params = [random.standard_normal((2, *p.shape)) for p in network.params]
    losses, gradients = network(params)
    for k, p in enumerate(params):
        for i in np.ndindex(p.shape):
            moved = [q.copy() for q in params]
            moved[k][i] += 1e-6
            assert (network(moved)[0] - losses)[i[0]] / 1e-6 == pytest.approx(gradients[k][i], rel=1e-3, abs=1e-3)
