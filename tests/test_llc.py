"""The local learning coefficient: which losses are draws, what comes out, and what is refused."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.sampling import (
    BAOAB,
    SGHMC,
    SGLD,
    SGMCMC,
    SGNHT,
    ChainFailed,
    LLCEstimator,
    OnlineLLCEstimator,
    default_nbeta,
    estimate_learning_coeff,
    estimate_learning_coeff_with_summary,
)
from grilly_optim.sampling._chains import Job
from tests.llc import CURVATURES, KWARGS, Minibatches, by_hand, quadratic, two_parts

START = np.array([0.1, -0.2, 0.3, 0.0, 0.05])


def estimate(params: Any = START, loss_and_grad: Any = quadratic, **options: Any) -> dict[str, Any]:
    options = {"optimizer_kwargs": KWARGS, "num_draws": 5, "num_chains": 2, "device": "numpy", **options}
    return estimate_learning_coeff_with_summary(params, loss_and_grad, **options)


# Which losses are draws.


@pytest.mark.parametrize(
    ("draws", "burn_in", "spacing", "expected"),
    [
        (3, 0, 1, [0, 1, 2]),
        (3, 2, 1, [2, 3, 4]),
        (3, 0, 4, [3, 7, 11]),
        (2, 5, 3, [7, 10]),
    ],
)
def test_a_draw_comes_at_the_end_of_every_interval_after_the_burn_in(
    draws: int, burn_in: int, spacing: int, expected: list[int]
) -> None:
    job = Job((), quadratic, False, SGMCMC.sgld, {}, draws, burn_in, spacing, 0, "numpy")
    steps = {i: job.draw_at(i) for i in range(job.steps)}
    assert [i for i, k in steps.items() if k is not None] == expected
    assert [steps[i] for i in expected] == list(range(draws))
    seen: list[float] = []

    def counting(params: Any) -> Any:
        seen.append(float(len(seen)))
        return seen[-1], [np.zeros(5)]

    found = estimate(
        loss_and_grad=counting,
        num_chains=1,
        num_draws=draws,
        num_burnin_steps=burn_in,
        num_steps_bw_draws=spacing,
        init_loss=0.0,
    )
    assert found["loss/trace"].tolist() == [[float(i) for i in expected]]
    assert len(seen) == job.steps


def test_draws_are_losses_before_the_step() -> None:
    assert estimate()["loss/trace"][:, 0].tolist() == [quadratic([START])[0]] * 2


@settings(max_examples=25, deadline=None)
@given(
    chains=st.integers(1, 5),
    draws=st.integers(1, 6),
    burn_in=st.integers(0, 3),
    spacing=st.integers(1, 3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**64 - 1),
    vectorized=st.booleans(),
)
def test_trace_is_that_of_the_loop_by_hand(
    chains: int, draws: int, burn_in: int, spacing: int, dtype: Any, seed: int, vectorized: bool
) -> None:
    """To the last bit, for every chain, alone and side by side."""
    params = {"w": np.arange(6, dtype=dtype).reshape(2, 3) / 10, "b": np.array(0.5, dtype)}
    found = estimate(
        params,
        two_parts,
        num_draws=draws,
        num_chains=chains,
        num_burnin_steps=burn_in,
        num_steps_bw_draws=spacing,
        seed=seed,
        vectorized=vectorized,
    )
    for c in range(chains):
        expected = by_hand(
            list(params.values()), two_parts, c, draws=draws, burn_in=burn_in, spacing=spacing, seed=seed
        )
        assert found["loss/trace"][c].tolist() == expected


@pytest.mark.parametrize("vectorized", [False, True])
def test_every_device_gives_the_same_trace(device: str, vectorized: bool) -> None:
    found = estimate(START.astype(np.float32), device=device, vectorized=vectorized, num_draws=50, num_chains=3)
    for c in range(3):
        assert found["loss/trace"][c].tolist() == by_hand([START.astype(np.float32)], quadratic, c, draws=50)


def test_a_chain_that_stops_and_goes_on_from_its_state_is_the_same() -> None:
    found = estimate(num_draws=30)
    assert found["loss/trace"][1].tolist() == by_hand([START], quadratic, 1, draws=30, restart_at=11)


@pytest.mark.parametrize(
    ("method", "kwargs"),
    [
        (SGMCMC.sgld, KWARGS),
        (SGMCMC.rmsprop_sgld, KWARGS),
        (SGMCMC.sgnht, {"lr": 1e-4, "nbeta": 100.0}),
        (SGLD, {**KWARGS, "bounding_box_size": 0.1}),
        (SGMCMC.sgld, {**KWARGS, "mask": [np.array([1.0, 0, 1, 1, 0])]}),
        (SGNHT, {"lr": 1e-4, "nbeta": 100.0}),
        (SGHMC, {"lr": 1e-2, "nbeta": 100.0}),
        (BAOAB, {"lr": 1e-2, "nbeta": 100.0}),
    ],
    ids=["sgld", "rmsprop_sgld", "sgnht", "SGLD box", "mask", "SGNHT", "SGHMC", "BAOAB"],
)
def test_every_sampler_gives_the_same_trace_side_by_side(method: Any, kwargs: dict[str, Any]) -> None:
    options = {"sampling_method": method, "optimizer_kwargs": kwargs, "num_draws": 40, "num_chains": 3}
    alone, together = estimate(**options), estimate(**options, vectorized=True)
    assert alone["loss/trace"].tolist() == together["loss/trace"].tolist()
    assert len(set(alone["loss/trace"][:, -1].tolist())) == 3


def test_a_minibatch_function_of_each_chain() -> None:
    """It is asked for by the chain's number; the object itself gives the loss of all data."""
    losses = Minibatches()
    found = estimate(loss_and_grad=losses, num_draws=10, num_chains=3)
    assert found["init_loss"] == losses([START])[0]
    for c in range(3):
        own = losses.for_chains(range(c, c + 1))
        assert found["loss/trace"][c].tolist() == by_hand([START], own, c, draws=10)


