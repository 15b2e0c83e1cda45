"""Turn shaders/rules/*.glsl into everything the engine runs: SPIR-V, vectorisable C++ loops and the table of rules.

A rule file holds two structs and one function::

    struct XState   { float p, ...; };            // the first field is the caller's array, the engine owns the others
    struct XScalars { float a, b, ...; };         // computed on the host in double, one row per step
    RULE XState x(XState s, float g, ..., XScalars h) { ... }

The file is named like the function. Run by CMake: ``generate.py --out DIR [--glslang PROGRAM]``. Without a GLSL
compiler the table holds no SPIR-V, and the engine has no Vulkan device.
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAX_STREAMS = 16  # kMaxStreams in grilly/rules.h
PRECISIONS = {"f32": ("float", 4), "f64": ("double", 8)}

# Words that GLSL reserves or defines and that a C++ compiler would accept as a field's name.
_RESERVED_WORDS = """
active asm attribute cast centroid coherent common discard external filter fixed flat fvec half highp hvec inline input
interface invariant lowp mediump namespace noinline noise output partition patch precise precision public resource
sample sampler shared smooth static subroutine superp template this uniform union unsigned using varying vec volatile
"""
RESERVED = frozenset(_RESERVED_WORDS.split())

SPIRV_MAGIC = 0x07230203
OP_DECORATE = 71
OP_FUNCTION = 54
NO_CONTRACTION = 42
FLOAT_OPS = {127, 129, 131, 133, 136, 140, 141, 142, 143, 144, 145, 146, 147, 148}  # FNegate, FAdd ... Dot
# OpType*, OpConstant*, OpSpecConstant*, OpVariable, OpUndef: the first of them ends the annotations.
FIRST_TYPE_OPS = set(range(19, 40)) | set(range(41, 53)) | {1, 59}


@dataclass(frozen=True)
class Rule:
    """What the engine has to know of one rule."""

    name: str
    state_type: str
    state: tuple[str, ...]
    inputs: tuple[str, ...]
    scalars_type: str
    scalars: tuple[str, ...]
    source: str

    @property
    def streams(self) -> tuple[str, ...]:
        """State fields, then inputs."""
        return self.state + self.inputs


class RuleError(Exception):
    """A rule file that the generator does not understand; the message names the file."""


def code_of(source: str) -> str:
    """The source without its comments."""
    return re.sub(r"//[^\n]*", "", source)


def parse(path: Path) -> Rule:
    """Read one rule file; `RuleError` names the file and what is wrong with it."""
    source = path.read_text()
    code = code_of(source)
    structs = {name: _fields(body) for name, body in re.findall(r"struct\s+(\w+)\s*\{([^}]*)\}", code)}
    functions = re.findall(r"RULE\s+(\w+)\s+(\w+)\s*\(([^)]*)\)", code)
    by_name = {name: (state, [a.split() for a in arguments.split(",")]) for state, name, arguments in functions}
    if path.stem not in by_name:
        raise RuleError(f"{path.name}: no function named {path.stem!r} marked RULE")
    state_type, arguments = by_name[path.stem]
    types = [a[0] for a in arguments]
    inputs = tuple(a[1] for a in arguments[1:-1])
    if len(arguments) < 3 or types[0] != state_type or any(t != "float" for t in types[1:-1]):
        raise RuleError(
            f"{path.name}: {path.stem} must take (State s, float input, ..., Scalars h) and return its State"
        )
    for needed in (state_type, types[-1]):
        if needed not in structs:
            raise RuleError(f"{path.name}: struct {needed} is not defined in the file")
    rule = Rule(path.stem, state_type, structs[state_type], inputs, types[-1], structs[types[-1]], source)
    reserved = RESERVED.intersection(rule.streams + rule.scalars)
    if reserved:
        raise RuleError(f"{path.name}: {sorted(reserved)[0]!r} is a reserved word of GLSL and cannot name a field")
    if len(rule.streams) > MAX_STREAMS:
        raise RuleError(f"{path.name}: {len(rule.streams)} streams, at most {MAX_STREAMS} are supported")
    return rule


def _fields(body: str) -> tuple[str, ...]:
    declarations = [d.strip() for d in body.split(";") if d.strip()]
    return tuple(name.strip() for d in declarations for name in d.removeprefix("float").split(","))


def fill(template: str, values: dict[str, str]) -> str:
    """Replace every @NAME@ of a template."""
    return re.sub(r"@(\w+)@", lambda match: values[match.group(1)], template)


def shader(rule: Rule, precision: str) -> str:
    """The rule's compute shader: the template with this rule's streams."""
    real, size = PRECISIONS[precision]
    streams = list(enumerate(rule.streams))
    owned = streams[: len(rule.state)]
    tail = [f"Narrow(segment.stream[{k}] + byte).at[i]" for k, _ in streams]
    fields = len(rule.state)

    def lines(indent: int, items: list[str]) -> str:
        return "\n".join(" " * indent + item for item in items)

    return fill(
        (HERE / "segments.comp.in").read_text(),
        {
            "RULE": rule.name,
            "STATE": rule.state_type,
            "SCALARS": rule.scalars_type,
            "STREAMS": str(len(streams)),
            "REAL": real,
            "SIZE": str(size),
            "DOUBLE": str(int(precision == "f64")),
            "SOURCE": f"#define float {real}\n{rule.source}#undef float" if precision == "f64" else rule.source,
            "LOAD_PACKS": lines(
                4, [f"Pack {n}_ = unpack(Wide(segment.stream[{k}] + byte).at[0]);" for k, n in streams]
            ),
            "PACK_FIELDS": ", ".join(f"{n}_.e[i]" for n in rule.state),
            "PACK_INPUTS": ", ".join(f"{n}_.e[i]" for n in rule.inputs),
            "SET_PACKS": lines(6, [f"{n}_.e[i] = s.{n};" for n in rule.state]),
            "STORE_PACKS": lines(4, [f"Wide(segment.stream[{k}] + byte).at[0] = pack({n}_);" for k, n in owned]),
            "TAIL_FIELDS": ", ".join(tail[:fields]),
            "TAIL_INPUTS": ", ".join(tail[fields:]),
            "SET_TAIL": lines(4, [f"{tail[k]} = s.{n};" for k, n in owned]),
        },
    )


def is_straight(rule: Rule) -> bool:
    """Whether the rule is float arithmetic and selection alone, so that `float` may stand for many of them at once."""
    return not re.search(r"\b(if|for|while|do|switch|bool|u?int|double|u?vec[234])\b", code_of(rule.source))


def wide_loop(rule: Rule) -> str:
    """The loop that takes many elements at once, where the instruction set has one (see wide.h)."""
    fetches = " ".join(f"fetch({n} + i);" for n in rule.streams)

    def update(namespace: str, which: str = "") -> str:
        fields = ", ".join(f"load({which}{n} + i)" for n in rule.state)
        inputs = ", ".join(f"load({which}{n} + i)" for n in rule.inputs)
        stores = " ".join(f"store({which}{n} + i, s.{n});" for n in rule.state)
        scalars = ", ".join(f"splat(h.{n})" for n in rule.scalars)
        return f"""const {namespace}::{rule.state_type} s = {namespace}::{rule.name}(
        {namespace}::{rule.state_type}{{{fields}}}, {inputs}, {namespace}::{rule.scalars_type}{{{scalars}}});
    {stores}"""

    by_divider = f"""  const auto whole_by_divider = [&](std::size_t i) {{
    if (i + kAhead < count) {{ {fetches} }}
    {update("by_divider")}
  }};
