"""State dicts, copies, groups, and rates that others write, of the hypergradient optimizers."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from grilly_optim.optim import AdamW, AutoHypergradientAdamW, HypergradientAdamW
from grilly_optim.schedules import ExponentialLR
from tests.hyper_table import BY_RULE, EVERYTHING, Quadratic, Variant, assert_same, everything, histories, variants
from tests.interrupts import Interrupting, interrupted
from tests.table import Array, assert_bits, draw

SHAPES: list[Any] = [500, (7, 9), 1]
DTYPES = [np.float32, np.float64, np.float32]


def build(variant: Variant, ps: list[Array], device: str) -> Any:
    return variant.make([{"params": ps[:2]}, {"params": ps[2:], "lr": 0.0073}], **variant.options, device=device)


def through_state(optimizer: Any, variant: Variant, device: str, change: Callable[[Any], Any]) -> Any:
    ps = [p.copy() for g in optimizer.param_groups for p in g["params"]]
    again = build(variant, ps, device)
    again.load_state_dict(change(optimizer.state_dict()))
    return again


WAYS: dict[str, Callable[[Any, Variant, str], Any]] = {
    "state dict": lambda o, v, d: through_state(o, v, d, lambda s: s),
    "another device": lambda o, v, d: through_state(o, v, "numpy" if d == "cpu" else "cpu", lambda s: s),
    "JSON": lambda o, v, d: through_state(o, v, d, lambda s: json.loads(json.dumps(s, default=lambda a: a.tolist()))),
    "pickle": lambda o, v, d: pickle.loads(pickle.dumps(o)),
    "deepcopy": lambda o, v, d: copy.deepcopy(o),
}


@pytest.mark.parametrize(
    ("way", "variant"),
    [("state dict", v) for v in BY_RULE] + [(way, v) for way in list(WAYS)[1:] for v in EVERYTHING],
    ids=lambda x: getattr(x, "name", x),
)
def test_resume_is_exact(way: str, variant: Variant, device: str) -> None:
    """In the warm-up, at the first adaptation, and later; after a step without gradients, and one with some."""
    quadratic = Quadratic(SHAPES, DTYPES)
    optimizer = build(variant, quadratic.parameters(), device)
    for step in range(7):
        if step in (1, 2, 4, 6):
            again = WAYS[way](optimizer, variant, device)
            assert_same(again.state_dict(), optimizer.state_dict())
        ps = [p for g in optimizer.param_groups for p in g["params"]]
        qs = [p for g in again.param_groups for p in g["params"]] if step else ps
        gradients: list[Any] = quadratic.gradients(ps, missing=0.3 if step == 3 else 0.0)
        optimizer.step(gradients=[None] * 3 if step == 5 else gradients)
        if not step:
            continue
        again.step(gradients=[None] * 3 if step == 5 else gradients)
        for p, q in zip(ps, qs, strict=True):
            assert_bits(q, p)
        assert_same(again.state_dict(), optimizer.state_dict())
        assert histories(again) == histories(optimizer)
    assert len(optimizer.lr_history) > 2


def test_a_snapshot_is_not_touched_by_later_steps(device: str) -> None:
    quadratic = Quadratic(SHAPES, DTYPES)
    ps = quadratic.parameters()
    optimizer = AutoHypergradientAdamW(ps, track_surprise=True, warmup_steps=0, device=device)
    for _ in range(3):
        optimizer.step(gradients=quadratic.gradients(ps))
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    optimizer.step(gradients=quadratic.gradients(ps))
    assert_same(saved, kept)
    assert len(optimizer.surprise_history) == 4


@everything
def test_a_rate_that_has_just_been_written_is_in_the_snapshot(variant: Variant, device: str) -> None:
    """Written between two steps, and not looked at yet."""
    quadratic = Quadratic(SHAPES, DTYPES)
    ps = quadratic.parameters()
    optimizer = build(variant, ps, device)
    for _ in range(4):
        optimizer.step(gradients=quadratic.gradients(ps))
    optimizer.param_groups[1]["lr"] = 0.5
    again = through_state(optimizer, variant, device, lambda s: s)
    gradients = quadratic.gradients(ps)
    optimizer.step(gradients=gradients)
    again.step(gradients=gradients)
    assert_same(again.state_dict(), optimizer.state_dict())
    first, second = (g["lr"] for g in optimizer.param_groups)
    assert second / first == pytest.approx(0.5 / optimizer.lr_history[-2], rel=1e-12)


@everything
def test_a_signal_while_a_step_is_settled_loses_nothing_of_it(variant: Variant) -> None:
    """At every line: histories, rates and counts are those of a step that was left alone."""
    quadratic = Quadratic(SHAPES, DTYPES)
    gradients = [quadratic.gradients(quadratic.start) for _ in range(6)]

    def train(line: int) -> tuple[bool, Any]:
        broken = False
        optimizer = build(variant, quadratic.parameters(), "cpu")
        for step, mine in enumerate(gradients):
            if step != 4:
                optimizer.step(gradients=mine)
                continue
            broken = interrupted(partial(optimizer.step, gradients=mine), line, ("_settle", "_change", "_enter"))
            now = optimizer.state_dict(), [{**g, "params": 0} for g in optimizer.param_groups]
        return broken, (*now, optimizer.state_dict())

    _, expected = train(0)
    for line in itertools.count(1):
        broken, found = train(line)
        assert_same(found, expected, f"line {line}")
        if not broken:
            break
    assert line > 15


@everything
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_step_has_been_made_or_has_not(variant: Variant, after: bool, device: str) -> None:
    quadratic = Quadratic(SHAPES, DTYPES)
    ps, qs = quadratic.parameters(), quadratic.parameters()
    ps[1], qs[1] = np.asfortranarray(ps[1]), np.asfortranarray(qs[1])  # works in a copy
    optimizer, twin = build(variant, ps, device), build(variant, qs, device)
    for step in range(6):
        gradients = quadratic.gradients(ps)
        if step == 4:
            whole, optimizer._plans._backend = optimizer._plans._backend, Interrupting(optimizer._plans._backend, after)
            with pytest.raises(KeyboardInterrupt):
                optimizer.step(gradients=gradients)
            optimizer._plans._backend = whole
        else:
            optimizer.step(gradients=gradients)
        if step != 4 or after:
            twin.step(gradients=gradients)
        for p, q in zip(ps, qs, strict=True):
            assert_bits(p, q)
        assert_same(optimizer.state_dict(), twin.state_dict())


def damaged(path: str, value: Any) -> Callable[[Any], None]:
    """Sets one entry of the optimizer's own part to something else; "steps!" takes it away."""

    def damage(state: Any) -> None:
        *way, last = path.split("/")
        at = state["hypergradient"]
        for key in way:
            at = at[key]
        if value is KeyError:
            del at[last]
        else:
            at[last] = value

    return damage


