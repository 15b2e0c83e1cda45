"""The NumPy device: rules run block by block, in place. The last resort, and the oracle of the tests."""

from __future__ import annotations

import math
import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from grilly_optim._errors import OutOfDeviceMemory
from grilly_optim.kernels.draws import MAKERS
from grilly_optim.kernels.gradient import Mix, anchored, clipped, traced
from grilly_optim.kernels.philox import Draw
from grilly_optim.kernels.sketch import NumpySketch
from grilly_optim.kernels.sums import Lanes, chunk_sums

if TYPE_CHECKING:
    from grilly_optim.kernels.rule import Rule

Array = NDArray[Any]

# Elements per block: the temporaries of a rule stay in the cache, and below malloc's threshold for mapping fresh pages.
BLOCK = 16_384

# What every device counts; `grilly_optim.counters` says what they mean.
COUNTERS = ("dispatches", "submits", "bytes_up", "bytes_down", "bytes_allocated", "allocations")

ALIGNMENT = 64  # bytes: a cache line, and the widest vectors


class NumpyPlan:
    """One rule over a list of contiguous arrays of one precision, or the rows of them, one per chain."""

    def __init__(
        self,
        device: NumpyDevice,
        rule: Rule,
        parameters: Sequence[Array],
        members: Sequence[int],
        chains: int,
        elements: Sequence[int],
        stream: int,
        groups: Sequence[int],
    ) -> None:
        self._rule = rule
        self.members = list(members)
        self.chains = chains
        # Plain views: subclasses have their own ideas of arithmetic. Segments are parameters, or the rows of them.
        self._parameters = [row for p in parameters for row in np.asarray(p).reshape(chains, -1)]
        self._keys = [(e, stream + chain) for e in elements or [0] * len(parameters) for chain in range(chains)]
        self._buckets = [g * chains + chain for g in groups or [0] * len(parameters) for chain in range(chains)]
        self._originals = list(parameters)
        self._shapes = [p.shape for p in parameters]
        self._device = device
        self._state: list[dict[str, Array]] = [{} for _ in self._parameters]
        self._make(*rule.owned_fields)
        self.strength = 0.0  # of the anchored quadratic
        self._mix = (math.inf, 1.0)  # limit and scale of the run under way
        self.done: object = None  # the rows of the last run that is over
        self._keeps = False  # parts
        # Which segments took part in the last run, if it was one with sums.
        self._measured = [False] * len(self._parameters)
        self._guarded: list[tuple[int, int]] = []

    def _make(self, *fields: str) -> None:
        for name in fields:
            for p, state in zip(self._parameters, self._state, strict=True):
                state.setdefault(name, self._device.zeros(p.size, p.dtype))

    def add_anchor(self) -> None:
        """A quadratic whose gradient comes on top of the given one: weight * (parameter - anchor), zero at first."""
        self._make("anchor", "weight")

    def add_trace(self) -> None:
        """The path integral of the given gradient, zero at first."""
        self._make("trace")

    def add_parts(self) -> None:
        """What a step is made of, element by element, is kept by runs with sums; zero at first."""
        self._make(*self._rule.part_fields)
        self._keeps = self._rule.made_of is not None

    def expect_run(self) -> None:
        """A run will come soon, for which there is nothing to make ready here."""

    def guard(self, arrays: Sequence[Array]) -> None:
        """Name the parameters that a step may change while another parameter's gradient is still to be read."""
        self._guarded = sorted(byte_bounds(a) for a in arrays if a.size)

    def _clashes(self, gradient: Array, own: Array) -> bool:
        begin, end = byte_bounds(gradient)
        after = bisect_left(self._guarded, (end, 0))
        return begin != byte_bounds(own)[0] and after > 0 and self._guarded[after - 1][1] > begin

    def take(self, inputs: Sequence[Any], whole: bool) -> list[tuple[Array, ...] | None] | None:
        """The inputs of each segment, flat, if they can be read as they are; see the device's `run`."""
        if not all(map(self._in_place, self._originals, self._shapes)):
            return None
        taken: list[tuple[Array, ...] | None] = []
        for i, member in enumerate(self.members):
            if not all(type(given) is list and member < len(given) for given in inputs):
                return None
            mine = [given[member] for given in inputs]
            if any(array is not None and not self.fits(i, array) for array in mine):
                return None
            missing = any(array is None for array in mine)
            if missing and whole:
                return None
            rows = [np.asarray(array).reshape(self.chains, -1) for array in mine if not missing]
            taken += [None if missing else tuple(row[chain] for row in rows) for chain in range(self.chains)]
        return taken

    @staticmethod
    def _in_place(parameter: Array, shape: tuple[int, ...]) -> bool:
        return parameter.flags.writeable and parameter.shape == shape

    def fits(self, i: int, gradient: Array) -> bool:
        """Whether the rule can read this array as it is, as the gradient of parameter `i`."""
        parameter = self._originals[i]
        return (
            isinstance(gradient, np.ndarray)
            and gradient.dtype == parameter.dtype
            and gradient.shape == self._shapes[i]
            and gradient.flags.c_contiguous
            and gradient.flags.aligned
            and not self._clashes(gradient, parameter)
        )

    def load(
        self,
        inputs: Sequence[tuple[Array, ...] | None],
        rows: Sequence[tuple[float, ...]],
        index: Any,
        draw: Draw | None = None,
    ) -> None:
        """What the next passes work with: `rows` of scalars, and for each segment its own (None: the first)."""
        self._inputs, self._rows, self._draw = list(inputs), list(rows), draw
        if index is not None and len(index) < len(self._parameters):
            index = [row for row in index for _ in range(self.chains)]
        self._index = index

    def active(self) -> bool:
        """Whether there is anything to do."""
        return any(mine is not None and p.size for p, mine in zip(self._parameters, self._inputs, strict=True))

    def require(self, field: str) -> None:
        """Check that there is such a field among its own."""
        if field not in self._state[0]:
            raise KeyError(f"rule {self._rule.name} owns no state named '{field}'")

    def row(self, i: int, chain: int, field: str | None = None) -> Array:
        """One chain of parameter `i`, or of one of its fields."""
        segment = i * self.chains + chain
        return self._parameters[segment] if field is None else self._state[segment][field]

    def measured(self, i: int, chain: int) -> bool:
        """Whether this chain of parameter `i` took part in the last run, and that was one with sums."""
        return self._measured[i * self.chains + chain]

    def _blocks(self) -> Iterator[tuple[slice, dict[str, Array], Any, tuple[Array, ...], Array, Any]]:
        """What takes part, by blocks: where, streams, old state, inputs as the rule sees them, gradient, scalars."""
        rule = self._rule
        for i, (p, state, mine) in enumerate(zip(self._parameters, self._state, self._inputs, strict=True)):
            if mine is None:
                continue
            h = rule.scalars._make(p.dtype.type(x) for x in self._rows[0 if self._index is None else self._index[i]])
            mix = Mix(*(p.dtype.type(x) for x in (*self._mix, self.strength)))
            streams = {rule.state_fields[0]: p, **state}
            for begin in range(0, p.size, BLOCK):
                block = slice(begin, begin + BLOCK)
                there = {name: streams[name][block] for name in rule.state_fields}
                old = rule.state(**there, **{n: p.dtype.type(x) for n, x in rule.optional.items() if n not in there})
                given, *others = [x[block] for x in mine] + self._drawn(i, begin, old[0])
                g = given if self._mix == (math.inf, 1.0) else clipped(given, mix)
                if "weight" in state:
                    g = anchored(g, p[block], state["weight"][block], state["anchor"][block], mix)
                yield block, streams, old, (g, *others), given, h

    def _drawn(self, i: int, begin: int, like: Array) -> list[Array]:
        """The input of a block that is drawn in this run, if there is one."""
        if self._draw is None or self._rule.drawn is None:
            return []
        element, stream = self._keys[i]
        made = MAKERS[self._rule.drawn](self._draw, stream, element + begin, like.size)
        return [made.astype(like.dtype, copy=False)]

    def update(self) -> None:
        """Run the rule."""
        for block, streams, old, inputs, given, h in self._blocks():
            new = self._rule.twin(old, *inputs, h)
            if "trace" in streams:
                streams["trace"][block] = traced(streams["trace"][block], old[0], new[0], given)
            for name in self._rule.updated:
                streams[name][block] = getattr(new, name)

    def add_up(self, buckets: Sequence[Sequence[Lanes]]) -> None:
        """The pass with sums: lanes for each sum of each bucket."""
        terms = self._rule.terms
        assert terms is not None
        # All chunks of the plan in their order; a parameter that does not take part has zeros.
        chunks: list[list[list[Array]]] = [[[] for _ in lanes] for lanes in buckets]
        blocks = self._blocks()
        decided = self._rule.control is not None
        for p, mine, bucket in zip(self._parameters, self._inputs, self._buckets, strict=True):
            for begin in range(0, p.size, BLOCK):
                size = min(BLOCK, p.size - begin)
                if mine is None:
                    found: tuple[Array, ...] = tuple(np.zeros(size, p.dtype) for _ in buckets[0])
                else:
                    block, streams, old, inputs, _, h = next(blocks)
                    new = terms(old, *inputs, h)
                    found = tuple(getattr(new, name) for name in self._rule.sum_fields)
                    if self._keeps:
                        kept = self._rule.made_of(old, *inputs, h)  # type: ignore[misc]  # it is there
                        for name in self._rule.part_fields:
                            streams[name][block] = getattr(kept, name)
                    for name in self._rule.set_first:
                        streams[name][block] = getattr(new, name)
                for parts, x in zip(chunks[0 if decided else bucket], found, strict=True):
                    parts.append(chunk_sums(np.broadcast_to(x, size)))
        for lanes, of_bucket in zip(buckets, chunks, strict=True):
            for lane, parts in zip(lanes, of_bucket, strict=True):
                lane.add(np.concatenate([np.zeros(0), *parts]))

    def make_rows(self, numbers: Any) -> None:
        """The scalars of the second pass."""
        rule = self._rule
        assert rule.control is not None
        self._rows = [rule.control.row(rule.scalars._make(map(np.float64, row)), numbers) for row in self._rows]

    def read_state(self, field: str, i: int, to: Array) -> None:
        """Copy a state field of parameter `i` into `to`."""
        for chain, row in enumerate(to.reshape(self.chains, -1)):
            row[:] = self._state[i * self.chains + chain][field]

    def write_state(self, field: str, i: int, source: Array) -> None:
        """Set a state field of parameter `i`."""
        for chain, row in enumerate(source.reshape(self.chains, -1)):
            self._state[i * self.chains + chain][field][:] = row


