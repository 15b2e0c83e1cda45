"""Samplers: their recurrences, their noise, and what a step may be given."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.sampling import BAOAB, SGHMC, SGLD, SGMCMC, SGNHT, CompositePrior, GaussianPrior
from tests.sampler_table import FACTORY, SAMPLERS, SHAPES, SamplerRow, samplers
from tests.table import Array, assert_bits, draw, layouts, works

sgld = SGMCMC.sgld


def numbers(rng: np.random.Generator, dtype: Any = np.float64) -> list[Array]:
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def run(row: SamplerRow, device: str, dtype: Any, steps: int = 8, **more: Any) -> list[Array]:
    """Parameters after some steps with noise of the sampler's own; the second has no gradient in one of them."""
    rng = np.random.default_rng(6)
    ws = numbers(rng, dtype)
    sampler = row.make(ws, **row.options, **more, seed=11, device=device)
    for step in range(steps):
        gradients: list[Any] = numbers(rng, dtype)
        if step == 3:
            gradients[1] = None
        sampler.step(gradients=gradients)
    return ws


@samplers
def test_recurrence(row: SamplerRow, device: str) -> None:
    rng = np.random.default_rng(5)
    ws, z0 = numbers(rng), numbers(rng)
    expected = [w.copy() for w in ws]
    xi: dict[str, Any] = {}
    states = [{"w0": w.copy(), "k": k, "z0": z, "xi": xi} for k, (w, z) in enumerate(zip(ws, z0, strict=True))]
    more = {"momentum": z0} if row.momentum else {}
    sampler = row.make(ws, **row.options, **more, device=device)
    for step in range(20):
        gradients: list[Any] = numbers(rng)
        noise = numbers(rng)
        if step == 7:
            gradients[1] = None
        with works(device, 1):
            sampler.step(gradients=gradients, noise=noise)
        for k, (g, z) in enumerate(zip(gradients, noise, strict=True)):
            if g is not None:
                expected[k] = row.step(expected[k], g, z, states[k])
        if "squares" in xi:
            squares = np.concatenate([s.reshape(-1) for s in xi.pop("squares")])
            xi["xi"] += squares.mean() - row.options["lr"]
            np.testing.assert_allclose(sampler.param_groups[0]["thermostat"], xi["xi"], rtol=1e-10)
        for w, e in zip(ws, expected, strict=True):
            np.testing.assert_allclose(w, e, rtol=1e-11, atol=1e-12)
    assert not np.allclose(ws[1], states[1]["w0"])


@samplers
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_every_device_walks_the_same_way(row: SamplerRow, dtype: Any, device: str) -> None:
    for a, b in zip(run(row, device, dtype), run(row, "numpy", dtype), strict=True):
        assert_bits(a, b)


def test_the_noise_is_the_documented_one(device: str) -> None:
    """Step k of chain c draws from stream c; each parameter begins at the next multiple of 256."""
    shapes, seed, stream = [(3, 5), (3, 300), (3, 2, 2)], 2**40 + 1, 7
    ws, expected = ([np.zeros(shape, np.float32) for shape in shapes] for _ in range(2))
    sampler = sgld(ws, lr=1.0, nbeta=2.0, seed=seed, num_chains=3, stream=stream, device=device)
    for step in (1, 2):
        sampler.step(gradients=[np.zeros_like(w) for w in ws])
        for chain in range(3):
            z = grilly_optim.random.normal(256 + 512 + 256, seed, stream=stream + chain, step=step, device="numpy")
            for e, at in zip(expected, (0, 256, 768), strict=True):
                e[chain] += z[at : at + e[chain].size].reshape(e[chain].shape)
    for w, e in zip(ws, expected, strict=True):
        assert_bits(w, e)