WHAT = "'hypergradient' of state_dict"


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda s: s.pop("hypergradient"), ValueError, f"{WHAT} must be a dict with the keys 'steps', .* got None"),
        (
            damaged("steps", KeyError),
            ValueError,
            f"{WHAT} must be a dict with the keys 'steps', 'rates', .* got 'rates'",
        ),
        (damaged("steps", 1.5), ValueError, f"'steps' in {WHAT} must be a whole number, got 1.5"),
        (damaged("steps", -1), ValueError, f"'steps' in {WHAT} must be 0 or more, and finite, got -1"),
        (damaged("steps", "many"), TypeError, f"'steps' in {WHAT} must be a real number, got 'many'"),
        (damaged("shares", [1.0, 2.0]), ValueError, "must have 1 numbers, one for each group, got 1 and 2"),
        (damaged("rates", 0.1), TypeError, f"'rates' in {WHAT} must be a list of numbers, got float"),
        (damaged("memory", [0.0]), ValueError, f"'memory' in {WHAT} must be a dict with the keys 'lr_squares'"),
        (damaged("memory/lr_squares", KeyError), ValueError, f"'memory' in {WHAT} must be a dict with the keys"),
        (damaged("memory/lr_squares", -1.0), ValueError, f"'memory' in {WHAT} must be 0 or more"),
        (damaged("memory/energy", float("nan")), ValueError, f"'memory' in {WHAT} must be 0 or more, and finite"),
        (damaged("histories/lr", 3.0), TypeError, f"'lr' of 'histories' in {WHAT} must be a list of numbers"),
        (damaged("histories/lr", [0.1, None]), TypeError, f"'lr' of 'histories' in {WHAT} must be a real number"),
        (damaged("histories/more", []), ValueError, f"'histories' in {WHAT} must be a dict with the keys 'lr', "),
        (damaged("rule", "corrected"), ValueError, f"{WHAT} is of rule 'corrected', expected 'doc'"),
        (lambda s: s["state"][0].pop("mean_grad"), ValueError, "no 'mean_grad' for parameter 0, which has had 3 steps"),
        (lambda s: s["state"][0].update(product=float("inf")), ValueError, "'product' of parameter 0 in state_dict"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    damage: Callable[[Any], None], error: type[Exception], message: str
) -> None:
    quadratic = Quadratic([5], np.float64)
    ps = quadratic.parameters()
    optimizer = AutoHypergradientAdamW(ps, track_surprise=True, warmup_steps=1, device="numpy")
    for _ in range(3):
        optimizer.step(gradients=quadratic.gradients(ps))
    before = optimizer.state_dict()
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 0.25
    damage(saved)
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(saved)
    assert_same(optimizer.state_dict(), before)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (AdamW, HypergradientAdamW, "no 'direction' for parameter 0, which has had 2 steps"),
        (HypergradientAdamW, AutoHypergradientAdamW, f"{WHAT} must be a dict with the keys"),
        (AutoHypergradientAdamW, HypergradientAdamW, f"{WHAT} must be a dict with the keys"),
    ],
)
def test_state_of_another_class_is_refused(source: Any, target: Any, message: str) -> None:
    optimizer, other = source([np.ones(3)], device="numpy"), target([np.ones(3)], device="numpy")
    for _ in range(2):
        optimizer.step(gradients=[np.ones(3)])
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(optimizer.state_dict())


