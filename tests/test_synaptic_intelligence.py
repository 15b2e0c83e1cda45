"""Synaptic intelligence: against its recurrence, step by step, and with the path summed elsewhere."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from grilly_optim.continual import SynapticIntelligence
from tests.continual import FORMS, SHAPES, consolidated_si, double, draws, dtypes, forms, listed, same
from tests.table import Array, assert_bits


@dtypes
@forms
def test_si_is_its_recurrence(form: str, dtype: Any) -> None:
    rng = np.random.default_rng(17)
    count = 1 if form == "array" else len(SHAPES)
    si, epsilon = SynapticIntelligence(epsilon=0.01), 0.01
    theta = draws(rng, dtype)[:count]
    begin, Omega, uphill = double(theta), [np.zeros(x.shape) for x in theta], False
    for _ in range(3):
        omega = [np.zeros(x.shape) for x in theta]
        for _ in range(10):
            gradients, others = draws(rng, dtype)[:count], draws(rng, dtype)[:count]
            si.pre_step(FORMS[form](theta))
            # Not all of the way is downhill: other losses pull as well.
            moves = zip(theta, gradients, others, strict=True)
            after = [np.asarray(x - 0.1 * g - 0.5 * o, dtype) for x, g, o in moves]
            si.post_step(FORMS[form](after), FORMS[form](gradients))
            for o, x, y, g in zip(omega, double(theta), double(after), double(gradients), strict=True):
                o -= (y - x) * g
            theta = after
        si.consolidate(FORMS[form](theta))
        for k, (o, x, a) in enumerate(zip(omega, double(theta), begin, strict=True)):
            Omega[k] = Omega[k] + np.maximum(0, o / ((x - a) ** 2 + epsilon))
        begin = double(theta)
        uphill = uphill or any((o < 0).any() for o in omega)
    assert uphill  # so that the maximum does something
    point = draws(rng, dtype)[:count]
    expected = sum(float(np.sum(w * (x - a) ** 2)) for w, x, a in zip(Omega, double(point), begin, strict=True))
    assert si.penalty(FORMS[form](point)) == pytest.approx(expected, rel=30 * float(np.finfo(dtype).eps))
    grad = si.grad(FORMS[form](point))
    assert type(grad) is type(FORMS[form](point))
    for g, w, x, a in zip(listed(grad), Omega, double(point), begin, strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(g, 2 * w * (x - a), rtol=1e-4 if dtype is np.float32 else 1e-12, atol=1e-6)


@dtypes
def test_the_path_integral_has_the_bits_of_a_kernel_that_sums_it(dtype: Any) -> None:
    rng = np.random.default_rng(18)
    si, theta = SynapticIntelligence(), draws(rng, dtype)
    omega = [np.zeros_like(x) for x in theta]
    for _ in range(20):
        gradients = draws(rng, dtype)
        si.pre_step(theta)
        after = [np.asarray(x - 0.1 * g, dtype) for x, g in zip(theta, gradients, strict=True)]
        si.post_step(after, gradients)
        omega = [np.asarray(o - (y - x) * g) for o, x, y, g in zip(omega, theta, after, gradients, strict=True)]
        theta = after
    same(si.state_dict()["omega"], omega)


@dtypes
def test_a_delta_does_what_two_calls_do(dtype: Any) -> None:
    rng = np.random.default_rng(19)
    theta = draws(rng, dtype)
    called, told = SynapticIntelligence(), SynapticIntelligence()
    told.pre_step(theta)
    for _ in range(5):
        gradients = draws(rng, dtype)
        called.pre_step(theta)
        after = [np.asarray(x - 0.1 * g, dtype) for x, g in zip(theta, gradients, strict=True)]
        called.post_step(after, gradients)
        told.post_step(after, gradients, delta=[y - x for x, y in zip(theta, after, strict=True)])
        assert told.state_dict()["before"] is None
        theta = after
    same(told.state_dict(), called.state_dict())


def test_a_step_takes_one_copy_of_the_parameters_and_none_with_delta() -> None:
    n = 1_000_000
    theta, gradient, delta = np.ones(n), np.ones(n)[::-1], np.ones(2 * n)[::2]
    si = SynapticIntelligence()
    si.pre_step(theta)
    si.post_step(theta, gradient)  # omega and the anchors are there now

    def peak(step: Callable[[], None]) -> float:
        tracemalloc.start()
        step()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / theta.nbytes

    def called() -> None:
        si.pre_step(theta)
        si.post_step(theta, gradient)

    # What is not finite is looked for in an array of bools, an eighth of a copy.
    assert peak(called) < 1.25
    assert peak(lambda: si.post_step(theta, gradient, delta)) < 0.25
    assert_bits(si.state_dict()["omega"][0], np.full(n, -1.0))


def test_with_deltas_alone_the_first_task_begins_before_the_first_of_them() -> None:
    si = SynapticIntelligence(1.0)
    si.post_step(np.array([3.0]), np.array([-2.0]), delta=np.array([2.0]))
    si.post_step(np.array([4.0]), np.array([-2.0]), delta=np.array([1.0]))
    si.consolidate(np.array([4.0]))
    assert si.penalty(np.array([5.0])) == 6.0 / (3.0**2 + 1.0)


def test_consolidating_again_without_a_step_adds_nothing() -> None:
    si = consolidated_si([np.ones(3)])
    before = si.state_dict()
    theta = before["anchors"]
    si.consolidate(theta)
    same(si.state_dict(), before)
    moved = [theta[0] + 1.0]
    si.consolidate(moved)
    same(si.state_dict(), {**before, "anchors": moved})


def test_the_gradient_is_an_argument_so_that_a_penalty_s_own_stays_out() -> None:
    si = SynapticIntelligence(1.0)
    own, of_penalty, x = np.array([2.0]), np.array([100.0]), np.array([0.0])
    si.pre_step(x)
    x -= 0.01 * (own + of_penalty)
    si.post_step(x, own)
    assert_bits(si.state_dict()["omega"][0], 1.02 * own)


def test_parameters_without_a_gradient_take_no_part() -> None:
    si = SynapticIntelligence()
    theta = {"a": np.ones(2), "b": np.ones(1)}
    si.pre_step(theta)
    si.post_step({"a": np.zeros(2), "b": np.zeros(1)}, {"a": np.ones(2)})
    si.pre_step(theta)
    si.post_step([np.zeros(2), np.zeros(1)], [None, np.ones(1)])
    si.post_step(theta, theta, delta={"b": np.ones(1), "a": None})
    same(si.state_dict()["omega"], {"a": np.ones(2), "b": np.zeros(1)})


def test_gradients_are_cast_to_the_parameter_s_precision() -> None:
    si = SynapticIntelligence()
    si.pre_step(np.zeros(1, np.float32))
    si.post_step(np.full(1, -1, np.float32), np.array([0.1]))
    assert_bits(si.state_dict()["omega"][0], np.array([0.1], np.float32))


def test_a_step_that_was_begun_twice_counts_from_the_second() -> None:
    si = SynapticIntelligence()
    si.pre_step(np.zeros(1))
    si.pre_step(np.ones(1))
    si.post_step(np.zeros(1), np.ones(1))
    same(si.state_dict()["omega"], [np.ones(1)])
    same(si.state_dict()["anchors"], [np.zeros(1)])


def test_calls_out_of_order_are_refused() -> None:
    si = SynapticIntelligence()
    nothing = si.state_dict()
    with pytest.raises(ValueError, match="post_step needs a pre_step before the optimizer's step, or delta"):
        si.post_step(np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match="there is nothing to consolidate: no post_step has been called"):
        si.consolidate(np.zeros(1))
    same(si.state_dict(), nothing)
    si.pre_step(np.zeros(1))
    with pytest.raises(ValueError, match="there is nothing to consolidate"):
        si.consolidate(np.zeros(1))
    si.post_step(np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match="post_step needs a pre_step"):
        si.post_step(np.zeros(1), np.ones(1))


@pytest.mark.parametrize(
    ("grad", "delta", "error", "message"),
    [
        ([np.ones(2), np.array([np.nan])], None, ValueError, "grad of parameter 1 must be finite"),
        ([np.ones(2), np.array([1e39])], None, ValueError, "grad of parameter 1 must be finite"),
        ([np.ones(2), np.ones(2)], None, ValueError, "grad of parameter 1 has shape (2,), expected (1,)"),
        ([np.ones(2)], None, ValueError, "grad has 1 arrays, and there are 2 parameters"),
        ([np.ones(2), 1.0], None, TypeError, "grad of parameter 1 must be a NumPy array"),
        (None, None, TypeError, "grad must be an array, a sequence of arrays"),
        ([np.ones(2), np.ones(1)], [np.ones(2), np.array([np.inf])], ValueError, "delta of parameter 1 must be finite"),
        ([np.ones(2), np.ones(1)], [np.ones(2), np.ones(3)], ValueError, "delta of parameter 1 has shape (3,)"),
    ],
)
def test_nothing_is_added_of_a_step_that_is_refused(
    grad: Any, delta: Any, error: type[Exception], message: str
) -> None:
    si = SynapticIntelligence()
    theta = [np.ones(2, np.float32), np.ones(1, np.float32)]
    si.pre_step(theta)
    before = si.state_dict()
    with pytest.raises(error) as raised:
        si.post_step([x + 1 for x in theta], grad, delta)
    assert message in str(raised.value)
    same(si.state_dict(), before)


def test_an_overflow_of_the_path_or_the_importance_is_refused_at_the_end() -> None:
    for change, gradient, what in [
        (1e30, 1e30, "the path integral of parameter 0 must be finite"),
        (-1e-3, 3e38, "the importance from the path integral of parameter 0 is too large for float32"),
    ]:
        si, zero = SynapticIntelligence(1e-30), np.zeros(1, np.float32)
        si.pre_step(zero)
        si.post_step(np.full(1, change, np.float32), np.full(1, gradient, np.float32))
        before = si.state_dict()
        with pytest.raises(ValueError, match=what):
            si.consolidate(zero)
        same(vars(si)["_omega"], before["omega"])
        assert si._version == 0


class Kernel:
    """A source of path integrals, as an optimizer with this attached is one."""

    def __init__(self, arrays: list[Array]) -> None:
        self.omega = arrays

    def take(self) -> list[Array]:
        taken, self.omega = self.omega, [np.zeros_like(a) for a in self.omega]
        return taken


def attached(omega: float) -> tuple[SynapticIntelligence, Kernel]:
    si, kernel = SynapticIntelligence(1.0), Kernel([np.full(2, omega)])
    si._source = kernel
    theta = [np.zeros(2)]
    si._begin(theta, si._take(theta)[2])
    return si, kernel


def test_the_path_may_be_summed_elsewhere() -> None:
    si, kernel = attached(4.0)
    si.consolidate([np.ones(2)])
    assert si.penalty([np.full(2, 2.0)]) == 2 * 4.0 / (1.0 + 1.0)
    kernel.omega[0][:] = 6.0
    si.consolidate([np.ones(2)])
    assert si.penalty([np.full(2, 2.0)]) == 2 * (2.0 + 6.0)
    si.consolidate([np.ones(2)])
    assert si.penalty([np.full(2, 2.0)]) == 2 * (2.0 + 6.0)


def test_own_steps_and_those_of_a_source_add_up() -> None:
    si = SynapticIntelligence(1.0)
    si.pre_step(np.zeros(2))
    si.post_step(np.ones(2), np.full(2, -3.0))
    si._source = Kernel([np.full(2, 1.0)])
    si.consolidate(np.ones(2))
    assert si.penalty(np.full(2, 2.0)) == 2 * (3.0 + 1.0) / 2.0


def test_steps_are_not_counted_twice() -> None:
    si, _ = attached(1.0)
    for call in (lambda: si.pre_step([np.zeros(2)]), lambda: si.post_step([np.zeros(2)], [np.zeros(2)])):
        with pytest.raises(RuntimeError, match="attached to an optimizer, which follows every step itself"):
            call()


def test_a_state_dict_has_what_the_source_has_summed_up() -> None:
    si, kernel = attached(4.0)
    saved = si.state_dict()
    same(saved["omega"], [np.full(2, 4.0)])
    kernel.omega[0][:] = 5.0  # steps after the snapshot
    si.load_state_dict(saved)  # and back to it
    si.consolidate([np.ones(2)])
    assert si.penalty([np.full(2, 2.0)]) == 2 * 4.0 / 2.0


def test_what_a_source_gives_is_kept_when_consolidating_fails() -> None:
    si, _ = attached(np.inf)
    with pytest.raises(ValueError, match="the path integral of parameter 0 must be finite"):
        si.consolidate([np.ones(2)])
    assert np.isinf(si.state_dict()["omega"][0]).all()
    si, kernel = attached(4.0)
    with pytest.raises(ValueError, match="theta of parameter 0 must be finite"):
        si.consolidate([np.full(2, np.nan)])
    same(kernel.omega, [np.full(2, 4.0)])
