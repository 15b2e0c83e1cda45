"""Traces: files give them back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from grilly_optim.sampling import Trace, _trace_file
from tests.traces import Q, of_a_run, same


@pytest.mark.parametrize(
    "trace",
    [
        Trace(Q),
        Trace(Q.astype(np.float32), names=["µ", "log τ", "a\0"], kernel="hmc", seed=2**64 - 1),
        Trace(Q[:, :0], interrupted=True),
        Trace(np.asfortranarray(Q)[::-1, ::2], seconds=0.1 + 0.2),
        of_a_run(inv_mass=np.tile(np.eye(3), (4, 1, 1)), thin=5, stats={"lp": np.full((4, 200), np.nan)}),
    ],
)
def test_a_file_gives_back_every_bit(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "run.npz")
    assert same(trace, Trace.load(str(tmp_path / "run.npz")))


def test_arrays_can_be_read_without_us(tmp_path: Path) -> None:
    trace = of_a_run()
    trace.save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        assert (file["draws"] == trace.draws).all()
        assert (file["sample_stats.energy"] == trace.sample_stats["energy"]).all()


def test_every_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    Trace(Q[:, :1], {"lp": np.zeros((2, 1))}).save(path)
    good = path.read_bytes()
    for i in range(0, len(good), 3):
        path.write_bytes(good[:i] + bytes([good[i] ^ 16]) + good[i + 1 :])
        with pytest.raises(ValueError, match=r"run\.npz' cannot be loaded: it is (damaged|cut short)"):
            Trace.load(path)
        path.write_bytes(good[:i])
        with pytest.raises(ValueError, match=r"run\.npz' cannot be loaded: it is (damaged|cut short)"):
            Trace.load(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", draws=Q)
    (tmp_path / "b.npz").write_text("draws")
    checkpoint = save_checkpoint({"draws": Q}, str(tmp_path / "c"), 1.0)
    for path in (tmp_path / "a.npz", tmp_path / "b.npz", checkpoint):
        with pytest.raises(ValueError, match=r"was not written by Trace\.save"):
            Trace.load(path)
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "d.npz")
    with pytest.raises(TypeError, match="path must be a str or a path, got int"):
        Trace.load(3)  # type: ignore[arg-type]
    Trace(Q).save(tmp_path / "c_1.npz")
    with pytest.raises(CheckpointError, match="was not written by save_checkpoint"):
        load_checkpoint(tmp_path / "c_1.npz")


def test_a_newer_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trace_file, "VERSION", 2)
    Trace(Q).save(tmp_path / "run.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="written by a newer version of grilly_optim"):
        Trace.load(tmp_path / "run.npz")


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "run.npz"
    Trace(Q).save(path)  # and its directory is made
    before = path.read_bytes()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    for module, name in ((np.lib.format, "write_array"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                Trace(2 * Q).save(path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["run.npz"]
    Trace(2 * Q).save(path)
    assert (Trace.load(path).draws == 2 * Q).all()
