"""Side by side with devinterp's samplers, on the same gradients and the same noise."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.langevin import DTYPES, SHAPES, Make, Pair, ThermostatPair, error, metrics_error, ours, tolerance

# "staged" has the same kernels as "vulkan".
pytestmark = [pytest.mark.devinterp, pytest.mark.cases("numpy", "cpu", "vulkan")]

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
STEPS = 30

_rng = np.random.default_rng(7)
BINARY = [_rng.integers(0, 2, s).astype(bool) for s in SHAPES]
PARTIAL = [_rng.uniform(0.1, 1.5, s).astype(np.float32) for s in SHAPES]
CENTERS = [np.asarray(_rng.standard_normal(s)) for s in SHAPES]
OPTIONS: dict[str, Any] = {"lr": 0.01, "nbeta": 10.0}


def sgld(**options: Any) -> Make:
    return lambda k, ps: k.SGMCMC.sgld(ps, **OPTIONS, **_arrays(k, options), **k.more)


def rmsprop(**options: Any) -> Make:
    return lambda k, ps: k.SGMCMC.rmsprop_sgld(ps, **OPTIONS, **_arrays(k, options), **k.more)


def prior(of: Any) -> Make:
    """`of`: a prior, or a function of the library that makes one."""
    return lambda k, ps: k.SGMCMC(ps, **OPTIONS, prior=of(k) if callable(of) else of, **k.more)


def preconditioner(of: Any, **options: Any) -> Make:
    """`of`: a preconditioner, or a function of the library that makes one."""
    return lambda k, ps: k.SGMCMC(
        ps, **OPTIONS, preconditioner=of(k) if callable(of) else of, **_arrays(k, options), **k.more
    )


def _arrays(k: Any, options: dict[str, Any]) -> dict[str, Any]:
    lists = {name: [k.array(a) for a in o] for name, o in options.items() if isinstance(o, list)}
    return {**options, **lists}


def sgnht(**options: Any) -> Make:
    """The original's factory, and ours without a thermostat."""
    return lambda k, ps: k.SGMCMC.sgnht(
        ps, **OPTIONS, **options, **({"thermostat": False} if "device" in k.more else {}), **k.more
    )


def groups(k: Any, ps: list[Any]) -> Any:
    return k.SGMCMC(
        [
            {"params": ps[:1], "lr": 0.02, "noise_level": 0.5, "prior": 2.0},
            {"params": ps[1:3], "localization": 7.0, "bounding_box_size": 0.2},
            {"params": ps[3:], "nbeta": 3.0, "preconditioner": "rmsprop", "prior": "initial", "localization": 5.0},
        ],
        **OPTIONS,
        **k.more,
    )


def masked_groups(k: Any, ps: list[Any]) -> Any:
    return k.SGMCMC.rmsprop_sgld(
        [
            {"params": ps[:1], "mask": k.array(BINARY[0])},
            {"params": ps[1:2], "mask": [BINARY[1].tolist()]},
            {"params": ps[2:]},
        ],
        **OPTIONS,
        localization=3.0,
        **k.more,
    )


def centers(k: Any) -> list[Any]:
    return [k.array(c) for c in CENTERS]


