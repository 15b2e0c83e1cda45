"""Bad input gives one clear error that names the culprit, and changes nothing."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim import Parameter
from grilly_optim.optim import AdamW
from tests.table import assert_bits, draw

shared = np.zeros(100, np.float32)
read_only = np.zeros(4, np.float32)
read_only.setflags(write=False)


@pytest.mark.parametrize(
    ("params", "options", "error", "message"),
    [
        ([np.zeros(3, np.int32)], {}, TypeError, r"parameter 0 must be float32 or float64, got dtype int32"),
        ([np.zeros(3, np.complex64)], {}, TypeError, r"parameter 0 must be float32 or float64, got dtype complex64"),
        ([np.zeros(3, np.float16)], {}, TypeError, r"got dtype float16"),
        ([np.zeros(3, ">f4")], {}, TypeError, r"got dtype >f4"),
        ({"w": [1.0, 2.0]}, {}, TypeError, r"parameter 0 \('w'\) must be a NumPy array, got list"),
        ([np.zeros(3, np.float32), read_only], {}, ValueError, r"parameter 1 is read-only"),
        ([shared[:60], shared[40:]], {}, ValueError, r"parameter 1 overlaps the memory of parameter 0"),
        ([shared, shared], {}, ValueError, r"parameter 1 overlaps the memory of parameter 0"),
        ({"a": shared[::2], "b": shared[::-4]}, {}, None, ""),  # 0, 2, 4 ... and 99, 95 ...: no common element
        (
            {"a": shared[::2], "b": shared[98::-4]},
            {},
            ValueError,
            r"parameter 1 \('b'\) overlaps .* parameter 0 \('a'\)",
        ),
        ([], {}, ValueError, r"params is empty"),
        (shared, {}, TypeError, r"got one array; write \[array\]"),
        (3, {}, TypeError, r"params must be a sequence of arrays, .* got int"),
        ([{"params": [shared], "momentum": 0.9}], {}, ValueError, r"group 0 has the option 'momentum', which AdamW"),
        ([{"params": [shared]}, {"lr": 1.0}], {}, ValueError, r"group 1 must have the key 'params', got 'lr'"),
        ([{"params": []}], {}, ValueError, r"params of group 0 is empty"),
        ([("w", shared[:5]), ("w", shared[5:])], {}, ValueError, r"the name 'w' is given to parameters 0 and 1"),
        ([shared], {"lr": -1.0}, ValueError, r"lr must be 0 or more, and finite, got -1.0"),
        ([shared], {"lr": math.nan}, ValueError, r"lr must be 0 or more, and finite, got nan"),
        ([shared], {"lr": math.inf}, ValueError, r"lr must be 0 or more, and finite, got inf"),
        ([shared], {"lr": "fast"}, TypeError, r"lr must be a real number, got 'fast'"),
        ([shared], {"eps": -1e-9}, ValueError, r"eps must be 0 or more"),
        ([shared], {"weight_decay": -0.1}, ValueError, r"weight_decay must be 0 or more"),
        ([shared], {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ([shared], {"betas": (0.9, math.nan)}, ValueError, r"betas\[1\] must be in \[0, 1\), got nan"),
        ([shared], {"betas": 0.9}, TypeError, r"betas must be a pair of numbers, got 0.9"),
        ([{"params": [shared], "lr": -2.0}], {}, ValueError, r"lr must be 0 or more"),
        (
            [shared],
            {"device": "tpu"},
            grilly_optim.DeviceUnavailable,
            r"device='tpu' is not known; expected 'auto', 'cpu'",
        ),
        ([shared], {"device": "vulkan:no such"}, grilly_optim.DeviceUnavailable, r"no such"),
        ([np.lib.stride_tricks.as_strided(shared, (9, 9), (4, 4))], {}, ValueError, r"parameter 0 overlaps itself"),
        (
            [{"params": [shared], "param_names": ["a", "b"]}],
            {},
            ValueError,
            r"param_names of group 0 has 2 names for 1",
        ),
        ([shared], {"amsgrad": "no"}, TypeError, r"amsgrad must be True or False, got 'no'"),
        ([shared], {"lr": 10**400}, ValueError, r"lr must be 0 or more, and finite"),
        ([shared], {"lr": np.complex64(1)}, TypeError, r"lr must be a real number"),
        ([{"params": [shared[:9]]}, {"params": [shared[9:]], "lr": -1}], {}, ValueError, r"lr of group 1 must be 0 or"),
        ([shared], {"device": "cpu:"}, grilly_optim.DeviceUnavailable, r"'cpu:' is not known"),
        ([shared], {"device": ""}, grilly_optim.DeviceUnavailable, r"'' is not known"),
        ([shared], {"device": 3}, TypeError, r"device must be a string, got int"),
    ],
)
def test_construction(params: Any, options: dict[str, Any], error: Any, message: str) -> None:
    gc.collect()  # not in the middle of this test: it frees what earlier ones have left
    before = grilly_optim.counters()["bytes_allocated"]
    if error is None:
        AdamW(params, **options)
        return
    with pytest.raises(error, match=message):
        AdamW(params, **options)
    assert grilly_optim.counters()["bytes_allocated"] == before


def optimizer_with_state(device: str) -> tuple[AdamW, list[Any]]:
    """Two named parameters, one step taken."""
    ps = [draw(30), draw((4, 5))]
    optimizer = AdamW({"a": ps[0], "b": ps[1]}, device=device)
    optimizer.step(gradients=[draw(30), draw((4, 5))])
    return optimizer, ps


def good() -> list[Any]:
    return [draw(30), draw((4, 5))]


@pytest.mark.parametrize(
    ("gradients", "error", "message"),
    [
        (
            lambda: [draw(30), draw((5, 4))],
            ValueError,
            r"gradient of parameter 1 \('b'\) has shape \(5, 4\), expected \(4, 5\)",
        ),
        (lambda: [draw(30)], ValueError, r"gradients has 1 entries, and there are 2 parameters"),
        (lambda: [draw(31), draw((4, 5))], ValueError, r"gradient of parameter 0 \('a'\) has shape \(31,\)"),
        (
            lambda: {"a": draw(30), "c": draw(3)},
            ValueError,
            r"key 'c', which is not the name of a parameter; names are 'a', 'b'",
        ),
        (lambda: {12345: draw(30)}, ValueError, r"key 12345, which is not the id of a parameter"),
        (lambda: [draw(30).astype(np.complex64), draw((4, 5))], TypeError, r"real numbers, got dtype complex64"),
        (lambda: ["x", draw((4, 5))], TypeError, r"real numbers, got dtype <U1"),
        (lambda: draw((2, 30)), TypeError, r"gradients must be a sequence aligned with the parameters"),
        (lambda: 3.0, TypeError, r"got float"),
        (lambda: None, ValueError, r"no parameter is a grilly_optim.Parameter"),
    ],
)
def test_gradients(gradients: Callable[[], Any], error: Any, message: str, device: str) -> None:
    optimizer, ps = optimizer_with_state(device)
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    with pytest.raises(error, match=message):
        optimizer.step(gradients=gradients())
    assert_unchanged(optimizer, ps, before, state)


def assert_unchanged(optimizer: AdamW, ps: list[Any], before: list[Any], state: dict[str, Any]) -> None:
    for p, b in zip(ps, before, strict=True):
        assert_bits(p, b)
    now = optimizer.state_dict()["state"]
    for i, fields in state["state"].items():
        for name, value in fields.items():
            assert_bits(np.asarray(now[i][name]), np.asarray(value), name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", -1),
        ("lr", math.nan),
        ("betas", (0.9, 1.0)),
        ("eps", math.nan),
        ("weight_decay", -1),
        ("lr", None),
        ("lr", np.ones(3)),
        ("amsgrad", True),
    ],
)
def test_options_set_to_bad_values_between_steps(option: str, value: Any, device: str) -> None:
    optimizer, ps = optimizer_with_state(device)
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    kept = optimizer.param_groups[0][option]
    optimizer.param_groups[0][option] = value
    with pytest.raises((ValueError, TypeError), match=option):
        optimizer.step(gradients=good())
    assert_unchanged(optimizer, ps, before, state)
    optimizer.param_groups[0][option] = kept
    optimizer.step(gradients=good())
    assert optimizer.state_dict()["state"][0]["step"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda groups: groups.append({**groups[0], "params": [np.zeros(2)]}), "param_groups has 3 groups, and this"),
        (
            lambda groups: groups.append({"params": [np.zeros(2)]}),
            "param_groups has 3 groups, and this optimizer has 2",
        ),
        (lambda groups: groups.pop(), "param_groups has 1 groups, and this optimizer has 2: a group comes with"),
        (lambda groups: groups[1].pop("eps"), "group 1 must have the option 'eps', and it is gone"),
    ],
    ids=["a group", "a bare group", "a group less", "an option less"],
)
def test_groups_changed_behind_the_optimizers_back(change: Callable[[Any], Any], message: str, device: str) -> None:
    ps = [draw(3), draw(4)]
    optimizer = AdamW([{"params": [p]} for p in ps], device=device)
    gradients = [p.copy() for p in ps]
    optimizer.step(gradients=gradients)
    kept, groups = [p.copy() for p in ps], [dict(g) for g in optimizer.param_groups]
    change(optimizer.param_groups)
    for call in (lambda: optimizer.step(gradients=gradients), lambda: optimizer.peek(gradients), optimizer.state_dict):
        with pytest.raises(ValueError, match=message):
            call()
    for p, k in zip(ps, kept, strict=True):
        assert_bits(p, k)
    optimizer.param_groups[:] = groups
    optimizer.step(gradients=gradients)
    assert optimizer.state_dict()["state"][0]["step"] == 2


def test_a_parameter_made_read_only_between_steps(device: str) -> None:
    optimizer, ps = optimizer_with_state(device)
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    ps[1].setflags(write=False)
    with pytest.raises(ValueError, match=r"parameter 1 \('b'\) is read-only"):
        optimizer.step(gradients=good())
    assert_unchanged(optimizer, ps, before, state)


def test_a_strided_parameter_made_read_only_between_steps(device: str) -> None:
    ps = [draw(30), draw(60)[::2]]
    optimizer = AdamW(ps, device=device)
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    ps[1].setflags(write=False)
    with pytest.raises(ValueError, match=r"parameter 1 is read-only"):
        optimizer.step(gradients=[draw(30), draw(30)])
    assert_unchanged(optimizer, ps, before, state)


def test_positional_gradients_are_pointed_to_their_name() -> None:
    optimizer, _ = optimizer_with_state("numpy")
    with pytest.raises(TypeError, match=r"closure must be callable, got list; gradients go into gradients="):
        optimizer.step(good())  # type: ignore[arg-type]  # the mistake under test


def test_a_parameter_without_gradient_is_skipped_but_none_at_all_is_an_error() -> None:
    w = Parameter(draw(3))
    before = w.copy()
    AdamW([w, draw(3)], device="numpy").step()
    assert_bits(np.asarray(w), np.asarray(before))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda s: s["state"][1].update(exp_avg=np.zeros(7)),
            ValueError,
            r"'exp_avg' of parameter 1 \('b'\) has shape \(7,\)",
        ),
        (
            lambda s: s["state"][0].pop("exp_avg_sq"),
            ValueError,
            r"no 'exp_avg_sq' for parameter 0 \('a'\), which has had 1",
        ),
        (lambda s: s["state"][0].update(step=-1), ValueError, r"'step' of parameter 0 .* must be a whole number"),
        (
            lambda s: s["param_groups"].append({"params": [2]}),
            ValueError,
            r"groups of \[2, 1\] parameters, expected \[2\]",
        ),
        (lambda s: s["param_groups"][0].update(lr=-1), ValueError, r"lr must be 0 or more"),
        (lambda s: s.update(state=[]), TypeError, r"'state' of state_dict must be a dict by position, got list"),
        (lambda s: s["state"].update({7: {}}), ValueError, r"has 7, which is no position in its param_groups"),
        (
            lambda s: s["state"].update({0: None}),
            TypeError,
            r"the state of parameter 0 .* must be a dict, got NoneType",
        ),
        (lambda s: s["state"][0].update(step=math.inf), ValueError, r"'step' of parameter 0 .* must be a whole number"),
        (lambda s: s["state"][0].update(exp_avg=["1"] * 30), TypeError, r"'exp_avg' of parameter 0 .* must hold real"),
        (lambda s: s["param_groups"].append({}), TypeError, r"must be a list of dicts with the key 'params'"),
        (lambda s: s.pop("state"), TypeError, r"the keys 'state' and 'param_groups'"),
    ],
)
def test_state_dicts(change: Callable[[Any], Any], error: Any, message: str, device: str) -> None:
    optimizer, ps = optimizer_with_state(device)
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    bad = optimizer.state_dict()
    change(bad)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(bad)
    assert_unchanged(optimizer, ps, before, state)


def test_add_param_group_refuses_and_keeps_what_is_there(device: str) -> None:
    optimizer, ps = optimizer_with_state(device)
    before, state = [p.copy() for p in ps], optimizer.state_dict()
    for bad, message in (
        ({"params": [ps[0]]}, "parameter 2 overlaps"),
        ({"params": [np.zeros(3, int)]}, "parameter 2 must be float32"),
        ({"params": [draw(3)], "lr": -1}, "lr of group 1 must be"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == 1
    assert_unchanged(optimizer, ps, before, state)


@pytest.mark.cases("vulkan")
def test_float64_on_a_device_without_it(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from grilly_optim import _devices

    infos = [dataclasses.replace(i, float64=False) for i in _devices._vulkan_infos()]
    monkeypatch.setattr(_devices, "_vulkan_infos", lambda: infos)
    monkeypatch.setattr(_devices, "_asked", {})
    with pytest.raises(TypeError, match=r"parameter 1 is float64, which llvmpipe.* does not support"):
        AdamW([draw(3), draw(3, np.float64)], device=device)
