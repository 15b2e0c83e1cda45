"""exp, log(1 + y) and softplus of potentials against wider numbers, and what NaN is to activations."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from check_vectorised import flags
from grilly_optim.energy.activations import ACTIVATIONS
from tests.table import Array, assert_bits

ROOT = Path(__file__).resolve().parent.parent
CHAINS = 16
WIDE = np.longdouble
# dtype -> where exp is 0 below, and infinite above.
ENDS = {np.float32: (-87.0, 88.72284), np.float64: (-708.0, 709.782712893384)}

pytestmark = pytest.mark.subprocess
Call = Callable[[str, Array], Array]


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Call:
    """The functions as they are compiled for an instruction set."""
    program = tmp_path_factory.mktemp("elementary") / "elementary"
    includes = [f"-I{ROOT / folder}" for folder in ("grilly_core/include", "grilly_core/src/cpu", "shaders")]
    command = ["g++", "-std=c++20", f"-DGRILLY_ISA={request.param}", *flags()[request.param], *includes]
    subprocess.run([*command, ROOT / "tests/elementary.cpp", "-o", program], check=True)

    def function(name: str, x: Array) -> Array:
        padded = np.resize(x, -(-len(x) // CHAINS) * CHAINS)
        made = subprocess.run([program, name, str(x.itemsize)], input=padded.tobytes(), capture_output=True, check=True)
        return np.frombuffer(made.stdout, x.dtype)[: len(x)]

    return function


def ulps(actual: Array, wanted: Array) -> float:
    """The largest error, in spacings of numbers around what is wanted."""
    spacing = np.spacing(np.abs(wanted.astype(actual.dtype)))
    return float((np.abs(actual.astype(WIDE) - wanted) / spacing.astype(WIDE)).max())


def numbers(dtype: Any) -> Array:
    """All over the range in which exp is a number, dense around 0, and where its reduction changes over."""
    rng, (low, high) = np.random.default_rng(0), ENDS[dtype]
    near = rng.choice([-1, 1], 20_000) * 10.0 ** rng.uniform(-30, 0, 20_000)
    over = (np.arange(int(low / np.log(2)) + 1, int(high / np.log(2))) + 0.5) * np.log(2.0)
    return np.concatenate([over, rng.uniform(low, high, 200_000), rng.uniform(-1, 1, 100_000), near]).astype(dtype)


EVERY_DTYPE = pytest.mark.parametrize("dtype", ENDS, ids=["float32", "float64"])


@EVERY_DTYPE
def test_exp_is_within_two_spacings(call: Call, dtype: Any) -> None:
    x = numbers(dtype)
    assert ulps(call("exponential", x), np.exp(x.astype(WIDE))) < 2


@EVERY_DTYPE
def test_log_one_plus_is_within_two_spacings(call: Call, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.uniform(0, 1, 200_000), 10.0 ** rng.uniform(-37, 0, 100_000), [0.0, 1.0]]).astype(dtype)
    assert ulps(call("log_one_plus", y), np.log1p(y.astype(WIDE))) < 2


@EVERY_DTYPE
def test_softplus_is_within_three_spacings(call: Call, dtype: Any) -> None:
    x = numbers(dtype)
    assert ulps(call("softplus", x), np.logaddexp(WIDE(0), x.astype(WIDE))) < 3


@EVERY_DTYPE
def test_exp_and_softplus_at_the_ends(call: Call, dtype: Any) -> None:
    low, high = (dtype(end) for end in ENDS[dtype])
    below, above = np.nextafter(low, dtype(-np.inf)), dtype(high + abs(high) / 1000)
    x = np.array([below, -1e30, -np.inf, above, 1e30, np.inf, np.nan, 0.0, -0.0], dtype)
    assert_bits(call("exponential", x), np.array([0, 0, 0, np.inf, np.inf, np.inf, np.nan, 1, 1], dtype))
    two = np.log(2.0)
    assert_bits(call("softplus", x), np.array([0, 0, 0, above, 1e30, np.inf, np.nan, two, two], dtype))
    # The last numbers within: exp is normal there, and finite.
    within = call("exponential", np.array([low, np.nextafter(high, dtype(0))], dtype))
    assert within[0] >= np.finfo(dtype).tiny
    assert np.isfinite(within[1])


@EVERY_DTYPE
@pytest.mark.parametrize("which", ["value", "slope"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_derivatives_keep_nan(name: str, which: str, call: Call, dtype: Any) -> None:
    """What the rule relax would hide: there NaN is in another term as well. Around 0 and 1 derivatives jump."""
    x = np.array([np.nan, -0.5, 0, 0.5, 1, 1.5], dtype)
    phi = ACTIVATIONS[name]
    wanted = (phi.function if which == "value" else phi.derivative)(x)
    assert np.isnan(wanted).tolist() == [True] + [False] * 5
    np.testing.assert_allclose(call(f"{name}_{which}", x), wanted, rtol=8 * np.finfo(dtype).eps)
