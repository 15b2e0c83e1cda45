"""Which loops of the generated C++ the compiler left scalar: ``check_vectorised.py LOOPS.cpp [ISA...]`` names them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU = ROOT / "grilly_core" / "src" / "cpu"


def flags() -> dict[str, list[str]]:
    """Instruction set -> the flags that the build uses, from the file that CMake reads."""
    lines = [line.partition(":") for line in (CPU / "loops.txt").read_text().splitlines() if re.match(r"\w+:", line)]
    by_name = {name: shlex.split(rest) for name, _, rest in lines}
    common = by_name.pop("all")
    return {name: common + own for name, own in by_name.items()}


def scalar_loops(source: Path, isa: str) -> list[str]:
    """Compile for one instruction set; the names of the rule loops that gcc does not report as vectorised."""
    rules = source.parent / "rules"
    include = source.parent if rules.is_dir() else source.parent.parent
    if not (include / "rules").is_dir():
        include = ROOT / "shaders"
    paths = [ROOT / "grilly_core" / "include", CPU, include]
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fPIC", f"-DGRILLY_ISA={isa}", *flags()[isa]]
    command += [f"-I{path}" for path in paths] + ["-fopt-info-vec", "-c", str(source), "-o", os.devnull]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{source} does not compile:\n{result.stderr}")
    vectorised = {int(n) for n in re.findall(r"loops\.cpp:(\d+):\d+: optimized: loop vectorized", result.stderr)}
    loops = re.findall(r"^(.*)// RULE LOOP (\w+)$", source.read_text(), re.M)
    lines = source.read_text().splitlines()
    at = {name: k for k, line in enumerate(lines, 1) for _, name in loops if line.endswith(f"// RULE LOOP {name}")}
    return [name for _, name in loops if at[name] not in vectorised]


def main() -> None:
    """Exit status 1 when a loop is scalar."""
    source, isas = Path(sys.argv[1]), sys.argv[2:] or list(flags())
    scalar = [f"{name} ({isa})" for isa in isas for name in scalar_loops(source, isa)]
    print(f"scalar loops: {', '.join(scalar) or 'none'}")
    sys.exit(bool(scalar))


if __name__ == "__main__":
    main()