@pytest.mark.parametrize(
    "params", [START, [START], (START,), {"w": START}, np.asfortranarray(START), START[::-1][::-1]], ids=lambda _: ""
)
def test_parameters_come_as_a_list_and_are_not_changed(params: Any) -> None:
    kept = START.copy()
    seen = []

    def looking(arrays: Any) -> Any:
        assert type(arrays) is list
        seen.append(arrays[0])
        return quadratic(arrays)

    estimate(params, looking)
    assert (kept == START).all()
    assert not any(np.shares_memory(START, a) for a in seen)


def test_all_chains_begin_where_the_parameters_were_when_the_call_came() -> None:
    mine = START.copy()

    def changing(arrays: Any) -> Any:
        mine[:] = 7
        return quadratic(arrays)

    assert estimate(mine, changing)["loss/trace"].tolist() == estimate()["loss/trace"].tolist()


# What comes out.


def test_results_of_the_estimate() -> None:
    found = estimate(num_chains=3, num_draws=7)
    losses, init = found["loss/trace"], quadratic([START])[0]
    llc = 100 * (losses.mean(axis=1) - init)
    assert found["llc/mean"] == pytest.approx(llc.mean())
    assert found["llc/std"] == pytest.approx(np.sqrt(((llc - llc.mean()) ** 2).sum() / 2))
    assert [found[f"llc-chain/{i}"] for i in range(3)] == pytest.approx(list(llc))
    assert (found["init_loss"], found["nbeta"]) == (init, 100.0)
    assert estimate_learning_coeff(
        START, quadratic, optimizer_kwargs=KWARGS, num_draws=7, num_chains=3, device="numpy"
    ) == pytest.approx(llc.mean())


def test_online_results_are_draw_by_draw() -> None:
    found, plain = estimate(online=True), estimate()
    trace = 100 * (plain["loss/trace"] - plain["init_loss"])
    np.testing.assert_allclose(found["llc/trace"], trace)
    np.testing.assert_allclose(found["llc/means"], trace.mean(axis=0))
    np.testing.assert_allclose(found["llc/stds"], trace.std(axis=0, ddof=1))
    assert (found["loss/trace"] == plain["loss/trace"]).all()


def test_one_chain_has_no_std() -> None:
    assert math.isnan(estimate(num_chains=1)["llc/std"])
    assert np.isnan(estimate(num_chains=1, online=True)["llc/stds"]).all()


@pytest.mark.parametrize("given", [0.0, 0, -1.5, np.float32(2)])
def test_a_given_init_loss_is_taken_as_it_is(given: float) -> None:
    calls = []

    def counting(params: Any) -> Any:
        calls.append(1)
        return quadratic(params)

    found = estimate(loss_and_grad=counting, init_loss=given)
    assert found["init_loss"] == given
    assert found["llc/mean"] == pytest.approx(100 * (found["loss/trace"].mean() - given))
    assert len(calls) == 10  # none besides those of two chains


