"""What EWC and synaptic intelligence have in common: forms, gradients, states, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.continual import EWC, Fisher, SynapticIntelligence
from tests.continual import CONSOLIDATED, FORMS, NEW, SHAPES, draws, dtypes, forms, same, squares
from tests.table import assert_bits

penalties = pytest.mark.parametrize("name", CONSOLIDATED)


@forms
@dtypes
@penalties
def test_before_the_first_consolidation_nothing_is_held(name: str, dtype: Any, form: str) -> None:
    penalty, theta = NEW[name](), draws(np.random.default_rng(7), dtype)
    assert penalty.penalty(FORMS[form](theta)) == 0.0
    same(penalty.grad(FORMS[form](theta)), FORMS[form]([np.zeros_like(x) for x in theta]))
    assert penalty._quadratic() is None
    assert penalty._version == 0


@dtypes
@penalties
def test_the_gradient_is_weight_times_distance_to_the_last_bit(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(8)
    penalty, theta = CONSOLIDATED[name](draws(rng, dtype)), draws(rng, dtype)
    weights, anchors = penalty._quadratic()
    for g, w, x, a in zip(penalty.grad(theta), weights, theta, anchors, strict=True):
        assert w.dtype == a.dtype == dtype
        assert_bits(g, np.asarray(w * (x - a)))


@penalties
def test_the_gradient_is_the_penalty_s_slope(name: str) -> None:
    rng = np.random.default_rng(9)
    penalty, theta, h = CONSOLIDATED[name](draws(rng)), draws(rng), 1e-5
    for x, g in zip(theta, penalty.grad(theta), strict=True):
        for i in np.ndindex(x.shape):
            kept = x[i].copy()
            x[i] = kept + h
            above = penalty.penalty(theta)
            x[i] = kept - h
            below = penalty.penalty(theta)
            x[i] = kept
            assert g[i] == pytest.approx((above - below) / (2 * h), rel=1e-6, abs=1e-6)


@penalties
def test_the_version_tells_of_every_change(name: str) -> None:
    theta = draws(np.random.default_rng(10))
    penalty = CONSOLIDATED[name](theta)
    assert penalty._version == 2
    penalty.penalty(theta)
    penalty.grad(theta)
    saved = penalty.state_dict()
    assert penalty._version == 2
    penalty.load_state_dict(saved)
    assert penalty._version == 3


@penalties
def test_later_changes_of_arrays_do_not_leak_in(name: str) -> None:
    """Every array that was handed over is spoiled at once, by a caller who uses it again."""

    def run(spoil: Callable[..., None]) -> Any:
        rng = np.random.default_rng(11)
        penalty = NEW[name]()
        for _ in range(2):
            before, after, others = draws(rng), draws(rng), squares(rng)
            if isinstance(penalty, EWC):
                penalty.consolidate(after, others)
                spoil(after, others)
                continue
            penalty.pre_step(before)
            spoil(before)
            penalty.post_step(after, others)
            kept = copy.deepcopy(after)
            spoil(after, others)
            changes = draws(rng)
            given = copy.deepcopy(changes)
            penalty.post_step(kept, kept, delta=changes)
            same(changes, given)
            penalty.consolidate(kept)
            spoil(kept, changes)
        return penalty

    def spoil(*lists: list[Any]) -> None:
        for array in (a for arrays in lists for a in arrays):
            array[...] = 99.0

    same(run(spoil).state_dict(), run(lambda *_: None).state_dict())


@penalties
def test_changes_of_what_is_given_out_do_not_leak_in(name: str) -> None:
    theta = draws(np.random.default_rng(12))
    penalty, reference = CONSOLIDATED[name](theta), CONSOLIDATED[name](theta)
    if name == "si":
        penalty.pre_step(theta)
        reference.pre_step(theta)

    def spoil(saved: dict[str, Any]) -> None:
        for array in (a for value in saved.values() if isinstance(value, list) for a in value):
            array[...] = 99.0

    spoil({"gradient": penalty.grad(theta)})
    spoil(penalty.state_dict())
    same(penalty.state_dict(), reference.state_dict())
    saved = penalty.state_dict()
    penalty.load_state_dict(saved)
    spoil(saved)
    same(penalty.state_dict(), reference.state_dict())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@penalties
def test_what_is_not_finite_goes_through_penalty_and_gradient(name: str, value: float) -> None:
    penalty = CONSOLIDATED[name](draws(np.random.default_rng(13)))
    theta = [np.full(s, value) for s in SHAPES]
    assert not np.isfinite(penalty.penalty(theta))
    assert np.isnan(penalty.grad(theta)[0]).all() == np.isnan(value)


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        ([np.ones(2)], ValueError, "theta has 1 arrays, and there are 2 parameters"),
        ([np.ones(2), np.ones(2)], ValueError, "theta of parameter 1 has shape (2,), expected (1,)"),
        ([np.ones(2), np.ones(1, int)], TypeError, "theta of parameter 1 must be float32 or float64, got dtype int64"),
        ([np.ones(2), np.ones(1, ">f8")], TypeError, "theta of parameter 1 must be float32 or float64, got dtype >f8"),
        ([np.ones(2), [1.0]], TypeError, "theta of parameter 1 must be a NumPy array, got list"),
        ({"a": np.ones(2), "b": np.ones(1)}, TypeError, "the parameters came without names before: pass a list"),
        ("theta", TypeError, "theta must be an array, a sequence of arrays or a dict of arrays by name, got str"),
        ([], ValueError, "theta is empty"),
    ],
)
@penalties
def test_theta_that_does_not_fit_is_refused(name: str, theta: Any, error: type[Exception], message: str) -> None:
    penalty = CONSOLIDATED[name]([np.ones(2), np.ones(1)])
    before = penalty.state_dict()
    ones = [np.ones(2), np.ones(1)]
    calls: list[Callable[[], Any]] = [lambda: penalty.penalty(theta), lambda: penalty.grad(theta)]
    if isinstance(penalty, EWC):
        calls.append(lambda: penalty.consolidate(theta, ones))
    else:
        calls += [
            lambda: penalty.pre_step(theta),
            lambda: penalty.post_step(theta, ones, ones),
            lambda: penalty.consolidate(theta),
        ]
    for call in calls:
        with pytest.raises(error) as raised:
            call()
        assert message in str(raised.value)
        same(penalty.state_dict(), before)


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        ([np.ones(2), np.array([np.nan])], ValueError, "theta of parameter 1 must be finite, and has NaN or infinity"),
        ([np.ones(2), np.array([-np.inf])], ValueError, "theta of parameter 1 must be finite, and has NaN or infinity"),
        ([np.ones(2), np.ones(1, np.float32)], TypeError, "theta of parameter 1 is float32, and was float64 before"),
    ],
)
@penalties
def test_what_would_be_kept_must_be_finite_and_of_one_precision(
    name: str, theta: Any, error: type[Exception], message: str
) -> None:
    ones = [np.ones(2), np.ones(1)]
    penalty = CONSOLIDATED[name](ones)
    before = penalty.state_dict()
    calls: list[Callable[[], Any]] = [lambda: penalty.consolidate(theta)]
    if isinstance(penalty, EWC):
        calls = [lambda: penalty.consolidate(theta, ones)]
    else:
        calls += [lambda: penalty.pre_step(theta), lambda: penalty.post_step(theta, ones, ones)]
    for call in calls:
        with pytest.raises(error) as raised:
            call()
        assert message in str(raised.value)
        same(penalty.state_dict(), before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EWC(online=1), TypeError, "online must be True or False, got 1"),
        (lambda: EWC(gamma=1.5), ValueError, "gamma must be in [0, 1], got 1.5"),
        (lambda: EWC(True, -0.1), ValueError, "gamma must be"),
        (lambda: EWC(True, np.nan), ValueError, "gamma must be"),
        (lambda: EWC(True, "1"), TypeError, "gamma must be a real number"),
        (lambda: SynapticIntelligence(0.0), ValueError, "epsilon must be above 0, got 0.0"),
        (lambda: SynapticIntelligence(-1e-3), ValueError, "epsilon must be"),
        (lambda: SynapticIntelligence(np.inf), ValueError, "epsilon must be"),
        (lambda: SynapticIntelligence(None), TypeError, "epsilon must be a real number"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert message in str(raised.value)


@forms
@dtypes
@penalties
def test_a_resumed_penalty_goes_on_with_the_same_bits(name: str, dtype: Any, form: str) -> None:
    rng = np.random.default_rng(14)
    count = 1 if form == "array" else len(SHAPES)
    thetas = [draws(rng, dtype)[:count] for _ in range(5)]
    fishers = [squares(rng, dtype)[:count] for _ in range(5)]

    def run(interrupt: bool) -> Any:
        penalty = NEW[name]()
        for t in range(1, 5):
            for stage in range(3):
                if interrupt:
                    saved = copy.deepcopy(penalty.state_dict())
                    penalty = EWC() if isinstance(penalty, EWC) else SynapticIntelligence()
                    penalty.load_state_dict(saved)
                if isinstance(penalty, EWC):
                    if stage == 0:
                        penalty.consolidate(FORMS[form](thetas[t]), FORMS[form](fishers[t]))
                elif stage == 0:
                    penalty.pre_step(FORMS[form](thetas[t - 1]))
                elif stage == 1:
                    penalty.post_step(FORMS[form](thetas[t]), FORMS[form](thetas[0]))
                else:
                    penalty.consolidate(FORMS[form](thetas[t]))
        return penalty

    whole, parts = run(False), run(True)
    same(parts.state_dict(), whole.state_dict())
    same(parts.grad(FORMS[form](thetas[0])), whole.grad(FORMS[form](thetas[0])))
    assert parts.penalty(FORMS[form](thetas[0])) == whole.penalty(FORMS[form](thetas[0]))
    assert [type(v) for v in vars(parts).values()] == [type(v) for v in vars(whole).values()]


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("ewc", {"gamma": 2.0}, ValueError, "gamma must be in [0, 1], got 2.0"),
        ("ewc", {"online": None}, TypeError, "online must be True or False"),
        ("ewc", {"constant": -1.0}, ValueError, "'constant' of state_dict must be 0 or more"),
        (
            "ewc",
            {"anchors": [np.ones(2)]},
            ValueError,
            "'rests' of state_dict has 2 arrays, and there are 1 parameters",
        ),
        (
            "ewc",
            {"anchors": [np.ones(2), np.ones(1, int)]},
            TypeError,
            "must hold float32 or float64 arrays, got dtype",
        ),
        ("ewc", {"totals": [np.ones(2), -np.ones(1)]}, ValueError, "must be 0 or more everywhere, got -1"),
        ("ewc", {"totals": [np.ones(2), np.ones(1, "f4")]}, TypeError, "an array of float32, expected float64"),
        ("ewc", {"rests": [np.ones(2), np.full(1, np.nan)]}, ValueError, "'rests' of state_dict must be finite"),
        ("si", {"epsilon": 0.0}, ValueError, "epsilon must be above 0"),
        ("si", {"weights": [np.ones(2), -np.ones(1)]}, ValueError, "must be 0 or more everywhere, got -1"),
        ("si", {"omega": [np.ones(2), np.ones(1, "f4")]}, TypeError, "an array of float32, expected float64"),
        ("si", {"before": [np.ones(2), np.ones(2)]}, ValueError, "has shape (2,), expected (1,)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    name: str, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    penalty = CONSOLIDATED[name]([np.ones(2), np.ones(1)])
    before = penalty.state_dict()
    with pytest.raises(error) as raised:
        penalty.load_state_dict({**before, **change})
    assert message in str(raised.value)
    same(penalty.state_dict(), before)


@pytest.mark.parametrize("make", [Fisher, EWC, SynapticIntelligence])
def test_a_state_of_something_else_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="state_dict must be a dict, got list"):
        make().load_state_dict([])
    with pytest.raises(ValueError, match=f"state_dict is not one of {make.__name__}"):
        make().load_state_dict({})


@penalties
def test_a_new_one_s_state_can_be_loaded(name: str) -> None:
    theta = draws(np.random.default_rng(15))
    penalty = CONSOLIDATED[name](theta)
    penalty.load_state_dict(NEW[name]().state_dict())
    assert penalty.penalty(theta) == 0.0
    same(penalty.state_dict(), NEW[name]().state_dict())
    CONSOLIDATED[name](theta[:1]).load_state_dict(penalty.state_dict())


@penalties
def test_copies_and_pickles_are_independent(name: str) -> None:
    theta = draws(np.random.default_rng(16))
    penalty = CONSOLIDATED[name](theta)
    for again in (copy.deepcopy(penalty), pickle.loads(pickle.dumps(penalty))):
        same(again.state_dict(), penalty.state_dict())
