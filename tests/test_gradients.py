"""The forms in which gradients come, closures, hooks, and Parameter."""

from __future__ import annotations

import copy
import pickle
import weakref
from typing import Any

import numpy as np
import pytest

from grilly_optim import Parameter
from grilly_optim.optim import AdamW
from tests.table import Array, assert_bits, draw


def stepped(p: Array, g: Array, **options: Any) -> Array:
    """One step from zero state, on NumPy."""
    p = p.copy()
    AdamW([p], device="numpy", **options).step(gradients=[g])
    return p


def test_the_three_forms_are_one(device: str) -> None:
    a, b = draw(30), draw((4, 5))
    ga, gb = draw(30), draw((4, 5))
    expected = stepped(a, ga), stepped(b, gb)
    forms: list[Any] = [
        lambda ps: [ga, gb],
        lambda ps: (ga, gb),
        lambda ps: {"a": ga, "b": gb},
        lambda ps: {id(ps[0]): ga, id(ps[1]): gb},
        lambda ps: {"a": ga, id(ps[1]): gb},
        lambda ps: [ga.tolist(), np.asfortranarray(gb)],
        lambda ps: iter([ga, gb]),
    ]
    for form in forms:
        ps = [a.copy(), b.copy()]
        AdamW({"a": ps[0], "b": ps[1]}, device=device).step(gradients=form(ps))
        assert_bits(ps[0], expected[0])
        assert_bits(ps[1], expected[1])


def test_a_missing_key_skips_the_parameter(device: str) -> None:
    a, b = draw(30), draw(30)
    before = b.copy()
    optimizer = AdamW([("a", a), ("b", b)], device=device)
    optimizer.step(gradients={"a": draw(30)})
    assert_bits(b, before)
    assert [s["step"] for s in optimizer.state_dict()["state"].values()] == [1, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_, ">f4"])
def test_gradients_of_other_real_precisions_are_cast(dtype: Any, device: str) -> None:
    p, g = draw(100), np.round(draw(100)).astype(dtype)
    expected = stepped(p, g.astype(np.float32))
    AdamW([p], device=device).step(gradients=[g])
    assert_bits(p, expected)


def test_gradients_are_never_written_to(device: str) -> None:
    p, g = draw(100), draw(100)
    before = g.copy()
    g.setflags(write=False)
    AdamW([p], device=device).step(gradients=[g])
    assert_bits(g, before)


@pytest.mark.parametrize("call", [AdamW.step, lambda optimizer: optimizer.peek(None)], ids=["step", "peek"])
def test_no_gradients_and_no_parameter_that_could_hold_one(call: Any, device: str) -> None:
    w = draw(10)
    before = w.copy()
    optimizer = AdamW([w], device=device)
    with pytest.raises(ValueError, match=r"no parameter is a grilly_optim.Parameter, so there is no .grad to read"):
        call(optimizer)
    assert_bits(w, before)
    assert optimizer.state_dict()["state"][0]["step"] == 0


def test_a_closure_is_called_first_and_its_value_returned(device: str) -> None:
    w = Parameter(draw(10))
    optimizer = AdamW([w], device=device)

    def closure() -> float:
        optimizer.zero_grad()
        w.grad = 2 * w
        return 42.0

    expected = stepped(np.asarray(w), 2 * np.asarray(w))
    assert optimizer.step(closure) == 42.0
    assert_bits(np.asarray(w), expected)


def test_parameter_carries_a_gradient_that_views_do_not_inherit() -> None:
    w = Parameter([[1, 2], [3, 4]])
    assert w.dtype == np.float32
    assert Parameter(np.ones(2)).dtype == np.float64
    assert w.grad is None
    w.grad = np.ones((2, 2), np.float32)
    assert w[0].grad is None
    assert type(w @ w) is np.ndarray
    assert type(w + 1) is np.ndarray
    w += 1
    assert isinstance(w, Parameter)
    assert w.grad is not None
    w.zero_grad()
    assert w.grad is None
    with pytest.raises(TypeError, match="real numbers, got dtype complex128"):
        Parameter([1j])


def test_copies_of_a_parameter_keep_the_gradient() -> None:
    w = Parameter(np.ones(3, ">f8"))
    assert w.dtype == np.float64
    w.grad = np.ones(3)
    for other in (copy.copy(w), copy.deepcopy(w), pickle.loads(pickle.dumps(w))):
        assert isinstance(other, Parameter)
        assert other.grad is not None
    assert copy.deepcopy(w).grad is not w.grad


def test_gradients_are_let_go_after_step_peek_and_errors(device: str) -> None:
    p = draw(100)
    optimizer = AdamW([p], device=device)
    for call in (lambda g: optimizer.step(gradients=[g]), lambda g: optimizer.peek([g])):
        g = draw(100)
        alive = weakref.ref(g)
        call(g)
        del g
        assert alive() is None


def test_zero_grad() -> None:
    w, v = Parameter(draw(4)), Parameter(draw(4))
    optimizer = AdamW([w, v], device="numpy")
    w.grad = np.ones(4, np.float32)
    optimizer.zero_grad(set_to_none=False)
    assert w.grad is not None
    assert not w.grad.any()
    assert v.grad is None
    optimizer.zero_grad()
    assert w.grad is None


def test_hooks_run_around_the_step_and_may_replace_its_arguments(device: str) -> None:
    p = draw(10)
    replacement = draw(10)
    expected = stepped(p, replacement)
    calls = []
    optimizer = AdamW([p], device=device)

    def before(opt: Any, args: Any, kwargs: Any) -> Any:
        calls.append(("before", opt is optimizer))
        return args, {**kwargs, "gradients": [replacement]}

    pre = optimizer.register_step_pre_hook(before)
    post = optimizer.register_step_post_hook(lambda opt, args, kwargs: calls.append(("after", opt is optimizer)))
    optimizer.step(gradients=[np.zeros(10, np.float32)])
    assert_bits(p, expected)
    assert calls == [("before", True), ("after", True)]
    again = optimizer.register_step_pre_hook(before)
    pre.remove()
    pre.remove()
    assert list(optimizer._hooks.pre) == [again]
    again.remove()
    post.remove()
    optimizer.step(gradients=[replacement])
    assert len(calls) == 2


def test_hooks_see_and_replace_clipping(device: str) -> None:
    p, q = np.ones(4), np.ones(4)
    optimizer, other = AdamW([p], device=device), AdamW([q], device=device)
    seen: list[Any] = []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((None, kwargs["gradients"]), {"clip_value": 0.5}))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append(kwargs))
    g = np.array([3.0, -3.0, 0.1, 0.0])
    optimizer.step(gradients=[g], max_norm=1e-3)
    other.step(gradients=[g], clip_value=0.5)
    assert_bits(p, q)
    assert [*seen[0]] == ["closure", "gradients", "max_norm", "clip_value"]
    assert (seen[0]["max_norm"], seen[0]["clip_value"]) == (None, 0.5)


@pytest.mark.parametrize("result", [3, (1, 2, 3), ((), {"gradient": 1}), ((None, 1), {"gradients": 2}), ((1,) * 5, {})])
def test_what_a_pre_hook_may_not_return(result: Any) -> None:
    p = np.ones(2)
    optimizer = AdamW([p], device="numpy")
    optimizer.register_step_pre_hook(lambda *_: result)
    with pytest.raises(
        TypeError, match=r"must return None or \(args, kwargs\) for step\(closure, gradients, max_norm, "
    ):
        optimizer.step(gradients=[np.ones(2)])
    assert_bits(p, np.ones(2))
