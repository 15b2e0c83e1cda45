"""devinterp's preconditioners and priors by themselves, what its samplers refuse, and what they warn about."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.langevin import DTYPES, SHAPES, Library, error, original, ours, tolerance

pytestmark = pytest.mark.devinterp

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
COEFFICIENTS = ("grad_coef", "prior_coef", "noise_coef", "overall_coef", "grad_correction")
MASK = np.linspace(0, 1, 13 * 7, dtype=np.float32).reshape(13, 7)

PRECONDITIONERS: dict[str, Callable[[Library], Any]] = {
    "identity": lambda k: k.IdentityPreconditioner(),
    "mask": lambda k: k.MaskPreconditioner([k.array(1.0), k.array(MASK)]),
    "rmsprop": lambda k: k.RMSpropPreconditioner(),
    "rmsprop: options": lambda k: k.RMSpropPreconditioner(alpha=0.5, eps=1e-3),
    "nht": lambda k: k.NHTPreconditioning(),
    "nht: options": lambda k: k.NHTPreconditioning(diffusion_factor=0.3, eps=1.0),
    "composite: empty": lambda k: k.CompositePreconditioner([]),
    "composite: identity": lambda k: k.CompositePreconditioner([k.IdentityPreconditioner()]),
    "composite: one": lambda k: k.CompositePreconditioner([k.RMSpropPreconditioner()]),
    "composite: two": lambda k: k.CompositePreconditioner(
        [k.RMSpropPreconditioner(), k.MaskPreconditioner([k.array(1.0), k.array(MASK)])]
    ),
    "composite: two corrections": lambda k: k.CompositePreconditioner(
        [k.NHTPreconditioning(), k.RMSpropPreconditioner(), k.NHTPreconditioning(0.2)]
    ),
    "composite: two mean squares": lambda k: k.CompositePreconditioner(
        [k.RMSpropPreconditioner(), k.RMSpropPreconditioner(0.5)]
    ),
}


@dtypes
@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_coefficients_of_10_steps(name: str, dtype: Any) -> None:
    mine, theirs = PRECONDITIONERS[name](ours("numpy")), PRECONDITIONERS[name](original())
    rng = np.random.default_rng(0)
    p, m = (np.asarray(rng.standard_normal(MASK.shape), dtype) for _ in range(2))
    my_state: dict[str, Any] = {"param_idx": 1, "momentum": m}
    their_state: dict[str, Any] = {"param_idx": 1, "momentum": torch.tensor(m)}
    # The thermostat is float32, and a sum of numbers of size 1, whatever becomes of them: 1e-6 of 1, not of 0.1.
    limit = 1e-5 if "nht" in name or "corrections" in name else tolerance(dtype)
    for _ in range(10):
        g = np.asarray(rng.standard_normal(MASK.shape), dtype)
        a = mine.get_coefficients(p, g, my_state)
        b = theirs.get_coefficients(torch.tensor(p), torch.tensor(g), their_state)
        for field in COEFFICIENTS:
            x, y = getattr(a, field), getattr(b, field)
            assert (x is None) == (y is None), field
            assert x is None or error(x, y) <= limit, field
        assert my_state.keys() == their_state.keys()
        for key, value in my_state.items():
            assert error(value, their_state[key]) <= limit, key
        if "thermostat" in my_state:  # which adds up its rounding errors
            my_state["thermostat"] = np.float32(their_state["thermostat"])


def test_a_momentum_is_drawn_where_there_is_none() -> None:
    for k in (ours("numpy"), original()):
        state: dict[str, Any] = {}
        p = k.array(np.zeros(10_000))
        k.NHTPreconditioning().get_coefficients(p, p, state)
        assert state["momentum"].dtype == p.dtype
        assert abs(float(state["momentum"].std()) - 1) < 0.05


PRIORS: dict[str, Callable[[Library, list[Any]], Any]] = {
    "initial": lambda k, centers: k.GaussianPrior(3.0),
    "around 0": lambda k, centers: k.GaussianPrior(3.0, center=None),
    "arrays": lambda k, centers: k.GaussianPrior(3.0, center=centers),
    "uniform": lambda k, centers: k.UniformPrior(),
    "composite: empty": lambda k, centers: k.CompositePrior([]),
    "composite: one": lambda k, centers: k.CompositePrior([k.GaussianPrior(3.0)]),
    "composite": lambda k, centers: k.CompositePrior(
        [k.GaussianPrior(3.0), k.UniformPrior(), k.GaussianPrior(2.0, None), k.GaussianPrior(0.5, centers)]
    ),
}


@dtypes
@pytest.mark.parametrize("name", PRIORS)
def test_gradients_of_priors(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    arrays, centers, moved = ([np.asarray(rng.standard_normal(s), dtype) for s in SHAPES] for _ in range(3))
    tensors = [torch.tensor(a) for a in arrays]
    mine = PRIORS[name](ours("numpy"), centers)
    theirs = PRIORS[name](original(), [torch.tensor(c) for c in centers])
    my_states, their_states = mine.initialize(arrays), theirs.initialize(tensors)
    for p, q, w in zip(arrays, tensors, moved, strict=True):
        my_state, their_state = my_states[id(p)], their_states.get(q, {})
        assert my_state.keys() == their_state.keys()
        for key, value in my_state.items():
            assert (value is None) == (their_state[key] is None)
            assert value is None or error(value, their_state[key]) == 0
        got = mine.grad(w, my_state)
        assert got.dtype == dtype
        assert error(got, theirs.grad(torch.tensor(w), their_state)) <= tolerance(dtype)


def params(k: Library, *shapes: Any) -> list[Any]:
    return [k.array(np.ones(shape)) for shape in shapes or [3]]


def step(k: Library, sampler: Any, **more: Any) -> Any:
    """A step with gradients of 1."""
    every = [p for group in sampler.param_groups for p in group["params"]]
    if "device" in k.more:
        return sampler.step(gradients=[np.ones(p.shape) for p in every], **more)
    for p in every:
        p.grad = torch.ones_like(p)
    return sampler.step(**more)


def sgmcmc(k: Library, *shapes: Any, **options: Any) -> Any:
    return k.SGMCMC(params(k, *shapes), **options, **k.more)


# What both refuse -> what the original raises, what we raise.
REFUSED: dict[str, tuple[Callable[[Library], Any], type[Exception], type[Exception]]] = {
    "prior: an object": (lambda k: sgmcmc(k, prior=object()), ValueError, TypeError),
    "prior: too few arrays": (lambda k: sgmcmc(k, 3, 2, prior=params(k, 3)), ValueError, ValueError),
    "prior: another shape": (lambda k: sgmcmc(k, prior=params(k, 2)), ValueError, ValueError),
    "prior: in a composite": (lambda k: k.CompositePrior([3.0]), AttributeError, TypeError),
    "prior: finite box": (lambda k: k.UniformPrior(1.0), NotImplementedError, NotImplementedError),
    "preconditioner: a name": (lambda k: sgmcmc(k, preconditioner="adam"), ValueError, ValueError),
    "preconditioner: an object": (lambda k: sgmcmc(k, preconditioner=object()), ValueError, ValueError),
    "preconditioner: in a composite": (
        lambda k: step(k, sgmcmc(k, preconditioner=k.CompositePreconditioner(["rmsprop", "rmsprop"]))),
        AttributeError,
        TypeError,
    ),
    "kwargs of identity": (lambda k: sgmcmc(k, preconditioner_kwargs={"alpha": 0.9}), TypeError, TypeError),
    "unknown kwargs": (
        lambda k: sgmcmc(k, preconditioner="rmsprop", preconditioner_kwargs={"beta": 0.9}),
        TypeError,
        TypeError,
    ),
    "add_grad_correction": (
        lambda k: k.RMSpropPreconditioner(add_grad_correction=True),
        NotImplementedError,
        NotImplementedError,
    ),
    "add_grad_correction of the factory": (
        lambda k: k.SGMCMC.rmsprop_sgld(params(k), nbeta=2.0, add_grad_correction=True, **k.more),
        NotImplementedError,
        NotImplementedError,
    ),
    "mask: another shape": (lambda k: sgmcmc(k, mask=params(k, 2)), ValueError, ValueError),
    "mask: a number": (lambda k: sgmcmc(k, mask=k.array(1.0)), ValueError, ValueError),
    "mask: too few": (lambda k: step(k, sgmcmc(k, 3, 2, mask=params(k, 3))), IndexError, ValueError),
    "mask: another shape in a preconditioner": (
        lambda k: step(k, sgmcmc(k, preconditioner=k.MaskPreconditioner(params(k, 2)))),
        RuntimeError,
        ValueError,
    ),
    "mask: whose": (
        lambda k: k.MaskPreconditioner(params(k)).get_coefficients(params(k)[0], params(k)[0], {}),
        ValueError,
        ValueError,
    ),
    "mask of SGLD: another shape": (
        lambda k: k.SGLD([{"params": params(k), "mask": params(k, 2)[0]}], nbeta=2.0, **k.more),
        ValueError,
        ValueError,
    ),
    "no parameters": (lambda k: k.SGMCMC([], **k.more), ValueError, ValueError),
    "a parameter twice": (
        lambda k: (lambda p: k.SGMCMC([{"params": p}, {"params": p}], **k.more))(params(k)),
        ValueError,
        ValueError,
    ),
    "lr below 0": (lambda k: step(k, sgmcmc(k, lr=-1.0)), RuntimeError, ValueError),
    "noise_level below 0": (lambda k: step(k, sgmcmc(k, noise_level=-1.0)), RuntimeError, ValueError),
    "diffusion_factor below 0": (
        lambda k: step(k, k.SGNHT(params(k), diffusion_factor=-1.0, nbeta=2.0, **k.more)),
        RuntimeError,
        ValueError,
    ),
    "nbeta: a word": (lambda k: step(k, sgmcmc(k, nbeta="2")), TypeError, TypeError),
    "closure: a number": (lambda k: step(k, sgmcmc(k), closure=3), TypeError, TypeError),
    "an option that is not there": (lambda k: sgmcmc(k, momentum=0.9), TypeError, TypeError),
    "options by position": (lambda k: k.SGMCMC(params(k), 0.1, **k.more), TypeError, TypeError),
    "metrics that are off": (lambda k: sgmcmc(k).get_metrics(), RuntimeError, RuntimeError),
    "metrics by group that are off": (lambda k: next(sgmcmc(k).iter_group_metrics()), RuntimeError, RuntimeError),
}


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse(name: str) -> None:
    call, theirs, mine = REFUSED[name]
    with pytest.raises(theirs):
        call(original())
    with pytest.raises(mine):
        call(ours("numpy"))


WARNED: dict[str, Callable[[Library, list[Any]], Any]] = {
    "SGMCMC": lambda k, ps: k.SGMCMC(ps, noise_level=0.5, **k.more),
    "sgld": lambda k, ps: k.SGMCMC.sgld(ps, **k.more),
    "sgld: nbeta": lambda k, ps: k.SGMCMC.sgld(ps, nbeta=2.0, **k.more),
    "sgld: noise_level": lambda k, ps: k.SGMCMC.sgld(ps, nbeta=2.0, noise_level=0.5, **k.more),
    "sgld: both": lambda k, ps: k.SGMCMC.sgld(ps, nbeta=1, noise_level=2, **k.more),
    "rmsprop_sgld": lambda k, ps: k.SGMCMC.rmsprop_sgld(ps, **k.more),
    "rmsprop_sgld: nbeta": lambda k, ps: k.SGMCMC.rmsprop_sgld(ps, nbeta=2.0, **k.more),
    "rmsprop_sgld: both": lambda k, ps: k.SGMCMC.rmsprop_sgld(ps, noise_level=0.5, **k.more),
    "sgnht": lambda k, ps: k.SGMCMC.sgnht(ps, **k.more),
    "sgnht: nbeta": lambda k, ps: k.SGMCMC.sgnht(ps, nbeta=2.0, **k.more),
    "SGLD": lambda k, ps: k.SGLD(ps, **k.more),
    "SGLD: noise_level": lambda k, ps: k.SGLD(ps, nbeta=2.0, noise_level=0.5, **k.more),
    "SGNHT": lambda k, ps: k.SGNHT(ps, **k.more),
    "SGNHT: nbeta": lambda k, ps: k.SGNHT(ps, nbeta=2.0, **k.more),
}


@pytest.mark.parametrize("name", WARNED)
def test_both_warn_about_the_same(name: str) -> None:
    found = []
    for k in (ours("numpy"), original()):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            WARNED[name](k, params(k))
        about = [str(w.message) for w in caught if w.category is UserWarning]
        assert all("noise_level" in text or "nbeta" in text for text in about)
        found.append(sorted("noise_level" in text for text in about))
    assert found[0] == found[1]


def test_a_closure_is_called_once_and_its_loss_comes_back() -> None:
    for k in (ours("numpy"), original()):
        calls: list[int] = []
        loss = step(k, sgmcmc(k), closure=lambda calls=calls: calls.append(1) or 3.5)
        assert (loss, calls) == (3.5, [1])
