"""What is special to one optimizer or another; what they share goes through the table in test_optimizers.py."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.benchmarks import expressions
from grilly_optim.benchmarks.expressions import Expression, Memory
from grilly_optim.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Lion, NAdam, Optimizer, RAdam, RMSprop
from tests.table import assert_bits, draw


def test_the_first_momentum_of_sgd_is_the_whole_gradient_whenever_it_comes(device: str) -> None:
    p, q = np.zeros(3), np.zeros(3)
    optimizer = SGD([p, q], lr=1.0, momentum=0.5, dampening=0.25, device=device)
    optimizer.step(gradients=[np.full(3, 8.0), None])
    assert_bits(p, np.full(3, -8.0))
    optimizer.step(gradients=[np.full(3, 8.0), np.full(3, 8.0)])
    assert_bits(p, np.full(3, -8.0 - (4 + 6)))
    assert_bits(q, np.full(3, -8.0))
    assert_bits(optimizer.state_dict()["state"][1]["momentum_buffer"], np.full(3, 8.0))


def test_sgd_takes_a_momentum_without_a_count_for_one_that_has_begun(device: str) -> None:
    p, q = np.zeros(3), np.zeros(3)
    optimizer = SGD([p, q], lr=1.0, momentum=0.5, dampening=0.25, device=device)
    saved = optimizer.state_dict()
    saved["state"] = {0: {"momentum_buffer": np.full(3, 6.0)}, 1: {"momentum_buffer": None}}
    kept = copy.deepcopy(saved)
    with pytest.raises(TypeError, match="'momentum_buffer' of parameter 1 in state_dict must hold real numbers"):
        optimizer.load_state_dict(saved)
    saved["state"].pop(1)
    optimizer.load_state_dict(saved)
    assert list(saved["state"][0]) == list(kept["state"][0])
    optimizer.step(gradients=[np.full(3, 4.0)] * 2)
    assert_bits(p, np.full(3, -(0.5 * 6 + 0.75 * 4)))
    assert_bits(q, np.full(3, -4.0))
    with pytest.raises(TypeError, match="state_dict must be a dict with the keys"):
        optimizer.load_state_dict([])  # type: ignore[arg-type]  # the mistake under test


def test_sgd_without_momentum_keeps_nothing(device: str) -> None:
    optimizer = SGD([np.ones(5)], device=device)
    optimizer.step(gradients=[np.ones(5)])
    assert optimizer.state_dict()["state"] == {0: {"step": 1}}


def test_adagrad_starts_where_it_is_told_and_decays_with_each_parameters_own_steps(device: str) -> None:
    p, q = np.zeros(3), np.zeros(3)
    optimizer = Adagrad([p, q], lr=1.0, lr_decay=1.0, initial_accumulator_value=9.0, eps=0.0, device=device)
    assert_bits(optimizer.state_dict()["state"][1]["sum"], np.full(3, 9.0))
    optimizer.step(gradients=[np.full(3, 4.0), None])
    assert_bits(p, np.full(3, -4 / 5))
    assert_bits(optimizer.state_dict()["state"][0]["sum"], np.full(3, 25.0))
    optimizer.step(gradients=[np.full(3, 12.0), np.full(3, 4.0)])
    assert_bits(p, np.full(3, -4 / 5 - 1 / 2 * 12 / 13))
    assert_bits(q, np.full(3, -4 / 5))


def test_the_sums_of_an_added_adagrad_group_start_at_its_own_value(device: str) -> None:
    optimizer = Adagrad([np.zeros(3)], initial_accumulator_value=1.0, device=device)
    optimizer.step(gradients=[np.ones(3)])
    optimizer.add_param_group({"params": [np.zeros(2)], "initial_accumulator_value": 7.0})
    sums = [state["sum"] for state in optimizer.state_dict()["state"].values()]
    assert_bits(sums[0], np.full(3, 2.0))
    assert_bits(sums[1], np.full(2, 7.0))


def test_nadam_multiplies_the_momenta_it_had_and_not_those_it_has_now(device: str) -> None:
    p, q = np.zeros(3), np.zeros(3)
    optimizer = NAdam([p, q], momentum_decay=0.5, device=device)
    product = {0: 1.0, 1: 1.0}
    for step, beta1 in enumerate((0.9, 0.5, 0.99, 0.8)):
        optimizer.param_groups[0]["betas"] = (beta1, 0.999)
        optimizer.step(gradients=[np.ones(3), np.ones(3) if step % 2 else None])
        for k, t in ((0, step + 1), (1, (step + 1) // 2)):
            if k == 0 or step % 2:
                product[k] *= beta1 * (1 - 0.5 * 0.96 ** (t * 0.5))
    found = {k: state["mu_product"] for k, state in optimizer.state_dict()["state"].items()}
    assert found == pytest.approx(product, rel=1e-15)
    again = NAdam([p.copy(), q.copy()], device=device)
    again.load_state_dict(optimizer.state_dict())
    assert {k: state["mu_product"] for k, state in again.state_dict()["state"].items()} == found


def test_radam_is_momentum_until_it_knows_a_variance(device: str) -> None:
    p = np.zeros(2)
    optimizer = RAdam([p], lr=1.0, eps=0.0, device=device)
    g = np.array([1.0, 100.0])
    for _ in range(5):
        before = p.copy()
        optimizer.step(gradients=[g])
        np.testing.assert_allclose(p - before, -g, rtol=1e-12)
    before = p.copy()
    optimizer.step(gradients=[g])
    # With gradients that do not vary the bias of both moments cancels: what is left is the rectification.
    n, longest = 1999 - 12 * 0.999**6 / (1 - 0.999**6), 1999
    r = math.sqrt((n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n))
    np.testing.assert_allclose(p - before, -r, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lion_moves_by_a_sign(dtype: Any, device: str) -> None:
    g = np.array([3.0, -1e-30, 0.0, -0.0, np.inf, -np.inf, np.nan], dtype)
    p = np.ones(7, dtype)
    optimizer = Lion([p], lr=0.25, betas=(0.5, 0.5), device=device)
    optimizer.step(gradients=[g])
    assert_bits(p, np.array([0.75, 1.25, 1, 1, 0.75, 1.25, np.nan], dtype))
    # Half of the momentum, a quarter of the first gradient, against a gradient that is half of that: a sign of 0.
    optimizer.step(gradients=[np.array([-1.5, 0.5e-30, 0, 0, 0, 0, 0], dtype)])
    assert_bits(p[:4], np.array([0.75, 1.25, 1, 1], dtype))


CHANGES: list[tuple[Callable[..., Optimizer], Expression, dict[str, Any], dict[str, Any]]] = [
    (Adam, expressions.adam, {}, {"weight_decay": 0.1, "lr": 0.1}),
    (
        Adam,
        expressions.adam,
        {"weight_decay": 0.1, "amsgrad": True},
        {"decoupled_weight_decay": True, "maximize": True},
    ),
    (SGD, expressions.sgd, {"momentum": 0.9, "dampening": 0.5}, {"dampening": 0.0, "nesterov": True, "momentum": 0.5}),
    (SGD, expressions.sgd, {}, {"weight_decay": 0.5, "lr": 0.1}),
    (RMSprop, expressions.rmsprop, {"momentum": 0.9}, {"momentum": 0.5, "maximize": True, "alpha": 0.5}),
    (Adagrad, expressions.adagrad, {}, {"lr_decay": 0.5, "lr": 1.0}),
    (Adadelta, expressions.adadelta, {}, {"rho": 1.0, "weight_decay": 0.1}),
    (RAdam, expressions.radam, {"betas": (0.9, 0.9)}, {"weight_decay": 0.1, "eps": 0.1}),
    (NAdam, expressions.nadam, {}, {"momentum_decay": 0.5, "decoupled_weight_decay": True, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("make", "expression", "options", "later"), CHANGES)
def test_options_may_change_between_steps(
    make: Callable[..., Optimizer], expression: Expression, options: Any, later: Any, device: str
) -> None:
    p = draw(200, np.float64)
    q, memory = p.copy(), Memory(p)
    optimizer = make([p], **options, device=device)
    for t in range(1, 13):
        if t == 7:
            optimizer.param_groups[0].update(later)
            options = {**options, **later}
        g = draw(200, np.float64)
        optimizer.step(gradients=[g])
        expression(q, g, memory, t, **options)
    np.testing.assert_allclose(p, q, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (SGD, {"momentum": 0.9}),
        (RMSprop, {"centered": True, "momentum": 0.5}),
        (Adam, {"amsgrad": True}),
        (AdamW, {"amsgrad": True, "weight_decay": 0.0}),
    ],
)
def test_what_decides_the_state_may_change_until_the_first_step(
    make: Callable[..., Optimizer], change: Any, device: str
) -> None:
    """Of one group, too, while another has made steps."""
    (p, q), (r, s) = ([np.ones(9), np.ones(9)] for _ in range(2))
    optimizer = make([{"params": [p]}, {"params": [q]}], lr=0.1, device=device)
    other = make([{"params": [r]}, {"params": [s], **change}], lr=0.1, device=device)
    for o in (optimizer, other):
        o.step(gradients=[np.ones(9), None])
    optimizer.param_groups[1].update(change)
    for _ in range(3):
        for o in (optimizer, other):
            o.step(gradients=[np.ones(9), np.ones(9)])
    assert_bits(p, r)
    assert_bits(q, s)


@pytest.mark.parametrize(
    ("make", "options", "change", "message"),
    [
        (SGD, {}, {"momentum": 0.9}, r"momentum of group 0 is 0\.0 and cannot be changed to 0\.9"),
        (SGD, {"momentum": 0.9}, {"momentum": 0}, r"momentum of group 0 is 0\.9 and cannot be changed to 0\.0"),
        (SGD, {"momentum": 0.9, "nesterov": True}, {"dampening": 0.1}, r"nesterov needs .* and dampening=0\.1"),
        (SGD, {"momentum": 0.9, "nesterov": True}, {"momentum": 0}, r"nesterov needs a momentum above 0"),
        (RMSprop, {}, {"centered": True}, r"centered of group 0 is False and cannot be changed to True"),
        (RMSprop, {"centered": True}, {"momentum": 0.5}, r"momentum of group 0 is 0\.0 and cannot be changed"),
        (Adam, {"weight_decay": 0.1}, {"amsgrad": True}, r"amsgrad of group 0 is False and cannot be changed"),
        (Adadelta, {}, {"rho": 1.1}, r"rho must be in \[0, 1\], got 1\.1"),
    ],
)
def test_changes_that_are_refused_change_nothing(
    make: Callable[..., Optimizer], options: Any, change: Any, message: str, device: str
) -> None:
    p, q = np.ones(9), np.ones(9)
    optimizer, other = make([p], **options, device=device), make([q], **options, device=device)
    for o in (optimizer, other):
        o.step(gradients=[np.ones(9)])
    kept = {name: optimizer.param_groups[0][name] for name in change}
    optimizer.param_groups[0].update(change)
    with pytest.raises(ValueError, match=message):
        optimizer.step(gradients=[np.ones(9)])
    optimizer.param_groups[0].update(kept)
    optimizer.step(gradients=[np.ones(9)])
    other.step(gradients=[np.ones(9)])
    assert_bits(p, q)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Adam, {"weight_decay": -0.1}, r"weight_decay must be 0 or more, and finite, got -0\.1"),
        (Adam, {"decoupled_weight_decay": 1}, r"decoupled_weight_decay must be True or False, got 1"),
        (SGD, {"momentum": -0.1}, r"momentum must be 0 or more"),
        (SGD, {"dampening": -math.inf}, r"dampening must be finite, got -inf"),
        (SGD, {"dampening": math.nan}, r"dampening must be finite, got nan"),
        (SGD, {"nesterov": True}, r"nesterov needs a momentum above 0 and a dampening of 0, got momentum=0\.0 and"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.5}, r"nesterov needs .* dampening=0\.5"),
        (RMSprop, {"alpha": -0.1}, r"alpha must be 0 or more"),
        (RMSprop, {"momentum": -1}, r"momentum must be 0 or more"),
        (RMSprop, {"centered": None}, r"centered must be True or False, got None"),
        (Adagrad, {"lr_decay": -1}, r"lr_decay must be 0 or more"),
        (Adagrad, {"initial_accumulator_value": -1}, r"initial_accumulator_value must be 0 or more"),
        (Adadelta, {"rho": 1.5}, r"rho must be in \[0, 1\], got 1\.5"),
        (Adadelta, {"rho": -0.5}, r"rho must be in \[0, 1\], got -0\.5"),
        (RAdam, {"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1\.0"),
        (RAdam, {"betas": 0.9}, r"betas must be a pair of numbers, got 0\.9"),
        (Lion, {"betas": (-0.1, 0.9)}, r"betas\[0\] must be in \[0, 1\), got -0\.1"),
        (NAdam, {"momentum_decay": -1}, r"momentum_decay must be 0 or more"),
    ],
)
def test_bad_options(make: Callable[..., Optimizer], options: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make([np.ones(3)], **options)
    with pytest.raises((ValueError, TypeError), match=message.replace(" ", " of group 1 ", 1)):
        make([{"params": [np.ones(3)]}, {"params": [np.ones(3)], **options}])


def test_torchs_own_switches_are_not_taken() -> None:
    makers: list[Any] = [Adam, SGD, RMSprop, Adagrad, Adadelta, NAdam, RAdam, Lion]
    for make in makers:
        for switch in ("foreach", "fused", "capturable", "differentiable"):
            with pytest.raises(TypeError, match=switch):
                make([np.ones(3)], **{switch: True})


def test_positional_arguments_mean_what_they_mean_in_torch() -> None:
    p = [np.ones(3)]
    assert SGD(p, 0.1, 0.9, 0.0, 0.5, True).param_groups[0]["nesterov"] is True
    assert RMSprop(p, 0.1, 0.9, 1e-3, 0.5, 0.25, True).param_groups[0]["momentum"] == 0.25
    assert Adagrad(p, 0.1, 0.2, 0.3, 0.4, 0.5).param_groups[0]["initial_accumulator_value"] == 0.4
    assert Adadelta(p, 0.1, 0.2, 0.3, 0.4).param_groups[0]["weight_decay"] == 0.4
    assert NAdam(p, 0.1, (0.1, 0.2), 0.3, 0.4, 0.5, True).param_groups[0]["momentum_decay"] == 0.5
    assert RAdam(p, 0.1, (0.1, 0.2), 0.3, 0.4, True).param_groups[0]["decoupled_weight_decay"] is True
    assert Adam(p, 0.1, (0.1, 0.2), 0.3, 0.4, True).param_groups[0]["amsgrad"] is True


def test_the_arrays_of_a_state_dict_have_torchs_names() -> None:
    cases: list[tuple[Optimizer, set[str]]] = [
        (Adam([np.ones(3)], amsgrad=True), {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (SGD([np.ones(3)], momentum=0.9), {"step", "momentum_buffer"}),
        (RMSprop([np.ones(3)]), {"step", "square_avg"}),
        (
            RMSprop([np.ones(3)], momentum=0.9, centered=True),
            {"step", "square_avg", "grad_avg", "momentum_buffer"},
        ),
        (Adagrad([np.ones(3)]), {"step", "sum"}),
        (Adadelta([np.ones(3)]), {"step", "square_avg", "acc_delta"}),
        (RAdam([np.ones(3)]), {"step", "exp_avg", "exp_avg_sq"}),
        (NAdam([np.ones(3)]), {"step", "exp_avg", "exp_avg_sq", "mu_product"}),
    ]
    for optimizer, names in cases:
        assert set(optimizer.state_dict()["state"][0]) == names
