"""Traces: what their pictures show."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from grilly_optim.sampling import Trace
from grilly_optim.sampling._trace_plots import COLOURS, SHOWN_CHAINS, density, rank_counts
from tests.traces import at, legend, normal, of_a_run, titles


def test_lines_are_the_draws_and_their_densities() -> None:
    trace = of_a_run(3, 100, 2, names=["mu", "tau"])
    figure = trace.plot("trace")
    assert titles(figure) == ["mu", "tau"]
    left, right = figure.axes[1], figure.axes[3]  # of tau
    assert [line.get_color() for line in left.lines] == list(COLOURS[:3])
    for chain, (line, curve) in enumerate(zip(left.lines, right.lines, strict=True)):
        assert (line.get_ydata() == trace["tau"][chain]).all()
        assert (line.get_xdata() == np.arange(100)).all()
        assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(1, abs=0.01)
        assert curve.get_color() == line.get_color()
    assert legend(figure) == ["chain 0", "chain 1", "chain 2"]
    assert figure.axes[1].get_xlabel() == "draw"


def test_divergent_transitions_are_marked() -> None:
    places = [(0, 3), (1, 7), (2, 7)]
    trace = of_a_run(3, 100, 2, stats={"diverging": at((3, 100), *places)})
    figure = trace.plot("trace", coordinates=[1])
    left, right = figure.axes
    assert list(left.lines[-1].get_xdata()) == [3, 7]
    assert list(right.lines[-1].get_xdata()) == [trace["q[1]"][place] for place in places]
    assert left.lines[-1].get_color() == right.lines[-1].get_color() == "black"
    assert legend(figure)[-1] == "divergent transition (3)"


def test_densities() -> None:
    law = NormalDist()
    x, y = density(np.array([law.inv_cdf((i + 0.5) / 5000) for i in range(5000)]))
    np.testing.assert_allclose(y, [law.pdf(place) for place in x], atol=0.006)
    for values in (np.ones(5), np.concatenate([normal(1000), [1e6]]), np.array([-1e5]), np.array([0.0, 1.0])):
        x, y = density(values)
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)
        assert (y >= 0).all()


def test_ranks_are_counted() -> None:
    q = normal(4, 1000)
    counts, edges, expected = rank_counts(q)
    assert (counts.shape, edges[-1], expected) == ((4, 20), 4000, 50)
    assert (counts.sum(axis=1) == 1000).all()
    assert (counts.sum(axis=0) == 200).all()
    q[2] += 100  # the 1,000 largest of all
    assert (rank_counts(q)[0][2] == [0] * 15 + [200] * 5).all()
    still = rank_counts(np.zeros((2, 100)))[0]
    assert (still == [[0] * 10 + [100] + [0] * 9] * 2).all()  # in the middle, and not one chain below the other


def test_stripes_of_ranks() -> None:
    q = normal(3, 400, 1)
    (axes,) = of_a_run(3, 400, 1, draws=q).plot("rank").axes
    counts = rank_counts(q[:, :, 0])[0]
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, np.minimum(counts / 20, 2).ravel() / 2.2)
    assert [bar.get_y() for bar in axes.patches[::20]] == [0, 1, 2]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "1", "2"]


def test_many_chains_get_a_map_of_ranks_and_a_scale() -> None:
    trace = of_a_run(64, 100, 2)
    figure = trace.plot()
    images = [image for axes in figure.axes for image in axes.images]
    counts, _, expected = rank_counts(trace["q[1]"])
    np.testing.assert_allclose(images[1].get_array(), (counts - expected) / math.sqrt(expected))
    scales = [axes.get_ylabel() for axes in figure.axes]
    assert scales.count("chain") == 3  # of two maps, and the scale of colours
    assert "(count - expected) / √expected" in scales
    assert legend(figure) == ["all chains"]
    (pooled,) = [line for line in figure.axes[2].lines if isinstance(line.get_color(), str)]
    np.testing.assert_allclose(pooled.get_ydata(), density(trace["q[0]"].ravel())[1])


def test_of_very_many_chains_some_are_drawn_and_the_title_says_so() -> None:
    trace = Trace(normal(200, 20, 9))
    figure = trace.plot("trace")
    assert len(figure.axes[0].lines) == SHOWN_CHAINS
    assert (figure.axes[0].lines[-1].get_ydata() == trace.draws[-1, :, 0]).all()
    assert figure.get_suptitle() == "200 chains of 20 draws, 9 coordinates (8 of them shown); lines of 64 chains"
    assert titles(figure) == [f"q[{d}]" for d in range(8)]
    assert titles(trace.plot("rank", coordinates=["q[8]"])) == ["q[8]"]
    assert len(trace.plot("rank").axes) == 9  # eight maps, one scale


def test_energies() -> None:
    trace = of_a_run(4, 500)
    (axes,) = trace.plot("energy").axes
    e = trace.sample_stats["energy"]
    y = density(np.diff(e, axis=1).ravel())[1]
    (line,) = [line for line in axes.lines if len(line.get_xdata())]
    np.testing.assert_allclose(line.get_ydata(), y)
    (area,) = axes.collections
    assert area.get_paths()[0].vertices[:, 1].max() == pytest.approx(density((e - e.mean()).ravel())[1].max())
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    fractions = trace.summary().ebfmi
    assert texts[2:] == [f"E-BFMI, chain {c}: {fractions[c]:.2f}" for c in range(4)]
    many = of_a_run(30, 100)
    texts = [text.get_text() for text in many.plot("energy").axes[0].get_legend().get_texts()]
    fractions = many.summary().ebfmi
    assert texts[2] == f"E-BFMI, lowest: {fractions.min():.2f} (chain {fractions.argmin()})"
    assert texts[3] == f"E-BFMI, median: {np.median(fractions):.2f}"


def test_all_in_one_has_all() -> None:
    figure = of_a_run(4, 100, 2).plot()
    assert titles(figure) == ["q[0]", "q[1]", "energy"]
    assert len(figure.axes) == 7


@pytest.mark.parametrize("chains", [1, 4, 64])
@pytest.mark.parametrize("kind", ["all", "trace", "rank", "energy"])
def test_nothing_overlaps_and_everything_is_inside(chains: int, kind: Any) -> None:
    trace = of_a_run(chains, 50, 3, stats={"diverging": at((chains, 50), (0, 1))})
    figure = trace.plot(kind)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [one.get_window_extent() for one in figure.legends]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:i]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 1 or height <= 1  # of a pixel


def test_pictures_can_be_saved(tmp_path: Path) -> None:
    of_a_run(2, 20).plot().savefig(tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.subprocess
def test_pictures_need_no_pyplot() -> None:
    code = (
        "import sys, numpy as np; from grilly_optim.sampling import Trace; Trace(np.ones((2, 9, 1))).plot(); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_kinds_of_pictures() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'all', 'trace', 'rank', 'energy', got 'pair'"):
        of_a_run().plot("pair")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"energy plots take 4 draws, .* got 3 draws"):
        of_a_run(2, 3).plot("energy")
