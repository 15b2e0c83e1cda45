"""The sample job of the demo, as a user runs it."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.cli import main, sample
from grilly_optim.sampling.potentials import LogisticRegression
from tests.test_demo import Terminal

pytestmark = pytest.mark.usefixtures("own_folder")

ROW = r" +(-?[\d.]+) +([\d.]+) +([\d.]+) +(\d+) +(\d+) +([\d.]+)$"


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CHAINS": 3, "WARMUP": 2, "DRAWS": 8, "SOFTWARE_CHAINS": 3, "SOFTWARE_DRAWS": 8}.items():
        monkeypatch.setattr(sample, name, value)


def pictures(out: str) -> list[Path]:
    return [Path(re.search(rf"^{name}: (.+)$", out, re.M)[1]) for name in ("traces", "ranks", "energies")]


def row(out: str, name: str) -> list[float]:
    return [float(x) for x in re.search(rf"^{name}{ROW}", out, re.M).groups()]


def test_whole_job(capsys: pytest.CaptureFixture[str]) -> None:
    """With its own settings: the chains agree about every coefficient, nothing diverges, and tumours are told apart."""
    assert main(["demo", "sample"]) == 0
    out = capsys.readouterr().out
    assert "nuts: 64 chains of 250 draws, 31 coordinates" in out
    assert "no problems found" in out
    for name in sample.load_data().names:
        *_, bulk, tail, r_hat = row(out, name)
        assert min(bulk, tail) > 8000
        assert r_hat < 1.01
    assert "0 of 16000 transitions diverged" in out
    rate = re.search(r"^[\d.]+ s with the warm-up: (\d+) effective draws per second of ", out, re.M)[1]
    assert int(rate) > 100
    for name in ("posterior predictive", "maximum a posteriori"):
        right, loss = map(float, re.search(rf"^{name} +([\d.]+) +([\d.]+)$", out, re.M).groups())
        assert right > 0.95
        assert 0.05 < loss < 0.12
    assert re.search(r"^device cpu, compiled CPU .*: .*too few for a GPU", out, re.M)
    for path in pictures(out):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_held_out_tumours_are_apart_and_standardized_like_the_others() -> None:
    data = sample.load_data()
    assert data.train.shape == (426, 31)
    assert data.test.shape == (143, 31)
    assert data.names[:2] == ("intercept", "mean radius")
    assert (data.train[:, 0] == 1).all()
    assert (data.test[:, 0] == 1).all()
    np.testing.assert_allclose(data.train[:, 1:].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(data.train[:, 1:].std(axis=0), 1)
    assert 0.01 < np.abs(data.test[:, 1:].mean(axis=0)).max() < 0.5
    assert not {r.tobytes() for r in data.train} & {r.tobytes() for r in data.test}
    # Malignant tumours are the larger ones, and fewer.
    assert data.train[data.train_labels == 1, 1].mean() > 0.5
    assert data.train_labels.mean() == pytest.approx(212 / 569, abs=0.002)


def test_maximum_has_no_slope() -> None:
    data = sample.load_data()
    potential = LogisticRegression(data.train, data.train_labels, sample.PRIOR_STD)
    assert np.abs(potential(sample.maximum(data))[1]).max() < 1e-3
    assert np.abs(potential(np.zeros(31))[1]).max() > 10


def test_predictive_is_the_mean_of_probabilities() -> None:
    p = sample.predictive(np.array([[1.0, 2.0], [1.0, -1e4]]), np.array([[0.5, 0.25], [0.0, 1.0]]))
    np.testing.assert_allclose(p, [(1 / (1 + np.exp(-1)) + 1 / (1 + np.exp(-2))) / 2, 0.0], atol=1e-12)


def test_every_device_does_the_work(device: str, few_draws: None, capsys: pytest.CaptureFixture[str]) -> None:
    """On each the table is there, and the device has been at work."""
    before = grilly_optim.counters(device)["dispatches"]
    assert main(["demo", "sample", "--quiet", "--device", device]) == 0
    assert grilly_optim.counters(device)["dispatches"] > before
    out = capsys.readouterr().out
    assert out.startswith("nuts: 3 chains of 8 draws, 31 coordinates\n")
    assert re.search(r"^device .*: it was asked for$", out, re.M)


def test_devices_without_doubles_sample_in_float32() -> None:
    data, choice = sample.load_data(), sample.select("cpu", 1)
    without = dataclasses.replace(choice, info=dataclasses.replace(choice.info, float64=False))
    for expected, chosen in ((np.float64, choice), (np.float32, without)):
        assert sample.draw(data, 1, 1, chosen, progress=False).draws.dtype == expected


def test_software_vulkan_takes_fewer_chains(
    few_draws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = sample.select("numpy", 1)
    for kind, told in (("discrete", False), ("cpu", True)):
        info = dataclasses.replace(choice.info, kind="vulkan", type=kind)
        monkeypatch.setattr(sample, "select", lambda *_, info=info: dataclasses.replace(choice, info=info))
        monkeypatch.setattr(sample, "SOFTWARE_CHAINS", 2)
        assert main(["demo", "sample"]) == 0
        out = capsys.readouterr().out
        assert ("software Vulkan is slow: 2 chains here, instead of 3" in out) == told
        assert f"nuts: {2 if told else 3} chains of 8 draws" in out


def test_quiet_prints_results_only(few_draws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet: no progress; divergences are in the report, and no warnings; --output: another folder."""
    assert main(["demo", "sample", "--quiet", "--output", str(tmp_path / "a" / "b")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("nuts: ")
    assert captured.err == ""
    assert all(path.parent == tmp_path / "a" / "b" and path.exists() for path in pictures(captured.out))


def test_what_was_drawn_until_an_interrupt_is_shown(
    few_draws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = sample.draw

    def interrupted(*arguments: Any, **options: Any) -> Any:
        trace = whole(*arguments, **options)
        stats = {name: values[:, :5] for name, values in trace.sample_stats.items()}
        return dataclasses.replace(trace, draws=trace.draws[:, :5], sample_stats=stats, interrupted=True)

    monkeypatch.setattr(sample, "draw", interrupted)
    assert main(["demo", "sample", "--quiet"]) == 130
    out = capsys.readouterr().out
    assert out.startswith("nuts: 3 chains of 5 draws, 31 coordinates, interrupted\n")
    assert "traces:" not in out


def test_options_that_cannot_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "sample", "--epochs", "3"]) == 2
    assert "--epochs is for jobs that train" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "arviz", None)
    assert main(["demo", "sample"]) == 1
    captured = capsys.readouterr()
    assert "pip install 'grilly_optim[sampling]'" in captured.err
    assert captured.out == ""
    assert not Path("demo-output").exists()


@pytest.mark.subprocess
def test_bar_on_a_terminal() -> None:
    terminal = Terminal("sample", "--device", "cpu")
    try:
        terminal.read_until(r"\|.*/35\.2k .*warm-up, step size \d")
        terminal.read_until(r"\|.*/35\.2k .*0 diverging")
    finally:
        terminal.close()
