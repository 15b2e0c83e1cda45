"""Random numbers: known answers, the same bits everywhere, and the distribution that they claim."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim import random
from grilly_optim._devices import open_device
from grilly_optim.kernels import draws
from grilly_optim.kernels.philox import MAX_ELEMENTS, Draw, philox
from grilly_optim.kernels.random import NORMAL
from tests.table import Array, assert_bits

ONES, PI = 0xFFFFFFFF, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
BOTH = {"normal": random.normal, "uniform": random.uniform}
both = pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)

# Random123's known answers for philox4x32 with 10 rounds: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (PI, (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter: Any, key: Any, words: Any) -> None:
    assert philox(counter, key) == words


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers_through_a_device(counter: Any, key: Any, words: Any, device: str) -> None:
    """The counter is block, purpose and step, step, stream; uniform numbers show the upper 24 bits of the words."""
    c0, c1, c2, c3 = counter
    backend = open_device(device)[1]
    p = np.zeros(4, np.float32)
    element = 4 * (c0 | (c1 & 0xFFFF) << 32)
    lead = element % 256
    p = np.zeros(lead + 4, np.float32)  # a parameter begins at a multiple of 256
    plan = backend.plan(NORMAL, [p], [0], elements=[element - lead], stream=c3)
    draw = Draw(key[0] | key[1] << 32, c2 | (c1 >> 24) << 32, c1 >> 16 & 0xFF)
    assert backend.run([plan], (), [[(1.0,)]], [None], draw=draw)
    assert_bits(p[lead:], draws.normals_of(np.array(words, np.uint32)))


# Around blocks, packs, vectors, stretches, chunks and threads.
SIZES = [0, 1, 3, 4, 5, 63, 255, 257, 1023, 4097, 16_387, 70_001]


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_every_bit_is_numpys(make: Any, dtype: Any, device: str) -> None:
    before = grilly_optim.counters(device)["dispatches"]
    for size in SIZES:
        arguments = {"seed": 2**63 + size, "stream": 2**32 - 1 - size, "step": 2**33 + size, "dtype": dtype}
        assert_bits(make(size, device=device, **arguments), make(size, device="numpy", **arguments), str(size))
    assert device == "numpy" or grilly_optim.counters(device)["dispatches"] - before == len(SIZES) - 1


@both
@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_threads_and_instruction_sets_make_no_difference(
    make: Any, isa: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRILLY_ISA", isa)
    monkeypatch.setenv("GRILLY_THREADS", threads)
    assert_bits(make(100_003, seed=5, device="cpu"), make(100_003, seed=5, device="numpy"))


def drawn(device: str, shape: Any, **plan: Any) -> Array:
    backend = open_device(device)[1]
    p = np.zeros(shape, np.float32)
    assert backend.run([backend.plan(NORMAL, [p], [0], **plan)], (), [[(1.0,)]], [None], draw=Draw(1, 2))
    return p


def test_a_chain_has_the_numbers_of_its_stream_however_chains_are_batched(device: str) -> None:
    whole = drawn(device, (5, 33), chains=5, elements=[512])
    for chain in range(5):
        assert_bits(whole[chain], drawn(device, 33, elements=[512], stream=chain))
    assert_bits(whole[2:], drawn(device, (3, 33), chains=3, elements=[512], stream=2))


# Where the number of a block passes 32 bits, and the last blocks that there are.
@pytest.mark.parametrize("end", [2**34, MAX_ELEMENTS])
def test_far_elements(end: int, device: str) -> None:
    size = 256 if end == MAX_ELEMENTS else 1000
    assert_bits(drawn(device, size, elements=[end - 256]), draws.normal(Draw(1, 2), 0, end - 256, size))


def test_the_numbers_of_an_element_do_not_depend_on_where_one_begins() -> None:
    draw = Draw(3, 4)
    whole = draws.normal(draw, 5, 0, 40)
    for first in range(9):
        for count in range(9):
            assert_bits(draws.normal(draw, 5, first, count), whole[first : first + count])


def test_each_argument_makes_other_numbers() -> None:
    first = random.normal(1000, seed=1, device="numpy")
    others: list[dict[str, Any]] = [
        {"seed": 2},
        {"seed": 1 + 2**32},
        {"seed": 1, "stream": 1},
        {"seed": 1, "step": 1},
        {"seed": 1, "step": 2**32},
        *({"seed": 1, "purpose": name} for name in ("momentum", "accept", "direction")),
    ]
    seen = [first, *(random.normal(1000, **o, device="numpy") for o in others)]
    for k, a in enumerate(seen):
        for b in seen[k + 1 :]:
            # Independent: the correlation of 1,000 pairs is beyond 5 standard errors once in 1.7 million times.
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(1000)


def test_the_transform_is_box_and_mullers() -> None:
    """To a few units in the last place of the largest numbers, all the way to the smallest u and to u = 1."""
    words = np.random.default_rng(0).integers(0, 2**32, 2**16, dtype=np.uint32)
    words[:8:2] = 0, 255, 2**32 - 1, 2**32 - 2**9
    u = ((words[::2] >> np.uint32(8)) + 1.0) * 2.0**-24
    angle = 2 * np.pi * ((words[1::2].astype(np.int64) + 2**29) // 2**30 / 4 + _rest(words[1::2]) / 8)
    radius = np.sqrt(-2 * np.log(u))
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1)
    np.testing.assert_allclose(draws.normals_of(words), expected, rtol=0, atol=1.5e-6)


def _rest(words: Array) -> Array:
    """What is left of an angle after its quarters, in eighths of a turn, as fine as it is used."""
    return (((words.astype(np.int64) * 4 + 2**31) % 2**32 - 2**31) // 2**8) * 2.0**-23


# Seeds were set down before the first look. A correct generator fails each of these about once in 16,000 times.
COUNT = 4_000_000


def test_moments_of_the_normal_numbers() -> None:
    z = random.normal(COUNT, seed=20, stream=1, device="numpy", dtype=np.float64)
    errors = {1: 1, 2: math.sqrt(2), 3: math.sqrt(15), 4: math.sqrt(96)}
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert abs((z**power).mean() - expected) < 4 * errors[power] / math.sqrt(COUNT), power
    assert abs((z[1:] * z[:-1]).mean()) < 4 / math.sqrt(COUNT)


def test_uniform_numbers_fill_their_interval() -> None:
    u = random.uniform(COUNT, seed=21, device="numpy", dtype=np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.bincount((u * 1024).astype(np.int64), minlength=1024)
    chi2 = float(((counts - COUNT / 1024) ** 2 / (COUNT / 1024)).sum())
    assert abs(chi2 - 1023) < 4 * math.sqrt(2 * 1023)
    np.testing.assert_array_equal(u * 2**24, np.floor(u * 2**24))


def test_tails_of_the_normal_numbers() -> None:
    z = np.abs(random.normal(COUNT, seed=22, device="numpy"))
    for beyond in (2, 3, 4):
        expected = COUNT * math.erfc(beyond / math.sqrt(2))
        assert abs(np.count_nonzero(z > beyond) - expected) < 4 * math.sqrt(expected), beyond


@both
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": -1}, ValueError, r"seed must be from 0 to 2\^64 - 1, got -1"),
        ({"seed": 2**64}, ValueError, r"seed must be from 0 to 2\^64 - 1, got 18446744073709551616"),
        ({"seed": 1.0}, TypeError, "seed must be a whole number, got 1.0"),
        ({"seed": True}, TypeError, "seed must be a whole number, got True"),
        ({"stream": 2**32}, ValueError, r"stream must be from 0 to 2\^32 - 1, got 4294967296"),
        ({"step": 2**40}, ValueError, r"step must be from 0 to 2\^40 - 1, got 1099511627776"),
        (
            {"purpose": "fun"},
            ValueError,
            "purpose must be one of 'noise', 'momentum', .*, got 'fun'",
        ),
        ({"dtype": np.int32}, TypeError, "dtype must be float32 or float64, got int32"),
        ({"shape": -1}, ValueError, r"shape must not have negative sizes, got \(-1,\)"),
        ({"shape": 2**51}, ValueError, r"shape must have at most 2\^50 elements, got 2251799813685248"),
        ({"device": "gpu"}, grilly_optim.DeviceUnavailable, "gpu"),
    ],
)
def test_bad_arguments(make: Any, arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(**{"shape": 3, "seed": 1, "device": "numpy", **arguments})
