"""calc_delta_theta and get_optimizer: what they return, what they leave alone, what they refuse."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from grilly_optim import Parameter
from grilly_optim.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop, calc_delta_theta, get_optimizer
from tests.table import BY_RULE, Array, Row, assert_bits, draw

kernels = pytest.mark.parametrize("row", BY_RULE.values(), ids=list(BY_RULE))


@kernels
def test_the_change_is_what_peek_says_and_what_the_step_does(row: Row, device: str) -> None:
    ps = [draw(50), draw((3, 4), np.float64), draw(6)]
    optimizer = row.make(ps, **row.options, device=device)
    optimizer.step(gradients=[draw(50), draw((3, 4)), draw(6)])
    gradients: list[Array | None] = [draw(50), None, draw(6)]
    before, state = [p.copy() for p in ps], copy.deepcopy(optimizer.state_dict())
    deltas = calc_delta_theta(optimizer, gradients)
    for delta, peeked in zip(deltas, optimizer.peek(gradients), strict=True):
        assert_bits(delta, peeked)
    for i, fields in state["state"].items():
        for name, value in fields.items():
            assert_bits(optimizer.state_dict()["state"][i][name], value)
    optimizer.step(gradients=gradients)
    for p, b, delta in zip(ps, before, deltas, strict=True):
        assert np.abs(p - (b + delta)).max() <= 2 * np.spacing(np.abs(b).max())
    assert not deltas[1].any()


@kernels
def test_the_plain_change_looks_at_nothing_but_the_gradient(row: Row, device: str) -> None:
    ps = [draw(50), draw((3, 4), np.float64), draw(()), draw(7)[::-1]]
    optimizer = row.make(ps, **row.options, device=device)
    gradients = [draw(50), draw((3, 4)), draw(()), None]
    kept = copy.deepcopy(gradients)
    deltas = calc_delta_theta(optimizer, gradients, use_sgd_change=True, lr=0.3)
    for p, g, delta in zip(ps[:3], gradients[:3], deltas[:3], strict=True):
        assert_bits(delta, np.asarray(p.dtype.type(-0.3) * g.astype(p.dtype)))  # type: ignore[union-attr]  # no None here
    assert_bits(deltas[3], np.zeros(7, np.float32))
    for g, k in zip(gradients[:3], kept[:3], strict=True):
        assert_bits(np.asarray(g), np.asarray(k))


def test_what_is_not_finite_goes_through_without_a_warning(device: str) -> None:
    w = np.array([math.inf, 3e38, 1.0], np.float32)
    optimizer = AdamW([w], lr=0.5, device=device)
    gradients = [np.array([1.0, -math.inf, 3e38], np.float32)]
    np.testing.assert_array_equal(np.isnan(optimizer.peek(gradients)[0]), [True, True, False])
    plain = calc_delta_theta(optimizer, gradients, use_sgd_change=True, lr=10.0)
    assert_bits(plain[0], np.array([-10.0, math.inf, -math.inf], np.float32))


def test_gradients_come_in_every_form(device: str) -> None:
    w = Parameter(np.ones(3))
    optimizer = SGD({"w": w}, lr=0.5, device=device)
    w.grad = np.full(3, 2.0)
    for gradients in (None, {"w": w.grad}, {id(w): w.grad}, [w.grad]):
        for extra in ({}, {"use_sgd_change": True, "lr": 0.5}):
            assert_bits(calc_delta_theta(optimizer, gradients, **extra)[0], np.full(3, -1.0))  # type: ignore[arg-type]  # mypy joins the dicts' values


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"use_sgd_change": True}, ValueError, r"lr is None: use_sgd_change=True needs"),
        ({"use_sgd_change": True, "lr": -1}, ValueError, r"lr must be 0 or more"),
        ({"use_sgd_change": True, "lr": math.nan}, ValueError, r"lr must be 0 or more"),
        ({"use_sgd_change": True, "lr": "x"}, TypeError, r"lr must be a real number"),
        ({"gradients": [np.ones(4)]}, ValueError, r"the gradient of parameter 0 has shape \(4,\), expected \(3,\)"),
        ({"gradients": [np.ones(4)], "use_sgd_change": True, "lr": 1}, ValueError, r"has shape \(4,\), expected"),
        ({"gradients": None}, ValueError, r"no parameter is a grilly_optim.Parameter"),
        ({"optimizer": SGD}, TypeError, r"optimizer must be an Optimizer, got ABCMeta"),
    ],
)
def test_lookahead_refuses(arguments: dict[str, Any], error: Any, message: str) -> None:
    given = {"optimizer": AdamW([np.ones(3)]), "gradients": [np.ones(3)], **arguments}
    with pytest.raises(error, match=message):
        calc_delta_theta(**given)


FLAGS = ["use_adam", "use_rmsprop", "use_adadelta", "use_adagrad"]
CLASSES: list[type] = [Adam, RMSprop, Adadelta, Adagrad, SGD]


@pytest.mark.parametrize("set_", range(16))
def test_of_several_flags_the_first_counts(set_: int, device: str) -> None:
    flags: dict[str, Any] = {name: bool(set_ >> k & 1) for k, name in enumerate(FLAGS)}
    first = next((k for k, name in enumerate(FLAGS) if flags[name]), 4)
    optimizer = get_optimizer([np.ones(3)], 0.25, 0.5, 0.125, **flags, device=device)
    assert type(optimizer) is CLASSES[first]
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert group.get("momentum") == (0.5 if CLASSES[first] in (SGD, RMSprop) else None)
    assert group.get("betas") == ((0.9, 0.999) if CLASSES[first] is Adam else None)
    optimizer.step(gradients=[np.ones(3)])


def test_lists_are_one_value_per_group() -> None:
    ps = [np.full(2, float(k)) for k in range(4)]
    optimizer = get_optimizer(ps, [0.1, 0.2, 0.3], [0.0, 0.5, 0.9], (0.0, 0.1, 0.0), pgroup_ids=[2, 0, 1, 2])
    found = [(g["lr"], g["momentum"], g["weight_decay"], [p[0] for p in g["params"]]) for g in optimizer.param_groups]
    assert found == [(0.1, 0.0, 0.0, [1.0]), (0.2, 0.5, 0.1, [2.0]), (0.3, 0.9, 0.0, [0.0, 3.0])]
    adam = get_optimizer(ps, 0.1, use_adam=True, adam_beta1=[0.5, 0.8], pgroup_ids=np.array([0, 1, 1, 0]))  # type: ignore[arg-type]  # integers all the same
    assert [g["betas"] for g in adam.param_groups] == [(0.5, 0.999), (0.8, 0.999)]


def test_names_stay_with_their_parameters() -> None:
    optimizer = get_optimizer({"a": np.ones(2), "b": np.ones(3)}, 0.1, pgroup_ids=[1, 0])
    assert [g["param_names"] for g in optimizer.param_groups] == [["b"], ["a"]]
    optimizer.step(gradients={"a": np.ones(2)})
    assert get_optimizer([("a", np.ones(2))], [0.1]).param_groups[0]["param_names"] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pgroup_ids": [0]}, ValueError, r"pgroup_ids has 1 entries, and there are 2 parameters"),
        ({"pgroup_ids": [0, 2]}, ValueError, r"pgroup_ids gives group 1 no parameter, and group 2 some"),
        ({"pgroup_ids": [0, -1]}, ValueError, r"pgroup_ids must be 0 or more, got -1"),
        ({"pgroup_ids": [0, 0.5]}, TypeError, r"pgroup_ids must be whole numbers"),
        ({"pgroup_ids": 1}, TypeError, r"pgroup_ids must be whole numbers"),
        ({"lr": [0.1]}, ValueError, r"lr has 1 values for 2 groups"),
        ({"momentum": [0.1] * 3}, ValueError, r"momentum has 3 values for 2 groups"),
        ({"lr": [0.1, -0.1]}, ValueError, r"lr of group 1 must be 0 or more"),
        ({"use_adam": True, "adam_beta1": (0.5, 1.0)}, ValueError, r"betas.* must be in \[0, 1\), got 1\.0"),
        ({"weight_decay": "x"}, TypeError, r"weight_decay must be a real number"),
        ({"params": [{"params": [np.ones(3)], "lr": 1.0}]}, TypeError, r"got groups: use pgroup_ids"),
        ({"params": np.ones(3)}, TypeError, r"got one array; write \[array\]"),
        ({"params": []}, ValueError, r"params is empty"),
    ],
)
def test_factory_refuses(arguments: dict[str, Any], error: Any, message: str) -> None:
    given = {"params": [np.ones(3), np.ones(2)], "lr": 0.1, "pgroup_ids": [0, 1], **arguments}
    with pytest.raises(error, match=message):
        get_optimizer(**given)
