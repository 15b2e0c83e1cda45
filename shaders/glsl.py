"""Compute shaders: the templates filled with one rule, compiled to SPIR-V that no compiler may contract."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

from rulefile import MAX_STREAMS, Control, Rule, RuleError

HERE = Path(__file__).resolve().parent
SKETCH = "sketch"  # what the shader that belongs to no rule is called among the rules
PRECISIONS = {"f32": ("float", 4), "f64": ("double", 8)}

SPIRV_MAGIC = 0x07230203
OP_DECORATE = 71
NO_CONTRACTION = 42
FLOAT_OPS = {127, 129, 131, 133, 136, 140, 141, 142, 143, 144, 145, 146, 147, 148}  # FNegate, FAdd ... Dot
# OpType*, OpConstant*, OpSpecConstant*, OpVariable, OpUndef: the first of them ends the annotations.
FIRST_TYPE_OPS = set(range(19, 40)) | set(range(41, 53)) | {1, 59}


def fill(template: str, values: dict[str, str]) -> str:
    """Replace every @NAME@ of a template."""
    return re.sub(r"@(\w+)@", lambda match: values[match.group(1)], template)


def _template(name: str) -> str:
    return (HERE / name).read_text()


def sketch_shader(precision: str) -> str:
    """The shader that adds up the elements of each bucket of a sketch; the precision is that of its sums."""
    real, size = PRECISIONS[precision]
    return fill(_template("sketch.comp.in"), {"REAL": real, "SIZE": str(size), "DOUBLE": str(int(precision == "f64"))})


def elementary(precision: str) -> str:
    """lib/elementary.glsl, with what it needs around it."""
    real, _ = PRECISIONS[precision]
    double = precision == "f64"
    return fill(
        _template("elementary.glsl.in"),
        {
            "REAL": real,
            "DOUBLE": str(int(double)),
            "LOWEST_EXP": "-708" if double else "-87",
            "HIGHEST_EXP": "710" if double else "89",
            # 1.5 times the first power of two whose numbers have no fractions.
            "ROUNDER": "6755399441055744.0" if double else "12582912.0",
            "ELEMENTARY": _template("lib/elementary.glsl"),
        },
    )


def closed(source: str) -> str:
    """Without the line that leaves a function open: GLSL has no macros of any number of arguments."""
    return re.sub(r"\bONE_OF\([^)]*\)", "", source)


def choosing(open_name: str, choices: tuple[str, ...], constant: str) -> str:
    """The functions that a rule file leaves open: the one of this pipeline, by a specialization constant."""

    def function(which: str, *given: str) -> str:
        taken, passed = ", ".join(f"float {name}" for name in given), ", ".join(given)
        cases = "".join(
            f"  if ({constant} == {k}) return {name}_{which}({passed});\n" for k, name in enumerate(choices[:-1])
        )
        return f"float {open_name}_{which}({taken}) {{\n{cases}  return {choices[-1]}_{which}({passed});\n}}\n"

    return _template("lib/activations.glsl") + function("value", "x") + function("slope", "x", "r")


def _in_precision(source: str, real: str) -> str:
    return f"#define float {real}\n{source}#undef float" if real != "float" else source


def _lines(indent: int, items: list[str]) -> str:
    return "\n".join(" " * indent + item for item in items)


def shaders(rule: Rule, precision: str) -> dict[str, str]:
    """The rule's shaders, by pass."""
    made = {}
    if rule.updates:
        made["update"] = _pass(rule, precision, "update")
    if rule.sums:
        made["sums"] = _pass(rule, precision, "sums")
    if rule.control:
        made["control"] = _control(rule.control, rule.sums, precision)
    return made


