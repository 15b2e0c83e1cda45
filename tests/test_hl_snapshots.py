"""Snapshots, pickles and copies of what Hamiltonian Learning consists of: the optimizer and its models."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import HL
from grilly_optim.optim.hl_models import Recurrent
from tests.hl_models import Array, Tensors, doubles, kinds, localities, run
from tests.table import assert_bits

SHAPES = {"A": (5, 7), "B": (3,), "c": (), "none": (0, 4)}

# The optimizer.


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128], ids=lambda d: d.__name__)
def test_a_state_dict_goes_on_bit_for_bit(dtype: Any, device: str) -> None:
    whole, first = (Tensors(SHAPES, dtype=dtype) for _ in range(2))
    rngs = [np.random.default_rng(5) for _ in range(2)]
    one, other = HL(whole, theta=0.3, device=device), HL(first, theta=0.3, device=device)
    for _ in range(6):
        one.step(whole.drawn_gradients(rngs[0]))
    for _ in range(3):
        other.step(first.drawn_gradients(rngs[1]))
    state = other.state_dict()
    kept = copy.deepcopy(state)
    second = HL(first, device=device)
    second.load_state_dict(state)
    for _ in range(3):
        second.step(first.drawn_gradients(rngs[1]))
    assert_bits(state["state"][0]["w"]["A"], kept["state"][0]["w"]["A"])
    assert second.param_groups[0]["theta"] == 0.3
    for name in SHAPES:
        assert_bits(first.w[name], whole.w[name])


def test_pickles_and_deep_copies_go_on(device: str) -> None:
    model, rng = Tensors(SHAPES), np.random.default_rng(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        optimizer = HL(model, theta=0.3, reset_weight_costate=True, device=device)
    optimizer.step(model.drawn_gradients(rng))
    gradients = model.drawn_gradients(rng)
    twins = [pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)]
    for each in (optimizer, *twins):
        each.step(gradients)
    for twin in twins:
        assert twin.param_groups[0]["params"] is not model
        assert_bits(twin.param_groups[0]["params"].w["A"], model.w["A"])


class Holding(Tensors):
    optimizer: HL


@pytest.mark.parametrize(
    "twin_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_model_that_holds_its_optimizer_can_be_copied(twin_of: Any, device: str) -> None:
    model, rng = Holding(SHAPES), np.random.default_rng(6)
    model.optimizer = HL(model, theta=0.3, device=device)
    model.optimizer.step(model.drawn_gradients(rng))
    twin = twin_of(twin_of(model))  # the second time of one that has not been used yet
    gradients = model.drawn_gradients(rng)
    for each in (model, twin):
        each.optimizer.step(gradients)
    assert twin.optimizer.param_groups[0]["params"] is twin
    assert twin.optimizer.param_groups[0]["theta"] == 0.3
    for name, w in model.w.items():
        assert twin.w[name] is not w
        assert_bits(twin.w[name], w)
    with pytest.raises(AttributeError, match="lr"):
        twin.optimizer.lr  # noqa: B018


def test_threads_may_share_a_copy_from_its_first_use_on() -> None:
    for _ in range(20):
        model = Tensors(SHAPES)
        optimizer = HL(model, device="numpy")
        gradients = model.drawn_gradients(np.random.default_rng(0))
        twin = copy.deepcopy(optimizer)
        with ThreadPoolExecutor(8) as pool:
            together = threading.Barrier(8)

            def step(own: HL = twin, given: Any = gradients, together: threading.Barrier = together) -> None:
                together.wait(60)
                own.step(given)

            for done in [pool.submit(step) for _ in range(8)]:
                done.result()
        for _ in range(8):
            optimizer.step(gradients)
        assert_bits(twin.param_groups[0]["params"].w["A"], model.w["A"])


# Models.


@kinds
@localities
@pytest.mark.parametrize("calls", [0, 3])
@pytest.mark.parametrize("reset", [False, True])
def test_a_model_goes_on_bit_for_bit(kind: Any, locality: dict[str, Any], calls: int, reset: bool) -> None:
    model, rng = doubles(kind, **locality), np.random.default_rng(5)
    for _ in range(calls):
        model(rng.standard_normal((4, 3)))
    if reset:
        model.reset()
    model.h_init += 1
    state = model.state_dict()
    kept = copy.deepcopy(state)
    twin = doubles(kind, **locality, seed=9)
    arrays = dict(twin.named_parameters())
    twin(np.ones((4, 3)))
    twin.backward(np.ones((4, 2)))
    given = copy.deepcopy(state)
    twin.load_state_dict(given)
    erase(given)
    assert twin.gradients is None
    assert (twin.h is None) == (calls == 0)
    pairs = (model, twin)
    if calls:
        grad, p = rng.standard_normal((4, 2)), rng.standard_normal((4, 6))
        for each in pairs:
            each.backward(grad, p)
    for _ in range(2):
        for made, expected in zip(values(twin), values(model), strict=True):
            assert_bits(made, expected)
        u = rng.standard_normal((4, 3))
        assert_bits(twin(u), model(u))
    for name, array in twin.named_parameters():
        assert array is arrays[name]
    erase(dict(model.named_parameters()) | {"h_init": model.h_init})
    for made, expected in zip(leaves(state), leaves(kept), strict=True):
        assert_bits(np.asarray(made), np.asarray(expected))


def values(model: Recurrent) -> list[Array]:
    """All that there is to read."""
    made = [array for _, array in model.named_parameters()] + [model.h_init]
    made += [] if model.h is None else [model.h, np.asarray(model.dh)]
    return made + leaves(model.gradients)


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    return [] if tree is None else [tree]


def erase(tree: dict[str, Any]) -> None:
    for leaf in leaves(tree):
        if isinstance(leaf, np.ndarray):
            leaf[...] = 0


@kinds
def test_bad_state_dicts_change_nothing(kind: Any) -> None:
    model, other = doubles(kind), doubles(kind, seed=9)
    for each in (model, other):
        each(np.ones((4, 3)))
        each.backward(np.ones((4, 2)))
    good, before = other.state_dict(), copy.deepcopy(values(model))
    for changed, error, message in (
        (None, TypeError, "state_dict must be a dict with the keys 'w', 'h_init', 'starts', 'call', got NoneType"),
        ({"w": good["w"]}, ValueError, "state_dict has the keys 'w'; expected"),
        (good | {"w": []}, TypeError, "'w' of state_dict must be a dict with the keys .*, got list"),
        (good | {"w": good["w"] | {"D": 1}}, ValueError, "'w' of state_dict has the keys .*'D'; expected"),
        (good | {"w": good["w"] | {"C": np.ones(2)}}, ValueError, "'C' of state_dict must have shape"),
        (good | {"h_init": None}, TypeError, "'h_init' of state_dict must hold numbers"),
        (good | {"starts": 1}, TypeError, "'starts' of state_dict must be True or False, got 1"),
        (good | {"call": 1}, TypeError, "'call' of state_dict must be a dict"),
        (good | {"call": {"u": 1}}, ValueError, "'call' of state_dict has the keys 'u'; expected"),
        (good | {"call": good["call"] | {"next": np.ones(2)}}, ValueError, "'next' of state_dict must have shape"),
        (good | {"call": None}, ValueError, "there is no state to go on with"),
    ):
        with pytest.raises(error, match=message):
            model.load_state_dict(changed)
    model.C.flags.writeable = False
    with pytest.raises(ValueError, match="C is read-only"):
        model.load_state_dict(good)
    for made, expected in zip(values(model), before, strict=True):
        assert_bits(made, expected)


@kinds
@localities
def test_an_interrupted_run_goes_on_from_snapshots_and_from_copies(
    kind: Any, locality: dict[str, Any], device: str
) -> None:
    options: dict[str, Any] = {"beta": 0.002, "theta": 1.2, "device": device}
    model = doubles(kind, **locality)
    optimizer = HL(model, **options)
    run(model, optimizer, 5)
    model.optimizer = optimizer  # type: ignore[attr-defined]  # as callers do
    loaded = doubles(kind, **locality, seed=9)
    loaded.load_state_dict(model.state_dict())
    other = HL(loaded, **options)
    other.load_state_dict(optimizer.state_dict())
    twins = [(loaded, other)]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twins.append((twin, twin.optimizer))
    run(model, optimizer, 5)
    for twin, its_optimizer in twins:
        run(twin, its_optimizer, 5)
        for made, expected in zip(values(twin), values(model), strict=True):
            assert_bits(made, expected)
        assert_bits(its_optimizer.state[0]["p"]["xi"], optimizer.state[0]["p"]["xi"])
