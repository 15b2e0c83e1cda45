"""`sample`: a run that was broken off goes on from its checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.checkpoint import CheckpointError, save_checkpoint
from grilly_optim.sampling import ChainFailed, SamplingWarning, _sampling_chains
from grilly_optim.sampling._sampling_kernels import kernel_of
from grilly_optim.sampling._warmup import Adapting
from tests.interrupts import interrupt_at
from tests.sampling_potentials import MEANS, Breaks, Vectorized, gaussian
from tests.sampling_runs import EXECUTORS, KERNELS, draw, same


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dense", [False, True])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(kernel: Any, dense: bool, tmp_path: Path) -> None:
    counting = Breaks(0, KeyboardInterrupt(), Vectorized())
    expected = draw(counting, kernel=kernel, dense_mass=dense)
    random = np.random.default_rng(KERNELS.index(kernel))
    for k, call in enumerate(random.integers(2, counting.calls, 5)):
        path = tmp_path / f"{k}.npz"
        try:
            with pytest.warns(SamplingWarning, match="interrupted: these are"):
                part = draw(
                    Breaks(call, KeyboardInterrupt(), Vectorized()), kernel=kernel, dense_mass=dense, checkpoint=path
                )
        except KeyboardInterrupt:
            pass  # in the warm-up
        else:
            assert part.interrupted
            assert 0 < part.num_draws < 20
            np.testing.assert_array_equal(part.draws, expected.draws[:, : part.num_draws])
        trace = draw(Vectorized(), kernel=kernel, dense_mass=dense, checkpoint=path, resume=True)
        same(trace, expected)
        assert not trace.interrupted


@pytest.mark.filterwarnings("ignore::grilly_optim.sampling.SamplingWarning")  # so short a warm-up is not enough
@pytest.mark.parametrize("kernel", ["ghmc", "rwm"])
def test_a_run_goes_on_from_a_break_in_any_call(kernel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of one transition, so that the state behind each is one that is saved, and no block is made twice."""
    monkeypatch.setattr(_sampling_chains.Pace, "measure", lambda *_: None)
    options: dict[str, Any] = {"kernel": kernel, "num_warmup": 30, "num_samples": 4}
    counting = Breaks(0, KeyboardInterrupt(), Vectorized())
    expected = draw(counting, **options)
    for call in range(2, counting.calls + 1):
        path, rest = tmp_path / f"{call}.npz", Breaks(0, KeyboardInterrupt(), Vectorized())
        with pytest.raises(ChainFailed, match="OSError: no data"):
            draw(Breaks(call, OSError("no data"), Vectorized()), **options, checkpoint=path)
        same(draw(rest, **options, checkpoint=path, resume=True), expected)
        searching = 20 if kernel == "ghmc" else 0
        assert rest.calls <= counting.calls - call + 3 + searching


def test_what_persists_of_the_momentum_ends_with_the_mass_it_belongs_to() -> None:
    job = _sampling_chains.Job(
        Vectorized(), Adapting(20, kernel_of("ghmc", None, 3), False), 1, 1, 3, np.dtype(np.float64), "cpu", 1.0, 0
    )
    part, runners = _sampling_chains.Part(job, range(2), np.tile(MEANS, (2, 1))), job.runners()
    part.advance(job, runners, job.record(2), 3)
    assert part.batch.momentum is not None
    part.advance(job, runners, job.record(2), 15)  # the window
    assert part.batch.inv_mass.per_chain
    assert part.batch.momentum is None


def test_breaks_again_and_again(tmp_path: Path) -> None:
    """Each attempt gets as far as 40 calls lead."""
    expected, attempts = draw(Vectorized(), kernel="hmc"), 0
    while True:
        attempts += 1
        try:
            trace = draw(
                Breaks(40, OSError("no data"), Vectorized()), kernel="hmc", checkpoint=tmp_path / "run", resume=True
            )
            break
        except ChainFailed:
            continue
    same(trace, expected)
    assert attempts > 4


@pytest.mark.filterwarnings("ignore::grilly_optim.sampling.SamplingWarning")  # so short a warm-up is not enough
def test_an_interrupt_at_any_line_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    functions = ("_go_here", "_take", "advance", "extend", "_end", "save", "copy")
    options: dict[str, Any] = {"kernel": "mala", "num_warmup": 30, "num_samples": 8}
    expected = draw(Vectorized(), **options)
    interrupted, line = 0, 1
    while True:
        path = tmp_path / f"{line}.npz"
        before = sys.gettrace()
        sys.settrace(interrupt_at(line, functions))
        try:
            trace = draw(Vectorized(), **options, checkpoint=path)
            if not trace.interrupted:
                break
        except (KeyboardInterrupt, SamplingWarning):
            pass
        finally:
            sys.settrace(before)
        interrupted += 1
        same(draw(Vectorized(), **options, checkpoint=path, resume=True), expected)
        line += 11 if line > 40 else 1
    assert interrupted > 40