def test_a_gradient_of_none_leaves_the_parameter_where_it_is() -> None:
    def half(params: Any) -> Any:
        assert params[1] == 0.5
        return two_parts(params)[0], [params[0], None]

    estimate([np.ones((2, 3)), np.array(0.5)], half, measure_mala=True)


def exact(lr: float, nbeta: float, gamma: float, decay: float) -> float:
    """The stationary variance of the recurrence itself is 1 / (h (1 - lr h / 4)), h = nbeta a + gamma + decay."""
    h = nbeta * CURVATURES + gamma + decay
    return float((nbeta * CURVATURES / (2 * h * (1 - lr * h / 4))).sum())


@pytest.mark.cases("cpu")
@pytest.mark.parametrize(("lr", "gamma", "decay", "seed"), [(8e-3, 0.0, 0.0, 41), (2e-3, 5.0, 20.0, 42)])
def test_quadratic_has_its_exact_coefficient(lr: float, gamma: float, decay: float, seed: int, device: str) -> None:
    """64 independent chains: beyond 4.5 standard errors about once in 30,000 seeds (Student's t, 63 degrees).

    The true error is about 0.03; a drift of lr instead of lr / 2, noise of lr instead of its root, or a prior with
    nbeta is off by more than ten of them.
    """
    found = estimate_learning_coeff_with_summary(
        np.zeros(5),
        quadratic,
        optimizer_kwargs={"lr": lr, "nbeta": 100.0, "localization": gamma, "weight_decay": decay},
        num_draws=1500,
        num_chains=64,
        num_burnin_steps=500,
        seed=seed,
        vectorized=True,
        device=device,
    )
    error = found["llc/std"] / 8
    assert error < 0.06
    assert abs(found["llc/mean"] - exact(lr, 100.0, gamma, decay)) < 4.5 * error


# Estimators.


def test_an_estimator_takes_losses_in_any_order() -> None:
    for kind in (LLCEstimator, OnlineLLCEstimator):
        estimator = kind(2, 3, 10.0, 0.5)
        for k in np.random.default_rng(0).permutation(6):
            estimator.update(int(k) // 3, int(k) % 3, np.float32(k))
        assert estimator.get_results()["loss/trace"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_incomplete_estimate_names_the_chain() -> None:
    estimator = LLCEstimator(2, 2, 10.0, 0.5)
    for chain, draw in ((0, 0), (0, 1), (1, 1)):
        estimator.update(chain, draw, 1.0)
    with pytest.raises(RuntimeError, match="chain 1 has 1 of 2 draws"):
        estimator.get_results()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, math.nan), RuntimeError, "the loss of chain 0 in draw 1 is nan"),
        ((1, 0, math.inf), RuntimeError, "the loss of chain 1 in draw 0 is inf"),
        ((2, 0, 1.0), ValueError, "chain must be from 0 to 1, got 2"),
        ((0, -1, 1.0), ValueError, "draw must be 0 or more, got -1"),
        ((0, 3, 1.0), ValueError, "draw must be from 0 to 2, got 3"),
        ((0.0, 0, 1.0), TypeError, "chain must be a whole number, got 0.0"),
        ((0, 0, "low"), TypeError, "loss must be a real number, got 'low'"),
    ],
)
@pytest.mark.parametrize("kind", [LLCEstimator, OnlineLLCEstimator])
def test_an_estimator_refuses(kind: Any, arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(2, 3, 10.0, 0.5).update(*arguments)


@pytest.mark.parametrize("nbeta", [0, -1.0, math.nan, math.inf])
def test_nbeta_is_above_0(nbeta: float) -> None:
    for kind in (LLCEstimator, OnlineLLCEstimator):
        with pytest.raises(ValueError, match="nbeta must be above 0"):
            kind(1, 1, nbeta, 0.0)
    with pytest.raises(ValueError, match=r'optimizer_kwargs\["nbeta"\] must be above 0'):
        estimate(optimizer_kwargs={"lr": 1e-3, "nbeta": nbeta})


@pytest.mark.parametrize(("n", "expected"), [(1000, 144.7648), (math.e, math.e), (2, 2.885390)])
def test_default_nbeta(n: float, expected: float) -> None:
    assert default_nbeta(n) == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 0, -5])
def test_default_nbeta_of_too_few_is_1_with_a_warning(n: int) -> None:
    with pytest.warns(UserWarning, match=f"for n={n}: nbeta is 1"):
        assert default_nbeta(n) == 1.0


