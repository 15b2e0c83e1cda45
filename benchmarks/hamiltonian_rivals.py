"""Rivals of the Hamiltonian samplers: blackjax, in a process of its own, and a loop in NumPy.

blackjax gets processes because XLA decides once in a process how many threads it has, and which number is faster
depends on the problem. A turn is a message to the process and its answer, which costs some 0.1 ms.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .rivals import load, threads_label

Array = NDArray[Any]
# What a worker does with a seed.
Job = Callable[[int], Any]


class Answer(NamedTuple):
    """Of a worker: how long the job took, by its own clock, and what came out."""

    seconds: float
    result: Any


class Worker:
    """A process that does one job again and again.

    Args:
        make: A function of this module that makes the job, in the process.
        arguments: Of `make`.
        threads: How many XLA may use there.
    """

    def __init__(self, make: Callable[..., Job], *arguments: Any, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self.label = threads_label(threads)
        self._process = context.Process(target=_serve, args=(other, threads, make, arguments), daemon=True)
        self._process.start()
        other.close()

    def wait(self) -> None:
        """Until the job is compiled.

        Raises:
            RuntimeError: It could not be.
        """
        self._receive()

    def __call__(self, seed: int = 0) -> Answer:
        """Do the job."""
        self._connection.send(seed)
        answer: Answer = self._receive()
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    def _receive(self) -> Any:
        answer = self._connection.recv()
        if isinstance(answer, str):
            raise RuntimeError(f"the rival's process failed: {answer}")
        return answer


@contextlib.contextmanager
def workers(*jobs: tuple[Any, ...], threads: Sequence[int]) -> Iterator[list[Worker]]:
    """A worker for each job (`make` and its arguments) and each number of threads, in this order.

    Raises:
        MissingRival: blackjax is not installed.
    """
    load("blackjax")
    made: list[Worker] = []
    try:
        for make, *arguments in jobs:
            made += [Worker(make, *arguments, threads=count) for count in threads]
        for worker in made:
            worker.wait()
        yield made
    finally:
        for worker in made:
            worker.close()


def _serve(connection: Connection, threads: int, make: Callable[..., Job], arguments: tuple[Any, ...]) -> None:
    try:
        _limit(threads)
        job = make(*arguments)
        job(0)  # compiles
        connection.send(Answer(0.0, None))
        while True:
            seed = connection.recv()
            begin = time.perf_counter()
            result = job(seed)
            connection.send(Answer(time.perf_counter() - begin, result))
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def _limit(threads: int) -> None:
    """XLA makes as many threads as it sees processors, when it begins; where they run is free again after that."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if not hasattr(os, "sched_setaffinity"):
        load("jax").devices()
        return
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(processors)[:threads])
    load("jax").devices()
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), processors)


# What blackjax does. Its generator is JAX's usual one, threefry, or "rbg", which is faster where XLA is not.


def hmc(stds: Array, chains: int, transitions: int, num_steps: int, stepsize: float, keep: bool, generator: str) -> Job:
    """Transitions of HMC for many chains, jitted as one scan; keeping the draws, or the last positions alone.

    The result is the mean acceptance rate.
    """
    blackjax, jax = load("blackjax"), load("jax")
    jnp = jax.numpy
    precision = jnp.asarray(stds**-2.0, jnp.float32)
    kernel = blackjax.hmc.build_kernel()

    def logdensity(q: Any) -> Any:
        return -0.5 * jnp.sum(q * q * precision)

    def transition(states: Any, key: Any) -> Any:
        def one(key: Any, state: Any) -> Any:
            return kernel(key, state, logdensity, stepsize, jnp.ones(len(stds)), num_steps)

        states, info = jax.vmap(one)(jax.random.split(key, chains), states)
        return states, (info.acceptance_rate, states.position if keep else ())

    @jax.jit  # type: ignore[untyped-decorator]  # jax is imported where it is used
    def run(key: Any, states: Any) -> Any:
        states, (rates, positions) = jax.lax.scan(transition, states, jax.random.split(key, transitions))
        return states, rates, positions

    start = np.random.default_rng(0).standard_normal((chains, len(stds))) * stds
    held = jax.vmap(lambda q: blackjax.hmc.init(q, logdensity))(jnp.asarray(start, jnp.float32))

    def job(seed: int) -> float:
        nonlocal held
        held, rates, _ = jax.block_until_ready(run(jax.random.key(seed, impl=generator), held))
        return float(np.asarray(rates).mean())

    return job


EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
SCHOOLS_DIM = 2 + len(EFFECTS)


