"""C++: the rules' loops, compiled once per instruction set, and the table of rules."""

from __future__ import annotations

import re
from pathlib import Path

from glsl import PRECISIONS, SKETCH, fill
from rulefile import Control, Rule, code_of

HERE = Path(__file__).resolve().parent


def is_straight(rule: Rule) -> bool:
    """Whether the rule is float arithmetic and selection alone, so that `float` may stand for many of them at once."""
    return not rule.choices and not re.search(
        r"\b(if|for|while|do|switch|bool|u?int|double|u?vec[234])\b", code_of(rule.source)
    )


def shares_divider(rule: Rule) -> bool:
    """Whether the rule takes a root and divides: it would need the divider twice, and shares its roots out."""
    return "sqrt(" in code_of(rule.source) and "/" in code_of(rule.source)


def body_of(rule: Rule, function: str) -> str:
    """What stands in a function's braces."""
    return re.split(rf"\b(?:RULE|SUMS|PARTS)\s+\w+\s+{function}\b", code_of(rule.source))[1].split("\n}")[0]


def read_by(rule: Rule, function: str) -> tuple[str, ...]:
    """The streams that a function of the rule reads, itself or through the others that it calls."""
    body = body_of(rule, function)
    others = [rule.function] * rule.updates + [f"{rule.function}_parts"] * bool(rule.parts)
    for other in others:
        if other != function and re.search(rf"\b{other}\(", body):
            body += body_of(rule, other)
    return tuple(n for n in rule.streams if n in rule.inputs or re.search(rf"\bs\.{n}\b", body))


def only_written(rule: Rule) -> tuple[str, ...]:
    """Fields that the update gives without having read them."""
    return tuple(n for n in rule.updated if n not in read_by(rule, rule.function))


def wide_loop(rule: Rule) -> str:
    """The loop that takes many elements at once, where the instruction set has one (see wide.h)."""
    read, written = read_by(rule, rule.function), only_written(rule)
    fetches = " ".join(f"fetch({n} + i);" for n in read if n in rule.loaded + rule.inputs)
    if written:
        fetches += f" if (!Far) {{ {' '.join(f'fetch({n} + i);' for n in written)} }}"

    def update(namespace: str, which: str = "") -> str:
        taken = {n: f"load({which}{n} + i)" for n in rule.loaded if n in read}
        taken |= {n: f"splat({value})" for n, value in rule.absent}
        fields = ", ".join(taken.get(n, "Wide{}") for n in rule.fields)
        inputs = ", ".join(f"load({which}{n} + i)" for n in rule.inputs)
        # A whole vector that nobody has read need not be fetched to be overwritten.
        how = {n: "store_only<Far>" if n in written and not which else "store" for n in rule.updated}
        stores = " ".join(f"{how[n]}({which}{n} + i, s.{n});" for n in rule.updated)
        scalars = ", ".join(f"splat(h.{n})" for n in rule.scalars)
        return f"""const {namespace}::{rule.state_type} s = {namespace}::{rule.function}(
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
    shared = shares_divider(rule)
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
{"  if (Far) finish_stores();" if written else ""}
"""


def loop(rule: Rule, precision: str) -> str:
    """The rule's loop in C++.

    ivdep, not restrict: a gradient may be its own parameter's memory, where each element is read before it is written.
    """
    if not rule.updates:
        return ""
    real, _ = PRECISIONS[precision]
    types = [(real if n in rule.updated else f"const {real}", n) for n in rule.loaded + rule.inputs]
    at = [rule.streams.index(n) for _, n in types]
    state, scalars = f"{precision}::{rule.state_type}", f"{precision}::{rule.scalars_type}"
    name = f"{rule.name}_{precision}"
    arguments = ", ".join(f"{t}* {n}" for t, n in types)
    absent = {n: str(value) for n, value in rule.absent}
    fields = ", ".join(f"{n}[i]" if n in rule.loaded else absent.get(n, "0") for n in rule.fields)
    inputs = ", ".join(f"{n}[i]" for n in rule.inputs)
    stores = " ".join(f"{n}[i] = s.{n};" for n in rule.updated)
    casts = ", ".join(f"static_cast<{t}*>(stream[{k}])" for k, (t, _) in zip(at, types, strict=True))
    row = ", ".join(f"static_cast<{real}>(row[{k}])" for k in range(len(rule.scalars)))
    plain = f"""  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {{  // RULE LOOP {name}
    const {state} s = {precision}::{rule.function}({state}{{{fields}}}, {inputs}, h);
    {stores}
  }}
"""
    wide = precision == "f32" and is_straight(rule)
    body = f"#if defined(GRILLY_WIDE)\n{wide_loop(rule)}#else\n{plain}#endif\n" if wide else plain
    call = f"{name}_loop{{}}({casts}, {scalars}{{{{{row}}}}}, count);"
    if not only_written(rule):
        template, unused, call = "", "", call.format("")
    else:
        template, unused = "template <bool Far>\n", "far"
        call = f"if (far)\n    {call.format('<true>')}\n  else\n    {call.format('<false>')}"
    return f"""
{template}static void {name}_loop({arguments}, {scalars} h, std::size_t count) {{
{body}}}
static void {name}(const double* row, void* const* stream, std::size_t count, bool {unused}) {{
  {call}
}}"""


