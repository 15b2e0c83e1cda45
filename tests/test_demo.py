"""The demo: the perceptron's gradients, and the digits job as a user runs it, with and without a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import grilly_optim
from grilly_optim.cli import digits, main, mlp
from grilly_optim.cli.demo import JOBS, Progress

pytestmark = pytest.mark.usefixtures("own_folder")

BATCHES = -(-1347 // digits.BATCH)


def test_gradients_equal_finite_differences() -> None:
    """Every element of every parameter, in float64."""
    random = np.random.default_rng(1)
    parameters = [p.astype(np.float64) for p in mlp.initial_parameters((5, 7, 6, 4), seed=1)]
    for p in parameters:
        p += 0.1 * random.standard_normal(p.shape)
    inputs, labels = random.standard_normal((9, 5)), random.integers(0, 4, 9)
    gradients = [np.full_like(p, np.nan) for p in parameters]
    mlp.loss_and_gradients(parameters, inputs, labels, gradients)

    def loss() -> float:
        return mlp.cross_entropy(mlp.forward(parameters, inputs)[-1], labels)[0]

    h = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for i in np.ndindex(parameter.shape):
            kept = parameter[i]
            parameter[i] = kept + h
            above = loss()
            parameter[i] = kept - h
            below = loss()
            parameter[i] = kept
            assert gradient[i] == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-8)


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    """Softmax of logits far beyond exp's range."""
    loss, gradient = mlp.cross_entropy(np.array([[1e4, 0.0], [0.0, 1e4]], np.float32), np.array([0, 0]))
    assert loss == pytest.approx(5e3)
    np.testing.assert_allclose(gradient, [[0, 0], [-0.5, 0.5]])


def test_held_out_quarter_is_stratified_and_apart() -> None:
    """450 of 1,797 images, with each digit's share, and none of them among those to learn from."""
    data = digits.load_data()
    assert (len(data.train_images), len(data.test_images)) == (1347, 450)
    shares = np.bincount(data.test_labels) / np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    np.testing.assert_allclose(shares, 0.25, atol=0.005)
    assert not {i.tobytes() for i in data.train_images} & {i.tobytes() for i in data.test_images}


def test_whole_job(capsys: pytest.CaptureFixture[str]) -> None:
    """The job with its own settings: accuracy, a line per epoch, device and why, all devices, the picture."""
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert float(re.search(r"^test accuracy ([\d.]+)", out, re.M)[1]) >= 0.97
    epochs = re.findall(r"^epoch (\d+)/30: loss [\d.]+, accuracy [\d.]+, test accuracy [\d.]+$", out, re.M)
    assert [int(e) for e in epochs] == list(range(1, 31))
    # 50,826 parameters are too few for a GPU.
    assert re.search(r"^device cpu, compiled CPU .*: .*too few for a GPU", out, re.M)
    for info in grilly_optim.devices():
        numbers = r"[\d.]+ +[\d.]+" if info.usable else "- +-"
        assert re.search(rf"^{info.device or info.kind} +{numbers}  {re.escape(info.name)}", out, re.M), info
    assert "The losses agree" in out
    path = Path(re.search(r"^learning curve: (.+)$", out, re.M)[1])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_device_does_the_work(case: str, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--device picks one: it trains the epochs and one for the table, and copies nothing where memory is shared."""
    before = grilly_optim.counters(device)
    assert main(["demo", "digits", "--epochs", "2", "--device", device]) == 0
    after = grilly_optim.counters(device)
    done = {name: after[name] - before[name] for name in after}
    assert done["dispatches"] == 3 * BATCHES
    assert (done["bytes_up"] > 0, done["bytes_down"] > 0) == ((True, True) if case == "staged" else (False, False))
    assert re.search(r"^device .*: it was asked for$", capsys.readouterr().out, re.M)


def test_quiet_prints_results_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet: no progress; --output: another folder, made with its parents."""
    assert main(["demo", "--quiet", "--epochs", "1", "--output", str(tmp_path / "a" / "b")]) == 0
    captured = capsys.readouterr()
    assert "epoch 1/1" not in captured.out
    assert captured.err == ""
    assert "test accuracy" in captured.out
    assert (tmp_path / "a" / "b" / "digits.png").exists()


def test_same_numbers_in_every_run() -> None:
    """The seed is fixed, and the initial parameters are not trained in place."""
    data, initial = digits.load_data(), mlp.initial_parameters((64, 16, 10), digits.SEED)
    kept = [p.copy() for p in initial]
    histories = [digits.train(data, initial, "numpy", 1, Progress(total=0, quiet=True)) for _ in range(2)]
    assert histories[0].losses == histories[1].losses
    for p, k in zip(initial, kept, strict=True):
        np.testing.assert_array_equal(p, k)


class Frames(Progress):
    """Keeps what it is to show."""

    def __init__(self) -> None:
        super().__init__(total=0, quiet=True)
        self.shown: list[tuple[str, str]] = []

    def advance(self, what: str, numbers: str) -> None:
        self.shown.append((what, numbers))


def test_bar_shows_means_of_the_epoch() -> None:
    """At the end of each epoch they are what the line of the epoch says, whatever the last batch was."""
    data, frames = digits.load_data(), Frames()
    history = digits.train(data, mlp.initial_parameters((64, 16, 10), digits.SEED), "numpy", 3, frames)
    assert len(frames.shown) == 3 * BATCHES
    for epoch, (loss, accuracy) in enumerate(zip(history.losses, history.train_accuracies, strict=True)):
        what, numbers = frames.shown[(epoch + 1) * BATCHES - 1]
        assert what == f"epoch {epoch + 1}/3"
        test = f", test {history.test_accuracies[epoch - 1]:.4f}" if epoch else ""
        assert numbers == f"loss {loss:.4f}, accuracy {accuracy:.4f}{test}"


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("device", ["vulkan:no such thing", "tpu"])
def test_unknown_device(job: str, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One message that names the device, status 1, and nothing left behind."""
    assert main(["demo", job, "--device", device]) == 1
    captured = capsys.readouterr()
    assert device in captured.err
    assert captured.out == ""
    assert not Path("demo-output").exists()


def test_unusable_device_is_listed_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that cannot be opened has a line, and does not fail the job."""
    broken = grilly_optim.DeviceInfo("Some GPU", "vulkan", "discrete", usable=False, reason="its driver is too old")
    real = grilly_optim.devices()
    monkeypatch.setattr(grilly_optim, "devices", lambda: [broken, *real])
    assert main(["demo", "--epochs", "1"]) == 0
    assert re.search(r"^vulkan .*Some GPU: cannot be used: its driver is too old$", capsys.readouterr().out, re.M)


def test_device_that_fails_on_the_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The table goes on without it, and the status says so."""
    real = digits.train

    def failing(data: object, initial: object, device: str, epochs: int, progress: object) -> object:
        if device == "cpu":
            raise grilly_optim.DeviceLost("the device is gone")
        return real(data, initial, device, epochs, progress)

    monkeypatch.setattr(digits, "train", failing)
    assert main(["demo", "--epochs", "1", "--device", "numpy"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^cpu .*failed: the device is gone$", out, re.M)
    assert re.search(r"^numpy +[\d.]+ +[\d.]+", out, re.M)


def test_disagreement_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A device whose loss is off by more than the tolerance is named, and the status is 1."""
    real = digits.train

    def wrong(data: object, initial: object, device: str, epochs: int, progress: object) -> digits.History:
        history = real(data, initial, device, epochs, progress)
        history.losses[0] += 2 * digits.LOSS_TOLERANCE * (device == "cpu")
        return history

    monkeypatch.setattr(digits, "train", wrong)
    assert main(["demo", "--epochs", "1", "--device", "numpy"]) == 1
    assert "and do not: cpu differs from numpy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"cpu": 0.5, "numpy": 0.5}, []),
        ({"vulkan:0": 0.50009, "cpu": 0.5, "numpy": 0.5}, []),
        ({"vulkan:0": 0.50006, "cpu": 0.49994, "numpy": 0.5}, ["vulkan:0", "cpu"]),
        ({"vulkan:0": 0.5002, "cpu": 0.5, "numpy": 0.5}, ["vulkan:0"]),
        ({"vulkan:0": 0.5, "cpu": np.nan, "numpy": 0.5}, ["cpu"]),
        ({"numpy": 0.5}, []),
    ],
)
def test_differing(losses: dict[str, float], expected: list[str]) -> None:
    """All pairs are within the tolerance, or those away from NumPy are named."""
    assert digits.differing(losses) == expected


