"""Penalties and path integrals that an optimizer's kernel carries: the same as doing it by hand, to the last bit."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.continual import EWC, SynapticIntelligence
from grilly_optim.optim import AdamW, AutoHypergradientAdamW, clip_grad_norm, clip_grad_value
from tests.hyper_table import assert_same
from tests.table import Array, assert_bits, draw, layouts


class Penalty:
    """The least that can be attached."""

    _integrates = False

    def __init__(self, weights: list[Array] | None = None, anchors: list[Array] | None = None) -> None:
        self.quadratic = None if weights is None or anchors is None else (weights, anchors)
        self._version = 0
        self.parameters: list[Array] | None = None
        self.source: Any = None

    def _quadratic(self) -> Any:
        return self.quadratic

    def _attach(self, parameters: list[Array], source: Any) -> None:
        if self.quadratic is not None and [p.shape for p in parameters] != [w.shape for w in self.quadratic[0]]:
            raise ValueError("other shapes")
        self.parameters, self.source = parameters, source

    def _detach(self) -> None:
        self.parameters = self.source = None

    @classmethod
    def like(cls, ps: list[Array], rng: Any) -> Any:
        weights = [np.asarray(rng.random(p.shape), p.dtype) for p in ps]
        return cls(weights, [draw(p.shape, p.dtype, rng) for p in ps])

    def gradient(self, i: int, p: Array, strength: float) -> Array:
        weights, anchors = self.quadratic or ([], [])
        return np.asarray(p.dtype.type(strength) * (weights[i] * (p - anchors[i])))


class Path(Penalty):
    """One that also wants the path integral."""

    _integrates = True


def arrays_of_all_layouts(rng: Any) -> list[Array]:
    """Both precisions; 0-d, strided, reversed, empty, unaligned and so on, and one for several threads."""
    found = [make() for dtype in (np.float32, np.float64) for _, make in layouts(dtype)]
    for p in found:
        p[...] = draw(p.shape, p.dtype, rng)
    return [*found, draw(70_001, rng=rng)]


def plain(ps: list[Array]) -> list[Array]:
    return [np.array(p, order="C") for p in ps]


MAKES: dict[str, Any] = {
    "AdamW": lambda ps, device: AdamW(ps, lr=0.1, device=device),
    "two passes": lambda ps, device: AutoHypergradientAdamW(
        ps, lr=0.1, rule="corrected", adapt_momentum=True, track_surprise=True, warmup_steps=1, device=device
    ),
}
makes = pytest.mark.parametrize("make", MAKES.values(), ids=list(MAKES))


@makes
@pytest.mark.parametrize("clip_value", [None, 0.5])
def test_a_penalty_is_its_gradient_added_by_hand(make: Any, clip_value: float | None, device: str) -> None:
    rng = np.random.default_rng(0)
    ps = arrays_of_all_layouts(rng)
    qs = plain(ps)
    penalty = Penalty.like(ps, rng)
    optimizer, by_hand = make(ps, device), make(qs, "numpy")
    optimizer.attach(penalty, strength=0.3)
    for step in range(4):
        gradients = [draw(p.shape, p.dtype, rng) for p in ps]
        given: list[Any] = [None if step == 2 and i % 2 else g for i, g in enumerate(gradients)]
        kept = copy.deepcopy(given)
        optimizer.step(gradients=given, clip_value=clip_value)
        assert_same(given, kept)
        if clip_value is not None:
            clip_grad_value([g for g in given if g is not None], clip_value)
        sums = [
            None if g is None else g + penalty.gradient(i, q, 0.3)
            for i, (q, g) in enumerate(zip(qs, given, strict=True))
        ]
        by_hand.step(gradients=sums)
        for i, (p, q) in enumerate(zip(ps, qs, strict=True)):
            assert_bits(np.array(p), q, f"step {step}, parameter {i}")
    assert_same(optimizer.state_dict(), by_hand.state_dict())


@makes
@pytest.mark.parametrize("clip", [{}, {"clip_value": 0.5}, {"max_norm": 0.1}], ids=str)
def test_a_path_integral_is_the_sum_of_changes_times_gradients(make: Any, clip: Any, device: str) -> None:
    """The gradients are those given: not clipped, and without the penalty that is attached beside it."""
    rng = np.random.default_rng(1)
    ps = arrays_of_all_layouts(rng)
    penalty, path = Penalty.like(ps, rng), Path()
    optimizer = make(ps, device)
    optimizer.attach(path)
    optimizer.attach(penalty, strength=0.3)
    for count in (3, 2):
        sums = [np.zeros(p.shape, p.dtype) for p in ps]
        for step in range(count):
            gradients: list[Any] = [draw(p.shape, p.dtype, rng) for p in ps]
            if step == 1:
                gradients[::2] = [None] * len(gradients[::2])
            before = plain(ps)
            optimizer.step(gradients=gradients, **clip)
            for i, (p, b, g) in enumerate(zip(ps, before, gradients, strict=True)):
                if g is not None:
                    sums[i] = np.asarray(sums[i] - (np.array(p) - b) * g)
        for i, (found, expected) in enumerate(zip(path.source.take(), sums, strict=True)):
            assert_bits(found, expected, f"parameter {i}")
    assert not any(t.any() for t in path.source.take())


def test_a_gradient_in_the_parameters_own_memory_counts_as_it_was(device: str) -> None:
    def run(alias: bool) -> tuple[Array, Array]:
        p, path = draw(40_000, rng=np.random.default_rng(2)), Path()
        optimizer = AdamW([p], lr=0.1, device=device)
        optimizer.attach(path)
        for _ in range(3):
            optimizer.step(gradients=[p if alias else p.copy()])
        return p, path.source.take()[0]

    for actual, expected in zip(run(True), run(False), strict=True):
        assert_bits(actual, expected)
        assert expected.any()


def test_a_step_with_everything_attached_is_one_kernel_run(device: str) -> None:
    p = draw(5000)
    optimizer = AdamW([p], device=device)
    optimizer.attach(Penalty.like([p], np.random.default_rng(3)))
    optimizer.attach(Path())
    optimizer.step(gradients=[draw(5000)])
    before = grilly_optim.counters(device)
    optimizer.step(gradients=[draw(5000)], clip_value=0.1)
    after = grilly_optim.counters(device)
    assert after["dispatches"] - before["dispatches"] == 1
    assert after["submits"] - before["submits"] == (1 if device.startswith("vulkan") else 0)


def test_a_part_of_the_parameters_in_the_methods_order(device: str) -> None:
    rng = np.random.default_rng(4)
    ps = [draw(300, rng=rng), draw(200, np.float64, rng)[::2], draw(50, rng=rng)]
    qs = plain(ps)
    path = Path.like([ps[2], ps[1]], rng)
    optimizer, by_hand = AdamW(ps, lr=0.1, device=device), AdamW(qs, lr=0.1, device="numpy")
    optimizer.attach(path, strength=0.5, params=(ps[k] for k in (2, 1)))
    assert [a is b for a, b in zip(path.parameters or [], (ps[2], ps[1]), strict=True)] == [True, True]
    for _ in range(3):
        gradients = [draw(p.shape, p.dtype, rng) for p in ps]
        before = plain(ps)
        optimizer.step(gradients=gradients)
        sums = [
            gradients[0],
            gradients[1] + path.gradient(1, qs[1], 0.5),
            gradients[2] + path.gradient(0, qs[2], 0.5),
        ]
        by_hand.step(gradients=sums)
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)
    found = path.source.take()
    assert [f.shape for f in found] == [(50,), (100,)]
    last = -(np.array(ps[2]) - before[2]) * gradients[2]
    assert (
        np.abs(found[0] - last).max() < np.abs(found[0]).max() * 100
    )  # of the right parameter: the rest is tested above


def test_the_penalty_follows_its_method(device: str) -> None:
    """After its version has changed; None is no penalty, at first and later."""
    rng = np.random.default_rng(5)
    p = draw(100, rng=rng)
    q = p.copy()
    penalty = Penalty()
    optimizer, by_hand = AdamW([p], lr=0.1, device=device), AdamW([q], lr=0.1, device="numpy")
    optimizer.attach(penalty, strength=2.0)
    for quadratic in (None, "a", "b", None):
        penalty.quadratic = None if quadratic is None else Penalty.like([p], rng).quadratic
        penalty._version += 1
        for _ in range(2):
            g = draw(100, rng=rng)
            optimizer.step(gradients=[g])
            by_hand.step(gradients=[g if quadratic is None else g + penalty.gradient(0, q, 2.0)])
            assert_bits(p, q, str(quadratic))


# Strength, detaching.


def against_hand(optimizer: Any, by_hand: Any, ps: list[Array], qs: list[Array], parts: list[Any]) -> None:
    """One step of both; `parts` are the penalties that should be in effect, and their strengths."""
    gradients = [draw(p.shape, p.dtype) for p in ps]
    optimizer.step(gradients=gradients)
    for penalty, strength in parts:
        gradients = [g + penalty.gradient(i, q, strength) for i, (q, g) in enumerate(zip(qs, gradients, strict=True))]
    by_hand.step(gradients=gradients)
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)


def both(device: str) -> tuple[list[Array], list[Array], AdamW, AdamW]:
    ps = [draw(300), draw(100, np.float64)[::2]]
    qs = plain(ps)
    return ps, qs, AdamW(ps, lr=0.1, device=device), AdamW(qs, lr=0.1, device="numpy")


def test_attaching_again_is_a_new_strength(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty = Penalty.like(ps, np.random.default_rng(6))
    for strength in (None, 3.0, 0.0, 0.5, 0):
        optimizer.attach(penalty, strength=strength)
        expected = 1.0 if strength is None else strength
        for _ in range(2):
            against_hand(optimizer, by_hand, ps, qs, [(penalty, expected)] if expected else [])


def test_attaching_a_path_again_keeps_what_it_has_summed_up(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    path = Path.like(ps, np.random.default_rng(7))
    optimizer.attach(path, params=ps)
    against_hand(optimizer, by_hand, ps, qs, [])
    optimizer.attach(path, strength=0.7)
    assert all(t.any() for t in path.source.take())
    against_hand(optimizer, by_hand, ps, qs, [(path, 0.7)])
    optimizer.attach(path, params=ps)  # None: the path integral alone
    against_hand(optimizer, by_hand, ps, qs, [])
    assert all(t.any() for t in path.source.take())


def test_detaching_leaves_the_rest_as_it_is(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty, path = Penalty.like(ps, np.random.default_rng(8)), Path()
    optimizer.attach(penalty)
    optimizer.attach(path)
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])
    optimizer.detach(penalty)
    assert penalty.parameters is None
    against_hand(optimizer, by_hand, ps, qs, [])
    assert all(t.any() for t in path.source.take())
    optimizer.detach(path)
    assert path.source is None
    against_hand(optimizer, by_hand, ps, qs, [])
    for method in (penalty, path):
        with pytest.raises(ValueError, match=f"{type(method).__name__} is not attached to this optimizer"):
            optimizer.detach(method)


def test_two_that_need_the_same_place_are_refused(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    rng = np.random.default_rng(9)
    path, penalty = Path.like(ps, rng), Penalty.like(ps, rng)
    optimizer.attach(path)
    optimizer.attach(penalty, strength=2.0)
    refused: list[tuple[Any, Any, str]] = [
        (Penalty.like(ps, rng), None, "Penalty is attached already"),
        (Path(), None, "Path is attached already"),
        (Path.like(ps, rng), 1.0, "P[a-z]* is attached already"),
        (path, 1.0, "Penalty is attached already, and a step carries one penalty"),
    ]
    for method, strength, message in refused:
        with pytest.raises(ValueError, match=message):
            optimizer.attach(method, strength=strength)
        assert method is path or method.parameters is None
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 2.0)])
    assert all(t.any() for t in path.source.take())
    # One without weight leaves the place to another.
    optimizer.attach(penalty, strength=0.0)
    optimizer.attach(path, strength=1.5)
    against_hand(optimizer, by_hand, ps, qs, [(path, 1.5)])
    with pytest.raises(ValueError, match="Path is attached already"):
        optimizer.attach(penalty, strength=2.0)
    against_hand(optimizer, by_hand, ps, qs, [(path, 1.5)])


class Refusing(Path):
    def _attach(self, parameters: list[Array], source: Any) -> None:
        raise ValueError("not these parameters")


def test_a_method_that_refuses_leaves_nothing_behind(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty = Penalty.like(ps, np.random.default_rng(10))
    optimizer.attach(penalty)
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])
    gc.collect()
    before = grilly_optim.counters(device)["bytes_allocated"]
    with pytest.raises(ValueError, match="not these parameters"):
        optimizer.attach(Refusing())
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])
    gc.collect()
    assert grilly_optim.counters(device)["bytes_allocated"] == before
    path = Path()
    optimizer.attach(path)
    assert not any(t.any() for t in path.source.take())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda ps: {"method": object()}, TypeError, "method must be an EWC or a SynapticIntelligence .* got object"),
        (
            lambda ps: {"method": Penalty(), "strength": -1.0},
            ValueError,
            "strength must be 0 or more, and finite, got -1",
        ),
        (
            lambda ps: {"method": Penalty(), "strength": np.nan},
            ValueError,
            "strength must be 0 or more, and finite, got nan",
        ),
        (lambda ps: {"method": Penalty(), "strength": "much"}, TypeError, "strength must be a real number, got 'much'"),
        (
            lambda ps: {"method": Penalty(), "params": [ps[0], ps[0][:]]},
            ValueError,
            "params has something at 1 that is no",
        ),
        (lambda ps: {"method": Penalty(), "params": [ps[1], ps[1]]}, ValueError, "params has an array more than once"),
        (
            lambda ps: {"method": Penalty(), "params": ps[0]},
            ValueError,
            "params has something at 0 that is no",
        ),
        (lambda ps: {"method": Penalty(), "params": []}, ValueError, "params is empty"),
        (lambda ps: {"method": Penalty(), "params": 3}, TypeError, "params must be a sequence of arrays, got int"),
    ],
)
def test_bad_arguments_get_one_error_and_change_nothing(arguments: Any, error: type[Exception], message: str) -> None:
    ps, qs, optimizer, by_hand = both("numpy")
    given = arguments(ps)
    with pytest.raises(error, match=message):
        optimizer.attach(**given)
    with pytest.raises(ValueError, match="is not attached"):
        optimizer.detach(given["method"])
    against_hand(optimizer, by_hand, ps, qs, [])


def test_the_parameters_of_an_attached_method_stay_the_same() -> None:
    ps, qs, optimizer, by_hand = both("numpy")
    path = Path()
    optimizer.attach(path, params=ps[:1])
    with pytest.raises(ValueError, match="Path is attached to other params: detach it first"):
        optimizer.attach(path, params=ps)
    optimizer.attach(path)  # the same as before
    against_hand(optimizer, by_hand, ps, qs, [])
    assert [t.shape for t in path.source.take()] == [(300,)]
    penalty = Penalty.like(ps[1:], np.random.default_rng(17))
    optimizer.attach(penalty, params=ps[1:])
    optimizer.attach(penalty, strength=4.0)
    gradients = [draw(p.shape, p.dtype) for p in ps]
    optimizer.step(gradients=gradients)
    by_hand.step(gradients=[gradients[0], gradients[1] + penalty.gradient(0, qs[1], 4.0)])
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)


def test_what_cannot_be_freed_is_detached_all_the_same(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ps, qs, optimizer, by_hand = both(device)
    penalty = Penalty.like(ps, np.random.default_rng(18))
    optimizer.attach(penalty)
    against_hand(optimizer, by_hand, ps, qs, [(penalty, 1.0)])

    def refuse(*_: Any) -> None:
        raise grilly_optim.OutOfDeviceMemory("no room")

    monkeypatch.setattr(optimizer, "_rebuild", refuse)
    with pytest.raises(grilly_optim.OutOfDeviceMemory, match="no room"):
        optimizer.detach(penalty)
    against_hand(optimizer, by_hand, ps, qs, [])


# New plans, copies, peek, state.


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


# The methods themselves.


def test_ewc_attached_is_its_gradient_by_hand(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    ewc = EWC()
    optimizer.attach(ewc, strength=3.0)
    for _ in range(3):
        for _ in range(2):
            gradients = [draw(p.shape, p.dtype) for p in ps]
            penalty = ewc.grad(qs)
            optimizer.step(gradients=gradients)
            by_hand.step(gradients=[g + q.dtype.type(3) * h for q, g, h in zip(qs, gradients, penalty, strict=True)])
            for p, q in zip(ps, qs, strict=True):
                assert_bits(np.array(p), q)
        ewc.consolidate(ps, [np.abs(draw(p.shape, p.dtype)) for p in ps])


def test_synaptic_intelligence_attached_is_its_two_calls_by_hand(device: str) -> None:
    ps, qs, optimizer, by_hand = both(device)
    si, hand = SynapticIntelligence(), SynapticIntelligence()
    optimizer.attach(si, strength=0.5)
    for task in range(3):
        for _ in range(3):
            gradients = [draw(p.shape, p.dtype) for p in ps]
            penalty = hand.grad(qs)
            optimizer.step(gradients=gradients)
            hand.pre_step(qs)
            by_hand.step(gradients=[g + q.dtype.type(0.5) * h for q, g, h in zip(qs, gradients, penalty, strict=True)])
            hand.post_step(qs, gradients)
            for p, q in zip(ps, qs, strict=True):
                assert_bits(np.array(p), q)
        if task == 1:
            optimizer.detach(si)
            optimizer.attach(si, strength=0.5)
        si.consolidate(ps)
        hand.consolidate(qs)
        for name in ("anchors", "weights"):
            assert_same(si.state_dict()[name], hand.state_dict()[name])


# Clipping in the step.


def clipped_by_hand(gradients: list[Any], **clip: Any) -> list[Any]:
    copies = [None if g is None else g.copy() for g in gradients]
    if "clip_value" in clip:
        clip_grad_value([c for c in copies if c is not None], clip["clip_value"])
    else:
        clip_grad_norm([c for c in copies if c is not None], clip["max_norm"])
    return copies


@makes
@pytest.mark.parametrize("limit", [0.0, 0.25, np.inf])
def test_clip_value_is_clip_grad_value_to_the_last_bit(make: Any, limit: float, device: str) -> None:
    rng = np.random.default_rng(14)
    ps = arrays_of_all_layouts(rng)
    qs = plain(ps)
    optimizer, by_hand = make(ps, device), make(qs, "numpy")
    for step in range(3):
        gradients: list[Any] = [draw(p.shape, p.dtype, rng) for p in ps]
        gradients[step] = None
        optimizer.step(gradients=gradients, clip_value=limit)
        by_hand.step(gradients=clipped_by_hand(gradients, clip_value=limit))
    for p, q in zip(ps, qs, strict=True):
        assert_bits(np.array(p), q)
    assert_same(optimizer.state_dict(), by_hand.state_dict())


@pytest.mark.parametrize("limit", [0.0, 1e-3, 1.0, 1e7, np.inf])
def test_max_norm_is_clip_grad_norm_but_for_the_last_digits(limit: float, device: str) -> None:
    """The first moment shows what the kernel took for the gradient."""
    rng = np.random.default_rng(15)
    ps = arrays_of_all_layouts(rng)
    qs = plain(ps)
    optimizer, by_hand = AdamW(ps, device=device), AdamW(qs, device="numpy")
    gradients: list[Any] = [draw(p.shape, p.dtype, rng) for p in ps]
    gradients[3] = None
    kept = copy.deepcopy(gradients)
    optimizer.step(gradients=gradients, max_norm=limit)
    assert_same(gradients, kept)
    by_hand.step(gradients=clipped_by_hand(gradients, max_norm=limit))
    ours, theirs = (o.state_dict()["state"].values() for o in (optimizer, by_hand))
    for own, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own["exp_avg"], expected["exp_avg"], rtol=1e-6, atol=0)
    if limit >= 1e7:
        assert_same(optimizer.state_dict(), by_hand.state_dict())


def test_a_norm_of_doubles_has_their_digits(device: str) -> None:
    rng = np.random.default_rng(16)
    p, q = rng.standard_normal(9000), rng.standard_normal(9000)
    optimizer, by_hand = AdamW([p], device=device), AdamW([q], device="numpy")
    g = rng.standard_normal(9000)
    optimizer.step(gradients=[g], max_norm=0.5)
    by_hand.step(gradients=clipped_by_hand([g], max_norm=0.5))
    own, expected = (o.state_dict()["state"][0]["exp_avg"] for o in (optimizer, by_hand))
    np.testing.assert_allclose(own, expected, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite_are_clipped_as_by_hand(value: float, device: str) -> None:
    """A NaN makes all of them NaN; infinity makes itself NaN, and the others 0."""
    for clip in ({"max_norm": 1.0}, {"max_norm": np.inf}, {"clip_value": 0.5}):
        ps = [np.ones(40, np.float32), np.ones(7)]
        qs = [p.copy() for p in ps]
        gradients = [draw(40), draw(7, np.float64)]
        gradients[1][3] = value
        AdamW(ps, device=device).step(gradients=gradients, **clip)
        AdamW(qs, device="numpy").step(gradients=clipped_by_hand(gradients, **clip))
        for p, q in zip(ps, qs, strict=True):
            assert_bits(p, q, str(clip))
        if "max_norm" in clip:
            assert np.isnan(ps[1][3])
            assert np.isnan(ps[0]).all() == (np.isnan(value) or clip["max_norm"] == np.inf)


def test_a_norm_whose_square_is_beyond_float32_is_finite(device: str) -> None:
    p = np.ones(40, np.float32)
    g = draw(40) * np.float32(1e25)
    optimizer = AdamW([p], device=device)
    optimizer.step(gradients=[g], max_norm=1.0)
    expected = 0.1 * clipped_by_hand([g], max_norm=1.0)[0]
    np.testing.assert_allclose(optimizer.state_dict()["state"][0]["exp_avg"], expected, rtol=1e-6)


def test_gradients_come_in_every_form_and_are_only_read(device: str) -> None:
    a, b = draw(30), draw((4, 5), np.float64)
    ga, gb = draw(30), draw((5, 4), np.float64).T
    for g in (ga, gb):
        g.setflags(write=False)
    for clip in ({"max_norm": 0.5}, {"clip_value": 0.1}):
        results = []
        for form in (lambda: [ga, gb], lambda: {"a": ga, "b": gb}, lambda: (ga.astype(np.float64), gb.tolist())):
            ps = [a.copy(), b.copy()]
            AdamW({"a": ps[0], "b": ps[1]}, device=device).step(gradients=form(), **clip)
            results.append(ps)
        parameters = [grilly_optim.Parameter(a), grilly_optim.Parameter(b)]
        for parameter, g in zip(parameters, (ga, gb), strict=True):
            parameter.grad = g
        AdamW(parameters, device=device).step(**clip)
        for others in (*results[1:], parameters):
            for x, y in zip(others, results[0], strict=True):
                assert_bits(np.asarray(x), y)


@pytest.mark.parametrize(
    ("clip", "error", "message"),
    [
        ({"max_norm": 1.0, "clip_value": 1.0}, ValueError, "max_norm and clip_value are both given"),
        ({"max_norm": -1.0}, ValueError, "max_norm must be 0 or more, got -1.0"),
        ({"max_norm": np.nan}, ValueError, "max_norm must be 0 or more, got nan"),
        ({"max_norm": "2"}, TypeError, "max_norm must be a real number, got '2'"),
        ({"clip_value": -0.5}, ValueError, "clip_value must be 0 or more, got -0.5"),
        ({"clip_value": np.nan}, ValueError, "clip_value must be 0 or more, got nan"),
        ({"clip_value": [1.0]}, TypeError, r"clip_value must be a real number, got \[1.0\]"),
    ],
)
def test_bad_limits_get_one_error_and_change_nothing(clip: Any, error: type[Exception], message: str) -> None:
    p = draw(20)
    before = p.copy()
    optimizer = AdamW([p], device="numpy")
    with pytest.raises(error, match=message):
        optimizer.step(gradients=[draw(20)], **clip)
    assert_bits(p, before)
    assert optimizer.state_dict()["state"][0]["step"] == 0