class NumpyDevice:
    """Runs plans in NumPy; counts like the compiled devices."""

    lost = False

    def __init__(self) -> None:
        self._counters = dict.fromkeys(COUNTERS, 0)

    def zeros(self, size: int, dtype: np.dtype[Any]) -> Array:
        """Zeros, counted while they are alive."""
        try:
            array: Array = np.zeros(size, dtype)
        except MemoryError:
            raise OutOfDeviceMemory(f"numpy: the system refused {size} elements of {dtype}") from None
        self._count(array, array.nbytes)
        return array

    def allocate(self, nbytes: int) -> memoryview:
        """Bytes of memory, aligned as on the other devices and counted while they are alive."""
        try:
            memory: Array = np.empty(nbytes + ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):
            raise OutOfDeviceMemory(f"numpy: the system refused {nbytes} bytes") from None
        self._count(memory, nbytes)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + nbytes].data

    def _count(self, array: Array, nbytes: int) -> None:
        self._counters["bytes_allocated"] += nbytes
        self._counters["allocations"] += 1
        weakref.finalize(array, self._release, nbytes)

    def _release(self, nbytes: int) -> None:
        self._counters["bytes_allocated"] -= nbytes

    def reaches(self, array: Array) -> bool:
        """Whether plans use this memory without a copy: always."""
        return True

    def plan(
        self,
        rule: Rule,
        parameters: Sequence[Array],
        members: Sequence[int],
        chains: int = 1,
        elements: Sequence[int] = (),
        stream: int = 0,
        groups: Sequence[int] = (),
    ) -> NumpyPlan:
        """Make a plan over contiguous arrays of one precision.

        Args:
            rule: What to run.
            parameters: The arrays.
            members: Where their inputs stand in a step's lists.
            chains: Rows of every parameter, which have random streams of their own.
            elements: For each parameter, what its (or each row's) first element is called in random streams, a multiple
                of 256; all 0 if there are none.
            stream: The random stream of the first row; the others' follow.
            groups: For each parameter, which group's sums it adds to; each chain has its own.
        """
        return NumpyPlan(self, rule, parameters, members, chains, elements, stream, groups)

    def sketch(
        self,
        plans: Sequence[NumpyPlan],
        fields: Sequence[str],
        buckets: Array,
        signs: Array,
        output_dim: int,
    ) -> NumpySketch:
        """Count sketches of fields of plans.

        Args:
            plans: Plans of this device, with as many chains each.
            fields: Names of parts, or of state that the device keeps, which all of these plans have.
            buckets: For each element of a chain its bucket: the parameters of all plans in the order of their members,
                one after another.
            signs: For each its sign, 1 or -1.
            output_dim: The number of buckets.

        Raises:
            ValueError: Not a bucket and a sign for each element, a bucket outside, no plan, no field or no bucket.
            KeyError: A plan has no such field.
        """
        return NumpySketch(self, plans, fields, buckets, signs, output_dim)

    def run(
        self,
        plans: Sequence[NumpyPlan],
        inputs: Sequence[Any],
        rows: Sequence[Sequence[tuple[float, ...]]],
        indices: Sequence[Sequence[int] | None],
        whole: bool = False,
        numbers: Array | None = None,
        limit: float = math.inf,
        scale: float = 1.0,
        draw: Draw | None = None,
    ) -> bool:
        """Run plans in order.

        Args:
            plans: Plans of this device.
            inputs: A list for each input of the rules (the gradients); None in one leaves that parameter as it is.
            rows: Rows of scalars for each plan.
            indices: For each plan, which row is whose; None: the first is everybody's.
            whole: Refuse lists with a None.
            numbers: Of rules with sums: what the decision takes, and where it leaves what it gives.
            limit: Clips gradients by value.
            scale: Comes with every gradient.
            draw: What the input follows from that is drawn; without it that input is given as well.

        Returns:
            Whether it ran. False, and nothing is done, where an input needs a cast, a copy or an error first.
        """
        taken = [plan.take(inputs, whole) for plan in plans]
        ready = [mine for mine in taken if mine is not None]
        if len(ready) < len(taken):
            return False
        for plan, mine, plan_rows, index in zip(plans, ready, rows, indices, strict=True):
            plan.load(mine, plan_rows, index, draw)
            plan._mix = (limit, scale)
        active = [plan for plan in plans if plan.active()]
        if plans:
            self._check_numbers(plans, numbers)
        # Overflow and invalid values are the caller's, and pass through as they do on every other device.
        with np.errstate(all="ignore"):
            if active and numbers is not None and active[0]._rule.sums:
                self._first_pass(active, numbers)
            if active and active[0]._rule.updates and not (active[0]._rule.either and numbers is not None):
                for plan in active:
                    plan.update()
                    self._counters["dispatches"] += 1
        for plan in plans:
            sums = numbers is not None and bool(plan._rule.sums)
            plan._measured = [sums and mine is not None for mine in plan._inputs]
            plan.load([None] * len(plan._parameters), (), None, None)
            plan.done = rows
        return True

    @staticmethod
    def _check_numbers(plans: Sequence[NumpyPlan], numbers: Array | None) -> None:
        """What the compiled devices refuse as well."""
        rule = plans[0]._rule
        if not rule.sums or (rule.either and numbers is None):
            return
        buckets = 1 if rule.control else max((1 + b for plan in plans for b in plan._buckets), default=1)
        needed = buckets * len(rule.number_fields)
        if numbers is None or numbers.size != needed or numbers.dtype != np.float64:
            raise ValueError(f"rule {rule.name} needs an array of {needed} doubles that it can write to")

    def _first_pass(self, plans: Sequence[NumpyPlan], numbers: Array) -> None:
        rule = plans[0]._rule
        count = 1 if rule.control else numbers.size // len(rule.sum_fields)
        buckets = [[Lanes() for _ in rule.sum_fields] for _ in range(count)]
        for plan in plans:
            plan.add_up(buckets)
            self._counters["dispatches"] += 1
        if rule.control is None:
            numbers.reshape(-1)[:] = [lane.total() for lanes in buckets for lane in lanes]
            return
        for name, lane in zip(rule.sum_fields, buckets[0], strict=True):
            numbers[rule.number_fields.index(name)] = lane.total()
        self._counters["dispatches"] += 1
        decided = rule.control.decide(rule.control.numbers(*numbers))
        numbers[:] = decided
        for plan in plans:
            plan.make_rows(decided)

    def count_dispatch(self) -> None:
        """What is done beside the runs of plans counts too."""
        self._counters["dispatches"] += 1

    def counters(self) -> dict[str, int]:
        """What was done since the process began."""
        return dict(self._counters)

    def last_run_ns(self) -> int:
        """0: there is no device clock."""
        return 0
