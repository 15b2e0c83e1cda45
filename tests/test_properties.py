"""Properties that hold for any input, found by search."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grilly_optim.optim import AdamW
from tests.table import BY_RULE, Row, assert_bits, train

# Function-scoped fixtures only pick the device here, so they may serve many examples.
search = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

options = st.fixed_dictionaries(
    {
        "lr": st.floats(0, 10),
        "betas": st.tuples(st.floats(0, 0.9999), st.floats(0, 0.9999)),
        "eps": st.floats(1e-8, 1),
        "weight_decay": st.floats(0, 1),
        "amsgrad": st.booleans(),
        "maximize": st.booleans(),
    }
)
shapes = st.lists(st.lists(st.integers(0, 40), max_size=3).map(tuple), min_size=1, max_size=6)


@search
@given(
    options=options,
    shapes=shapes,
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_every_device_gives_the_numpy_answer(
    device: str, options: dict[str, Any], shapes: list[tuple[int, ...]], dtype: Any, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    here = [np.asarray(rng.standard_normal(s), dtype) for s in shapes]
    there = [p.copy() for p in here]
    first, second = AdamW(here, **options, device=device), AdamW(there, **options, device="numpy")
    for _ in range(data.draw(st.integers(1, 4), label="steps")):
        on = data.draw(st.lists(st.booleans(), min_size=len(shapes), max_size=len(shapes)), label="active")
        scale = data.draw(st.sampled_from([1e-6, 1.0, 1e6]), label="scale")
        gradients = [
            np.asarray(rng.standard_normal(s) * scale, dtype) if a else None for s, a in zip(shapes, on, strict=True)
        ]
        first.step(gradients=list(gradients))
        second.step(gradients=list(gradients))
    for a, e in zip(here, there, strict=True):
        assert_bits(a, e)


@search
@given(
    row=st.sampled_from(list(BY_RULE.values())),
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
)
def test_how_an_array_is_cut_into_parameters_does_not_matter(device: str, row: Row, seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.standard_normal(3000).astype(np.float32)
    parts = whole.copy()
    g = rng.standard_normal(3000).astype(np.float32)
    edges = [0, *sorted(cuts), 3000]
    spans = [slice(a, b) for a, b in itertools.pairwise(edges)]
    train(row, [whole], [[g]] * 2, device)
    train(row, [parts[s] for s in spans], [[g[s] for s in spans]] * 2, device)
    assert_bits(parts, whole)