CASES: dict[str, Make] = {
    "plain": sgld(),
    "weight_decay": sgld(weight_decay=4.0),
    "localization": sgld(localization=3.0),
    "both": sgld(weight_decay=4.0, localization=3.0),
    "noise_level": sgld(noise_level=0.7, localization=3.0),
    "no noise": sgld(noise_level=0.0, weight_decay=1.0),
    "nbeta": lambda k, ps: k.SGMCMC.sgld(ps, lr=0.003, nbeta=144.8, localization=1.0, **k.more),
    "box": sgld(bounding_box_size=0.1, localization=3.0),
    "box of no size": sgld(bounding_box_size=0.0, localization=3.0),
    "mask": sgld(mask=BINARY, localization=3.0, weight_decay=1.0),
    "partial mask": sgld(mask=PARTIAL, localization=3.0, noise_level=0.7),
    "mask and box": sgld(mask=PARTIAL, bounding_box_size=0.1),
    "groups": groups,
    "groups with masks": masked_groups,
    "one parameter": lambda k, ps: k.SGMCMC.sgld(ps[0], **OPTIONS, localization=2.0, **k.more),
    "one group": lambda k, ps: k.SGMCMC({"params": ps, "localization": 2.0}, **OPTIONS, **k.more),
    "prior: number": prior(5.0),
    "prior: whole number": prior(5),
    "prior: 0": prior(0.0),
    "prior: initial": prior("initial"),
    "prior: arrays": prior(centers),
    "prior: around 0": prior(lambda k: k.GaussianPrior(5.0, center=None)),
    "prior: around arrays": prior(lambda k: k.GaussianPrior(5.0, centers(k))),
    "prior: uniform": prior(lambda k: k.UniformPrior()),
    "prior: nothing": prior(lambda k: k.CompositePrior([])),
    "prior: composite of one": prior(lambda k: k.CompositePrior([k.GaussianPrior(5.0)])),
    "prior: composite": prior(
        lambda k: k.CompositePrior([k.GaussianPrior(5.0), k.UniformPrior(), k.GaussianPrior(2.0, None)])
    ),
    "prior: two centers": prior(
        lambda k: k.CompositePrior([k.GaussianPrior(5.0), k.GaussianPrior(2.0, centers(k)), k.GaussianPrior(1.0, None)])
    ),
    "prior: composites": prior(
        lambda k: k.CompositePrior([k.CompositePrior([k.GaussianPrior(3.0)]), k.GaussianPrior(2.0, None)])
    ),
    "rmsprop": rmsprop(),
    "rmsprop: alpha, eps": rmsprop(alpha=0.5, eps=1e-3),
    "rmsprop: no memory": rmsprop(alpha=0.0, eps=0.3),
    "rmsprop: priors": rmsprop(weight_decay=4.0, localization=3.0, noise_level=0.7),
    "rmsprop: mask": rmsprop(mask=BINARY, localization=3.0),
    "rmsprop: partial mask": rmsprop(mask=PARTIAL, weight_decay=3.0, localization=1.0),
    "rmsprop: box": rmsprop(bounding_box_size=0.1),
    "preconditioner: identity": preconditioner(lambda k: k.IdentityPreconditioner()),
    "preconditioner: None": preconditioner(None),
    "preconditioner: rmsprop": preconditioner("rmsprop", preconditioner_kwargs={"alpha": 0.9, "eps": 0.2}, prior=3.0),
    "preconditioner: RMSprop": preconditioner(lambda k: k.RMSpropPreconditioner(0.9), prior=3.0),
    "preconditioner: mask": preconditioner(lambda k: k.MaskPreconditioner([k.array(m) for m in BINARY]), prior=3.0),
    "preconditioner: masks": preconditioner(
        lambda k: k.MaskPreconditioner([k.array(m) for m in PARTIAL]), prior=3.0, mask=BINARY
    ),
    "preconditioner: RMSprop and mask": preconditioner(
        lambda k: k.CompositePreconditioner(
            [k.RMSpropPreconditioner(0.9), k.MaskPreconditioner([k.array(m) for m in PARTIAL])]
        ),
        prior=3.0,
    ),
    "preconditioner: all": preconditioner(
        lambda k: k.CompositePreconditioner(
            [
                k.NHTPreconditioning(0.3),
                k.MaskPreconditioner([k.array(m) for m in PARTIAL]),
                k.CompositePreconditioner([k.RMSpropPreconditioner(), k.NHTPreconditioning(0.7)]),
            ]
        ),
        prior=3.0,
        mask=BINARY,
    ),
    "preconditioner: NHT": preconditioner(lambda k: k.NHTPreconditioning(0.3), prior=3.0),
    "sgnht": sgnht(),
    "sgnht: diffusion_factor, box": sgnht(diffusion_factor=0.3, bounding_box_size=0.1),
}


def pair_of(name: str, dtype: Any, device: str, **more: Any) -> Pair:
    return Pair(CASES[name], dtype, device, shapes=SHAPES[:1] if name == "one parameter" else SHAPES, **more)


