"""Side by side with hypnettorch's lookahead and its optimizer factory.

Where the original's lookahead is not what torch's step does, ours is: each of those tests shows both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypnettorch.utils import optim_step, torch_utils

from grilly_optim import optim

# The original calls torch with arguments in an order that torch has deprecated.
pytestmark = [pytest.mark.hypnettorch, pytest.mark.filterwarnings("ignore:This overload of:UserWarning")]

SHAPES = [(), (257,), (13, 7)]
TOLERANCES = {np.float64: {"rtol": 1e-11, "atol": 1e-13}, np.float32: {"rtol": 3e-5, "atol": 1e-7}}
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda d: d.__name__)


class Pair:
    """Our optimizer and torch's over equal parameters, both some steps old, and gradients for the next."""

    def __init__(self, name: str, options: dict[str, Any], dtype: Any, device: str, steps: int = 4) -> None:
        self.rng = np.random.default_rng(0)
        self.mine = [np.asarray(self.rng.standard_normal(s), dtype) for s in SHAPES]
        self.theirs = [torch.nn.Parameter(torch.tensor(p)) for p in self.mine]
        self.ours = getattr(optim, name)(self.mine, **options, device=device)
        self.original = getattr(torch.optim, name)(self.theirs, **options)
        self.dtype = dtype
        for _ in range(steps):
            self.draw()
            self.ours.step(gradients=self.gradients)
            self.original.step()
        self.draw()

    def draw(self) -> None:
        """New gradients."""
        self.gradients = [np.asarray(self.rng.standard_normal(s), self.dtype) for s in SHAPES]
        for q, g in zip(self.theirs, self.gradients, strict=True):
            q.grad = torch.tensor(g)

    def looked_ahead(self) -> list[Any]:
        """The original's answer."""
        return [delta.detach().numpy() for delta in optim_step.calc_delta_theta(self.original, False)]

    def stepped(self) -> list[Any]:
        """What torch's step really does."""
        before = [q.detach().numpy().copy() for q in self.theirs]
        self.original.step()
        return [q.detach().numpy() - b for q, b in zip(self.theirs, before, strict=True)]


def distance(some: list[Any], others: list[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


AGREED = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"weight_decay": 0.1, "momentum": 0.9}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Adam", {"eps": 0.0}),  # which the original adds elsewhere
    ("Adam", {"eps": 0.0, "amsgrad": True, "betas": (0.8, 0.9)}),
]


@dtypes
@pytest.mark.parametrize("steps", [0, 1, 10])
@pytest.mark.parametrize(("name", "options"), AGREED, ids=str)
def test_the_same_change(name: str, options: dict[str, Any], steps: int, dtype: Any, device: str) -> None:
    pair = Pair(name, options, dtype, device, steps)
    # Ours is a difference of parameters: good to their last place.
    extra = 2 * np.spacing(np.asarray(4, dtype))
    for a, b in zip(optim.calc_delta_theta(pair.ours, pair.gradients), pair.looked_ahead(), strict=True):
        np.testing.assert_allclose(a, b, TOLERANCES[dtype]["rtol"], TOLERANCES[dtype]["atol"] + extra)


@dtypes
@pytest.mark.parametrize("name", ["SGD", "Adam", "Adadelta"])
def test_the_same_plain_change(name: str, dtype: Any, device: str) -> None:
    pair = Pair(name, {}, dtype, device)
    ours = optim.calc_delta_theta(pair.ours, pair.gradients, use_sgd_change=True, lr=0.3)
    for a, b in zip(ours, optim_step.calc_delta_theta(pair.original, True, lr=0.3), strict=True):
        np.testing.assert_array_equal(a, b.numpy())


