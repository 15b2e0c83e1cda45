"""Read shaders/rules/*.glsl: what one element does, in the subset that is GLSL and C++ at once.

A rule file holds two structs and one function::

    struct XState   { float p, ...; };            // the first field is the caller's array, the engine owns the others
    struct XScalars { float a, b, ...; };         // computed on the host in double, one row per step
    RULE XState x(XState s, float g, ..., XScalars h) { ... }

The file is named like the function. A rule whose scalars depend on sums over all elements has a first pass too::

    CONTROLLED_BY(y)                              // shaders/control/y.glsl decides between the passes
    struct XSums { float gg, ...; };              // what one element adds to each sum; the name of a state field is no
                                                  // sum: the first pass sets that field, and the second leaves it alone
    SUMS XSums x_sums(XState s, float g, ..., YRow h) { ... }

A rule without a control whose sums set the parameter (the first field) does the whole step in that pass: a run makes
the one pass or the other, as its caller wants the sums or not.

Fields may be missing. Each such line doubles the number of rules; their names end in the optional fields that they
have, in the order of the struct (``x``, ``x_mask``), and an update does not change these fields::

    OPTIONAL(mask, 1)                             // what it is where it is missing: a whole number

A function may be left open. There is one rule for each that it may be, and the names of these rules end in it
(``x_relu``, ``x_tanh``)::

    ONE_OF(phi, relu, tanh, ...)                  // phi_value(x) and its derivative phi_slope(x, r) are relu_value and
                                                  // relu_slope of shaders/lib/activations.glsl, or ...

Functions of the file that are no pass of their own are marked ``MATH``.

What a step is made of may be kept, element by element, where the caller of a rule with sums wants it::

    struct XParts { float part_grad, ...; };      // nothing reads these in a step
    PARTS XParts x_parts(XState s, float g, ..., XScalars h) { ... }

The last input may be one that the engine draws, by element, unless the caller gives it::

    NORMAL(z)                                     // standard normal numbers; UNIFORM(u): uniform ones in [0, 1)

A file with sums and no update is a rule that only measures. A control file holds::

    struct YControl { float ...; };               // numbers of the whole run: the sums by their names, and the caller's
    struct YRow { float ...; };                   // the scalars of the rules it controls, which do not define their own
    CONTROL YControl y_decide(YControl c) { ... }
    CONTROL YRow y_row(YRow r, YControl c) { ... }
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

MAX_STREAMS = 16  # kMaxStreams in grilly/rules.h

# Words that GLSL reserves or defines and that a C++ compiler would accept as a field's name.
_RESERVED_WORDS = """
active asm attribute cast centroid coherent common discard external filter fixed flat fvec half highp hvec inline input
interface invariant lowp mediump namespace noinline noise output partition patch precise precision public resource
sample sampler shared smooth static subroutine superp template this uniform union unsigned using varying vec volatile
"""
RESERVED = frozenset(_RESERVED_WORDS.split())


class RuleError(Exception):
    """A rule file that the generator does not understand; the message names the file."""


@dataclass(frozen=True)
class Control:
    """What happens between the two passes."""

    name: str
    type: str
    fields: tuple[str, ...]
    row_type: str
    row: tuple[str, ...]
    source: str

    @property
    def row_struct(self) -> str:
        """The scalars of its rules, which read them without the rest of the file."""
        return f"struct {self.row_type} {{ float {', '.join(self.row)}; }};\n"


@dataclass(frozen=True)
class Rule:
    """What the engine has to know of one rule."""

    name: str
    function: str
    state_type: str
    fields: tuple[str, ...]
    inputs: tuple[str, ...]
    scalars_type: str
    scalars: tuple[str, ...]
    source: str
    updates: bool = True
    sums_type: str = ""
    sums: tuple[str, ...] = ()
    set_first: tuple[str, ...] = ()
    control: Control | None = None
    drawn: str = "none"
    optional: tuple[tuple[str, int], ...] = ()
    parts_type: str = ""
    parts: tuple[str, ...] = ()
    absent: tuple[tuple[str, int], ...] = ()
    open_name: str = ""
    choices: tuple[str, ...] = ()
    choice: str = ""

    @property
    def state(self) -> tuple[str, ...]:
        """The fields that are there."""
        return tuple(n for n in self.fields if n not in dict(self.absent))

    @property
    def either(self) -> bool:
        """Whether the pass with sums is the whole step, and the update another way to make it."""
        return self.updates and self.fields[0] in self.set_first

    @property
    def loaded(self) -> tuple[str, ...]:
        """State fields that the update takes."""
        return tuple(n for n in self.state if self.either or n not in self.set_first)

    @property
    def streams(self) -> tuple[str, ...]:
        """State fields, then inputs."""
        return self.state + self.inputs

    @property
    def updated(self) -> tuple[str, ...]:
        """State fields that the update gives."""
        return tuple(n for n in self.loaded if n not in dict(self.optional))

    @property
    def numbers(self) -> tuple[str, ...]:
        """What a run gives back: the fields of its control, or the sums alone."""
        return self.control.fields if self.control else self.sums


def code_of(source: str) -> str:
    """The source without its comments."""
    return re.sub(r"//[^\n]*", "", source)


def parse(path: Path) -> Rule:
    """Read one rule file; `RuleError` names the file and what is wrong with it."""
    source = path.read_text()
    code = code_of(source)
    structs, control = _structs(code), _control(path, code)
    if control:
        structs[control.row_type] = control.row
    updates, sums = _functions("RULE", code), _functions("SUMS", code)
    name, sums_name = path.stem, f"{path.stem}_sums"
    if name not in updates and sums_name not in sums:
        raise RuleError(f"{path.name}: no function named {name!r} marked RULE")
    result, arguments = updates[name] if name in updates else sums[sums_name]
    types, names = [a[0] for a in arguments], [a[1] for a in arguments]
    inputs = tuple(names[1:-1])
    if len(arguments) < 3 or (name in updates and types[0] != result) or any(t != "float" for t in types[1:-1]):
        raise RuleError(f"{path.name}: {name} must take (State s, float input, ..., Scalars h) and return its State")
    sums_type, parts_type = "", ""
    if sums_name in sums:
        sums_type, same = sums[sums_name]
        if same != arguments:
            raise RuleError(f"{path.name}: {sums_name} must take what {name} takes")
    if kept := _functions("PARTS", code).get(f"{name}_parts"):
        parts_type, same = kept
        if same != arguments or not sums_type:
            raise RuleError(f"{path.name}: {name}_parts must take what {sums_name} takes")
    for needed in (types[0], types[-1], sums_type, parts_type):
        if needed and needed not in structs:
            raise RuleError(f"{path.name}: struct {needed} is not defined in the file")
    state, of_sums = structs[types[0]], structs.get(sums_type, ())
    rule = Rule(
        name,
        name,
        types[0],
        state,
        inputs,
        types[-1],
        structs[types[-1]],
        source,
        name in updates,
        sums_type,
        tuple(n for n in of_sums if n not in state),
        tuple(n for n in of_sums if n in state),
        control,
        _drawn(path, code, inputs),
        _optional(path, code, state),
        parts_type,
        structs.get(parts_type, ()),
        (),
        *_open(path, code),
    )
    reserved = RESERVED.intersection(rule.streams + rule.scalars + rule.sums + rule.parts)
    if reserved:
        raise RuleError(f"{path.name}: {sorted(reserved)[0]!r} is a reserved word of GLSL and cannot name a field")
    if state[0] in rule.set_first and rule.control:
        raise RuleError(f"{path.name}: {sums_name} sets {state[0]!r}, which is the second pass's to change")
    if len(rule.streams + rule.parts) > MAX_STREAMS:
        raise RuleError(f"{path.name}: {len(rule.streams + rule.parts)} streams, at most {MAX_STREAMS} are supported")
    _check_control(path, rule)
    return rule


def variants(rule: Rule) -> list[Rule]:
    """The rule with each of its choices, and all subsets of its optional fields."""
    made = []
    for choice, k in itertools.product(rule.choices or ("",), range(2 ** len(rule.optional))):
        absent = tuple(field for bit, field in enumerate(rule.optional) if not k >> bit & 1)
        there = [n for n in rule.fields if n in dict(rule.optional) and n not in dict(absent)]
        name = "_".join([rule.function, *filter(None, [choice]), *there])
        made.append(dataclasses.replace(rule, name=name, absent=absent, choice=choice))
    return made


def _open(path: Path, code: str) -> tuple[str, tuple[str, ...]]:
    """The name of the function that is left open, and what it may be."""
    found = re.findall(r"\bONE_OF\(([^)]*)\)", code)
    if not found:
        return "", ()
    name, *choices = (part.strip() for part in found[0].split(","))
    library = (Path(__file__).parent / "lib" / "activations.glsl").read_text()
    for choice in choices:
        if not re.search(rf"\b{choice}_value\(", library):
            raise RuleError(f"{path.name}: ONE_OF({name}, ...) names {choice!r}, which lib/activations.glsl has not")
    if len(found) > 1 or not choices:
        raise RuleError(f"{path.name}: one function at most is left open, and may be one thing or more")
    return name, tuple(choices)


def _optional(path: Path, code: str, state: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    found = tuple((name, int(value)) for name, value in re.findall(r"\bOPTIONAL\((\w+),\s*(\d+)\)", code))
    for name, _ in found:
        if name not in state[1:]:
            raise RuleError(f"{path.name}: OPTIONAL({name}) is none of the fields {', '.join(state[1:])}")
    return found


def _drawn(path: Path, code: str, inputs: tuple[str, ...]) -> str:
    marks = re.findall(r"\b(NORMAL|UNIFORM)\((\w+)\)", code)
    if not marks:
        return "none"
    if len(marks) > 1 or marks[0][1] != inputs[-1]:
        raise RuleError(f"{path.name}: one input at most is drawn, and it is the last one, {inputs[-1]!r}")
    return str(marks[0][0]).lower()


def _structs(code: str) -> dict[str, tuple[str, ...]]:
    return {name: _fields(body) for name, body in re.findall(r"struct\s+(\w+)\s*\{([^}]*)\}", code)}


def _fields(body: str) -> tuple[str, ...]:
    declarations = [d.strip() for d in body.split(";") if d.strip()]
    return tuple(name.strip() for d in declarations for name in d.removeprefix("float").split(","))


def _functions(mark: str, code: str) -> dict[str, tuple[str, list[list[str]]]]:
    """Name -> what it returns, and its arguments as [type, name]."""
    found = re.findall(rf"{mark}\s+(\w+)\s+(\w+)\s*\(([^)]*)\)", code)
    return {name: (result, [a.split() for a in arguments.split(",")]) for result, name, arguments in found}


def _control(path: Path, code: str) -> Control | None:
    named = re.search(r"CONTROLLED_BY\((\w+)\)", code)
    if not named:
        return None
    name = named.group(1)
    file = path.parent.parent / "control" / f"{name}.glsl"
    if not file.exists():
        raise RuleError(f"{path.name}: there is no control/{file.name}")
    source = file.read_text()
    structs, functions = _structs(code_of(source)), _functions("CONTROL", code_of(source))
    try:
        kind, row = functions[f"{name}_decide"][0], functions[f"{name}_row"][0]
        return Control(name, kind, structs[kind], row, structs[row], source)
    except KeyError as missing:
        raise RuleError(f"control/{file.name}: {missing} is not there") from None


def _check_control(path: Path, rule: Rule) -> None:
    if rule.control is None:
        return
    if rule.scalars_type != rule.control.row_type:
        raise RuleError(f"{path.name}: {rule.name} must take {rule.control.row_type} of {rule.control.name}")
    missing = set(rule.sums) - set(rule.control.fields)
    if missing:
        raise RuleError(f"{path.name}: {rule.control.type} has no field for the sum {sorted(missing)[0]!r}")
