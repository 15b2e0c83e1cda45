"""The models of Hamiltonian Learning, as the optimizer sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from operator import is_, itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import real
from grilly_optim.optim._pairs import as_real, checked, conformed, numbers
from grilly_optim.optim._parameters import layout, require_writeable

Array = NDArray[Any]

XI = "xi"  # what the state's gradient and costate are called


class Model:
    """A model: its tensors, and how its gradients come.

    Its first tensor stands for the state: the rule moves it as it moves weights, which means nothing; what counts is
    its costate.

    Args:
        model: Has ``named_parameters()``, ``delta`` and ``h_init``, and ``h`` and ``dh`` once it has been called.
        who: What errors call it.

    Attributes:
        model: The caller's.
        names: Of its parameters.
        arrays: Its tensors: what stands for the state, and behind it the parameters, the caller's own.
        tensors: The same memory in real numbers.
        labels: What errors call them.

    Raises:
        TypeError: Something that it must have is missing, or is no such array.
        ValueError: It has no parameters, or two of one name.
    """

    def __init__(self, model: Any, who: str) -> None:
        self.model, self.who = model, who
        for name in ("named_parameters", "delta", "h_init"):
            if not hasattr(model, name):
                raise TypeError(
                    f"{who} must have named_parameters(), delta, h_init, h and dh, and {type(model).__name__} "
                    f"has no {name}"
                )
        named = self._pairs()
        _require_pairs(named, who)
        if not named:
            raise ValueError(f"named_parameters() of {who} gives none: there is nothing to learn")
        parameters = {name: checked(array, f"parameter {name!r} of {who}") for name, array in named}
        if len(parameters) < len(named):
            twice = next(name for k, (name, _) in enumerate(named) if name in dict(named[:k]))
            raise ValueError(f"named_parameters() of {who} gives {twice!r} twice")
        h = checked(model.h_init, f"h_init of {who}")
        # The costate has the dtype of the first parameter, but holds what a complex state needs.
        first = next(iter(parameters.values())).dtype
        dtype = np.result_type(first, np.complex64) if h.dtype.kind == "c" else first
        self.names = list(parameters)
        self.arrays = [np.zeros(h.shape, dtype), *parameters.values()]
        self.labels = [f"the state of {who}", *(f"parameter {name!r} of {who}" for name in parameters)]
        self.tensors = [as_real(array) for array in self.arrays]
        self._zeros: dict[int, Array] = {}
        self._pick = itemgetter(*parameters)
        self._layouts = [layout(array) for array in parameters.values()]
        self._is_real = all(array.dtype.kind == "f" for array in self.arrays)
        self.delta  # noqa: B018  # checked now rather than in the first step

    @property
    def delta(self) -> float:
        """The time step.

        Raises:
            TypeError: No real number.
            ValueError: Not above 0.
        """
        delta = real(f"delta of {self.who}", self.model.delta)
        if not 0 < delta < np.inf:
            raise ValueError(f"delta of {self.who} must be above 0, and finite, got {self.model.delta!r}")
        return delta

    @property
    def velocity(self) -> Array:
        """dh, as flat as the costate is.

        Raises:
            ValueError: The model has none yet, or one of another size.
            TypeError: It does not hold numbers, or complex ones, and the costate is real.
        """
        dh = getattr(self.model, "dh", None)
        if dh is None:
            raise ValueError(f"{self.who} has no dh yet: call it before its Hamiltonian is asked for")
        dh = numbers(dh, f"dh of {self.who}")
        if dh.size != self.arrays[0].size:
            raise ValueError(f"dh of {self.who} must have the size {self.arrays[0].size} of h_init, got {dh.size}")
        if dh.dtype.kind == "c" and self.arrays[0].dtype.kind != "c":
            raise TypeError(f"dh of {self.who} is complex, and h_init and its first parameter are real")
        return dh.reshape(-1)

    def require_same(self) -> None:
        """Refuse parameters that are others than at construction; a new view of the same memory is the same.

        Raises:
            ValueError: One is.
        """
        named = self._pairs()
        if self._are_kept(named):
            return  # nearly always
        _require_pairs(named, self.who)
        for (_, array), kept, kept_layout, name in zip(named, self.arrays[1:], self._layouts, self.names, strict=False):
            if not isinstance(array, np.ndarray) or layout(array) != kept_layout:
                what = "" if getattr(array, "shape", None) == kept.shape else f" of shape {np.shape(array)}"
                raise ValueError(
                    f"parameter {name!r} of {self.who} is another array{what} than when the optimizer was built: "
                    "write to the array in place, or build the optimizer anew"
                )
        if len(named) != len(self.names):
            raise ValueError(
                f"{self.who} has {len(named)} parameters, and had {len(self.names)} when the optimizer was built"
            )

    def _are_kept(self, named: list[Any]) -> bool:
        # Without a loop in Python: there may be many, in every step.
        given, kept = map(itemgetter(1), named), islice(self.arrays, 1, None)
        try:
            return len(named) == len(self.arrays) - 1 and all(map(is_, given, kept))
        except (TypeError, LookupError):  # these are no pairs
            return False

    def own_gradients(self) -> Any:
        """What the model says they are.

        Raises:
            ValueError: It has none.
        """
        given = getattr(self.model, "gradients", None)
        if given is None:
            raise ValueError(f"gradients is None, and {self.who} has no gradients: pass {{'xi': ..., 'w': {{...}}}}")
        return given

    def gradients(self, given: Any) -> list[Array]:
        """A gradient for each tensor, as the engine takes it; None in its place is zeros.

        Raises:
            TypeError: Another form, or something that is no such array.
            ValueError: Keys that are not those of the tensors, or another shape.
        """
        return [
            self._zero(k) if gradient is None else conformed(gradient, array, who)
            for k, ((who, gradient), array) in enumerate(zip(self._each(given), self.arrays, strict=True))
        ]

    def require_erasable(self, given: Any) -> list[Array]:
        """The arrays of gradients, which may be written to.

        Raises:
            TypeError: Another form, or something that is no array.
            ValueError: Keys that are not those of the tensors, or an array that is read-only.
        """
        found = [(who, gradient) for who, gradient in self._each(given) if gradient is not None]
        for who, gradient in found:
            if not isinstance(gradient, np.ndarray):
                raise TypeError(f"{who} must be a NumPy array, to be set to zero, got {type(gradient).__name__}")
            require_writeable(gradient, who)
        return [gradient for _, gradient in found]

    def _each(self, given: Any) -> list[tuple[str, Any]]:
        """What errors call the gradient of each tensor, and that gradient."""
        what = f"gradients of {self.who}"
        if not isinstance(given, Mapping):
            raise TypeError(f"{what} must be a dict with the keys 'xi' and 'w', got {type(given).__name__}")
        if "w" not in given:
            raise ValueError(f"{what} has no 'w', a dict of arrays or None by name")
        _require_keys(given, (XI, "w"), what)
        weights = given["w"]
        if not isinstance(weights, Mapping):
            raise TypeError(f"'w' in {what} must be a dict by name, got {type(weights).__name__}")
        _require_keys(weights, self.names, f"'w' in {what}")
        by_name = [(XI, given[XI]), *((name, weights[name]) for name in self.names)]
        return [(f"the gradient of {name!r} of {self.who}", gradient) for name, gradient in by_name]

    def gradients_as_given(self, given: Any) -> list[Array] | None:
        """The same without a look at each: what nearly always comes, for the engine to take or to refuse.

        None where it may take something for what it is not: a complex tensor looks like pairs of real numbers.
        """
        if not self._is_real or type(given) is not dict or given.keys() != {XI, "w"}:
            return None
        weights = given["w"]
        if type(weights) is not dict or len(weights) != len(self.names):
            return None
        xi = self._zero(0) if given[XI] is None else given[XI]
        try:
            picked = self._pick(weights)
        except KeyError:
            return None
        return [xi, *picked] if len(self.names) > 1 else [xi, picked]

    def _zero(self, k: int) -> Array:
        if k not in self._zeros:
            self._zeros[k] = np.zeros(self.tensors[k].shape, self.tensors[k].dtype)
        return self._zeros[k]

    def _pairs(self) -> list[Any]:
        found = self.model.named_parameters()
        if isinstance(found, Mapping) or not isinstance(found, Iterable):
            raise TypeError(
                f"named_parameters() of {self.who} must give (name, array) pairs, got {type(found).__name__}"
            )
        return list(found)


def _require_pairs(found: list[Any], who: str) -> None:
    for pair in found:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"named_parameters() of {who} must give (name, array) pairs, got {pair!r:.100}")


def _require_keys(given: Mapping[Any, Any], expected: Iterable[str], what: str) -> None:
    names = dict.fromkeys(expected)
    if given.keys() == names.keys():
        return
    unknown = [key for key in given if key not in names]
    if unknown:
        raise ValueError(f"{what} has the key {unknown[0]!r}; expected {', '.join(map(repr, names))}")
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"{what} has no {missing[0]!r}; None in its place counts as zeros")
