"""Models for Hamiltonian Learning in NumPy: recurrent networks with the gradients of their Hamiltonian written out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grilly_optim.optim._hl_models import XI
from grilly_optim.optim._options import Flag, Range, Whole
from grilly_optim.optim._pairs import conformed
from grilly_optim.optim._parameters import require_writeable

Array = NDArray[Any]

ACTIVATIONS = ("tanh", "linear")

# sinc'(z) / z in powers of z^2, highest first; beyond the last one nothing shows in a double for |z| < 1.
_SLOPE = [(-1) ** k * 2 * k / math.factorial(2 * k + 1) for k in range(9, 0, -1)]


class Recurrent(ABC):
    """What the models share: a state that is carried along, a readout, the two kinds of locality, and snapshots.

    A model belongs to one thread at a time. It can be pickled and copied.

    A subclass has parameters, ``_advance(h, u)``, which gives the next state, and ``_pull(q)``, which gives what a
    gradient of the next state is for the last state and for the parameters of the transition.
    """

    NAMES: tuple[str, ...]

    def __init__(
        self,
        inputs: int,
        units: int,
        outputs: int,
        *,
        delta: float,
        batch: int,
        local: bool,
        retain: bool,
        activation: str,
        seed: int,
        dtype: Any,
    ) -> None:
        self.inputs = Whole(1).take("inputs", inputs)
        self.units = Whole(1).take("units", units)
        self.outputs = Whole(1).take("outputs", outputs)
        self.batch = Whole(1).take("batch", batch)
        self.delta: float = Range(0, above=True).take("delta", delta)
        self.local = Flag().take("local", local)
        self.retain = Flag().take("retain", retain)
        if self.local and self.retain:
            raise ValueError("retain needs local=False: the gradient of a local model's state is always there")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
        self.activation = activation
        try:
            self.dtype = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"dtype must be float32 or float64, got {dtype!r}") from None
        if self.dtype not in (np.float32, np.float64) or not self.dtype.isnative:
            raise TypeError(f"dtype must be float32 or float64, got {dtype!r}")
        self._random = np.random.default_rng(Whole(0).take("seed", seed))
        self.B = self._drawn(self.units, self.inputs)
        self.C = self._drawn(self.outputs, self.units)
        self.h_init: Array = self._random.standard_normal((self.batch, self.units)).astype(self.dtype)
        self.h: Array | None = None
        self.dh: Array | None = None
        self.gradients: dict[str, Any] | None = None
        self._starts = True  # the next call does, from h_init

    def _drawn(self, rows: int, columns: int) -> Array:
        return np.asarray(self._random.uniform(-1, 1, (rows, columns)) / math.sqrt(columns), self.dtype)

    def named_parameters(self) -> list[tuple[str, Array]]:
        """(name, array) pairs: the model's own arrays, which the optimizer writes to."""
        return [(name, getattr(self, name)) for name in self.NAMES]

    def reset(self) -> None:
        """Start from `h_init` again with the next call. Costates are the optimizer's, and stay."""
        self._starts = True

    def __call__(self, u: Any) -> Array:
        """One time step: move the state, set `h` and `dh`, and return the output.

        Args:
            u: The input, (batch, inputs).

        Returns:
            y, (batch, outputs).

        Raises:
            TypeError: `u` does not hold real numbers.
            ValueError: It has another shape.
        """
        # A copy, for `backward` still needs it when the caller may have written the next one there.
        u = self._taken(u, (self.batch, self.inputs), "u").copy()
        last = self.h_init.copy() if self._starts else self._next
        self._note(u, last, self._advance(last, u))
        self._starts = False
        return np.asarray(self._active @ self.C.T)

    def _note(self, u: Array, last: Array, new: Array) -> None:
        """A call with the input u has led from one state to a new one."""
        self._u, self._last, self._next = u, last, new
        self.h = last if self.local else new
        self.dh = (new - last) / self.dtype.type(self.delta)
        self._active = np.tanh(self.h) if self.activation == "tanh" else self.h

    def backward(self, grad: Any, costate: Any = None, gamma: float = 1.0) -> None:
        """Set `gradients` to those of gamma V + sum dh p, at the last call; `HL.backward` knows p and gamma.

        Args:
            grad: dV/dy, (batch, outputs).
            costate: p of the state, (batch, units); None is zeros, and leaves the gradients of gamma V.
            gamma: Weight of the potential.

        Raises:
            TypeError: Something that does not hold real numbers.
            ValueError: Another shape, or the model has not been called.
        """
        if self.h is None:
            raise ValueError("the model has no state yet: call it before its gradients are asked for")
        g = self._taken(grad, (self.batch, self.outputs), "grad") * self.dtype.type(Range().take("gamma", gamma))
        p = np.zeros_like(self.h) if costate is None else self._taken(costate, self.h.shape, "costate")
        of_h = g @ self.C
        if self.activation == "tanh":
            of_h = of_h * (1 - self._active**2)
        q = p / self.dtype.type(self.delta)
        if not self.local:
            q = q + of_h
        of_last, weights = self._pull(q)
        weights["C"] = g.T @ self._active
        xi = of_h + of_last - q if self.local else q if self.retain else None
        self.gradients = {XI: xi, "w": {name: weights[name] for name in self.NAMES}}

    def state_dict(self) -> dict[str, Any]:
        """A snapshot that `load_state_dict` continues from bit for bit, in copies.

        Returns:
            ``"w"``, the parameters by name; ``"h_init"``; ``"starts"``, whether the next call starts from it; and of
            the last call, or None before the first, ``"call"``: its input ``"u"``, the state before it, ``"last"``,
            and after it, ``"next"``. `gradients` are not in it: `backward` makes them again. Costates are in the
            snapshot of the optimizer.
        """
        called = {"u": self._u, "last": self._last, "next": self._next} if self.h is not None else None
        return {
            "w": {name: array.copy() for name, array in self.named_parameters()},
            "h_init": self.h_init.copy(),
            "starts": self._starts,
            "call": None if called is None else {name: array.copy() for name, array in called.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a model of the same kind, shape and options; `gradients` are None then.

        Parameters and `h_init` are written to in place, so that an optimizer goes on with them. All is checked before
        anything is written.

        Raises:
            TypeError: Not a state dict, or arrays of another kind.
            ValueError: Other names or shapes, or a parameter that is read-only.
        """
        _require_keys(state_dict, ("w", "h_init", "starts", "call"), "state_dict")
        call, of_h = state_dict["call"], (self.batch, self.units)
        shapes = {"u": (self.batch, self.inputs), "last": of_h, "next": of_h}
        _require_keys(state_dict["w"], self.NAMES, "'w' of state_dict")
        written = [("h_init", self.h_init, state_dict["h_init"])]
        written += [(name, array, state_dict["w"][name]) for name, array in self.named_parameters()]
        saved = [self._taken(new, array.shape, f"{name!r} of state_dict") for name, array, new in written]
        for name, array, _ in written:
            require_writeable(array, name)
        starts = Flag().take("'starts' of state_dict", state_dict["starts"])
        if call is not None:
            _require_keys(call, shapes, "'call' of state_dict")
            u, last, new = (self._taken(call[k], s, f"{k!r} of state_dict").copy() for k, s in shapes.items())
        elif not starts:
            raise ValueError("'call' of state_dict is None, and 'starts' is False: there is no state to go on with")

        for (_, array, _), new_values in zip(written, saved, strict=True):
            array[...] = new_values
        self._starts, self.gradients = starts, None
        if call is None:
            self.h = self.dh = None
        else:
            self._note(u, last, new)

    def _taken(self, numbers: Any, shape: tuple[int, ...], who: str) -> Array:
        return conformed(numbers, np.empty(shape, self.dtype), who)

    @abstractmethod
    def _advance(self, h: Array, u: Array) -> Array: ...

    @abstractmethod
    def _pull(self, q: Array) -> tuple[Array, dict[str, Array]]: ...

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.inputs}, {self.units}, {self.outputs}, delta={self.delta!r}, "
            f"batch={self.batch}, local={self.local}, retain={self.retain}, activation={self.activation!r}, "
            f"dtype={self.dtype.name})"
        )


class StateSpace(Recurrent):
    r"""A linear state, moved by a matrix, with a readout of its activation, for `HL`.

    With the state h and the input u, both (batch, ...), a call is::

        h_new = h A^T + u B^T
        dh    = (h_new - h) / delta
        y     = tanh(h) C^T         local: of the state before the call
        y     = tanh(h_new) C^T     otherwise

    `HL` gathers dH/dh in the state's costate p, with H = gamma V(y) + sum dh p. A local model differentiates with
    respect to the state before the call, so that all that a parameter needs is there when it is moved: C learns from V,
    A and B from the costate alone. Otherwise A and B learn from V through h_new, and the costate stays 0, because the
    tracked state is no input of the call; `retain` gathers the gradient of h_new, which holds p / delta: the costate
    doubles in every step but for what theta takes away, so it needs theta above 1.

    Args:
        inputs: Numbers in u.
        units: Numbers in the state.
        outputs: Numbers in y.
        delta: The time step, above 0.
        batch: Signals that run side by side.
        local: What is tracked, and what the output is made of; see above.
        retain: Keep the gradient of h_new where `local` is False.
        activation: "tanh", or "linear" for none.
        seed: Of the first values.
        dtype: np.float32 or np.float64, of everything.

    Attributes:
        A: (units, units), B: (units, inputs), C: (outputs, units). Drawn from U(-1, 1) / sqrt(columns).
        h_init: The first state, (batch, units), drawn from N(0, 1); write to it for another one.
        h: The tracked state of the last call, and `dh` its velocity; None before the first.
        gradients: What `backward` made, ``{"xi": array or None, "w": {name: array}}``.

    Raises:
        TypeError: Numbers of units that are not whole, flags that are none, or another dtype.
        ValueError: Numbers out of range, another activation, or `retain` with `local`.

    Source: Melacci et al., arXiv 2409.12038 (2024); `CSSM` of UNaIVERSE, whose delta is always 1.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.optim import HL
        >>> from grilly_optim.optim.hl_models import StateSpace
        >>> model = StateSpace(1, 20, 1, local=False)
        >>> optimizer = HL(model, theta=0.5, beta=0.05, local=False, device="numpy")
        >>> errors = []
        >>> for t in range(1000):
        ...     now, ahead = np.sin([[0.3 * t]]), np.sin([[0.3 * t + 0.3]])
        ...     error = model(now) - ahead
        ...     optimizer.backward(error)  # V = error^2 / 2
        ...     optimizer.step()
        ...     errors.append(float(error[0, 0] ** 2))
        >>> sum(errors[-50:]) < sum(errors[:50]) / 10
        True
    """

    NAMES = ("A", "B", "C")

    def __init__(
        self,
        inputs: int,
        units: int,
        outputs: int,
        *,
        delta: float = 1.0,
        batch: int = 1,
        local: bool = True,
        retain: bool = False,
        activation: str = "tanh",
        seed: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            inputs,
            units,
            outputs,
            delta=delta,
            batch=batch,
            local=local,
            retain=retain,
            activation=activation,
            seed=seed,
            dtype=dtype,
        )
        self.A = self._drawn(self.units, self.units)

    def _advance(self, h: Array, u: Array) -> Array:
        return np.asarray(h @ self.A.T + u @ self.B.T)

    def _pull(self, q: Array) -> tuple[Array, dict[str, Array]]:
        return q @ self.A, {"A": q.T @ self._last, "B": q.T @ self._u}


class Oscillators(Recurrent):
    r"""Undamped oscillators, driven by the input and solved exactly, with a readout, for `HL`.

    Each pair (x, y) of the state turns with its own angular velocity omega. With (a, b) its part of u B^T, which does
    not change during the time step, and z = delta omega::

        x_new =  cos z x + sin z y + S a + K b        S = sin z / omega
        y_new = -sin z x + cos z y - K a + S b        K = (1 - cos z) / omega

    which is the solution of x' = omega y + a, y' = -omega x + b, also where omega is 0: S is computed as delta sinc z,
    K as delta sin(z/2) sinc(z/2). dh, the output, `local` and `retain` are as in `StateSpace`.

    Args:
        inputs: Numbers in u.
        units: Numbers in the state, two for each oscillator.
        outputs: Numbers in y.
        delta: The time step, above 0.
        batch: Signals that run side by side.
        local: What is tracked, and what the output is made of.
        retain: Keep the gradient of the new state where `local` is False.
        activation: "tanh", or "linear" for none.
        seed: Of the first values.
        dtype: np.float32 or np.float64, of everything.

    Attributes:
        omega: (units / 2,), drawn from U(0, 1). B: (units, inputs), C: (outputs, units), drawn from U(-1, 1) /
            sqrt(columns).
        h_init: The first state, (batch, units), drawn from N(0, 1), x and y in turn; write to it for another one.
        h: The tracked state of the last call, and `dh` its velocity; None before the first.
        gradients: What `backward` made, ``{"xi": array or None, "w": {name: array}}``.

    Raises:
        TypeError: Numbers of units that are not whole, flags that are none, or another dtype.
        ValueError: Numbers out of range, an odd number of units, another activation, or `retain` with `local`.

    Source: Melacci et al., arXiv 2409.12038 (2024); `CTBE` of UNaIVERSE, which divides by omega.

    Example:
        Without input, it keeps turning for ever:

        >>> import numpy as np
        >>> from grilly_optim.optim.hl_models import Oscillators
        >>> model = Oscillators(1, 2, 1, delta=0.5, dtype=np.float64)
        >>> model.omega[:], model.h_init[:] = np.pi, [[1.0, 0.0]]
        >>> for _ in range(3):
        ...     y = model(np.zeros((1, 1)))
        >>> bool(np.allclose(model.h, [[-1.0, 0.0]]))  # two quarter turns, the third one is in dh
        True
        >>> bool(np.allclose(model.h + 0.5 * model.dh, [[0.0, 1.0]]))
        True
    """

    NAMES = ("omega", "B", "C")

    def __init__(
        self,
        inputs: int,
        units: int,
        outputs: int,
        *,
        delta: float = 0.1,
        batch: int = 1,
        local: bool = True,
        retain: bool = False,
        activation: str = "linear",
        seed: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(
            inputs,
            units,
            outputs,
            delta=delta,
            batch=batch,
            local=local,
            retain=retain,
            activation=activation,
            seed=seed,
            dtype=dtype,
        )
        if self.units % 2:
            raise ValueError(f"units must be even, two for each oscillator, got {units!r}")
        self.omega: Array = self._random.uniform(0, 1, self.units // 2).astype(self.dtype)

    def _advance(self, h: Array, u: Array) -> Array:
        (x, y), (a, b) = _pairs(h), _pairs(u @ self.B.T)
        cos, sin, s, k = self._turn()
        return _joined(cos * x + sin * y + s * a + k * b, -sin * x + cos * y - k * a + s * b)

    def _pull(self, q: Array) -> tuple[Array, dict[str, Array]]:
        (x, y), (a, b), (qx, qy) = _pairs(self._last), _pairs(self._u @ self.B.T), _pairs(q)
        cos, sin, s, k = self._turn()
        z = self.omega * self.dtype.type(self.delta)
        # Derivatives of z, s and k, divided by delta; z's is 1.
        of_s = self.dtype.type(self.delta) * _sinc_slope(z)
        of_k = self.dtype.type(self.delta) * (_sinc(z) - _sinc(z / 2) ** 2 / 2)
        turned = (cos * y - sin * x) * qx - (cos * x + sin * y) * qy
        driven = of_s * (a * qx + b * qy) + of_k * (b * qx - a * qy)
        of_omega = self.dtype.type(self.delta) * (turned + driven).sum(axis=0)
        of_drive = _joined(s * qx - k * qy, k * qx + s * qy)
        return _joined(cos * qx - sin * qy, sin * qx + cos * qy), {"omega": of_omega, "B": of_drive.T @ self._u}

    def _turn(self) -> tuple[Array, Array, Array, Array]:
        """Of each oscillator: cos z, sin z, S and K."""
        delta = self.dtype.type(self.delta)
        z = self.omega * delta
        return np.cos(z), np.sin(z), delta * _sinc(z), delta * np.sin(z / 2) * _sinc(z / 2)


def _require_keys(given: Any, keys: Iterable[str], who: str) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{who} must be a dict with the keys {', '.join(map(repr, keys))}, got {type(given).__name__}")
    if set(given) != set(keys):
        raise ValueError(f"{who} has the keys {', '.join(map(repr, given))}; expected {', '.join(map(repr, keys))}")


def _pairs(h: Array) -> tuple[Array, Array]:
    return h[:, 0::2], h[:, 1::2]


def _joined(x: Array, y: Array) -> Array:
    return np.stack([x, y], axis=-1).reshape(len(x), -1)


def _sinc(z: Array) -> Array:
    """Elementwise sin z / z."""
    return np.asarray(np.sinc(z / z.dtype.type(np.pi)))


def _sinc_slope(z: Array) -> Array:
    """The derivative of sin z / z, as a series where the closed form would lose digits."""
    small = np.abs(z) < 1
    far = np.where(small, 1, z)
    return np.where(small, z * np.polyval(_SLOPE, z * z), (np.cos(far) - np.sin(far) / far) / far).astype(z.dtype)
