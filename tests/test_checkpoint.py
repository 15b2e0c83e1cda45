"""Checkpoints: their files, which ones stay, and going on from one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grilly_optim.checkpoint import (
    _payload,
    _policy,
    _store,
    get_best_ckpt_path,
    load_checkpoint,
    make_ckpt_list,
    save_checkpoint,
)
from grilly_optim.optim import AdamW
from tests.checkpoints import HOUR, formats, names, permanent, run, same, scores
from tests.table import Array, assert_bits, draw


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power here; what is written when is the matter of test_checkpoint_kills.py."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


# --- files


def test_a_checkpoint_is_an_ordinary_npz(tmp_path: Path) -> None:
    path = save_checkpoint({"w": np.arange(3.0), "b": np.float32(2)}, tmp_path / "net", 0.5, 7)
    assert path == f"{tmp_path}/net_7.npz"
    with np.load(path, allow_pickle=False) as content:
        assert sorted(content.files) == ["0", "1", "checkpoint.json", "tree.json"]
        assert_bits(content["0"], np.arange(3.0))
        assert json.loads(content["checkpoint.json"])["score"] == 0.5


def test_a_checkpoint_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    path = save_checkpoint({"w": array}, tmp_path / "net", 0.5, 7, format="safetensors")
    assert path == f"{tmp_path}/net_7.safetensors"
    assert_bits(load_file(path)["0"], array)


def test_safetensors_says_which_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint({"w": np.ones(2)}, tmp_path / "net", 0.5, 7, format="safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'grilly_optim\[safetensors\]'"):
        save_checkpoint({"w": np.ones(2)}, tmp_path / "net", 0.5, 8, format="safetensors")
    assert names(tmp_path) == ["net_7.safetensors"]
    # Reading needs no more than NumPy.
    assert_bits(load_checkpoint(path)["w"], np.ones(2))
    assert scores(tmp_path / "net") == {"net_7.safetensors": 0.5}


def test_equal_checkpoints_are_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for now, place in enumerate(("a", "b")):
        monkeypatch.setattr("time.time", lambda now=now: 1.7e9 + now * HOUR)
        (tmp_path / place).mkdir()
        files.append(save_checkpoint({"w": np.arange(3)}, tmp_path / place / "net", 0.5, 7, timestamp=1.0))
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()


def test_paths_are_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file_path, expected in (("net", "net_3.npz"), ("a/b/net", "a/b/net_3.npz"), (Path("c") / "n.1", "c/n.1_3.npz")):
        assert save_checkpoint({}, file_path, 1, np.int64(3)) == expected  # type: ignore[arg-type]
        assert get_best_ckpt_path(file_path) == expected
        assert make_ckpt_list(file_path) == [(expected, 1.0)]
        assert load_checkpoint(expected) == {}
    assert save_checkpoint({}, "last", 1) == "last.npz"
    assert save_checkpoint({}, "last", 1, -5) == "last_-5.npz"


def test_names_that_begin_alike_do_not_mix(tmp_path: Path) -> None:
    several = ["net", "net2", "net_1", "net_x", "net.", "n", ".net", "net_1_2", "net*", "net_-1"]
    for iteration in range(4):
        for k, name in enumerate(several):
            save_checkpoint({"name": name, "i": iteration}, tmp_path / name, k + iteration, 10 + iteration, 2)
    for k, name in enumerate(several):
        assert scores(tmp_path / name) == {f"{name}_13.npz": k + 3, f"{name}_12.npz": k + 2}
        assert load_checkpoint(get_best_ckpt_path(tmp_path / name)) == {"name": name, "i": 3}
        # Without the manifests too: the files know whose they are.
    for manifest in tmp_path.glob(".*.json"):
        manifest.unlink()
    for k, name in enumerate(several):
        assert scores(tmp_path / name) == {f"{name}_13.npz": k + 3, f"{name}_12.npz": k + 2}


@pytest.mark.parametrize("manifests", [True, False])
def test_a_file_that_fits_two_names_belongs_to_one(manifests: bool, tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "net", 0.5, 1)
    save_checkpoint({}, tmp_path / "net_2", 0.7)
    if not manifests:
        for manifest in tmp_path.glob(".*.json"):
            manifest.unlink()
    assert names(tmp_path) == ["net_1.npz", "net_2.npz"]
    with pytest.raises(FileExistsError, match=r"net_1.npz' is there already, and is no checkpoint of 'net_1'"):
        save_checkpoint({}, tmp_path / "net_1", 0.9)
    with pytest.raises(FileExistsError, match=r"net_2.npz' is there already, and is no checkpoint of 'net'"):
        save_checkpoint({}, tmp_path / "net", 0.9, 2)
    assert scores(tmp_path / "net") == {"net_1.npz": 0.5}
    assert scores(tmp_path / "net_2") == {"net_2.npz": 0.7}


def test_files_of_others_are_never_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "net_1.npz", w=np.ones(3))
    (tmp_path / "net_2.npz").mkdir()
    (tmp_path / "net_3.npz").symlink_to("nowhere")
    (tmp_path / "net_4.npz.bak").write_text("mine")
    for iteration in (1, 2, 3):
        with pytest.raises(FileExistsError, match=f"net_{iteration}.npz"):
            save_checkpoint({}, tmp_path / "net", 1, iteration)
    for iteration in range(4, 14):
        save_checkpoint({}, tmp_path / "net", 1, iteration, 1)
    assert names(tmp_path) == ["net_1.npz", "net_13.npz", "net_2.npz", "net_3.npz", "net_4.npz.bak"]
    assert make_ckpt_list(tmp_path / "net") == [(str(tmp_path / "net_13.npz"), 1.0)]
    assert "was not written by save_checkpoint; it is left out" in caplog.text


def test_a_copied_checkpoint_loads_and_is_not_listed(tmp_path: Path) -> None:
    path = Path(save_checkpoint({"a": 1}, tmp_path / "net", 1, 1))
    for copied in ("net_2.npz", "other_1.npz", "best.ckpt"):
        (tmp_path / copied).write_bytes(path.read_bytes())
        assert load_checkpoint(tmp_path / copied) == {"a": 1}
    assert scores(tmp_path / "net") == {"net_1.npz": 1}
    assert scores(tmp_path / "other") == {}


@pytest.mark.parametrize("path", [b"net_1.npz", 3, None])
def test_a_path_of_another_type_is_named(path: Any) -> None:
    with pytest.raises(TypeError, match=r"^path must be a str or a path, got (bytes|int|NoneType)$"):
        load_checkpoint(path)
    with pytest.raises(TypeError, match=r"^file_path must be"):
        make_ckpt_list(path)


def test_where_there_is_nothing(tmp_path: Path) -> None:
    for file_path in (tmp_path / "net", tmp_path / "missing" / "net"):
        assert get_best_ckpt_path(file_path) is None
        assert make_ckpt_list(file_path) == []
        with pytest.raises(FileNotFoundError, match="net_1"):
            load_checkpoint(f"{file_path}_1.npz")
    assert list(tmp_path.iterdir()) == []


# --- the policy


def at_once(*values: float) -> list[tuple[float, float]]:
    return [(0.0, score) for score in values]


POLICY: dict[str, tuple[list[tuple[float, float]], dict[str, Any], str]] = {
    "the best and the new one": (at_once(5, 1, 4, 2, 3, 0), {"max_ckpts_to_keep": 3}, "0 2 5"),
    "low is good": (at_once(5, 1, 4, 2, 3, 9), {"max_ckpts_to_keep": 3, "mode": "min"}, "1 3 5"),
    "of equal scores the newest": (at_once(1, 1, 1, 1), {"max_ckpts_to_keep": 2}, "2 3"),
    "one": (at_once(3, 2, 1), {"max_ckpts_to_keep": 1}, "2"),
    "five": (at_once(*range(9)), {}, "4 5 6 7 8"),
    "infinite scores": (at_once(-math.inf, math.inf, 0, 1), {"max_ckpts_to_keep": 2}, "1 3"),
    "negative scores": (at_once(-3, -1, -2, -9), {"max_ckpts_to_keep": 2}, "1 3"),
    "permanent: the new one": ([(0, 1), (1, 2), (2, 3)], {}, "0 1 2*"),
    "permanent: on equal scores the new one": ([(0, 1), (1, 3), (2, 3)], {}, "0 1 2*"),
    "permanent: a better one": ([(0, 1), (1, 3), (2, 2)], {}, "0 1* 2"),
    "permanent: a lower one": ([(0, 3), (1, 1), (2, 2)], {"mode": "min"}, "0 1* 2"),
    "permanent: of equal ones the newest": ([(0, 3), (1, 3), (2, 2)], {}, "0 1* 2"),
    "permanent: none before time": ([(0, 1), (1.9, 2)], {}, "0 1"),
    "permanent: none": ([(0, 1), (9, 2)], {"keep_ckpt_every": None}, "0 1"),
    "permanent: one per window": ([(0, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)], {}, "0 1* 2 3 4 5*"),
    "permanent: too old for the window": ([(0, 9), (5.9, 5), (6, 4)], {}, "0 1* 2"),
    "permanent: not for the window": ([(0, 9), (1, 8), (6, 4)], {}, "0 1 2*"),
    "permanent ones do not count": (
        [(h, 100 - h) for h in range(12)],
        {"max_ckpts_to_keep": 2, "keep_ckpt_every": 3},
        "0* 2 5* 8* 11",
    ),
    "the clock goes back": ([(0, 1), (5, 2), (-3, 3), (1, 4)], {}, "0 1* 2 3"),
}


@pytest.mark.parametrize(("saves", "options", "expected"), POLICY.values(), ids=POLICY.keys())
def test_which_stay(saves: list[tuple[float, float]], options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert " ".join(run(tmp_path, saves, **options)) == expected


hours = st.floats(0, 30)
points = st.floats(-3, 3).map(round)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(hours, points, st.booleans()), max_size=12),
    st.tuples(hours, points),
    st.integers(1, 6),
    st.none() | st.floats(0.1, 9),
    st.sampled_from(["max", "min"]),
)
def test_what_a_decision_promises(
    there: list[tuple[float, int, bool]], new: tuple[float, int], most: int, every: float | None, mode: Any
) -> None:
    entries = [_policy.Entry(f"{i}", 0, i, score, h * HOUR) for i, (h, score, _) in enumerate(there)]
    before = {i for i, (_, _, stays) in enumerate(there) if stays}
    decision = _policy.decide(
        entries,
        before,
        score=new[1],
        timestamp=new[0] * HOUR,
        first_timestamp=0.0,
        mode=mode,
        max_ckpts_to_keep=most,
        keep_ckpt_every=every,
    )
    after = before | ({decision.promoted.serial} if decision.promoted else set())
    assert not (decision.promoted and decision.new_is_permanent)
    assert every is not None or after == before
    assert not any(e.serial in after for e in decision.deleted)
    left = [e for e in entries if e.serial not in after and e not in decision.deleted]
    assert len(left) == min(most - 1, len(entries) - len(after))
    sign = 1 if mode == "max" else -1
    if left and decision.deleted:
        assert max(sign * e.score for e in decision.deleted) <= min(sign * e.score for e in left)
    if decision.promoted:
        assert sign * decision.promoted.score > sign * new[1]


def test_the_first_save_counts_the_hours_even_when_it_is_gone(tmp_path: Path) -> None:
    assert run(tmp_path, [(0, 1), (0, 5), (0, 6), (2, 4)], max_ckpts_to_keep=2) == ["1", "2*", "3"]
    for path in tmp_path.glob("net_*"):
        path.unlink()
    save_checkpoint({}, tmp_path / "net", 1, 9, timestamp=1.7e9 + 5 * HOUR)
    assert permanent(tmp_path) == ["net_9.npz"]


def test_a_save_looks_at_no_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(_store, "read_meta", refuse)
    monkeypatch.setattr(_payload, "_opened", refuse)
    save_checkpoint({}, tmp_path / "net_99", 1)  # might be an iteration of "net", but is another's
    for i in range(9):
        save_checkpoint({}, tmp_path / "net", i, i, 3, timestamp=i * HOUR)
    assert scores(tmp_path / "net") == {f"net_{i}.npz": i for i in (8, 7, 6, 5, 2)}
    assert permanent(tmp_path) == ["net_2.npz", "net_6.npz"]


def test_without_an_iteration_the_file_is_replaced(tmp_path: Path) -> None:
    for i in range(4):
        assert save_checkpoint({"i": i}, tmp_path / "net", -i, timestamp=i * HOUR) == f"{tmp_path}/net.npz"
        assert names(tmp_path) == ["net.npz"]
        assert load_checkpoint(tmp_path / "net.npz") == {"i": i}
        assert scores(tmp_path / "net") == {"net.npz": -i}


def test_the_same_iteration_again_replaces_its_file_and_no_other(tmp_path: Path) -> None:
    for score in (1, 2, 3):
        save_checkpoint({"score": score}, tmp_path / "net", score, score, 3)
    save_checkpoint({"score": 0}, tmp_path / "net", 0, 2, 3)
    assert scores(tmp_path / "net") == {"net_3.npz": 3, "net_1.npz": 1, "net_2.npz": 0}
    assert load_checkpoint(tmp_path / "net_2.npz") == {"score": 0}


def test_formats_mix_under_one_name(tmp_path: Path) -> None:
    for i, format in enumerate(["npz", "safetensors"] * 2):
        save_checkpoint({"i": i}, tmp_path / "net", i, i, 3, format=format)  # type: ignore[arg-type]
    assert scores(tmp_path / "net") == {"net_3.safetensors": 3, "net_2.npz": 2, "net_1.safetensors": 1}


def test_high_and_low_scores_do_not_mix(tmp_path: Path) -> None:
    save_checkpoint({}, tmp_path / "net", 1, 1, mode="min")
    for _ in range(2):
        with pytest.raises(ValueError, match="mode is 'max', and the checkpoints of 'net' were saved with 'min'"):
            save_checkpoint({}, tmp_path / "net", 1, 2)
        (tmp_path / ".net.checkpoints.json").unlink(missing_ok=True)
    assert names(tmp_path) == ["net_1.npz"]
    (tmp_path / "net_1.npz").unlink()
    save_checkpoint({}, tmp_path / "net", 1, 2)


def test_scores_may_be_numpy_scalars(tmp_path: Path) -> None:
    for i, score in enumerate([np.float32(0.5), np.int64(3), np.array(2.0), True]):
        save_checkpoint({}, tmp_path / "net", score, i)  # type: ignore[arg-type]
    assert make_ckpt_list(tmp_path / "net")[0] == (f"{tmp_path}/net_1.npz", 3.0)
    assert all(type(score) is float for _, score in make_ckpt_list(tmp_path / "net"))


def test_without_a_timestamp_the_clock_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1.7e9]
    monkeypatch.setattr("time.time", lambda: now[0])
    save_checkpoint({}, tmp_path / "net", 1, 0)
    now[0] += 2 * HOUR
    save_checkpoint({}, tmp_path / "net", 2, 1)
    assert permanent(tmp_path) == ["net_1.npz"]


# --- going on


@formats
def test_training_goes_on_to_the_last_bit(format: Any, device: str, tmp_path: Path) -> None:
    def train(interrupt: bool) -> tuple[list[Array], dict[Any, Any]]:
        start = np.random.default_rng(5)
        w = [draw(300, rng=start), draw((7, 9), np.float64, start)]
        optimizer, rng = AdamW(w, lr=0.1, amsgrad=True, device=device), np.random.default_rng(6)
        for step in range(8):
            if interrupt and step == 5:
                content = {"w": w, "optimizer": optimizer.state_dict(), "rng": rng.bit_generator.state, "step": step}
                path = save_checkpoint(content, tmp_path / "net", 0.5, step, format=format)
                del w, optimizer, rng, content
                content = load_checkpoint(path)
                w, rng = content["w"], np.random.default_rng()
                rng.bit_generator.state = content["rng"]
                optimizer = AdamW(w, device=device)
                optimizer.load_state_dict(content["optimizer"])
                assert content["step"] == 5
            optimizer.step(gradients=[rng.standard_normal(p.shape).astype(p.dtype) for p in w])
        return w, optimizer.state_dict()

    (a, after), (e, expected) = train(True), train(False)
    same(a, e)
    same(after, expected)


# --- the package


@pytest.mark.subprocess
def test_it_is_there_after_import_and_imported_when_used() -> None:
    code = """
import sys, grilly_optim
before = {"grilly_optim.checkpoint", "zipfile", "json", "hashlib"} & set(sys.modules)
print(sorted(before), callable(grilly_optim.checkpoint.save_checkpoint), "safetensors" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[] True False\n"
