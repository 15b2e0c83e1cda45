"""HMC: what it refuses, with one clear error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from grilly_optim._devices import open_device
from grilly_optim.sampling import HMC, _host
from tests.chains import (
    quartic,
)

BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "whole numbers": ({"initial_position": np.ones(3, int)}, TypeError, "initial_position must be float32 or float64"),
    "half precision": (
        {"initial_position": np.ones(3, np.float16)},
        TypeError,
        "initial_position .* got dtype float16",
    ),
    "0-d": ({"initial_position": np.array(1.0)}, ValueError, r"initial_position must have shape \(D,\).* got \(\)"),
    "no dimension": ({"initial_position": np.ones(0)}, ValueError, r"initial_position .* got \(0,\)"),
    "no chain": ({"initial_position": np.ones((0, 3))}, ValueError, r"initial_position .* got \(0, 3\)"),
    "a ragged list": ({"initial_position": [[1.0], [1.0, 2.0]]}, ValueError, "initial_position is no array"),
    "NaN": ({"initial_position": np.array([np.nan])}, ValueError, "initial_position must be finite"),
    "infinite energy": (
        {"pot_energy_func": lambda q: (np.inf, q)},
        ValueError,
        "energy at initial_position .* got inf",
    ),
    "an energy of NaN": ({"pot_energy_func": lambda q: (np.nan, q)}, ValueError, "energy at initial_position .* nan"),
    "no gradient": (
        {"pot_energy_func": lambda q: (0.0, q / 0)},
        ValueError,
        "gradient at initial_position must be fin",
    ),
    "no potential": ({"pot_energy_func": None}, TypeError, "pot_energy_func must be a callable .* got NoneType"),
    "stepsize 0": ({"stepsize": 0.0}, ValueError, r"stepsize must be above 0, got 0\.0"),
    "stepsize NaN": ({"stepsize": np.nan}, ValueError, "stepsize must be above 0, and finite, got nan"),
    "stepsizes": ({"stepsize": np.ones(2)}, TypeError, "stepsize must be a real number"),
    "no steps": ({"num_steps": 0}, ValueError, r"num_steps must be from 1 to 2\^24 - 1, got 0"),
    "1.0 steps": ({"num_steps": 1.0}, TypeError, r"num_steps must be a whole number, got 1\.0"),
    "no mass": ({"inv_mass": 0}, ValueError, "inv_mass must be positive, got 0"),
    "asymmetric": ({"inv_mass": np.triu(np.ones((3, 3)))}, ValueError, "inv_mass must be symmetric"),
    "another mass": ({"inv_mass": np.ones(2)}, ValueError, r"inv_mass must have shape .* got \(2,\)"),
    "logger": ({"logger": "x"}, TypeError, r"logger must have debug\(\), got str"),
    "interval": ({"log_interval": 0}, ValueError, "log_interval must be 1 or more, got 0"),
    "a path as writer": ({"writer": "./runs"}, TypeError, r"writer must have add_scalar\(.*\), got str"),
    "tag": ({"writer_tag": 1}, TypeError, "writer_tag must be a string, got 1"),
    "seed": ({"seed": -1}, ValueError, "seed must be from 0"),
    "device": ({"device": "cuda"}, RuntimeError, "device='cuda' is not known"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HMC(**{"initial_position": np.ones(3), "pot_energy_func": quartic, "device": "numpy", **change})


def test_a_device_without_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def single(device: str | None, elements: int | None = None) -> Any:
        choice, backend = open_device(device, elements)
        return replace(choice, info=replace(choice.info, name="a small GPU", float64=False)), backend

    monkeypatch.setattr(_host, "open_device", single)
    HMC(np.ones(3, np.float32), quartic, device="numpy")
    with pytest.raises(TypeError, match="positions are float64, which a small GPU does not support: use float32"):
        HMC(np.ones(3), quartic, device="numpy")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("stepsize", -1.0, ValueError, "stepsize must be above 0"),
        ("stepsize", [0.1, 0.0], ValueError, r"stepsize\[1\] must be above 0"),
        (
            "stepsize",
            [0.1] * 3,
            ValueError,
            r"stepsize must be a number, or 2 numbers, one per chain, got shape \(3,\)",
        ),
        ("num_steps", 0, ValueError, r"num_steps must be from 1 to 2\^24 - 1"),
        ("inv_mass", -1.0, ValueError, "inv_mass must be positive"),
    ],
)
def test_bad_settings_change_nothing(name: str, value: Any, error: type[Exception], message: str) -> None:
    chain = HMC(np.ones((2, 3)), quartic, device="numpy")
    before = chain.state_dict()
    with pytest.raises(error, match=message):
        setattr(chain, name, value)
    np.testing.assert_equal(chain.state_dict(), before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": -1}, ValueError, "n must be 0 or more, got -1"),
        ({"n": 2.0}, TypeError, r"n must be a whole number, got 2\.0"),
        ({"n": 2, "momentum": np.ones((2, 3))}, ValueError, r"momentum must have shape \(2, 4\), got \(2, 3\)"),
        ({"n": 2, "momentum": np.ones((1, 4))}, ValueError, r"momentum must have shape \(2, 4\), got \(1, 4\)"),
        ({"n": 2, "momentum": np.full((2, 4), np.nan)}, ValueError, "momentum must be finite"),
        (
            {"n": 2, "momentum": np.ones((2, 4), complex)},
            TypeError,
            "momentum must hold real numbers, got dtype complex",
        ),
        ({"n": 2, "uniform": np.ones(3)}, ValueError, r"uniform must have shape \(2,\), got \(3,\)"),
        ({"n": 2, "uniform": np.full(2, 1.5)}, ValueError, r"uniform must be in \[0, 1\], got 1\.5 to 1\.5"),
    ],
)
def test_bad_draws(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    chain = HMC(np.ones(4), quartic, device="numpy")
    with pytest.raises(error, match=message):
        chain.simulate_chain(**arguments)
    assert chain.num_states == 0


def test_clearing_takes_whole_numbers() -> None:
    with pytest.raises(TypeError, match=r"n must be a whole number, got 1\.5"):
        HMC(np.ones(4), quartic, device="numpy").clear_position_trajectory(1.5)  # type: ignore[arg-type]