def sums(rule: Rule, precision: str) -> str:
    """What one chunk adds to the rule's sums (see sums.h)."""
    if not rule.sums:
        return ""
    real, _ = PRECISIONS[precision]
    name = f"{rule.name}_sums_{precision}"
    streams = "\n  ".join(
        f"auto* const {n} = static_cast<{'' if n in rule.set_first else 'const '}{real}*>(stream[{k}]);"
        for k, n in enumerate(rule.streams)
    )
    row = ", ".join(f"static_cast<{real}>(row[{k}])" for k in range(len(rule.scalars)))
    count = len(rule.sums)
    # Before the pass changes anything.
    first = len(rule.streams)
    kept = [f"static_cast<{real}*>(stream[{first + k}])" for k in range(len(rule.parts))]
    keep = (
        f"  if (stream[{first}])\n    {rule.name}_parts_{precision}({', '.join([*rule.streams, *kept])}, h, count);\n"
    )
    keep = keep if rule.parts else ""

    def term(namespace: str, element: str, scalars: str) -> str:
        missing = "splat({})" if "load" in element else "{}"
        absent = {n: missing.format(value) for n, value in rule.absent}
        fields = ", ".join(absent.get(n) or element.format(n=n) for n in rule.fields)
        inputs = ", ".join(element.format(n=n) for n in rule.inputs)
        state = f"{namespace}::{rule.state_type}{{{fields}}}"
        return (
            f"const {namespace}::{rule.sums_type} x = {namespace}::{rule.function}_sums({state}, {inputs}, {scalars});"
        )

    def add(target: str, value: str) -> str:
        return " ".join(f"{target.format(k=k)} += {value.format(n=n)};" for k, n in enumerate(rule.sums))

    def store(form: str) -> str:
        return " ".join(form.format(n=n) for n in rule.set_first)

    one = f"""{term(precision, "{n}[i + c]", "h")}
      {add("sum[{k}].of[c]", "x.{n}")} {store("{n}[i + c] = x.{n};")}"""
    classes = f"Sixteen<{real}>(&sum)[{count}]"
    plain = f"""  const auto whole = [&](std::size_t i, {classes}) {{
    GRILLY_NO_LOOP_DEPENDENCE GRILLY_NO_UNROLLING
    for (std::size_t c = 0; c < kClasses; ++c) {{  // RULE LOOP {name}
      {one}
    }}
  }};
  const auto four = [&](std::size_t i, {classes}) {{
    for (std::size_t k = 0; k < 4; ++k) whole(i + k * kClasses, sum);
  }};
  const auto part = [&](std::size_t i, std::size_t there, {classes}) {{
    for (std::size_t c = 0; c < (there < kClasses ? there : kClasses); ++c) {{
      {one}
    }}
  }};
  sum_chunk<{real}, Sixteen<{real}>, {count}>(count, four, part, sums);
"""
    splat = ", ".join(f"splat(h.{n})" for n in rule.scalars)
    # Only what this pass reads: fetching more would cost what it saves.
    fetches = " ".join(f"fetch({n} + i);" for n in read_by(rule, f"{rule.function}_sums"))
    shared = shares_divider(rule)
    last = f"""{{
      const std::size_t i = from + 3 * kClasses;
      {term("by_divider", "load({n} + i)", f"by_divider::{rule.scalars_type}{{{splat}}}")}
      {add("sum[{k}]", "x.{n}")} {store("store({n} + i, x.{n});")}
    }}"""
    vectors = f"""  const wide::{rule.scalars_type} all{{{splat}}};
  const auto whole = [&](std::size_t i, Wide(&sum)[{count}]) {{
    if (i + kAhead < count) {{ {fetches} }}
    {term("wide", "load({n} + i)", "all")}
    {add("sum[{k}]", "x.{n}")} {store("store({n} + i, x.{n});")}
  }};
  const auto four = [&](std::size_t from, Wide(&sum)[{count}]) {{
    whole(from, sum);
    whole(from + kClasses, sum);
    whole(from + 2 * kClasses, sum);
    {last if shared else "whole(from + 3 * kClasses, sum);"}
  }};
  const auto part = [&](std::size_t i, std::size_t there, Wide(&sum)[{count}]) {{
    const Mask some = first(there < kClasses ? there : kClasses);
    {term("wide", "load(some, {n} + i)", "all")}
    {add("sum[{k}]", "keep(some, x.{n})")} {store("store(some, {n} + i, x.{n});")}
  }};
  sum_chunk<{real}, Wide, {count}>(count, four, part, sums);
"""
    wide = precision == "f32" and is_straight(rule)
    body = f"#if defined(GRILLY_WIDE)\n{vectors}#else\n{plain}#endif\n" if wide else plain
    return f"""
static void {name}(const double* row, void* const* stream, std::size_t count, double* sums) {{
  {streams}
  const {precision}::{rule.scalars_type} h{{{row}}};
{keep}{body}}}"""


