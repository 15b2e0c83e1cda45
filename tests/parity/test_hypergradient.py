"""grilly's hypergradient optimizers, written out in float64 torch, whose autograd makes the hypergradients.

Each step keeps its parameters as functions of the learning rate and of beta1. The next step's loss is then
differentiated through them, so that a formula that is wrong on both sides of other tests shows here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grilly_optim.optim import AutoHypergradientAdamW, HypergradientAdamW

# The other devices have the bits of these.
pytestmark = [pytest.mark.grilly, pytest.mark.cases("cpu", "vulkan")]

SHAPES = [(37,), (13, 7), ()]
TINY = 1e-12


class Problem:
    """A noisy quadratic; the loss of the k-th step as torch sees it, and its gradients."""

    def __init__(self, dtype: Any) -> None:
        rng = np.random.default_rng(0)
        self.start = [np.asarray(rng.standard_normal(s), dtype) for s in SHAPES]
        self.curvature = [torch.tensor(np.exp(rng.uniform(-2, 2, s))) for s in SHAPES]
        self.rng, self.dtype = rng, dtype

    def draw(self) -> list[Tensor]:
        return [torch.tensor(0.5 * self.rng.standard_normal(s)) for s in SHAPES]

    def loss(self, ps: list[Tensor], noise: list[Tensor]) -> Tensor:
        return sum((0.5 * k * p * p + n * p).sum() for k, p, n in zip(self.curvature, ps, noise, strict=True))  # type: ignore[return-value]  # not empty


def total(xs: list[Tensor], ys: list[Tensor]) -> float:
    return sum(float((x * y).sum()) for x, y in zip(xs, ys, strict=True))


class Torch:
    """AdamW in torch, each of whose steps can be differentiated by the learning rate and by beta1."""

    def __init__(
        self,
        problem: Problem,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
        running: bool = False,
        differentiate_decay: bool = False,
    ) -> None:
        self.problem, self.lr, (self.beta1, self.beta2) = problem, lr, betas
        self.weight_decay, self.eps, self.running, self.differentiate_decay = (
            weight_decay,
            eps,
            running,
            differentiate_decay,
        )
        self.ps = [torch.tensor(p, dtype=torch.float64) for p in problem.start]
        self.m, self.v = ([torch.zeros_like(p) for p in self.ps] for _ in range(2))
        self.t, self.product = 0, torch.tensor(1.0, dtype=torch.float64)
        self.knobs: tuple[Tensor, Tensor] | None = None
        self.last: Any = None

    def differentiate(self, noise: list[Tensor]) -> tuple[list[Tensor], float, float]:
        """Gradients at the parameters, and the loss's derivatives by the last step's learning rate and beta1."""
        loss = self.problem.loss(self.ps, noise)
        if self.knobs is None:
            ps = [p.detach().requires_grad_() for p in self.ps]
            return list(torch.autograd.grad(self.problem.loss(ps, noise), ps)), 0.0, 0.0
        *gradients, by_lr, by_beta1 = torch.autograd.grad(loss, [*self.ps, *self.knobs])
        return gradients, float(by_lr), float(by_beta1)

    def advance(self, gradients: list[Tensor], lr: Tensor, beta1: Tensor) -> tuple[list[Tensor], ...]:
        """New parameters, moments and directions."""
        bc1 = 1 - (self.product * beta1 if self.running else beta1 ** (self.t + 1))
        bc2 = 1 - self.beta2 ** (self.t + 1)
        ps, ms, vs = [], [], []
        for p, m, v, g in zip(self.ps, self.m, self.v, gradients, strict=True):
            ms.append(beta1 * m + (1 - beta1) * g)
            vs.append(self.beta2 * v + (1 - self.beta2) * g * g)
            decay = (lr if self.differentiate_decay else lr.detach()) * self.weight_decay
            ps.append(p.detach() * (1 - decay) - lr * ((ms[-1] / bc1) / ((vs[-1] / bc2).sqrt() + self.eps)))
        return ps, ms, vs

    def step(self, gradients: list[Tensor]) -> None:
        lr, beta1 = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (self.lr, self.beta1))
        self.last = (self.ps, self.m, self.v, self.t, self.product, gradients)
        ps, m, v = self.advance(gradients, lr, beta1)
        self.knobs, self.ps = (lr, beta1), ps
        self.m, self.v = [x.detach() for x in m], [x.detach() for x in v]
        self.product = self.product * self.beta1
        self.t += 1

    def derivatives(self) -> tuple[float, float]:
        """Lengths of the last step's derivatives by lr and by beta1, the latter over lr."""
        now = self.ps, self.m, self.v, self.t, self.product
        *before, gradients = self.last
        self.ps, self.m, self.v, self.t, self.product = before
        assert self.knobs is not None
        lr, beta1 = (k.detach() for k in self.knobs)
        one = torch.ones((), dtype=torch.float64)
        _, d = torch.autograd.functional.jvp(lambda x: tuple(self.advance(gradients, x, beta1)[0]), lr, one)
        _, j = torch.autograd.functional.jvp(lambda x: tuple(self.advance(gradients, lr, x)[0]), beta1, one)
        self.ps, self.m, self.v, self.t, self.product = now
        return math.sqrt(total(d, d)), math.sqrt(total(j, j)) / float(lr)


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def run(optimizer: Any, mine: list[Any], problem: Problem, steps: int, adapt: Any, twin: Torch) -> None:
    """Both through the same noise, each at its own parameters."""
    for _ in range(steps):
        noise = problem.draw()
        ours = [
            (k * torch.tensor(p, dtype=torch.float64) + n)
            for k, p, n in zip(problem.curvature, mine, noise, strict=True)
        ]
        optimizer.step(gradients=[np.asarray(g.numpy(), problem.dtype) for g in ours])
        gradients, by_lr, by_beta1 = twin.differentiate(noise)
        adapt(gradients, by_lr, by_beta1)
        twin.step([g.detach() for g in gradients])


