"""Turn shaders/rules/*.glsl into everything the engine runs: SPIR-V, vectorisable C++ loops and the table of rules.

rulefile.py says what a rule file is. Run by CMake: ``generate.py --out DIR [--glslang PROGRAM]``. Without a GLSL
compiler the table holds no SPIR-V, and the engine has no Vulkan device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cpp import loops, table
from glsl import PRECISIONS, SKETCH, compile_shader, shaders, sketch_shader
from potentialfile import Potential, parse_potential
from relaxation import CONTRACTED, RELAXATION, relaxation_shader, relaxation_table
from relaxation import NAME as RELAXATION_NAME
from rulefile import Rule, RuleError, parse, variants
from trajectories import METHODS, potential_table, trajectory_loops, trajectory_shader

HERE = Path(__file__).resolve().parent


def compile_all(
    rules: list[Rule], potentials: list[Potential], out: Path, glslang: str
) -> dict[tuple[str, str, str], list[int]]:
    """The SPIR-V of every rule file by pass, of every potential by method, of sketches and of relaxations."""
    texts = {
        (rule.name, name, precision): text
        for rule in rules
        for precision in PRECISIONS
        for name, text in shaders(rule, precision).items()
    }
    texts |= {
        (potential.name, method, precision): trajectory_shader(potential, method, precision)
        for potential in potentials
        for method in METHODS
        for precision in PRECISIONS
    }
    texts |= {(SKETCH, "sums", precision): sketch_shader(precision) for precision in PRECISIONS}
    texts |= {
        (RELAXATION_NAME, name, precision): relaxation_shader(name, precision)
        for name in RELAXATION
        for precision in PRECISIONS
    }
    spirv = {}
    for key, text in texts.items():
        source = out / f"{'_'.join(key)}.comp"
        source.write_text(text)
        spirv[key] = compile_shader(glslang, source, key[:2] == (RELAXATION_NAME, CONTRACTED))
    return spirv


def write(path: Path, text: str) -> None:
    """Write what is new: compilers need not go over the rest."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> None:
    """Write loops.cpp and rules.cpp (and the shaders, for reading) into --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rules", type=Path, default=HERE / "rules")
    parser.add_argument("--glslang", default="")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        files = [parse(path) for path in sorted(options.rules.glob("*.glsl"))]
        rules = sorted((made for rule in files for made in variants(rule)), key=lambda rule: rule.name)
        potentials = [parse_potential(path) for path in sorted((options.rules.parent / "potentials").glob("*.glsl"))]
        spirv = compile_all(files, potentials, options.out, options.glslang) if options.glslang else {}
        write(options.out / "loops.cpp", loops(rules))
        write(options.out / "rules.cpp", table(rules, spirv))
        write(options.out / "trajectories.cpp", trajectory_loops(potentials))
        write(options.out / "potentials.cpp", potential_table(potentials, spirv))
        write(options.out / "relaxation.cpp", relaxation_table(spirv))
    except RuleError as error:
        sys.exit(f"shaders/generate.py: {error}")


if __name__ == "__main__":
    main()
