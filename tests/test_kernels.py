"""The rules: one text in three places, the same bits, loops that vectorise, a generator that refuses."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import generate
import glsl
import grilly_optim
import rulefile
from check_vectorised import flags, scalar_loops
from grilly_optim import _devices, kernels, optim
from grilly_optim.energy._relax import relax_rule
from grilly_optim.energy.activations import ACTIVATIONS
from grilly_optim.kernels.rule import Rule
from tests.table import BY_RULE, ROWS, Row, assert_bits, train

ROOT = Path(__file__).resolve().parent.parent

MODULES = [
    *(f"{package.__name__}.{m.name}" for package in (optim, kernels) for m in pkgutil.iter_modules(package.__path__)),
    "grilly_optim.benchmarks.stream",
    "grilly_optim.sampling._rules",
    "grilly_optim.sampling._momentum_rules",
    "grilly_optim.sampling._kick_drift",
]
TWINS = {
    value.name: value
    for module in MODULES
    for value in vars(importlib.import_module(module)).values()
    if isinstance(value, Rule)
}
TWINS |= {relax_rule(name).name: relax_rule(name) for name in ACTIVATIONS}


def _names() -> list[str]:
    """The rules of all files, with every choice that they leave open and without optional fields."""
    parsed = [rulefile.parse(path) for path in sorted((ROOT / "shaders/rules").glob("*.glsl"))]
    return ["_".join([rule.name, *([choice] if choice else [])]) for rule in parsed for choice in rule.choices or ("",)]


@pytest.mark.parametrize("name", _names())
def test_every_rule_has_a_twin_with_its_names(name: str) -> None:
    rule = TWINS[name]
    ours = (rule.state_fields, rule.inputs, rule.scalar_fields, rule.sum_fields, rule.number_fields)
    assert ours == tuple(map(tuple, _devices._core.rules()[name]))


def test_every_rule_is_in_the_table_of_tests() -> None:
    # Rules with two passes have tests of their own (test_hypergradient.py, test_sums.py), and so have those that draw,
    # and what is no optimizer (below).
    others = {"stream", "hl", "euler"}
    assert set(BY_RULE) == {name for name, rule in TWINS.items() if not (rule.sums or rule.drawn)} - others


@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
@pytest.mark.parametrize("row", BY_RULE.values(), ids=list(BY_RULE))
def test_where_arrays_start_makes_no_difference(row: Row, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every position on a cache line, with every number of elements left over on both sides."""
    monkeypatch.setenv("GRILLY_ISA", isa)
    rng = np.random.default_rng(1)
    memory = grilly_optim.empty(3 * 256, device="cpu")
    for start in range(16):
        # All sizes for the first rule; for the others the machinery is known to be right, and their loops are in doubt.
        for size in range(1, 100) if row is ROWS[0] else range(1 + start, 100, 16):
            memory[:] = rng.standard_normal(memory.size)
            p, g = memory[start : start + size], memory[256 + 2 * start : 256 + 2 * start + size]
            untouched = memory.copy()
            (q,) = train(row, [p.copy()], [[g]] * 3, "numpy")
            train(row, [p], [[g]] * 3, "cpu")
            assert_bits(p, q, f"{size} elements at {start}, {isa}")
            p[:] = untouched[start : start + size]
            assert_bits(memory, untouched, "memory beside the parameter")


def _cases() -> list[tuple[str, str]]:
    isas = _devices._core.cpu_instruction_sets() if _devices._core else []
    return [("cpu", isa) for isa in isas] + [("vulkan", ""), ("staged", "")]


@pytest.mark.parametrize(("where", "isa"), _cases())
@pytest.mark.parametrize("row", BY_RULE.values(), ids=list(BY_RULE))
def test_no_bit_differs_after_100_steps(where: str, isa: str, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32, 30,000 elements here; benchmarks/measures/accuracy.py does it with a million."""
    monkeypatch.setenv("GRILLY_ISA", isa)
    monkeypatch.setenv("GRILLY_FORCE_STAGING", "1" if where == "staged" else "")
    device = "cpu" if where == "cpu" else "vulkan:llvmpipe"
    rng = np.random.default_rng(42)
    start = rng.standard_normal(30_000).astype(np.float32)
    gradients = [[rng.standard_normal(30_000).astype(np.float32)] for _ in range(100)]
    (p,), (q,) = (train(row, [start.copy()], gradients, d) for d in (device, "numpy"))
    assert_bits(p, q, f"{device} {isa}")


def test_a_changed_bit_is_seen() -> None:
    """The judge itself."""
    p = np.ones(1000, np.float32)
    q = p.copy()
    q[500] = np.nextafter(q[500], np.float32(2))
    with pytest.raises(AssertionError, match="1 of 1000 elements differ"):
        assert_bits(p, q)


def instruction_sets() -> list[str]:
    return list(flags()) if sys.platform == "linux" and "x86" in _machine() else ["base"]


def _machine() -> str:
    import platform

    return platform.machine()


@pytest.mark.subprocess
@pytest.mark.parametrize("isa", instruction_sets())
def test_every_rule_loop_is_vectorised(isa: str, tmp_path: Path) -> None:
    generated = _generate(ROOT / "shaders" / "rules", tmp_path)
    loops = 0
    for path in (ROOT / "shaders/rules").glob("*.glsl"):
        marks = re.findall(r"^(?:RULE|SUMS|PARTS) ", path.read_text(), re.M)
        loops += 2 * len(marks) * len(rulefile.variants(rulefile.parse(path)))
    assert len(re.findall("RULE LOOP", generated.read_text())) == loops
    assert scalar_loops(generated, isa) == []


@pytest.mark.subprocess
def test_a_loop_that_does_not_vectorise_is_seen(tmp_path: Path) -> None:
    """The judge itself: a rule whose iterations cannot run side by side."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "serial.glsl").write_text(
        "struct SerialState { float p; };\nstruct SerialScalars { float a; };\n"
        "RULE SerialState serial(SerialState s, float g, SerialScalars h) {\n"
        "  float x = s.p;\n  while (x > h.a) { x = x * g; }\n  return SerialState(x);\n}\n"
    )
    assert scalar_loops(_generate(rules, tmp_path / "out"), "base", tmp_path) == ["serial_f32", "serial_f64"]