def _pass(rule: Rule, precision: str, name: str) -> str:
    """A pass over all elements."""
    real, size = PRECISIONS[precision]
    row = rule.control.row_struct if rule.control else ""
    fields = len(rule.state)
    streams = list(enumerate(rule.streams))
    first = name == "sums"
    # Which fields the pass gives; the second has no use for those that the first has set.
    given = [(k, n) for k, n in streams[:fields] if n in (rule.set_first if first else rule.updated)]
    parts = rule.parts if first else ()
    taken = rule.state if first else rule.loaded
    gives = "x" if first else "s"
    at = {n: k for k, n in streams}
    here, elements = ("stream", "elements") if first else ("segment.stream", "segment.elements")
    narrow = [f"Narrow({here}[{k}] + byte).at[i]" for k, _ in streams]
    # The rule sees the gradient as it was mixed, not as it stands in memory.
    inputs = ["g", *narrow[fields + 1 :]]
    load = {n: f"unpack(Wide({here}[{k}] + byte).at[0])" for k, n in streams}
    # Memory is not touched where there is none.
    otherwise = {n: (f"kMissing_{n}", f"filled({value})") for n, value in rule.optional}
    draws, draw_pack = "", ""
    if rule.drawn != "none":
        otherwise[rule.inputs[-1]] = ("kDrawn", "drawn(segment.element + begin, segment.random_stream)")
        draws = WORDS + _template("lib/philox.glsl") + _template("lib/draws.glsl")
        draw_pack = fill(_DRAW_PACK, {"REAL": real, "NUMBERS": _NUMBERS[rule.drawn]})
    choice, library, chosen = "", "", ""
    if rule.choices:
        choice, library = _CHOICE, elementary(precision)
        chosen = choosing(rule.open_name, rule.choices, "kChoice")
    load_tail = []
    for k, n in streams:
        if n not in otherwise:
            continue
        there, made = otherwise[n]
        load_tail += [
            f"Pack {n}_tail;",
            f"if ({there}) {n}_tail = {made};",
            f"for (uint i = 0; !{there} && begin + i < {elements}; ++i) {n}_tail.e[i] = {narrow[k]};",
        ]
        load[n] = f"{n}_; if ({there}) {n}_ = {made}; else {n}_ = {load[n]}"
        narrow[k] = f"{n}_tail.e[i]"
    if rule.inputs[-1] in otherwise:
        inputs[-1] = narrow[-1] if len(inputs) > 1 else "g"
    pack_fields = ", ".join(f"{n}_.e[i]" if n in taken else f"{real}(0)" for n in rule.fields)
    pack_inputs = ", ".join(f"{n}_.e[i]" for n in rule.inputs)
    tail_fields = ", ".join(narrow[at[n]] if n in taken else f"{real}(0)" for n in rule.fields)
    tail_inputs = ", ".join(inputs)

    def keep(of_state: str, of_inputs: str, to: list[str]) -> str:
        call = f"{rule.parts_type} of = {rule.function}_parts({rule.state_type}({of_state}), {of_inputs}, h);"
        stores = " ".join(f"{place} = of.{n};" for place, n in zip(to, parts, strict=True))
        return _lines(6, [f"if (kParted) {{ {call} {stores} }}"] if parts else [])

    return fill(
        _template("common.comp.in") + _template(f"{name}.comp.in"),
        {
            "RULE": rule.function,
            "STATE": rule.state_type,
            "SCALARS": rule.scalars_type,
            "SUMS": rule.sums_type,
            "SUM_COUNT": str(len(rule.sums)),
            "STREAMS": str(len(streams)),
            "REAL": real,
            "SIZE": str(size),
            "DOUBLE": str(int(precision == "f64")),
            "SOURCE": library
            + _in_precision(_template("lib/gradient.glsl") + row + chosen + closed(rule.source), real),
            "PARAMETER": rule.state[0],
            "GRADIENT": rule.inputs[0],
            "LOAD_PACKS": _lines(
                4,
                [
                    f"Pack {load[n] if n in otherwise else f'{n}_ = {load[n]}'};"
                    for _, n in streams
                    if n in taken + rule.inputs
                ]
                + [f"Pack {n}_;" for n in parts],
            ),
            "LOAD_TAIL": _lines(4, load_tail),
            "PARTS": f"uint64_t part[{len(rule.parts)}];" if rule.parts else "",
            "OPTIONAL": _lines(
                0, [_MISSING.format(id=_FIRST_MISSING + rule.fields.index(n), n=n) for n, _ in rule.optional]
            ),
            "CHOICE": choice,
            "DRAWS": draws,
            "DRAW_PACK": draw_pack,
            "PACK_FIELDS": pack_fields,
            "PACK_INPUTS": pack_inputs,
            "SET_PACKS": _lines(6, [f"{n}_.e[i] = {gives}.{n};" for _, n in given]),
            "STORE_PACKS": _lines(
                4,
                [f"Wide({here}[{k}] + byte).at[0] = pack({n}_);" for k, n in given]
                + [f"if (kParted) Wide(segment.part[{k}] + byte).at[0] = pack({n}_);" for k, n in enumerate(parts)],
            ),
            "TAIL_PARAMETER": narrow[0],
            "TAIL_GRADIENT": narrow[fields],
            "TAIL_FIELDS": tail_fields,
            "TAIL_INPUTS": tail_inputs,
            "SET_TAIL": _lines(4, [f"{narrow[k]} = {gives}.{n};" for k, n in given]),
            "ADD_SUMS": _lines(10, [f"sum[{k}][side + i] += x.{n};" for k, n in enumerate(rule.sums)]),
            "KEEP_PACKS": keep(pack_fields, pack_inputs, [f"{n}_.e[i]" for n in parts]),
            "KEEP_TAIL": keep(
                tail_fields, tail_inputs, [f"Narrow(segment.part[{k}] + byte).at[i]" for k, _ in enumerate(parts)]
            ),
        },
    )


