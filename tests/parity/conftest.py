"""Counts the cases that were compared with each original; an original with none is a failure of a whole run."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version

import pytest

# What a test is marked with -> the package it comes from; None: it is in no package that runs, and is written out here.
ORIGINALS: dict[str, str | None] = {
    "torch": "torch",
    "hypnettorch": "hypnettorch",
    "devinterp": "devinterp",
    "unaiverse": "unaiverse",
    "grilly": None,
    "equilibrium_propagation": None,
}
_compared: Counter[str] = Counter()


def pytest_configure(config: pytest.Config) -> None:
    for name, package in ORIGINALS.items():
        config.addinivalue_line("markers", f"{name}: compares with {package or 'its recurrences'}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _compared.update(name for name in ORIGINALS if name in report.keywords)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, package in ORIGINALS.items():
        what = f"{package} {version(package)}" if package else f"{name.replace('_', ' ')}'s recurrences"
        terminalreporter.write_line(f"parity: {_compared[name]} cases compared with {what}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    # Whole: no file was named (`./run parity` has this folder as testpaths).
    whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    missing = [name for name in ORIGINALS if not _compared[name]]
    if missing and whole and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
