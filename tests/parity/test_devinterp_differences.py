"""Where devinterp's samplers do something else than ours: each test shows both."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from devinterp import optim as theirs
from devinterp.optim import preconditioner as their_preconditioners
from devinterp.optim import prior as their_priors

from grilly_optim import sampling
from grilly_optim.sampling import (
    SGLD,
    SGMCMC,
    SGNHT,
    CompositePreconditioner,
    CompositePrior,
    GaussianPrior,
    MaskPreconditioner,
    RMSpropPreconditioner,
)
from tests.parity.langevin import Pair, ThermostatPair, error

pytestmark = [pytest.mark.devinterp, pytest.mark.filterwarnings("ignore:S.* has been deprecated:DeprecationWarning")]

NUMPY = {"device": "numpy"}


def tensors(*shapes: Any) -> list[Any]:
    return [torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for shape in shapes or [3]]


def arrays(*shapes: Any) -> list[Any]:
    return [np.ones(shape) for shape in shapes or [3]]


def step(sampler: Any, *gradients: float | None) -> list[Any]:
    """A step with such gradients, all 1 if there are none; what the parameters are then."""
    every = [p for group in sampler.param_groups for p in group["params"]]
    values = gradients or (1.0,) * len(every)
    if isinstance(every[0], np.ndarray):
        sampler.step(gradients=[None if v is None else np.full(p.shape, v) for p, v in zip(every, values, strict=True)])
        return [p.copy() for p in every]
    for p, v in zip(every, values, strict=True):
        p.grad = None if v is None else torch.full_like(p, v)
    sampler.step()
    return [p.detach().numpy().copy() for p in every]


# The thermostat.


def test_the_factory_sgnht_is_the_thermostat_where_the_original_s_is_sgld_at_another_temperature() -> None:
    noise = {"noise_generator": torch.Generator().manual_seed(0)}, {"noise_generator": torch.Generator().manual_seed(0)}
    nht, sgld = tensors(), tensors()
    samplers = (
        theirs.SGMCMC.sgnht(nht, lr=0.01, nbeta=2.0, diffusion_factor=0.02),
        theirs.SGMCMC(sgld, lr=0.01, nbeta=2.0, noise_level=0.2),  # sqrt(2 * 0.02)
    )
    for sampler, own in zip(samplers, noise, strict=True):
        for p in sampler.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        for _ in range(5):
            sampler.step(**own)
    assert error(nht[0].detach(), sgld[0].detach()) < 1e-6
    factory, own_class = arrays(), arrays()
    mine = SGMCMC.sgnht(factory, lr=0.01, nbeta=2.0, diffusion_factor=0.02, **NUMPY)
    again = SGNHT(own_class, lr=0.01, nbeta=2.0, diffusion_factor=0.02, **NUMPY)
    assert [step(mine)[0].tolist() for _ in range(5)] == [step(again)[0].tolist() for _ in range(5)]


def test_groups_of_sgnht_begin_with_their_own_options_where_the_original_s_begin_with_the_first() -> None:
    own = {"lr": 0.04, "diffusion_factor": 0.5}
    torch.manual_seed(0)
    theirs_, mine = tensors(1000), arrays(1000)
    original = theirs.SGNHT([{"params": theirs_, **own}], lr=0.01, diffusion_factor=0.1, nbeta=2.0)
    sampler = SGNHT([{"params": mine, **own}], lr=0.01, diffusion_factor=0.1, nbeta=2.0, **NUMPY)
    assert abs(float(original.state[theirs_[0]]["momentum"].std()) - 0.1) < 0.01
    assert abs(sampler.state_dict()["state"][0]["momentum"].std() - 0.2) < 0.02
    assert float(original.param_groups[0]["thermostat"]) == np.float32(0.1)
    assert sampler.param_groups[0]["thermostat"] == 0.5


def test_a_group_of_sgnht_without_gradients_stays_where_the_original_divides_by_0() -> None:
    original = theirs.SGNHT([{"params": tensors()}, {"params": tensors()}], nbeta=2.0)
    with pytest.raises(ZeroDivisionError):
        step(original, 1.0, None)
    sampler = SGNHT([{"params": arrays()}, {"params": arrays()}], nbeta=2.0, **NUMPY)
    step(sampler, 1.0, None)
    assert sampler.param_groups[1]["thermostat"] == 0.01


def test_sgnht_s_thermostat_is_in_double_where_the_original_s_is_float32() -> None:
    pair = ThermostatPair(lambda k, ps: k.SGNHT(ps, lr=0.01, nbeta=10.0, **k.more), np.float64, "numpy")
    for _ in range(5):
        pair.step()
    assert pair.original.param_groups[0]["thermostat"].dtype == torch.float32
    assert type(pair.sampler.param_groups[0]["thermostat"]) is float
    assert 1e-12 < pair.error < 1e-6


def test_a_box_of_no_size_keeps_parameters_where_they_are_where_the_original_s_classes_have_no_box() -> None:
    for name in ("SGLD", "SGNHT"):
        more = {"localization": 1.0} if name == "SGLD" else {}
        assert not (step(getattr(theirs, name)(tensors(), bounding_box_size=0.0, nbeta=2.0, **more))[0] == 1).all()
        assert (
            step(getattr(sampling, name)(arrays(), bounding_box_size=0.0, nbeta=2.0, **more, **NUMPY))[0] == 1
        ).all()
    with pytest.raises(KeyError, match="initial_param"):
        step(theirs.SGLD(tensors(), bounding_box_size=0.0, nbeta=2.0))
    assert (step(SGLD(arrays(), bounding_box_size=0.0, nbeta=2.0, **NUMPY))[0] == 1).all()


# The class SGLD.


def test_sgld_leaves_parameters_without_gradients_where_the_original_s_class_moves_them() -> None:
    options = {"nbeta": 2.0, "weight_decay": 1.0}
    assert not (step(theirs.SGLD(tensors(3, 2), **options), 1.0, None)[1] == 1).all()
    assert (step(theirs.SGMCMC.sgld(tensors(3, 2), **options), 1.0, None)[1] == 1).all()
    assert (step(SGLD(arrays(3, 2), **options, **NUMPY), 1.0, None)[1] == 1).all()


def test_sgld_takes_a_mask_per_parameter_where_the_original_s_class_has_one_for_all() -> None:
    mask = np.array([1.0, 0.0, 1.0])
    moved = step(theirs.SGLD([{"params": tensors(3, 3), "mask": torch.tensor(mask)}], nbeta=2.0))
    assert [(p != 1).tolist() for p in moved] == [[True, False, True]] * 2
    with pytest.raises(ValueError, match="mask has 1 arrays for 2 parameters"):
        SGLD([{"params": arrays(3, 3), "mask": mask}], nbeta=2.0, **NUMPY)
    moved = step(SGLD([{"params": arrays(3, 3), "mask": [mask, 1 - mask]}], nbeta=2.0, **NUMPY))
    assert [(p != 1).tolist() for p in moved] == [[True, False, True], [False, True, False]]


def test_sgld_measures_as_sgmcmc_does_where_the_original_s_class_leaves_out_what_is_masked() -> None:
    def make(k: Any, ps: list[Any]) -> Any:
        return k.SGLD([{"params": ps, "mask": k.array(mask)}], nbeta=2.0, lr=2**-7, **k.more)

    def as_sgmcmc(k: Any, ps: list[Any]) -> Any:
        return k.SGMCMC.sgld(ps, nbeta=2.0, lr=2**-7, mask=k.array(mask), **k.more)

    mask = np.array([0.5, 0.0, 0.5], np.float32)
    pairs = [Pair(of, np.float64, "numpy", shapes=[(3,)], save_metrics=True) for of in (make, as_sgmcmc)]
    for pair in pairs:
        pair.step()
        pair.mine[0] += 1
        pair.theirs[0].data += 1
        pair.step()
    # Of unscaled_grad and distance, the class leaves out what does not move; of noise it takes the mask twice.
    for field in ("unscaled_grad", "distance", "noise"):
        mine = [float(getattr(pair.sampler.get_metrics(), field)[0]) for pair in pairs]
        of_class, of_sgmcmc = (float(getattr(pair.original.get_metrics(), field)) for pair in pairs)
        assert error(mine, [of_sgmcmc] * 2) < 1e-6
        assert error(of_class, of_sgmcmc) > 1e-3


def test_steps_begin_with_the_closure_where_those_of_the_original_s_class_begin_with_the_generator() -> None:
    with pytest.raises(TypeError, match="closure"):
        theirs.SGLD(tensors(), nbeta=2.0).step(closure=lambda: 1.0)
    w = arrays()
    assert SGLD(w, nbeta=2.0, **NUMPY).step(lambda: 1.5, gradients=w) == 1.5


def test_the_classes_are_not_deprecated_here() -> None:
    for name in ("SGLD", "SGNHT"):
        with pytest.warns(DeprecationWarning, match=name):
            getattr(theirs, name)(tensors(), nbeta=2.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            getattr(sampling, name)(arrays(), nbeta=2.0, **NUMPY)


def test_sgnht_does_not_take_arguments_without_effect() -> None:
    for name in ("save_noise", "save_mala_vars"):
        with pytest.warns(UserWarning, match="not implemented"):
            theirs.SGNHT(tensors(), nbeta=2.0, **{name: True})
        with pytest.raises(TypeError, match=name):
            SGNHT(arrays(), nbeta=2.0, **{name: True}, **NUMPY)


# Options.


@pytest.mark.parametrize("name", ["SGLD", "SGMCMC", "SGNHT"])
def test_nbeta_may_be_a_function_where_the_original_multiplies_with_it(name: str) -> None:
    with pytest.raises(TypeError):
        step(getattr(theirs, name)(tensors(), nbeta=lambda: 2.0))
    calls: list[int] = []
    by_function = getattr(sampling, name)(arrays(), nbeta=lambda: calls.append(1) or 2.0, **NUMPY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_number = getattr(sampling, name)(arrays(), nbeta=2.0, **NUMPY)
    assert step(by_function)[0].tolist() == step(by_number)[0].tolist()
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["SGLD", "SGMCMC", "SGNHT"])
def test_a_group_can_be_added_where_the_original_fails_in_the_next_step(name: str) -> None:
    original = getattr(theirs, name)(tensors(), nbeta=2.0)
    original.add_param_group({"params": tensors(2)})
    with pytest.raises((AttributeError, KeyError)):
        step(original)
    sampler = getattr(sampling, name)(arrays(), nbeta=2.0, **NUMPY)
    sampler.add_param_group({"params": arrays(2), "lr": 0.02})
    assert all((p != 1).all() for p in step(sampler))


OUT_OF_RANGE: dict[str, Callable[[Any, Any, list[Any]], Any]] = {
    "lr": lambda k, more, ps: k.SGMCMC(ps, lr=0.0, **more),
    "nbeta": lambda k, more, ps: k.SGMCMC(ps, nbeta=-1.0, **more),
    "bounding_box_size": lambda k, more, ps: k.SGMCMC(ps, bounding_box_size=-1.0, **more),
    "weight_decay": lambda k, more, ps: k.SGMCMC.sgld(ps, nbeta=2.0, weight_decay=-1.0, **more),
    "localization": lambda k, more, ps: k.SGMCMC.rmsprop_sgld(ps, nbeta=2.0, localization=-1.0, **more),
    "weight_decay of SGLD": lambda k, more, ps: k.SGLD(ps, nbeta=2.0, weight_decay=-1.0, **more),
    "prior": lambda k, more, ps: k.SGMCMC(ps, prior=-1.0, **more),
    "alpha": lambda k, more, ps: k.SGMCMC.rmsprop_sgld(ps, nbeta=2.0, alpha=2.0, **more),
    "eps": lambda k, more, ps: k.SGMCMC.rmsprop_sgld(ps, nbeta=2.0, eps=-0.01, **more),
    "diffusion_factor": lambda k, more, ps: k.SGMCMC.sgnht(ps, nbeta=2.0, diffusion_factor=-1.0, **more),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_where_the_original_takes_them(name: str) -> None:
    OUT_OF_RANGE[name](theirs, {}, tensors())
    with pytest.raises(ValueError, match=name.split()[0]):
        OUT_OF_RANGE[name](sampling, NUMPY, arrays())


def test_float16_is_refused_where_the_original_rounds_to_it() -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    step(theirs.SGMCMC([p]))
    assert p.dtype == torch.float16
    with pytest.raises(TypeError, match="float32 or float64"):
        SGMCMC([np.ones(3, np.float16)], **NUMPY)


def test_a_localization_is_not_switched_on_after_a_step_where_the_original_s_class_kept_the_start_anyway() -> None:
    original, sampler = theirs.SGLD(tensors(), nbeta=2.0), SGLD(arrays(), nbeta=2.0, **NUMPY)
    for one in (original, sampler):
        step(one)
        one.param_groups[0]["localization"] = 2.0
    step(original)
    with pytest.raises(ValueError, match=r"localization of group 0 is 0\.0 and cannot be changed to 2\.0"):
        step(sampler)


# Priors.


def test_a_center_that_is_a_number_or_a_word_is_refused_where_the_original_takes_it_for_0() -> None:
    for center, refusal in ((2.0, TypeError), ("zero", ValueError)):
        prior = their_priors.GaussianPrior(3.0, center=center)
        p = torch.ones(3)
        assert prior.grad(p, prior.initialize([p])[p]).tolist() == [3.0] * 3
        with pytest.raises(refusal, match="center"):
            GaussianPrior(3.0, center=center)


def test_several_centers_become_one_where_the_original_keeps_each() -> None:
    def make(k: Any, ps: list[Any]) -> Any:
        around = k.GaussianPrior(1.0, [k.array(np.full(3, 5.0))])
        return k.SGMCMC(ps, prior=k.CompositePrior([k.GaussianPrior(3.0), around]), **k.more)

    pair = Pair(make, np.float64, "numpy", shapes=[(3,)])
    start = pair.mine[0].copy()
    pair.step()
    ((mine, original),) = pair.states()
    assert {key for key in original if "center" in key} == {"prior_center_0", "prior_center_1"}
    assert error(mine["prior_center"], (3 * start + 5.0) / 4) < 1e-12
    pair.assert_close()


def test_a_prior_in_two_composites_keeps_its_center_where_the_original_loses_it() -> None:
    theirs_, mine = their_priors.GaussianPrior(3.0), GaussianPrior(3.0)
    p, q = torch.ones(3), np.ones(3)
    original, ours = their_priors.CompositePrior([theirs_]), CompositePrior([mine])
    their_state, my_state = original.initialize([p])[p], ours.initialize([q])[id(q)]
    assert original.grad(p, their_state).tolist() == ours.grad(q, my_state).tolist() == [0.0] * 3
    their_priors.CompositePrior([theirs_])
    CompositePrior([mine])
    assert original.grad(p, their_state).tolist() == [3.0] * 3  # as if around 0
    assert ours.grad(q, my_state).tolist() == [0.0] * 3


def test_composites_in_composites_keep_their_centers_where_the_original_mixes_them_up() -> None:
    outer, inner = np.full(3, 5.0), np.full(3, 7.0)
    p, q = torch.ones(3, dtype=torch.float64), np.ones(3)
    original = their_priors.CompositePrior(
        [
            their_priors.GaussianPrior(1.0, [torch.tensor(outer)]),
            their_priors.CompositePrior([their_priors.GaussianPrior(1.0, [torch.tensor(inner)])]),
        ]
    )
    ours = CompositePrior([GaussianPrior(1.0, [outer]), CompositePrior([GaussianPrior(1.0, [inner])])])
    assert original.grad(p, original.initialize([p])[p]).tolist() == [2 * (1 - 7.0)] * 3
    assert ours.grad(q, ours.initialize([q])[id(q)]).tolist() == [(1 - 5.0) + (1 - 7.0)] * 3


@pytest.mark.parametrize("prior", [3.0, "object"])
def test_a_localization_beside_a_precision_is_refused_where_the_original_ignores_it(prior: Any) -> None:
    def of(module: Any) -> Any:
        return module.GaussianPrior(3.0) if prior == "object" else prior

    original = theirs.SGMCMC([{"params": tensors(), "localization": 2.0}], prior=of(their_priors))
    assert original.param_groups[0]["prior"].localization == 3.0
    with pytest.raises(ValueError, match="localization goes with a center"):
        SGMCMC([{"params": arrays(), "localization": 2.0}], prior=of(sampling), **NUMPY)


def test_a_localization_of_0_is_0_where_the_original_takes_1() -> None:
    original = theirs.SGMCMC([{"params": tensors(), "localization": 0.0}], prior="initial")
    assert original.param_groups[0]["prior"].localization == 1.0
    sampler = SGMCMC([{"params": arrays(), "localization": 0.0}], prior="initial", **NUMPY)
    assert sampler.param_groups[0]["prior"].localization == 0.0


# Preconditioners and masks.


def test_a_composite_is_a_composite_where_the_original_gives_back_its_member() -> None:
    one = their_preconditioners.RMSpropPreconditioner()
    assert their_preconditioners.CompositePreconditioner([one]) is one
    assert type(CompositePreconditioner([RMSpropPreconditioner()])) is CompositePreconditioner


def test_identity_and_composite_can_be_composed_where_the_original_recurs_without_end() -> None:
    def composed(k: Any) -> Any:
        inner = k.CompositePreconditioner([k.RMSpropPreconditioner(), k.NHTPreconditioning(0.3)])
        return k.CompositePreconditioner([k.IdentityPreconditioner(), inner])

    with pytest.raises(RecursionError):
        step(theirs.SGMCMC(tensors(), preconditioner=composed(their_preconditioners)))
    assert (step(SGMCMC(arrays(), preconditioner=composed(sampling), **NUMPY))[0] != 1).all()


def test_two_mean_squares_are_refused_where_the_original_advances_one_twice() -> None:
    k = their_preconditioners
    p = tensors()
    original = theirs.SGMCMC(
        p, preconditioner=k.CompositePreconditioner([k.RMSpropPreconditioner(0.5), k.RMSpropPreconditioner(0.5)])
    )
    step(original)
    assert original.state[p[0]]["square_avg"].tolist() == [0.75] * 3
    both = CompositePreconditioner([RMSpropPreconditioner(0.5), RMSpropPreconditioner(0.5)])
    with pytest.raises(ValueError, match="more than one RMSprop"):
        SGMCMC(arrays(), preconditioner=both, **NUMPY)


def test_options_beside_a_preconditioner_object_are_refused_where_the_original_ignores_them() -> None:
    original = theirs.SGMCMC(
        tensors(),
        preconditioner=their_preconditioners.RMSpropPreconditioner(),
        preconditioner_kwargs={"alpha": 0.5},
    )
    assert original.param_groups[0]["preconditioner"].alpha == 0.99
    with pytest.raises(TypeError, match="preconditioner_kwargs"):
        SGMCMC(arrays(), preconditioner=RMSpropPreconditioner(), preconditioner_kwargs={"alpha": 0.5}, **NUMPY)


def test_preconditioners_and_priors_of_the_caller_s_own_are_refused_where_the_original_runs_them() -> None:
    class TheirHalf(their_preconditioners.IdentityPreconditioner):
        def get_coefficients(self, param: Any, grad: Any, state: Any) -> Any:
            return their_preconditioners.PreconditionerCoefs(0.5, 0.5, 0.5, 1.0)

    class Half(sampling.Preconditioner):
        def get_coefficients(self, param: Any, grad: Any, state: Any) -> Any:
            return sampling.PreconditionerCoefs(0.5, 0.5, 0.5, 1.0)

    class TheirPrior(their_priors.UniformPrior):
        def grad(self, param: Any, state: Any) -> Any:
            return param**3

    class Quartic(sampling.Prior):
        def initialize(self, params: Any) -> Any:
            return {}

        def grad(self, param: Any, state: Any) -> Any:
            return param**3

    step(theirs.SGMCMC(tensors(), preconditioner=TheirHalf(), prior=TheirPrior()))
    with pytest.raises(TypeError, match="one of this package"):
        SGMCMC(arrays(), preconditioner=Half(), **NUMPY)
    with pytest.raises(TypeError, match="add the gradient of its negative logarithm"):
        SGMCMC(arrays(), prior=Quartic(), **NUMPY)


def test_masks_in_another_number_are_refused_at_once_where_the_original_fails_late_or_not_at_all() -> None:
    ones = torch.ones(3)
    with pytest.raises(IndexError):
        step(theirs.SGMCMC(tensors(3, 2), mask=[ones]))
    step(theirs.SGMCMC(tensors(), mask=[ones, ones]))
    step(theirs.SGMCMC(tensors(), preconditioner=their_preconditioners.MaskPreconditioner([torch.ones(1)])))
    for shapes, masks in (((3, 2), arrays(3)), ((3,), arrays(3, 3))):
        with pytest.raises(ValueError, match=r"mask has . arrays for . parameters"):
            SGMCMC(arrays(*shapes), mask=masks, **NUMPY)
    with pytest.raises(ValueError, match="expected"):
        SGMCMC(arrays(), preconditioner=MaskPreconditioner(arrays(1)), **NUMPY)


def test_masks_and_priors_can_be_measured_in_float64_where_the_original_fails() -> None:
    mask = np.linspace(0.1, 1, 100)
    original = theirs.SGMCMC.sgld(tensors(100), nbeta=2.0, weight_decay=1.0, mask=torch.tensor(mask), save_metrics=True)
    with pytest.raises(AssertionError, match="Decomposition components"):
        step(original, 3.0)
    sampler = SGMCMC.sgld(arrays(100), nbeta=2.0, weight_decay=1.0, mask=mask, save_metrics=True, **NUMPY)
    step(sampler, 3.0)
    assert error(sampler.get_metrics().scaled_grad, [0.005 * 2 * 3 * np.linalg.norm(mask)]) < 1e-6


# Noise and state.


def test_noise_in_float64_is_not_rounded_after_each_factor_where_the_original_s_is() -> None:
    theirs_, mine = tensors(100), arrays(100)
    original = theirs.SGMCMC(theirs_, lr=0.01, noise_level=0.7)
    sampler = SGMCMC(mine, lr=0.01, noise_level=0.7, **NUMPY)
    theirs_[0].grad = torch.zeros_like(theirs_[0])
    original.step(noise_generator=torch.Generator().manual_seed(0))
    z = torch.normal(0.0, 1.0, (100,), generator=torch.Generator().manual_seed(0)).numpy()
    sampler.step(gradients=[np.zeros(100)], noise=[z])
    assert error(mine[0], 1 + 0.1 * 0.7 * z.astype(np.float64)) < 1e-15
    assert 1e-12 < error(mine[0], theirs_[0].detach()) < 1e-7


def test_no_sampler_draws_from_a_global_generator_where_some_of_the_original_s_do() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    original = theirs.SGMCMC.sgnht(tensors(), nbeta=2.0)
    original.param_groups[0]["params"][0].grad = torch.ones(3, dtype=torch.float64)
    original.step(noise_generator=torch.Generator().manual_seed(0))
    assert not torch.equal(torch.get_rng_state(), before)
    np.random.seed(0)  # noqa: NPY002  # the global generator is what this is about
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    for thermostat in (True, False):
        step(SGMCMC.sgnht(arrays(), nbeta=2.0, thermostat=thermostat, **NUMPY))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_state_dicts_are_plain_where_the_original_s_hold_objects() -> None:
    original = theirs.SGMCMC.rmsprop_sgld(tensors(), nbeta=2.0, localization=1.0, save_metrics=True)
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(file, weights_only=True)
    sampler = SGMCMC.rmsprop_sgld(arrays(), nbeta=2.0, localization=1.0, save_metrics=True, **NUMPY)

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(plain(v) for v in value.values())
        if isinstance(value, list | tuple):
            return all(plain(v) for v in value)
        return value is None or type(value) in (str, int, float, bool, np.ndarray)

    assert plain(sampler.state_dict())
