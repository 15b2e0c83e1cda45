"""The models of Hamiltonian Learning, as the optimizer sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from operator import is_, itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._options import real
from grilly_optim.optim._pairs import as_real, checked, conformed

Array = NDArray[Any]

XI = "xi"  # what the state's costate is called beside the names of parameters


class Model:
    """A model: its tensors, and how its gradients come.

    Its first tensor stands for the state: the rule moves it as it moves weights, which means nothing; what counts is
    its costate.

    Args:
        model: Has ``named_parameters()``, ``delta`` and ``h_init``, and ``h`` and ``dh`` once it has been called.
        who: What errors call it.

    Attributes:
        model: The caller's.
        names: Of its tensors.
        arrays: These, the parameters being the caller's own.
        tensors: The same memory in real numbers.

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
        self.names = [XI, *parameters]
        self.arrays = [np.zeros(h.shape, dtype), *parameters.values()]
        self.tensors = [as_real(array) for array in self.arrays]
        self._zeros: dict[int, Array] = {}
        self._pick = itemgetter(*parameters)
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
            TypeError: It is complex, and the costate is not.
        """
        dh = getattr(self.model, "dh", None)
        if dh is None:
            raise ValueError(f"{self.who} has no dh yet: call it before its Hamiltonian is asked for")
        dh = np.asarray(dh)
        if dh.size != self.arrays[0].size:
            raise ValueError(f"dh of {self.who} must have the size {self.arrays[0].size} of h_init, got {dh.size}")
        if dh.dtype.kind == "c" and self.arrays[0].dtype.kind != "c":
            raise TypeError(f"dh of {self.who} is complex, and h_init and its first parameter are real")
        return dh.reshape(-1)

    def require_same(self) -> None:
        """Refuse parameters that are others than at construction.

        Raises:
            ValueError: One is.
        """
        named = self._pairs()
        if self._are_kept(named):
            return  # nearly always
        _require_pairs(named, self.who)
        for (_, array), kept, name in zip(named, self.arrays[1:], self.names[1:], strict=False):
            if array is not kept:
                what = "" if getattr(array, "shape", None) == kept.shape else f" of shape {np.shape(array)}"
                raise ValueError(
                    f"parameter {name!r} of {self.who} is another array{what} than when the optimizer was built: "
                    "write to the array in place, or build the optimizer anew"
                )
        if len(named) != len(self.names) - 1:
            raise ValueError(
                f"{self.who} has {len(named)} parameters, and had {len(self.names) - 1} when the optimizer was built"
            )

    def _are_kept(self, named: list[Any]) -> bool:
        # Without a loop in Python: there may be many, in every step.
        given, kept = map(itemgetter(1), named), islice(self.arrays, 1, None)
        try:
            return len(named) == len(self.arrays) - 1 and all(map(is_, given, kept))
        except (TypeError, LookupError):  # these are no pairs
            return False

    def gradients(self, given: Any) -> list[Array]:
        """A gradient for each tensor, as the engine takes it; None in `given` is zeros.

        Raises:
            TypeError: Another form, or something that is no such array.
            ValueError: Keys that are not those of the tensors, or another shape.
        """
        if given is None:
            given = getattr(self.model, "gradients", None)
            if given is None:
                raise ValueError(
                    f"gradients is None, and {self.who} has no gradients: pass {{'xi': ..., 'w': {{...}}}}"
                )
        what = f"gradients of {self.who}"
        if not isinstance(given, Mapping):
            raise TypeError(f"{what} must be a dict with the keys 'xi' and 'w', got {type(given).__name__}")
        _require_keys(given, (XI, "w"), what)
        weights = given["w"]
        if not isinstance(weights, Mapping):
            raise TypeError(f"'w' in {what} must be a dict by name, got {type(weights).__name__}")
        _require_keys(weights, self.names[1:], f"'w' in {what}")
        made = []
        for k, (name, array) in enumerate(zip(self.names, self.arrays, strict=True)):
            gradient = weights[name] if k else given[XI]
            if gradient is None:
                made.append(self._zero(k))
            else:
                made.append(conformed(gradient, array, f"the gradient of {name!r} of {self.who}"))
        return made

    def gradients_as_given(self, given: Any) -> list[Array] | None:
        """The same without a look at each: what nearly always comes, for the engine to take or to refuse.

        None where it may take something for what it is not: a complex tensor looks like pairs of real numbers.
        """
        if given is None:
            given = getattr(self.model, "gradients", None)
        if not self._is_real or type(given) is not dict or given.keys() != {XI, "w"}:
            return None
        weights = given["w"]
        if type(weights) is not dict or len(weights) != len(self.names) - 1:
            return None
        xi = self._zero(0) if given[XI] is None else given[XI]
        try:
            picked = self._pick(weights)
        except KeyError:
            return None
        return [xi, *picked] if len(self.names) > 2 else [xi, picked]

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
