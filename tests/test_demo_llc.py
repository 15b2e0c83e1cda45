"""The llc job of the demo, as a user runs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grilly_optim.cli import llc, main
from grilly_optim.sampling import ChainFailed
from tests.test_demo import Terminal

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BURN_IN": 2, "DRAWS": 8, "SWEEP_BURN_IN": 1, "SWEEP_DRAWS": 2}.items():
        monkeypatch.setattr(llc, name, value)


def pictures(out: str) -> list[Path]:
    return [Path(re.search(rf"^{name}: (.+)$", out, re.M)[1]) for name in ("traces", "sweep")]


def test_whole_job(capsys: pytest.CaptureFixture[str]) -> None:
    """With its own settings: the chains agree, and the coefficient is far below half the number of parameters."""
    assert main(["demo", "llc"]) == 0
    out = capsys.readouterr().out
    mean, std = map(float, re.search(r"^all +([\d.]+) \+- ([\d.]+) ", out, re.M).groups())
    assert 4 < mean < 9
    assert std < 0.5
    rows = re.findall(r"^(\d) +([\d.]+) +0\.\d+ +(0\.\d+)$", out, re.M)
    assert [int(chain) for chain, *_ in rows] == list(range(4))
    assert np.mean([float(value) for _, value, _ in rows]) == pytest.approx(mean, abs=2e-3)
    assert all(0.8 < float(rate) < 0.95 for *_, rate in rows)
    r_hat, ess = re.search(
        r"^R-hat ([\d.]+), effective sample size (\d+) of 4000: the chains agree$", out, re.M
    ).groups()
    assert float(r_hat) < 1.03
    assert int(ess) > 200
    assert re.search(r"^device cpu, compiled CPU .*: .*too few for a GPU", out, re.M)
    for path in pictures(out):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_every_device_gives_the_same_table(device: str, few_draws: None, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for name in (device, "numpy"):
        assert main(["demo", "llc", "--quiet", "--epochs", "1", "--device", name]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^device .*: it was asked for$", out, re.M)
        tables.append(out.split("device ")[0])
    assert tables[0] == tables[1]


def test_quiet_prints_results_only(few_draws: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "llc", "--quiet", "--epochs", "1", "--output", str(tmp_path / "a" / "b")]) == 0
    captured = capsys.readouterr()
    assert "epoch" not in captured.out
    assert captured.out.startswith("chain ")
    assert captured.err == ""
    assert all(path.parent == tmp_path / "a" / "b" and path.exists() for path in pictures(captured.out))


def test_chains_that_differ_are_called_that() -> None:
    losses = np.random.default_rng(0).random((4, 50)) + np.arange(4)[:, None]
    results: dict[str, Any] = {
        "loss/trace": losses,
        "mala/acceptance": np.full(4, 0.9),
        "llc/mean": 1.0,
        "llc/std": 1.0,
    }
    assert "do NOT agree" in llc.report({**results, **{f"llc-chain/{c}": 1.0 for c in range(4)}})


def test_a_chain_that_fails_is_one_line(
    few_draws: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> Any:
        raise ChainFailed("the loss of chain 2 is nan", 2)

    monkeypatch.setattr(llc, "estimate", failing)
    assert main(["demo", "llc", "--quiet", "--epochs", "1"]) == 1
    assert capsys.readouterr().err == "grilly-optim: the loss of chain 2 is nan\n"


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    assert main(["demo", "llc"]) == 1
    captured = capsys.readouterr()
    assert "pip install 'grilly_optim[sampling]'" in captured.err
    assert captured.out == ""
    assert not Path("demo-output").exists()


@pytest.mark.subprocess
def test_bar_on_a_terminal() -> None:
    terminal = Terminal("llc", "--epochs", "1", "--device", "cpu")
    try:
        terminal.read_until(r"\|.*/5\.20k .*loss \d\.\d")  # all chains in one bar, with the mean loss
    finally:
        terminal.close()