@pytest.mark.parametrize(("n", "error"), [(math.nan, ValueError), (math.inf, ValueError), ("many", TypeError)])
def test_default_nbeta_refuses(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="n must be"):
        default_nbeta(n)


# What is refused, before the loss function is called.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer_kwargs": {"lr": 1e-3}}, ValueError, "default_nbeta"),
        ({"optimizer_kwargs": {"nbeta": lambda: 10.0}}, TypeError, "nbeta.* must be a number"),
        ({"optimizer_kwargs": {**KWARGS, "lr": 0.0}}, ValueError, "lr must be above 0"),
        ({"optimizer_kwargs": {**KWARGS, "lr": -1e-3}}, ValueError, "lr must be above 0"),
        ({"optimizer_kwargs": {**KWARGS, "localization": -1.0}}, ValueError, "localization must be 0 or more"),
        ({"optimizer_kwargs": {**KWARGS, "mask": [np.ones(4)]}}, ValueError, "mask"),
        ({"optimizer_kwargs": {**KWARGS, "bounding_box_size": -1.0}}, ValueError, "bounding_box_size must be 0 or"),
        ({"optimizer_kwargs": {**KWARGS, "momentum": 0.9}}, TypeError, "momentum"),
        ({"optimizer_kwargs": {**KWARGS, "seed": 3}}, ValueError, "has 'seed', which is for the estimate to set"),
        ({"optimizer_kwargs": {**KWARGS, "num_chains": 3}}, ValueError, "has 'num_chains'"),
        ({"optimizer_kwargs": None}, TypeError, "optimizer_kwargs must be a dict, got NoneType"),
        ({"num_draws": 0}, ValueError, "num_draws must be 1 or more, got 0"),
        ({"num_draws": 2.0}, TypeError, "num_draws must be a whole number, got 2.0"),
        ({"num_chains": 0}, ValueError, "num_chains must be 1 or more, got 0"),
        ({"num_burnin_steps": -1}, ValueError, "num_burnin_steps must be 0 or more"),
        ({"num_steps_bw_draws": 0}, ValueError, "num_steps_bw_draws must be 1 or more"),
        ({"init_loss": math.nan}, ValueError, "init_loss must be finite, got nan"),
        ({"init_loss": "low"}, TypeError, "init_loss must be a real number"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"device": "tpu"}, RuntimeError, "'tpu' is not known"),
        ({"executor": 4}, TypeError, "executor must be a concurrent.futures.Executor or None, got int"),
        ({"sampling_method": "sgld"}, TypeError, "sampling_method must be callable, got str"),
        ({"loss_and_grad": 3}, TypeError, "loss_and_grad must be callable, got int"),
        ({"params": 3}, TypeError, "params must be an array, .* got int"),
        ({"params": [[1.0]]}, TypeError, r"params\[0\] must be a NumPy array, got list"),
        ({"params": []}, ValueError, "params is empty"),
        ({"params": np.zeros(3, int)}, TypeError, "parameter 0 must be float32 or float64, got dtype int64"),
        ({"device": 4}, TypeError, "device must be a string, got int"),
        ({"measure_mala": True, "sampling_method": SGMCMC.rmsprop_sgld}, ValueError, "measure_mala is for SGMCMC.sgld"),
        (
            {"measure_mala": True, "optimizer_kwargs": {**KWARGS, "bounding_box_size": 1.0}},
            ValueError,
            "measure_mala is for SGLD with lr, nbeta, localization, weight_decay, .* has 'bounding_box_size'",
        ),
    ],
    ids=lambda x: str(x)[:60] if isinstance(x, str) else "",
)
def test_refused_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    calls = []

    def never(params: Any) -> Any:
        calls.append(1)
        return quadratic(params)

    with pytest.raises(error, match=message):
        estimate(**{"loss_and_grad": never, **options})
    assert not calls


def test_warnings_of_the_sampler_come_once_per_place() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        estimate(optimizer_kwargs={"lr": 1e-3, "nbeta": 1.0}, num_chains=5)
    assert len([w for w in seen if "nbeta is 1" in str(w.message)]) == 1


def bad(result: Any, at: int = 0) -> Any:
    calls = []

    def loss_and_grad(params: Any) -> Any:
        calls.append(1)
        return result if len(calls) > at else quadratic(params)

    return loss_and_grad


