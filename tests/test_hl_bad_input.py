"""Hamiltonian Learning: one clear error for what it cannot use, and nothing is changed by it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import HL
from tests.hl_models import Tensors
from tests.table import assert_bits

SHAPES = {"A": (2, 3), "B": (4,)}


def model(**changed: Any) -> Any:
    made = Tensors(SHAPES)
    for name, value in changed.items():
        setattr(made, name, value)
    return made


def without(name: str) -> Any:
    made = Tensors(SHAPES)
    if name == "named_parameters":
        return type("Bare", (), {"delta": 1.0, "h_init": np.zeros(2)})()
    delattr(made, name)
    return made


def naming(pairs: Any) -> Any:
    return model(named_parameters=lambda: pairs)


def read_only() -> Any:
    made = Tensors(SHAPES)
    made.w["B"].flags.writeable = False
    return made


def overlapping() -> Any:
    whole = np.zeros(6)
    return naming([("A", whole[:4]), ("B", whole[2:])])


MODELS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no delta": (lambda: without("delta"), TypeError, "the model must have .* Tensors has no delta"),
    "no h_init": (lambda: without("h_init"), TypeError, "Tensors has no h_init"),
    "none": (lambda: None, TypeError, "models must be a model, which has named_parameters.*, got NoneType"),
    "a number": (lambda: 3, TypeError, "models must be a model.*, got int"),
    "no parameters method": (lambda: without("named_parameters"), TypeError, "models must be a model.*, got Bare"),
    "in a group": (
        lambda: [{"params": 3}],
        TypeError,
        "the model must have named_parameters.*, and int has no named_par",
    ),
    "no groups": (list, ValueError, "models is empty"),
    "a group without params": (lambda: [{"theta": 1}], TypeError, r"dicts with the key 'params'.*models\[0\] is"),
    "models without dicts": (lambda: [Tensors(SHAPES)], TypeError, r"dicts with the key 'params'.*models\[0\] is"),
    "unknown option": (
        lambda: {"params": model(), "lr": 1},
        ValueError,
        r"models\[0\] has the option 'lr', which HL does",
    ),
    "bad option": (lambda: {"params": model(), "beta": "big"}, TypeError, "beta must be a real number, got 'big'"),
    "no parameters": (lambda: naming([]), ValueError, "named_parameters.* of the model gives none"),
    "a dict": (lambda: naming({"A": np.zeros(2)}), TypeError, "must give .name, array. pairs, got dict"),
    "no pairs": (lambda: naming([np.zeros(2)]), TypeError, "must give .name, array. pairs, got array"),
    "twice": (lambda: naming([("A", np.zeros(2)), ("A", np.ones(2))]), ValueError, "gives 'A' twice"),
    "a list": (lambda: naming([("A", [1.0])]), TypeError, "parameter 'A' of the model must be a NumPy array, got list"),
    "integers": (lambda: naming([("A", np.zeros(2, int))]), TypeError, "must be float32, float64, .* got dtype int64"),
    "other bytes": (lambda: naming([("A", np.zeros(2, ">f8"))]), TypeError, "parameter 'A' .* got dtype >f8"),
    "read-only": (read_only, ValueError, "^parameter 'B' of the model is read-only"),
    "overlapping": (
        overlapping,
        ValueError,
        "^parameter 'B' of the model overlaps the memory of parameter 'A' of the model",
    ),
    "h_init": (lambda: model(h_init=[0.0]), TypeError, "h_init of the model must be a NumPy array, got list"),
    "delta 0": (lambda: model(delta=0), ValueError, "delta of the model must be above 0, and finite, got 0"),
    "delta negative": (
        lambda: model(delta=-1.0),
        ValueError,
        "delta of the model must be above 0, and finite, got -1.0",
    ),
    "delta nan": (lambda: model(delta=np.nan), ValueError, "delta of the model must be above 0, and finite, got nan"),
    "delta infinite": (
        lambda: model(delta=np.inf),
        ValueError,
        "delta of the model must be above 0, and finite, got inf",
    ),
    "delta text": (lambda: model(delta="x"), TypeError, "delta of the model must be a real number, got 'x'"),
}


@pytest.mark.parametrize("case_name", MODELS)
def test_models(case_name: str) -> None:
    make, error, message = MODELS[case_name]
    with pytest.raises(error, match=message):
        HL(make(), device="numpy")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"theta": np.nan}, ValueError, "theta must be finite, got nan"),
        ({"gamma": "1"}, TypeError, "gamma must be a real number, got '1'"),
        ({"local": 1}, TypeError, "local must be True or False, got 1"),
        ({"flip": None}, TypeError, "flip must be a real number, got None"),
        ({"beta": np.inf}, ValueError, "beta must be finite, got inf"),
    ],
    ids=str,
)
def test_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HL(model(), **options, device="numpy")
    optimizer = HL(model(), device="numpy")
    optimizer.param_groups[0].update(options)
    with pytest.raises(error, match=message):
        optimizer.step({"xi": None, "w": {"A": None, "B": None}})


GOOD = {"xi": np.ones((2, 3)), "w": {"A": np.ones((2, 3)), "B": np.ones(4)}}


def changed(**weights: Any) -> dict[str, Any]:
    return {"xi": GOOD["xi"], "w": {**GOOD["w"], **weights}}  # type: ignore[dict-item]  # a dict, as it stands above


@pytest.mark.parametrize(
    ("gradients", "error", "message"),
    [
        (None, ValueError, "gradients is None, and the model has no gradients"),
        (3, TypeError, "gradients must be a dict with the keys 'xi' and 'w'.*, got int"),
        ([GOOD, GOOD], ValueError, "gradients has 2 entries, and there are 1 models"),
        ({"w": GOOD["w"]}, ValueError, "gradients of the model has no 'xi'; None in its place counts as zeros"),
        ({**GOOD, "q": 1}, ValueError, "gradients of the model has the key 'q'; expected 'xi', 'w'"),
        ({"xi": None}, ValueError, "gradients of the model has no 'w', a dict of arrays or None by name$"),
        ({"xi": None, "w": None}, TypeError, "'w' in gradients of the model must be a dict by name, got NoneType"),
        ({"xi": None, "w": [1]}, TypeError, "'w' in gradients of the model must be a dict by name, got list"),
        ({"xi": None, "w": {"A": None}}, ValueError, "'w' in gradients of the model has no 'B'"),
        (
            {"xi": None, "w": {"A": None, "C": None}},
            ValueError,
            "'w' in gradients of the model has the key 'C'; expected 'A', 'B'",
        ),
        (changed(C=None), ValueError, "'w' in gradients of the model has the key 'C'; expected 'A', 'B'"),
        (
            changed(A=np.ones((3, 2))),
            ValueError,
            r"the gradient of 'A' of the model must have shape \(2, 3\), got \(3, 2\)",
        ),
        (
            changed(B=np.ones(4, complex)),
            TypeError,
            "the gradient of 'B' of the model must be real, .* got dtype complex128",
        ),
        (
            changed(B=np.array(["a"] * 4)),
            TypeError,
            "the gradient of 'B' of the model must hold numbers, got dtype <U1",
        ),
        (
            changed(B=[[1.0], [1.0, 2.0]]),
            ValueError,
            "^the gradient of 'B' of the model must be an array, and NumPy cannot make one of it",
        ),
        ({**GOOD, "xi": np.ones((1, 3))}, ValueError, r"the gradient of 'xi' of the model must have shape \(2, 3\)"),
        ({**GOOD, "xi": np.ones((2, 3), complex)}, TypeError, "the gradient of 'xi' of the model must be real"),
    ],
    ids=lambda x: None if isinstance(x, dict | list) else str(x),
)
def test_gradients_change_nothing(gradients: Any, error: type[Exception], message: str, device: str) -> None:
    mine = model()
    optimizer = HL(mine, device=device)
    optimizer.step(GOOD)
    before, state = copy.deepcopy(mine.w), optimizer.state_dict()
    for call in (optimizer.step, optimizer.peek):
        with pytest.raises(error, match=message):
            call(gradients)
    for name, w in before.items():
        assert_bits(mine.w[name], w)
        assert_bits(optimizer.state_dict()["state"][0]["w"][name], state["state"][0]["w"][name])
    assert_bits(optimizer.state_dict()["state"][0]["xi"], state["state"][0]["xi"])


@pytest.mark.parametrize("name", ["xi", "A"])
def test_pairs_of_real_numbers_are_no_complex_gradient(name: str, device: str) -> None:
    """Though they lie in memory as complex numbers do, and as the engine computes with them."""
    mine = Tensors({"A": (3,)}, state=(3,), dtype=np.complex128)
    optimizer, pairs = HL(mine, device=device), np.ones((3, 2))
    given = {"xi": pairs if name == "xi" else None, "w": {"A": pairs if name == "A" else None}}
    with pytest.raises(ValueError, match=rf"gradient of '{name}' of the model must have shape \(3,\), got \(3, 2\)"):
        optimizer.step(given)


def test_one_dict_for_several_models() -> None:
    optimizer = HL([{"params": model()}, {"params": model()}], device="numpy")
    with pytest.raises(TypeError, match="gradients must be a list of 2 dicts, one for each model, got one dict"):
        optimizer.step(GOOD)
    with pytest.raises(ValueError, match="'A' of model 1 must have shape"):
        optimizer.step([GOOD, changed(A=np.ones(1))])


def test_a_model_that_changes_behind_the_optimizer(device: str) -> None:
    mine = model()
    optimizer = HL(mine, device=device)
    kept = mine.w["A"]
    mine.w["A"] = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"parameter 'A' of the model is another array of shape \(3, 3\) than when"):
        optimizer.step(GOOD)
    mine.w["A"] = kept.copy()
    with pytest.raises(
        ValueError, match="parameter 'A' of the model is another array than when the optimizer was built"
    ):
        optimizer.step(GOOD)
    mine.w["A"] = kept
    mine.w["C"] = np.ones(2)
    with pytest.raises(ValueError, match="the model has 3 parameters, and had 2 when the optimizer was built"):
        optimizer.step(GOOD)
    del mine.w["C"]
    mine.named_parameters = lambda: [1, 2]
    with pytest.raises(TypeError, match="pairs, got 1"):
        optimizer.step(GOOD)
    del mine.named_parameters
    mine.delta = 0.0
    with pytest.raises(ValueError, match="delta of the model must be above 0"):
        optimizer.step(GOOD)
    assert not optimizer.state[0]["p"]["w"]["A"].any()


def test_groups_that_change_behind_the_optimizer() -> None:
    optimizer = HL(model(), device="numpy")
    del optimizer.param_groups[0]["beta"]
    with pytest.raises(ValueError, match="group 0 must have the option 'beta', and it is gone"):
        optimizer.step(GOOD)
    optimizer = HL(model(), device="numpy")
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": model()})
    with pytest.raises(ValueError, match="a model comes with add_param_group, and none can be taken away"):
        optimizer.step(GOOD)


@pytest.mark.parametrize(
    ("potentials", "dh", "error", "message"),
    [
        ((), np.ones((2, 3)), ValueError, "needs a potential for each model, 1, got 0"),
        ((1.0, 2.0), np.ones((2, 3)), ValueError, "needs a potential for each model, 1, got 2"),
        ((1j,), np.ones((2, 3)), TypeError, "potential 0 must be a real number, got 1j"),
        ((np.ones(2),), np.ones((2, 3)), TypeError, "potential 0 must be a real number"),
        ((1.0,), None, ValueError, "the model has no dh yet: call it before"),
        ((1.0,), np.ones(5), ValueError, "dh of the model must have the size 6 of h_init, got 5"),
        ((1.0,), np.full((2, 3), "a"), TypeError, "^dh of the model must hold numbers, got dtype <U1"),
        ((1.0,), np.full((2, 3), None), TypeError, "^dh of the model must hold numbers, got dtype object"),
        ((1.0,), [[1.0], [1.0, 2.0]], ValueError, "^dh of the model must be an array, and NumPy cannot make one of it"),
        (
            (1.0,),
            np.ones((2, 3), complex),
            TypeError,
            "dh of the model is complex, and h_init and its first parameter are",
        ),
    ],
    ids=str,
)
def test_the_hamiltonian(potentials: Any, dh: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HL(model(dh=dh), device="numpy").compute_hamiltonian(*potentials)


@pytest.mark.parametrize(
    ("gradients", "error", "message"),
    [
        ([1], TypeError, "gradients of model 1 must be a dict with the keys 'xi' and 'w', got list"),
        ({"xi": None, "w": [1]}, TypeError, "'w' in gradients of model 1 must be a dict by name, got list"),
        ({"xi": None, "w": {"A": None}}, ValueError, "'w' in gradients of model 1 has no 'B'"),
        (
            {**GOOD, "xi": np.float64(1)},
            TypeError,
            "the gradient of 'xi' of model 1 must be a NumPy array, .* got float64",
        ),
        (changed(B=[1.0] * 4), TypeError, "the gradient of 'B' of model 1 must be a NumPy array, .* got list"),
        (changed(B=np.broadcast_to(1.0, 4)), ValueError, "the gradient of 'B' of model 1 is read-only"),
    ],
    ids=lambda x: None if isinstance(x, dict | list) else str(x),
)
def test_zero_grad_changes_nothing(gradients: Any, error: type[Exception], message: str, device: str) -> None:
    other, mine = model(gradients=copy.deepcopy(GOOD)), model(gradients=gradients)
    optimizer = HL([{"params": other}, {"params": mine}], reset_neuron_costate=True, device=device)
    optimizer.step([GOOD, GOOD])
    with pytest.raises(error, match=message):
        optimizer.zero_grad()
    assert other.gradients["w"]["A"].all()
    assert GOOD["w"]["A"].all()  # type: ignore[call-overload]  # a dict, as it stands above
    assert all(state["p"]["xi"].all() for state in optimizer.state)


def saved(**changed: Any) -> dict[str, Any]:
    return {**HL(model(), device="numpy").state_dict(), **changed}


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (None, TypeError, "state_dict must be a dict with the keys"),
        ({"state": []}, TypeError, "state_dict must be a dict with the keys"),
        (saved(state=[]), ValueError, "'state' of state_dict must be a list of 1 dicts"),
        (saved(param_groups={}), ValueError, "'param_groups' of state_dict must be a list of 1 dicts"),
        (saved(state=[{"xi": 1}]), TypeError, "the state of the model in state_dict must be a dict with the keys"),
        (
            saved(state=[{"w": GOOD["w"]}]),
            ValueError,
            "^the state of the model in state_dict has no 'xi', the costate of the model's state",
        ),
        (
            saved(state=[{"xi": np.zeros((2, 3)), "w": {"A": 1}}]),
            ValueError,
            "has the parameters 'A'; expected 'A', 'B'",
        ),
        (
            saved(state=[{"xi": np.zeros(2), "w": {"A": np.zeros((2, 3)), "B": np.zeros(4)}}]),
            ValueError,
            r"the costate of 'xi' of the model in state_dict must have shape \(2, 3\), got \(2,\)",
        ),
        (saved(param_groups=[{"theta": "x"}]), TypeError, "theta must be a real number, got 'x'"),
        (saved(param_groups=[3]), TypeError, "'param_groups' of state_dict must hold dicts, got int"),
    ],
    ids=lambda x: None if isinstance(x, dict) else str(x),
)
def test_state_dicts_change_nothing(state: Any, error: type[Exception], message: str, device: str) -> None:
    optimizer = HL(model(), theta=0.4, device=device)
    optimizer.step(GOOD)
    before = optimizer.state_dict()
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert_bits(after["state"][0]["w"]["A"], before["state"][0]["w"]["A"])
    assert after["param_groups"] == before["param_groups"]