def eight_schools(form: str, generator: str, chains: int, warmup: int, draws: int) -> Job:
    """NUTS with window adaptation on the eight schools, warm-up and draws jitted together.

    The result are the draws (chains, draws, 10) of mu, log tau, t, and how many diverged.

    Args:
        form: What becomes of the chains: "vmap" advances them together, "threads" is a Python thread for each.
        generator: JAX's name of it.
        chains: How many.
        warmup: Transitions of it.
        draws: Transitions after it.
    """
    blackjax, jax = load("blackjax"), load("jax")
    jnp = jax.numpy
    effects, errors = jnp.array(EFFECTS), jnp.array(ERRORS)

    def logdensity(q: Any) -> Any:
        mu, log_tau, t = q[0], q[1], q[2:]
        tau = jnp.exp(log_tau)
        residuals = (effects - mu - tau * t) / errors
        prior = 0.5 * (mu / 5) ** 2 + jnp.log1p((tau / 5) ** 2) - log_tau
        return -(prior + 0.5 * jnp.sum(t * t) + 0.5 * jnp.sum(residuals * residuals))

    # What the warm-up reports of each of its steps is not kept.
    warm = blackjax.window_adaptation(blackjax.nuts, logdensity, adaptation_info_fn=lambda *_: None)
    kernel = blackjax.nuts.build_kernel()

    def chain(key: Any) -> Any:
        where, before, after = jax.random.split(key, 3)
        start = jax.random.uniform(where, (SCHOOLS_DIM,), minval=-2.0, maxval=2.0)
        adapted, _ = warm.run(before, start, warmup)

        def transition(state: Any, key: Any) -> Any:
            state, info = kernel(key, state, logdensity, **adapted.parameters)
            return state, (state.position, info.is_divergent)

        return jax.lax.scan(transition, adapted.state, jax.random.split(after, draws))[1]

    together = jax.jit(jax.vmap(chain))
    alone = jax.jit(chain)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())

    def job(seed: int) -> tuple[Array, int]:
        keys = jax.random.split(jax.random.key(seed, impl=generator), chains)
        if form == "vmap":
            positions, diverging = jax.block_until_ready(together(keys))
        else:
            each = list(pool.map(lambda key: jax.block_until_ready(alone(key)), [keys[c] for c in range(chains)]))
            positions, diverging = (np.stack(parts) for parts in zip(*each, strict=True))
        return np.asarray(positions), int(np.sum(diverging))

    return job


# What one writes in NumPy.


class NumpyHmc:
    """HMC for many chains, in place.

    Momenta are kept times the step size e, as v = e p: a step is q <- q + v, v <- v - e^2 g, and one pass less.

    Args:
        potential: (C, D) -> (C,), (C, D); its next call may overwrite what it returned.
        start: (C, D); C is a multiple of `block`. All is computed in its dtype.
        stepsize: Of the integrator.
        num_steps: Of the integrator.
        block: So many chains make their transition before the next ones do, so that their arrays may stay in the cache.
    """

    def __init__(
        self,
        potential: Callable[[Array], tuple[Array, Array]],
        start: Array,
        stepsize: float,
        num_steps: int,
        block: int,
    ) -> None:
        self._potential, self._num_steps, self._dtype = potential, num_steps, start.dtype
        self._stepsize, self._square = start.dtype.type(stepsize), start.dtype.type(stepsize**2)
        self._rng = np.random.Generator(np.random.SFC64(0))  # NumPy's fastest
        self.position = start.copy()
        self._blocks = [slice(first, first + block) for first in range(0, len(start), block)]
        self._energy, self._gradient = np.empty(len(start), start.dtype), np.empty_like(start)
        for rows in self._blocks:
            self._energy[rows], self._gradient[rows] = potential(start[rows])
        self._velocity, self._proposal, self._scratch = (np.empty_like(start[:block]) for _ in range(3))

    def run(self, kept: Array) -> float:
        """As many transitions as `kept` (n, C, D) has room for; the share of those that were accepted."""
        accepted = 0
        for positions in kept:
            for rows in self._blocks:
                accepted += self._transition(rows)
                positions[rows] = self.position[rows]
        return accepted / (len(kept) * len(self.position))

    def _transition(self, rows: slice) -> int:
        v, q = self._velocity, self._proposal
        self._rng.standard_normal(out=v, dtype=self._dtype)
        kinetic = self._half_square(v)
        np.multiply(v, self._stepsize, out=v)
        self._kick(v, self._square / 2, self._gradient[rows])
        np.add(self.position[rows], v, out=q)
        for _ in range(self._num_steps - 1):
            self._kick(v, self._square, self._potential(q)[1])
            np.add(q, v, out=q)
        energy, gradient = self._potential(q)
        self._kick(v, self._square / 2, gradient)
        change = self._energy[rows] - energy + kinetic - self._half_square(v) / self._square
        accepted = self._rng.random(len(v), self._dtype) < np.exp(change)
        stays = ~accepted
        for now, proposed in (
            (self.position[rows], q),
            (self._gradient[rows], gradient),
            (self._energy[rows], energy),
        ):
            # Faster than a copy under a mask: few stay.
            before = now[stays]
            np.copyto(now, proposed)
            now[stays] = before
        return int(accepted.sum())

    def _kick(self, v: Array, factor: Any, gradient: Array) -> None:
        np.multiply(gradient, factor, out=self._scratch)
        np.subtract(v, self._scratch, out=v)

    def _half_square(self, v: Array) -> Array:
        return np.asarray(self._dtype.type(0.5) * np.einsum("cd,cd->c", v, v))
