"""Side by side with torch's optimizers, on the same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from grilly_optim import optim

pytestmark = pytest.mark.torch

# Name of the class here and in torch -> options to compare.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "AdamW": [
        {},
        {"lr": 0.1, "weight_decay": 0.0},
        {"lr": 0.05, "weight_decay": 0.5},
        {"betas": (0.5, 0.7), "eps": 1e-3},
        {"betas": (0.0, 0.0)},
        {"amsgrad": True, "betas": (0.9, 0.5)},
        {"maximize": True},
        {"amsgrad": True, "maximize": True, "weight_decay": 0.1},
    ],
    "Adam": [
        {},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "maximize": True, "lr": 0.01},
        {"weight_decay": 0.1, "amsgrad": True, "betas": (0.9, 0.5)},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
        {"amsgrad": True, "maximize": True, "betas": (0.5, 0.7), "eps": 1e-3},
    ],
    "SGD": [
        {},
        {"lr": 0.1, "maximize": True},
        {"lr": 0.1, "weight_decay": 0.1},
        {"lr": 0.01, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.01, "momentum": 0.9},
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.01, "momentum": 0.9, "dampening": -0.5},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ],
    "RMSprop": [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"alpha": 0.5, "eps": 1e-3},
        {"momentum": 0.9, "lr": 1e-3},
        {"momentum": 0.9, "lr": 1e-3, "weight_decay": 0.1, "maximize": True},
        {"centered": True, "alpha": 0.9},
        {"centered": True, "weight_decay": 0.1, "maximize": True},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.1},
        {"centered": True, "momentum": 0.5, "maximize": True},
    ],
    "Adagrad": [
        {},
        {"lr": 0.5, "lr_decay": 0.1},
        {"weight_decay": 0.1, "maximize": True},
        {"initial_accumulator_value": 0.5, "eps": 1e-3, "lr_decay": 0.01},
    ],
    "Adadelta": [
        {},
        {"lr": 0.5, "rho": 0.5},
        {"rho": 1.0, "eps": 1e-3},
        {"rho": 0.99, "eps": 1e-3, "weight_decay": 0.1},
        {"weight_decay": 0.1, "maximize": True},
    ],
    "RAdam": [
        {},
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3},
        {"betas": (0.9, 0.5)},
        {"weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "NAdam": [
        {},
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "momentum_decay": 0.5},
        {"momentum_decay": 0.0},
        {"weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
}
CASES = [pytest.param(name, o, id=f"{name} {o}") for name, some in OPTIONS.items() for o in some]
SHAPES = [(), (1,), (257,), (13, 7), (0, 3)]
# torch computes in float32 what we compute in double on the host, and rounds in another order.
TOLERANCES = {np.float64: {"rtol": 1e-11, "atol": 1e-13}, np.float32: {"rtol": 3e-5, "atol": 1e-6}}
# torch keeps the product of the momenta in float32, whatever the parameters are.
ROUGHER = {"NAdam": {"rtol": 2e-8, "atol": 1e-9}}
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda d: d.__name__)


def both(name: str, options: dict[str, Any], dtype: Any, device: str, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Our optimizer and torch's, over equal parameters."""
    rng = np.random.default_rng(seed)
    mine = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in mine]
    return (
        mine,
        getattr(optim, name)(mine, **options, device=device),
        theirs,
        getattr(torch.optim, name)(theirs, **options),
    )


def step_both(optimizer: Any, theirs: Any, original: Any, gradients: list[Any]) -> None:
    """One step of each with the same gradients."""
    for q, g in zip(theirs, gradients, strict=True):
        q.grad = None if g is None else torch.tensor(g)
    optimizer.step(gradients=gradients)
    original.step()


def close(name: str, mine: Any, theirs: Any, dtype: Any) -> None:
    tolerance = ROUGHER[name] if dtype is np.float64 and name in ROUGHER else TOLERANCES[dtype]
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), **tolerance)


@dtypes
@pytest.mark.parametrize(("name", "options"), CASES)
def test_100_steps(name: str, options: dict[str, Any], dtype: Any, device: str) -> None:
    mine, optimizer, theirs, original = both(name, options, dtype, device)
    rng = np.random.default_rng(1)
    for _ in range(100):
        gradients = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
        step_both(optimizer, theirs, original, gradients)
    close(name, mine, theirs, dtype)


# What a second group and a scheduler change, besides the learning rate.
OTHERS: dict[str, dict[str, Any]] = {
    "AdamW": {"betas": (0.8, 0.99), "weight_decay": 0.2},
    "Adam": {"betas": (0.8, 0.99), "weight_decay": 0.2},
    "SGD": {"momentum": 0.8, "dampening": 0.1, "weight_decay": 0.2},
    "RMSprop": {"alpha": 0.9, "momentum": 0.5, "weight_decay": 0.2},
    "Adagrad": {"lr_decay": 0.1, "eps": 1e-6, "weight_decay": 0.2},
    "Adadelta": {"rho": 0.8, "eps": 1e-4, "weight_decay": 0.2},
    "RAdam": {"betas": (0.8, 0.99), "weight_decay": 0.2},
    "NAdam": {"betas": (0.8, 0.99), "momentum_decay": 0.1, "weight_decay": 0.2},
}
# Options without which a group has no state for what OTHERS changes later.
FIRST: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9}}


