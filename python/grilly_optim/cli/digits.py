"""The digits job: a perceptron learns handwritten digits with AdamW, and every device shows how fast it steps."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

import grilly_optim
from grilly_optim._devices import Choice, select
from grilly_optim._extras import load
from grilly_optim.cli import mlp
from grilly_optim.cli.demo import Progress
from grilly_optim.optim import AdamW

Array = NDArray[Any]

HIDDEN = (256, 128)
EPOCHS = 30
BATCH = 32
LEARNING_RATE = 3e-3
SEED = 0

# Every device computes the same update, so an epoch on one must end where it ends on the others.
LOSS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Data:
    """Images, a row of 64 pixels in [0, 1] each, and which digit each one shows."""

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


@dataclass
class History:
    """What happened in training: a number per epoch, the time of every optimizer step, and what came of it."""

    losses: list[float] = field(default_factory=list)
    train_accuracies: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    parameters: list[Array] = field(default_factory=list)


def load_data(seed: int = SEED) -> Data:
    """Scikit-learn's digits. A quarter, with the same share of every digit, is held out and never trained on."""
    images, labels = load("sklearn.datasets", extra="demo").load_digits(return_X_y=True)
    parts = load("sklearn.model_selection", extra="demo").train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.25, stratify=labels, random_state=seed
    )
    train_images, test_images, train_labels, test_labels = parts
    return Data(train_images, train_labels, test_images, test_labels)


def train(data: Data, initial: Sequence[Array], device: str, epochs: int, progress: Progress) -> History:
    """Train from the initial parameters, which are left as they are; the batches are the same in every call."""
    # Memory of the device: where it has such memory, no step copies anything.
    parameters = [grilly_optim.asarray(p, copy=True, device=device) for p in initial]
    gradients = [grilly_optim.empty(p.shape, device=device) for p in initial]
    optimizer = AdamW(parameters, lr=LEARNING_RATE, device=device)

    history = History(parameters=parameters)
    random = np.random.default_rng(SEED)
    images = len(data.train_images)
    for epoch in range(epochs):
        # The learning rate falls to 0 in a straight line; options may be changed between steps.
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - epoch / epochs)
        order = random.permutation(images)
        loss_sum, correct, seen = 0.0, 0, 0
        for start in range(0, images, BATCH):
            batch = order[start : start + BATCH]
            labels = data.train_labels[batch]
            loss, logits = mlp.loss_and_gradients(parameters, data.train_images[batch], labels, gradients)

            before = perf_counter_ns()
            optimizer.step(gradients=gradients)
            history.step_ms.append((perf_counter_ns() - before) / 1e6)

            seen += len(batch)
            loss_sum += loss * len(batch)
            correct += int(np.count_nonzero(logits.argmax(axis=1) == labels))
            test = f", test {history.test_accuracies[-1]:.4f}" if history.test_accuracies else ""
            # Means of the epoch so far: a batch alone jumps about, and the last one is small.
            numbers = f"loss {loss_sum / seen:.4f}, accuracy {correct / seen:.4f}{test}"
            progress.advance(f"epoch {epoch + 1}/{epochs}", numbers)

        test_logits = mlp.forward(parameters, data.test_images)[-1]
        history.losses.append(loss_sum / images)
        history.train_accuracies.append(correct / images)
        history.test_accuracies.append(float(np.mean(test_logits.argmax(axis=1) == data.test_labels)))
        progress.line(
            f"epoch {epoch + 1}/{epochs}: loss {history.losses[-1]:.4f}, accuracy {history.train_accuracies[-1]:.4f}, "
            f"test accuracy {history.test_accuracies[-1]:.4f}"
        )
    return history


def differing(losses: Mapping[str, float]) -> list[str]:
    """The devices whose loss stands apart, if not all agree within LOSS_TOLERANCE; NumPy's is taken for right."""
    values = list(losses.values())
    if max(values) - min(values) <= LOSS_TOLERANCE and not any(np.isnan(values)):
        return []
    # Where two losses are apart by more than the tolerance, one of them is more than half of it from NumPy's.
    return [name for name, loss in losses.items() if not abs(loss - losses["numpy"]) <= LOSS_TOLERANCE / 2]