"""
    three = """  for (; i + 3 * GRILLY_WIDE <= count; i += 3 * GRILLY_WIDE) {
    whole(i);
    whole(i + GRILLY_WIDE);
    whole_by_divider(i + 2 * GRILLY_WIDE);
  }
"""
    # A rule that takes a root and divides needs the divider twice: it shares its roots out.
    shared = "sqrt(" in code_of(rule.source) and "/" in code_of(rule.source)
    return f"""  const auto part = [&](std::size_t i, Mask some) {{
    {update("wide", "some, ")}
  }};
  const auto whole = [&](std::size_t i) {{
    if (i + kAhead < count) {{ {fetches} }}
    {update("wide")}
  }};
{by_divider if shared else ""}  std::size_t i = before_line({rule.state[0]}, count);
  if (i > 0) part(0, first(i));
{three if shared else ""}  for (; i + GRILLY_WIDE <= count; i += GRILLY_WIDE) whole(i);
  if (i < count) part(i, first(count - i));
"""


def loop(rule: Rule, precision: str) -> str:
    """The rule's loop in C++.

    ivdep, not restrict: a gradient may be its own parameter's memory, where each element is read before it is written.
    """
    real, _ = PRECISIONS[precision]
    types = [(real, n) for n in rule.state] + [(f"const {real}", n) for n in rule.inputs]
    state, scalars = f"{precision}::{rule.state_type}", f"{precision}::{rule.scalars_type}"
    name = f"{rule.name}_{precision}"
    arguments = ", ".join(f"{t}* {n}" for t, n in types)
    fields = ", ".join(f"{n}[i]" for n in rule.state)
    inputs = ", ".join(f"{n}[i]" for n in rule.inputs)
    stores = " ".join(f"{n}[i] = s.{n};" for n in rule.state)
    casts = ", ".join(f"static_cast<{t}*>(stream[{k}])" for k, (t, _) in enumerate(types))
    row = ", ".join(f"static_cast<{real}>(row[{k}])" for k in range(len(rule.scalars)))
    plain = f"""  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {{  // RULE LOOP {name}
    const {state} s = {precision}::{rule.name}({state}{{{fields}}}, {inputs}, h);
    {stores}
  }}
