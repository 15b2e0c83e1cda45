from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from grilly_optim.kernels.rule import Rule

class DeviceInfo:
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def uuid(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def api_version(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def float64(self) -> bool: ...
    @property
    def shares_memory(self) -> bool: ...
    @property
    def limits(self) -> dict[str, int]: ...

class Memory:
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Plan:
    strength: float
    @property
    def done(self) -> object: ...
    def add_anchor(self) -> None: ...
    def add_trace(self) -> None: ...
    def add_parts(self) -> None: ...
    def fits(self, i: int, gradient: object) -> bool: ...
    def expect_run(self) -> None: ...
    def guard(self, arrays: Sequence[NDArray[Any]]) -> None: ...
    def read_state(self, field: str, parameter: int, to: NDArray[Any]) -> None: ...
    def write_state(self, field: str, parameter: int, source: NDArray[Any]) -> None: ...

class Sketch:
    def read(self, to: NDArray[Any]) -> None: ...

class Trajectories:
    def step_numbers(self, dense: bool) -> float: ...
    def run(
        self,
        *,
        method: str,
        count: int,
        seen: int,
        thin: int,
        num_steps: int,
        trajectory: float,
        jitter: bool,
        persistence: float,
        carried: bool,
        max_tree_depth: int,
        delta_max: float,
        seed: int,
        streams: NDArray[Any],
        done: NDArray[Any],
        position: NDArray[Any],
        momentum: NDArray[Any] | None,
        step_size: NDArray[Any],
        adaptation: NDArray[Any] | None,
        target: float,
        gamma: float,
        t_0: float,
        dense: bool,
        mass_per_chain: bool,
        inverse_mass: NDArray[Any],
        root: NDArray[Any],
        normal: NDArray[Any] | None,
        uniform: NDArray[Any] | None,
        gradient: NDArray[Any],
        energy: NDArray[Any],
        tally: NDArray[Any],
        positions: NDArray[Any],
        stats: NDArray[Any],
    ) -> None: ...

class Relaxation:
    def run(
        self,
        *,
        u: Sequence[NDArray[Any]],
        weights: Sequence[NDArray[Any]],
        biases: Sequence[NDArray[Any]],
        target: NDArray[Any] | None,
        beta: float,
        clamped: Sequence[bool],
        step: float,
        count: int,
        tol: float,
        per_sample: bool,
        measured: bool,
        check_every: int,
    ) -> tuple[NDArray[Any], NDArray[Any] | None]: ...

class Device:
    @property
    def lost(self) -> bool: ...
    def allocate(self, nbytes: int) -> Memory: ...
    def reaches(self, array: NDArray[Any]) -> bool: ...
    def plan(
        self,
        rule: Rule,
        parameters: list[NDArray[Any]],
        members: Sequence[int],
        chains: int = 1,
        elements: Sequence[int] = (),
        stream: int = 0,
        groups: Sequence[int] = (),
    ) -> Plan: ...
    def sketch(
        self,
        plans: Sequence[Plan],
        fields: Sequence[str],
        buckets: NDArray[Any],
        signs: NDArray[Any],
        output_dim: int,
    ) -> Sketch: ...
    def run(
        self,
        plans: Sequence[Plan],
        inputs: tuple[list[NDArray[Any] | None], ...],
        rows: Sequence[Sequence[tuple[float, ...]]],
        indices: Sequence[Sequence[int] | NDArray[Any] | None],
        whole: bool = False,
        numbers: NDArray[Any] | None = None,
        limit: float = ...,
        scale: float = 1.0,
        draw: tuple[int, int, int] | None = None,
    ) -> bool: ...
    def trajectories(
        self,
        potential: str,
        is_double: bool,
        dim: int,
        rows: int,
        tables: dict[str, NDArray[Any]],
        constants: dict[str, float],
    ) -> Trajectories: ...
    def relaxation(
        self, energy: str, cost: str, is_double: bool, dims: Sequence[int], batch: int, phi: Sequence[str]
    ) -> Relaxation: ...
    def counters(self) -> dict[str, int]: ...
    def last_run_ns(self) -> int: ...

def cpu_device() -> Device: ...
def cpu_instruction_set() -> str: ...
def cpu_instruction_sets() -> list[str]: ...
def cpu_threads() -> int: ...
def vulkan_devices() -> tuple[list[DeviceInfo], str]: ...
def open_vulkan(index: int) -> Device: ...
def take_vulkan_messages() -> list[str]: ...
def shut_down() -> None: ...
def rules() -> dict[str, tuple[list[str], list[str], list[str], list[str], list[str]]]: ...
def potentials() -> dict[str, tuple[list[str], list[str]]]: ...

TRANSITION_STATS: int
ADAPTATION_NUMBERS: int
MAX_STEPS: int