@dtypes
@pytest.mark.parametrize("name", CASES)
def test_30_steps(name: str, dtype: Any, device: str) -> None:
    pair = pair_of(name, dtype, device)
    for _ in range(STEPS):
        pair.step()
    pair.assert_close()


@dtypes
@pytest.mark.parametrize("name", CASES)
def test_metrics_of_10_steps(name: str, dtype: Any, device: str) -> None:
    pair = pair_of(name, dtype, device, save_metrics=True)
    # What the original does with lr 0.01 and a mask in float64 is a test of its own.
    pair.change(lr=2**-7)
    for step in range(10):
        pair.step()
        assert metrics_error(pair.sampler.get_metrics(), pair.original.get_metrics()) < 2e-5
        groups = zip(pair.sampler.iter_group_metrics(), pair.original.iter_group_metrics(), strict=True)
        assert all(metrics_error(a, b) < 2e-5 for a, b in groups), step
    pair.assert_close()


def sgld_class(**options: Any) -> Make:
    return lambda k, ps: k.SGLD(ps, **OPTIONS, **options, **k.more)


def sgld_groups(k: Any, ps: list[Any]) -> Any:
    masked = [{"params": [p], "mask": k.array(m)} for p, m in zip(ps[:2], BINARY, strict=False)]
    return k.SGLD([*masked, {"params": ps[2:], "localization": 5.0, "noise_level": 0.5}], **OPTIONS, **k.more)


SGLD: dict[str, Make] = {
    "plain": sgld_class(),
    "weight_decay": sgld_class(weight_decay=4.0),
    "localization": sgld_class(localization=3.0),
    "both": sgld_class(weight_decay=4.0, localization=3.0, noise_level=0.7),
    "box": sgld_class(bounding_box_size=0.1, localization=3.0),
    "groups": sgld_groups,
}


@dtypes
@pytest.mark.parametrize("name", SGLD)
def test_30_steps_of_the_class_sgld(name: str, dtype: Any, device: str) -> None:
    # Of masks, the original measures something else: see `test_devinterp_differences.py`.
    pair = Pair(SGLD[name], dtype, device, save_metrics=name != "groups")
    for step in range(STEPS):
        pair.change(lr=0.01 * 0.97**step)
        pair.step()
        if name != "groups":
            assert metrics_error(pair.sampler.get_metrics(), pair.original.get_metrics()) < 2e-5
    pair.assert_close()


@dtypes
@pytest.mark.parametrize("name", ["both", "box", "groups", "rmsprop: priors", "preconditioner: all"])
def test_missing_gradients_and_changing_options(name: str, dtype: Any, device: str) -> None:
    pair = Pair(CASES[name], dtype, device, save_metrics=True)
    for step in range(STEPS):
        pair.change(lr=2.0 ** -(7 + step % 3), nbeta=10.0 + step, noise_level=1.0 - step / 60)
        pair.step(missing=0.3)
        assert metrics_error(pair.sampler.get_metrics(), pair.original.get_metrics()) < 2e-5
    pair.assert_close()


@dtypes
def test_the_precisions_and_the_box_of_sgld_change_between_steps(dtype: Any, device: str) -> None:
    pair = Pair(sgld_class(weight_decay=4.0, localization=3.0, bounding_box_size=0.3), dtype, device)
    for step in range(STEPS):
        pair.change(weight_decay=4.0 / (1 + step), localization=3.0 + step, bounding_box_size=0.3 - step / 200)
        pair.step()
    pair.assert_close()


def test_metrics_of_a_step_without_any_gradient_are_0(device: str) -> None:
    pair = Pair(CASES["groups"], np.float64, device, save_metrics=True)
    for missing in (0.0, 2.0):
        pair.step(missing)
        assert metrics_error(pair.sampler.get_metrics(), pair.original.get_metrics()) < 2e-5
    assert (pair.sampler.get_metrics().numel, pair.sampler.get_metrics().distance[0]) == (0, 0)