def test_state_of_another_rule_is_refused() -> None:
    doc, corrected = (AutoHypergradientAdamW([np.ones(3)], rule=r, device="numpy") for r in ("doc", "corrected"))
    with pytest.raises(ValueError, match=re.escape(f"{WHAT} is of rule 'doc', expected 'corrected'")):
        corrected.load_state_dict(doc.state_dict())


# Groups, and rates that others write.


@everything
def test_groups_keep_the_ratio_of_their_rates(variant: Variant, device: str) -> None:
    quadratic = Quadratic([40, 30, 20], np.float32)
    ps = quadratic.parameters()
    lr = variant.options.get("lr", 0.001)
    groups = [{"params": [p], "lr": lr * r} for p, r in zip(ps, (1, 10, 0.125), strict=True)]
    optimizer = variant.make(groups, **variant.options, device=device)
    for _ in range(12):
        optimizer.step(gradients=quadratic.gradients(ps))
    first, second, third = (g["lr"] for g in optimizer.param_groups)
    assert first == optimizer.current_lr == optimizer.lr_history[-1] != lr
    assert second == pytest.approx(10 * first, rel=1e-15)
    assert third == 0.125 * first


def test_the_limits_are_the_first_groups(device: str) -> None:
    a, b = np.zeros(3), np.zeros(3)
    groups = [{"params": [a], "lr": 0.5}, {"params": [b], "lr": 2.0}]
    optimizer = HypergradientAdamW(groups, beta_hyper=100.0, lr_max=1.0, device=device)
    for _ in range(3):
        optimizer.step(gradients=[np.ones(3), np.ones(3)])
    assert [g["lr"] for g in optimizer.param_groups] == [1.0, 4.0]


def moved(optimizer: Any, ps: list[Array], gradients: list[Any]) -> list[bool]:
    before = [p.copy() for p in ps]
    optimizer.step(gradients=gradients)
    return [bool((p != b).any()) for p, b in zip(ps, before, strict=True)]


