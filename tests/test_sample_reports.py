"""`sample`: what it tells of divergences, and its bar."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import SamplingWarning
from tests import sampling_runs
from tests.sampling_runs import draw


def cliff(q: Any) -> Any:
    """A normal distribution that has an end."""
    return (np.inf if q[0] > 1.5 else float(q @ q) / 2), q


def test_divergences_are_told_once_at_the_end() -> None:
    with pytest.warns(
        SamplingWarning, match=r"of 300 draws come from transitions that diverged \(by chain: 0: "
    ) as found:
        trace = draw(cliff, 100, kernel="hmc", initial_position=np.zeros(2))
    assert len(found) == 1
    assert found[0].filename == sampling_runs.__file__
    assert f"{trace.sample_stats['diverging'].sum()} of 300" in str(found[0].message)
    assert "target_accept" in str(found[0].message)


def test_a_random_walk_may_meet_walls() -> None:
    assert draw(cliff, 100, kernel="rwm", initial_position=np.zeros(2)).draws[:, :, 0].max() <= 1.5


def test_the_bar_shows_what_is_going_on(capsys: pytest.CaptureFixture[str]) -> None:
    def slow_cliff(q: Any) -> Any:
        time.sleep(0.001)  # the bar is drawn anew every tenth of a second
        return cliff(q)

    with pytest.warns(SamplingWarning):
        draw(slow_cliff, 100, kernel="hmc", initial_position=np.zeros(2), progress=True)
    shown = capsys.readouterr().err
    assert "480/480" in shown
    assert "warm-up, step size" in shown
    assert re.search(r"480/480.*, [1-9]\d* diverging, step size \d\.\d+\]$", shown.rstrip())


def test_the_bar_of_an_executor_and_of_a_resumed_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        draw(executor=executor, progress=True, checkpoint=tmp_path / "run")
    assert "240/240" in capsys.readouterr().err
    draw(num_samples=40, progress=True, checkpoint=tmp_path / "run", resume=True)
    shown = capsys.readouterr().err
    assert "300/300" in shown
    assert "240/300" in shown
