"""The demo's hl job: its signal, its learners, its sums, and the job as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.cli import hl, main
from grilly_optim.cli.demo import Progress
from grilly_optim.cli.hl import METHODS, Method, Run, Summary
from tests.table import assert_bits
from tests.test_demo import Frames, Terminal

pytestmark = pytest.mark.usefixtures("own_folder")

SILENT = Progress(total=0, quiet=True)
NAMES = [m.name for m in METHODS]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little to learn the signal, enough to begin with it."""
    for name, value in {"TAUGHT": 400, "ALONE": 100, "STRETCH": 50, "SHOWN": 150, "SEEDS": (100, 101)}.items():
        monkeypatch.setattr(hl, name, value)


@methods
def test_same_numbers_in_every_run(method: Method, short: None) -> None:
    first, second, other = (hl.play(method, seed, "numpy", SILENT) for seed in (100, 100, 101))
    assert_bits(first.outputs, second.outputs)
    assert_bits(first.hamiltonian, second.hamiltonian)
    assert not np.array_equal(first.outputs, other.outputs)
    assert first.outputs.shape == (500,)
    assert first.hamiltonian.shape == (400,)


@methods
def test_nothing_is_learned_alone(method: Method, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target of the time alone changes nothing."""
    plain = hl.play(method, 100, "numpy", SILENT)
    real = hl.signal
    monkeypatch.setattr(hl, "signal", lambda steps: np.where(np.arange(steps) < hl.TAUGHT, real(steps), 7.0))
    assert_bits(plain.outputs, hl.play(method, 100, "numpy", SILENT).outputs)
    monkeypatch.setattr(hl, "signal", lambda steps: np.where(np.arange(steps) < 300, real(steps), 7.0))
    assert not np.array_equal(plain.outputs, hl.play(method, 100, "numpy", SILENT).outputs)


def test_hamiltonians(short: None) -> None:
    """The potential alone, and more where a model is local: it has a costate."""
    target = hl.signal(hl.TAUGHT)
    for method in METHODS:
        run = hl.play(method, 100, "numpy", SILENT)
        potential = (run.outputs[: hl.TAUGHT] - target) ** 2 / 2
        same = np.allclose(run.hamiltonian, potential, rtol=1e-4, atol=1e-6)
        assert same != method.local, method.name


def test_costates_move_frequencies_and_without_them_only_the_readout_moves(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = hl.Oscillators

    def kept(*arguments: Any, **options: Any) -> Any:
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(hl, "Oscillators", kept)
    for method in METHODS:
        hl.play(method, 100, "numpy", SILENT)
        moved = np.abs(made[-1].omega - real(1, hl.UNITS, 1, seed=100).omega).max()
        assert (moved > 1e-4) == (method.name != hl.CONTROL), method.name


def test_summary_of_a_small_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TAUGHT": 4, "ALONE": 2, "STRETCH": 2}.items():
        monkeypatch.setattr(hl, name, value)
    off = np.array([[3.0, 3.0, 9.0, 9.0, 2.0, 4.0], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    runs = [Run(hl.signal(6) + mine, np.zeros(4)) for mine in off]
    (summary,) = hl.summarize({"one": runs}).values()
    np.testing.assert_allclose(summary.first, [9.0, 1.0])
    np.testing.assert_allclose(summary.last, [81.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(summary.alone, [10.0, 0.0], atol=1e-15)
    assert not summary.has_learned
    assert hl.mean_and_error(np.array([1.0, 3.0])) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("last", "learned"), [([0.1, 0.2], True), ([0.1, 0.5], False), ([np.nan, 0.1], False), ([np.inf, 0.1], False)]
)
def test_learned_is_less_error_with_every_seed(last: list[float], learned: bool) -> None:
    assert Summary(np.array([0.5, 0.5]), np.array(last), np.zeros(2)).has_learned == learned


@pytest.mark.parametrize(
    ("alone", "words"),
    [
        ([0.1, 0.2, 0.3], "better than SGD by 0.3000 +- 0.0000, more than"),
        ([0.8, 0.9, 1.0], "worse than SGD by 0.4000 +- 0.0000, more than"),
        ([0.3, 0.6, 0.3], "better than SGD by 0.1000 +- 0.1155, NOT more than"),
    ],
)
def test_a_difference_counts_from_two_standard_errors(alone: list[float], words: str) -> None:
    ones = np.ones(3)
    text = hl.report(
        {"HL": Summary(ones, 0 * ones, np.array(alone)), "SGD": Summary(ones, ones / 2, np.array([0.4, 0.5, 0.6]))}
    )
    assert f"HL: on its own {words} 2 standard errors" in text
    assert "did NOT learn" not in text


def table(out: str) -> dict[str, list[float]]:
    """Method -> first, last and alone, each with its error."""
    rows = {}
    for name in NAMES:
        row = re.search(rf"^{name} +(\d\.\d+.*)$", out, re.M)
        assert row, name
        rows[name] = [float(x) for x in row[1].replace("+-", " ").split()]
    return rows


def test_whole_job(capsys: pytest.CaptureFixture[str]) -> None:
    """With its own settings, all learn, and a readout alone does not."""
    assert main(["demo", "hl"]) == 0
    out = capsys.readouterr().out
    rows = table(out)
    for name in NAMES[:-1]:
        assert rows[name][2] < rows[name][0] / 4
        assert rows[name][4] < 0.2
    assert rows["readout only"][2] > 0.1
    lines = re.findall(r"^(.+), seed (\d): error [\d.]+ in the end$", out, re.M)
    assert lines == [(name, str(s)) for name in NAMES for s in range(5)]
    assert re.search(r"^device cpu, compiled CPU .*: .*too few for a GPU", out, re.M)
    path = Path(re.search(r"^signals: (.+)$", out, re.M)[1])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_device_does_the_work(
    device: str, short: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hl, "TAUGHT", 60)
    before = grilly_optim.counters(device)["dispatches"]
    main(["demo", "hl", "--device", device])
    assert grilly_optim.counters(device)["dispatches"] - before == len(METHODS) * 2 * 60
    out = capsys.readouterr().out
    assert re.search(r"^device .*: it was asked for$", out, re.M)
    table(out)


def test_what_has_not_learned_is_named_and_is_the_status(
    short: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hl, "BETA", -0.003)
    assert main(["demo", "hl", "--quiet"]) == 1
    out = capsys.readouterr().out
    assert {"HL, local", "HL, non-local"} <= set(re.findall(r"^(.+): did NOT learn", out, re.M)) <= set(NAMES[:-1])


def test_what_blows_up_has_not_learned(
    short: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a warning from NumPy, and with a picture."""
    monkeypatch.setattr(hl, "LEARNING_RATE", 10.0)
    assert main(["demo", "hl", "--quiet"]) == 1
    assert "SGD: did NOT learn" in capsys.readouterr().out
    assert Path("demo-output/hl.png").exists()


def test_quiet_prints_results_only(short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "hl", "--quiet", "--output", str(tmp_path / "a" / "b")])
    captured = capsys.readouterr()
    assert captured.out.startswith("method ")
    assert captured.err == ""
    table(captured.out)
    assert (tmp_path / "a" / "b" / "hl.png").exists()


def test_bar_shows_the_error_of_the_last_steps(short: None) -> None:
    frames = Frames()
    run = hl.play(METHODS[0], 100, "numpy", frames)
    squares = (run.outputs - hl.signal(500)) ** 2
    assert frames.shown == [
        ("HL, local, seed 100", f"error {squares[t - 50 : t].mean():.4f}") for t in range(100, 501, 100)
    ]


def test_options_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "hl", "--epochs", "3"]) == 2
    assert "hl sees each step once" in capsys.readouterr().err
    assert not Path("demo-output").exists()


@pytest.mark.subprocess
def test_bar_on_a_terminal() -> None:
    terminal = Terminal("hl", "--device", "numpy")
    try:
        terminal.read_until(r"HL, local, seed 1 \|.*error \d")
    finally:
        terminal.close()
    frames = re.findall(r"\rHL, local, seed 0 +\|.*?error [\d.]+", terminal.output)
    assert len(frames) >= 50
