"""Side by side with torch's optimizers, on the same gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from grilly_optim.optim import AdamW

pytestmark = pytest.mark.torch

OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "weight_decay": 0.0},
    {"lr": 0.05, "weight_decay": 0.5},
    {"betas": (0.5, 0.7), "eps": 1e-3},
    {"betas": (0.0, 0.0)},
    {"amsgrad": True, "betas": (0.9, 0.5)},
    {"maximize": True},
    {"amsgrad": True, "maximize": True, "weight_decay": 0.1},
]
SHAPES = [(), (1,), (257,), (13, 7), (0, 3)]
# torch computes in float32 what we compute in double on the host, and rounds in another order.
TOLERANCES = {np.float64: {"rtol": 1e-11, "atol": 1e-13}, np.float32: {"rtol": 3e-5, "atol": 1e-6}}


def both(options: dict[str, Any], dtype: Any, device: str, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Our optimizer and torch's, over equal parameters."""
    rng = np.random.default_rng(seed)
    mine = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in mine]
    return mine, AdamW(mine, **options, device=device), theirs, torch.optim.AdamW(theirs, **options)


def step_both(optimizer: Any, theirs: Any, original: Any, gradients: list[Any]) -> None:
    """One step of each with the same gradients."""
    for q, g in zip(theirs, gradients, strict=True):
        q.grad = None if g is None else torch.tensor(g)
    optimizer.step(gradients=gradients)
    original.step()


def close(mine: Any, theirs: Any, dtype: Any) -> None:
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), **TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda d: d.__name__)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_100_steps(options: dict[str, Any], dtype: Any, device: str) -> None:
    mine, optimizer, theirs, original = both(options, dtype, device)
    rng = np.random.default_rng(1)
    for _ in range(100):
        gradients = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
        step_both(optimizer, theirs, original, gradients)
    close(mine, theirs, dtype)


def test_gradients_of_none_and_changing_options(device: str) -> None:
    mine, optimizer, theirs, original = both({"lr": 0.01}, np.float64, device)
    rng = np.random.default_rng(2)
    for step in range(60):
        gradients = [None if rng.random() < 0.3 else np.asarray(rng.standard_normal(s)) for s in SHAPES]
        for group in (optimizer.param_groups[0], original.param_groups[0]):
            group["lr"] = 0.01 * 0.95**step
            group["betas"] = (0.9, 0.999 if step < 30 else 0.99)
        step_both(optimizer, theirs, original, gradients)
    close(mine, theirs, np.float64)
    steps = [s["step"] for s in optimizer.state_dict()["state"].values()]
    assert steps == [int(original.state[q]["step"]) for q in theirs]


def test_infinite_and_nan_gradients(device: str) -> None:
    for options in ({}, {"amsgrad": True}):
        mine, optimizer, theirs, original = both(options, np.float32, device)
        for value in (1.0, np.inf, -np.inf, np.nan, 1.0):
            gradients = [np.full(s, value, np.float32) for s in SHAPES]
            step_both(optimizer, theirs, original, gradients)
            close(mine, theirs, np.float32)


def test_state_dicts_of_torch_can_be_loaded(device: str) -> None:
    mine, optimizer, theirs, original = both({"amsgrad": True, "lr": 0.2}, np.float64, device)
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
    close(mine, theirs, np.float64)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda d: d.__name__)
def test_against_torchs_fused_kernel(dtype: Any) -> None:
    mine, optimizer, theirs, _ = both({}, dtype, "cpu")
    fused = torch.optim.AdamW(theirs, fused=True)
    rng = np.random.default_rng(4)
    for _ in range(100):
        gradients = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
        step_both(optimizer, theirs, fused, gradients)
    close(mine, theirs, dtype)
