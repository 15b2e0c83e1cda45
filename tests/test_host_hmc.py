"""What batches can that HMC does not show: jitter, persistence, thinning, changing step sizes, chains out of step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.sampling import ChainFailed, ess, leapfrog
from grilly_optim.sampling._batch import Batch, Given, Hmc, Method, Rwm
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._runners import runner_for
from tests.chains import MASSES, Counting, normal, quartic, row_wise
from tests.table import Array, assert_bits

METHODS: dict[str, Method] = {
    "hmc": Hmc(3),
    "jitter": Hmc(4, jitter=True),
    "persistence": Hmc(2, persistence=0.7),
    "both": Hmc(3, jitter=True, persistence=0.4),
    "rwm": Rwm(),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
masses = pytest.mark.parametrize("mass", MASSES.values(), ids=list(MASSES))
CHAINS, DIM = 4, 5
SIZES = np.array([0.6, 0.2, 0.4, 0.6])


def batch_of(chains: Any, dtype: Any = np.float64, mass: Any = 1.0, done: Any = 0, per_chain: bool = False) -> Batch:
    """Some of four chains that have their places, step sizes and streams whoever is with them."""
    index = np.asarray(chains)
    position = np.random.default_rng(7).standard_normal((CHAINS, DIM)).astype(dtype)[index]
    inv_mass = InverseMass(mass, DIM, dtype, per_chain=per_chain)
    done = np.broadcast_to(done, index.shape).astype(np.int64)
    return Batch(position, SIZES[index].copy(), inv_mass, (index + 3).astype(np.uint32), done, 21)


def run(batch: Batch, method: Method, n: int, device: str, potential: Any = quartic, **options: Any) -> Record:
    record = Record(len(batch.position), DIM, batch.position.dtype, thin=options.pop("thin", 1))
    runner_for(potential, method, DIM, batch.position.dtype, device).run(batch, n, record, **options)
    return record


def assert_chains(record: Record, columns: Any, expected: Record) -> None:
    """These chains of a record are the other one's."""
    assert_bits(record.positions[:, columns], expected.positions)
    for name, values in expected.stats.items():
        assert_bits(record.stats[name][:, columns], values, name)


@methods
@masses
@pytest.mark.parametrize("potential", [quartic, row_wise], ids=["rows", "vectorized"])
@pytest.mark.cases("numpy", "cpu")
def test_a_chain_does_not_depend_on_the_others(method: Method, mass: Any, potential: Any, device: str) -> None:
    """Bit for bit, in float32; not on how often each was advanced before either."""
    together = batch_of(range(CHAINS), np.float32, mass(DIM), done=[0, 0, 9, 0])
    found = run(together, method, 10, device, potential)
    for c, done in enumerate([0, 0, 9, 0]):
        alone = batch_of([c], np.float32, mass(DIM), done)
        assert_chains(found, [c], run(alone, method, 10, device, potential))
        assert_bits(together.position[[c]], alone.position)
        assert together.done[c] == alone.done[0] == done + 10
    for some, done in (([2, 0], [9, 0]), ([0, 3], [0, 0])):
        batch = batch_of(some, np.float32, mass(DIM), done)
        assert_chains(found, some, run(batch, method, 10, device, potential))


@methods
def test_a_runner_takes_one_batch_after_the_other(method: Method, device: str) -> None:
    """Other chains, other masses and step sizes, chains that are out of step now, and the first ones again."""
    runner = runner_for(quartic, method, DIM, np.float64, device)
    batches = [
        batch_of([0, 1]),
        batch_of([0, 1], done=[0, 4]),
        batch_of([2, 3], done=[0, 4]),
        batch_of([0, 1], mass=0.5),
        batch_of([0, 1], mass=np.linspace(0.5, 2, DIM)),
        batch_of([1]),
    ]
    for batch in [batch for batch in [*batches, *batches] for _ in range(2)]:
        batch.stepsize *= 0.75
        same = copy.deepcopy(batch)
        found = Record(len(batch.position), DIM, np.float64)
        runner.run(batch, 3, found)
        assert_chains(found, slice(None), run(same, method, 3, device))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("per_chain", [False, True])
