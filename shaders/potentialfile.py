"""What stands in a potential's file: which tables and constants it reads.

A potential is a function ``potential(energy)`` marked POTENTIAL, which sets the gradient at the position and returns U,
as a sum that keeps what rounding loses, if `energy` is not 0. TABLE(name, size) and CONSTANT(name) declare what it
reads; a size is a product of numbers, `dim` and `rows`, the number of data. DIMENSIONS(number) is for potentials of
that many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rulefile import RESERVED, RuleError, code_of

# Tables and constants, as trajectory.comp.in and vulkan/trajectories.cpp have places for them.
MOST = 4
SIZE = r"(dim|rows|\d+)( \* (dim|rows|\d+))*"


@dataclass(frozen=True)
class Potential:
    """What the engine has to know of one potential; `dim` is 0 if it may have any number of dimensions."""

    name: str
    dim: int
    tables: tuple[str, ...]
    sizes: tuple[str, ...]
    constants: tuple[str, ...]
    source: str


def parse_potential(path: Path) -> Potential:
    """Read one file; `RuleError` names it and what is wrong with it."""
    source = path.read_text()
    code = code_of(source)
    if not re.search(r"\bPOTENTIAL\s+Sum\s+potential\s*\(\s*uint\s+energy\s*\)", code):
        raise RuleError(f"{path.name}: no function 'POTENTIAL Sum potential(uint energy)'")
    declared = re.findall(r"\bTABLE\(([^)]*)\)", code)
    tables = tuple(text.partition(",")[0].strip() for text in declared)
    sizes = tuple(text.partition(",")[2].strip() for text in declared)
    for table, size in zip(tables, sizes, strict=True):
        if not re.fullmatch(SIZE, size):
            wanted = "a product of numbers, dim and rows"
            raise RuleError(f"{path.name}: the size of {table!r} must be {wanted}, got {size!r}")
    constants = tuple(re.findall(r"\bCONSTANT\((\w+)\)", code))
    reserved = RESERVED.intersection(tables + constants)
    if reserved:
        raise RuleError(f"{path.name}: {sorted(reserved)[0]!r} is a reserved word of GLSL and cannot name a table")
    if len(tables) > MOST or len(constants) > MOST:
        raise RuleError(f"{path.name}: {len(tables)} tables and {len(constants)} constants, at most {MOST} of each")
    dimensions = re.search(r"\bDIMENSIONS\((\d+)\)", code)
    return Potential(path.stem, int(dimensions[1]) if dimensions else 0, tables, sizes, constants, source)
