"""Traces: for ArviZ."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import Trace
from tests.traces import Q, of_a_run


def check_export(data: Any, trace: Trace) -> None:
    q = data["posterior"]["q"]
    assert q.dims == ("chain", "draw", "coordinate")
    assert list(q.coords["coordinate"].values) == list(trace.names)
    np.testing.assert_array_equal(q.values, trace.draws)
    assert set(data["sample_stats"].data_vars) == set(trace.sample_stats)
    for name, values in trace.sample_stats.items():
        assert data["sample_stats"][name].dims == ("chain", "draw")
        np.testing.assert_array_equal(data["sample_stats"][name].values, values)
    for group in ("posterior", "sample_stats"):
        attrs = data[group].attrs
        assert (attrs["inference_library"], attrs["sampler_name"], attrs["tuning_steps"]) == (
            "grilly_optim",
            "nuts",
            500,
        )
        assert (attrs["seed"], attrs["thin"], attrs["interrupted"], attrs["sampling_time"]) == (3, 1, 0, 2.5)
        assert list(attrs["step_size"]) == [0.3, 0.3, 0.3, 0.3]


def test_export_with_the_arviz_that_is_installed() -> None:
    trace = of_a_run(names=["mu", "log tau", "t"], seconds=2.5)
    check_export(trace.to_arviz(), trace)
    bare = Trace(Q).to_arviz()
    assert "step_size" not in bare["posterior"].attrs
    assert "sampling_time" not in bare["posterior"].attrs


def test_export_with_arviz_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its parts only arviz-base, whose from_dict is ArviZ 1's, runs beside ArviZ 0.x and on Python 3.11."""
    base = pytest.importorskip("arviz_base")
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__="1.3.0", from_dict=base.from_dict))  # type: ignore[arg-type]
    trace = of_a_run(names=["mu", "log tau", "t"], seconds=2.5)
    data = trace.to_arviz()
    assert type(data).__name__ == "DataTree"
    check_export(data, trace)
