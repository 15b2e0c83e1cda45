"""What all Langevin samplers share: steps with noise, chains, metrics, state."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grilly_optim.kernels import philox
from grilly_optim.kernels.philox import Draw
from grilly_optim.kernels.random import NORMAL
from grilly_optim.kernels.rule import Rule
from grilly_optim.optim import _gradients, _past
from grilly_optim.optim._launch import Chains
from grilly_optim.optim._options import Flag, Option, Options, Whole
from grilly_optim.optim._parameters import Group
from grilly_optim.optim._past import Past, Pasts
from grilly_optim.optim._plans import REFUSED, Plans, Rows
from grilly_optim.optim._turns import in_turn
from grilly_optim.sampling._measuring import Measuring
from grilly_optim.sampling._options import BOX, POSITIVE, Kept, NBeta
from grilly_optim.sampling.metrics import Metrics
from grilly_optim.sampling.preconditioners import taken_masks
from grilly_optim.sampling.priors import Pull
from grilly_optim.sampling.sketch import CountSketch

Array = NDArray[Any]
Arrays = Sequence[Array | None]

_made: dict[tuple[str, tuple[str, ...]], Rule] = {}


def having(rule: Rule, present: tuple[str, ...]) -> Rule:
    """The rule with these optional fields: one object for the same ones, because plans are made anew for another."""
    key = rule.name, present
    return _made[key] if key in _made else _made.setdefault(key, rule.having(*present))


class Sampler(Measuring):
    """Base of all samplers: a step moves the parameters by gradient, prior and noise.

    Args:
        params: Arrays, (name, array) pairs, a dict of names, or group dicts whose ``"params"`` is one of these.
        defaults: Options of groups that do not set them.
        device: See `grilly_optim.devices`.
        seed: Of the noise.
        num_chains: Every parameter has this many rows, one per chain; None: there is one chain, and no such axis.
        stream: The random stream of the first chain; chain c has stream + c.
        save_metrics: Measure every step.
        sketch_dim: Keep count sketches of every step, of that many numbers; None: none, unless there is a `sketch`.
        sketch_seed: What their hashes follow from.
        sketch: Their hashes, over the elements of all parameters of one chain, instead of `CountSketch.create`'s.
        momentum: Standard normal numbers that the momenta begin with, one array per parameter, instead of drawn ones.
    """

    # A parameter's past is the number of the sampler's step that it was in last: nothing else decides about the next.
    STATE_NAMES: ClassVar[dict[str, str]] = {
        "center": "prior_center",
        "start": "initial_param",
        "mask": "mask",
        "v": "square_avg",
        "m": "momentum",
    }
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "lr": POSITIVE,
        "nbeta": NBeta(),
        "bounding_box_size": BOX,
        "mask": Kept((tuple, NoneType), "None or an array per parameter, and stays what it is"),
    }

    def __init__(
        self,
        params: Any,
        defaults: Group,
        device: str | None,
        *,
        seed: int = 0,
        num_chains: int | None = None,
        stream: int = 0,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
        sketch: CountSketch | None = None,
        momentum: Arrays | None = None,
    ) -> None:
        self.seed = Whole(0, philox.SEED_BITS).take("seed", seed)
        self.num_chains = None if num_chains is None else Whole(1).take("num_chains", num_chains)
        self.stream = Whole(0, philox.STREAM_BITS).take("stream", stream)
        self.save_metrics = Flag().take("save_metrics", save_metrics)
        if self.stream + (self.num_chains or 1) > 1 << philox.STREAM_BITS:
            raise ValueError(f"stream + num_chains must be at most 2^32, got {self.stream} + {self.num_chains}")
        self._chains = Chains(self.num_chains or 1, self.stream)
        self._rows_each: int = num_chains or 1
        self._will_measure(sketch_dim, sketch_seed, sketch)
        self._momentum = momentum
        if isinstance(params, np.ndarray):
            params = [params]
        super().__init__(params, defaults, device)
        self._momentum = None

    # What subclasses say.

    @abstractmethod
    def _pull(self, options: Options) -> Pull:
        """The prior of a group."""

    def _momentum_scale(self, options: Options) -> float:
        """The standard deviation of the momenta before the first step."""
        return 1.0

    # Groups.

    def _resolve(self, group: Group, index: int) -> None:
        where = f" of group {index}" if index else ""
        if not all(isinstance(p, np.ndarray) for p in group["params"]):
            return  # refused where all parameters are looked at
        chains = self.num_chains
        for k, p in enumerate(group["params"]):
            if chains is not None and p.shape[:1] != (chains,):
                raise ValueError(
                    f"parameter {k}{where} must have shape ({chains}, ...), one row per chain, got {p.shape}"
                )
        masks = group["mask"]
        if masks is None:
            return
        if isinstance(masks, np.ndarray):
            masks = [masks]
        if not isinstance(masks, list | tuple):
            raise TypeError(f"mask{where} must be an array per parameter, got {type(masks).__name__}")
        group["mask"] = taken_masks(masks, group["params"], chains is not None, where)

    def _is_masked(self, options: Options) -> bool:
        return options["mask"] is not None

    def _masks(self, options: Options) -> tuple[Array, ...] | None:
        """What of each parameter of a group moves; None: all of it."""
        masks: tuple[Array, ...] | None = options["mask"]
        return masks

    def _present(self, options: Options) -> tuple[str, ...]:
        """The optional fields that the rule of a group needs, in the order of its state."""
        present = []
        if self._pull(options).pull > 0:
            present.append("center")
        if self.save_metrics or options["bounding_box_size"] is not None:
            present.append("start")
        if self._is_masked(options):
            present.append("mask")
        return tuple(present)

    def _rule(self, options: Options) -> Rule:
        return having(self.RULE, self._present(options))

    def _initial(self, options: Options, params: list[Array]) -> dict[str, Sequence[Array]]:
        initial: dict[str, Sequence[Array]] = {}
        present = self._present(options)
        if "center" in present:
            initial["center"] = self._pull(options).centers(params, self.num_chains is not None)
        if "start" in present:
            initial["start"] = params
        if "mask" in present:
            masks = self._masks(options)
            assert masks is not None
            initial["mask"] = masks
        return initial

    def _prepare(self, groups: list[Group]) -> tuple[list[Options], Plans]:
        options, plans = super()._prepare(groups)
        self._start_momenta(plans, options)
        if self.save_sketches:
            self._start_sketches(plans)
        return options, plans

    def _start_momenta(self, plans: Plans, options: list[Options]) -> None:
        if "m" not in self.RULE.state_fields:
            return
        given = None if self._momentum is None else self._aligned("momentum", self._momentum, plans, plans.parameters)
        # Of parameters that come later, with numbers of their own: those that are there keep their momenta.
        draw = Draw(self.seed, max(getattr(self, "_pasts", (0,))), philox.MOMENTUM)
        for launch in plans.launches:
            drawn: list[Array] = [np.zeros_like(p) for p in launch.direct]
            if given is None:
                assert plans.keys is not None
                plan: Any = self._backend.plan(
                    NORMAL, drawn, list(range(len(drawn))), *plans.keys.of_members(launch.members)
                )
                self._backend.run([plan], (), [[(1.0,)]], [None], draw=draw)
            for k, i in enumerate(launch.members):
                z = drawn[k] if given is None else given[i]
                launch.write_state("m", k, np.asarray(z) * self._momentum_scale(options[plans.group_of[i]]))

    def _take(self, groups: list[Group], options: list[Options], plans: Plans, pasts: Pasts) -> None:
        chains = self._rows_each
        masks = [m for o, size in zip(options, plans.sizes, strict=True) for m in self._masks(o) or [None] * size]
        self._mask_of = masks
        # How many elements of each chain can move.
        self._movable = [
            np.full(chains, p.size // chains)
            if m is None
            else np.count_nonzero(np.broadcast_to(m, p.shape).reshape(chains, -1), axis=1)
            for p, m in zip(plans.parameters, masks, strict=True)
        ]
        self._metrics += [Metrics.zero(chains) for _ in groups[len(self._metrics) :]]
        # Last: what is above may be there for a group that did not come, but not the other way round.
        super()._take(groups, options, plans, pasts)

    def _check_options(self, options: list[Options]) -> None:
        for k, (old, new) in enumerate(zip(self._options, options, strict=True)):
            where = f" of group {k}" if k else ""
            if old["mask"] is not new["mask"]:
                raise ValueError(f"mask{where} cannot be changed: build another sampler")
            if not self._pull(old).same_center(self._pull(new)):
                raise ValueError(f"prior{where} cannot be changed to one with another center: build another sampler")

    # Steps.

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        gradients: Any = None,
        noise: Arrays | None = None,
        noise_generator: Any = None,
    ) -> Any:
        """Move the parameters in place; they may be read when this returns.

        Args:
            closure: Evaluates the model and returns the loss, which this returns; called first.
            gradients: Of the loss, not of nbeta times the loss: a sequence aligned with the parameters in the order of
                `param_groups`, or a dict by name or by ``id(parameter)``. A parameter whose gradient is None, or
                missing, stays as it is: no noise, no prior. Without `gradients` the ``.grad`` of each `Parameter` is
                read.
            noise: Standard normal numbers instead of drawn ones: a sequence of arrays aligned with the parameters.
                What stands where the gradient is None does not matter.
            noise_generator: Draws these numbers instead, in the order of the parameters that have a gradient:
                ``standard_normal(shape, dtype=float32)`` is called, as `numpy.random.Generator` has it.

        Raises:
            TypeError: A complex gradient, noise that is no sequence of real arrays, or options that are no numbers.
            ValueError: A gradient or noise of another shape or in another number, an unknown name or id, or an option
                out of range; both `noise` and `noise_generator`.
            DeviceLost: The device failed; build the sampler anew.

            After any of the first two, nothing has changed.
        """
        if self._hooks.pre:
            closure, gradients, noise, noise_generator = self._hooks.before(
                self, closure=closure, gradients=gradients, noise=noise, noise_generator=noise_generator
            )
        if closure is not None and not callable(closure):
            raise TypeError(f"closure must be callable, got {type(closure).__name__}; gradients go into gradients=...")
        loss = None if closure is None else closure()
        gradients = self._update(gradients, noise, noise_generator)
        if self._hooks.post:
            self._hooks.after(self, closure=closure, gradients=gradients, noise=noise, noise_generator=noise_generator)
        return loss

    @in_turn
    def _update(self, gradients: Any, noise: Arrays | None, generator: Any) -> Any:
        """The step itself; returns the gradients as they were used."""
        self._look_at_options()
        plans, pasts = self._plans, self._pasts
        rows, index = self._all_rows()
        count = max(pasts) + 1
        if count >= 1 << philox.STEP_BITS:
            raise OverflowError(f"step {count}: the counter of random numbers has room for 2^{philox.STEP_BITS} steps")
        draw = Draw(self.seed, count)
        as_they_are = type(gradients) is list and len(gradients) == len(plans.parameters) and type(pasts) is tuple
        if noise is None and generator is None and as_they_are:
            after: Pasts = (count,) * len(pasts)
            if self._run((gradients,), rows, index, after, True, draw=draw):
                return gradients
        gradients = plans.conform(gradients)
        inputs = [gradients]
        if noise is not None or generator is not None:
            inputs.append(self._given(noise, generator, gradients))
        before = _past.unpacked(pasts, plans.sizes)
        moved = [past if g is None else count for past, g in zip(before, gradients, strict=True)]
        after = _past.packed(moved, plans.sizes)
        if not self._run(tuple(inputs), rows, index, after, False, draw=draw if len(inputs) == 1 else None):
            raise RuntimeError(REFUSED)
        if all(g is None for g in gradients):
            # Not counted, so that `_settle` takes it for the step before.
            for metrics in self._metrics:
                metrics.take(np.zeros((self._rows_each, 0)), (), 0)
        return gradients

    def _given(self, noise: Arrays | None, generator: Any, gradients: Arrays) -> list[Array | None]:
        """Noise that is not drawn by the device."""
        plans = self._plans
        if generator is None:
            return self._aligned("noise", noise, plans, gradients)
        if noise is not None:
            raise ValueError("noise and noise_generator are both given: the noise comes from one of them")
        if not callable(getattr(generator, "standard_normal", None)):
            raise TypeError(f"noise_generator must have standard_normal(), got {type(generator).__name__}")
        made = [
            None if g is None else generator.standard_normal(p.shape, dtype=np.float32)
            for p, g in zip(plans.parameters, gradients, strict=True)
        ]
        return self._aligned("noise_generator", made, plans, gradients)

    @staticmethod
    def _aligned(name: str, arrays: Any, plans: Plans, needed: Arrays) -> list[Array | None]:
        """One array per parameter, where it is needed, in its shape and precision."""
        if isinstance(arrays, np.ndarray | str | bytes) or not isinstance(arrays, Sequence):
            raise TypeError(f"{name} must be a sequence of arrays, one per parameter, got {type(arrays).__name__}")
        if len(arrays) != len(plans.parameters):
            raise ValueError(f"{name} has {len(arrays)} arrays, and there are {len(plans.parameters)} parameters")
        result: list[Array | None] = []
        for array, p, who, wanted in zip(arrays, plans.parameters, plans.who, needed, strict=True):
            if wanted is not None and array is None:
                raise ValueError(f"{name} has None for {who}, which has a gradient")
            result.append(None if wanted is None else _gradients.conform(array, p, who, name))
        return result

    def _all_rows(self) -> tuple[list[Rows], list[Any]]:
        """Rows of scalars for each plan, and which is whose."""
        options = [self._now(o, k) for k, o in enumerate(self._options)]
        scalars = [self._scalars(o, 0) for o in options]
        return [[scalars[k] for k in groups] for groups in self._plans.groups], self._plans.index

    @staticmethod
    def _now(options: Options, k: int) -> Options:
        """The options of a group in this step."""
        nbeta = options["nbeta"]
        if not callable(nbeta):
            return options
        return {**options, "nbeta": POSITIVE.take("nbeta()", nbeta(), f" of group {k}" if k else "")}

    def _advance(self, options: Options, past: Past) -> Past:
        return past  # not counted one by one: see `_update`

    # State.

    def _saved_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """See `Recipe`: masks are state, and functions cannot be saved."""
        plain = {k: v for k, v in group.items() if k not in ("params", "mask") and not callable(v)}
        return copy.deepcopy(plain)

    def _check_saved(self, name: str, array: Array, i: int, who: str) -> None:
        if name != "mask":
            return
        mask = self._mask_of[i]
        if mask is None or not np.array_equal(array, np.broadcast_to(mask, array.shape)):
            raise ValueError(f"'mask' of {who} in state_dict is another than this sampler's, which cannot be changed")

    def _own_state(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "stream": self.stream,
            "num_chains": self.num_chains,
            "masked": [self._is_masked(o) for o in self._options],
        }

    def _checked_own_state(self, state_dict: Mapping[str, Any]) -> int:
        for name, mine in self._own_state().items():
            if name not in state_dict:
                raise ValueError(f"state_dict must have {name!r}, as those of samplers do")
            if name != "seed" and state_dict[name] != mine:
                raise ValueError(f"{name!r} of state_dict is {state_dict[name]!r}, and this sampler has {mine!r}")
        return Whole(0, philox.SEED_BITS).take("seed of state_dict", state_dict["seed"])

    def _take_own_state(self, saved: int) -> None:
        self.seed = saved
        self._settled = max(self._pasts)

    def _shown(self, group: Mapping[str, Any]) -> dict[str, Any]:
        masks = group["mask"]
        return {**super()._shown(group), "mask": None if masks is None else f"<{len(masks)} arrays>"}

    def _settings(self) -> dict[str, Any]:
        """Keyword arguments of `Sampler` that build another one like this."""
        return {
            "seed": self.seed,
            "num_chains": self.num_chains,
            "stream": self.stream,
            "save_metrics": self.save_metrics,
            "sketch_dim": self._sketch_dim,
            "sketch_seed": self._sketch_seed,
            "sketch": self._hashes,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {
            # Options that went into others must not come back as defaults.
            "groups": [{**dict.fromkeys(self.defaults), **g} for g in self.param_groups],
            "defaults": self.defaults,
            "device": self.device,
            "settings": self._settings(),
            "state": self.state_dict(),
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # Keys that others wrote into the groups (schedulers do) come back with the state.
        known = {"params", "param_names", *saved["defaults"]}
        groups = [{k: v for k, v in g.items() if k in known} for g in saved["groups"]]
        Sampler.__init__(self, groups, saved["defaults"], saved["device"], **saved["settings"])
        self.load_state_dict(saved["state"])