def _generate(rules: Path, out: Path) -> Path:
    subprocess.run([sys.executable, ROOT / "shaders/generate.py", "--out", out, "--rules", rules], check=True)
    return out / "loops.cpp"


EVERY_FLOAT = r"""
#include <cstdint>
#include <cstdio>
#include <cstring>
#include "wide.h"
namespace grilly { namespace GRILLY_ISA {
// Negative numbers and NaN give a NaN; everything else must have the bits of the instruction.
unsigned long differing() {
  unsigned long count = 0;
  for (std::uint64_t first = 0; first < (std::uint64_t{1} << 32); first += 16) {
    std::uint32_t in[16], got[16], want[16];
    for (std::uint32_t i = 0; i < 16; ++i) in[i] = static_cast<std::uint32_t>(first) + i;
    const Wide x = _mm512_loadu_ps(in);
    _mm512_storeu_ps(got, sqrt(x));
    _mm512_storeu_ps(want, _mm512_sqrt_ps(x));
    for (int i = 0; i < 16; ++i) {
      const bool nan = (got[i] & 0x7fffffff) > 0x7f800000 && (want[i] & 0x7fffffff) > 0x7f800000;
      count += got[i] != want[i] && !nan;
    }
  }
  return count;
}
}}
int main() { std::printf("%lu", grilly::GRILLY_ISA::differing()); }
"""


@pytest.mark.subprocess
@pytest.mark.isa("avx512")
def test_the_wide_square_root_is_right_for_every_float(tmp_path: Path) -> None:
    """4,294,967,296 of them, against the processor's instruction."""
    source = tmp_path / "every_float.cpp"
    source.write_text(EVERY_FLOAT)
    include = ROOT / "grilly_core/src/cpu"
    command = ["g++", "-std=c++20", "-DGRILLY_ISA=avx512", *flags()["avx512"], f"-I{include}", source]
    subprocess.run([*command, "-o", tmp_path / "every_float"], check=True)
    result = subprocess.run([tmp_path / "every_float"], check=True, capture_output=True, text=True)
    assert result.stdout == "0"