def parts(rule: Rule, precision: str) -> str:
    """A loop of its own keeps a chunk's parts, so that those who do not want them do not pay for it."""
    if not rule.parts:
        return ""
    real, _ = PRECISIONS[precision]
    types = [(f"const {real}", n) for n in rule.streams] + [(real, n) for n in rule.parts]
    arguments = ", ".join(f"{t}* {n}" for t, n in types)
    absent = {n: str(value) for n, value in rule.absent}
    fields = ", ".join(absent.get(n, f"{n}[i]") for n in rule.fields)
    inputs = ", ".join(f"{n}[i]" for n in rule.inputs)
    state, scalars = f"{precision}::{rule.state_type}", f"{precision}::{rule.scalars_type}"
    return f"""
static GRILLY_NOINLINE void {rule.name}_parts_{precision}({arguments}, {scalars} h, std::size_t count) {{
  GRILLY_NO_LOOP_DEPENDENCE
  for (std::size_t i = 0; i < count; ++i) {{  // RULE LOOP {rule.name}_parts_{precision}
    const {precision}::{rule.parts_type} x = {precision}::{rule.function}_parts({state}{{{fields}}}, {inputs}, h);
    {" ".join(f"{n}[i] = x.{n};" for n in rule.parts)}
  }}
}}"""


def control(control: Control) -> str:
    """The decision between two passes, and a row of scalars for the second, on arrays of doubles."""

    def function(name: str, kind: str, fields: tuple[str, ...], call: str, extra: str) -> str:
        taken = ", ".join(f"{name}[{k}]" for k in range(len(fields)))
        stores = " ".join(f"{name}[{k}] = x.{n};" for k, n in enumerate(fields))
        return f"""  const f64::{kind} x = f64::{call}(f64::{kind}{{{taken}}}{extra});
  {stores}"""

    numbers = ", ".join(f"numbers[{k}]" for k in range(len(control.fields)))
    return f"""
static void {control.name}_decide(double* numbers) {{
{function("numbers", control.type, control.fields, control.name + "_decide", "")}
}}
static void {control.name}_row(double* row, const double* numbers) {{
{function("row", control.row_type, control.row, control.name + "_row", f", f64::{control.type}{{{numbers}}}")}
}}"""


# In a namespace of the precision. Real is what float stands for.
_LIBRARY = """using Real = float;
#include "lib/elementary.glsl"
#include "lib/activations.glsl\""""


def _file_of(rule: Rule) -> tuple[str, str]:
    """A file whose function is left open is one for each choice."""
    return rule.function, rule.choice


def _scope(rule: Rule) -> str:
    """The namespace of a choice."""
    return f"with_{rule.choice}"


def _chosen(rule: Rule) -> str:
    """What the open function is in this namespace."""
    return "".join(f"#define {rule.open_name}_{which} {rule.choice}_{which}\n" for which in ("value", "slope")).rstrip()


def _unchosen(rule: Rule) -> str:
    return "".join(f"#undef {rule.open_name}_{which}\n" for which in ("value", "slope"))


