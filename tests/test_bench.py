"""The benchmark command: what it reports, and what it refuses. How fast anything is, no test asks."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from grilly_optim import devices
from grilly_optim.cli import main
from grilly_optim.optim import AdamW

errors = importlib.import_module("grilly_optim.benchmarks.errors")
harness = importlib.import_module("grilly_optim.benchmarks.harness")
problem = importlib.import_module("grilly_optim.benchmarks.problem")
report = importlib.import_module("grilly_optim.benchmarks.report")
results = importlib.import_module("grilly_optim.benchmarks.results")
runner = importlib.import_module("grilly_optim.benchmarks.runner")
kernels = importlib.import_module("grilly_optim.benchmarks.kernels")
ADAMW = kernels.KERNELS["adamw"]

QUICK = ["--budget", "0"]


def test_command_writes_what_it_measured(tmp_path, capsys):
    path = tmp_path / "bench.json"
    status = main(["bench", "adamw", "--sizes", "1e3", "--against", "numpy", "--json", str(path), *QUICK])
    assert status == 0
    found = json.loads(path.read_text())
    usable = [d.device for d in devices() if d.usable]
    assert found["settings"]["devices"] == usable
    assert found["machine"]["versions"]["numpy"] == np.__version__
    for key in ("date", "system", "processor", "cores", "threads", "devices"):
        assert found["machine"][key]

    (case,) = found["cases"]
    assert (case["kernel"], case["elements"], case["tensors"], case["bytes_per_element"]) == ("adamw", 1000, 1, 28)
    assert case["left_out"] == []
    rows = case["rows"]
    assert {r["device"] for r in rows if r["kind"] == "step"} == set(usable)
    assert {r["family"] for r in rows if r["kind"] == "rival"} == {"numpy"}
    for row in rows:
        assert 0 < row["p10_s"] <= row["median_s"] <= row["p90_s"]
        assert row["gb_per_s"] == pytest.approx(28e3 / row["median_s"] * 1e-9)
        assert row["rounds"] >= harness.MIN_ROUNDS
    for device in usable:
        kinds = {r["kind"] for r in rows if r["device"] == device}
        assert kinds == ({"step"} if device == "numpy" else {"step", "kernel", "reference"})
        if device.startswith("vulkan"):
            assert all(r["device_clock_s"] > 0 for r in rows if r["device"] == device)

    printed = capsys.readouterr().out
    assert found["machine"]["date"] in printed
    assert "Where we lose" in printed
    for row in rows:
        assert row["who"] in printed


def test_many_small_tensors(tmp_path):
    path = tmp_path / "bench.json"
    arguments = ["--sizes", "many", "--device", "numpy", "--against", "none", "--json", str(path), *QUICK]
    assert main(["bench", "adamw", *arguments]) == 0
    (case,) = json.loads(path.read_text())["cases"]
    assert case["tensors"] == 1000
    assert 1e6 < case["elements"] < 1e7
    assert [r["who"] for r in case["rows"]] == ["numpy, step()"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["adamv"], 2, ["'adamv'", "known are adamw, adam, sgd"]),
        (["--sizes", "1e3", "few"], 2, ["--sizes few", "whole numbers", "many"]),
        (["--sizes", "0"], 2, ["--sizes 0"]),
        (["--against", "jax"], 2, ["jax", "numpy, torch, numba, thinc"]),
        (["--against", "numpy,thinc"], 1, ["thinc is not installed", "pip install thinc"]),
        (["--device", "vulkan:no-such-device"], 1, ["vulkan:no-such-device"]),
    ],
)
def test_refused(arguments, status, words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "thinc", None)
    assert main(["bench", *arguments, *QUICK]) == status
    out, err = capsys.readouterr()
    assert out == ""
    for word in words:
        assert word in err


def test_rivals_that_are_not_installed_stay_away(monkeypatch):
    rivals = importlib.import_module("grilly_optim.benchmarks.rivals")
    for name in ("torch", "numba", "thinc"):
        monkeypatch.setitem(sys.modules, name, None)
    assert rivals.choose(None) == ["numpy"]


def _numpy_team(subject: Any) -> tuple[Any, Any]:
    ours = importlib.import_module("grilly_optim.benchmarks.ours")
    case = problem.single(1000)
    info = next(d for d in devices() if d.device == "numpy")
    (team,), _ = ours.teams(subject, case, info)
    return team, case


def test_wrong_result_is_refused_before_timing(monkeypatch, capsys):
    def other_rate(parameters, device):
        optimizer = ADAMW.subject.build(parameters, device)
        optimizer.param_groups[0]["lr"] *= 1.1
        return optimizer

    wrong = replace(ADAMW, subject=replace(ADAMW.subject, build=other_rate))
    monkeypatch.setitem(kernels.KERNELS, "adamw", wrong)
    monkeypatch.setattr(runner, "race", lambda *_: pytest.fail("a wrong contestant was timed"))
    assert main(["bench", "adamw", "--sizes", "1e3", "--device", "numpy", "--against", "none", *QUICK]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "numpy, step() gives a wrong result" in err
    assert "n = 1,000" in err


def test_check_sees_one_wrong_element():
    team, case = _numpy_team(ADAMW.subject)
    problem.verify(team, case)  # a right one passes

    team, case = _numpy_team(ADAMW.subject)
    step = team.opening[0]

    def spoiled():
        step()
        team.parameters[0][777] *= np.float32(1.001)

    team.opening = [step, step, spoiled]
    with pytest.raises(errors.WrongResult, match="element 777 of tensor 0"):
        problem.verify(team, case)


def test_check_sees_nan():
    team, case = _numpy_team(ADAMW.subject)
    step = team.opening[0]

    def spoiled():
        step()
        team.parameters[0][3] = np.nan

    team.opening = [step, step, spoiled]
    with pytest.raises(errors.WrongResult, match="element 3 of tensor 0 is nan"):
        problem.verify(team, case)


@pytest.mark.parametrize("kernel", kernels.KERNELS)
def test_everyone_gives_the_right_result(kernel, monkeypatch):
    monkeypatch.setattr(runner, "race", lambda contestants, _: [harness.Timing(c, 1, [1.0]) for c in contestants])
    rivals = importlib.import_module("grilly_optim.benchmarks.rivals")
    installed = rivals.choose(None)
    usable = [d for d in devices() if d.usable]
    case = runner.measure(kernel, problem.many(5, 10, 1000), usable, installed, 0)
    assert {r.family.split()[0] for r in case.rows if r.kind == "rival"} == {
        r for r in installed if r in kernels.KERNELS[kernel].rivals
    }
    assert {r.device for r in case.rows if r.kind == "step"} == {d.device for d in usable}


WITH_SUMS = [name for name, k in kernels.KERNELS.items() if k.subject.rule.control]


@pytest.mark.parametrize("kernel", WITH_SUMS)
def test_check_sees_that_nothing_is_adapted(kernel):
    subject = kernels.KERNELS[kernel].subject
    problem.verify(*_numpy_team(subject))
    with pytest.raises(errors.WrongResult):
        problem.verify(*_numpy_team(replace(subject, build=lambda ps, device: AdamW(ps, device=device))))


@pytest.mark.parametrize("kernel", kernels.KERNELS)
def test_answers_do_not_depend_on_where_arrays_are_cut(kernel, monkeypatch):
    expected, case = kernels.KERNELS[kernel].subject.expected, problem.many(3, 100, 1000)
    whole = expected(case.start, case.gradients, 3)
    monkeypatch.setattr(problem, "_BLOCK", 64)
    for p, cut in zip(whole, expected(case.start, case.gradients, 3), strict=True):
        np.testing.assert_allclose(cut, p, rtol=2e-7)


@pytest.mark.parametrize(
    ("kernel", "streams"),
    [
        ("adamw", 7),  # g, and p, m, v read and written
        ("hypergradientadamw", 10),  # g, d; then d written, and as above
        ("autohypergradientadamw", 10),
        ("autohypergradientadamw-all", 14),  # g, d, j, e, and e written; then d, j written, and as above
    ],
)
def test_bytes_are_those_of_both_passes(kernel, streams):
    ours = importlib.import_module("grilly_optim.benchmarks.ours")
    assert ours.bytes_per_element(kernels.KERNELS[kernel].subject.rule) == 4 * streams


def test_kernels_are_called_like_their_optimizers():
    for name, kernel in kernels.KERNELS.items():
        assert type(kernel.subject.build([np.zeros(1)], "numpy")).__name__.lower() == name.partition("-")[0]


def _timing(family: str, kind: str, seconds: float, device: str = "", variant: str = "", clock: float = 0.0) -> Any:
    contestant = harness.Contestant(family, variant, kind, print, device=device)
    return harness.Timing(contestant, 1, [seconds] * 3, [clock] * 3 if clock else [])


def test_shares_ratios_and_losses_follow_from_the_medians():
    case = results.Case("adamw", "n = 1,000", 1000, 1, 28)
    timings = [
        _timing("cpu", "step", 4e-6, "cpu", "step()"),
        _timing("cpu", "reference", 2e-6, "cpu"),
        _timing("vulkan:0", "step", 9e-6, "vulkan:0", clock=3e-6),
        _timing("vulkan:0", "reference", 9e-6, "vulkan:0", clock=2.4e-6),
        _timing("torch fused", "rival", 8e-6, variant="1 thread"),
        _timing("torch fused", "rival", 6e-6, variant="2 threads"),
        _timing("numba", "rival", 3e-6, variant="serial"),
    ]
    results.fill(case, timings, 28, "cpu")
    rows = {r.who: r for r in case.rows}
    assert rows["cpu, step()"].share_of_stream == pytest.approx(0.5)
    assert rows["cpu, step()"].ratios == pytest.approx({"torch": 1.5})
    assert rows["vulkan:0"].share_of_stream in (pytest.approx(0.8), 1.0)
    assert rows["torch fused, 2 threads"].best
    assert not rows["torch fused, 1 thread"].best
    (loss,) = results.losses([case])
    assert (loss.rival, loss.ours) == ("numba, serial", "cpu, step()")
    assert loss.ours_s / loss.rival_s == pytest.approx(4 / 3)
    assert "torch fused, 1 thread" not in "".join(report._table(case, None))


def test_rule_with_fewer_streams_is_compared_by_bandwidth():
    case = results.Case("sgd", "n = 1,000", 1000, 1, 12)
    timings = [_timing("cpu", "step", 1e-6, "cpu"), _timing("cpu", "reference", 2e-6, "cpu")]
    results.fill(case, timings, 28, "cpu")
    assert case.rows[0].share_of_stream == pytest.approx((12 / 1e-6) / (28 / 2e-6))


def test_race_takes_turns_and_calls_before():
    calls: list[str] = []
    prepared: list[str] = []
    first = harness.Contestant("a", "", "rival", lambda: calls.append("a"), prepare=lambda: prepared.append("a"))
    second = harness.Contestant(
        "b", "", "rival", lambda: calls.append("b"), before_call=lambda: calls.append("before b")
    )
    one, two = harness.race([first, second], 0)
    assert len(one.seconds) == len(two.seconds) == harness.MIN_ROUNDS
    assert len(prepared) == harness.MIN_ROUNDS + 1
    assert calls.count("before b") == calls.count("b") > harness.MIN_ROUNDS
    after = [calls[i + 1] for i, call in enumerate(calls) if call == "before b"]
    assert set(after) == {"b"}


def test_a_json_file_that_cannot_be_written_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "adamw", "--json", "/nowhere/x.json"]) == 1
    assert "--json: [Errno 2]" in capsys.readouterr().err