@pytest.mark.parametrize(
    ("name", "options", "apart"),
    [
        pytest.param("Adam", {"lr": 0.01, "weight_decay": 0.1}, 1e-4, id="O1 Adam's decay is lost"),
        pytest.param("AdamW", {"lr": 0.01, "weight_decay": 0.1}, 1e-4, id="O2 AdamW's decay is lost"),
        pytest.param("Adam", {"lr": 0.01, "eps": 1e-2}, 1e-4, id="O3 eps is scaled"),
        pytest.param("SGD", {"lr": 0.01, "maximize": True}, 1e-2, id="O4 maximize is ignored"),
        pytest.param("Adam", {"lr": 0.01, "maximize": True}, 1e-3, id="O4 maximize is ignored, Adam"),
        pytest.param("RMSprop", {"lr": 0.01, "maximize": True}, 1e-3, id="O4 maximize is ignored, RMSprop"),
    ],
)
def test_ours_is_the_step_where_the_original_is_not(
    name: str, options: dict[str, Any], apart: float, device: str
) -> None:
    pair = Pair(name, options, np.float64, device)
    ours, theirs = optim.calc_delta_theta(pair.ours, pair.gradients), pair.looked_ahead()
    real = pair.stepped()
    assert distance(ours, real) < 1e-12
    assert distance(theirs, real) > apart


def test_o5_the_state_stays_as_it_is(device: str) -> None:
    pair = Pair("SGD", {"momentum": 0.9}, np.float64, device, steps=0)
    before = pair.ours.state_dict()
    optim.calc_delta_theta(pair.ours, pair.gradients)
    after = pair.ours.state_dict()
    assert all(np.array_equal(after["state"][i][n], v) for i, s in before["state"].items() for n, v in s.items())
    assert len(pair.original.state) == 0
    pair.looked_ahead()
    assert len(pair.original.state) == len(SHAPES)


def test_a_parameter_without_gradient_keeps_its_place(device: str) -> None:
    pair = Pair("SGD", {}, np.float64, device)
    pair.theirs[1].grad = None
    ours = optim.calc_delta_theta(pair.ours, [pair.gradients[0], None, pair.gradients[2]])
    theirs = pair.looked_ahead()
    assert len(theirs) == 2
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-11)
    assert not ours[1].any()
    np.testing.assert_allclose(ours[2], theirs[1], rtol=1e-11)
    with pytest.raises(AttributeError):
        optim_step.calc_delta_theta(pair.original, True, lr=0.1)
    assert not optim.calc_delta_theta(pair.ours, [None] * 3, use_sgd_change=True, lr=0.1)[1].any()


def test_every_optimizer_has_a_lookahead(device: str) -> None:
    pair = Pair("Adadelta", {}, np.float64, device)
    ours = optim.calc_delta_theta(pair.ours, pair.gradients)
    with pytest.raises(AttributeError, match="type"):
        pair.looked_ahead()
    assert distance(ours, pair.stepped()) < 1e-12


GROUPS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    {"lr": [0.1, 0.2], "momentum": (0.9, 0.5), "weight_decay": [0.0, 0.1], "pgroup_ids": [0, 1, 0]},
    {"lr": 0.1, "adam_beta1": [0.5, 0.8], "pgroup_ids": [1, 0, 1]},
]
FLAGS: list[dict[str, bool]] = [
    {},
    {"use_adam": True},
    {"use_rmsprop": True},
    {"use_adadelta": True},
    {"use_adagrad": True},
    {"use_adam": True, "use_rmsprop": True},
    {"use_rmsprop": True, "use_adadelta": True, "use_adagrad": True},
    {"use_adadelta": True, "use_adagrad": True},
]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("given", GROUPS, ids=str)
def test_the_factory_builds_the_same_optimizer(given: dict[str, Any], flags: dict[str, bool], device: str) -> None:
    rng = np.random.default_rng(5)
    mine = [rng.standard_normal(s) for s in ((4,), (2, 3), (5,))]
    theirs = [torch.nn.Parameter(torch.tensor(p)) for p in mine]
    make: Callable[..., Any] = torch_utils.get_optimizer
    ours, original = optim.get_optimizer(mine, **given, **flags, device=device), make(theirs, **given, **flags)
    assert type(ours).__name__ == type(original).__name__
    for group, other in zip(ours.param_groups, original.param_groups, strict=True):
        for name in ours.defaults:
            assert np.array_equal(group[name], other[name]), name
    gradients = [rng.standard_normal(p.shape) for p in mine]
    for _ in range(5):
        ours.step(gradients={id(p): g for p, g in zip(mine, gradients, strict=True)})
        for q, g in zip(theirs, gradients, strict=True):
            q.grad = torch.tensor(g)
        original.step()
    for p, q in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), rtol=1e-11)