def loops(rules: list[Rule]) -> str:
    """The C++ source that is compiled once per instruction set."""
    template = (HERE / "loops.cpp.in").read_text()
    files = {(r.function, r.choice): [other for other in rules if _file_of(other) == _file_of(r)] for r in rules}
    bodies = [
        fill(
            template,
            {
                "RULE": name,
                "OPEN": f"namespace {_scope(mine[0])} {{\n{_chosen(mine[0])}" if choice else "",
                "LIBRARY": _LIBRARY if choice else "",
                "CLOSE": f"{_unchosen(mine[0])}}}  // namespace {_scope(mine[0])}" if choice else "",
                "WIDE": str(int(is_straight(mine[0]))),
                "LOOPS": "\n".join(make(r, p) for r in mine for make in (loop, parts, sums) for p in PRECISIONS),
            },
        )
        for (name, choice), mine in files.items()
    ]
    controls = {r.control.name: r.control for r in rules if r.control}
    rows_of = "".join(c.row_struct for c in controls.values())
    includes = "".join(f'#include "control/{name}.glsl"\n' for name in controls)
    decisions = "\n".join(control(c) for c in controls.values())

    def pointers(rule: Rule) -> str:
        scope = f"{_scope(rule)}::" if rule.choice else ""
        update = ", ".join(f"{scope}{rule.name}_{p}" if rule.updates else "nullptr" for p in PRECISIONS)
        summing = ", ".join(f"{scope}{rule.name}_sums_{p}" if rule.sums else "nullptr" for p in PRECISIONS)
        deciding = f"{rule.control.name}_decide, {rule.control.name}_row" if rule.control else "nullptr, nullptr"
        return f"{{{{{update}}}, {{{summing}}}, {deciding}}}"

    rows = ",\n    ".join(map(pointers, rules))
    return f"""// Generated by shaders/generate.py.
#include "draws.h"
#include "glsl.h"
#include "gradient.h"
#include "grilly/rules.h"
#include "sums.h"
#include "wide.h"

namespace grilly {{
namespace GRILLY_ISA {{
namespace f64 {{
#define float double
#include "lib/scalar_math.glsl"
{includes}#undef float
}}  // namespace f64
namespace f32 {{
{rows_of}}}
#if defined(GRILLY_WIDE)
#define float Wide
namespace wide {{
{rows_of}}}
namespace by_divider {{
{rows_of}}}
#undef float
#endif
{decisions}
}}  // namespace GRILLY_ISA
{"".join(bodies)}
namespace GRILLY_ISA {{
extern const Loops loops[] = {{
    {rows},
}};
extern const GradientLoops gradient_loops = {{{{mix<f32::Mix, float>, mix<f64::Mix, double>}},
                                              {{trace<float>, trace<double>}}}};
extern const DrawLoops draw_loops = {{{{draw_elements<float, normal_blocks>, draw_elements<double, normal_blocks>}},
                                      {{draw_elements<float, uniform_blocks>, draw_elements<double, uniform_blocks>}}}};
}}  // namespace GRILLY_ISA
}}  // namespace grilly
"""


def words_of(name: str, words: list[int]) -> str:
    """SPIR-V as an array."""
    return f"const std::uint32_t {name}[] = {{{','.join(map(hex, words))}}};"


def table(rules: list[Rule], spirv: dict[tuple[str, str, str], list[int]]) -> str:
    """The table of rules: names, fields and SPIR-V, in the order of the loops."""
    arrays, rows = {}, []

    def strings(names: tuple[str, ...]) -> str:
        return "{" + ", ".join(f'"{n}"' for n in names) + "}"

    def modules(function: str, which: str) -> str:
        made = []
        for precision in PRECISIONS:
            words = spirv.get((function, which, precision), [])
            name = f"{function}_{which}_{precision}"
            if words:
                arrays[name] = words_of(name, words)
            made.append(f"Spirv{{{name}, {len(words)}}}" if words else "Spirv{}")
        return "{" + ", ".join(made) + "}"

    for rule in rules:
        at = [rule.numbers.index(n) for n in rule.sums]
        places = [str(rule.state.index(n)) if n in rule.state else "kMissing" for n in rule.fields]
        streams = f"{strings(rule.state)}, {{{', '.join(places)}}}, {strings(rule.inputs)}, Drawn::{rule.drawn}"
        lists = f"{streams}, {', '.join(map(strings, (rule.scalars, rule.sums, rule.parts, rule.numbers)))}"
        spirvs = ", ".join(modules(rule.function, which) for which in ("update", "sums", "control"))
        flags = ", ".join(str(flag).lower() for flag in (rule.updates, rule.either, rule.control is not None))
        choice = rule.choices.index(rule.choice) if rule.choice else 0
        rows.append(f'    {{"{rule.name}", {lists}, {{{", ".join(map(str, at))}}}, {flags}, {choice}, {spirvs}}},')
    sketch = modules(SKETCH, "sums")
    joined_arrays, joined_rows = "\n".join(arrays.values()), "\n".join(rows)
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

const SpirvPair& sketch_shader() {{
  static const SpirvPair shader = {sketch};
  return shader;
}}
}}  // namespace grilly
"""