def test_products_with_a_matrix_do_not_depend_on_the_other_rows(dtype: Any, per_chain: bool) -> None:
    """Libraries add up in another order where there are more rows."""
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((9, 150, 150))
    matrices = matrices @ matrices.transpose(0, 2, 1) + np.eye(150)
    mass = InverseMass(matrices if per_chain else matrices[0], 150, dtype, per_chain=per_chain)
    rows = rng.standard_normal((9, 150)).astype(dtype)
    for c in range(9):
        own = mass.of_chains([c])
        for whole, one in (
            (mass.velocity(rows), own.velocity(rows[[c]])),
            (mass.momentum(rows), own.momentum(rows[[c]])),
            (mass.kinetic(rows), own.kinetic(rows[[c]])),
        ):
            assert_bits(whole[[c]], one)


@methods
@pytest.mark.parametrize("mass", [MASSES["number"], MASSES["vector"]], ids=["number", "vector"])
def test_every_bit_is_numpys(method: Method, mass: Any, device: str) -> None:
    with works_alone(device):
        found = run(batch_of(range(CHAINS), np.float32, mass(DIM)), method, 6, device)
    assert_chains(found, range(CHAINS), run(batch_of(range(CHAINS), np.float32, mass(DIM)), method, 6, "numpy"))


@contextmanager
def works_alone(device: str) -> Iterator[None]:
    """Asks that the device did something, and no other device anything."""
    before = [grilly_optim.counters(d)["dispatches"] for d in (device, None)]
    yield
    own, total = (grilly_optim.counters(d)["dispatches"] - n for d, n in zip((device, None), before, strict=True))
    assert own == total > 0


@pytest.mark.parametrize("mass", [(4,), (4, 5), (4, 5, 5)], ids=["numbers", "vectors", "matrices"])
@pytest.mark.parametrize("method", [Hmc(3), Hmc(3, persistence=0.5)], ids=["hmc", "persistence"])
def test_masses_of_their_own(mass: tuple[int, ...], method: Method, device: str) -> None:
    rng = np.random.default_rng(1)
    masses = 0.5 + rng.random(mass)
    if len(mass) == 3:
        masses = masses @ masses.transpose(0, 2, 1) + np.eye(5)
    found = run(batch_of(range(CHAINS), mass=masses, per_chain=True), method, 8, device)
    for c in range(CHAINS):
        assert_chains(found, [c], run(batch_of([c], mass=masses[c]), method, 8, device))


@methods
def test_blocks_and_new_runners_make_no_difference(method: Method, device: str) -> None:
    whole, parts = batch_of(range(CHAINS)), batch_of(range(CHAINS))
    expected = run(whole, method, 9, device)
    found = Record(CHAINS, DIM, np.float64)
    for n in (1, 5, 3):
        runner_for(quartic, method, DIM, np.float64, device).run(parts, n, found)
    assert_chains(found, range(CHAINS), expected)


@methods
def test_thinning_keeps_every_third(method: Method, device: str) -> None:
    """Counted through all runs."""
    every, thinned = batch_of(range(CHAINS)), batch_of(range(CHAINS))
    expected = run(every, method, 11, device)
    record = Record(CHAINS, DIM, np.float64, thin=3)
    for n in (2, 5, 4):
        runner_for(quartic, method, DIM, np.float64, device).run(thinned, n, record)
    assert (record.count, record.seen) == (3, 11)
    assert_bits(record.positions, expected.positions[2::3])
    for name, values in expected.stats.items():
        assert_bits(record.stats[name], values[2::3])


class Halving:
    """Step sizes of a warm-up."""

    def __init__(self, stepsize: Array) -> None:
        self.stepsize, self.rates = stepsize, [np.zeros(0)]

    def update(self, acceptance_rate: Array) -> None:
        self.rates.append(acceptance_rate.copy())
        self.stepsize = self.stepsize / 2


@methods
def test_step_sizes_that_change(method: Method, device: str) -> None:
    batch = batch_of(range(CHAINS))
    adapt = Halving(SIZES)
    record = run(batch, method, 4, device, adapt=adapt)
    np.testing.assert_array_equal(record.stats["step_size"], SIZES / 2.0 ** np.arange(4)[:, None])
    np.testing.assert_array_equal(record.stats["acceptance_rate"], adapt.rates[1:])
    one = batch_of(range(CHAINS))
    expected = Record(CHAINS, DIM, np.float64)
    for k in range(4):
        one.stepsize = SIZES / 2**k
        runner_for(quartic, method, DIM, np.float64, device).run(one, 1, expected)
    assert_chains(record, range(CHAINS), expected)


