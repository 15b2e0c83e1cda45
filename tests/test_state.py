"""State dicts resume to the last bit, groups are added without losing state, optimizers can be pickled."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import AdamW
from tests.table import ROWS, Array, Row, assert_bits, draw, works

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def gradients(rng: np.random.Generator, step: int) -> list[Any]:
    return [draw(500, rng=rng), draw((7, 9), np.float64, rng) if step != 2 else None, draw(1, rng=rng)]


@rows
def test_resume_is_exact(row: Row, device: str) -> None:
    start = [draw(500), draw((7, 9), np.float64), draw(1)]

    def run(interrupt: bool) -> list[Array]:
        rng = np.random.default_rng(1)
        ps = [p.copy() for p in start]
        optimizer = row.make(ps, **row.options, device=device)
        for step in range(6):
            if interrupt and step == 4:
                saved = optimizer.state_dict()
                ps = [p.copy() for p in ps]
                optimizer = row.make(ps, **row.options, device=device)
                optimizer.load_state_dict(saved)
            optimizer.step(gradients=gradients(rng, step))
        return ps

    for a, e in zip(run(True), run(False), strict=True):
        assert_bits(a, e)


def test_state_moves_between_devices(device: str) -> None:
    start = draw(5000)
    p, q = start.copy(), start.copy()
    there, reference = AdamW([p], device="numpy"), AdamW([q], device="numpy")
    g = draw(5000)
    there.step(gradients=[g])
    reference.step(gradients=[g])
    moved = AdamW([p], device=device)
    moved.load_state_dict(there.state_dict())
    moved.step(gradients=[g])
    reference.step(gradients=[g])
    assert_bits(p, q)


def test_a_state_dict_is_a_snapshot_of_plain_things(device: str) -> None:
    p = draw(20)
    optimizer = AdamW({"w": p}, lr=0.5, device=device)
    optimizer.step(gradients=[draw(20)])
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    optimizer.step(gradients=[draw(20)])
    optimizer.param_groups[0]["lr"] = 7.0
    assert saved["param_groups"] == kept["param_groups"]
    assert saved["param_groups"][0]["lr"] == 0.5
    assert saved["param_groups"][0]["params"] == [0]
    assert saved["state"][0]["step"] == 1
    assert_bits(saved["state"][0]["exp_avg"], kept["state"][0]["exp_avg"])
    optimizer.load_state_dict(saved)
    optimizer.step(gradients=[draw(20)])
    assert_bits(saved["state"][0]["exp_avg_sq"], kept["state"][0]["exp_avg_sq"])
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_loading_takes_lists_for_tuples_and_restores_options(device: str) -> None:
    optimizer = AdamW([draw(5)], lr=0.5, betas=(0.5, 0.25), device=device)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["betas"] = [0.5, 0.25]
    other = AdamW([draw(5)], device=device)
    other.load_state_dict(saved)
    assert other.param_groups[0]["betas"] == (0.5, 0.25)
    assert other.param_groups[0]["lr"] == 0.5


def test_a_state_dict_survives_json(device: str) -> None:
    p = draw(40)
    optimizer = AdamW([p], amsgrad=True, device=device)
    optimizer.step(gradients=[draw(40)])
    text = json.dumps(optimizer.state_dict(), default=lambda a: a.tolist())
    q = p.copy()
    again = AdamW([q], amsgrad=True, device=device)
    again.load_state_dict(json.loads(text))
    g = draw(40)
    optimizer.step(gradients=[g])
    again.step(gradients=[g])
    assert_bits(q, p)


def test_keys_that_others_write_into_groups_survive_copies(device: str) -> None:
    optimizer = AdamW([draw(5)], device=device)
    optimizer.param_groups[0]["tag"] = 1
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert again.param_groups[0]["tag"] == 1
        again.step(gradients=[draw(5)])


def test_loading_may_switch_amsgrad(device: str) -> None:
    p, q = draw(50), draw(50)
    q[...] = p
    source = AdamW([p], amsgrad=True, device=device)
    source.step(gradients=[draw(50)])
    target = AdamW([q], device=device)
    q[...] = p
    target.load_state_dict(source.state_dict())
    g = draw(50)
    source.step(gradients=[g])
    target.step(gradients=[g])
    assert_bits(q, p)


def test_adding_a_group_keeps_the_state_of_the_others(device: str) -> None:
    def run(where: str) -> list[Array]:
        rng = np.random.default_rng(6)
        a, b = draw(600, rng=rng), draw(90, rng=rng)
        optimizer = AdamW([a], device=where)
        optimizer.step(gradients=[draw(600, rng=rng)])
        optimizer.add_param_group({"params": {"b": b}, "lr": 0.1})
        for _ in range(3):
            optimizer.step(gradients=[draw(600, rng=rng), draw(90, rng=rng)])
        assert [s["step"] for s in optimizer.state_dict()["state"].values()] == [4, 3]
        return [a, b]

    with works(device, 4):
        actual = run(device)
    for a, e in zip(actual, run("numpy"), strict=True):
        assert_bits(a, e)


def test_optimizers_can_be_pickled(device: str) -> None:
    p = draw(40)
    optimizer = AdamW({"w": p}, lr=0.3, amsgrad=True, device=device)
    optimizer.step(gradients=[draw(40)])
    again = pickle.loads(pickle.dumps(optimizer))
    g = draw(40)
    optimizer.step(gradients=[g])
    again.step(gradients={"w": g})
    assert_bits(again.param_groups[0]["params"][0], p)


def test_repr_names_the_device_and_the_options() -> None:
    text = repr(AdamW([draw(3)], lr=0.25, device="numpy"))
    assert text.startswith("AdamW on NumPy\n  group 0: 1 parameters, lr=0.25, betas=(0.9, 0.999)")