def test_a_generator_is_asked_once_for_each_parameter_with_a_gradient(device: str) -> None:
    ws = [np.zeros(3, np.float32), np.zeros((2, 2), np.float32), np.zeros(1, np.float32)]
    sampler = sgld(ws, lr=1.0, nbeta=2.0, device=device)
    sampler.step(gradients=[ws[0] * 0, None, ws[2] * 0], noise_generator=np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert_bits(ws[0], rng.standard_normal(3, np.float32))
    assert not ws[1].any()
    assert_bits(ws[2], rng.standard_normal(1, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_layouts(dtype: Any, device: str) -> None:
    for name, make in layouts(dtype):
        w = make()
        plain = np.array(w, order="C")
        for p in (w, plain):
            sampler = sgld([p], lr=0.01, nbeta=2.0, localization=1.0, seed=5, device=device)
            for _ in range(3):
                sampler.step(gradients=[np.asarray(p * 0.5)])
        assert_bits(w, plain, name)


# Chains.


@samplers
def test_a_chain_is_the_same_alone_and_among_others(row: SamplerRow, device: str) -> None:
    def walk(chains: int, first: int) -> list[Array]:
        rng = np.random.default_rng(8)
        rows = slice(first, first + chains)
        ws = [np.ascontiguousarray(draw((4, *shape), rng=rng)[rows]) for shape in SHAPES]
        options = {k: [m.copy() for m in v] if isinstance(v, list) else v for k, v in row.options.items()}
        sampler = row.make(ws, **options, seed=1, num_chains=chains, stream=2 + first, device=device)
        for _ in range(4):
            sampler.step(gradients=[np.ascontiguousarray(draw((4, *s), rng=rng)[rows]) for s in SHAPES])
        return ws

    together = walk(4, 0)
    for first, chains in ((0, 1), (2, 1), (1, 3)):
        for part, whole in zip(walk(chains, first), together, strict=True):
            assert_bits(part, np.ascontiguousarray(whole[first : first + chains]))
    assert not np.array_equal(together[1][0], together[1][1])


def test_chains_without_an_axis_are_chain_0(device: str) -> None:
    w, v = np.zeros(300, np.float32), np.zeros((1, 300), np.float32)
    for p, chains in ((w, None), (v, 1)):
        sampler = sgld([p], nbeta=2.0, num_chains=chains, device=device)
        sampler.step(gradients=[np.zeros_like(p)])
    assert_bits(w, v[0])


# Options.


def test_nbeta_may_be_a_function_called_once_per_group_and_step(device: str) -> None:
    calls: list[float] = []

    def nbeta() -> float:
        calls.append(10.0 + len(calls))
        return calls[-1]

    ws, expected = ([np.ones(2), np.ones(3)] for _ in range(2))
    groups = [{"params": [w], "nbeta": nbeta} for w in ws]
    sampler = SGMCMC(groups, lr=0.1, noise_level=0.0, device=device)
    for step in range(2):
        sampler.step(gradients=[np.ones(2), np.ones(3)])
        for k, e in enumerate(expected):
            e -= 0.05 * (10 + 2 * step + k)
    assert len(calls) == 4
    for w, e in zip(ws, expected, strict=True):
        np.testing.assert_allclose(w, e, rtol=1e-14)


def test_options_may_change_between_steps(device: str) -> None:
    w = np.ones(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = SGLD([w], lr=0.1, noise_level=0.0, nbeta=2.0, localization=1.0, device=device)
    sampler.step(gradients=[np.ones(4)])
    np.testing.assert_allclose(w, 0.9)
    sampler.param_groups[0].update(lr=0.2, nbeta=3.0, localization=10.0, weight_decay=1.0)
    sampler.step(gradients=[np.ones(4)])
    np.testing.assert_allclose(w, 0.9 - 0.1 * (3 + 10 * -0.1 + 0.9))


def test_a_prior_may_get_another_precision(device: str) -> None:
    w = np.ones(2)
    sampler = SGMCMC([w], lr=0.2, noise_level=0.0, prior=GaussianPrior(1.0), device=device)
    sampler.step(gradients=[np.ones(2)])
    np.testing.assert_allclose(w, 0.9)
    sampler.param_groups[0]["prior"] = GaussianPrior(5.0)
    sampler.step(gradients=[np.zeros(2)])
    np.testing.assert_allclose(w, 0.9 + 0.1 * 5 * 0.1)
    sampler.param_groups[0]["prior"] = CompositePrior([GaussianPrior(0.1), GaussianPrior(0.3)])
    sampler.step(gradients=[np.zeros(2)])
    np.testing.assert_allclose(w, 0.95 + 0.1 * 0.4 * 0.05)


def test_a_prior_with_arrays_may_get_another_precision(device: str) -> None:
    w, center = np.ones(2), np.array([0.0, 3.0])
    sampler = SGMCMC([w], lr=0.2, noise_level=0.0, prior=GaussianPrior(1.0, [center]), device=device)
    for precision in (1.0, 2.0, 4.0):
        before = w.copy()
        sampler.param_groups[0]["prior"] = GaussianPrior(precision, [center.copy()])
        sampler.step(gradients=[np.zeros(2)])
        np.testing.assert_allclose(w, before - 0.1 * precision * (before - center))


def test_groups_have_options_of_their_own(device: str) -> None:
    a, b, c = np.ones(2), np.ones(2), np.ones(2)
    groups = [
        {"params": [a], "lr": 0.2},
        {"params": [b], "localization": 3.0},
        {"params": [c], "preconditioner": "rmsprop", "prior": 1.0, "mask": [np.array([1.0, 0.0])]},
    ]
    sampler = SGMCMC(groups, lr=0.1, noise_level=0.0, device=device)
    for _ in range(2):
        sampler.step(gradients=[np.ones(2)] * 3)
    np.testing.assert_allclose(a, 0.8)
    np.testing.assert_allclose(b, 0.95 - 0.05 * (1 - 3 * 0.05))
    moved = 1.0
    for v in (0.01, 0.0199):
        moved -= 0.05 / (math.sqrt(v) + 0.1) * (1 + (moved - 1))
    np.testing.assert_allclose(c, [moved, 1.0])


def test_a_box_of_0_keeps_everything_in_place(device: str) -> None:
    w = draw(300)
    before = w.copy()
    sampler = sgld([w], nbeta=2.0, bounding_box_size=0.0, device=device)
    for _ in range(3):
        sampler.step(gradients=[draw(300)])
    assert_bits(w, before)


def test_nan_and_infinity_pass_through_the_box(device: str) -> None:
    w = np.zeros(4, np.float32)
    sampler = sgld([w], lr=0.1, nbeta=2.0, bounding_box_size=1.0, device=device)
    sampler.step(gradients=[np.array([np.nan, np.inf, -np.inf, 0], np.float32)])
    assert np.isnan(w[0])
    np.testing.assert_array_equal(w[1:3], [-1, 1])


def test_an_added_group_leaves_the_others_alone(device: str) -> None:
    def walk(add: bool) -> Array:
        w, more = draw(400, rng=np.random.default_rng(2)), np.ones(3, np.float32)
        sampler = SGHMC([w], lr=0.1, nbeta=2.0, localization=4.0, seed=3, device=device)
        for step in range(4):
            if add and step == 2:
                sampler.add_param_group({"params": [more], "localization": 0.0})
            gradients = [w.copy()] + [more.copy()] * (len(sampler.param_groups) - 1)
            sampler.step(gradients=gradients)
        assert add is not np.array_equal(more, np.ones(3))
        return w

    assert_bits(walk(True), walk(False))


def test_schedules_move_the_learning_rate(device: str) -> None:
    from grilly_optim.schedules import LambdaLR

    w = np.ones(2)
    sampler = SGMCMC([w], lr=0.2, noise_level=0.0, device=device)
    schedule = LambdaLR(sampler, lambda step: 1 / (1 + step))
    for expected in (0.9, 0.85):
        sampler.step(gradients=[np.ones(2)])
        schedule.step()
        np.testing.assert_allclose(w, expected)


# Around a step.


def test_closure_and_hooks(device: str) -> None:
    w, seen = np.zeros(2, np.float32), []
    sampler = sgld([w], lr=1.0, nbeta=2.0, device=device)
    ones = [np.ones(2, np.float32)]
    sampler.register_step_pre_hook(lambda s, args, kwargs: (args, {**kwargs, "noise": ones}))
    handle = sampler.register_step_post_hook(lambda s, args, kwargs: seen.append(kwargs["gradients"]))
    given = [np.zeros(2, np.float32)]
    assert sampler.step(lambda: 3.5, gradients=given) == 3.5
    assert_bits(w, ones[0])
    assert seen == [given]
    handle.remove()
    sampler.step(gradients=given)
    assert len(seen) == 1


def test_parameters_bring_their_gradients(device: str) -> None:
    w = grilly_optim.Parameter(np.zeros(2, np.float32))
    sampler = SGMCMC([w], lr=2.0, noise_level=0.0, device=device)
    w.grad = np.ones(2, np.float32)
    sampler.step()
    np.testing.assert_array_equal(np.asarray(w), [-1, -1])
    sampler.zero_grad()
    assert w.grad is None


def test_a_parameter_without_a_gradient_has_no_noise_and_no_prior(device: str) -> None:
    for row in SAMPLERS:
        ws = [np.ones(shape) for shape in SHAPES]
        sampler = row.make(ws, **row.options, device=device)
        sampler.step(gradients=[np.ones(s) for s in SHAPES])
        before = ws[0].copy()
        sampler.step(gradients=[None, *(np.ones(s) for s in SHAPES[1:])])
        assert_bits(ws[0], before)
        sampler.step(gradients=[None] * 3)
        assert_bits(ws[0], before)


def test_a_step_of_nobody_is_not_counted(device: str) -> None:
    v, w = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for p, empty in ((v, True), (w, False)):
        sampler = sgld([p], nbeta=2.0, device=device)
        if empty:
            sampler.step(gradients=[None])
        sampler.step(gradients=[np.zeros(3, np.float32)])
    assert_bits(v, w)


def test_thermostats_of_groups_that_stand_still_stay(device: str) -> None:
    """Two groups with learning rates of their own, one of them idle; and a step of nobody."""
    a, b = np.zeros((2, 50)), np.zeros((2, 50))
    groups = [{"params": [a], "lr": 0.01}, {"params": [b], "lr": 0.04, "diffusion_factor": 0.2}]
    sampler = SGNHT(groups, nbeta=2.0, diffusion_factor=0.1, seed=2, num_chains=2, device=device)
    momenta = [sampler.state_dict()["state"][k]["momentum"] for k in (0, 1)]
    for m, lr in zip(momenta, (0.01, 0.04), strict=True):
        assert 0.8 < m.std() / math.sqrt(lr) < 1.2
    sampler.step(gradients=[np.zeros((2, 50)), None])
    xi = [group["thermostat"] for group in sampler.param_groups]
    assert xi[1] == (0.2, 0.2)
    squares = np.mean(a**2, axis=1)  # from 0, a step moves by the momentum
    np.testing.assert_allclose(xi[0], 0.1 + squares - 0.01, rtol=1e-12)
    sampler.step(gradients=[None, None])
    assert [group["thermostat"] for group in sampler.param_groups] == xi


def test_momenta_have_numbers_of_their_own(device: str) -> None:
    """Purpose 1; a group that comes later draws with the step of then."""
    w, v = np.zeros(300, np.float32), np.zeros(7, np.float32)
    sampler = SGHMC([w], nbeta=2.0, seed=8, stream=3, device=device)
    z = grilly_optim.random.normal(300, 8, stream=3, purpose="momentum", device="numpy")
    assert_bits(sampler.state_dict()["state"][0]["momentum"], z)
    for _ in range(2):
        sampler.step(gradients=[w])
    sampler.add_param_group({"params": [v]})
    late = grilly_optim.random.normal(512 + 7, 8, stream=3, step=2, purpose="momentum", device="numpy")
    assert_bits(sampler.state_dict()["state"][1]["momentum"], late[512:])


def test_the_counter_has_an_end() -> None:
    w = np.zeros(3)
    sampler = sgld([w], nbeta=2.0, device="numpy")
    saved = sampler.state_dict()
    saved["state"][0]["step"] = 2**40 - 1
    sampler.load_state_dict(saved)
    with pytest.raises(OverflowError, match=r"room for 2\^40 steps"):
        sampler.step(gradients=[w])


def test_half_a_kick_begins_baoab() -> None:
    w = np.zeros(1)
    sampler = BAOAB([w], lr=1.0, temperature=0.0, alpha=0.0, device="numpy")
    sampler.step(gradients=[np.ones(1)])
    np.testing.assert_allclose(w, -0.5)
    sampler.step(gradients=[np.ones(1)])
    np.testing.assert_allclose(w, -2.0)
    late = np.zeros(1)
    sampler.add_param_group({"params": [late]})
    sampler.step(gradients=[None, np.ones(1)])
    np.testing.assert_allclose(late, -1.0)


def test_the_factories_warn() -> None:
    w = np.zeros(2)
    for make in (SGLD, sgld, SGMCMC.rmsprop_sgld):
        with pytest.warns(UserWarning, match="noise_level=0.5 does not sample") as caught:
            make([w], noise_level=0.5, nbeta=2.0, device="numpy")
        assert caught[0].filename == __file__
    for make in (SGLD, sgld, SGMCMC.rmsprop_sgld, SGMCMC.sgnht, SGNHT):
        with pytest.warns(UserWarning, match="nbeta is 1: .* default_nbeta") as caught:
            make([w], device="numpy")
        assert caught[0].filename == __file__


def test_a_sampler_shows_its_options() -> None:
    text = repr(SGMCMC.sgld([np.zeros(2)], **FACTORY, localization=3.0, mask=[np.ones(2)], device="numpy"))
    assert "GaussianPrior(3.0, center='initial')" in text
    assert "array(" not in text
