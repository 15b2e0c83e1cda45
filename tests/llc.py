"""Loss functions for the tests of the local learning coefficient; those for other processes must be a module's."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from grilly_optim.sampling import SGMCMC

Array = np.ndarray[Any, np.dtype[Any]]

CURVATURES = np.array([0.5, 1.0, 2.0, 4.0, 0.25])
KWARGS = {"lr": 1e-3, "nbeta": 100.0, "localization": 5.0}


def quadratic(params: list[Array]) -> tuple[Any, list[Array]]:
    """Of one chain or of many: sums of products over the last axis have the same bits then."""
    (w,) = params
    a = CURVATURES.astype(w.dtype)
    return (a * w * w).sum(axis=-1) / 2, [a * w]


def two_parts(params: list[Array]) -> tuple[Any, list[Array]]:
    """A matrix (..., 2, 3) and a number (...)."""
    w, b = params
    loss = (w * w).sum(axis=(-2, -1)) / 2 + (b - 1) ** 2
    return loss, [w, 2 * (b - 1)]


class Minibatches:
    """Each chain has data of its own, in an order that follows from its number."""

    def __init__(self) -> None:
        self.data = np.random.default_rng(5).standard_normal((40, 5))

    def __call__(self, params: list[Array]) -> tuple[float, list[Array]]:
        w = params[0] - self.data
        return float((w * w).sum() / 2 / len(w)), [w.mean(axis=0)]

    def for_chains(self, chains: range) -> Any:
        (chain,) = chains
        random = np.random.default_rng(chain)

        def of_a_batch(params: list[Array]) -> tuple[float, list[Array]]:
            w = params[0] - self.data[random.integers(0, 40, 8)]
            return float((w * w).sum() / 2 / len(w)), [w.mean(axis=0)]

        return of_a_batch


class Ends:
    """Ends its process when it is asked for this chain."""

    def __init__(self, chain: int) -> None:
        self.chain = chain

    def __call__(self, params: list[Array]) -> tuple[Any, list[Array]]:
        return quadratic(params)

    def for_chains(self, chains: range) -> Any:
        if self.chain in chains:
            os._exit(3)
        return quadratic


class Unhappy(Exception):
    """Cannot be sent to another process and back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def unhappy(params: list[Array]) -> tuple[Any, list[Array]]:
    raise Unhappy(1, 2)


def by_hand(
    params: list[Array],
    loss_and_grad: Any,
    chain: int,
    *,
    draws: int,
    burn_in: int = 0,
    spacing: int = 1,
    seed: int = 0,
    device: str = "numpy",
    restart_at: int = -1,
) -> list[float]:
    """The losses of one chain, as one would write it down; at `restart_at` with another sampler that goes on."""

    def sampler() -> Any:
        return SGMCMC.sgld(own, **KWARGS, seed=seed, stream=chain, device=device)

    own, losses, i = [p.copy() for p in params], [], 0
    optimizer = sampler()
    while len(losses) < draws:
        loss, gradients = loss_and_grad(own)
        if i >= burn_in and (i + 1 - burn_in) % spacing == 0:
            losses.append(float(loss))
        if i == restart_at:
            state = optimizer.state_dict()
            own = [p.copy() for p in own]
            optimizer = sampler()
            optimizer.load_state_dict(state)
        optimizer.step(gradients=gradients)
        i += 1
    return losses


class Backwards(Executor):
    """Does everything in the reverse order, as soon as a result is asked for."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, Any]] = []
        self.order: list[range] = []

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer = self

        class Lazy(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                while outer.waiting:
                    future, call, arguments = outer.waiting.pop()
                    outer.order.append(arguments[-1])
                    if not future.cancelled():
                        try:
                            future.set_result(call(*arguments))
                        except Exception as error:
                            future.set_exception(error)
                return super().result(timeout)

        future = Lazy()
        self.waiting.append((future, function, args))
        return future