# Two ways through a noisy problem drift apart with float32's rounding; signs of tiny directions decide little.
TOLERANCES: dict[Any, dict[str, float]] = {
    np.float64: {"rtol": 1e-8, "atol": 1e-10},
    np.float32: {"rtol": 5e-3, "atol": 5e-4},
}
precisions = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=lambda d: d.__name__)


@precisions
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"include_weight_decay": True},
        {"log_scale": True, "beta_hyper": 1e-3},
        {"log_scale": True, "beta_hyper": 0.02, "chain_rule": True, "include_weight_decay": True},
    ],
    ids=str,
)
def test_hypergradient_adamw(options: dict[str, Any], dtype: Any, device: str) -> None:
    problem = Problem(dtype)
    mine = [p.copy() for p in problem.start]
    options = {"lr": 0.01, "weight_decay": 0.3, "betas": (0.9, 0.99), "beta_hyper": 1e-5, **options}
    optimizer = HypergradientAdamW(mine, **options, device=device)
    twin = Torch(problem, 0.01, (0.9, 0.99), 0.3, differentiate_decay=options.get("include_weight_decay", False))
    history = [0.01]

    def adapt(gradients: list[Tensor], by_lr: float, by_beta1: float) -> None:
        if twin.knobs is None:
            return
        if options.get("log_scale"):
            slope = by_lr * (twin.lr if options.get("chain_rule") else 1)  # by log lr, where the chain rule is kept
            twin.lr = math.exp(clip(math.log(twin.lr) - options["beta_hyper"] * slope, math.log(1e-6), 0.0))
        else:
            twin.lr = clip(twin.lr - options["beta_hyper"] * by_lr, 1e-6, 1.0)
        history.append(twin.lr)

    run(optimizer, mine, problem, 50, adapt, twin)
    np.testing.assert_allclose(optimizer.lr_history, history, **TOLERANCES[dtype])
    assert abs(history[-1] - 0.01) > 1e-3
    for p, q in zip(mine, twin.ps, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), **TOLERANCES[dtype])


@precisions
@pytest.mark.parametrize("rule", ["doc", "corrected"])
@pytest.mark.parametrize("momentum", [False, True], ids=["lr", "lr and momentum"])
def test_auto_hypergradient_adamw(momentum: bool, rule: str, dtype: Any, device: str) -> None:
    """With surprise; lr's hypergradient is the derivative in both rules, beta1's in "corrected" alone."""
    problem = Problem(dtype)
    mine = [p.copy() for p in problem.start]
    hyper_lr, hyper_lr_beta, gamma, alpha = (0.01 if rule == "doc" else 0.2), 0.02, 0.8, 0.2
    optimizer = AutoHypergradientAdamW(
        mine,
        lr=0.01,
        weight_decay=0.1,
        rule=rule,
        adapt_momentum=momentum,
        hyper_lr_beta=hyper_lr_beta,
        track_surprise=True,
        surprise_gamma=gamma,
        surprise_alpha=alpha,
        warmup_steps=4,
        device=device,
    )
    twin = Torch(problem, 0.01, (0.9, 0.999), 0.1, running=rule == "corrected")
    lrs, beta1s, surprises, s_bars = [0.01], [0.9], [], [0.0]
    squares, beta_squares, energy, last = 0.0, 0.0, 0.0, 0.0
    mean: list[Tensor] = []

    def adapt(gradients: list[Tensor], by_lr: float, by_beta1: float) -> None:
        nonlocal squares, beta_squares, energy, last, mean
        gg = total(gradients, gradients)
        if twin.t >= 4:
            away = [g - e for g, e in zip(gradients, mean, strict=True)] if mean else gradients
            energy = gamma * energy + (1 - gamma) * gg if mean else gg
            surprise = math.tanh(total(away, away) / (energy + TINY)) if mean or rule == "doc" else 0.0
            mean = [gamma * e + (1 - gamma) * g for g, e in zip(gradients, mean, strict=True)] if mean else gradients
            surprises.append(surprise)
            s_bars.append(alpha * surprise + (1 - alpha) * s_bars[-1])
            along, across = twin.derivatives()
            h = by_lr / (last + TINY if rule == "doc" else math.sqrt(gg) * along + TINY)
            squares += h * h
            move = hyper_lr * h / (math.sqrt(squares) + TINY)
            used = twin.lr
            twin.lr = clip(used - move if rule == "doc" else used * math.exp(-move), 1e-6, 1.0)
            lrs.append(twin.lr)
            if momentum:
                if rule == "doc":
                    h = total(gradients, twin.m) / (last + TINY)
                else:
                    h = by_beta1 / used / (math.sqrt(gg) * across + TINY)
                beta_squares += h * h
                twin.beta1 = clip(twin.beta1 - hyper_lr_beta * h / (math.sqrt(beta_squares) + TINY), 0.5, 0.9995)
                beta1s.append(twin.beta1)
        last = gg

    run(optimizer, mine, problem, 40, adapt, twin)
    for ours, theirs in (
        (optimizer.lr_history, lrs),
        (optimizer.beta1_history, beta1s),
        (optimizer.surprise_history, surprises),
        (optimizer.s_bar_history, s_bars[1:]),
    ):
        np.testing.assert_allclose(ours, theirs, **TOLERANCES[dtype])
    for p, q in zip(mine, twin.ps, strict=True):
        np.testing.assert_allclose(p, q.detach().numpy(), **TOLERANCES[dtype])
