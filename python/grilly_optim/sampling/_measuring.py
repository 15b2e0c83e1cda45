"""What a step measures: metrics, and sketches of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels import philox
from grilly_optim.kernels.rule import Rule
from grilly_optim.optim import _past
from grilly_optim.optim._options import Whole
from grilly_optim.optim._past import Pasts
from grilly_optim.optim._plans import Plans
from grilly_optim.optim._stepping import Stepping
from grilly_optim.optim._turns import in_turn
from grilly_optim.sampling.metrics import Metrics
from grilly_optim.sampling.sketch import CountSketch, SketchBuffer

Array = NDArray[Any]


class Measuring(Stepping):
    """Steps whose parts are added up, by group and chain, in the pass that makes them."""

    RULE: ClassVar[Rule]

    num_chains: int | None
    save_metrics: bool
    _rows_each: int
    # How many elements of each chain of a parameter can move.
    _movable: list[Array]

    def _will_measure(self, sketch_dim: int | None, sketch_seed: int, sketch: CountSketch | None) -> None:
        """Take what a sampler is built with; before there are plans."""
        self._metrics: list[Metrics] = []
        self._settled = 0
        if sketch is not None and not isinstance(sketch, CountSketch):
            raise TypeError(f"sketch must be a CountSketch, got {type(sketch).__name__}")
        if sketch is not None and sketch_dim not in (None, sketch.output_dim):
            raise ValueError(f"sketch_dim is {sketch_dim!r}, and sketch has output_dim={sketch.output_dim}")
        self._hashes = sketch
        self._sketch_dim = None if sketch_dim is None else Whole(1).take("sketch_dim", sketch_dim)
        self._sketch_seed = Whole(0, philox.SEED_BITS).take("sketch_seed", sketch_seed)
        # What a step adds up: a rule that has no other way always does, and parts are kept on that way.
        measured = self.save_metrics or self.save_sketches or not self.RULE.updates
        self._sums = self.RULE.sum_fields if measured else ()

    def _start_sketches(self, plans: Plans) -> None:
        count = sum(p.size for p in plans.parameters) // self._rows_each
        hashes = self._hashes
        if hashes is None:
            assert self._sketch_dim is not None
            hashes = CountSketch.create(count, self._sketch_dim, self._sketch_seed)
        if hashes.input_dim != count:
            raise ValueError(f"sketch is for {hashes.input_dim} elements, and the parameters have {count}")
        for launch in plans.launches:
            launch.plan.add_parts()
        kept: Any = [launch.plan for launch in plans.launches]
        names = list(self.RULE.part_fields)
        plans.sketch = self._backend.sketch(kept, names, hashes.hash_indices, hashes.hash_signs, hashes.output_dim)
        self._sketch_size = hashes.output_dim

    def _numbers(self, after: Pasts) -> Array | None:
        if not self._sums:
            return None
        return np.zeros((len(self._options), self._rows_each, len(self._sums)))

    def _settle(self, numbers: Array) -> None:
        count = max(self._pasts)
        if self._settled == count:
            return
        moved = [past == count for past in _past.unpacked(self._pasts, self._plans.sizes)]
        numel = np.zeros((len(self._options), self._rows_each), int)
        for k, own, took_part in zip(self._plans.group_of, self._movable, moved, strict=False):
            numel[k] += own * took_part
        self._follow(numbers, numel)
        if self.save_metrics:
            for metrics, sums, n in zip(self._metrics, numbers, numel, strict=False):
                metrics.take(sums, self._sums, int(n[0]))
        self._settled = count

    def _follow(self, sums: Array, numel: Array) -> None:
        """A step is over: what follows from its sums, (groups, chains, names), over so many elements."""
        return

    def get_metrics(self) -> Metrics:
        """What the last step came to, all groups together; one number per chain. No part of `state_dict`.

        Raises:
            RuntimeError: `save_metrics` is off.
        """
        return Metrics.total(list(self.iter_group_metrics()))

    def iter_group_metrics(self) -> Iterator[Metrics]:
        """The same by groups: live objects, which the next step overwrites.

        Raises:
            RuntimeError: `save_metrics` is off.
        """
        if not self.save_metrics:
            raise RuntimeError("there are no metrics: build the sampler with save_metrics=True")
        return iter(self._metrics)

    @property
    def save_sketches(self) -> bool:
        """Whether there are sketches."""
        return self._hashes is not None or self._sketch_dim is not None

    def get_sketches(self) -> SketchBuffer:
        """Count sketches of the parts of the last step, all groups together; no part of `state_dict`.

        Raises:
            RuntimeError: `sketch_dim` is None, and so is `sketch`.
        """
        if not self.save_sketches:
            raise RuntimeError("there are no sketches: build the sampler with sketch_dim=... or sketch=...")
        names = self.RULE.part_fields
        found = np.empty((self._rows_each, len(names), self._sketch_size))
        self._read_sketches(found)
        one = found[0] if self.num_chains is None else found
        parts = {name: one[..., k, :].astype(np.float32) for k, name in enumerate(names)}
        # Where nothing scales the gradient, and where there is no prior.
        parts.setdefault("part_raw", parts["part_grad"].copy())
        nothing = np.zeros_like(parts["part_grad"])
        of = (parts.get(f"part_{name}", nothing.copy()) for name in ("grad", "raw", "pull", "decay", "noise"))
        return SketchBuffer(*of)

    @in_turn
    def _read_sketches(self, to: Array) -> None:
        self._plans.sketch.read(to)