@pytest.mark.parametrize("module", ["sklearn", "tqdm", "matplotlib"])
def test_missing_extra(module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert module in captured.err
    assert "pip install 'grilly_optim[demo]'" in captured.err
    assert captured.out == ""


def test_output_that_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """A message with the path, before anything is trained."""
    Path("taken").write_text("a file")
    assert main(["demo", "--output", "taken"]) == 1
    captured = capsys.readouterr()
    assert "taken" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--epochs", "many"], ["nothing"]])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The argument parser's message and status."""
    with pytest.raises(SystemExit) as raised:
        main(["demo", *arguments])
    assert raised.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


class Terminal:
    """The demo in a process of its own, with a terminal for its input and output."""

    # A runner that was put into the background has SIGINT ignored, and its children would inherit that.
    CODE = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from grilly_optim.cli import main; sys.exit(main())"
    )

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-c", self.CODE, "demo", *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.output = ""

    def read_until(self, pattern: str | None) -> None:
        """Read until the pattern is there, or (None) to the end."""
        while pattern is None or not re.search(pattern, self.output):
            ready, _, _ = select.select([self._master], [], [], 120)
            assert ready, f"nothing came for two minutes after {self.output!r}"
            try:
                data = os.read(self._master, 65536)
            except OSError:  # how Linux says that the other side is closed
                data = b""
            if not data:
                assert pattern is None, f"ended without {pattern!r}: {self.output!r}"
                return
            self.output += data.decode(errors="replace")

    def close(self) -> None:
        """Stop what is left."""
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.mark.subprocess
def test_bar_on_a_terminal() -> None:
    """The bar is drawn for every batch, though this terminal does not know its size; there is no line per epoch."""
    terminal = Terminal("--epochs", "2", "--device", "numpy")
    try:
        terminal.read_until(None)
        assert terminal.process.wait(120) == 0
    finally:
        terminal.close()
    frames = re.findall(r"\repoch [12]/2 \|.*?loss [\d.]+, accuracy", terminal.output)
    assert len(frames) >= 2 * BATCHES
    assert "epoch 1/2:" not in terminal.output


@pytest.mark.subprocess
def test_interrupt_ends_it_cleanly() -> None:
    """Ctrl-C while the bar moves: status 130, one line, no traceback, and the cursor at the start of a line."""
    terminal = Terminal("--epochs", "100000", "--device", "numpy")
    try:
        terminal.read_until(r"\|.*loss")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until(None)
        assert terminal.process.wait(120) == 130
    finally:
        terminal.close()
    assert "Traceback" not in terminal.output
    bar, _, rest = terminal.output.rpartition("\repoch")
    assert bar
    assert re.fullmatch(r"[^\n]*\r\n\s*grilly-optim: interrupted\r\n", rest)
