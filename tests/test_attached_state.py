"""What is attached, and new groups, other rules, `peek`, state dicts and copies."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np

from grilly_optim.optim import AdamW
from tests.attached import Path, Penalty, against_hand, both
from tests.hyper_table import assert_same
from tests.table import assert_bits, draw, makes, plain


def test_a_new_group_and_another_rule_keep_the_integral_and_the_penalty(device: str) -> None:
    rng = np.random.default_rng(11)
    ps, qs, optimizer, by_hand = both(device)
    penalty, path = Penalty.like(ps, rng), Path()
    optimizer.attach(penalty, strength=0.5)
    optimizer.attach(path)
    sums = [np.zeros(p.shape, p.dtype) for p in ps]
    late, twin = draw(40), None
    for step in range(4):
        if step == 1:
            twin = late.copy()
            optimizer.add_param_group({"params": [late]})
            by_hand.add_param_group({"params": [twin]})
        if step == 2:  # amsgrad is another rule with another state
            for o in (optimizer, by_hand):
                saved = o.state_dict()
                for group in saved["param_groups"]:
                    group["amsgrad"] = True
                for own in saved["state"].values():
                    own["max_exp_avg_sq"] = own["exp_avg_sq"]
                o.load_state_dict(saved)
        gradients = [draw(p.shape, p.dtype, rng) for p in ps]
        extra = [] if step == 0 else [draw(40, rng=rng)]
        before = plain(ps)
        optimizer.step(gradients=gradients + extra)
        by_hand.step(gradients=[g + penalty.gradient(i, qs[i], 0.5) for i, g in enumerate(gradients)] + extra)
        for i, (p, q) in enumerate(zip([*ps, late], [*qs, late if twin is None else twin], strict=True)):
            assert_bits(np.array(p), q, f"step {step}, parameter {i}")
        sums = [np.asarray(s - (np.array(p) - b) * g) for s, p, b, g in zip(sums, ps, before, gradients, strict=True)]
    for found, expected in zip(path.source.take(), sums, strict=True):
        assert_bits(found, expected)


@makes
def test_peek_has_the_penalty_and_leaves_the_integral(make: Any, device: str) -> None:
    rng = np.random.default_rng(12)
    ps = [draw(700, rng=rng), draw((5, 6), np.float64, rng), draw(50, rng=rng)[::-1]]
    path = Path.like(ps, rng)
    optimizer = make(ps, device)
    optimizer.attach(path, strength=5.0)
    optimizer.step(gradients=[draw(p.shape, p.dtype, rng) for p in ps])
    path.quadratic = Path.like(ps, rng).quadratic  # also one that no step has seen yet
    path._version += 1
    before, gradients = plain(ps), [draw(p.shape, p.dtype, rng) for p in ps]
    deltas = optimizer.peek(gradients)
    assert_same(optimizer.peek(gradients), deltas)
    optimizer.step(gradients=gradients)
    for p, b, delta in zip(ps, before, deltas, strict=True):
        np.testing.assert_array_less(np.abs(p - (b + delta)), 2 * np.spacing(np.maximum(np.abs(p), np.abs(b))))
    last = [-(np.array(p) - b) * g for p, b, g in zip(ps, before, gradients, strict=True)]
    both_steps = path.source.take()
    optimizer.peek(gradients)
    assert not any(t.any() for t in path.source.take())
    assert not any(np.array_equal(t, x) for t, x in zip(both_steps, last, strict=True))


def test_what_is_attached_is_no_part_of_the_state(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    rng = np.random.default_rng(13)
    path = Path.like(ps, rng)
    against_hand(optimizer, by_hand, ps, qs, [])
    state = optimizer.state_dict()
    optimizer.attach(path, strength=1.0)
    assert_same(optimizer.state_dict(), state)
    for again in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert_same(again.state_dict(), state)
        mine = [p for g in again.param_groups for p in g["params"]]
        gradients = [draw(p.shape, p.dtype) for p in ps]
        again.step(gradients=gradients)
        reference = [p.copy() for p in qs]
        plainly = AdamW(reference, lr=0.1, device="numpy")
        plainly.load_state_dict(state)
        plainly.step(gradients=gradients)
        for a, b in zip(mine, reference, strict=True):
            assert_bits(np.array(a), b)
    # Loading leaves it where it is.
    against_hand(optimizer, by_hand, ps, qs, [(path, 1.0)])
    optimizer.load_state_dict(state)
    by_hand.load_state_dict(state)
    assert all(t.any() for t in path.source.take())
    against_hand(optimizer, by_hand, ps, qs, [(path, 1.0)])