G = [np.zeros(5)]


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (1.0, TypeError, r"must return a tuple \(loss, gradients\), got float"),
        ((1.0, G, 3), TypeError, "got a tuple of 3"),
        ([1.0, G], TypeError, "got a list of 2"),
        (("low", G), TypeError, "must return a real loss, got str"),
        ((1j, G), TypeError, "must return a real loss, got complex"),
        ((np.zeros(1), G), ValueError, r"must be a single number, got shape \(1,\)"),
        ((1.0, G[0]), TypeError, "must return a list of gradients, got an array of float64"),
        ((1.0, G * 2), ValueError, "returned 2 gradients for 1 parameters"),
    ],
)
def test_a_wrong_answer_of_the_loss_function(result: Any, error: type[Exception], message: str) -> None:
    """At the initial parameters as it is, in a chain with its number and the step."""
    with pytest.raises(error, match=message):
        estimate(loss_and_grad=bad(result))
    with pytest.raises(ChainFailed, match=rf"chain 1 failed in step 2: {error.__name__}: .*{message}") as raised:
        estimate(loss_and_grad=bad(result, at=7), init_loss=0.5)
    assert (raised.value.chain, raised.value.step, raised.value.diverged) == (1, 2, False)
    assert isinstance(raised.value.__cause__, error)
    assert {c: losses.tolist() for c, losses in raised.value.results.items()} == {
        0: by_hand([START], quadratic, 0, draws=5)
    }


@pytest.mark.parametrize("gradient", [np.zeros(4), np.zeros((1, 5))])
def test_a_gradient_of_the_wrong_shape(gradient: Any) -> None:
    with pytest.raises(
        ChainFailed, match="chain 0 failed in step 3: ValueError: the gradient of parameter 0 has shape"
    ):
        estimate(loss_and_grad=bad((1.0, [gradient]), at=3), init_loss=0.5)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_chain_step_and_draw(loss: float) -> None:
    with pytest.raises(
        ChainFailed, match=f"the loss of chain 1 is {loss} in step 3, for draw 1: a smaller lr"
    ) as raised:
        estimate(
            loss_and_grad=bad((loss, G), at=8), init_loss=0.5, num_draws=2, num_steps_bw_draws=2, num_burnin_steps=1
        )
    assert (raised.value.chain, raised.value.step, raised.value.diverged) == (1, 3, True)
    assert list(raised.value.results) == [0]
    with pytest.raises(ChainFailed, match=r"chain 0 is .* in step 1, in the burn-in"):
        estimate(loss_and_grad=bad((loss, G), at=1), init_loss=0.5, num_burnin_steps=2)
    with pytest.raises(ValueError, match="the loss at params is"):
        estimate(loss_and_grad=bad((loss, G)))


def test_a_chain_that_diverges_is_found_among_others_side_by_side() -> None:
    def one_bad(params: Any) -> Any:
        loss, gradients = quadratic(params)
        if len(loss) > 1 and calls.append(1) is None and len(calls) == 4:
            loss[2] = np.nan
        return loss, gradients

    calls: list[int] = []
    with pytest.raises(ChainFailed, match="the loss of chain 2 is nan in step 3, for draw 3"):
        estimate(loss_and_grad=one_bad, vectorized=True, num_chains=4)


@pytest.mark.parametrize("shape", [(), (1, 3), (4,)])
def test_losses_of_the_wrong_shape_side_by_side(shape: tuple[int, ...]) -> None:
    with pytest.raises(ChainFailed, match=r"the batch of chains 0 to 2 failed in step 0: .* must be shape \(3,\)"):
        estimate(loss_and_grad=lambda params: (np.zeros(shape), params), vectorized=True, num_chains=3, init_loss=0.0)


def test_an_error_of_the_loss_function_names_the_chain_and_is_the_cause() -> None:
    def raises(params: Any) -> Any:
        raise FileNotFoundError("data.npy")

    with pytest.raises(FileNotFoundError, match=r"data\.npy"):
        estimate(loss_and_grad=raises)
    with pytest.raises(ChainFailed, match=r"chain 0 failed in step 0: FileNotFoundError: data\.npy") as raised:
        estimate(loss_and_grad=raises, init_loss=0.0)
    assert isinstance(raised.value.__cause__, FileNotFoundError)


# The bar.


def test_progress_shows_all_steps_and_the_mean_loss(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ({}, {"vectorized": True}):
        estimate(num_draws=10, num_chains=3, num_burnin_steps=5, progress=True, **options)
        err = capsys.readouterr().err
        assert "45/45" in err
        assert "loss 0." in err
    estimate()
    assert capsys.readouterr().err == ""
