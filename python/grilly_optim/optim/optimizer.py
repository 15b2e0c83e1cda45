"""What all optimizers share. What lies below: `_attaching`, `_stepping`, `_groups`, `_recipe`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._attaching import Attaching
from grilly_optim.optim._options import AT_LEAST_0
from grilly_optim.optim._plans import REFUSED
from grilly_optim.optim._turns import in_turn

Array = NDArray[Any]
Gradients = Sequence[Array | None] | Mapping[str, Array | None] | Mapping[int, Array | None]


class Optimizer(Attaching):
    """Base of all optimizers.

    A subclass names its state and the ranges of its options, picks the rule of a group (`_rule`) and computes the
    rule's scalars for a step (`_scalars`). Everything else is here.

    Args:
        params: Arrays, (name, array) pairs, a dict of names, or group dicts whose ``"params"`` is one of these.
        defaults: Options of groups that do not set them.
        device: See `grilly_optim.devices`.
    """

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        gradients: Gradients | None = None,
        max_norm: float | None = None,
        clip_value: float | None = None,
    ) -> Any:
        """Update the parameters in place; they may be read when this returns.

        Args:
            closure: Evaluates the model and returns the loss, which this returns; called first.
            gradients: A sequence aligned with the parameters in the order of `param_groups`, or a dict by name or by
                ``id(parameter)``. None, or a missing key, leaves a parameter and its step count as they are. Without
                `gradients` the ``.grad`` of each `Parameter` is read. A gradient of another real precision is cast;
                gradients are never written to.
            max_norm: Scale the gradients down so that their global norm is at most this, as `clip_grad_norm` would but
                for the last digits of the norm; the kernel scales what it reads, and the processor reads the gradients
                once to know the norm. 0 or more, or infinity.
            clip_value: Clip every gradient to [-clip_value, clip_value], in the kernel. 0 or more, or infinity.

        Raises:
            TypeError: A complex gradient, or options that are not numbers.
            ValueError: A gradient of another shape, an unknown name or id, a wrong count, or an option out of range;
                both `max_norm` and `clip_value`, or one below 0; an attached penalty that is now one of other
                parameters.
            DeviceLost: The device failed; build the optimizer anew.

            After any of the first two, nothing has changed.
        """
        if self._hooks.pre:
            closure, gradients, max_norm, clip_value = self._hooks.before(
                self, closure=closure, gradients=gradients, max_norm=max_norm, clip_value=clip_value
            )
        if closure is not None and not callable(closure):
            raise TypeError(f"closure must be callable, got {type(closure).__name__}; gradients go into gradients=...")
        loss = None if closure is None else closure()
        turns = self._turns
        with turns.lock:
            if turns.busy:
                turns.refuse()
            try:
                turns.busy = True
                if max_norm is None and clip_value is None:
                    gradients = self._update(gradients, math.inf, 1.0)
                else:
                    gradients = self._update_clipped(gradients, max_norm, clip_value)
            finally:
                turns.busy = False
        if self._hooks.post:
            self._hooks.after(self, closure=closure, gradients=gradients, max_norm=max_norm, clip_value=clip_value)
        return loss

    def _update(self, gradients: Any, limit: float, scale: float) -> Any:
        """The step itself, by the one thread whose turn it is; returns the gradients as they were used."""
        self._look_at_options()
        plans, pasts, options = self._plans, self._pasts, self._options
        for attached in self._attached:
            attached.refresh(plans.launches)
        if type(gradients) is list and len(gradients) == len(plans.parameters):
            # The fast path: a group's parameters all at the same step, and gradients that the device takes as they are.
            if type(pasts) is tuple:
                if len(options) == 1:
                    after = (self._advance(options[0], pasts[0]),)
                    rows = [[self._scalars(options[0], after[0])]] * len(plans.launches)
                else:
                    after = tuple(map(self._advance, options, pasts))
                    rows = [[self._scalars(options[k], after[k]) for k in own] for own in plans.groups]
                if self._run((gradients,), rows, plans.index, after, True, limit, scale):
                    return gradients
            some_missing = any(g is None for g in gradients)
            if (some_missing or type(pasts) is not tuple) and self._run(
                (gradients,), *self._rows(gradients), False, limit, scale
            ):
                return gradients
        gradients = plans.conform(gradients)
        if not self._run((gradients,), *self._rows(gradients), False, limit, scale):
            raise RuntimeError(REFUSED)
        return gradients

    def _update_clipped(self, gradients: Any, max_norm: float | None, clip_value: float | None) -> Any:
        if max_norm is not None and clip_value is not None:
            raise ValueError("max_norm and clip_value are both given: clip by one of them")
        if clip_value is not None:
            return self._update(gradients, AT_LEAST_0.take("clip_value", clip_value), 1.0)
        limit = AT_LEAST_0.take("max_norm", max_norm)
        gradients = self._plans.conform(gradients)
        # As torch, which has the small number so that gradients of zero stay what they are; NaN is for all of them.
        factor = limit / (self._plans.norm(gradients) + 1e-6)
        return self._update(gradients, math.inf, 1.0 if factor >= 1 else factor)

    @in_turn
    def peek(self, gradients: Gradients | None) -> list[Array]:
        """The change that a step with these gradients would make; nothing changes, no step is counted.

        The same kernel runs on copies of the parameters and their state, on the processor when the device is a GPU:
        equal to the step's change to 2 ulp of the parameter.

        Returns:
            One array per parameter; zeros where the gradient is None.

        Raises:
            TypeError: As in `step`.
            ValueError: As in `step`.
        """
        self._look_at_options()
        items = self._plans.conform(gradients)
        rows, index, after = self._rows(items)
        arrays, trials, host = self._plans.copies()
        for attached in self._attached:
            attached.rehearse(trials)
        if not host.run([t.plan for t in trials], (items,), rows, index, False, self._numbers(after)):
            raise RuntimeError(REFUSED)
        with np.errstate(all="ignore"):  # what is not finite goes through, as in a step
            return [np.asarray(new - p) for new, p in zip(arrays, self._plans.parameters, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "groups": self.param_groups,
            "defaults": self.defaults,
            "device": self.device,
            "state": self.state_dict(),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # Keys that others wrote into the groups (schedulers do) come back with the state.
        known = {"params", "param_names", *saved["defaults"]}
        groups = [{k: v for k, v in g.items() if k in known} for g in saved["groups"]]
        Optimizer.__init__(self, groups, saved["defaults"], saved["device"])
        self.load_state_dict(saved["state"])