@pytest.mark.parametrize("name", OPTIONS)
def test_two_groups_missing_gradients_and_changing_options(name: str, device: str) -> None:
    rng = np.random.default_rng(2)
    mine = [np.asarray(rng.standard_normal(s)) for s in SHAPES]
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in mine]

    def build(module: Any, ps: Any, **where: Any) -> Any:
        groups = [{"params": ps[:2]}, {"params": ps[2:], "maximize": True, **OTHERS[name]}]
        return getattr(module, name)(groups, lr=0.01, **FIRST.get(name, {}), **where)

    optimizer, original = build(optim, mine, device=device), build(torch.optim, theirs)
    for step in range(60):
        gradients = [None if rng.random() < 0.3 else np.asarray(rng.standard_normal(s)) for s in SHAPES]
        for group in (optimizer.param_groups[0], original.param_groups[0]):
            group["lr"] = 0.01 * 0.95**step
            if step == 30:
                group.update(OTHERS[name])
        step_both(optimizer, theirs, original, gradients)
    close(name, mine, theirs, np.float64)
    if name != "SGD":  # torch counts none
        steps = [s["step"] for s in optimizer.state_dict()["state"].values()]
        assert steps == [int(original.state[q]["step"]) for q in theirs]


NON_FINITE: dict[str, list[dict[str, Any]]] = {
    "AdamW": [{}, {"amsgrad": True}],
    "Adam": [{}, {"amsgrad": True}, {"weight_decay": 0.1}],
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}],
    "RMSprop": [{}, {"momentum": 0.9}, {"centered": True}],
    "Adagrad": [{}],
    "Adadelta": [{}],
    "RAdam": [{}, {"betas": (0.9, 0.5)}],
    "NAdam": [{}],
}


# Squares overflow in float32. Where torch's centered RMSprop subtracts the square of a huge mean, it rounds once for
# both operations on some processors, and the square does not overflow: a comparison would say nothing.
HUGE = [
    pytest.param(name, o, huge, id=f"{name} {o} {huge}")
    for name, some in NON_FINITE.items()
    for o in some
    for huge in ((np.inf,) if "centered" in o else (np.inf, 3e30))
]


@pytest.mark.parametrize(("name", "options", "huge"), HUGE)
def test_infinite_huge_and_nan_gradients(name: str, options: dict[str, Any], huge: float, device: str) -> None:
    mine, optimizer, theirs, original = both(name, options, np.float32, device)
    for value in (1.0, huge, -huge / 2, np.nan, 1.0):
        gradients = [np.full(s, value, np.float32) for s in SHAPES]
        step_both(optimizer, theirs, original, gradients)
        close(name, mine, theirs, np.float32)


@pytest.mark.parametrize("name", OPTIONS)
def test_infinite_parameters(name: str, device: str) -> None:
    mine, optimizer, theirs, original = both(name, {}, np.float32, device)
    for p, q in zip(mine, theirs, strict=True):
        p[...] = np.inf
        q.data.fill_(np.inf)
    for _ in range(7):
        step_both(optimizer, theirs, original, [np.ones(s, np.float32) for s in SHAPES])
        close(name, mine, theirs, np.float32)


LOADED: dict[str, dict[str, Any]] = {
    "AdamW": {"amsgrad": True},
    "SGD": {"momentum": 0.9, "dampening": 0.5},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {"initial_accumulator_value": 0.5, "lr_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_state_dicts_of_torch_can_be_loaded(name: str, device: str) -> None:
    mine, optimizer, theirs, original = both(name, {"lr": 0.2, **LOADED.get(name, {})}, np.float64, device)
    rng = np.random.default_rng(3)
    for _ in range(3):
        for q in theirs:
            q.grad = torch.tensor(rng.standard_normal(tuple(q.shape)))
        original.step()
    for p, q in zip(mine, theirs, strict=True):
        p[...] = q.detach().numpy()
    optimizer.load_state_dict(original.state_dict())
    gradients = [np.asarray(rng.standard_normal(s)) for s in SHAPES]
    step_both(optimizer, theirs, original, gradients)
    close(name, mine, theirs, np.float64)


def test_the_product_of_momenta_while_betas_change(device: str) -> None:
    _, optimizer, theirs, original = both("NAdam", {}, np.float64, device)
    for step in range(40):
        for group in (optimizer.param_groups[0], original.param_groups[0]):
            group["betas"] = (0.9 if step % 3 else 0.99, 0.999)
        step_both(optimizer, theirs, original, [np.ones(s) for s in SHAPES])
        ours = [state["mu_product"] for state in optimizer.state_dict()["state"].values()]
        np.testing.assert_allclose(ours, [original.state[q]["mu_product"].item() for q in theirs], rtol=4e-6)


@dtypes
@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD", "Adagrad"])
def test_against_torchs_fused_kernel(name: str, dtype: Any) -> None:
    options = {"momentum": 0.9} if name == "SGD" else {}
    mine, optimizer, theirs, _ = both(name, options, dtype, "cpu")
    fused = getattr(torch.optim, name)(theirs, fused=True, **options)
    rng = np.random.default_rng(4)
    for _ in range(100):
        gradients = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
        step_both(optimizer, theirs, fused, gradients)
    close(name, mine, theirs, dtype)
