"""Means of cells over their maps, and maps against a covariate: what is drawn is where the numbers say."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ibma_app.core.design import Cell, Covariate, Design, Test
from ibma_app.core.results import CellAtPeak, Combined, MapAtPeak, PeakEvidence
from ibma_app.report.figures.at_peaks.cells import draw_cells, draw_scatter
from ibma_app.report.figures.at_peaks.forest import draw_forest

VALUES = (0.2, 1.0, -0.4, 2.0, 1.5, 0.8)
AGE = np.array([20.0, 30, 40, 25, 35, 50])
DESIGN = Design(
    np.column_stack([np.ones(6), AGE - AGE.mean(), np.arange(6) % 2]), ("intercept", "center(age)", "group"),
    (Test("older", np.array([[0.0, 1.0, 0.0]])),), formula="1 + center(age) + C(group)",
    cells=(Cell("group p", np.array([1.0, 0, 0]), (0, 2, 4)), Cell("group q", np.array([1.0, 0, 1]), (1, 3, 5))),
    covariates=(Covariate("age", AGE, (1,)),), groups=("group p", "group q") * 3,
)  # fmt: skip
NAMES = tuple("abcdef")


def make_peak() -> PeakEvidence:
    cells = (
        CellAtPeak("group p", Combined(2.0, 0.4, 0.04, 4.0), (0, 2, 4)),
        CellAtPeak("group q", Combined(5.0, 1.3, 0.04, 4.0), (1, 3, 5)),
    )
    maps = tuple(MapAtPeak(row, value) for row, value in enumerate(VALUES))
    return PeakEvidence("older", "largest z", (0, 0, 0), (0.0, 0.0, 0.0), Combined(1.0, 0.03, 0.01, 3.0), maps,
                        cells=cells)  # fmt: skip


def pixels(plot, numbers_of):
    """Return the line from values to pixels along x, by the axis's numbers."""
    ticks = [label for label in plot.labels if label.anchor == "middle" and re.fullmatch(r"[−\d.]+", label.text)]
    ticks = [tick for tick in ticks if numbers_of(tick)]
    return np.polyfit([float(tick.text.replace("−", "-")) for tick in ticks], [tick.x for tick in ticks], 1)


def test_means_and_maps_of_cells():
    plot = draw_cells(make_peak(), NAMES, "effect")
    at = pixels(plot, lambda _: True)
    dots = [(float(shape.d[1:].split()[0]), shape.title) for shape in plot.shapes if shape.style == "dot small"]
    assert [name for _, name in dots] == list("acebdf")
    for x, name in dots:
        assert x == pytest.approx(np.polyval(at, VALUES[NAMES.index(name)]), abs=0.2)
    bars = [re.findall(r"[ML]([-\d.]+) ", shape.d) for shape in plot.shapes if shape.style == "interval"]
    half = stats.t.ppf(0.975, 4) * 0.2
    for bar, mean in zip(bars, (0.4, 1.3), strict=True):
        expected = [np.polyval(at, mean - half), np.polyval(at, mean + half)]
        np.testing.assert_allclose([float(x) for x in bar], expected, atol=0.2)
    texts = [label.text for label in plot.labels]
    assert "0.40 [−0.16, 0.96]" in texts
    assert texts.count("3") == 2
    assert draw_cells(replace(make_peak(), cells=()), NAMES, "effect") is None


def test_maps_against_the_tested_covariate():
    plot = draw_scatter(make_peak(), NAMES, "effect", DESIGN, DESIGN.tests[0])
    at = pixels(plot, lambda tick: tick.y > 300)
    for style, rows in (("dot", (0, 2, 4)), ("dot odd", (1, 3, 5))):
        found = {shape.title: float(shape.d[1:].split()[0]) for shape in plot.shapes if shape.style == style}
        for row in rows:
            assert found[NAMES[row]] == pytest.approx(np.polyval(at, AGE[row]), abs=0.2)
    assert {"group p", "group q", "age"} <= {label.text for label in plot.labels}
    (slope,) = [shape for shape in plot.shapes if shape.style == "whole"]
    _, y1, _, y2 = map(float, re.findall(r"[-\d.]+", slope.d))
    heights = [label for label in plot.labels if label.anchor == "end" and re.fullmatch(r"[−\d.]+", label.text)]
    up = np.polyfit([label.y - 4 for label in heights], [float(one.text.replace("−", "-")) for one in heights], 1)
    rise = np.polyval(up, y2) - np.polyval(up, y1)
    assert rise / (AGE.max() - AGE.min()) == pytest.approx(0.03, rel=0.02)
    assert (np.polyval(up, y1) + np.polyval(up, y2)) / 2 == pytest.approx(
        np.mean(VALUES) + 0.03 * ((AGE.min() + AGE.max()) / 2 - AGE.mean()), abs=0.02
    )
    of_group = Test("group", np.array([[0.0, 0.0, 1.0]]))
    assert draw_scatter(make_peak(), NAMES, "effect", DESIGN, of_group) is None
    crossed = replace(DESIGN, covariates=(Covariate("age", AGE, (1, 2)),))  # an interaction: no one slope
    plot = draw_scatter(make_peak(), NAMES, "effect", crossed, DESIGN.tests[0])
    assert not [shape for shape in plot.shapes if shape.style == "whole"]


def test_maps_of_one_participant_stand_together():
    units = np.array([0, 1, 0, 1, 2, 2])
    plot = draw_forest(make_peak(), NAMES, "effect", one_mean=False, units=units)
    assert [label.text for label in plot.labels if label.style == "name"] == list("acbdef")
    assert len([shape for shape in plot.shapes if shape.style == "apart"]) == 2
    plain = draw_forest(make_peak(), NAMES, "effect", one_mean=False)
    assert [label.text for label in plain.labels if label.style == "name"] == list("abcdef")
