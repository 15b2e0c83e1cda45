"""Blocks of chains: how many chains one has, and that nothing but the potential's calls shows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import ChainFailed, _blocks, _host, _host_hmc, _record
from grilly_optim.sampling._batch import Batch, Given, Hmc, Method
from grilly_optim.sampling._mass import InverseMass
from grilly_optim.sampling._record import Record
from grilly_optim.sampling._runners import runner_for
from tests.chains import MASSES, Counting, quartic, row_wise
from tests.interrupts import interrupted
from tests.table import Array, assert_bits

DIM, BLOCK = 3, 4
METHODS: dict[str, Method] = {
    "hmc": Hmc(3),
    "one step": Hmc(1),
    "trajectory": Hmc(trajectory=1.0),
    "jitter": Hmc(3, jitter=True),
    "persistence": Hmc(2, persistence=0.7),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
here = pytest.mark.cases("numpy", "cpu")


def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", 1 << 40)


def in_blocks(monkeypatch: pytest.MonkeyPatch, dtype: Any = np.float64) -> None:
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", BLOCK * DIM * np.dtype(dtype).itemsize)


def batch_of(chains: int, dtype: Any = np.float64, mass: Any = 1.0, per_chain: bool = False) -> Batch:
    rng = np.random.default_rng(3)
    return Batch(
        rng.standard_normal((chains, DIM)).astype(dtype),
        np.resize([0.6, 0.2, 1.5], chains),
        InverseMass(mass, DIM, dtype, per_chain=per_chain),
        np.arange(5, 5 + chains, dtype=np.uint32),
        np.resize([0, 0, 2], chains).astype(np.int64),
        21,
    )


def run(batch: Batch, method: Method, n: int, device: str, potential: Any = row_wise, **options: Any) -> Record:
    record = Record(len(batch.position), DIM, batch.position.dtype, thin=options.pop("thin", 1))
    runner_for(potential, method, DIM, batch.position.dtype, device).run(batch, n, record, **options)
    return record


def assert_same(a: tuple[Batch, Record], b: tuple[Batch, Record]) -> None:
    """All that a run leaves behind."""
    for name in ("position", "potential", "gradient", "momentum", "done", "stepsize"):
        np.testing.assert_equal(getattr(a[0], name), getattr(b[0], name), name)
    assert a[1].seen == b[1].seen
    assert_bits(a[1].positions, b[1].positions)
    np.testing.assert_equal(a[1].stats, b[1].stats)


class OneArray:
    """A potential that returns the same memory in every call."""

    vectorized = True

    def __init__(self) -> None:
        self._memory = np.empty((99, DIM))

    def __call__(self, q: Array) -> tuple[Array, Array]:
        self._memory[: len(q)] = row_wise(q)[1]
        return row_wise(q)[0], self._memory[: len(q)]


@pytest.mark.parametrize(
    ("dim", "dtype", "size"),
    [
        (1000, np.float64, 64),
        (1000, np.float32, 128),
        (1024, np.float64, 64),
        (1025, np.float64, 32),
        (300, np.float64, 128),
        (60_000, np.float64, 1),
        (100_000, np.float64, 1),
    ],
)
@here
def test_a_block_follows_from_dimension_and_dtype(dim: int, dtype: Any, size: int, device: str) -> None:
    for chains in (size - 1, size, size + 1, 3 * size):
        if chains == 0:
            continue
        seen: list[int] = []

        def count(q: Array, seen: list[int] = seen) -> tuple[Array, Array]:
            seen.append(len(q))
            return np.zeros(len(q)), np.zeros_like(q)

        count.vectorized = True  # type: ignore[attr-defined]
        position = np.zeros((chains, dim), dtype)
        batch = Batch(
            position, np.ones(chains), InverseMass(1.0, dim, dtype), np.arange(chains, dtype=np.uint32),
            np.zeros(chains, np.int64), 0, np.zeros(chains), position,
        )  # fmt: skip
        runner_for(count, Hmc(1), dim, dtype, device).run(batch, 1, Record(chains, dim, dtype))
        assert seen == [size] * (chains // size) + [chains % size] * (chains % size > 0)


@pytest.mark.cases("vulkan")
def test_a_gpu_takes_all_chains_at_once(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    in_blocks(monkeypatch, np.float32)
    potential = Counting(row_wise)
    run(batch_of(9, np.float32), Hmc(3), 2, device, potential)
    assert potential.count == 1 + 2 * 3


@methods
@pytest.mark.parametrize(
    ("mass", "potential"),
    [("1", quartic), ("number", OneArray()), ("vector", row_wise), ("matrix", row_wise)],
    ids=["rows", "one array", "vector", "matrix"],
)
@pytest.mark.parametrize("chains", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 3])
@here
def test_blocks_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, method: Method, mass: str, potential: Any, chains: int, device: str
) -> None:
    found: list[tuple[Batch, Record]] = []
    for prepare in (whole, in_blocks):
        prepare(monkeypatch)
        batch = batch_of(chains, mass=MASSES[mass](DIM))
        found.append((batch, run(batch, method, 5, device, potential)))
    assert_same(*found)
    assert 0 < found[0][1].stats["accepted"].mean() < 1


@pytest.mark.parametrize("shape", [(9,), (9, DIM), (9, DIM, DIM)], ids=["numbers", "vectors", "matrices"])
@here
def test_blocks_of_chains_with_masses_of_their_own(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], device: str
) -> None:
    mass = 0.5 + np.random.default_rng(1).random(shape)
    if len(shape) == 3:
        mass = mass @ mass.transpose(0, 2, 1) + np.eye(DIM)
    found: list[tuple[Batch, Record]] = []
    for prepare in (whole, in_blocks):
        prepare(monkeypatch)
        batch = batch_of(9, mass=mass, per_chain=True)
        found.append((batch, run(batch, Hmc(3), 5, device)))
    assert_same(*found)


@pytest.mark.parametrize("method", [Hmc(3), Hmc(2, persistence=0.7)], ids=["hmc", "persistence"])
@pytest.mark.parametrize("thin", [1, 2])
@here
def test_blocks_take_given_draws(monkeypatch: pytest.MonkeyPatch, method: Method, thin: int, device: str) -> None:
    rng = np.random.default_rng(5)
    given = Given(rng.standard_normal((4, 9, DIM)), rng.random((4, 9)))
    found: list[tuple[Batch, Record]] = []
    for prepare in (whole, in_blocks):
        prepare(monkeypatch)
        batch = batch_of(9)
        found.append((batch, run(batch, method, 4, device, given=given, thin=thin)))
    assert_same(*found)


@here
def test_one_runner_for_batches_of_other_blocks(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    in_blocks(monkeypatch)
    runner = runner_for(row_wise, Hmc(2), DIM, np.float64, device)
    for chains, mass in ((9, 1.0), (5, 1.0), (9, 0.5), (9, np.linspace(0.5, 2, DIM)), (3, 1.0), (9, 1.0)):
        batches = [batch_of(chains, mass=mass) for _ in range(2)]
        for batch in batches:
            batch.stepsize *= 0.75
        record = Record(chains, DIM, np.float64)
        for n in (2, 1):
            runner.run(batches[0], n, record)
        assert_same((batches[0], record), (batches[1], run(batches[1], Hmc(2), 3, device)))


# What goes wrong in the second block. Nine chains are three blocks; three steps make nine calls a transition.

STEPS = 3
CALL = 1 + 2 * 9 + 3 + 1  # the first evaluation, two transitions, a block, a step


def failing(act: Callable[[], None], alone: bool) -> Any:
    """Fails from that call on, where it sees its second row."""
    rows: list[Array] = []

    def potential(q: Array) -> tuple[Array, Array]:
        rows.append(q.copy())
        if len(rows) > CALL and (rows[CALL][1] == q).all(axis=1).any() and (alone or len(q) > 1):
            act()
        return row_wise(q)

    potential.vectorized = True  # type: ignore[attr-defined]
    return potential


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "alone", "message"),
    [
        (OSError("gone"), True, "^chain 10 failed in transition 2: OSError: gone$"),
        (OSError("gone"), False, "^the batch of chains 5 to 13 failed in transition 2: OSError: gone$"),
        (KeyboardInterrupt(), True, None),
    ],
    ids=["a row", "all rows", "a signal"],
)
@here
def test_a_failure_in_the_second_block(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, alone: bool, message: str | None, device: str
) -> None:
    """Two transitions are over for all chains, the third one is for none."""
    in_blocks(monkeypatch)
    expected = batch_of(9)
    expected.done[:] = 0
    batch = batch_of(9)
    batch.done[:] = 0
    record = Record(9, DIM, np.float64)
    runner = runner_for(failing(raises(error), alone), Hmc(STEPS), DIM, np.float64, device)
    with pytest.raises(ChainFailed if message else KeyboardInterrupt, match=message) as caught:
        runner.run(batch, 5, record)
    if isinstance(caught.value, ChainFailed):
        assert (caught.value.chain, caught.value.step) == (10 if alone else 5, 2)
    assert_same((batch, record), (expected, run(expected, Hmc(STEPS), 2, device)))
    again = batch_of(9)
    again.done[:] = 0
    runner_for(row_wise, Hmc(STEPS), DIM, np.float64, device).run(batch, 3, record)
    assert_same((batch, record), (again, run(again, Hmc(STEPS), 5, device)))


@pytest.mark.cases("cpu")
def test_an_interrupt_between_blocks_leaves_whole_transitions(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Ctrl-C in front of any line of what makes blocks and goes through them, and then on with the same runner.

    It had another batch before, which it is able to go on with too.
    """
    in_blocks(monkeypatch)
    method = Hmc(2, persistence=0.5)
    expected, expected_other = batch_of(9), batch_of(5)
    wanted, wanted_other = run(expected, method, 4, device), run(expected_other, method, 2, device)
    modules = (_record, _blocks, _host, _host_hmc)
    places = ("run", "_write", "add", "next_positions", "room", "_transition", "_trajectories", "_start", "_begin",
              "begin", "of", "_make_draws", "_make_normals")  # fmt: skip
    count = 0
    for line in range(1, 1000):
        batch, record = batch_of(9), Record(9, DIM, np.float64)
        other, others = batch_of(5), Record(5, DIM, np.float64)
        runner = runner_for(row_wise, method, DIM, np.float64, device)
        runner.run(other, 1, others)
        done = not interrupted(partial(runner.run, batch, 2, record), line, places, *modules)
        assert batch.done[0] == record.seen == record.count
        runner.run(other, 1, others)
        assert_same((other, others), (expected_other, wanted_other))
        runner.run(batch, 4 - record.seen, record)
        assert_same((batch, record), (expected, wanted))
        if done:
            break
        count += 1
    assert done
    assert count > 100
