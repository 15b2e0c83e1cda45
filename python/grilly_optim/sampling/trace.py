"""The result of a run of chains: draws, statistics of transitions, and what they say together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

import grilly_optim
from grilly_optim.optim._options import Range, Whole
from grilly_optim.sampling import _trace_checks, _trace_file, _trace_plots, _trace_summary
from grilly_optim.sampling._arviz import from_groups
from grilly_optim.sampling._trace_summary import TraceSummary

Array = NDArray[Any]

_STATS = "sample_stats."  # before their names in a file


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """What `sample` returns: C chains of n draws of D coordinates, and how the run went.

    Its arrays are read-only, and are not copied when it is made. ``trace["tau"]`` are the draws of one coordinate,
    (C, n).

    Args:
        draws: (C, n, D), float32 or float64, in the coordinates of the sampler; n is 0 if the run was interrupted
            before its first draw.
        sample_stats: Name -> (C, n), of the transitions that led to the draws (with `thin`, of the last one of each;
            ``diverging`` says whether any of them did). `sample` gives ArviZ's names: ``lp``
            (minus the potential energy), ``energy``, ``acceptance_rate``, ``step_size``, ``n_steps``, ``diverging``,
            ``accepted``, and for NUTS ``tree_depth`` and ``reached_max_treedepth``.
        names: Of the D coordinates, all different. Default: ``q[0]``, ``q[1]``, ...
        kernel: ``"nuts"``, ``"hmc"``, ``"mala"``, ``"ghmc"`` or ``"rwm"``; "" where it is not known.
        seed: Of the random numbers.
        thin: Every so many-th transition is a draw.
        num_warmup: Transitions of each chain before those that are counted here.
        stepsize: (C,), after the warm-up; None where it is not known.
        inv_mass: The inverse mass after the warm-up, (C,), (C, D) or (C, D, D): numbers, diagonals or matrices, one for
            each chain; None where it is not known.
        interrupted: Whether somebody ended the run before it had all its draws.
        seconds: What it took, warm-up and all; None where it is not known.

    Raises:
        TypeError: An argument of a wrong type.
        ValueError: A wrong shape, draws that are infinite or NaN, names that are empty or not different.

    Example:
        >>> import numpy as np
        >>> from grilly_optim.sampling import Trace
        >>> random = np.random.default_rng(0)
        >>> trace = Trace(random.standard_normal((4, 1000, 2)), names=["mu", "tau"], kernel="hmc")
        >>> trace
        Trace(hmc: 4 chains of 1000 draws, 2 coordinates, float64)
        >>> trace["tau"].shape
        (4, 1000)
        >>> trace.summary().problems
        ()
    """

    draws: Array
    sample_stats: Mapping[str, Array] = field(default_factory=dict)
    names: Sequence[str] = ()
    kernel: str = ""
    seed: int = 0
    thin: int = 1
    num_warmup: int = 0
    stepsize: Array | None = None
    inv_mass: Array | None = None
    interrupted: bool = False
    seconds: float | None = None

    def __post_init__(self) -> None:
        draws = _trace_checks.draws_of(self.draws)
        chains, count, dim = draws.shape
        made: dict[str, Any] = {
            "draws": draws,
            "sample_stats": _trace_checks.stats_of(self.sample_stats, (chains, count)),
            "names": _trace_checks.names_of(self.names, dim),
            "stepsize": _trace_checks.positive("stepsize", self.stepsize, [(chains,)]),
            "inv_mass": _trace_checks.positive(
                "inv_mass", self.inv_mass, [(chains,), (chains, dim), (chains, dim, dim)]
            ),
            "seed": Whole(0).take("seed", self.seed),
            "thin": Whole(1).take("thin", self.thin),
            "num_warmup": Whole(0).take("num_warmup", self.num_warmup),
            "seconds": None if self.seconds is None else Range(0).take("seconds", self.seconds),
        }
        if not isinstance(self.kernel, str):
            raise TypeError(f"kernel must be a str, got {self.kernel!r}")
        if not isinstance(self.interrupted, bool):
            raise TypeError(f"interrupted must be True or False, got {self.interrupted!r}")
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @property
    def num_chains(self) -> int:
        """C."""
        return int(self.draws.shape[0])

    @property
    def num_draws(self) -> int:
        """Of each chain: n."""
        return int(self.draws.shape[1])

    @property
    def dim(self) -> int:
        """D."""
        return int(self.draws.shape[2])

    def __getitem__(self, name: str) -> Array:
        """The draws of the coordinate with this name, (C, n)."""
        if not isinstance(name, str):
            raise TypeError(f"a coordinate is asked for by its name, got {name!r}; by its number: .draws[..., number]")
        if name not in self.names:
            raise KeyError(f"no coordinate is called {name!r}; they are {_trace_checks.some(self.names)}")
        return np.asarray(self.draws[:, :, self.names.index(name)])

    def __repr__(self) -> str:
        return f"Trace({_trace_summary.headline(self)}, {self.draws.dtype})"

    def summary(self, coordinates: Sequence[str | int] | str | int | None = None) -> TraceSummary:
        """Means and their errors, and whether to believe them. Computed by ArviZ, of the extra ``sampling``.

        A coordinate takes some milliseconds for 4 chains of 1,000 draws, and more in proportion to the draws.

        Args:
            coordinates: Names or numbers; None: all.

        Returns:
            What prints as a table, with its columns as arrays. Where there are fewer than 4 draws in a chain, or where
            a coordinate never moved, diagnostics are NaN, shown as "-"; so is R-hat for one chain.

        Raises:
            ValueError: There is no such coordinate.
            MissingExtra: ArviZ is not installed.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import Trace
            >>> random = np.random.default_rng(0)
            >>> trace = Trace(random.standard_normal((4, 1000, 2)), names=["mu", "tau"], kernel="hmc")
            >>> print(trace.summary())
            hmc: 4 chains of 1000 draws, 2 coordinates
            <BLANKLINE>
                   mean     sd  mcse_mean  ess_bulk  ess_tail  r_hat
            mu   -0.002  1.010      0.018      3230      3812  1.000
            tau   0.003  0.996      0.016      3887      4128  1.000
            <BLANKLINE>
            no problems found
        """
        return _trace_summary.summarize(self, _trace_checks.numbers_of(coordinates, self.names))

    def plot(
        self,
        kind: Literal["all", "trace", "rank", "energy"] = "all",
        coordinates: Sequence[str | int] | str | int | None = None,
    ) -> Any:
        """Pictures of the chains.

        ``"trace"``: the draws one by one, and their density, with a line for each chain. Chains that agree overlap, and
        look like noise. Divergent transitions are marked at the lower edge: where they crowd, the sampler could not go.

        ``"rank"``: how often draws of a chain have which rank among the draws of all chains, against equal numbers. A
        chain that leans to one side is elsewhere than the others; one that bends is wider or narrower.

        ``"energy"``: what energies there are, and how far one draw is from the next one. Where the second curve is
        much narrower (E-BFMI below 0.3) the sampler takes long into the tails, and back.

        Args:
            kind: One of these, or ``"all"`` in one figure; without the energy plot where it says nothing: for random
                walks, for GHMC, with `thin` above 1, and without the statistic ``energy``.
            coordinates: Names or numbers; None: the first 8. ``trace.summary().worst(8)`` are those to look at first.

        Returns:
            A `matplotlib.figure.Figure`, for ``.savefig(path)`` or a notebook.

        Raises:
            ValueError: There are no draws, no such coordinate or kind, or no energies for their plot.
            MissingExtra: matplotlib is not installed.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import Trace
            >>> trace = Trace(np.random.default_rng(0).standard_normal((4, 1000, 20)))
            >>> figure = trace.plot("trace", coordinates=["q[3]", "q[17]"])
            >>> len(figure.axes)
            4
        """
        return _trace_plots.plot(
            self, kind, None if coordinates is None else _trace_checks.numbers_of(coordinates, self.names)
        )

    def to_arviz(self) -> Any:
        """The trace for ArviZ's plots and tables.

        Returns:
            ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` with 1.x: ``q`` (chain, draw, coordinate) in the
            group ``posterior``, with `names` along ``coordinate``, and `sample_stats` in the group of that name. What
            else is known of the run are attributes of both groups (the inverse mass is left out).

        Raises:
            MissingExtra: ArviZ is not installed.

        Example:
            >>> import numpy as np
            >>> from grilly_optim.sampling import Trace
            >>> draws = np.random.default_rng(0).standard_normal((4, 100, 2))
            >>> data = Trace(draws, names=["mu", "tau"], kernel="nuts").to_arviz()
            >>> data["posterior"]["q"].sel(coordinate="tau").shape
            (4, 100)
            >>> data["posterior"].attrs["sampler_name"]
            'nuts'
        """
        attrs: dict[str, Any] = {
            "inference_library": "grilly_optim",
            "inference_library_version": grilly_optim.__version__,
            "sampler_name": self.kernel,
            "seed": self.seed,
            "thin": self.thin,
            "tuning_steps": self.num_warmup,
            "interrupted": int(self.interrupted),  # files of ArviZ's hold no truth values
        }
        if self.stepsize is not None:
            attrs["step_size"] = self.stepsize
        if self.seconds is not None:
            attrs["sampling_time"] = self.seconds
        groups: dict[str, Mapping[str, Array]] = {"posterior": {"q": self.draws}}
        if self.sample_stats:
            groups["sample_stats"] = self.sample_stats
        return from_groups(
            groups,
            dims={"q": ["coordinate"]},
            coords={"coordinate": list(self.names)},
            attrs=attrs,
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save everything in one .npz file, without pickle.

        The file appears whole or not at all, and carries a checksum over every byte. Its arrays can be read with
        `numpy.load` too: ``draws``, ``sample_stats.lp``, ...

        Args:
            path: Of the file; a file that is there is replaced, missing directories are made.

        Raises:
            OSError: The system refused (no space, no permission).

        Example:
            >>> import numpy as np, tempfile
            >>> from grilly_optim.sampling import Trace
            >>> path = tempfile.mkdtemp() + "/trace.npz"
            >>> Trace(np.ones((2, 10, 3)), kernel="nuts", seed=7).save(path)
            >>> Trace.load(path)
            Trace(nuts: 2 chains of 10 draws, 3 coordinates, float64)
            >>> np.load(path)["draws"].shape
            (2, 10, 3)
        """
        arrays = {"draws": self.draws} | {_STATS + name: array for name, array in self.sample_stats.items()}
        arrays |= {name: array for name in ("stepsize", "inv_mass") if (array := getattr(self, name)) is not None}
        facts = ("names", "kernel", "seed", "thin", "num_warmup", "interrupted", "seconds")
        _trace_file.write(_path(path), arrays, {name: getattr(self, name) for name in facts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """What `save` saved, every bit of it.

        Args:
            path: The file.

        Raises:
            ValueError: The file is damaged, or is none that `save` wrote.
            OSError: It is not there or cannot be read.

        Example:
            >>> import numpy as np, tempfile
            >>> from grilly_optim.sampling import Trace
            >>> path = tempfile.mkdtemp() + "/draws.npz"
            >>> np.savez(path, draws=np.ones((2, 10, 3)))
            >>> try:
            ...     Trace.load(path)
            ... except ValueError as error:
            ...     print(str(error).partition("draws.npz' ")[2])
            cannot be loaded: it is cut short, or was not written by Trace.save
        """
        arrays, facts = _trace_file.read(_path(path))
        stats = {name[len(_STATS) :]: arrays.pop(name) for name in list(arrays) if name.startswith(_STATS)}
        return cls(**cast("dict[str, Any]", arrays), sample_stats=stats, **facts)


def _path(path: Any) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a path, got {type(text).__name__}")
    return text
