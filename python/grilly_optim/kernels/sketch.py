"""Count sketches of what plans hold, in NumPy: buckets in double, elements in ascending order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from grilly_optim.kernels.numpy_device import NumpyDevice, NumpyPlan

Array = NDArray[Any]


class NumpySketch:
    """Each bucket is the sum of the elements that fall into it, with their signs; see the device's `sketch`."""

    def __init__(
        self,
        device: NumpyDevice,
        plans: Sequence[NumpyPlan],
        fields: Sequence[str],
        buckets: Array,
        signs: Array,
        output_dim: int,
    ) -> None:
        if not plans or not fields or output_dim < 1:
            raise ValueError("a sketch is of one plan or more, one field or more, and has one bucket or more")
        if any(plan.chains != plans[0].chains for plan in plans):
            raise ValueError("plans of a sketch have as many chains")
        tensors = sorted(
            ((member, plan, i) for plan in plans for i, member in enumerate(plan.members)), key=lambda t: t[0]
        )
        ends = np.cumsum([plan.row(i, 0).size for _, plan, i in tensors])
        if not len(buckets) == len(signs) == ends[-1]:
            raise ValueError(f"buckets and signs must have one entry for each of {ends[-1]} elements")
        if len(buckets) and not 0 <= int(np.min(buckets)) <= int(np.max(buckets)) < output_dim:
            raise ValueError("a bucket lies outside of the sketch")
        for plan in plans:
            for field in fields:
                plan.require(field)
        self._device, self._fields, self._output_dim = device, list(fields), output_dim
        self._chains = plans[0].chains
        pieces = zip(np.split(np.asarray(buckets), ends[:-1]), np.split(np.asarray(signs), ends[:-1]), strict=True)
        self._tensors = [
            (plan, i, bucket.astype(np.intp), sign.astype(np.float64))
            for (_, plan, i), (bucket, sign) in zip(tensors, pieces, strict=True)
        ]

    def read(self, to: Array) -> None:
        """What took part in the last run, if that was one with sums: (chains, fields, buckets) doubles."""
        out = to.reshape(self._chains, len(self._fields), self._output_dim)
        with np.errstate(all="ignore"):
            for chain in range(self._chains):
                there = [t for t in self._tensors if t[0].measured(t[1], chain)]
                buckets = np.concatenate([np.zeros(0, np.intp), *(bucket for _, _, bucket, _ in there)])
                for k, field in enumerate(self._fields):
                    signed = (sign * plan.row(i, chain, field) for plan, i, _, sign in there)
                    weights = np.concatenate([np.zeros(0), *signed])
                    out[chain, k] = np.bincount(buckets, weights, self._output_dim)
        self._device.count_dispatch()
