"""The demo's continual job: its tasks, its steps, its sums, and the job as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.cli import continual, digits, main
from grilly_optim.cli.continual import METHODS, Method, Summary
from grilly_optim.cli.demo import Progress
from tests.table import assert_bits
from tests.test_demo import Frames, Terminal

pytestmark = pytest.mark.usefixtures("own_folder")

SILENT = Progress(total=0, quiet=True)


@pytest.fixture
def two_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continual, "SEEDS", (100, 101))


def batches(seed: int) -> int:
    return sum(-(-len(t.train_images) // continual.BATCH) for t in continual.split(digits.load_data(seed)))


def test_each_task_has_a_pair_of_digits() -> None:
    data = digits.load_data(3)
    tasks = continual.split(data)
    assert sum(len(t.train_images) for t in tasks) == len(data.train_images)
    for t, task in enumerate(tasks):
        mine = np.isin(data.test_labels, [2 * t, 2 * t + 1])
        np.testing.assert_array_equal(task.test_images, data.test_images[mine])
        np.testing.assert_array_equal(task.test_labels + 2 * t, data.test_labels[mine])


def test_seeds_hold_out_other_images() -> None:
    assert not np.array_equal(digits.load_data(0).test_images, digits.load_data(1).test_images)
    np.testing.assert_array_equal(digits.load_data().test_images, digits.load_data(digits.SEED).test_images)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_same_numbers_in_every_run(method: Method) -> None:
    first, second = (continual.train(method, 100, "numpy", 1, SILENT) for _ in range(2))
    assert_bits(first, second)
    assert (np.isnan(first) == np.triu(np.ones((5, 5), bool), 1)).all()
    assert not np.array_equal(first, continual.train(method, 101, "numpy", 1, SILENT), equal_nan=True)


def test_methods_are_the_same_until_the_first_task_ends() -> None:
    assert len({continual.train(m, 100, "numpy", 1, SILENT)[0, 0] for m in METHODS}) == 1


def test_bar_shows_the_mean_loss_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []
    real = continual.mlp.loss_and_gradients

    def watched(parameters: Any, inputs: Any, labels: Any, gradients: Any) -> Any:
        result = real(parameters, inputs, labels, gradients)
        seen.append((result[0], len(labels)))
        return result

    monkeypatch.setattr(continual.mlp, "loss_and_gradients", watched)
    frames = Frames()
    continual.train(METHODS[0], 100, "numpy", 2, frames)
    for t, task in enumerate(continual.split(digits.load_data(100))):
        images = len(task.train_images)
        for _ in range(2):
            batches_of_epoch = [seen.pop(0) for _ in range(-(-images // continual.BATCH))]
            mean = sum(loss * count for loss, count in batches_of_epoch) / images
            assert frames.shown.pop(0) == (f"fine-tuning, seed 100, task {t + 1}/5", f"loss {mean:.2g}")
    assert (frames.shown, seen) == ([], [])


def test_summary_of_a_small_case() -> None:
    def accuracies(first: list[float], last: list[float]) -> Any:
        """Two seeds, two tasks: the first one as it is in the end; everything else 1."""
        a = np.ones((2, 2, 2))
        a[:, 0, 1] = np.nan
        a[:, 1, 0], a[:, 1, 1] = first, last
        return a

    summaries = continual.summarize(
        {"plain": accuracies([0.5, 0.7], [1.0, 1.0]), "kept": accuracies([0.8, 0.9], [1.0, 0.9])}
    )
    plain, kept = summaries.values()
    assert plain.final == pytest.approx(0.8)
    assert plain.final_error == pytest.approx(0.05)
    assert (plain.gain, plain.gain_error) == (0.0, 0.0)
    assert plain.learned == 1.0
    assert kept.learned == pytest.approx(0.975)
    assert kept.gain == pytest.approx(0.1)
    assert kept.gain_error == pytest.approx(0.05)


@pytest.mark.parametrize(("gain", "better"), [(0.101, True), (0.099, False), (-0.2, False)])
def test_a_gain_counts_from_two_standard_errors(gain: float, better: bool) -> None:
    plain = Summary(learned=1.0, final=0.8, final_error=0.1, gain=0.0, gain_error=0.0)
    other = Summary(learned=1.0, final=0.8 + gain, final_error=0.1, gain=gain, gain_error=0.05)
    text = continual.report({"plain": plain, "other": other})
    assert ("other: the gain over plain is more than 2 standard errors" in text) == better
    assert ("other: the gain over plain is NOT more than 2 standard errors" in text) != better


def table(out: str) -> dict[str, list[float]]:
    """Method -> learned, final, its error, and but for the first gain and its error."""
    rows = {}
    for method in METHODS:
        row = re.search(rf"^{method.name} +(\d\.\d+.*)$", out, re.M)
        assert row, method.name
        rows[method.name] = [float(x) for x in row[1].replace("+-", " ").split()]
    return rows


def test_whole_job(capsys: pytest.CaptureFixture[str]) -> None:
    """The job with its own settings: plain fine-tuning forgets, EWC and SI keep more, by more than chance."""
    assert main(["demo", "continual"]) == 0
    out = capsys.readouterr().out
    rows = table(out)
    assert min(learned for learned, *_ in rows.values()) > 0.95
    assert rows["fine-tuning"][1] < rows["fine-tuning"][0] - 0.05
    for name in ("EWC", "SI"):
        gain, error = rows[name][3:]
        assert gain > 2 * error
        assert f"{name}: the gain over fine-tuning is more than 2 standard errors" in out
    lines = re.findall(r"^(.+), seed (\d): accuracy [\d.]+ in the end$", out, re.M)
    assert lines == [(m.name, str(s)) for m in METHODS for s in range(5)]
    assert re.search(r"^device cpu, compiled CPU .*: .*too few for a GPU", out, re.M)
    path = Path(re.search(r"^accuracies: (.+)$", out, re.M)[1])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_device_does_the_work(device: str, two_seeds: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = grilly_optim.counters(device)["dispatches"]
    assert main(["demo", "continual", "--epochs", "1", "--device", device]) == 0
    done = grilly_optim.counters(device)["dispatches"] - before
    assert done == len(METHODS) * sum(batches(seed) for seed in continual.SEEDS)
    out = capsys.readouterr().out
    assert re.search(r"^device .*: it was asked for$", out, re.M)
    table(out)


def test_quiet_prints_results_only(two_seeds: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "continual", "--quiet", "--epochs", "1", "--output", str(tmp_path / "a" / "b")]) == 0
    captured = capsys.readouterr()
    assert "seed 100" not in captured.out
    assert captured.err == ""
    table(captured.out)
    assert (tmp_path / "a" / "b" / "continual.png").exists()


@pytest.mark.subprocess
def test_bar_on_a_terminal() -> None:
    terminal = Terminal("continual", "--epochs", "1", "--device", "numpy")
    try:
        terminal.read_until(None)
        assert terminal.process.wait(120) == 0
    finally:
        terminal.close()
    frames = re.findall(r"\r(?:fine-tuning|EWC|SI), seed \d, task \d/5 +\|.*?loss [\d.]+", terminal.output)
    assert len(frames) >= len(METHODS) * 5 * 5
    assert "in the end\r\n" not in terminal.output.split("method ")[0]
