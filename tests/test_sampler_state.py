"""State dicts of samplers: a run that is broken off goes on to the last bit, on any device."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import itertools
import json
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.checkpoint import load_checkpoint, save_checkpoint
from grilly_optim.sampling import (
    SGHMC,
    SGLD,
    SGMCMC,
    SGNHT,
    CompositePrior,
    GaussianPrior,
    MaskPreconditioner,
    NHTPreconditioning,
)
from tests.hyper_table import assert_same
from tests.interrupts import Interrupting, interrupted
from tests.sampler_table import FACTORY, MASKS, SHAPES, SamplerRow, samplers
from tests.table import Array, assert_bits, draw


def gradients(rng: np.random.Generator, step: int) -> list[Any]:
    return [None if (k, step) == (1, 2) else draw(shape, rng=rng) for k, shape in enumerate(SHAPES)]


def walk(row: SamplerRow, device: str, resume: Any = None, steps: int = 6) -> list[Array]:
    """`resume(sampler, ws, make)` takes over after the fourth step and gives a sampler and its parameters."""
    rng = np.random.default_rng(1)
    ws = [draw(shape, rng=np.random.default_rng(k)) for k, shape in enumerate(SHAPES)]

    def make(ws: list[Array], **more: Any) -> Any:
        return row.make(ws, **row.options, device=device, **more)

    sampler = make(ws, seed=2**60 + 3)
    for step in range(steps):
        if resume is not None and step == 4:
            sampler, ws = resume(sampler, ws, make)
        sampler.step(gradients=gradients(rng, step))
    return ws


def reloaded(sampler: Any, ws: list[Array], make: Any) -> Any:
    """Into a sampler with another seed, built where the walk has got to: anchors come from the state."""
    ws = [w.copy() for w in ws]
    other = make(ws, seed=5)
    other.load_state_dict(sampler.state_dict())
    return other, ws


def pickled(sampler: Any, ws: list[Array], make: Any) -> Any:
    other = pickle.loads(pickle.dumps(sampler))
    return other, other.param_groups[0]["params"]


def copied(sampler: Any, ws: list[Array], make: Any) -> Any:
    other = copy.deepcopy(sampler)
    sampler.step(gradients=[draw(shape) for shape in SHAPES])
    return other, other.param_groups[0]["params"]


@samplers
@pytest.mark.parametrize("resume", [reloaded, pickled, copied], ids=lambda f: f.__name__)
def test_resume_is_exact(row: SamplerRow, resume: Any, device: str) -> None:
    for a, b in zip(walk(row, device, resume), walk(row, device), strict=True):
        assert_bits(a, b)


@samplers
def test_a_checkpoint_holds_it(row: SamplerRow, tmp_path: Path) -> None:
    def through_a_file(sampler: Any, ws: list[Array], make: Any) -> Any:
        ws = [w.copy() for w in ws]
        other = make(ws, seed=5)
        other.load_state_dict(load_checkpoint(save_checkpoint(sampler.state_dict(), str(tmp_path / row.name), 1.0)))
        return other, ws

    for a, b in zip(walk(row, "numpy", through_a_file), walk(row, "numpy"), strict=True):
        assert_bits(a, b)


def test_state_moves_between_devices(device: str) -> None:
    w = draw(700)
    sampler = SGMCMC.rmsprop_sgld([w], **FACTORY, localization=3.0, seed=4, device="numpy")
    sampler.step(gradients=[draw(700)])
    v = w.copy()
    other = SGMCMC.rmsprop_sgld([v], **FACTORY, localization=3.0, device=device)
    other.load_state_dict(sampler.state_dict())
    g = draw(700)
    sampler.step(gradients=[g])
    other.step(gradients=[g])
    assert_bits(v, w)


def test_chains_resume(device: str) -> None:
    start = draw((3, 40))

    def run(interrupt: bool) -> Array:
        w = start.copy()
        sampler = SGNHT([w], **FACTORY, seed=9, num_chains=3, device=device)
        for step in range(5):
            if interrupt and step == 3:
                w = w.copy()
                other = SGNHT([w], **FACTORY, num_chains=3, device=device)
                other.load_state_dict(sampler.state_dict())
                sampler = other
            sampler.step(gradients=[np.sin(w + step)])
        return w

    assert_bits(run(True), run(False))


MEASURED = [SamplerRow("sgld", SGLD, None, FACTORY), SamplerRow("sgnht", SGNHT, None, FACTORY)]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row.name)
def test_a_signal_while_a_step_is_settled_loses_nothing_of_it(row: SamplerRow) -> None:
    """At every line: thermostats and metrics are those of a step that was left alone."""
    start, gradients = draw((2, 30)), [draw((2, 30)) for _ in range(4)]

    def walk(line: int) -> tuple[bool, Any]:
        broken, w = False, start.copy()
        sampler = row.make([w], **row.options, save_metrics=True, num_chains=2, device="cpu")
        for step, g in enumerate(gradients):
            if step != 2:
                sampler.step(gradients=[g])
                continue
            places = ("_settle", "_follow", "take", "_as_option")
            broken = interrupted(partial(sampler.step, gradients=[g]), line, places)
            now = sampler.state_dict(), dataclasses.asdict(sampler.get_metrics())
        return broken, (*now, w, sampler.state_dict())

    _, expected = walk(0)
    for line in itertools.count(1):
        broken, found = walk(line)
        assert_same(found, expected, f"line {line}")
        if not broken:
            break
    assert line > 15


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row.name)
def test_a_signal_anywhere_leaves_the_sampler_usable(row: SamplerRow) -> None:
    """Real ones, at 400 instants of some steps and snapshots."""

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    w, interrupted = np.ones((2, 30), np.float32), 0
    sampler = row.make([w], **row.options, save_metrics=True, num_chains=2, device="cpu")
    gc.collect()
    gc.disable()  # an exception in a finalizer would go nowhere
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for k in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 1e-6 * k)
                for _ in range(100_000):
                    sampler.step(gradients=[np.ones((2, 30), np.float32)])
                    sampler.state_dict()
            except Stop:
                interrupted += 1
            assert not sampler._turns.busy
            sampler.step(gradients=[np.ones((2, 30), np.float32)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert interrupted == 400
    with ThreadPoolExecutor(1) as elsewhere:  # nobody holds the lock
        assert elsewhere.submit(sampler.state_dict).result(timeout=10)["state"][0]["step"] > 400


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row.name)
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_step_has_been_made_or_has_not(row: SamplerRow, after: bool, device: str) -> None:
    ws, vs = ([draw(30, rng=np.random.default_rng(1))] for _ in range(2))
    sampler, twin = (row.make(p, **row.options, save_metrics=True, device=device) for p in (ws, vs))
    for step in range(4):
        gradients = [draw(30)]
        if step == 2:
            # The run that the plans took from the device when they were made.
            whole = sampler._plans.run
            backend = Interrupting(sampler._plans._backend, after)
            sampler._plans.run = functools.partial(backend.run, sampler._plans._engine_plans)
            with pytest.raises(KeyboardInterrupt):
                sampler.step(gradients=gradients)
            sampler._plans.run = whole
        else:
            sampler.step(gradients=gradients)
        if step != 2 or after:
            twin.step(gradients=gradients)
        assert_bits(ws[0], vs[0])
        assert_same(sampler.state_dict(), twin.state_dict())


def test_names_in_the_state() -> None:
    w = draw(4)
    sampler = SGMCMC.rmsprop_sgld(
        {"w": w}, **FACTORY, localization=3.0, bounding_box_size=1.0, mask=[np.ones(4)], seed=7, device="numpy"
    )
    start = w.copy()
    sampler.step(gradients=[draw(4)])
    saved = sampler.state_dict()
    assert saved["seed"] == 7
    assert saved["state"][0]["step"] == 1
    assert set(saved["state"][0]) == {"step", "square_avg", "prior_center", "initial_param", "mask"}
    assert_bits(saved["state"][0]["prior_center"], start)
    assert_bits(saved["state"][0]["initial_param"], start)
    (group,) = saved["param_groups"]
    assert group["prior"] == [{"localization": 3.0, "center": "initial"}]
    assert group["preconditioner"] == {"rmsprop": (0.99, 0.1), "noise": 1.0}


def test_options_come_with_the_state(device: str) -> None:
    w = np.ones(3)
    saved = SGMCMC([w], lr=0.3, nbeta=7.0, prior=GaussianPrior(2.0, None), device=device).state_dict()
    sampler = SGMCMC([w], lr=0.1, noise_level=0.0, prior=GaussianPrior(4.0, None), device=device)
    sampler.load_state_dict(saved)
    assert sampler.param_groups[0]["lr"] == 0.3
    sampler.param_groups[0]["noise_level"] = 0.0
    sampler.step(gradients=[np.ones(3)])
    np.testing.assert_allclose(w, 1 - 0.15 * (7 + 2))


@pytest.mark.parametrize(
    ("make", "other", "message"),
    [
        ({"mask": MASKS}, {}, "'masked' of state_dict is"),
        ({"mask": MASKS}, {"mask": [np.ones(s) for s in SHAPES]}, "'mask' of parameter 0"),
        ({}, {"stream": 3}, "'stream' of state_dict is 0, and this sampler has 3"),
        ({"num_chains": None}, {"groups": 2}, "groups of"),
        ({"chains": 5}, {}, "'num_chains' of state_dict is 5, and this sampler has None"),
    ],
)
def test_state_of_another_sampler(make: Any, other: Any, message: str) -> None:
    def build(options: dict[str, Any]) -> Any:
        ws = [np.ones(s) for s in SHAPES]
        options = dict(options)
        if chains := options.pop("chains", None):
            ws = [np.ones((5, *s[1:])) for s in SHAPES[:1]] + [np.ones((5, 180)), np.ones((5, 1))]
            options["num_chains"] = chains
        params: Any = [{"params": ws[:1]}, {"params": ws[1:]}] if options.pop("groups", 1) == 2 else ws
        return SGMCMC.sgld(params, **FACTORY, **options, device="numpy")

    sampler = build(other)
    before = sampler.state_dict()
    with pytest.raises(ValueError, match=message):
        sampler.load_state_dict(build(make).state_dict())
    np.testing.assert_equal(sampler.state_dict(), before)


@samplers
def test_saved_states_are_plain(row: SamplerRow) -> None:
    """Through JSON, with functions among the options."""

    class Encoder(json.JSONEncoder):
        def default(self, o: Any) -> Any:
            return o.tolist() if isinstance(o, np.ndarray) else super().default(o)

    def through_json(sampler: Any, ws: list[Array], make: Any) -> Any:
        ws = [w.copy() for w in ws]
        other = make(ws, seed=5)
        other.load_state_dict(json.loads(json.dumps(sampler.state_dict(), cls=Encoder)))
        return other, ws

    for a, b in zip(walk(row, "numpy", through_json), walk(row, "numpy"), strict=True):
        assert_bits(a, b)


def test_functions_stay_where_they_are() -> None:
    w = np.ones(3)
    sampler = SGMCMC([w], lr=0.1, nbeta=lambda: 3.0, device="numpy")
    saved = sampler.state_dict()
    assert "nbeta" not in saved["param_groups"][0]
    sampler.load_state_dict(saved)
    sampler.step(gradients=[w])


def test_fractional_masks_are_multiplied_once(device: str) -> None:
    """Those of the sampler and of its preconditioner; copies, pickles and groups that are given again."""
    half, other = [np.full(3, 0.5)], [np.array([1.0, 0.25, 0.0])]

    def make(w: Any) -> Any:
        mask = MaskPreconditioner(half)
        return SGMCMC(w, lr=0.2, noise_level=0.0, preconditioner=mask, mask=other, device=device)

    w = np.ones(3)
    sampler = make([w])
    found = [sampler, copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))]
    found.append(SGMCMC(copy.deepcopy(sampler.param_groups), device=device))
    for one in found:
        one.step(gradients=[np.ones(3)])
        np.testing.assert_allclose(one.param_groups[0]["params"][0], 1 - 0.1 * 0.5 * other[0])


def test_priors_out_of_a_state_say_so(device: str) -> None:
    w = np.ones(3)
    saved = SGMCMC([w], **FACTORY, prior=[np.zeros(3)], device=device).state_dict()
    sampler = SGMCMC([w], **FACTORY, prior=3.0, device=device)
    sampler.load_state_dict(saved)
    assert "center='saved'" in repr(sampler)
    sampler.param_groups[0]["prior"] = 5.0
    with pytest.raises(ValueError, match="prior cannot be changed to one with another center"):
        sampler.step(gradients=[np.ones(3)])


def test_preconditioners_out_of_a_state_do_what_the_saved_ones_did(device: str) -> None:
    w, v = np.ones(3), np.ones(3)
    there = SGMCMC([w], **FACTORY, preconditioner=NHTPreconditioning(0.1), seed=3, device=device)
    here = SGMCMC([v], **FACTORY, device=device)
    here.load_state_dict(there.state_dict())
    for sampler, p in ((there, w), (here, v)):
        sampler.step(gradients=[p.copy()])
    assert_bits(v, w)


def test_going_back_counts_again(device: str) -> None:
    """A state of one step ago: thermostat and metrics of the next step are taken."""
    w = draw(40)
    sampler = SGNHT([w], **FACTORY, save_metrics=True, device=device)
    sampler.step(gradients=[draw(40)])
    saved, at, g = sampler.state_dict(), w.copy(), draw(40)
    sampler.step(gradients=[g])
    xi, norm = sampler.param_groups[0]["thermostat"], sampler.get_metrics().scaled_grad[0]
    sampler.load_state_dict(saved)
    w[:] = at
    sampler.step(gradients=[g])
    assert sampler.param_groups[0]["thermostat"] == xi
    assert sampler.get_metrics().scaled_grad[0] == norm


def test_what_a_state_leaves_out_begins_anew(device: str) -> None:
    """A parameter that never moved has the momentum that a new sampler draws, not none."""
    ws = [np.zeros(3), np.zeros(3)]
    sampler = SGHMC(ws, **FACTORY, seed=4, device=device)
    saved = sampler.state_dict()
    drawn = saved["state"][1].pop("momentum")
    sampler.load_state_dict(saved)
    assert_bits(sampler.state_dict()["state"][1]["momentum"], drawn)
    assert drawn.all()


@pytest.mark.cases("numpy")
def test_a_state_of_many_parameters_loads_in_one_go(device: str) -> None:
    """Two centers are averaged once per group, not once per parameter."""
    count = 0

    class Counting(GaussianPrior):
        def centers(self, params: Any, chains: bool = False) -> Any:
            nonlocal count
            count += 1
            return super().centers(params, chains)

    ws = [np.ones(2) for _ in range(30)]
    sampler = SGMCMC(ws, **FACTORY, prior=CompositePrior([Counting(1.0), Counting(2.0)]), device=device)
    saved, count = sampler.state_dict(), 0
    sampler.load_state_dict(saved)
    assert count <= 4


def test_an_optimizers_state_is_refused() -> None:
    from grilly_optim.optim import SGD

    sampler = SGLD([np.ones(2)], **FACTORY, device="numpy")
    with pytest.raises(ValueError, match="must have 'seed', as those of samplers do"):
        sampler.load_state_dict(SGD([np.ones(2)], lr=0.1, device="numpy").state_dict())


def test_a_localization_needs_its_anchor(device: str) -> None:
    """From a state without one, and in a group that had none in its first step."""
    w = np.ones(2)
    sampler = SGLD([w], **FACTORY, device=device)
    sampler.step(gradients=[np.ones(2)])
    other = SGLD([w.copy()], **FACTORY, localization=1.0, device=device)
    saved = sampler.state_dict()
    saved["param_groups"][0]["localization"] = 1.0
    with pytest.raises(ValueError, match="no 'prior_center' for parameter 0"):
        other.load_state_dict(saved)
    sampler.param_groups[0]["localization"] = 1.0
    before = w.copy()
    with pytest.raises(ValueError, match=r"localization of group 0 is 0\.0 and cannot be changed to 1\.0 after a step"):
        sampler.step(gradients=[np.ones(2)])
    assert_bits(w, before)
