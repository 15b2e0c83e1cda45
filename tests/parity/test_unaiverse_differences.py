"""Where `HL` here is not what UNaIVERSE's is, on purpose: both run side by side (docs/differences.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from grilly_optim.optim import HL
from tests.hl_models import Tensors
from tests.parity.test_unaiverse import SHAPES, Twin, original

pytestmark = pytest.mark.unaiverse


def both(**options: Any) -> tuple[Tensors, Any, Twin, Any]:
    """A model and its optimizer, here and there."""
    model = Tensors(SHAPES)
    twin = Twin(model)
    return model, HL(model, **options, device="numpy"), twin, original().HL(twin, **options)


def test_a_costate_has_its_parameter_s_precision_where_the_original_s_have_the_first_one_s() -> None:
    model = Tensors({"A": (3,), "B": (4,)}, dtype=np.float32)
    model.w["B"] = model.w["B"].astype(np.float64)
    assert original().HL(Twin(model)).state[0]["p"]["w"]["B"].dtype == torch.float32
    assert HL(model).state[0]["p"]["w"]["B"].dtype == np.float64


def test_a_parameter_without_gradients_stays_where_the_original_fails_over_a_frozen_one_and_has_moved_the_rest() -> (
    None
):
    model, ours, twin, _ = both()
    twin.A.requires_grad_(False)
    theirs = original().HL(twin)
    gradients = model.drawn_gradients(np.random.default_rng(0), missing=("A",))
    twin.take(gradients)
    with pytest.raises(AssertionError):
        theirs.step()
    assert theirs.state[0]["p"]["xi"].any()
    before = model.w["A"].copy()
    for _ in range(2):
        ours.step(gradients)
    np.testing.assert_array_equal(model.w["A"], before)


def test_options_that_are_none_are_refused_where_the_original_keeps_them() -> None:
    model, _, twin, _ = both()
    original().HL([{"params": twin, "tetha": 0.5, "beta": "fast"}])
    with pytest.raises(ValueError, match="the option 'tetha'"):
        HL([{"params": model, "tetha": 0.5}])
    with pytest.raises(TypeError, match="beta must be a real number"):
        HL(model, beta="fast")


def test_the_hamiltonian_is_in_double_where_the_original_s_is_in_the_first_potential_s_precision() -> None:
    model, ours, twin, theirs = both()
    gradients = model.drawn_gradients(np.random.default_rng(1))
    twin.take(gradients)
    ours.step(gradients)
    theirs.step()
    model.dh = np.random.default_rng(2).standard_normal((2, 3))
    twin.dh = torch.from_numpy(model.dh.copy())
    expected = 0.5 + float((twin.dh * theirs.state[0]["p"]["xi"]).sum())
    rounded = theirs.compute_hamiltonian(torch.tensor(0.5, dtype=torch.float32))
    assert rounded.dtype == torch.float32
    assert float(rounded) != expected
    assert ours.compute_hamiltonian(np.float32(0.5)) == pytest.approx(expected, rel=1e-14)


def test_a_velocity_may_lie_anyhow_where_the_original_fails() -> None:
    model, ours, twin, theirs = both()
    model.dh = np.ones((3, 2)).T
    twin.dh = torch.ones(3, 2, dtype=torch.float64).T
    with pytest.raises(RuntimeError):
        theirs.compute_hamiltonian(torch.tensor(0.0, dtype=torch.float64))
    assert ours.compute_hamiltonian(0.0) == 0.0


def test_gradients_can_be_zeroed_before_the_first_call_where_the_original_fails() -> None:
    _, ours, twin, theirs = both()
    twin.h = None
    with pytest.raises(Exception, match="NoneType"):
        theirs.zero_grad()
    ours.zero_grad()


def test_all_gradients_are_zeroed_where_the_original_leaves_those_that_have_a_graph() -> None:
    model, ours, twin, theirs = both()
    twin.A.grad = (twin.A * 2).clone()
    theirs.zero_grad()
    assert twin.A.grad.any()
    model.gradients = model.drawn_gradients(np.random.default_rng(1))
    ours.zero_grad()
    assert not model.gradients["w"]["A"].any()


def test_a_complex_state_goes_with_real_parameters_where_the_original_fails() -> None:
    model = Tensors({"A": (2,)})
    model.h_init = np.zeros((1, 2), np.complex128)
    twin = Twin(model)
    theirs = original().HL(twin)
    twin.h.grad = torch.tensor([[1j, 2.0]], dtype=torch.complex128)
    with pytest.raises(RuntimeError):
        theirs.step()
    ours = HL(model, device="numpy")
    ours.step({"xi": np.array([[1j, 2.0]]), "w": {"A": None}})
    np.testing.assert_allclose(ours.state[0]["p"]["xi"], [[0.3j, 0.6]])


def test_costates_are_copies_where_the_original_hands_out_its_own() -> None:
    _, ours, _, theirs = both()
    theirs.state[0]["p"]["w"]["A"].fill_(3.0)
    assert (theirs.state[0]["p"]["w"]["A"] == 3).all()
    with pytest.raises(ValueError, match="read-only"):
        ours.state[0]["p"]["w"]["A"][...] = 3.0


def test_it_can_be_saved_where_the_original_cannot() -> None:
    _, ours, _, theirs = both()
    assert not hasattr(theirs, "state_dict")
    ours.load_state_dict(ours.state_dict())