def test_jitter_takes_steps_by_their_own_numbers(device: str) -> None:
    """1 + floor(u (2 L - 1)): from 1 to 2 L - 1, each as often; and as many gradients of each chain as it has steps."""
    potential = Counting()
    record = run(batch_of(range(CHAINS)), Hmc(4, jitter=True), 30, device, potential)
    for c in range(CHAINS):
        u = [grilly_optim.random.uniform(1, 21, 3 + c, k + 1, "numpy", purpose="direction")[0] for k in range(30)]
        np.testing.assert_array_equal(record.stats["n_steps"][:, c], [1 + int(float(x) * 7) for x in u])
    assert set(record.stats["n_steps"].flat) == set(range(1, 8))
    assert potential.count == CHAINS + record.stats["n_steps"].sum()


def test_persistence_is_the_recurrence(device: str) -> None:
    """P = sqrt(a) p_last + sqrt(1 - a) xi, turned around where the chain stays: from transition to transition."""
    rng = np.random.default_rng(5)
    fresh, uniform = rng.standard_normal((40, 1, DIM)), rng.random((40, 1))
    batch = batch_of([0])
    record = run(batch, Hmc(2, persistence=0.6), 40, device, given=Given(fresh, uniform))
    q, p = batch_of([0]).position[0], fresh[0, 0]
    plain = Hmc(2)
    for k in range(40):
        p = p if k == 0 else np.sqrt(0.6) * p + np.sqrt(0.4) * fresh[k, 0]
        one = batch_of([0])
        one.position[0] = q
        step = run(one, plain, 1, device, given=Given(p[None, None], uniform[k : k + 1]))
        np.testing.assert_allclose(record.positions[k], step.positions[0], rtol=0, atol=1e-9)
        accepted = bool(step.stats["accepted"][0, 0])
        assert record.stats["accepted"][k, 0] == accepted
        p = moved_momentum(q, p) if accepted else -p
        q = step.positions[0, 0]
    assert 0 < record.stats["accepted"].sum() < 40
    assert batch.momentum is not None
    np.testing.assert_allclose(batch.momentum[0], p, rtol=0, atol=1e-9)


def moved_momentum(q: Array, p: Array) -> Array:
    return leapfrog(q, p, SIZES[0], 2, 1.0, quartic)[1]


@methods
@pytest.mark.cases("cpu")
def test_moments(method: Method, device: str) -> None:
    """abs(z) < 4 for 4 x 5 variances of standard normal distributions: one false alarm in 800 seeds; it is fixed."""
    batch = batch_of(range(CHAINS))
    batch.position[:] = 0
    batch.stepsize[:] = 0.7
    record = run(batch, method, 4000, device, normal)
    for squares in (record.positions**2).reshape(4000, -1).T:
        assert abs(squares.mean() - 1) < 4 * squares.std() / np.sqrt(ess(squares[None]))


@methods
def test_a_failing_row_is_named_by_its_stream(method: Method, device: str) -> None:
    def fragile(q: Array) -> Any:
        if fragile_at is not None and np.array_equal(q, fragile_at):
            raise OSError("gone")
        return quartic(q)

    fragile_at: Array | None = None
    batch = batch_of([1, 3], done=[5, 2])
    first = run(batch, method, 1, device, fragile)
    again = batch_of([1, 3], done=[5, 2])
    seen: list[Array] = []

    def watch(q: Array) -> Any:
        seen.append(q.copy())
        return quartic(q)

    run(again, method, 1, device, watch)
    fragile_at = seen[-1]  # the last evaluation; which chain's that is follows from the number of steps
    steps = first.stats["n_steps"][0]
    row = 1 if steps[1] >= steps[0] else 0
    other = batch_of([1, 3], done=[5, 2])
    with pytest.raises(ChainFailed, match="OSError: gone") as caught:
        run(other, method, 1, device, fragile)
    assert (caught.value.chain, caught.value.step) == ([4, 6][row], [5, 2][row])
    assert other.done.tolist() == [5, 2]
    assert_bits(other.position, batch_of([1, 3]).position)


def test_the_counter_of_random_numbers_ends() -> None:
    with pytest.raises(OverflowError, match=r"transition 1099511627776: the counter .* 2\^40"):
        run(batch_of([0], done=2**40 - 1), Hmc(1), 1, "numpy")
