"""Devices as test parameters, the validation layer as a judge, and a count of tests by device."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import grilly_optim
from grilly_optim import _devices

CI = os.environ.get("CI") == "true"
os.environ["GRILLY_VALIDATION"] = "1"
for switch in ("GRILLY_DEVICE", "GRILLY_THREADS", "GRILLY_ISA", "GRILLY_FORCE_STAGING"):
    os.environ.pop(switch, None)

pytest.register_assert_rewrite("tests.table", "tests.continual", "tests.chains", "tests.traces", "tests.sampling_runs")

LAVAPIPE = "vulkan:llvmpipe"
# Case -> device string; "staged" is Vulkan as on a GPU with memory of its own.
CASES = {"numpy": "numpy", "cpu": "cpu", "vulkan": LAVAPIPE, "staged": LAVAPIPE}
NO_CASE = "no device"


@cache
def _usable() -> dict[str, str]:
    """Case -> why it cannot run ("" when it can)."""
    vulkan = [i for i in grilly_optim.devices() if i.kind == "vulkan"]
    if not CI and "GRILLY_VALIDATION" in vulkan[0].reason:
        # A user's machine without the layer still runs the tests; CI does not.
        del os.environ["GRILLY_VALIDATION"]
        vulkan = [i for i in grilly_optim.devices() if i.kind == "vulkan"]
    cpu = next(i for i in grilly_optim.devices() if i.kind == "cpu")
    lavapipe = next((i.reason for i in vulkan if "llvmpipe" in i.name), f"no llvmpipe device: {vulkan[0].reason}")
    return {"numpy": "", "cpu": cpu.reason, "vulkan": lavapipe, "staged": lavapipe}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--devices", default=",".join(CASES), help="run the device tests on these only")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "subprocess: starts other processes")
    config.addinivalue_line("markers", "isa(name): needs this instruction set of the processor")
    config.addinivalue_line("markers", "cases(*names): the device cases a test runs on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("cases")
    metafunc.parametrize("case", marker.args if marker else tuple(CASES), scope="function")


def _case(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("case", NO_CASE) if callspec else NO_CASE


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--devices").split(",")
    isas = _devices._core.cpu_instruction_sets() if _devices._core else []

    def fits(item: pytest.Item) -> bool:
        case, isa = _case(item), item.get_closest_marker("isa")
        return (case == NO_CASE or case in chosen) and (isa is None or isa.args[0] in isas)

    for item in items:
        item.user_properties.append(("case", _case(item)))
    left_out = [item for item in items if not fits(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if fits(item)]


@pytest.fixture
def device(case: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device string of this case; a test that takes it runs on every device."""
    reason = _usable()[case]
    if reason and CI:
        pytest.fail(f"{case} is missing in CI: {reason}")
    if reason:
        pytest.skip(reason)
    if case == "staged":
        monkeypatch.setenv("GRILLY_FORCE_STAGING", "1")
    return CASES[case]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder: what a test writes goes there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _numpy_warnings() -> Iterator[None]:
    """A test that is interrupted inside `np.errstate` does not switch warnings off for the tests behind it."""
    before = np.geterr()
    yield
    np.seterr(**before)


@pytest.fixture(autouse=True)
def _validation() -> Iterator[None]:
    """Any message of the validation layer fails the test that caused it."""
    yield
    if _devices._core is not None:
        messages = _devices._core.take_vulkan_messages()
        assert not messages, "\n".join(messages)


_ran: Counter[str] = Counter()
_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts in the process that prints the summary, which with workers is another than the one that ran the test."""
    if report.when == "call" and not report.skipped:
        _ran[dict(report.user_properties)["case"]] += 1
    if report.skipped:
        _skipped.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _usable()  # with workers nobody has asked in this process, and the answer may switch the layer off
    layer = "on" if "GRILLY_VALIDATION" in os.environ else "OFF: it is not installed"
    names = {"vulkan": "vulkan (lavapipe)", "staged": "vulkan with staging forced"}
    counts = ", ".join(f"{names.get(c, c)} {_ran[c]}" for c in (*CASES, NO_CASE) if _ran[c])
    terminalreporter.write_line(f"tests run by device: {counts}; Vulkan validation {layer}")
    if CI and _skipped:
        terminalreporter.write_line(f"CI=true allows no skipped test: {_skipped}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if CI and _skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