WORDS = """#define Word uint
uint mul_low(uint a, uint b) { return a * b; }
uint mul_high(uint a, uint b) {
  uint high, low;
  umulExtended(a, b, high, low);
  return high;
}
"""
_NUMBERS = {
    "normal": "Pair one = normals_of(w.a, w.b), two = normals_of(w.c, w.d);",
    "uniform": "Pair one = Pair(uniform_of(w.a), uniform_of(w.b)), two = Pair(uniform_of(w.c), uniform_of(w.d));",
}
_DRAW_PACK = """
// The random numbers of kWidth elements from this one on, a multiple of 4.
Pack drawn(uint64_t element, uint random_stream) {
  Pack made;
  for (uint k = 0; k < kWidth; k += 4) {
    uint64_t block = (element + k) / 4;
    uint high = uint(block >> 32) | push.purpose << 16 | push.step.y << 24;
    Words w = philox(Words(uint(block), high, push.step.x, random_stream), push.seed.x, push.seed.y);
    @NUMBERS@
    made.e[k] = @REAL@(one.a);
    made.e[k + 1] = @REAL@(one.b);
    made.e[k + 2] = @REAL@(two.a);
    made.e[k + 3] = @REAL@(two.b);
  }
  return made;
}
"""
# By their place in the state.
_FIRST_MISSING = 7
_MISSING = "layout(constant_id = {id}) const bool kMissing_{n} = false;"
CHOICE_ID = _FIRST_MISSING + MAX_STREAMS
_CHOICE = f"layout(constant_id = {CHOICE_ID}) const uint kChoice = 0;"
_DOUBLES = """layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer Doubles { double of[]; };
layout(buffer_reference, scalar, buffer_reference_align = 8) writeonly buffer DoubleRow { double of[@ROW_COUNT@]; };
"""


def _control(control: Control, sums: tuple[str, ...], precision: str) -> str:
    """What happens between the passes: sums, decision, scalars; in double it serves plans of both precisions."""
    real, _ = PRECISIONS[precision]
    double, row = precision == "f64", control.row

    def store(buffer: str, kind: str, size: int) -> str:
        at = f"{buffer}(part.rows + k * {len(row) * size})"
        return " ".join(f"{at}.of[{j}] = {kind}(r.{n});" for j, n in enumerate(row))

    floats, either = store("FloatRow", "float", 4), "if (part.is_double != 0) {{ {} }} else {{ {} }}"
    stores = either.format(store("DoubleRow", "double", 8), floats) if double else floats
    make_row = f"{control.row_type} r = {control.name}_row(WideRows(part.wide_rows).of[k], shared_control);"
    both = "return part.is_double != 0 ? Doubles(part.sums).of[i] : double(Floats(part.sums).of[i]);"
    return fill(
        _template("control.comp.in").replace("@DOUBLE_BUFFERS@", _DOUBLES if double else ""),
        {
            "SOURCE": _in_precision(_template("lib/scalar_math.glsl") + control.source, real),
            "REAL": real,
            "CONTROL": control.type,
            "ROW": control.row_type,
            "ROW_COUNT": str(len(row)),
            "SUM_COUNT": str(len(sums)),
            "READ_PARTIAL": both if double else "return Floats(part.sums).of[i];",
            "TAKE_SUMS": _lines(4, [f"c.{n} = total[{k}];" for k, n in enumerate(sums)]),
            "DECIDE": f"c = {control.name}_decide(c);",
            "MAKE_ROW": f"{make_row} {stores}",
        },
    )


def compile_shader(glslang: str, source: Path, contracted: bool = False) -> list[int]:
    """Compile to SPIR-V words in which no float operation may be contracted (fused), unless all may."""
    target = source.with_suffix(".spv")
    command = [glslang, "-V", "-g0", "--quiet", "--target-env", "vulkan1.2", "-o", str(target), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuleError(f"{source.name} does not compile:\n{result.stdout}{result.stderr}")
    data = target.read_bytes()
    words = list(struct.unpack(f"<{len(data) // 4}I", data))
    return words if contracted else forbid_contraction(words)


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
