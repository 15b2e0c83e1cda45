"""The demo's ep job: what it trains with, its sums, and the job as a user runs it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grilly_optim
from grilly_optim.cli import digits, ep, main
from grilly_optim.cli.demo import Progress
from grilly_optim.cli.ep import METHODS, SEEDS, History, Method, Summary
from tests.test_demo import Frames, Terminal

pytestmark = pytest.mark.usefixtures("own_folder")

SILENT = Progress(total=0, quiet=True)
GOALS = {"ConditionalGaussian": 0.96, "RestrictedHopfield": 0.94}

methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@pytest.fixture
def one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ep, "SEEDS", (0,))


def test_pixels_are_standardized_by_the_images_to_learn_from() -> None:
    data, raw = ep.load_data(), digits.load_data()
    assert data.train_images.dtype == np.float32
    assert data.train_images.mean() == pytest.approx(0, abs=1e-5)
    assert data.train_images.std() == pytest.approx(1, abs=1e-5)
    scaled = (raw.test_images - raw.train_images.mean()) / raw.train_images.std()
    np.testing.assert_allclose(data.test_images, scaled, rtol=1e-6)
    np.testing.assert_array_equal(data.test_labels, raw.test_labels)


@methods
def test_same_numbers_in_every_run(method: Method) -> None:
    data = ep.load_data()
    first, second = (ep.train(method, data, 100, "numpy", 1, SILENT) for _ in range(2))
    assert first == second
    assert first != ep.train(method, data, 101, "numpy", 1, SILENT)


@methods
def test_the_held_out_images_are_not_learned(method: Method) -> None:
    """The training accuracies stay what they are, whatever is held out."""
    data = ep.load_data()
    other = digits.Data(data.train_images, data.train_labels, data.test_images[:7] * 2, data.test_labels[:7])
    mine, others = (ep.train(method, d, 100, "numpy", 2, SILENT) for d in (data, other))
    assert mine.train == others.train
    assert mine.test != others.test


def test_training_accuracy_counts_each_image_once_before_it_is_learned() -> None:
    """Of an epoch with a learning rate close to 0, it is the accuracy of a network that has learned nothing."""
    slow = dataclasses.replace(METHODS[0], lr=1e-12)
    data = ep.load_data()
    images, labels = data.train_images, data.train_labels
    history = ep.train(slow, digits.Data(images, labels, images, labels), 100, "numpy", 1, SILENT)
    assert history.train == history.test


def test_bar_shows_the_accuracies_of_the_epoch() -> None:
    frames = Frames()
    history = ep.train(METHODS[0], ep.load_data(), 100, "numpy", 2, frames)
    assert frames.shown == [
        (
            f"ConditionalGaussian, seed 100, epoch {k + 1}/2",
            f"accuracy {history.train[k]:.4f}, test {history.test[k]:.4f}",
        )
        for k in range(2)
    ]


def test_summary_is_of_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter([History([0.1, 0.5], [0.9, 0.6]), History([0.2, 0.7], [0.9, 0.8]), History([0.3, 0.9], [0.9, 0.4])])
    monkeypatch.setattr(ep, "train", lambda *_: next(made))
    histories, summary = ep.learn(METHODS[0], ep.load_data(), "numpy", 2, SILENT)
    assert [h.test[-1] for h in histories] == [0.6, 0.8, 0.4]
    assert (summary.train, summary.test) == (pytest.approx(0.7), pytest.approx(0.6))
    assert (summary.least, summary.most) == (0.4, 0.8)


@pytest.mark.parametrize(("test", "status"), [(0.51, 0), (0.5, 1), (0.1, 1), (float("nan"), 1)])
def test_status_says_whether_it_learned(
    test: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One energy that did not is enough, and is named."""

    def learn(method: Method, *_: Any) -> Any:
        mine = test if method.name == "RestrictedHopfield" else 0.99
        return [History([mine], [mine])], Summary(mine, mine, mine, mine, 0.0)

    monkeypatch.setattr(ep, "learn", learn)
    assert main(["demo", "ep", "--quiet"]) == status
    err = capsys.readouterr().err
    assert ("grilly-optim: RestrictedHopfield did not learn: test accuracy" in err) == bool(status)
    assert "ConditionalGaussian" not in err


def table(out: str) -> dict[str, list[float]]:
    """Energy -> accuracy, test accuracy, its least and most, seconds."""
    rows = {}
    for method in METHODS:
        row = re.search(rf"^{method.name} +(\d\.\d+ .*)$", out, re.M)
        assert row, method.name
        rows[method.name] = [float(x) for x in row[1].split()]
    return rows


def test_whole_job(capsys: pytest.CaptureFixture[str]) -> None:
    """The job with its own settings: both energies learn, in the table, the lines and the picture."""
    assert main(["demo", "ep"]) == 0
    out = capsys.readouterr().out
    rows = table(out)
    for name, (train, test, least, most, _) in rows.items():
        assert test >= GOALS[name]
        assert train > test
        assert least <= test <= most
    lines = re.findall(r"^(.+), seed (\d): accuracy [\d.]+, test accuracy ([\d.]+)$", out, re.M)
    assert [(name, seed) for name, seed, _ in lines] == [(m.name, str(s)) for m in METHODS for s in SEEDS]
    for method in METHODS:
        mean = np.mean([float(accuracy) for name, _, accuracy in lines if name == method.name])
        assert rows[method.name][1] == pytest.approx(mean, abs=1e-4)
    assert re.search(r"^device cpu, compiled CPU .*: .*too few for a GPU", out, re.M)
    path = Path(re.search(r"^accuracies: (.+)$", out, re.M)[1])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_device_does_the_work(device: str, one_seed: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step of every relaxation and of the optimizer; the free phase of the one energy has no steps."""
    before = grilly_optim.counters(device)["dispatches"]
    assert main(["demo", "ep", "--epochs", "1", "--device", device]) == 0
    done = grilly_optim.counters(device)["dispatches"] - before
    phases = {"ConditionalGaussian": 1, "RestrictedHopfield": 3}
    assert done >= -(-1347 // ep.BATCH) * sum(phases[m.name] * m.n_relax + 1 for m in METHODS)
    out = capsys.readouterr().out
    assert re.search(r"^device .*: it was asked for$", out, re.M)
    table(out)


def test_quiet_prints_results_only(one_seed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "ep", "--quiet", "--epochs", "1", "--output", str(tmp_path / "a" / "b")]) == 0
    captured = capsys.readouterr()
    assert "seed 0" not in captured.out
    assert captured.err == ""
    table(captured.out)
    assert (tmp_path / "a" / "b" / "ep.png").exists()


@pytest.mark.subprocess
def test_bar_on_a_terminal() -> None:
    terminal = Terminal("ep", "--epochs", "1", "--device", "numpy")
    try:
        terminal.read_until(None)
        assert terminal.process.wait(120) == 0
    finally:
        terminal.close()
    pattern = r"\r(?:ConditionalGaussian|RestrictedHopfield), seed \d, epoch 1/1 +\|.*?test [\d.]+"
    assert len(re.findall(pattern, terminal.output)) >= len(METHODS) * len(SEEDS)
    assert not re.search(r"seed \d: accuracy", terminal.output)
