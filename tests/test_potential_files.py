"""The potentials' files: what they declare, and a generator that refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import potentialfile
import rulefile
import trajectories
from grilly_optim import _devices
from grilly_optim.sampling import potentials
from tests.trajectory_table import POTENTIALS

FOLDER = Path(__file__).resolve().parent.parent / "shaders/potentials"
FILES = sorted(path.stem for path in FOLDER.glob("*.glsl"))
GOOD = """
TABLE(mean, dim)  // TABLE(comment, dim)
CONSTANT(scale)
POTENTIAL Sum potential(uint energy) { return zero_sum(); }
"""


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_potential_of_the_engine_and_of_python(name: str) -> None:
    declared, ours = potentialfile.parse_potential(FOLDER / f"{name}.glsl"), POTENTIALS[name]
    assert ours.kernel == declared.name == name
    assert tuple(map(tuple, _devices._core.potentials()[name])) == (declared.tables, declared.constants)
    assert set(ours.tables) == set(declared.tables)
    assert set(ours.constants) == set(declared.constants)
    assert declared.dim in (0, ours.dim)
    rows = len(ours.tables.get("features", ()))
    for table, size in zip(declared.tables, declared.sizes, strict=True):
        factors = [{"dim": ours.dim, "rows": rows}.get(factor) or int(factor) for factor in size.split(" * ")]
        assert ours.tables[table].size == np.prod(factors), table


def test_every_built_in_class_is_in_the_table_of_tests() -> None:
    classes = {value for value in vars(potentials).values() if isinstance(value, type)} - {potentials.BuiltIn}
    assert {type(p) for p in POTENTIALS.values()} == {c for c in classes if issubclass(c, potentials.BuiltIn)}
    assert set(FILES) == set(_devices._core.potentials()) == set(POTENTIALS)


def test_a_file_says_what_the_engine_has_to_know(tmp_path: Path) -> None:
    path = tmp_path / "a.glsl"
    path.write_text("DIMENSIONS(3)\nTABLE(more, rows * dim * 2)" + GOOD)
    potential = potentialfile.parse_potential(path)
    assert (potential.name, potential.dim) == ("a", 3)
    assert (potential.tables, potential.sizes) == (("more", "mean"), ("rows * dim * 2", "dim"))
    assert potential.constants == ("scale",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a.glsl: no function 'POTENTIAL Sum potential\(uint energy\)'"),
        (GOOD.replace("POTENTIAL Sum", "Sum"), r"a.glsl: no function 'POTENTIAL Sum potential\(uint energy\)'"),
        (GOOD.replace("uint energy", ""), r"a.glsl: no function 'POTENTIAL Sum potential\(uint energy\)'"),
        (
            GOOD.replace("TABLE(mean", "TABLE(input"),
            r"a.glsl: 'input' is a reserved word of GLSL and cannot name a table",
        ),
        (GOOD.replace("CONSTANT(scale", "CONSTANT(sample"), r"a.glsl: 'sample' is a reserved word of GLSL"),
        (GOOD.replace("(mean, dim)", "(mean)"), r"a.glsl: the size of 'mean' must be a product of .*, got ''"),
        (
            GOOD.replace("(mean, dim)", "(mean, n + 1)"),
            r"a.glsl: the size of 'mean' must be a product of .*, got 'n \+ 1'",
        ),
        (GOOD + "".join(f"TABLE(t{k}, 1) " for k in range(4)), r"a.glsl: 5 tables and 1 constants, at most 4 of each"),
        (GOOD + "".join(f"CONSTANT(c{k}) " for k in range(4)), r"a.glsl: 1 tables and 5 constants, at most 4 of each"),
    ],
)
def test_the_parser_names_the_file_and_the_fault(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.glsl"
    path.write_text(text)
    with pytest.raises(rulefile.RuleError, match=message):
        potentialfile.parse_potential(path)


@pytest.mark.parametrize("method", trajectories.METHODS)
def test_no_place_of_a_shader_is_left_unfilled(method: str) -> None:
    for name in FILES:
        potential = potentialfile.parse_potential(FOLDER / f"{name}.glsl")
        text = trajectories.trajectory_shader(potential, method, "f32")
        assert "@" not in text
        # Functions are copied to where they are called, and this is the largest of all.
        assert text.count(" finish(t") == 1
