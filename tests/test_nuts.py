"""The no-U-turn sampler as users have it: what it samples, what it reports, what it refuses."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import NUTS, ChainFailed, MultiChainHMC

VARIANTS = pytest.mark.parametrize("variant", ["multinomial", "slice"])
CORRELATED = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 100.0]])


def one(q: Any) -> tuple[float, Any]:
    return 0.5 * float(q @ q), q


class Rows:
    """A potential of batches."""

    vectorized = True

    def __init__(self, function: Any) -> None:
        self.value_and_grad = function


# What is sampled. 2,000 chains begin with exact draws, so they must be exact draws ever after, and independent ones.
# Steps are so long that without a correction the moments were off. Seeds were set down before the first look; each of
# the comparisons fails for a correct sampler with probability 6e-5 (4 standard errors).

CHAINS, SEED = 2000, 2026


def normal(scales: Any) -> tuple[Any, Any]:
    def start(rng: np.random.Generator) -> Any:
        return rng.normal(size=(CHAINS, len(scales))) * scales

    return start, lambda q: (0.5 * ((q / scales) ** 2).sum(axis=1), q / scales**2)


def correlated() -> tuple[Any, Any]:
    precision = np.linalg.inv(CORRELATED)

    def start(rng: np.random.Generator) -> Any:
        return rng.multivariate_normal(np.zeros(3), CORRELATED, CHAINS)

    return start, lambda q: (0.5 * np.einsum("ci,ij,cj->c", q, precision, q), q @ precision)


def banana() -> tuple[Any, Any]:
    def start(rng: np.random.Generator) -> Any:
        x = 1 + rng.normal(size=CHAINS)
        return np.stack([x, x**2 + math.sqrt(0.1) * rng.normal(size=CHAINS)], axis=1)

    def potential(q: Any) -> tuple[Any, Any]:
        x, y = q.T
        off = y - x**2
        return (1 - x) ** 2 / 2 + 5 * off**2, np.stack([x - 1 - 20 * x * off, 10 * off], axis=1)

    return start, potential


TEN = np.geomspace(1e-2, 1e2, 10)
# Name -> (law, options, mean, variance).
LAWS: dict[str, tuple[tuple[Any, Any], dict[str, Any], Any, Any]] = {
    "normal": (normal(np.ones(5)), {"stepsize": 1.1}, np.zeros(5), np.ones(5)),
    "cut off": (normal(np.ones(5)), {"stepsize": 0.5, "max_tree_depth": 2}, np.zeros(5), np.ones(5)),
    "ill-conditioned": (normal(TEN), {"stepsize": 0.8, "inv_mass": TEN**2}, np.zeros(10), TEN**2),
    "correlated": (correlated(), {"stepsize": 0.9, "inv_mass": CORRELATED}, np.zeros(3), np.diag(CORRELATED)),
    "banana": (banana(), {"stepsize": 0.25}, [1.0, 2.0], [1.0, 6.1]),
}


@VARIANTS
@pytest.mark.parametrize("law", LAWS)
def test_exact_draws_stay_exact_draws(law: str, variant: str) -> None:
    (start, potential), options, mean, variance = LAWS[law]
    first = start(np.random.default_rng(SEED))
    sampler = NUTS(first, Rows(potential), variant=variant, seed=SEED, device="cpu", **options)
    sampler.simulate_chain(4)
    draws = sampler.current_position
    assert np.mean(draws != first) > 0.75
    for k in range(draws.shape[1]):
        for values, expected in ((draws[:, k], mean[k]), ((draws[:, k] - mean[k]) ** 2, variance[k])):
            z = (values.mean() - expected) / (values.std() / math.sqrt(CHAINS))
            assert abs(z) < 4, (k, values.mean(), expected)
    if law == "correlated":
        products = draws[:, 0] * draws[:, 1]
        assert abs(products.mean() - 0.9) < 4 * products.std() / math.sqrt(CHAINS)


def funnel(q: Any) -> tuple[float, Any]:
    """V ~ N(0, 9), x_k ~ N(0, exp(v))."""
    v, x = q[0], q[1:]
    spread = math.exp(-v)
    inner = float(x @ x) * spread
    gradient = np.concatenate([[v / 9 + len(x) / 2 - inner / 2], x * spread])
    return v * v / 18 + len(x) * v / 2 + inner / 2, gradient


@VARIANTS
def test_the_centered_funnel_reports_divergences(variant: str) -> None:
    divergences = []
    for potential in (funnel, one):
        sampler = NUTS(np.zeros((20, 10)), potential, 0.7, variant=variant, seed=SEED, device="cpu")
        sampler.simulate_chain(50)
        assert np.isfinite(sampler.current_position).all()
        divergences.append(sampler.sample_stats["diverging"].sum())
    assert divergences[0] > 20
    assert divergences[1] == 0


@VARIANTS
@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
def test_regions_without_a_finite_energy_are_never_entered(variant: str, hole: float) -> None:
    def walled(q: Any) -> tuple[float, Any]:
        return (one(q)) if q[0] > -0.5 else (hole, np.full_like(q, np.nan))

    sampler = NUTS(np.ones(2), walled, 0.4, variant=variant, seed=SEED, device="cpu")
    sampler.simulate_chain(300)
    draws = np.array(sampler.position_trajectory)
    assert draws[:, 0].min() > -0.5
    assert sampler.sample_stats["diverging"].sum() > 20
    assert sampler.acceptance_probability > 0.5
    assert np.isfinite(sampler.sample_stats["lp"]).all()


@VARIANTS
@pytest.mark.parametrize("constant", [200.0, -200.0, 1e6, -1e6])
def test_a_constant_in_the_potential_changes_no_draw(variant: str, constant: float) -> None:
    plain = NUTS(np.ones(2), one, 1.2, variant=variant, device="cpu")
    shifted = NUTS(np.ones(2), lambda q: (one(q)[0] + constant, q), 1.2, variant=variant, device="cpu")
    for sampler in (plain, shifted):
        sampler.simulate_chain(300)
    np.testing.assert_array_equal(plain.position_trajectory, shifted.position_trajectory)
    np.testing.assert_allclose(shifted.sample_stats["lp"] + constant, plain.sample_stats["lp"], atol=1e-9)
    assert plain.acceptance_probability > 0.8


@VARIANTS
def test_statistics_of_every_transition(variant: str) -> None:
    sampler = NUTS(np.ones(3), one, 0.3, max_tree_depth=3, variant=variant, seed=SEED, device="cpu")
    sampler.simulate_chain(200)
    stats = sampler.sample_stats
    positions = np.array(sampler.position_trajectory)
    np.testing.assert_allclose(stats["lp"], -0.5 * (positions[1:] ** 2).sum(axis=1), rtol=1e-12)
    assert (stats["energy"] >= -stats["lp"]).all()
    assert (stats["step_size"] == 0.3).all()
    assert ((stats["acceptance_rate"] > 0.8) & (stats["acceptance_rate"] <= 1)).all()
    moved = (positions[1:] != positions[:-1]).any(axis=1)
    np.testing.assert_array_equal(stats["accepted"], moved)
    assert sampler.acceptance_probability == moved.mean()
    assert set(stats["tree_depth"]) <= {1, 2, 3}
    assert (stats["n_steps"] < 2 ** stats["tree_depth"]).all()
    assert (stats["n_steps"] >= 2 ** (stats["tree_depth"] - 1)).all()
    limited = stats["reached_max_treedepth"]
    assert 0 < limited.sum() < 200
    assert (stats["n_steps"][limited] == 7).all()
    assert not stats["diverging"].any()


def test_each_step_is_one_evaluation() -> None:
    calls = 0

    def counting(q: Any) -> tuple[float, Any]:
        nonlocal calls
        calls += 1
        return one(q)

    sampler = NUTS(np.ones(3), counting, 0.3, device="cpu")
    sampler.simulate_chain(20)
    sampler.simulate_chain(20)
    assert calls == 1 + sampler.sample_stats["n_steps"].sum()


@VARIANTS
def test_several_chains_are_single_ones(variant: str) -> None:
    positions = np.random.default_rng(0).normal(size=(3, 2))
    together = NUTS(positions, one, [0.3, 0.5, 0.7], inv_mass=[1.0, 2.0], variant=variant, device="cpu")
    together.simulate_chain(20)
    alone = NUTS(positions[0], one, 0.3, inv_mass=[1.0, 2.0], variant=variant, device="cpu")
    alone.simulate_chain(20)
    np.testing.assert_array_equal(np.array(together.position_trajectory)[:, 0], alone.position_trajectory)
    for name, values in alone.sample_stats.items():
        np.testing.assert_array_equal(together.sample_stats[name][:, 0], values, name)


class Trees:
    """A potential of batches that notes how many rows it gets."""

    vectorized = True

    def __init__(self) -> None:
        self.rows: list[int] = []

    def value_and_grad(self, q: Any) -> tuple[Any, Any]:
        self.rows.append(len(q))
        return 0.5 * (q**2).sum(axis=1), q


@VARIANTS
@pytest.mark.parametrize("num_parallel", [None, 2])
def test_chains_of_many_are_chains_alone(variant: str, num_parallel: int | None) -> None:
    positions = np.random.default_rng(0).normal(size=(3, 2))
    potential = Trees()
    options = {"stepsize": 0.3, "variant": variant, "seed": 9, "device": "cpu"}
    many = MultiChainHMC(positions, potential, chain_type="nuts", **options)
    many.simulate_chains(5, num_parallel=num_parallel)
    many.simulate_chains(5, num_chains=[2])
    assert max(potential.rows) == (num_parallel or 3)
    alone = NUTS(positions, Trees(), **options)
    alone.simulate_chain(5)
    for i in range(3):
        np.testing.assert_array_equal(many.chains[i].position_trajectory[:6], np.array(alone.position_trajectory)[:, i])
        for name, values in many.chains[i].sample_stats.items():
            np.testing.assert_array_equal(values[:5], alone.sample_stats[name][:, i], name)
    assert [chain.num_states for chain in many.chains] == [5, 5, 10]
    with pytest.raises(RuntimeError, match="num_steps"):
        _ = many.chains[0].num_steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_positions_keep_their_precision(dtype: Any) -> None:
    seen = set()

    def noting(q: Any) -> tuple[float, Any]:
        seen.add(q.dtype)
        return np.float64(one(q)[0]), q.astype(np.float64)

    sampler = NUTS(np.ones(3, dtype), noting, 0.3, inv_mass=np.full(3, 1.5), device="cpu")
    sampler.simulate_chain(5)
    assert sampler.current_position.dtype == sampler.position_trajectory[-1].dtype == np.dtype(dtype)
    assert seen == {np.dtype(dtype)}


@VARIANTS
def test_every_device_makes_the_same_draws(variant: str, device: str) -> None:
    positions = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    options = {"stepsize": 0.02, "max_tree_depth": 7, "variant": variant}  # trees beyond the numbers made ahead
    chains = [NUTS(positions, one, device=name, **options) for name in ("numpy", device)]
    for chain in chains:
        chain.simulate_chain(3)
    np.testing.assert_array_equal(chains[0].position_trajectory, chains[1].position_trajectory)
    assert chains[0].sample_stats["n_steps"].max() > 64


class Writer:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        self.scalars.append((tag, value, global_step))


def test_writers_get_potential_acceptance_and_depth(caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer()
    with caplog.at_level(logging.DEBUG):
        sampler = NUTS(
            np.ones(2), one, 0.3, writer=writer, writer_tag="a/", logger=logging.getLogger("x"), device="cpu"
        )
        sampler.simulate_chain(2)
    stats = sampler.sample_stats
    assert [tag for tag, _, step in writer.scalars if step == 1] == [
        "a/nuts/potential",
        "a/nuts/accept",
        "a/nuts/tree_depth",
    ]
    assert [v for tag, v, _ in writer.scalars if tag == "a/nuts/tree_depth"] == stats["tree_depth"].tolist()
    assert [v for tag, v, _ in writer.scalars if tag == "a/nuts/potential"] == (-stats["lp"]).tolist()
    assert len(caplog.messages) == 1
    assert "NUTS state 1" in caplog.messages[0]


@VARIANTS
def test_resuming_is_going_on(variant: str) -> None:
    whole = NUTS(np.ones(3), one, 0.3, variant=variant, max_tree_depth=4, delta_max=50.0, seed=5, device="cpu")
    whole.simulate_chain(5)
    other = NUTS(np.zeros(3), one, device="cpu")
    other.load_state_dict(whole.state_dict())
    assert (other.variant, other.max_tree_depth, other.delta_max) == (variant, 4, 50.0)
    for sampler in (whole, other):
        sampler.simulate_chain(5)
    np.testing.assert_array_equal(other.position_trajectory, whole.position_trajectory)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("variant", "metropolis", ValueError),
        ("variant", None, ValueError),
        ("max_tree_depth", 0, ValueError),
        ("max_tree_depth", 32, ValueError),
        ("max_tree_depth", 2.5, TypeError),
        ("delta_max", 0.0, ValueError),
        ("delta_max", math.nan, ValueError),
        ("delta_max", "big", TypeError),
        ("stepsize", 0.0, ValueError),
        ("stepsize", math.nan, ValueError),
        ("inv_mass", -1.0, ValueError),
        ("inv_mass", [[1.0, 0.5], [0.4, 1.0]], ValueError),
        ("log_interval", 0, ValueError),
        ("seed", -1, ValueError),
    ],
)
def test_bad_arguments_are_named(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name}"):
        NUTS(np.ones(2), one, **{name: value})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_energies_at_the_initial_position_must_be_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="the potential energy at initial_position must be finite"):
        NUTS(np.ones(2), lambda q: (bad, q))


def test_there_is_no_number_of_steps() -> None:
    sampler = NUTS(np.ones(2), one)
    with pytest.raises(RuntimeError, match="num_steps"):
        _ = sampler.num_steps
    with pytest.raises(RuntimeError, match="num_steps"):
        sampler.num_steps = 3


@pytest.mark.parametrize(
    ("options", "draws", "error", "message"),
    [
        ({}, {"uniform": [0.5]}, ValueError, "variant='slice'"),
        ({"variant": "slice"}, {"uniform": [[0.5]]}, ValueError, "flat"),
        ({"variant": "slice"}, {"uniform": [1.5]}, ValueError, r"in \[0, 1\], got 1.5"),
        ({"variant": "slice"}, {"uniform": [math.nan]}, ValueError, r"in \[0, 1\]"),
        ({"variant": "slice"}, {"uniform": ["a"]}, TypeError, "real"),
        ({"variant": "slice"}, {"uniform": [0.5] * 3}, ValueError, "0 of 3 were used by 0 whole transitions"),
        ({"variant": "slice"}, {"uniform": []}, ValueError, "0 of 0 were used"),
        ({}, {"momentum": np.ones((3, 2))}, ValueError, r"momentum must have shape \(2, 2\)"),
        ({}, {"n": -1}, ValueError, "^n must be 0 or more"),
        ({}, {"n": 1.5}, TypeError, "^n must be a whole number"),
    ],
)
def test_bad_draws_change_nothing(options: Any, draws: Any, error: type[Exception], message: str) -> None:
    sampler = NUTS(np.ones(2), one, 0.3, device="cpu", **options)
    with pytest.raises(error, match=message):
        sampler.simulate_chain(**({"n": 2} | draws))
    assert (sampler.num_states, len(sampler.position_trajectory)) == (0, 1)


def test_uniforms_are_those_of_a_single_chain() -> None:
    sampler = NUTS(np.ones((2, 2)), one, variant="slice")
    with pytest.raises(ValueError, match="single chain"):
        sampler.simulate_chain(1, uniform=[0.5] * 20)


def test_a_failure_names_the_transition_and_keeps_those_before() -> None:
    def failing(q: Any) -> tuple[float, Any]:
        if failures and len(sampler.position_trajectory) == 4:
            raise ZeroDivisionError(failures.pop())
        return one(q)

    failures: list[str] = []
    sampler = NUTS(np.ones(2), failing, 0.3, device="cpu")
    failures.append("no data")
    with pytest.raises(ChainFailed, match=r"^chain 0 failed in transition 3: ZeroDivisionError: no data$") as caught:
        sampler.simulate_chain(10)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert sampler.num_states == 3
    sampler.simulate_chain(7)
    whole = NUTS(np.ones(2), one, 0.3, device="cpu")
    whole.simulate_chain(10)
    np.testing.assert_array_equal(sampler.position_trajectory, whole.position_trajectory)
