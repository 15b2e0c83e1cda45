"""EWC: one quadratic against the sum over tasks, to the last digits that it promises."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.continual import EWC, Fisher
from tests.continual import DTYPES, FORMS, SHAPES, double, draws, dtypes, forms, listed, same, squares
from tests.table import Array, assert_bits

CLOSE = {np.float32: 1e-6, np.float64: 1e-12}

online_or_not = pytest.mark.parametrize(("online", "gamma"), [(False, 1.0), (True, 1.0), (True, 0.7), (True, 0.0)])


def explicit(tasks: list[tuple[list[Array], list[Array]]], theta: list[Array], online: bool, gamma: float) -> float:
    """The penalty as its definition says, in float64."""
    if online:
        F = [np.zeros(x.shape) for x in theta]
        for _, fishers in tasks:
            F = [new + gamma * old for new, old in zip(double(fishers), F, strict=True)]
        tasks = [(tasks[-1][0], [gamma * f for f in F])]
    return 0.5 * math.fsum(
        float(np.sum(F * (x - a) ** 2))
        for anchors, fishers in tasks
        for x, a, F in zip(double(theta), double(anchors), double(fishers), strict=True)
    )


def explicit_gradient(
    tasks: list[tuple[list[Array], list[Array]]], theta: list[Array], online: bool, gamma: float
) -> list[Array]:
    """The gradient as its definition says, in float64."""
    result = [np.zeros(x.shape) for x in theta]
    for k, (anchors, fishers) in enumerate(tasks):
        factor = gamma ** (len(tasks) - k) if online else 1.0
        result = [
            g + factor * F * (x - a)
            for g, x, a, F in zip(
                result, double(theta), double(tasks[-1][0] if online else anchors), double(fishers), strict=True
            )
        ]
    return result


@online_or_not
@pytest.mark.parametrize("number", [1, 2, 3, 20])
@pytest.mark.parametrize("spread", [1e-3, 1.0])
@dtypes
@forms
def test_ewc_is_the_sum_over_tasks(
    form: str, dtype: Any, spread: float, number: int, online: bool, gamma: float
) -> None:
    rng = np.random.default_rng(number)
    count = 1 if form == "array" else len(SHAPES)
    ewc, tasks, theta = EWC(online, gamma), [], draws(rng, dtype)[:count]
    for _ in range(number):
        theta = [np.asarray(x + spread * d, dtype) for x, d in zip(theta, draws(rng, dtype)[:count], strict=True)]
        tasks.append((theta, squares(rng, dtype)[:count]))
        ewc.consolidate(FORMS[form](tasks[-1][0]), FORMS[form](tasks[-1][1]))
    for point in (theta, [np.asarray(x + spread, dtype) for x in theta], [np.zeros_like(x) for x in theta]):
        penalty, grad = ewc.penalty(FORMS[form](point)), ewc.grad(FORMS[form](point))
        assert type(penalty) is float
        assert penalty == pytest.approx(explicit(tasks, point, online, gamma), rel=CLOSE[dtype], abs=0)
        assert type(grad) is type(FORMS[form](point))
        expected = explicit_gradient(tasks, point, online, gamma)
        for i, g in enumerate(listed(grad)):
            assert (g.dtype, g.shape) == (dtype, SHAPES[i])
            # The anchor is rounded to the parameter's precision, the product once more.
            weight = sum(F[i].astype(np.float64) for _, F in tasks)
            reach = max((np.abs(a[i]).max(initial=0) for a, _ in tasks), default=0) + np.abs(point[i])
            assert (np.abs(g - expected[i]) <= 2 * np.finfo(dtype).eps * weight * reach).all()


finite = st.floats(-1e3, 1e3, width=32) | st.sampled_from([1.0, 1.0 + 2**-23, 1.0 + 2**-22, 1.0 - 2**-24])
importance = st.just(0.0) | st.floats(2.0**-40, 2.0**40, width=32)


@settings(max_examples=300, deadline=None)
@given(
    tasks=st.lists(st.tuples(finite, importance), min_size=1, max_size=8),
    x=finite,
    shift=st.floats(-1, 1),
    dtype=st.sampled_from(DTYPES),
)
def test_merged_tasks_are_the_exact_sum(tasks: list[tuple[float, float]], x: float, shift: float, dtype: Any) -> None:
    # In float64 neighbours in the last digits too: their distances are what the penalty is made of.
    offset = 0.0 if dtype is np.float32 else shift
    anchors = [np.array([a + offset], dtype) for a, _ in tasks]
    fishers = [np.array([F], dtype) for _, F in tasks]
    ewc, theta = EWC(), np.array([x + offset], dtype)
    for a, F in zip(anchors, fishers, strict=True):
        ewc.consolidate(a, F)
    exact = sum(
        (Fraction(float(F[0])) * (Fraction(float(theta[0])) - Fraction(float(a[0]))) ** 2)
        for a, F in zip(anchors, fishers, strict=True)
    )
    assert ewc.penalty(theta) == pytest.approx(float(exact / 2), rel=CLOSE[dtype], abs=0)


def test_anchors_one_digit_apart_are_told_apart() -> None:
    for dtype in DTYPES:
        one = np.ones(1, dtype)
        next_one = np.nextafter(one, np.asarray(2, dtype))
        ewc = EWC()
        ewc.consolidate(one, np.full(1, 3.0, dtype))
        ewc.consolidate(next_one, np.full(1, 1.0, dtype))
        gap = float(next_one[0]) - 1.0
        assert ewc.penalty(one) == pytest.approx(0.5 * gap**2, rel=CLOSE[dtype], abs=0)
        assert ewc.penalty(next_one) == pytest.approx(1.5 * gap**2, rel=CLOSE[dtype], abs=0)


@online_or_not
@dtypes
def test_one_task_is_held_exactly(dtype: Any, online: bool, gamma: float) -> None:
    rng = np.random.default_rng(4)
    ewc, anchors, fishers, theta = EWC(online, gamma), draws(rng, dtype), squares(rng, dtype), draws(rng, dtype)
    ewc.consolidate(anchors, fishers)
    for g, x, a, F in zip(ewc.grad(theta), theta, anchors, fishers, strict=True):
        weight = np.asarray((gamma if online else 1.0) * F.astype(np.float64), dtype)
        assert_bits(g, np.asarray(weight * (x - a)))
    assert ewc.penalty(anchors) == 0.0
    for g in ewc.grad(anchors):
        assert not g.any()


def test_the_anchor_is_the_last_one_where_nothing_is_held() -> None:
    ewc = EWC()
    for a, F in [(1.0, [0.0, 0.0, 2.0]), (0.1, [0.0, 3.0, 0.0]), (0.3, [0.0, 0.0, 0.0])]:
        ewc.consolidate(np.full(3, a, np.float32), np.array(F, np.float32))
    weights, anchors = ewc._quadratic() or ([], [])
    same(weights, [np.array([0.0, 3.0, 2.0], np.float32)])
    same(anchors, [np.array([0.3, 0.1, 1.0], np.float32)])


def test_memory_does_not_grow_with_the_number_of_tasks() -> None:
    rng, sizes = np.random.default_rng(5), []
    ewc = EWC()
    for _ in range(30):
        ewc.consolidate(draws(rng), squares(rng))
        sizes.append(len(pickle.dumps(ewc.state_dict())))
    assert max(sizes) == min(sizes)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_the_older_fisher_decays_once_per_task_however_often_it_is_asked(gamma: float) -> None:
    ewc, F, a = EWC(online=True, gamma=gamma), np.array([2.0]), np.zeros(1)
    ewc.consolidate(a, F)
    for _ in range(5):
        assert ewc.penalty(a + 1) == 0.5 * gamma * 2.0
        assert_bits(ewc.grad(a + 1), np.array([gamma * 2.0]))
    ewc.consolidate(a, F)
    assert ewc.penalty(a + 1) == 0.5 * gamma * (2.0 + gamma * 2.0)


def test_the_prior_counts_once_and_is_not_scaled() -> None:
    G, a = np.full((4, 1), 3.0), np.zeros(1)
    ewc = EWC(online=True)
    ewc.consolidate(a, Fisher.from_per_sample_grads(G, N=100, proper_scaling=True, prior=0.5))
    ewc.consolidate(a, Fisher.from_per_sample_grads(G, N=10, proper_scaling=True))
    assert ewc.penalty(a + 1) == 0.5 * (100 * 9.0 + 10 * 9.0 + 0.5)


def test_a_fisher_may_come_in_another_precision() -> None:
    ewc, F = EWC(), np.array([0.1])
    ewc.consolidate(np.zeros(1, np.float32), F)
    assert_bits(ewc.grad(np.ones(1, np.float32)), F.astype(np.float32))
    ewc.consolidate(np.zeros(1, np.float32), np.array([2]))
    assert_bits(ewc.grad(np.ones(1, np.float32)), np.array([2.1], np.float32))


def test_theta_of_another_precision_gets_a_gradient_in_its_own() -> None:
    ewc = EWC()
    ewc.consolidate(np.full(1, 0.5, np.float32), np.full(1, 2.0, np.float32))
    assert_bits(ewc.grad(np.array([0.6])), np.array([2 * (0.6 - 0.5)]))
    assert ewc.penalty(np.array([0.6])) == (0.6 - 0.5) ** 2


def test_names_are_matched_not_positions() -> None:
    ewc = EWC()
    ewc.consolidate({"a": np.ones(1), "b": np.zeros(1)}, {"b": np.full(1, 5.0), "a": np.full(1, 3.0)})
    same(ewc.grad({"b": np.ones(1), "a": np.ones(1)}), {"a": np.zeros(1), "b": np.full(1, 5.0)})
    same(ewc.grad([np.zeros(1), np.zeros(1)]), [np.full(1, -3.0), np.zeros(1)])


@pytest.mark.parametrize(
    ("F", "error", "message"),
    [
        ([np.ones(2), np.array([-1e-9])], ValueError, "F of parameter 1 must be 0 or more everywhere, got -1e-09"),
        ([np.ones(2), np.array([np.nan])], ValueError, "F of parameter 1 must be finite"),
        ([np.ones(2), np.array([np.inf])], ValueError, "F of parameter 1 must be finite"),
        ([np.ones(2), np.array([1e39])], ValueError, "F of parameter 1 is too large for float32"),
        ([np.ones(2), np.array([3e38])], ValueError, "the sum of F of parameter 1 is too large for float32"),
        ([np.ones(2), np.ones(2)], ValueError, "F of parameter 1 has shape (2,), expected (1,)"),
        ([np.ones(2)], ValueError, "F has 1 arrays, and there are 2 parameters"),
        ([np.ones(2), 1.0], TypeError, "F of parameter 1 must be a NumPy array, got float"),
        ([np.ones(2), np.ones(1, complex)], TypeError, "F of parameter 1 must hold real numbers"),
        (Fisher(), ValueError, "this Fisher has seen no sample yet"),
        (None, TypeError, "F must be an array, a sequence of arrays or a dict of arrays by name, got NoneType"),
    ],
)
def test_a_fisher_that_does_not_fit_is_refused(F: Any, error: type[Exception], message: str) -> None:
    theta = [np.ones(2, np.float32), np.ones(1, np.float32)]
    ewc = EWC()
    ewc.consolidate(theta, [np.ones(2), np.full(1, 3e38)])
    before = ewc.state_dict()
    with pytest.raises(error) as raised:
        ewc.consolidate(theta, F)
    assert message in str(raised.value)
    same(ewc.state_dict(), before)
    assert ewc._version == 1


def test_a_penalty_too_large_for_float64_is_refused() -> None:
    ewc = EWC()
    ewc.consolidate(np.array([1e200]), np.ones(1))
    with pytest.raises(ValueError, match="too large for float64"):
        ewc.consolidate(np.array([-1e200]), np.ones(1))
    assert ewc.penalty(np.array([1e200])) == 0.0
