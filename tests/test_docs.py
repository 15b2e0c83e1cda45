"""What the documentation shows is run: docstrings, the pages' code, and the README's."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import grilly_optim

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python" in page.read_text()
]


def modules() -> list[str]:
    """Every public module of the package."""
    found = [m.name for m in pkgutil.walk_packages(grilly_optim.__path__, "grilly_optim.")]
    return ["grilly_optim", *(m for m in found if "benchmarks" not in m and not m.endswith("_core"))]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert result.failed == 0


def test_every_public_function_has_an_example() -> None:
    for name in ("devices", "empty", "zeros", "asarray", "Parameter"):
        assert ">>>" in (getattr(grilly_optim, name).__doc__ or ""), name
    bases_and_results = ("Optimizer", "Sampler", "Scheduler", "Prior", "Preconditioner", "PreconditionerCoefs")
    bases_and_results += ("EpsilonBetaSweep", "SketchBuffer", "TraceStatistics")
    bases_and_results += ("BuiltIn", "Cost", "FromAutograd", "GradientCheck")
    sampling = grilly_optim.sampling
    packages = (grilly_optim.optim, grilly_optim.continual, sampling, sampling.potentials, grilly_optim.schedules)
    packages += (importlib.import_module("grilly_optim.energy"),)
    for package in packages:
        for name in package.__all__:
            if name not in bases_and_results and callable(getattr(package, name)):
                assert ">>>" in (getattr(package, name).__doc__ or ""), name


@pytest.mark.parametrize("page", PAGES)
def test_code_on_the_pages(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some of it writes files
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    assert blocks, "a page in this list shows code"
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


@pytest.mark.parametrize(
    "page", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("**/*.md") if ".venv" not in str(p))
)
def test_links_between_pages(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_every_difference_names_tests_that_are_there() -> None:
    page = (ROOT / "docs/differences.md").read_text()
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 40
    for file, test in named:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert f"def {test}" in path.read_text(), f"{file}::{test}"
