"""Metrics: what they are, and that measuring changes nothing."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import (
    SGMCMC,
    SGNHT,
    SKETCH_QUANTITIES,
    CompositePrior,
    CountSketch,
    GaussianPrior,
    Metrics,
)
from tests.sampler_table import FACTORY, FULL, MASKS, SHAPES, SamplerRow, mask_of, samplers
from tests.table import Array, assert_bits, draw
from tests.test_samplers import run

NORMS = ["scaled_grad", "unscaled_grad", "localization", "weight_decay", "noise", "distance"]
PRODUCTS = ["dot_grad_prior", "dot_grad_noise", "dot_prior_noise"]


@samplers
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_measuring_changes_no_bit(row: SamplerRow, dtype: Any, device: str) -> None:
    for a, b in zip(run(row, device, dtype, save_metrics=True), run(row, device, dtype), strict=True):
        assert_bits(a, b)


def parts(w: Array, w0: Array, g: Array, z: Array, mask: Any, scale: Any = 1.0) -> dict[str, Array]:
    """The parts of a step of `FULL`, before the box."""
    half = FULL["lr"] / 2
    return {
        "scaled_grad": half * mask * scale * FULL["nbeta"] * g,
        "unscaled_grad": half * FULL["nbeta"] * g,
        "localization": half * mask * scale * FULL["localization"] * (w - w0),
        "weight_decay": half * mask * scale * FULL["weight_decay"] * w,
        "noise": math.sqrt(FULL["lr"]) * mask * np.sqrt(scale) * z,
        "distance": w - w0,
    }


def expected_metrics(of: list[dict[str, Array]]) -> dict[str, float]:
    flat = {name: np.concatenate([p[name].reshape(-1) for p in of]) for name in NORMS}
    prior = flat["localization"] + flat["weight_decay"]
    found = {name: float(np.linalg.norm(flat[name])) for name in NORMS}
    found["dot_grad_prior"] = float(flat["scaled_grad"] @ prior)
    found["dot_grad_noise"] = float(flat["scaled_grad"] @ flat["noise"])
    found["dot_prior_noise"] = float(prior @ flat["noise"])
    return found


def assert_metrics(found: Metrics, expected: dict[str, float], chain: int = 0) -> None:
    for name, value in expected.items():
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name)[chain], value, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("rmsprop", [False, True], ids=["identity", "rmsprop"])
def test_metrics_are_those_of_the_parts(rmsprop: bool, device: str) -> None:
    """By group and together, with masks, a box that was hit, and a parameter that was skipped."""
    rng = np.random.default_rng(3)
    ws = [rng.standard_normal(shape) for shape in SHAPES]
    w0 = [w.copy() for w in ws]
    make = SGMCMC.rmsprop_sgld if rmsprop else SGMCMC.sgld
    groups = [{"params": ws[:2], "mask": MASKS[:2]}, {"params": ws[2:]}]
    sampler = make(groups, **FULL, save_metrics=True, device=device)
    assert_metrics(sampler.get_metrics(), dict.fromkeys(NORMS + PRODUCTS, 0.0))
    masks, v = [*MASKS[:2], np.ones(1)], [0.0, 0.0, 0.0]
    for step in range(4):
        before = [w.copy() for w in ws]
        gradients: list[Any] = [rng.standard_normal(shape) for shape in SHAPES]
        noise = [rng.standard_normal(shape) for shape in SHAPES]
        if step == 2:
            gradients[0] = None
        sampler.step(gradients=gradients, noise=noise)
        of = {}
        for k, g in enumerate(gradients):
            if g is not None:
                v[k] = 0.99 * v[k] + 0.01 * g**2
                scale = 1 / (np.sqrt(v[k]) + 0.1) if rmsprop else 1.0
                of[k] = parts(before[k], w0[k], g, noise[k], masks[k], scale)
        by_group = [[of[k] for k in (0, 1) if k in of], [of[2]]]
        for group, members in zip(sampler.iter_group_metrics(), by_group, strict=True):
            assert_metrics(group, expected_metrics(members))
        assert_metrics(sampler.get_metrics(), expected_metrics([*by_group[0], *by_group[1]]))
        moving = sum(int(masks[k].sum()) for k in of)
        assert sampler.get_metrics().numel == moving
        prior = math.hypot(*(float(getattr(sampler.get_metrics(), n)[0]) for n in ("localization", "weight_decay")))
        np.testing.assert_allclose(sampler.get_metrics().prior, prior, rtol=1e-6)
    assert any(np.any(np.abs(w - a) == FULL["bounding_box_size"]) for w, a in zip(ws, w0, strict=True))


def test_the_parts_make_the_step(device: str) -> None:
    """Without a box, |dw|^2 follows from norms and products."""
    rng = np.random.default_rng(4)
    w = rng.standard_normal(5000)
    sampler = SGMCMC.rmsprop_sgld([w], lr=0.01, nbeta=30.0, localization=50.0, save_metrics=True, device=device)
    for _ in range(3):
        before = w.copy()
        sampler.step(gradients=[rng.standard_normal(5000)])
        m = sampler.get_metrics()
        squares = m.scaled_grad**2 + m.localization**2 + m.noise**2
        products = 2 * (m.dot_grad_prior - m.dot_grad_noise - m.dot_prior_noise)
        np.testing.assert_allclose(np.sum((w - before) ** 2), squares + products, rtol=1e-5)


def test_every_chain_has_its_own(device: str) -> None:
    rng = np.random.default_rng(5)
    w = rng.standard_normal((3, 70))
    noise, g = rng.standard_normal((3, 70)), rng.standard_normal((3, 70))
    sampler = SGMCMC.sgld([w], **FULL, save_metrics=True, num_chains=3, device=device)
    before = w.copy()
    sampler.step(gradients=[g], noise=[noise])
    assert sampler.get_metrics().scaled_grad.shape == (3,)
    assert sampler.get_metrics().numel == 70
    for c in range(3):
        of = parts(before[c], before[c], g[c], noise[c], np.ones(70))
        assert_metrics(sampler.get_metrics(), expected_metrics([of]), c)


def test_groups_show_live_objects() -> None:
    w = draw(5)
    sampler = SGMCMC.sgld([w], **FACTORY, save_metrics=True, device="numpy")
    (live,) = sampler.iter_group_metrics()
    sampler.step(gradients=[draw(5)])
    assert live.scaled_grad[0] > 0
    assert live is next(sampler.iter_group_metrics())


def test_metrics_must_be_asked_for() -> None:
    sampler = SGMCMC.sgld([draw(5)], **FACTORY, device="numpy")
    with pytest.raises(RuntimeError, match="save_metrics=True"):
        sampler.get_metrics()
    with pytest.raises(RuntimeError, match="save_metrics=True"):
        sampler.iter_group_metrics()


# SGNHT's parts are those of the momentum's change; sketches hold what metrics measure.


def test_metrics_of_the_thermostat(device: str) -> None:
    rng = np.random.default_rng(6)
    w, mask = rng.standard_normal(60), mask_of((60,))
    sampler = SGNHT([w], lr=0.01, nbeta=5.0, diffusion_factor=0.3, mask=[mask], save_metrics=True, device=device)
    sampler.step(gradients=[rng.standard_normal(60)])
    before, start = w.copy(), sampler.state_dict()["state"][0]["initial_param"]
    g, z = rng.standard_normal(60), rng.standard_normal(60)
    sampler.step(gradients=[g], noise=[z])
    push, noise = mask * 0.05 * g, mask * math.sqrt(0.006) * z
    found = sampler.get_metrics()
    norms = {"scaled_grad": push, "unscaled_grad": push, "noise": noise, "distance": before - start}
    expected = {name: float(np.linalg.norm(x)) for name, x in norms.items()}
    assert_metrics(found, expected | {"localization": 0.0, "weight_decay": 0.0, "dot_grad_noise": float(push @ noise)})
    assert found.numel == 40
    np.testing.assert_array_equal(w[::3], before[::3])


@pytest.mark.parametrize("chains", [None, 3])
def test_sketches_are_those_of_the_parts(chains: int | None, device: str) -> None:
    """Over two groups, one of them preconditioned; a parameter that stood still adds nothing."""
    rng = np.random.default_rng(7)
    shapes = [(4, 5), (300,), (7,)]
    axes = () if chains is None else (chains,)
    ws = [rng.standard_normal((*axes, *shape)) for shape in shapes]
    w0 = [w.copy() for w in ws]
    groups = [{"params": ws[:2]}, {"params": ws[2:], "preconditioner": "rmsprop"}]
    prior = CompositePrior([GaussianPrior(FULL["localization"]), GaussianPrior(FULL["weight_decay"], None)])
    options = {"lr": FULL["lr"], "nbeta": FULL["nbeta"], "prior": prior}
    sampler = SGMCMC(groups, **options, sketch_dim=11, sketch_seed=5, num_chains=chains, device=device)
    hashes, v = CountSketch.create(327, 11, 5), 0.0
    for step in range(3):
        before = [w.copy() for w in ws]
        gradients: list[Any] = [rng.standard_normal(w.shape) for w in ws]
        noise = [rng.standard_normal(w.shape) for w in ws]
        if step == 2:
            gradients[0] = None
        sampler.step(gradients=gradients, noise=noise)
        v = 0.99 * v + 0.01 * gradients[2] ** 2
        found = sampler.get_sketches()
        for name in SKETCH_QUANTITIES:
            whole = []
            for k, g in enumerate(gradients):
                scale = 1 / (np.sqrt(v) + 0.1) if k == 2 else 1.0
                of = np.zeros_like(ws[k]) if g is None else parts(before[k], w0[k], g, noise[k], 1.0, scale)[name]
                whole.append(of.reshape(*axes, -1))
            vector = np.concatenate(whole, axis=-1)
            expected = np.array([hashes.sketch(row) for row in vector.reshape(-1, 327)]).reshape(*axes, 11)
            assert getattr(found, name).dtype == np.float32
            np.testing.assert_allclose(getattr(found, name), expected, rtol=2e-5, atol=1e-5, err_msg=name)


def test_sketches_change_no_bit_and_outlive_copies(device: str) -> None:
    def walk(**options: Any) -> tuple[Array, Any]:
        w = draw(500, rng=np.random.default_rng(2))
        sampler = SGNHT([w], **FACTORY, seed=4, **options, device=device)
        for _ in range(3):
            sampler.step(gradients=[w.copy()])
        return w, sampler

    w, sampler = walk(sketch_dim=16)
    assert_bits(w, walk()[0])
    sketches = sampler.get_sketches()
    np.testing.assert_array_equal(sketches.scaled_grad, sketches.unscaled_grad)
    assert not sketches.localization.any()
    assert sketches.noise.any()
    other = pickle.loads(pickle.dumps(sampler))
    for one in (sampler, other):
        one.step(gradients=[np.ones(500, np.float32)])
    np.testing.assert_array_equal(other.get_sketches().noise, sampler.get_sketches().noise)


def test_injected_hashes_and_added_groups(device: str) -> None:
    w, v = np.ones(3, np.float32), np.ones(2, np.float32)
    hashes = CountSketch([0, 1, 0], [1, -1, 1], 2)
    sampler = SGMCMC([w], lr=2.0, noise_level=0.0, sketch=hashes, device=device)
    np.testing.assert_array_equal(sampler.get_sketches().scaled_grad, [0, 0])
    sampler.step(gradients=[np.array([1, 2, 4], np.float32)])
    np.testing.assert_array_equal(sampler.get_sketches().scaled_grad, [5, -2])
    with pytest.raises(ValueError, match="sketch is for 3 elements, and the parameters have 5"):
        sampler.add_param_group({"params": [v]})
    sampler.step(gradients=[np.array([1, 0, 0], np.float32)])
    np.testing.assert_array_equal(sampler.get_sketches().scaled_grad, [1, 0])


def test_sketches_must_be_asked_for() -> None:
    sampler = SGMCMC.sgld([draw(5)], **FACTORY, device="numpy")
    assert not sampler.save_sketches
    with pytest.raises(RuntimeError, match="sketch_dim="):
        sampler.get_sketches()