"""
    wide = precision == "f32" and is_straight(rule)
    body = f"#if defined(GRILLY_WIDE)\n{wide_loop(rule)}#else\n{plain}#endif\n" if wide else plain
    return f"""
static void {name}_loop({arguments}, {scalars} h, std::size_t count) {{
{body}}}
static void {name}(const double* row, void* const* stream, std::size_t count) {{
  {name}_loop({casts}, {scalars}{{{row}}}, count);
}}"""


def loops(rules: list[Rule]) -> str:
    """The C++ source that is compiled once per instruction set."""
    template = (HERE / "loops.cpp.in").read_text()
    bodies = [
        fill(
            template,
            {
                "RULE": r.name,
                "WIDE": str(int(is_straight(r))),
                "LOOPS": "\n".join(loop(r, p) for p in PRECISIONS),
            },
        )
        for r in rules
    ]
    rows = ",\n    ".join(f"{{{r.name}_f32, {r.name}_f64}}" for r in rules)
    return f"""// Generated by shaders/generate.py.
#include "glsl.h"
#include "grilly/rules.h"
#include "wide.h"

namespace grilly {{
{"".join(bodies)}
namespace GRILLY_ISA {{
extern const LoopPair loops[] = {{
    {rows},
}};
}}  // namespace GRILLY_ISA
}}  // namespace grilly
"""


def table(rules: list[Rule], spirv: dict[tuple[str, str], list[int]]) -> str:
    """The table of rules: names, fields and SPIR-V, in the order of the loops."""
    arrays, rows = [], []
    for rule in rules:
        modules = []
        for precision in PRECISIONS:
            words = spirv.get((rule.name, precision), [])
            if words:
                name = f"{rule.name}_{precision}"
                arrays.append(f"const std::uint32_t {name}[] = {{{','.join(map(hex, words))}}};")
            modules.append(f"Spirv{{{name}, {len(words)}}}" if words else "Spirv{}")
        lists = ", ".join(
            "{" + ", ".join(f'"{n}"' for n in names) + "}" for names in (rule.state, rule.inputs, rule.scalars)
        )
        rows.append(f'    {{"{rule.name}", {lists}, {{{", ".join(modules)}}}}},')
    joined_arrays, joined_rows = "\n".join(arrays), "\n".join(rows)
    return f"""// Generated by shaders/generate.py.
#include "grilly/rules.h"

namespace grilly {{
namespace {{
{joined_arrays}
}}  // namespace

const std::vector<Rule>& rules() {{
  static const std::vector<Rule> table = {{
{joined_rows}
  }};
  return table;
}}
}}  // namespace grilly
"""


def compile_shader(glslang: str, source: Path) -> list[int]:
    """Compile to SPIR-V words in which no float operation may be contracted (fused)."""
    target = source.with_suffix(".spv")
    command = [glslang, "-V", "--quiet", "--target-env", "vulkan1.2", "-o", str(target), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuleError(f"{source.name} does not compile:\n{result.stdout}{result.stderr}")
    data = target.read_bytes()
    return forbid_contraction(list(struct.unpack(f"<{len(data) // 4}I", data)))


def forbid_contraction(words: list[int]) -> list[int]:
    """Decorate every float operation NoContraction.

    `precise` would say the same, but does not reach through functions that take and return structs.
    """
    if words[0] != SPIRV_MAGIC:
        raise RuleError("not a SPIR-V module")
    at, annotations_end, decorations = 5, 0, []
    while at < len(words):
        length, op = words[at] >> 16, words[at] & 0xFFFF
        if not annotations_end and op in FIRST_TYPE_OPS:
            annotations_end = at
        if op in FLOAT_OPS:
            decorations += [3 << 16 | OP_DECORATE, words[at + 2], NO_CONTRACTION]
        at += length
    return words[:annotations_end] + decorations + words[annotations_end:]


def main() -> None:
    """Write loops.cpp and rules.cpp (and the shaders, for reading) into --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rules", type=Path, default=HERE / "rules")
    parser.add_argument("--glslang", default="")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        rules = [parse(path) for path in sorted(options.rules.glob("*.glsl"))]
        spirv = {}
        for rule in rules if options.glslang else []:
            for precision in PRECISIONS:
                source = options.out / f"{rule.name}_{precision}.comp"
                source.write_text(shader(rule, precision))
                spirv[rule.name, precision] = compile_shader(options.glslang, source)
        (options.out / "loops.cpp").write_text(loops(rules))
        (options.out / "rules.cpp").write_text(table(rules, spirv))
    except RuleError as error:
        sys.exit(f"shaders/generate.py: {error}")


if __name__ == "__main__":
    main()
