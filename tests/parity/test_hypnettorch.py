"""Side by side with hypnettorch's EWC and SI, on the same networks and gradients; its bugs are shown where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypnettorch.mnets.mlp import MLP
from hypnettorch.utils.ewc_regularizer import compute_fisher, ewc_regularizer
from hypnettorch.utils.si_regularizer import (
    si_compute_importance,
    si_post_optim_step,
    si_pre_optim_step,
    si_regularizer,
)

from grilly_optim.continual import EWC, Fisher, SynapticIntelligence

pytestmark = pytest.mark.hypnettorch

TASKS = 3
SAMPLES = 12
DTYPES = {"float32": (torch.float32, 2e-5), "float64": (torch.float64, 1e-12)}
dtypes = pytest.mark.parametrize("dtype", DTYPES)


class Data:
    """What hypnettorch asks of a data set; samples come in their order."""

    classification = True
    out_shape = (3,)
    num_classes = 3
    is_one_hot = False
    num_train_samples = SAMPLES

    def __init__(self, task: int, dtype: Any) -> None:
        rng = np.random.default_rng(task)
        self.inputs = torch.tensor(rng.standard_normal((SAMPLES, 4)), dtype=dtype)
        self.labels = torch.tensor(rng.integers(0, 3, SAMPLES))
        self.next = 0

    def reset_batch_generator(self, **_: Any) -> None:
        self.next = 0

    def next_train_batch(self, size: int, return_ids: bool = False) -> Any:
        self.next += size
        rows = slice(self.next - size, self.next)
        return self.inputs[rows], self.labels[rows]

    def input_to_torch_tensor(self, x: Any, *_: Any, **__: Any) -> Any:
        return x

    output_to_torch_tensor = input_to_torch_tensor

    def loss(self, net: Any, params: Any, rows: slice = slice(None)) -> Any:
        return torch.nn.functional.cross_entropy(net.forward(self.inputs[rows], weights=params), self.labels[rows])


def network(dtype: str) -> tuple[Any, list[Any]]:
    torch.manual_seed(0)
    net = MLP(n_in=4, n_out=3, hidden_layers=(6, 5), activation_fn=torch.nn.Tanh(), verbose=False).to(DTYPES[dtype][0])
    return net, list(net.internal_params)


def arrays(tensors: Any) -> list[Any]:
    return [t.detach().numpy().copy() for t in tensors]


def gradients(loss: Any, params: list[Any]) -> list[Any]:
    return arrays(torch.autograd.grad(loss, params))


def per_sample(net: Any, params: list[Any], data: Data, samples: int = SAMPLES) -> list[list[Any]]:
    return [gradients(data.loss(net, params, slice(s, s + 1)), params) for s in range(samples)]


def train(net: Any, params: list[Any], data: Data, steps: int = 5) -> None:
    for _ in range(steps):
        moves = gradients(data.loss(net, params), params)
        with torch.no_grad():
            for p, g in zip(params, moves, strict=True):
                p -= 0.5 * torch.tensor(g)


def fisher_of(samples: list[list[Any]], **options: Any) -> Fisher:
    return Fisher.from_per_sample_grads([np.stack(s) for s in zip(*samples, strict=True)], **options)


def buffers(net: Any, name: str, params: list[Any]) -> list[Any]:
    return [getattr(net, f"{name}_weights_{i}") for i in range(len(params))]


def close(mine: Any, theirs: Any, dtype: str) -> None:
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=DTYPES[dtype][1], atol=DTYPES[dtype][1] * 1e-2)


def compare_penalties(mine: EWC | SynapticIntelligence, theirs: Any, params: list[Any], dtype: str) -> None:
    """The value and the gradient of a penalty that torch computes."""
    assert mine.penalty(arrays(params)) == pytest.approx(theirs.item(), rel=DTYPES[dtype][1])
    close(mine.grad(arrays(params)), torch.autograd.grad(theirs, params), dtype)


@dtypes
@pytest.mark.parametrize(("online", "gamma"), [(False, 1.0), (True, 1.0), (True, 0.6)])
def test_ewc_over_three_tasks(online: bool, gamma: float, dtype: str) -> None:
    net, params = network(dtype)
    ewc = EWC(online, gamma)
    for task in range(TASKS):
        data = Data(task, DTYPES[dtype][0])
        train(net, params, data)
        if task > 0:
            # Online the original decays its stored Fisher in every call (see below), so it is put back.
            stored = [b.clone() for b in buffers(net, "ewc_fisher_estimate", params)] if online else []
            theirs = ewc_regularizer(task, params, net, online=online, gamma=gamma)
            compare_penalties(ewc, theirs, params, dtype)
            for b, kept in zip(buffers(net, "ewc_fisher_estimate", params) if online else [], stored, strict=True):
                b.copy_(kept)
        compute_fisher(task, data, params, "cpu", net, online=online, gamma=gamma)
        ewc.consolidate(arrays(params), fisher_of(per_sample(net, params, data)))
    train(net, params, Data(TASKS, DTYPES[dtype][0]))
    compare_penalties(ewc, ewc_regularizer(TASKS, params, net, online=online, gamma=gamma), params, dtype)


@dtypes
@pytest.mark.parametrize("n_max", [-1, 5, SAMPLES, 100])
@pytest.mark.parametrize("proper_scaling", [False, True])
def test_the_fisher_of_some_samples(proper_scaling: bool, n_max: int, dtype: str) -> None:
    net, params = network(dtype)
    data = Data(0, DTYPES[dtype][0])
    compute_fisher(0, data, params, "cpu", net, online=True, n_max=n_max, proper_scaling=proper_scaling)
    samples = per_sample(net, params, data, SAMPLES if n_max == -1 else min(n_max, SAMPLES))
    mine = fisher_of(samples, N=SAMPLES, proper_scaling=proper_scaling)
    close(mine.values, buffers(net, "ewc_fisher_estimate", params), dtype)


@dtypes
def test_the_original_decays_the_online_fisher_in_every_call(dtype: str) -> None:
    net, params = network(dtype)
    data, ewc = Data(0, DTYPES[dtype][0]), EWC(online=True, gamma=0.5)
    compute_fisher(0, data, params, "cpu", net, online=True, gamma=0.5)
    ewc.consolidate(arrays(params), fisher_of(per_sample(net, params, data)))
    train(net, params, Data(1, DTYPES[dtype][0]))
    first, second = (ewc_regularizer(1, params, net, online=True, gamma=0.5).item() for _ in range(2))
    assert second == pytest.approx(first / 2, rel=1e-5)
    assert [ewc.penalty(arrays(params)) for _ in range(2)] == pytest.approx([first, first], rel=DTYPES[dtype][1])


@dtypes
@pytest.mark.parametrize(("proper_scaling", "share"), [(False, 1 / 4), (True, SAMPLES / 4)])
def test_the_original_scales_the_prior_with_the_samples(proper_scaling: bool, share: float, dtype: str) -> None:
    net, params = network(dtype)
    data, prior = Data(0, DTYPES[dtype][0]), 3.0
    options = {"online": True, "n_max": 4, "proper_scaling": proper_scaling}
    compute_fisher(0, data, params, "cpu", net, prior_strength=prior, **options)
    theirs = buffers(net, "ewc_fisher_estimate", params)
    samples = per_sample(net, params, data, 4)
    mine = fisher_of(samples, N=SAMPLES, proper_scaling=proper_scaling, prior=prior)
    close([f - prior + share * prior for f in mine.values], theirs, dtype)


@dtypes
def test_the_original_adds_the_prior_for_every_task(dtype: str) -> None:
    net, params = network(dtype)
    ewc = EWC(online=True)
    for task in range(TASKS):
        data = Data(task, DTYPES[dtype][0])
        compute_fisher(task, data, params, "cpu", net, online=True, prior_strength=SAMPLES * 1.0)
        prior = 1.0 if task == 0 else 0.0
        ewc.consolidate(arrays(params), fisher_of(per_sample(net, params, data), prior=prior))
    weights, _ = ewc._quadratic() or ([], [])
    close([w + (TASKS - 1) * 1.0 for w in weights], buffers(net, "ewc_fisher_estimate", params), dtype)


@dtypes
def test_the_original_sums_up_gradients_of_parameters_that_are_not_the_network_s(dtype: str) -> None:
    net, params = network(dtype)
    data = Data(0, DTYPES[dtype][0])
    foreign = [p.detach().clone().requires_grad_() for p in params]
    compute_fisher(0, data, foreign, "cpu", net)
    theirs = buffers(net, "ewc_fisher_estimate_task_0", params)
    samples = per_sample(net, foreign, data)
    summed = [list(np.cumsum(np.stack(s), axis=0)) for s in zip(*samples, strict=True)]
    close([np.mean(np.square(s), axis=0) for s in summed], theirs, dtype)
    compute_fisher(0, data, params, "cpu", net)
    close(fisher_of(samples).values, buffers(net, "ewc_fisher_estimate_task_0", params), dtype)


@dtypes
@pytest.mark.parametrize("with_delta", [False, True])
def test_si_over_three_tasks(with_delta: bool, dtype: str) -> None:
    net, params = network(dtype)
    optimizer = torch.optim.Adam(params, lr=0.03)
    si = SynapticIntelligence(epsilon=1e-2)
    for task in range(TASKS):
        data = Data(task, DTYPES[dtype][0])
        for step in range(8):
            optimizer.zero_grad()
            data.loss(net, params).backward()
            before = [p.detach().clone() for p in params]
            si_pre_optim_step(net, params, no_pre_step_ckpt=with_delta)
            if not with_delta or (task == 0 and step == 0):
                si.pre_step(arrays(params))
            optimizer.step()
            delta = [p.detach() - b for p, b in zip(params, before, strict=True)] if with_delta else None
            si_post_optim_step(net, params, delta_params=delta)
            si.post_step(arrays(params), arrays(p.grad for p in params), arrays(delta) if delta else None)
            if task > 0:
                compare_penalties(si, si_regularizer(net, params), params, dtype)
        si_compute_importance(net, params, epsilon=1e-2)
        si.consolidate(arrays(params))
    with torch.no_grad():
        for p in params:
            p += 0.3
    compare_penalties(si, si_regularizer(net, params), params, dtype)


def test_the_original_cannot_consolidate_twice_and_has_no_penalty_before() -> None:
    net, params = network("float64")
    si = SynapticIntelligence()
    with pytest.raises(ValueError, match="after function"):
        si_regularizer(net, params)
    assert si.penalty(arrays(params)) == 0.0
    si_pre_optim_step(net, params)
    si.pre_step(arrays(params))
    Data(0, torch.float64).loss(net, params).backward()
    with torch.no_grad():
        for p in params:
            p -= 0.1 * p.grad
    si_post_optim_step(net, params)
    si.post_step(arrays(params), arrays(p.grad for p in params))
    si_compute_importance(net, params)
    si.consolidate(arrays(params))
    with pytest.raises(TypeError):
        si_compute_importance(net, params)
    si.consolidate(arrays(params))
    with torch.no_grad():
        for p in params:
            p += 0.1
    compare_penalties(si, si_regularizer(net, params), params, "float64")