@everything
def test_a_group_at_0_stays_there_until_something_else_is_written(variant: Variant, device: str) -> None:
    quadratic = Quadratic([40, 30], np.float32)
    ps = quadratic.parameters()
    optimizer = variant.make([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.0}], **variant.options, device=device)
    for _ in range(4):
        assert moved(optimizer, ps, quadratic.gradients(ps)) == [True, False]
        assert optimizer.param_groups[1]["lr"] == 0.0
    # Now the other way around: the second group is the one that is adapted.
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.0, 0.25
    count = len(optimizer.lr_history)
    for _ in range(3):
        assert moved(optimizer, ps, quadratic.gradients(ps)) == [False, True]
        assert optimizer.current_lr == 0.0
    assert optimizer.lr_history[count:] == [0.0] * 3
    assert optimizer.param_groups[1]["lr"] not in (0.0, 0.25)
    # All of them: nothing to adapt.
    optimizer.param_groups[1]["lr"] = 0.0
    for _ in range(3):
        assert moved(optimizer, ps, quadratic.gradients(ps)) == [False, False]
    assert len(optimizer.lr_history) == count + 3
    # And back.
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.01, 0.02
    for _ in range(3):
        assert moved(optimizer, ps, quadratic.gradients(ps)) == [True, True]
    assert optimizer.param_groups[1]["lr"] == pytest.approx(2 * optimizer.current_lr, rel=1e-15)
    assert len(optimizer.lr_history) == count + 6


def test_a_rate_that_adaptation_took_to_0_can_be_written(device: str) -> None:
    p, q = np.zeros(3), np.zeros(3)
    groups = [{"params": [p], "lr": 0.1}, {"params": [q], "lr": 0.2}]
    optimizer = HypergradientAdamW(groups, beta_hyper=10.0, lr_min=0.0, device=device)
    for sign in (1, -1, 1):
        optimizer.step(gradients=[sign * np.ones(3)] * 2)
    assert [g["lr"] for g in optimizer.param_groups] == [0.0, 0.0]
    assert optimizer.lr_history == [0.1, 0.0]
    optimizer.param_groups[0]["lr"] = 0.3
    optimizer.step(gradients=[np.zeros(3)] * 2)
    assert [g["lr"] for g in optimizer.param_groups] == [0.3, 0.0]
    optimizer.add_param_group({"params": [np.zeros(2)], "lr": 0.6})
    optimizer.step(gradients=[np.zeros(3), np.zeros(3), np.zeros(2)])
    assert [g["lr"] for g in optimizer.param_groups] == [0.3, 0.0, 0.6]


@everything
def test_a_written_rate_is_where_the_next_step_begins(variant: Variant, device: str) -> None:
    """As if the optimizer had had that rate all along: only its rate differs."""
    quadratic = Quadratic([40, 30], np.float64)
    ps = quadratic.parameters()
    optimizer = variant.make([{"params": ps[:1]}, {"params": ps[1:]}], **variant.options, device=device)
    for _ in range(5):
        optimizer.step(gradients=quadratic.gradients(ps))
    state, gradients, start = optimizer.state_dict(), quadratic.gradients(ps), [p.copy() for p in ps]

    def after(first: float, second: float) -> tuple[list[Array], list[float]]:
        qs = [p.copy() for p in start]
        other = variant.make([{"params": qs[:1]}, {"params": qs[1:]}], **variant.options, device=device)
        other.load_state_dict(state)
        other.param_groups[0]["lr"], other.param_groups[1]["lr"] = first, second
        other.step(gradients=gradients)
        return qs, [g["lr"] for g in other.param_groups]

    qs, (first, second) = after(0.02, 0.05)
    assert second == pytest.approx(2.5 * first, rel=1e-15)
    reference = variant.reference(start, **{**variant.options, "lr": 0.02}, ratios=[1, 2.5])
    for x, saved in zip(reference.parameters, state["state"].values(), strict=True):
        x.m, x.v, x.t, x.d = saved["exp_avg"], saved["exp_avg_sq"], saved["step"], saved["direction"]
        x.J, x.E = saved.get("direction_by_beta1"), saved.get("mean_grad")
        x.product = saved["product"]
    own = state["hypergradient"]
    memory = own["memory"]
    reference.steps, reference.G_lr, reference.G_beta = (
        own["steps"],
        memory.get("lr_squares"),
        memory.get("beta_squares"),
    )
    reference.gg_before, reference.V, reference.S_bar = memory.get("last_gg"), memory.get("energy"), memory.get("s_bar")
    reference.beta1 = optimizer.param_groups[0]["betas"][0]
    reference.step(gradients)
    assert first == pytest.approx(reference.lr, rel=1e-11)
    for q, x in zip(qs, reference.parameters, strict=True):
        np.testing.assert_allclose(q, x.p, rtol=1e-11)


