"""Hamiltonian Learning."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim._devices import open_device
from grilly_optim.optim._hl_groups import OPTIONS, as_groups, called, checked_group, for_each, futile
from grilly_optim.optim._hl_models import XI, Model
from grilly_optim.optim._hl_rule import HL_RULE
from grilly_optim.optim._hl_state import Costates, as_like, saved_costates, saved_parts
from grilly_optim.optim._hooks import Hooked, Hooks
from grilly_optim.optim._options import STEADY, Options, real, take_options
from grilly_optim.optim._plans import REFUSED, Plans, Rows
from grilly_optim.optim._turns import Turns, in_turn

Array = NDArray[Any]


WATCHED = 2 + len(OPTIONS)  # values of a group

_waking = threading.RLock()


class HL(Hooked):
    r"""Hamiltonian Learning: weights follow costates, which gather gradients of a Hamiltonian forward in time.

    A model with the state h, its velocity dh and the time step delta has a costate p for its state ("xi") and for every
    parameter w. With the gradients g of the Hamiltonian, a step is::

        p_xi = (1 + flip theta) p_xi - delta flip g_xi

        local:      w   = w - delta beta p_w
                    p_w = (1 + flip theta) p_w - delta flip g_w
        otherwise:  p_w = (1 + flip theta) p_w - delta flip g_w
                    w   = w - delta beta p_w

    so that local weights follow the costates as they were before the step. The Hamiltonian of all models, with the
    potential V of each, is::

        H = sum (gamma V + Re sum_k dh_k p_xi_k)

    With flip = -1 costates decay by theta and gather gradients. Not local and with theta = 1 that is SGD with the
    learning rate delta^2 beta, with less it is heavy-ball momentum 1 - theta; local and with theta = 1 it is SGD with
    the gradient of the step before. So beta is the learning rate, and its default is usually far too big; 0.01 is a
    beginning.

    Args:
        models: One model, or dicts with the key ``"params"``, the model, and options of its own. A model has

            - ``named_parameters()`` -> (name, array) pairs: float32, float64, complex64 or complex128 arrays, updated
              in place, the same ones in every step;
            - ``delta``, its time step, above 0;
            - ``h_init``, an array of the shape of its state; ``h``, its state, and ``dh``, its velocity, once it has
              been called;
            - ``gradients``, for `step` without any: ``{"xi": array or None, "w": {name: array or None}}``;
            - ``backward(grad, costate, gamma)``, for `backward`.

            `grilly_optim.optim.hl_models` has some with all of this.
        gamma: Weight of the potential.
        flip: Sign of time for costates; -1 runs them forward.
        theta: Damping of costates, per step.
        beta: How fast weights follow costates, per unit of time.
        reset_neuron_costate: `zero_grad` sets the state's costate to zero.
        reset_weight_costate: `zero_grad` sets the parameters' costates to zero. With `local` weights never move by
            that, as in the original; a warning says so.
        local: Weights follow the costates of the step before.
        conjugate: Pair the velocity with the conjugate of a complex costate, Re sum conj(p) dh, whose gradient is the
            costate itself; the original does not.
        scale_damping: Damp by delta theta instead of theta, so that what a costate loses in a unit of time does not
            depend on delta.
        device: "auto" (None), "cpu", "numpy", "vulkan" or "vulkan:<index, uuid or part of a name>".

    Attributes:
        param_groups: A dict for each model: ``"params"``, the model, and its options, which may be changed.

    Raises:
        TypeError: A model without what it must have, or with arrays of another kind; options that are none.
        ValueError: delta of a model is not above 0; an unknown option, or one out of range; parameters that are
            read-only or share memory.
        DeviceUnavailable: The device is unknown or cannot be used.
        OutOfDeviceMemory: The device has no room for the costates.

    All tensors of one precision are one kernel run, the state's costate among them. A costate has the dtype of its
    parameter, the state's that of the first parameter (complex if the state is). Complex gradients are dH/dRe + i
    dH/dIm.

    There is no lr, so the schedulers of `grilly_optim.schedules` refuse it; let beta follow a schedule by hand::

        for group in optimizer.param_groups:
            group["beta"] = 0.05 * 0.99**epoch

    Pickles and deep copies, of an optimizer or of a model that holds one, go on where it was; they open their device
    with their first use.

    Source: Melacci et al., arXiv 2409.12038 (2024); `HL` of UNaIVERSE.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import HL
        >>> class Model:  # without a state worth the name: V = |w - 1|^2 / 2
        ...     delta, h_init = 0.1, np.zeros((1, 1))
        ...     def __init__(self):
        ...         self.w = np.zeros(2)
        ...     def named_parameters(self):
        ...         return [("w", self.w)]
        >>> model = Model()
        >>> optimizer = HL(model, theta=0.5, device="numpy")
        >>> for _ in range(300):
        ...     optimizer.step({"xi": None, "w": {"w": model.w - 1}})
        >>> model.w.round(2).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        models: Any,
        *,
        gamma: float = 1.0,
        flip: float = -1.0,
        theta: float = 0.1,
        beta: float = 1.0,
        reset_neuron_costate: bool = False,
        reset_weight_costate: bool = False,
        local: bool = True,
        conjugate: bool = False,
        scale_damping: bool = False,
        device: str | None = None,
    ) -> None:
        self.defaults: Options = {
            "gamma": gamma,
            "flip": flip,
            "theta": theta,
            "beta": beta,
            "reset_neuron_costate": reset_neuron_costate,
            "reset_weight_costate": reset_weight_costate,
            "local": local,
            "conjugate": conjugate,
            "scale_damping": scale_damping,
        }
        take_options(OPTIONS, self.defaults, 0)
        self._build(models, device)
        for message in futile(self.param_groups):
            warnings.warn(message, UserWarning, stacklevel=2)

    def _build(self, models: Any, device: str | None) -> None:
        self._hooks, self._turns = Hooks(), Turns()
        groups = [checked_group(group, self.defaults, k) for k, group in enumerate(as_groups(models))]
        made = [Model(group["params"], called(k, len(groups))) for k, group in enumerate(groups)]
        elements = sum(tensor.size for model in made for tensor in model.tensors)
        self._choice, self._backend = open_device(device, elements)
        self.param_groups: list[dict[str, Any]] = []
        self._take(groups, made, self._planned(made))

    @property
    def device(self) -> str:
        """The device string of the device this optimizer runs on."""
        return self._choice.info.device

    # Groups.

    def _planned(self, models: list[Model]) -> Plans:
        groups = [{"params": model.tensors} for model in models]
        who = [label for model in models for label in model.labels]
        count = len(groups)
        return Plans(self._backend, self._choice.info, groups, [HL_RULE] * count, [{}] * count, who=who)

    def _take(self, groups: list[dict[str, Any]], models: list[Model], plans: Plans) -> None:
        self.param_groups[:] = groups
        self._models, self._plans = models, plans
        self._seen: list[Any] = []
        self._made: Rows = []

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a model with its options; the costates of the others stay.

        Raises:
            TypeError: As in the constructor.
            ValueError: As in the constructor.
        """
        group = checked_group(param_group, self.defaults, len(self.param_groups))
        for message in futile([group], len(self.param_groups)):
            warnings.warn(message, UserWarning, stacklevel=2)
        self._turns.run(self._add, group)

    def _add(self, group: dict[str, Any]) -> None:
        self._options()
        count = len(self.param_groups)
        models = [*self._models, Model(group["params"], called(count, count + 1))]
        plans = self._planned(models)
        plans.carry_over(self._plans)
        self._take([*self.param_groups, group], models, plans)

    def _options(self) -> list[Options]:
        """What the groups say now."""
        if [id(group.get("params")) for group in self.param_groups] != [id(model.model) for model in self._models]:
            raise ValueError(
                "param_groups has other models than this optimizer: a model comes with add_param_group, and none can "
                "be taken away"
            )
        for k, group in enumerate(self.param_groups):
            gone = [name for name in OPTIONS if name not in group]
            if gone:
                raise ValueError(f"group {k} must have the option {gone[0]!r}, and it is gone")
        return [take_options(OPTIONS, group, k) for k, group in enumerate(self.param_groups)]

    # Steps.

    def step(self, gradients: Any = None) -> None:
        """Move the costates by the gradients and the weights by the costates; they may be read when this returns.

        Args:
            gradients: Of the Hamiltonian: ``{"xi": array or None, "w": {name: array or None}}`` for one model, a list
                of these for several. None in place of an array is zeros: its costate decays, and its weight still
                moves. None as a whole reads ``model.gradients``. They are never written to.

        Raises:
            TypeError: Another form, or a complex gradient of something real.
            ValueError: Other keys or shapes; a parameter that is another array than before; delta is not above 0.
            DeviceLost: The device failed; build the optimizer anew.

            After any of the first two, nothing has changed.
        """
        if self._hooks.pre:
            (gradients,) = self._hooks.before(self, gradients=gradients)
        self._turns.run(self._step, self._for_each(gradients))
        if self._hooks.post:
            self._hooks.after(self, gradients=gradients)

    def _for_each(self, gradients: Any) -> list[Any]:
        """Gradients of each model. Not in a turn: models may ask for costates to make them."""
        each = for_each(gradients, len(self._models))
        return [model.own_gradients() if own is None else own for model, own in zip(self._models, each, strict=False)]

    def _step(self, each: list[Any]) -> None:
        self._plans.expect_run()
        rows = self._rows()
        each = for_each(each, len(self._models))  # another thread may have added a model
        by_launch = [[rows[k] for k in own] for own in self._plans.groups]
        found = [model.gradients_as_given(mine) for model, mine in zip(self._models, each, strict=True)]
        quick = [mine for mine in found if mine is not None]
        if len(quick) == len(found):
            first, *more = quick
            for mine in more:
                first += mine
            if self._run(first, by_launch):
                return
        given = self._taken(each)
        if self._run(given, by_launch):
            return
        # Some lie as the device does not take them, or share memory with what is written.
        given = [np.array(gradient, order="C") for gradient in self._plans.conform(given)]
        if not self._run(given, by_launch):
            raise RuntimeError(REFUSED)

    def _run(self, given: list[Array], by_launch: list[Rows]) -> bool:
        return bool(self._plans.run((given,), by_launch, self._plans.index, True))

    def _taken(self, each: list[Any]) -> list[Array]:
        """A gradient for each tensor of each model."""
        return [g for model, mine in zip(self._models, each, strict=True) for g in model.gradients(mine)]

    def _rows(self) -> Rows:
        """The scalars of each model; made anew when something that they follow from is another object."""
        seen = self._watched()
        if len(seen) != len(self._seen) or not all(map(is_, seen, self._seen)):
            self._made = [
                (-delta * own["flip"], 1 + own["flip"] * damping, delta * own["beta"], float(own["local"]))
                for own, delta in zip(self._options(), [model.delta for model in self._models], strict=True)
                for damping in [own["theta"] * (delta if own["scale_damping"] else 1.0)]
            ]
            # A value that can change in place is looked at in every step.
            steady = all(isinstance(value, STEADY) for k, value in enumerate(seen) if k % WATCHED)
            self._seen = seen if steady else []
        for model in self._models:
            model.require_same()
        return self._made

    def _watched(self) -> list[Any]:
        """What scalars follow from: of each group its model, that one's time step, and the options."""
        groups = self.param_groups
        return [
            value
            for group in groups
            for value in (group.get("params"), getattr(group.get("params"), "delta", None), *map(group.get, OPTIONS))
        ]

    def peek(self, gradients: Any = None) -> list[dict[str, Array]]:
        """The changes of the parameters that a step with these gradients would make; nothing changes.

        Returns:
            For each model, name -> change.

        Raises:
            TypeError: As in `step`.
            ValueError: As in `step`.
        """
        return self._turns.run(self._peek, self._for_each(gradients))

    def _peek(self, each: list[Any]) -> list[dict[str, Array]]:
        rows = self._rows()
        given = self._taken(for_each(each, len(self._models)))
        inputs: list[Any] = [np.array(gradient, order="C") for gradient in self._plans.conform(given)]
        arrays, trials, host = self._plans.copies()
        by_launch = [[rows[k] for k in own] for own in self._plans.groups]
        index: Any = self._plans.index
        if not host.run([t.plan for t in trials], (inputs,), by_launch, index, False):
            raise RuntimeError(REFUSED)
        moved = iter(arrays)
        result = []
        for model in self._models:
            changes = {}
            next(moved)  # the state
            for name, array, tensor in zip(model.names, model.arrays[1:], model.tensors[1:], strict=True):
                with np.errstate(all="ignore"):
                    changes[name] = as_like(next(moved) - tensor, array)
            result.append(changes)
        return result

    def compute_hamiltonian(self, *potentials: float) -> float:
        """H of all models together, of the potentials and the velocities as they are now; summed in double.

        Args:
            potentials: V of each model, in the order of the models.

        Raises:
            ValueError: Another number of potentials, a model that has not been called, or a dh of another size.
            TypeError: A potential that is no real number.
        """
        if len(potentials) != len(self._models):
            raise ValueError(
                f"compute_hamiltonian needs a potential for each model, {len(self._models)}, got {len(potentials)}"
            )
        total = 0.0
        for k, (model, options, potential) in enumerate(zip(self._models, self._options(), potentials, strict=True)):
            costate = self._costate(k, 0).reshape(-1)
            if options["conjugate"]:
                costate = costate.conj()
            with np.errstate(all="ignore"):
                kinetic = np.multiply(model.velocity, costate, dtype=np.result_type(costate, np.float64)).sum()
            total += options["gamma"] * real(f"potential {k}", potential) + float(kinetic.real)
        return total

    def backward(self, *grads: Any) -> None:
        """Let each model make its ``gradients`` of the Hamiltonian, for the next `step`.

        Calls ``model.backward(grad, costate, gamma)`` with the costate of the model's state (its conjugate with
        `conjugate`) and the weight of its potential, to differentiate gamma V + Re sum dh costate.

        Args:
            grads: dV/dy of each model's output, in the order of the models.

        Raises:
            TypeError: A model without a method of this name; and what that raises.
            ValueError: Another number of gradients; and what the models' methods raise.
        """
        if len(grads) != len(self._models):
            raise ValueError(f"backward needs a gradient for each model, {len(self._models)}, got {len(grads)}")
        for model in self._models:
            if not callable(getattr(model.model, "backward", None)):
                raise TypeError(
                    f"{model.who} must have backward(grad, costate, gamma): {type(model.model).__name__} "
                    "has none; pass its gradients to step"
                )
        # Models may ask for costates to make their gradients: they do that in no turn.
        costates = [self._costate_in_turn(k, 0) for k in range(len(self._models))]
        for model, options, grad, costate in zip(self._models, self._options(), grads, costates, strict=True):
            model.model.backward(grad, costate.conj() if options["conjugate"] else costate, options["gamma"])

    def zero_grad(self) -> None:
        """Set the models' ``gradients`` to zero in place, and the costates of groups that say so.

        A model whose ``gradients`` are None has none, and so has one without this attribute.

        Raises:
            TypeError: Gradients of another form than `step` takes, or that are no arrays; nothing has changed.
            ValueError: Gradients with other keys, or that are read-only; nothing has changed.
        """
        given = [getattr(model.model, "gradients", None) for model in self._models]
        self._turns.run(self._zero_grad, given)

    def _zero_grad(self, given: list[Any]) -> None:
        options = self._options()
        arrays = [
            array
            for model, own in zip(self._models, given, strict=False)
            if own is not None
            for array in model.require_erasable(own)
        ]
        for array in arrays:
            array[...] = 0
        for k, own in enumerate(options):
            resets = [own["reset_neuron_costate"]] + [own["reset_weight_costate"]] * len(self._models[k].names)
            for j, reset in enumerate(resets):
                if reset:
                    self._write_costate(k, j, 0.0)

    # State.

    @property
    def state(self) -> list[dict[str, Any]]:
        """For each model ``"x"``, its state and parameters, and ``"p"``, their costates.

        Both are ``{"xi": array, "w": {name: array}}``. What is in "x" is the model's own. Costates live on the device:
        each is a read-only copy, fetched when it is asked for; `load_state_dict` and `zero_grad` change them.
        """
        return [
            {
                "x": {
                    XI: model.model.h_init if getattr(model.model, "h", None) is None else model.model.h,
                    "w": dict(zip(model.names, model.arrays[1:], strict=True)),
                },
                "p": Costates(model.names, partial(self._costate_in_turn, k)),
            }
            for k, model in enumerate(self._models)
        ]

    def _at(self, k: int, j: int) -> tuple[Any, int]:
        return self._plans.by_member()[sum(len(model.arrays) for model in self._models[:k]) + j]

    def _costate(self, k: int, j: int) -> Array:
        """A copy of the costate of a model's tensor."""
        launch, at = self._at(k, j)
        return as_like(launch.read_state("p", at), self._models[k].arrays[j])

    @in_turn
    def _costate_in_turn(self, k: int, j: int) -> Array:
        return self._costate(k, j)

    def _write_costate(self, k: int, j: int, value: float | Array) -> None:
        launch, at = self._at(k, j)
        launch.write_state("p", at, value)

    @in_turn
    def state_dict(self) -> dict[str, Any]:
        """A snapshot that `load_state_dict` continues from bit for bit: the costates and the options, copied.

        Returns:
            ``"state"``: for each model its costates, ``{"xi": array, "w": {name: array}}``; ``"param_groups"``: its
            options.
        """
        return {
            "state": [
                {XI: self._costate(k, 0), "w": {name: self._costate(k, j) for j, name in enumerate(model.names, 1)}}
                for k, model in enumerate(self._models)
            ],
            "param_groups": [dict(options) for options in self._options()],
        }

    @in_turn
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot; options are restored too. All of it is checked before anything is written.

        Raises:
            TypeError: Not a state dict, or arrays of another kind.
            ValueError: Another number of models, other names or shapes, or options out of range.
        """
        states, groups = saved_parts(state_dict, len(self._models))
        costates = [saved_costates(model, saved) for model, saved in zip(self._models, states, strict=True)]
        taken = [
            {"params": model.model, **take_options(OPTIONS, {**group, **dict(saved)}, k)}
            for k, (model, group, saved) in enumerate(zip(self._models, self.param_groups, groups, strict=True))
        ]
        for k, mine in enumerate(costates):
            for j, costate in enumerate(mine):
                self._write_costate(k, j, costate)
        self.param_groups[:] = taken

    def __getstate__(self) -> dict[str, Any]:
        return {
            "groups": self.param_groups,
            "defaults": self.defaults,
            "device": self.device,
            "state": self.state_dict(),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # The first use builds it: a model that holds its optimizer comes back after it, and is still empty here.
        self._saved = saved

    if not TYPE_CHECKING:  # for a type checker, it would have any attribute

        def __getattr__(self, name: str) -> Any:
            with _waking:
                saved = vars(self).get("_saved")
                if saved is not None:
                    made = HL.__new__(HL)
                    made.defaults = saved["defaults"]
                    made._build(saved["groups"], saved["device"])
                    made.load_state_dict(saved["state"])
                    vars(self).update(vars(made))
                    del self._saved
            return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        groups = "".join(
            f"\n  model {k}: {type(group['params']).__name__}, "
            + ", ".join(f"{name}={group[name]!r}" for name in self.defaults if name in group)
            for k, group in enumerate(self.param_groups)
        )
        return f"HL on {self._choice.info.name}{groups}"