GOOD = """
struct AState { float p; };
struct AScalars { float a; };
RULE AState a(AState s, float g, AScalars h) { return s; }
"""
SUMS = "struct ASums { float gg; };\nSUMS ASums a_sums(AState s, float g, AScalars h) { return s; }\n"
PARTS = "struct AParts { float part; };\nPARTS AParts a_parts(AState s, float g, AScalars h) { return s; }\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b", GOOD, r"b.glsl: no function named 'b' marked RULE"),
        (
            "a",
            GOOD.replace("float p", "float input"),
            r"a.glsl: 'input' is a reserved word of GLSL and cannot name a field",
        ),
        ("a", GOOD.replace("float g, ", ""), r"a.glsl: a must take \(State s, float input, ..., Scalars h\)"),
        ("a", GOOD.replace("struct AScalars", "struct Other"), r"a.glsl: struct AScalars is not defined in the file"),
        (
            "a",
            GOOD.replace("float p", "float " + ", ".join(f"p{i}" for i in range(17))),
            r"a.glsl: 18 streams, at most 16",
        ),
        ("a", GOOD + "NORMAL(g) UNIFORM(g)", r"a.glsl: one input at most is drawn, and it is the last one, 'g'"),
        ("a", GOOD + "NORMAL(z)", r"a.glsl: one input at most is drawn, and it is the last one, 'g'"),
        ("a", GOOD + PARTS, r"a.glsl: a_parts must take what a_sums takes"),
        (
            "a",
            GOOD + SUMS + PARTS.replace("float g, ", "float g, float z, "),
            r"a.glsl: a_parts must take what a_sums takes",
        ),
        ("a", GOOD + SUMS + PARTS.replace("struct AParts", "struct Other"), r"struct AParts is not defined"),
        (
            "a",
            GOOD + SUMS + PARTS.replace("part;", "noise;"),
            r"a.glsl: 'noise' is a reserved word of GLSL and cannot name a field",
        ),
        (
            "a",
            GOOD + SUMS + PARTS.replace("part;", ", ".join(f"part{i}" for i in range(15)) + ";"),
            r"a.glsl: 17 streams, at most 16",
        ),
        ("a", GOOD + "ONE_OF(phi, relu, swish)", r"a.glsl: ONE_OF\(phi, ...\) names 'swish', which lib/activations"),
        ("a", GOOD + "ONE_OF(phi)", r"a.glsl: one function at most is left open, and may be one thing or more"),
        ("a", GOOD + "ONE_OF(phi, relu) ONE_OF(psi, relu)", r"a.glsl: one function at most is left open"),
        ("a", GOOD + "OPTIONAL(q, 0)", r"a.glsl: OPTIONAL\(q\) is none of the fields"),
    ],
)
def test_the_generator_names_the_file_and_the_fault(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.glsl"
    path.write_text(text)
    with pytest.raises(generate.RuleError, match=message):
        generate.parse(path)


def test_a_controlled_first_pass_leaves_the_parameter_alone(tmp_path: Path) -> None:
    for folder in ("rules", "control"):
        (tmp_path / folder).mkdir()
    (tmp_path / "control" / "c.glsl").write_text(
        "struct CControl { float gg; };\nstruct AScalars { float a; };\n"
        "CONTROL CControl c_decide(CControl c) { return c; }\n"
        "CONTROL AScalars c_row(AScalars r, CControl c) { return r; }\n"
    )
    path = tmp_path / "rules" / "a.glsl"
    path.write_text(
        "CONTROLLED_BY(c)" + GOOD.replace("struct AScalars { float a; };\n", "") + SUMS.replace("gg", "gg, p")
    )
    with pytest.raises(generate.RuleError, match=r"a.glsl: a_sums sets 'p', which is the second pass's to change"):
        generate.parse(path)


def test_a_rule_that_is_no_glsl_fails_with_the_compilers_words(tmp_path: Path) -> None:
    glslang = shutil.which("glslangValidator")
    assert glslang, "glslangValidator is needed to build and test the shaders"
    path = tmp_path / "a.comp"
    path.write_text("#version 460\nvoid main() { nonsense; }\n")
    with pytest.raises(generate.RuleError, match=r"a.comp does not compile:[\s\S]*nonsense"):
        generate.compile_shader(glslang, path)


def test_every_float_operation_is_marked_not_to_be_contracted(tmp_path: Path) -> None:
    glslang = shutil.which("glslangValidator")
    assert glslang, "glslangValidator is needed to build and test the shaders"
    for name, precision in itertools.product(("adamw", "norm"), generate.PRECISIONS):
        rule = generate.parse(ROOT / f"shaders/rules/{name}.glsl")
        for which, text in generate.shaders(rule, precision).items():
            path = tmp_path / f"{name}_{which}_{precision}.comp"
            path.write_text(text)
            operations, marked = _float_operations(generate.compile_shader(glslang, path))
            assert len(operations) > 1
            assert operations == marked


def _float_operations(words: list[int]) -> tuple[set[int], set[int]]:
    operations, marked, at = set(), set(), 5
    while at < len(words):
        length, op = words[at] >> 16, words[at] & 0xFFFF
        if op in glsl.FLOAT_OPS:
            operations.add(words[at + 2])
        if op == glsl.OP_DECORATE and words[at + 2] == glsl.NO_CONTRACTION:
            marked.add(words[at + 1])
        at += length
    return operations, marked


def test_an_unknown_rule_is_refused() -> None:
    class Named:
        name = "no such rule"

    backend: Any = _devices.open_device("cpu")[1]
    with pytest.raises(ValueError, match="this build has no rule named 'no such rule'"):
        backend.plan(Named(), [np.zeros(3, np.float32)], [0])


def test_counters_of_an_unopened_device_are_zero() -> None:
    assert set(grilly_optim.counters("numpy")) == {
        "dispatches",
        "submits",
        "bytes_up",
        "bytes_down",
        "bytes_allocated",
        "allocations",
    }


@pytest.mark.parametrize("isa", [pytest.param(n, marks=pytest.mark.isa(n)) for n in ("avx512", "avx2", "base")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["hl", "euler"])
def test_rules_that_are_no_optimizers(name: str, dtype: Any, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of elements left over, at every position on a cache line, on each instruction set."""
    monkeypatch.setenv("GRILLY_ISA", isa)
    rng, rule = np.random.default_rng(1), TWINS[name]
    rows = [tuple(rng.uniform(0.1, 1, len(rule.scalar_fields)))]
    for size in range(1, 100):
        memory = rng.standard_normal(size + 16).astype(dtype)
        g = rng.standard_normal(size).astype(dtype)
        ends = []
        for device in ("numpy", "cpu"):
            p = memory.copy()[size % 16 :][:size]
            backend: Any = _devices.open_device(device)[1]
            plan = backend.plan(rule, [p], [0])
            for _ in range(3):
                assert backend.run([plan], ([g],), [rows], [None])
            ends.append(p)
        assert_bits(*ends, f"{size} elements, {isa}")
