"""Measure every target that one machine can show, and print which are met."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from grilly_optim import DeviceInfo, devices

from ..machine import describe
from ..rivals import NAMES
from . import (
    accuracy,
    checkpoints,
    energy,
    engine,
    footprint,
    hamiltonian,
    hamiltonian_learning,
    langevin,
    optimizers,
    passes,
    randomness,
    samplers,
    speed,
)
from .table import Measure, to_text

DEFAULT_BUDGET = 15.0


def measures(infos: list[DeviceInfo], budget: float) -> Iterator[Measure]:
    """All of them, in the order of the table."""
    software = next((d for d in infos if "llvmpipe" in d.name), None)
    yield from speed.against_torch(budget)
    yield from optimizers.against_torch(budget)
    yield from hamiltonian_learning.against_the_original(budget)
    yield from passes.hypergradient(budget)
    yield from passes.forgetting(budget)
    yield from samplers.against_torch(software, budget)
    yield from samplers.measured_steps(budget)
    yield samplers.many_chains(budget)
    yield from hamiltonian.hamiltonian(budget)
    yield from energy.relaxation(budget)
    yield speed.small_step()
    yield from speed.software_against_numpy(software, budget)
    yield speed.with_pauses()
    yield from accuracy.accuracy(infos)
    yield optimizers.lion_signs(infos)
    yield from randomness.normal_numbers(infos)
    yield from langevin.learning_coefficients()
    yield from engine.engine(software)
    yield from footprint.memory([d for d in infos if d.shares_memory])
    yield footprint.import_time()
    yield from passes.continual_demo()
    yield from energy.digits()
    yield checkpoints.killed_saves()


def main() -> int:
    """Print the table; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m grilly_optim.benchmarks.measures", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    parser.add_argument(
        "--budget", type=float, default=DEFAULT_BUDGET, metavar="SECONDS", help="per race (default: 15)"
    )
    options = parser.parse_args()
    machine = describe((*NAMES, "blackjax", "jax", "arviz", "unaiverse"))
    found = []
    for measure in measures([d for d in devices() if d.usable], options.budget):
        print(f"measures: {measure.what}: {measure.measured}", file=sys.stderr)
        found.append(measure)
    print(
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, load average {machine['load_average']}"
    )
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    print(to_text(found))
    if options.json is not None:
        content = {"machine": machine, "measures": [dataclasses.asdict(m) for m in found]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return int(any(m.met is False for m in found))


if __name__ == "__main__":
    sys.exit(main())