class Normals:
    """torch's generator as one of NumPy's."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> Any:
        assert dtype is np.float32
        return torch.normal(0.0, 1.0, shape, generator=self.generator).numpy()


@dtypes
def test_a_noise_generator_is_asked_for_the_same_numbers_in_the_same_order(dtype: Any, device: str) -> None:
    pair = Pair(CASES["groups"], dtype, device)
    pair.change(noise_level=1.0)
    mine, theirs = Normals(3), torch.Generator().manual_seed(3)
    for _ in range(STEPS):
        gradients = pair.draw(missing=0.3)
        pair.sampler.step(gradients=gradients, noise_generator=mine)
        pair.original.step(noise_generator=theirs)
    pair.assert_close()


WITH_STATE = [
    *("plain", "both", "box", "groups", "prior: 0", "prior: arrays", "prior: composite"),
    *("rmsprop", "rmsprop: priors", "rmsprop: mask", "preconditioner: all"),
]


@dtypes
@pytest.mark.parametrize("name", WITH_STATE)
def test_the_state_is_the_original_s(name: str, dtype: Any, device: str) -> None:
    pair = Pair(CASES[name], dtype, device, save_metrics=name == "both")
    for _ in range(5):
        pair.step(missing=0.2)
    for mine, theirs in pair.states():
        anchors = [c for key, c in theirs.items() if key.startswith("prior_center") and c is not None]
        found = {
            "square_avg": theirs.get("square_avg"),
            "initial_param": theirs["initial_param"],
            "prior_center": anchors[0] if anchors else None,
        }
        for key, value in found.items():
            # A prior that does not pull keeps no center here.
            assert (key in mine) == (value is not None) or (key == "prior_center" and name == "prior: 0"), key
            assert key not in mine or error(mine[key], value) <= tolerance(dtype)


@dtypes
@pytest.mark.parametrize("name", ["localization", "box", "prior: two centers", "rmsprop: priors", "groups"])
def test_a_resumed_sampler_keeps_the_first_anchors(name: str, dtype: Any, device: str) -> None:
    pair = Pair(CASES[name], dtype, device)
    for _ in range(10):
        pair.step()
    mine, theirs = pair.sampler.state_dict(), pair.original.state_dict()
    pair.build()
    pair.sampler.load_state_dict(mine)
    pair.original.load_state_dict(theirs)
    for _ in range(STEPS - 10):
        pair.step()
    pair.assert_close()


# With these, parameters of size 1 keep it: where they grow to 10 and come back, float32 has lost a digit.
SLOW = {"lr": 1e-3, "nbeta": 10.0}


def thermostat(**options: Any) -> Make:
    return lambda k, ps: k.SGNHT(ps, **{**SLOW, **options}, **k.more)


def thermostat_boxes(k: Any, ps: list[Any]) -> Any:
    return k.SGNHT([{"params": ps[:2], "nbeta": 3.0}, {"params": ps[2:], "bounding_box_size": 0.05}], **SLOW, **k.more)


def thermostat_groups(k: Any, ps: list[Any]) -> Any:
    return k.SGNHT([{"params": ps[:2], "nbeta": 3.0}, {"params": ps[2:]}], **SLOW, **k.more)


SGNHT: dict[str, Make] = {
    "plain": thermostat(),
    "lr": thermostat(lr=1e-4, nbeta=50.0),
    "diffusion_factor": thermostat(diffusion_factor=0.1),
    "no diffusion": thermostat(diffusion_factor=0.0),
    "box": thermostat(bounding_box_size=0.05),
    "groups": thermostat_groups,
    "boxes": thermostat_boxes,
}


@dtypes
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("name", SGNHT)
def test_30_steps_of_sgnht_from_the_original_s_thermostat(name: str, missing: float, dtype: Any, device: str) -> None:
    pair = ThermostatPair(SGNHT[name], dtype, device)
    for _ in range(STEPS):
        pair.share_thermostats()
        pair.step(missing)
        assert error(*pair.thermostats) < 1e-6
    pair.assert_close()
    for mine, theirs in pair.states():
        assert error(mine["momentum"], theirs["momentum"]) <= tolerance(dtype)
        assert "initial_param" not in mine or error(mine["initial_param"], theirs["initial_param"]) == 0


@dtypes
@pytest.mark.parametrize("name", SGNHT)
def test_30_steps_of_sgnht_with_a_thermostat_of_its_own(name: str, dtype: Any, device: str) -> None:
    pair = ThermostatPair(SGNHT[name], dtype, device)
    for step in range(STEPS):
        pair.change(lr=pair.original.param_groups[0]["lr"] * (0.98 if step % 5 == 4 else 1.0))
        pair.step()
        assert error(*pair.thermostats) < 1e-6
    # The original's thermostat is float32 for parameters of either precision.
    assert pair.error <= 5e-6


CHAINS: dict[str, Make] = {"sgld": CASES["both"], "rmsprop": CASES["rmsprop: priors"], "sgnht": SGNHT["box"]}


@dtypes
@pytest.mark.parametrize("name", CHAINS)
def test_each_chain_is_a_sampler_of_the_original(name: str, dtype: Any, device: str) -> None:
    kind, more = (ThermostatPair, {}) if name == "sgnht" else (Pair, {"save_metrics": True})
    pairs = [kind(CHAINS[name], dtype, device, shapes=SHAPES[:2], seed=c, **more) for c in range(3)]

    def rows(of_chains: Any) -> list[Any]:
        return [np.stack(parts) for parts in zip(*of_chains, strict=True)]

    params = rows(pair.mine for pair in pairs)
    momenta = {"momentum": rows(pair.own["momentum"] for pair in pairs)} if name == "sgnht" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = CHAINS[name](ours(device, num_chains=3, **more, **momenta), params)
    for _ in range(STEPS):
        gradients = rows(pair.draw() for pair in pairs)
        if name == "sgnht":
            sampler.param_groups[0]["thermostat"] = np.array([pair.thermostats[1][0] for pair in pairs])
        sampler.step(gradients=gradients, noise=rows(pair.step_original() for pair in pairs))
        if name == "sgnht":
            xi = sampler.param_groups[0]["thermostat"]
            assert error(xi, [pair.thermostats[1][0] for pair in pairs]) < 1e-6
            continue
        for c, pair in enumerate(pairs):
            assert metrics_error(sampler.get_metrics(), pair.original.get_metrics(), c) < 2e-5
    for c, pair in enumerate(pairs):
        for p, q in zip(params, pair.theirs, strict=True):
            assert error(p[c], q.detach().numpy()) <= tolerance(dtype)


@dtypes
@pytest.mark.parametrize("name", CHAINS)
def test_parameters_of_many_elements(name: str, dtype: Any, device: str) -> None:
    kind, more = (ThermostatPair, {}) if name == "sgnht" else (Pair, {"save_metrics": True})
    pair = kind(CHAINS[name], dtype, device, shapes=[(20_011,), (33, 101)], **more)
    for _ in range(3):
        if isinstance(pair, ThermostatPair):
            pair.share_thermostats()
        pair.step()
        if isinstance(pair, ThermostatPair):
            assert error(*pair.thermostats) < 1e-6
        else:
            assert metrics_error(pair.sampler.get_metrics(), pair.original.get_metrics()) < 2e-5
    pair.assert_close()


NOT_FINITE: dict[str, Make] = {
    "sgld": sgld(localization=1.0),
    "sgld: box": sgld(bounding_box_size=0.1),
    "rmsprop": rmsprop(weight_decay=1.0),
    "rmsprop: box": rmsprop(bounding_box_size=0.1),
    "sgnht": thermostat(),
    "sgnht: box": thermostat(bounding_box_size=0.1),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_gradients_that_are_not_finite(name: str, device: str) -> None:
    kind = ThermostatPair if name.startswith("sgnht") else Pair
    pair = kind(NOT_FINITE[name], np.float32, device, shapes=[(5,), (3,)])
    special = np.array([1.0, np.inf, -np.inf, np.nan, 3e30], np.float32)
    for values in (np.ones(5, np.float32), special, np.ones(5, np.float32)):
        gradients = [values, np.ones(3, np.float32)]
        for q, g in zip(pair.theirs, gradients, strict=True):
            q.grad = torch.tensor(g)
        pair.sampler.step(gradients=gradients, noise=pair.step_original())
        for p, q in zip(pair.mine, pair.theirs, strict=True):
            np.testing.assert_allclose(p, q.detach().numpy(), rtol=5e-6, atol=5e-7)