def test_a_schedule_writes_and_the_optimizer_adapts(device: str) -> None:
    quadratic = Quadratic([40, 30], np.float64)
    ps = quadratic.parameters()
    groups = [{"params": ps[:1]}, {"params": ps[1:], "lr": 0.02}]
    optimizer = HypergradientAdamW(groups, lr=0.01, beta_hyper=1e-4, device=device)
    schedule = ExponentialLR(optimizer, gamma=0.5)
    for _ in range(6):
        before = optimizer.current_lr
        optimizer.step(gradients=quadratic.gradients(ps))
        assert optimizer.lr_history[-1] == optimizer.current_lr
        adapted = optimizer.current_lr
        assert adapted == pytest.approx(before, abs=0.02)
        schedule.step()
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5 * adapted, adapted], rel=1e-14)
    assert len(set(optimizer.lr_history)) == 6


def test_without_adaptation_a_schedule_alone_decides(device: str) -> None:
    """And the steps are AdamW's, but for rounding."""
    p = draw(50, np.float64)
    q = p.copy()
    optimizer, plain = HypergradientAdamW([p], lr=0.1, beta_hyper=0.0, device=device), AdamW([q], lr=0.1, device=device)
    schedules = [ExponentialLR(o, gamma=0.7) for o in (optimizer, plain)]
    for _ in range(5):
        g = draw(50, np.float64)
        for o, schedule in zip((optimizer, plain), schedules, strict=True):
            o.step(gradients=[g])
            schedule.step()
        assert optimizer.current_lr == plain.param_groups[0]["lr"]
    np.testing.assert_allclose(p, q, rtol=1e-14, atol=1e-15)


def test_betas_may_be_written_too(device: str) -> None:
    quadratic = Quadratic([40, 30], np.float64)
    ps = quadratic.parameters()
    groups = [{"params": ps[:1]}, {"params": ps[1:], "betas": (0.7, 0.99)}]
    optimizer = AutoHypergradientAdamW(
        groups, rule="corrected", adapt_momentum=True, warmup_steps=0, hyper_lr_beta=0.001, device=device
    )
    for _ in range(3):
        optimizer.step(gradients=quadratic.gradients(ps))
    sunk = 0.9 - optimizer.param_groups[0]["betas"][0]
    assert sunk != 0
    assert optimizer.param_groups[1]["betas"] == (pytest.approx(0.7 - sunk, abs=1e-15), 0.99)
    optimizer.param_groups[0]["betas"] = (0.6, 0.999)
    optimizer.step(gradients=quadratic.gradients(ps))
    assert optimizer.beta1_history[-1] == optimizer.param_groups[0]["betas"][0] == pytest.approx(0.6, abs=0.002)


@variants
def test_a_group_may_come_in_mid_run(variant: Variant, device: str) -> None:
    def run(where: str) -> tuple[list[Array], Any]:
        quadratic = Quadratic([600, 90], [np.float32, np.float64])
        ps = quadratic.parameters()
        optimizer = variant.make(ps[:1], **variant.options, device=where)
        for _ in range(4):
            optimizer.step(gradients=quadratic.gradients(ps)[:1])
        optimizer.add_param_group({"params": {"late": ps[1]}, "lr": 2 * optimizer.current_lr})
        for _ in range(4):
            optimizer.step(gradients=quadratic.gradients(ps))
        assert optimizer.param_groups[1]["lr"] == pytest.approx(2 * optimizer.current_lr, rel=1e-15)
        return ps, optimizer.state_dict()

    (ps, state), (expected, expected_state) = run(device), run("numpy")
    for p, e in zip(ps, expected, strict=True):
        assert_bits(p, e)
    assert_same(state, expected_state)
    assert [s["step"] for s in state["state"].values()] == [8, 4]
    assert len(state["hypergradient"]["histories"]["lr"]) >= 7