@pytest.mark.subprocess
@pytest.mark.parametrize("name", EXECUTORS)
def test_a_run_can_go_on_in_another_executor(name: str, tmp_path: Path) -> None:
    expected = draw(kernel="hmc")
    with pytest.raises(ChainFailed):
        draw(Breaks(400, OSError("no data")), kernel="hmc", checkpoint=tmp_path / "a")
    with EXECUTORS[name]() as executor:
        same(draw(kernel="hmc", checkpoint=tmp_path / "a", resume=True, executor=executor), expected)
        draw(kernel="hmc", num_samples=7, checkpoint=tmp_path / "b", executor=executor)
    same(draw(kernel="hmc", checkpoint=tmp_path / "b", resume=True), expected)


def test_a_finished_run_gives_its_draws_again_and_can_be_made_longer(tmp_path: Path) -> None:
    path, never = tmp_path / "run.npz", Breaks(3, AssertionError("called again"))
    expected = draw(num_samples=12, checkpoint=path)
    same(draw(Breaks(9, AssertionError()), num_samples=12, checkpoint=path, resume=True), expected)
    longer = draw(num_samples=30, checkpoint=path, resume=True)
    same(longer, draw(num_samples=30))
    assert longer.seconds is not None
    assert expected.seconds is not None
    assert longer.seconds > expected.seconds
    with pytest.raises(ValueError, match=r"it has 30 draws, and num_samples is 12"):
        draw(never, num_samples=12, checkpoint=path, resume=True)


def test_resume_without_a_file_begins(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.npz"
    same(draw(checkpoint=path, resume=True), draw())
    assert path.exists()
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_a_checkpoint_is_not_overwritten_by_a_run_that_begins(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    draw(checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="resume=True goes on with it; remove it to begin anew"):
        draw(checkpoint=path)
    assert path.read_bytes() == before


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "kernel": ({"kernel": "hmc"}, "kernel is 'nuts' there, and 'hmc' here"),
    "num_chains": ({"num_chains": 2}, "num_chains is 3 there, and 2 here"),
    "dim": ({"initial_position": np.ones(2)}, "dim is 3 there, and 2 here"),
    "dtype": ({"initial_position": MEANS.astype(np.float32)}, "dtype is 'float64' there, and 'float32' here"),
    "seed": ({"seed": 1}, "seed is 0 there, and 1 here"),
    "num_warmup": ({"num_warmup": 61}, "num_warmup is 60 there, and 61 here"),
    "thin": ({"thin": 2}, "thin is 1 there, and 2 here"),
    "stepsize": ({"stepsize": 0.5}, "stepsize is None there, and 0.5 here"),
    "target_accept": ({"target_accept": 0.9}, "target_accept is 0.8 there, and 0.9 here"),
    "dense_mass": ({"dense_mass": True}, "dense_mass is False there, and True here"),
    "initial_position": ({"initial_position": MEANS + 1}, "initial_position is another one"),
    "potential": ({"potential": lambda q: (gaussian(q)[0] * 2, gaussian(q)[1])}, "where chain 0 is, U was"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "run.npz"
    draw(checkpoint=path)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(name: str, saved: Path) -> None:
    options, message = OTHERS[name]
    before = saved.read_bytes()
    with pytest.raises(ValueError, match=message) as raised:
        draw(**{"checkpoint": saved, "resume": True, **options})
    assert "the checkpoint is of another potential" in str(raised.value) or "of another run" in str(raised.value)
    assert saved.read_bytes() == before


def test_files_that_are_no_checkpoints_of_runs_are_refused(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = save_checkpoint({"weights": np.ones(3)}, tmp_path / "net", 0.5)
    with pytest.raises(ValueError, match="it is a checkpoint, and not one of sample"):
        draw(checkpoint=other, resume=True)
    damaged = tmp_path / "damaged.npz"
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        draw(checkpoint=damaged, resume=True)
    assert caplog.messages == []


def test_checkpoints_are_written_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grilly_optim.sampling._sampling_checkpoint.EVERY_SECONDS", 0.0)
    monkeypatch.setattr("grilly_optim.sampling._sampling_checkpoint.SHARE", 1e9)
    path, copies = tmp_path / "run.npz", []

    def watching(q: Any) -> Any:
        if path.exists() and (not copies or path.stat().st_mtime_ns != copies[-1][0]):
            copies.append((path.stat().st_mtime_ns, path.read_bytes()))
        return gaussian(q)

    expected = draw(watching, kernel="mala", checkpoint=path)
    assert len(copies) > 3
    # A process that was killed leaves one of these.
    for k, (_, content) in enumerate(copies[:: len(copies) // 3]):
        killed = tmp_path / f"killed{k}"
        killed.write_bytes(content)
        same(draw(kernel="mala", checkpoint=killed, resume=True), expected)
