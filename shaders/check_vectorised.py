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


def scalar_loops(source: Path, isa: str, shaders: Path = ROOT / "shaders") -> list[str]:
    """Compile for one instruction set; the names of the rule loops that gcc does not report as vectorised.

    `shaders` is the folder in which the source's ``rules/`` lie.
    """
    paths = [ROOT / "grilly_core" / "include", CPU, shaders, ROOT / "shaders"]
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fPIC", f"-DGRILLY_ISA={isa}", *flags()[isa]]
    command += [f"-I{path}" for path in paths] + [str(source)]
    result = subprocess.run([*command, "-fopt-info-vec", "-c", "-o", os.devnull], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{source} does not compile:\n{result.stderr}")
    # Loops that this instruction set has in another form (wide.h) are not there after preprocessing.
    there = subprocess.run([*command, "-E", "-C"], capture_output=True, text=True, check=True).stdout
    vectorised = set(re.findall(r"([\w.]+:\d+):\d+: optimized: loop vectorized", result.stderr))
    lines = [
        (f"{file.name}:{k}", line.partition("// RULE LOOP ")[2])
        for file in (source, CPU / "draws.h")
        for k, line in enumerate(file.read_text().splitlines(), 1)
        if "// RULE LOOP " in line
    ]
    return [name for line, name in lines if line not in vectorised and f"// RULE LOOP {name}\n" in there]


def main() -> None:
    """Exit status 1 when a loop is scalar."""
    source, isas = Path(sys.argv[1]), sys.argv[2:] or list(flags())
    scalar = [f"{name} ({isa})" for isa in isas for name in scalar_loops(source, isa)]
    print(f"scalar loops: {', '.join(scalar) or 'none'}")
    sys.exit(bool(scalar))


if __name__ == "__main__":
    main()
