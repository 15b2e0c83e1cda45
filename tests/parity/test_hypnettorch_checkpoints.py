"""Side by side with hypnettorch's checkpoints: which files stay, and which are permanent; and where ours differ."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypnettorch.utils import torch_ckpts

from grilly_optim.checkpoint import (
    _store,
    get_best_ckpt_path,
    load_checkpoint,
    make_ckpt_list,
    save_checkpoint,
)

pytestmark = pytest.mark.hypnettorch

HOUR = 3600.0


def theirs(directory: Path) -> dict[int, bool]:
    """Iteration -> whether it is permanent."""
    found = {}
    for path in directory.glob("net_*"):
        content = torch.load(path)
        found[int(path.name.removeprefix("net_"))] = content["_ckpt_internal"]["permanent"]
    return found


def ours(directory: Path) -> dict[int, bool]:
    there = _store.survey(str(directory), "net")
    return {load_checkpoint(directory / e.file)["i"]: e.serial in there.permanent for e in there.entries}


def both(tmp_path: Path) -> tuple[Path, Path]:
    directories = tmp_path / "theirs", tmp_path / "ours"
    for directory in directories:
        directory.mkdir(exist_ok=True)
    return directories


def save_theirs(file_path: str | Path, score: float, i: int | None, **options: Any) -> None:
    torch_ckpts.save_checkpoint({"state_dict": {}}, str(file_path), score, train_iter=i, **options)


@pytest.mark.parametrize("seed", range(15))
def test_the_same_ones_stay(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    most = int(rng.integers(1, 7))
    every = [None, 0.5, 2, 2.5][rng.integers(4)] if seed else 2
    pause = [0.05, 0.4, 1.5][rng.integers(3)]  # hours
    now = rng.uniform(0, 2e9)
    a, b = both(tmp_path)
    permanent = 0
    for i in range(30):
        # No two scores or times are equal: then the original goes by the order in which the system lists files.
        score = float(rng.normal())
        now += HOUR * pause * rng.exponential()
        save_theirs(a / "net", score, i, max_ckpts_to_keep=most, keep_cktp_every=every, timestamp=now)
        save_checkpoint({"i": i}, b / "net", score, i, most, every, now)
        assert ours(b) == theirs(a)
        permanent = sum(ours(b).values())
    assert (permanent > 0) == (every is not None and 30 * pause > every)
    best = torch_ckpts.get_best_ckpt_path(str(a / "net"))
    assert get_best_ckpt_path(b / "net") == str(b / f"{os.path.basename(best)}.npz")
    torch_ckpts.make_ckpt_list(str(a / "net"))
    listed = [line.split(", ")[0] for line in (a / "score_list_net.txt").read_text().splitlines()]
    assert [os.path.basename(path).removesuffix(".npz") for path, _ in make_ckpt_list(b / "net")] == listed


# Where ours differ.


def test_names_that_begin_alike(tmp_path: Path) -> None:
    """The original deletes checkpoints of another name."""
    a, b = both(tmp_path)
    for name, score in (("net2", 1.0), ("net", 2.0), ("net", 3.0)):
        i = int(score)
        save_theirs(a / name, score, i, max_ckpts_to_keep=2)
        save_checkpoint({}, b / name, score, i, 2)
    assert not (a / "net2_1").exists()
    assert (b / "net2_1.npz").exists()


def test_the_callers_dict(tmp_path: Path) -> None:
    """The original writes into it, and refuses it the second time."""
    content: dict[str, Any] = {"state_dict": {}}
    a, b = both(tmp_path)
    for i in range(2):
        save_checkpoint(content, b / "net", 1.0, i)
    assert content == {"state_dict": {}}
    torch_ckpts.save_checkpoint(content, str(a / "net"), 1.0, train_iter=0)
    assert "_ckpt_internal" in content
    with pytest.raises(AssertionError):
        torch_ckpts.save_checkpoint(content, str(a / "net"), 1.0, train_iter=1)


def test_a_path_without_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original cannot have one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        save_theirs("net", 1.0, 1)
    assert save_checkpoint({}, "net", 1.0, 1) == "net_1.npz"


def test_the_same_iteration_again(tmp_path: Path) -> None:
    """The original counts the file that it is about to replace, and deletes another in its place."""
    a, b = both(tmp_path)
    for score, i in ((1.0, 1), (2.0, 2), (3.0, 2)):
        save_theirs(a / "net", score, i, max_ckpts_to_keep=2)
        save_checkpoint({"i": i}, b / "net", score, i, 2)
    assert set(theirs(a)) == {2}
    assert set(ours(b)) == {1, 2}


def test_the_best_after_its_list_was_made(tmp_path: Path) -> None:
    """The original trusts a list from earlier."""
    a, b = both(tmp_path)
    save_theirs(a / "net", 1.0, 1)
    save_checkpoint({}, b / "net", 1.0, 1)
    torch_ckpts.make_ckpt_list(str(a / "net"))
    make_ckpt_list(b / "net")
    save_theirs(a / "net", 2.0, 2)
    save_checkpoint({}, b / "net", 2.0, 2)
    assert torch_ckpts.get_best_ckpt_path(str(a / "net")) == str(a / "net_1")
    assert get_best_ckpt_path(b / "net") == str(b / "net_2.npz")
    assert sorted(os.listdir(b)) == [".net.checkpoints.json", ".net.lock", "net_1.npz", "net_2.npz"]


def test_a_numpy_score(tmp_path: Path) -> None:
    """The original cannot read its own file again."""
    a, b = both(tmp_path)
    save_theirs(a / "net", np.float64(1), 1)
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        save_theirs(a / "net", 2.0, 2)
    for i in range(2):
        save_checkpoint({}, b / "net", np.float64(i), i)


def test_a_score_that_is_no_number(tmp_path: Path) -> None:
    """The original takes it, and sorts with it."""
    a, b = both(tmp_path)
    save_theirs(a / "net", float("nan"), 1)
    with pytest.raises(ValueError, match="performance_score must be a number"):
        save_checkpoint({}, b / "net", float("nan"), 1)


def test_a_missing_directory(tmp_path: Path) -> None:
    """The original asserts that it is there."""
    with pytest.raises(AssertionError):
        torch_ckpts.get_best_ckpt_path(str(tmp_path / "missing" / "net"))
    assert get_best_ckpt_path(tmp_path / "missing" / "net") is None