def compare_devices(data: Data, initial: Sequence[Array]) -> int:
    """Train one epoch on every device that is there and print what a step takes; 1 if they disagree, else 0."""
    print(f"{'device':<10}  {'ms per step':>11}  {'mean loss':>10}  name")
    losses: dict[str, float] = {}
    failed = False
    for info in grilly_optim.devices():
        if not info.usable:
            print(f"{info.device or info.kind:<10}  {'-':>11}  {'-':>10}  {info.name}: cannot be used: {info.reason}")
            continue
        try:
            history = train(data, initial, info.device, 1, Progress(total=0, quiet=True))
        except (grilly_optim.DeviceUnavailable, grilly_optim.DeviceLost, grilly_optim.OutOfDeviceMemory) as error:
            # One broken driver must not hide what the others did.
            print(f"{info.device:<10}  {'-':>11}  {'-':>10}  {info.name}: failed: {error}")
            failed = True
            continue
        losses[info.device] = history.losses[0]
        milliseconds = statistics.median(history.step_ms)
        print(f"{info.device:<10}  {milliseconds:11.4f}  {losses[info.device]:10.6f}  {info.name}")
    apart = differing(losses)
    if apart:
        print(f"The losses should agree within {LOSS_TOLERANCE:g}, and do not: {', '.join(apart)} differs from numpy")
    else:
        spread = max(losses.values()) - min(losses.values())
        print(f"The losses agree within {LOSS_TOLERANCE:g}: the largest difference is {spread:.1g}")
    return 1 if failed or apart else 0


def draw(history: History, choice: Choice, path: Path) -> None:
    """Save the learning curve: loss and accuracy over the epochs."""
    # A Figure by itself, without pyplot: it draws into files and never looks for a screen.
    figure = load("matplotlib.figure", extra="demo").Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle(f"Handwritten digits, AdamW on {choice.info.name}")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(history.losses) + 1)
    left.plot(epochs, history.losses, marker=".")
    left.set(title="Training loss", xlabel="epoch", ylabel="mean cross-entropy", yscale="log")
    right.plot(epochs, history.train_accuracies, marker=".", label="training images, while they are learned")
    at_the_end = f"held-out images: {history.test_accuracies[-1]:.4f} at the end"
    right.plot(epochs, history.test_accuracies, marker=".", label=at_the_end)
    right.set(title="Accuracy", xlabel="epoch", ylabel="share of images named correctly")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def run(options: argparse.Namespace) -> int:
    """Train, print accuracy, device and the table of devices, and save the picture."""
    sizes = (64, *HIDDEN, 10)
    initial = mlp.initial_parameters(sizes, SEED)
    elements = sum(p.size for p in initial)
    choice = select(options.device, elements)
    options.output.mkdir(parents=True, exist_ok=True)
    data = load_data()
    if not options.quiet:
        print(
            f"{len(data.train_images)} images of handwritten digits to learn from, {len(data.test_images)} held out\n"
            f"perceptron {'-'.join(map(str, sizes))} with {elements} parameters, AdamW on {choice.info.device}",
            flush=True,
        )

    epochs = options.epochs or EPOCHS
    batches = -(-len(data.train_images) // BATCH)
    with Progress(total=epochs * batches, quiet=options.quiet) as progress:
        history = train(data, initial, choice.info.device, epochs, progress)
    if not options.quiet:
        print()

    accuracy, held_out = history.test_accuracies[-1], len(data.test_images)
    print(f"test accuracy {accuracy:.4f}: {round(accuracy * held_out)} of the {held_out} images held out")
    print(f"device {choice.info.device}, {choice.info.name}: {choice.why}")
    print("\ntime per step on every device that is there, each from an epoch trained on it:")
    status = compare_devices(data, initial)

    picture = options.output / "digits.png"
    draw(history, choice, picture)
    print(f"\nlearning curve: {picture}")
    return status
