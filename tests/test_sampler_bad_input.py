"""Bad input to samplers gives one clear error that names the culprit, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim import DeviceUnavailable
from grilly_optim.sampling import (
    BAOA,
    SGHMC,
    SGLD,
    SGMCMC,
    SGNHT,
    CompositePreconditioner,
    CompositePrior,
    CountSketch,
    GaussianPrior,
    IdentityPreconditioner,
    MaskPreconditioner,
    NHTPreconditioning,
    Preconditioner,
    Prior,
    RMSpropPreconditioner,
    UniformPrior,
)
from tests.table import assert_bits, draw

FINE: dict[str, Any] = {"lr": 0.1, "nbeta": 2.0}


class OtherPrior(Prior):
    def initialize(self, params: Any) -> Any:
        return {}

    def grad(self, param: Any, state: Any) -> Any:
        return param**3


class OtherPreconditioner(Preconditioner):
    def get_coefficients(self, param: Any, grad: Any, state: Any) -> Any:
        raise NotImplementedError


SKETCH = CountSketch.create(3, 2, 0)
TWO_RMSPROPS = CompositePreconditioner([RMSpropPreconditioner(), RMSpropPreconditioner()])


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (SGMCMC, {"lr": 0.0}, ValueError, r"lr must be above 0, got 0.0"),
        (SGMCMC, {"lr": -1.0}, ValueError, r"lr must be above 0, got -1.0"),
        (SGMCMC, {"lr": math.nan}, ValueError, r"lr must be above 0, and finite, got nan"),
        (SGMCMC, {"nbeta": 0.0}, ValueError, r"nbeta must be above 0, got 0.0"),
        (SGMCMC, {"nbeta": -2}, ValueError, r"nbeta must be above 0, got -2"),
        (SGMCMC, {"nbeta": math.nan}, ValueError, r"nbeta must be above 0, and finite, got nan"),
        (SGMCMC, {"nbeta": "many"}, TypeError, r"nbeta must be a real number, got 'many'"),
        (SGMCMC, {"noise_level": -1.0}, ValueError, r"noise_level must be 0 or more"),
        (SGMCMC, {"bounding_box_size": -0.1}, ValueError, r"bounding_box_size must be 0 or more, got -0.1"),
        (SGMCMC, {"bounding_box_size": math.nan}, ValueError, r"bounding_box_size must be 0 or more, got nan"),
        (SGMCMC, {"seed": -1}, ValueError, r"seed must be from 0 to 2\^64 - 1, got -1"),
        (SGMCMC, {"seed": 1.5}, TypeError, r"seed must be a whole number, got 1.5"),
        (SGMCMC, {"stream": 2**32}, ValueError, r"stream must be from 0 to 2\^32 - 1"),
        (SGMCMC, {"stream": 2**32 - 1, "num_chains": 2}, ValueError, r"stream \+ num_chains must be at most 2\^32"),
        (SGMCMC, {"num_chains": 0}, ValueError, r"num_chains must be 1 or more, got 0"),
        (
            SGMCMC,
            {"num_chains": 4},
            ValueError,
            r"parameter 0 must have shape \(4, ...\), one row per chain, got \(3, 2\)",
        ),
        (SGMCMC, {"mask": [np.ones(3), None]}, ValueError, r"mask\[0\] has shape \(3,\), expected \(3, 2\)"),
        (SGMCMC, {"mask": [np.ones((3, 2))]}, ValueError, r"mask has 1 arrays for 2 parameters"),
        (SGMCMC, {"mask": [1.0, None]}, ValueError, r"mask\[0\] has shape \(\), expected \(3, 2\)"),
        (SGMCMC, {"mask": [["a"] * 2] * 3}, ValueError, r"mask has 3 arrays for 2 parameters"),
        (SGMCMC, {"mask": [np.full((3, 2), "a"), None]}, TypeError, r"mask\[0\] must hold real numbers"),
        (SGMCMC, {"mask": 3}, TypeError, r"mask must be an array per parameter, got int"),
        (SGMCMC, {"prior": -1.0}, ValueError, r"prior must be 0 or more"),
        (SGMCMC, {"prior": math.nan}, ValueError, r"prior must be 0 or more"),
        (
            SGMCMC,
            {"prior": "final"},
            ValueError,
            r"center must be None, 'initial' or an array per parameter, got 'final'",
        ),
        (
            SGMCMC,
            {"prior": object()},
            TypeError,
            r"prior must be a Prior, a number, 'initial' or an array per parameter",
        ),
        (SGMCMC, {"prior": [np.ones((3, 2))]}, ValueError, r"center has 1 arrays for 2 parameters"),
        (
            SGMCMC,
            {"prior": [np.ones((3, 2)), np.ones(3)]},
            ValueError,
            r"center\[1\] has shape \(3,\), expected \(4,\)",
        ),
        (SGMCMC, {"prior": OtherPrior()}, TypeError, r"got OtherPrior: add the gradient of its negative logarithm"),
        (SGMCMC, {"preconditioner": "adam"}, ValueError, r"preconditioner must be 'identity', 'rmsprop' or a Prec"),
        (SGMCMC, {"preconditioner": OtherPreconditioner()}, TypeError, r"got OtherPreconditioner"),
        (SGMCMC, {"preconditioner": TWO_RMSPROPS}, ValueError, r"more than one RMSprop"),
        (SGMCMC, {"preconditioner_kwargs": {"alpha": 0.5}}, TypeError, r"preconditioner_kwargs are for precond"),
        (
            SGMCMC,
            {"preconditioner": "rmsprop", "preconditioner_kwargs": {"alpha": 2.0}},
            ValueError,
            r"alpha must be in \[0, 1\], got 2.0",
        ),
        (SGMCMC.sgld, {"localization": -1.0}, ValueError, r"localization must be 0 or more"),
        (SGMCMC.sgld, {"weight_decay": -1.0}, ValueError, r"weight_decay must be 0 or more"),
        (SGMCMC.rmsprop_sgld, {"eps": -1.0}, ValueError, r"eps must be 0 or more"),
        (SGMCMC.rmsprop_sgld, {"add_grad_correction": True}, NotImplementedError, r"add_grad_correction"),
        (SGMCMC.sgnht, {"diffusion_factor": -1.0}, ValueError, r"diffusion_factor must be 0 or more"),
        (SGMCMC.sgnht, {"mask": [np.full((3, 2), 0.5), None]}, ValueError, r"mask of SGNHT must be 0 or 1"),
        (SGLD, {"localization": math.inf}, ValueError, r"localization must be 0 or more, and finite, got inf"),
        (SGLD, {"device": "tpu"}, DeviceUnavailable, r"device='tpu' is not known"),
        (SGLD, {"save_metrics": 1}, TypeError, r"save_metrics must be True or False, got 1"),
        (SGLD, {"sketch_dim": 0}, ValueError, r"sketch_dim must be 1 or more, got 0"),
        (SGLD, {"sketch_dim": 5, "sketch_seed": -1}, ValueError, r"sketch_seed must be from 0"),
        (SGLD, {"sketch": 5}, TypeError, r"sketch must be a CountSketch, got int"),
        (SGLD, {"sketch": SKETCH}, ValueError, r"sketch is for 3 elements, and the parameters have 10"),
        (SGLD, {"sketch": SKETCH, "sketch_dim": 4}, ValueError, r"sketch_dim is 4, and sketch has output_dim=2"),
        (
            SGMCMC,
            {"mask": [np.full((3, 2), np.nan), None]},
            ValueError,
            r"mask\[0\] must hold finite numbers",
        ),
        (SGMCMC, {"mask": [np.full((3, 2), -1.0), None]}, ValueError, r"mask\[0\] must hold finite numbers"),
        (SGMCMC, {"mask": [[[1, 2], [1]], None]}, ValueError, r"mask\[0\] is no array"),
        (SGMCMC, {"prior": True}, TypeError, r"prior must be a Prior, a number"),
        (SGMCMC, {"preconditioner": np.ones(3)}, ValueError, r"preconditioner must be 'identity', 'rmsprop' or a"),
        (SGMCMC, {"prior": np.ones((1, 3))}, ValueError, r"prior: center has 1 arrays for 2 parameters"),
        (BAOA, {"sigma": 1e200}, ValueError, r"sigma must be in \[1e-100, 1e\+100\]"),
        (SGNHT, {"momentum": [np.ones((3, 2))]}, ValueError, r"momentum has 1 arrays, and there are 2 parameters"),
        (SGNHT, {"momentum": [None, np.ones(4)]}, ValueError, r"momentum has None for parameter 0"),
        (SGNHT, {"momentum": np.ones((2, 4))}, TypeError, r"momentum must be a sequence of arrays, one per parameter"),
        (SGHMC, {"alpha": -1.0}, ValueError, r"alpha must be 0 or more"),
        (SGHMC, {"sigma": 0.0}, ValueError, r"sigma must be in \[1e-100, 1e\+100\], got 0.0"),
        (BAOA, {"temperature": -1.0}, ValueError, r"temperature must be 0 or more"),
    ],
)
def test_construction(make: Any, options: Any, error: Any, message: str) -> None:
    params = [np.ones((3, 2)), np.ones(4)]
    with pytest.raises(error, match=message):
        make(params, **{**FINE, "device": "numpy", **options})


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "params is empty"),
        ([[1.0, 2.0]], TypeError, "parameter 0 must be a NumPy array, got list"),
        ([np.ones(3, int)], TypeError, "parameter 0 must be float32 or float64, got dtype int64"),
        ([{"params": [np.ones(3)], "momentum": 0.9}], ValueError, "the option 'momentum', which SGMCMC does not take"),
        ([{"params": [np.ones(3)], "prior": 2.0, "localization": 1.0}], ValueError, "localization goes with a center"),
        ([{"params": [np.ones(3)], "localization": -1.0}], ValueError, "localization must be 0 or more"),
        ([{"params": [np.ones(3)]}, {"params": [np.ones(2)], "lr": -1}], ValueError, "lr of group 1 must be above 0"),
    ],
)
def test_parameters(params: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        SGMCMC(params, **FINE, device="numpy")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianPrior(-1.0), ValueError, "localization must be 0 or more"),
        (lambda: GaussianPrior(math.nan), ValueError, "localization must be 0 or more"),
        (lambda: GaussianPrior(1.0, "zero"), ValueError, "center must be None, 'initial' or an array per parameter"),
        (
            lambda: GaussianPrior(1.0, 0.5),
            TypeError,
            "center must be None, 'initial' or an array per parameter, got 0.5",
        ),
        (lambda: GaussianPrior(1.0, [np.array("a")]), TypeError, r"center\[0\] must hold real numbers"),
        (lambda: UniformPrior(2.0), NotImplementedError, "box_size must be infinite, got 2.0: use bounding_box_size"),
        (lambda: CompositePrior([GaussianPrior(1.0), 2.0]), TypeError, r"priors\[1\] must be a Prior, got float"),
        (lambda: CompositePreconditioner([1]), TypeError, r"preconditioners\[0\] must be a Preconditioner, got int"),
        (lambda: RMSpropPreconditioner(alpha=-0.1), ValueError, r"alpha must be in \[0, 1\]"),
        (lambda: NHTPreconditioning(-1.0), ValueError, "diffusion_factor must be 0 or more"),
        (lambda: MaskPreconditioner(["ab"]), TypeError, r"masks\[0\] must hold real numbers"),
        (
            lambda: MaskPreconditioner([np.ones(2)]).get_coefficients(np.ones(2), np.ones(2), {}),
            ValueError,
            "state must have 'param_idx'",
        ),
    ],
)
def test_priors_and_preconditioners(call: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


G = [np.ones((3, 2)), np.ones(4)]


class Silent:
    pass


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "gradients is None and no parameter is a grilly_optim.Parameter"),
        ({"gradients": [np.ones((3, 2))]}, ValueError, "gradients has 1 entries, and there are 2 parameters"),
        ({"gradients": [np.ones(3), np.ones(4)]}, ValueError, r"the gradient of parameter 0 has shape \(3,\)"),
        ({"gradients": [1j * np.ones((3, 2)), None]}, TypeError, "the gradient of parameter 0 must hold real numbers"),
        ({"gradients": G, "noise": G[:1]}, ValueError, "noise has 1 arrays, and there are 2 parameters"),
        ({"gradients": G, "noise": [np.ones(6), G[1]]}, ValueError, r"noise of parameter 0 has shape \(6,\), expected"),
        ({"gradients": G, "noise": [None, G[1]]}, ValueError, "noise has None for parameter 0, which has a gradient"),
        ({"gradients": G, "noise": [1j * G[0], G[1]]}, TypeError, "noise of parameter 0 must hold real numbers"),
        (
            {"gradients": G, "noise": np.ones((2, 4))},
            TypeError,
            "noise must be a sequence of arrays, one per parameter",
        ),
        ({"gradients": G, "noise": 3}, TypeError, "noise must be a sequence of arrays, one per parameter, got int"),
        ({"gradients": G, "noise": G, "noise_generator": np.random.default_rng()}, ValueError, "are both given"),
        ({"gradients": G, "noise_generator": Silent()}, TypeError, r"noise_generator must have standard_normal\(\)"),
        ({"closure": 5, "gradients": G}, TypeError, "closure must be callable, got int"),
        ({"closure": G}, TypeError, "closure must be callable, got list; gradients go into gradients="),
    ],
)
@pytest.mark.parametrize("make", [SGMCMC.sgld, SGNHT], ids=["sgld", "sgnht"])
def test_steps(make: Any, arguments: Any, error: Any, message: str, device: str) -> None:
    params = [np.ones((3, 2)), np.ones(4)]
    sampler = make(params, **FINE, device=device)
    sampler.step(gradients=G)
    before, state = [p.copy() for p in params], sampler.state_dict()
    with pytest.raises(error, match=message):
        sampler.step(**arguments)
    for p, b in zip(params, before, strict=True):
        assert_bits(p, b)
    np.testing.assert_equal(sampler.state_dict(), state)


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("lr", -1.0, ValueError, "lr must be above 0"),
        ("nbeta", 0, ValueError, "nbeta must be above 0"),
        ("nbeta", lambda: math.nan, ValueError, r"nbeta\(\) must be above 0, and finite, got nan"),
        ("nbeta", lambda: "x", TypeError, r"nbeta\(\) must be a real number, got 'x'"),
        ("bounding_box_size", 1.0, ValueError, "bounding_box_size of group 0 is None and cannot be changed to 1.0"),
        ("mask", (np.ones(4),), ValueError, "mask cannot be changed: build another sampler"),
        ("prior", 3.0, ValueError, "prior of group 0 .* cannot be changed to .* after a step"),
        ("preconditioner", "rmsprop", ValueError, "preconditioner of group 0 .* cannot be changed to .* after a step"),
        (
            "preconditioner",
            MaskPreconditioner([np.zeros(4)]),
            ValueError,
            "preconditioner of group 0 has another mask: build another sampler",
        ),
        ("prior", OtherPrior(), TypeError, "got OtherPrior"),
        ("localization", 2.0, TypeError, "localization must be given when the group is made"),
        ("nbeta", lambda: lambda: 1.0, TypeError, r"nbeta\(\) must be a real number"),
    ],
)
def test_options_after_a_step(option: str, value: Any, error: Any, message: str, device: str) -> None:
    w = np.ones(4)
    sampler = SGMCMC([w], **FINE, preconditioner=IdentityPreconditioner(), device=device)
    sampler.step(gradients=[np.ones(4)])
    before = w.copy()
    old = sampler.param_groups[0][option]
    sampler.param_groups[0][option] = value
    with pytest.raises(error, match=message):
        sampler.step(gradients=[np.ones(4)])
    assert_bits(w, before)
    sampler.param_groups[0][option] = old
    sampler.step(gradients=[np.ones(4)])


def test_a_prior_cannot_move_its_center(device: str) -> None:
    w = np.ones(4)
    sampler = SGMCMC([w], **FINE, prior=GaussianPrior(1.0), device=device)
    for center in ([np.zeros(4)], [np.ones(4)]):
        sampler.param_groups[0]["prior"] = GaussianPrior(1.0, center)
        with pytest.raises(ValueError, match="prior cannot be changed to one with another center"):
            sampler.step(gradients=[np.ones(4)])


def test_a_new_group_brings_no_change_of_options_with_it(device: str) -> None:
    """What a step refuses is not taken over by the plans that a group asks for."""
    w = np.ones(3)
    sampler = SGLD([w], **FINE, device=device)
    sampler.step(gradients=[w])
    sampler.param_groups[0]["localization"] = 3.0
    with pytest.raises(ValueError, match=r"localization of group 0 is 0\.0 and cannot be changed"):
        sampler.add_param_group({"params": [np.ones(2)]})
    assert len(sampler.param_groups) == 1
    sampler.param_groups[0]["localization"] = 0.0
    sampler.add_param_group({"params": [np.ones(2)]})


def test_masks_that_are_kept_are_read_only() -> None:
    mask = np.ones(3)
    sampler = SGMCMC([np.ones(3)], **FINE, mask=[mask], device="numpy")
    mask[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        sampler.param_groups[0]["mask"][0][:] = 0


def test_a_thermostat_has_one_number_per_chain(device: str) -> None:
    w = np.ones((3, 4))
    sampler = SGNHT([w], **FINE, num_chains=3, device=device)
    sampler.param_groups[0]["thermostat"] = np.ones(2)
    with pytest.raises(ValueError, match=r"thermostat of group 0 must be 3 numbers, one per chain, got array"):
        sampler.step(gradients=[np.ones((3, 4))])
    sampler.param_groups[0]["thermostat"] = 0.5
    with pytest.raises(ValueError, match=r"thermostat of group 0 must be 3 numbers, one per chain, got 0\.5"):
        sampler.step(gradients=[np.ones((3, 4))])
    del sampler.param_groups[0]["thermostat"]
    with pytest.raises(ValueError, match=r"thermostat of group 0 must be 3 numbers, one per chain, got None"):
        sampler.step(gradients=[np.ones((3, 4))])
    with pytest.raises(ValueError, match=r"thermostat of group 0 must be a number, got 'x'"):
        SGNHT([{"params": [np.ones(2)], "thermostat": "x"}], **FINE, device=device)


def test_too_much_noise_for_the_friction(device: str) -> None:
    w = np.ones(4)
    with pytest.raises(ValueError, match=r"temperature \* lr \* beta must be at most 2 \* alpha = 0.2, got 0.5"):
        SGHMC([w], lr=0.1, alpha=0.1, beta=5.0, nbeta=2.0, device=device)


def test_a_function_that_raises_is_not_a_step(device: str) -> None:
    def fail() -> float:
        raise KeyError("no such thing")

    w = draw(4)
    before = w.copy()
    sampler = SGMCMC([w], lr=0.1, nbeta=fail, device=device)
    with pytest.raises(KeyError, match="no such thing"):
        sampler.step(gradients=[draw(4)])
    assert_bits(w, before)
    assert sampler.state_dict()["state"][0]["step"] == 0
