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
from rulefile import Rule, RuleError, parse, variants

HERE = Path(__file__).resolve().parent


def compile_all(rules: list[Rule], out: Path, glslang: str) -> dict[tuple[str, str, str], list[int]]:
    """The SPIR-V of every rule file, pass and precision, and of sketches."""
    texts = {
        (rule.name, name, precision): text
        for rule in rules
        for precision in PRECISIONS
        for name, text in shaders(rule, precision).items()
    }
    texts |= {(SKETCH, "sums", precision): sketch_shader(precision) for precision in PRECISIONS}
    spirv = {}
    for key, text in texts.items():
        source = out / f"{'_'.join(key)}.comp"
        source.write_text(text)
        spirv[key] = compile_shader(glslang, source)
    return spirv


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
        spirv = compile_all(files, options.out, options.glslang) if options.glslang else {}
        (options.out / "loops.cpp").write_text(loops(rules))
        (options.out / "rules.cpp").write_text(table(rules, spirv))
    except RuleError as error:
        sys.exit(f"shaders/generate.py: {error}")


if __name__ == "__main__":
    main()
