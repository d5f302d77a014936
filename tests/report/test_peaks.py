"""Forest and funnel plots, and how estimators agree: the page's numbers against the evidence and the maps."""

import re
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from scipy import stats

from ibma_app.core.results import Combined, MapAtPeak, PeakEvidence
from ibma_app.report.evidence import view_evidence
from ibma_app.report.figures.agreement import view_agreement
from ibma_app.report.figures.at_peaks.forest import DRAWN_ALL, draw_forest, interval
from ibma_app.report.figures.at_peaks.funnel import draw_funnel
from ibma_app.report.figures.plot import Axis, span_axis, writer
from ibma_app.report.html import environment
from ibma_app.report.pages import write_analysis_page


def make_peak(n=6, *, effects=True, variances=True, fitted=False, test="intercept", seed=0) -> PeakEvidence:
    rng = np.random.default_rng(seed)
    values, sizes = rng.normal(0.5, 0.4, n), rng.gamma(2, 0.05, n)
    maps = tuple(
        MapAtPeak(
            row=row,
            value=float(values[row]),
            variance=float(sizes[row]) if variances else None,
            weight=100.0 / n if variances else None,
            fitted=float(values[row] / 2) if fitted else None,
            without=Combined(
                z=4.0 + values[row],
                effect=0.5 + values[row] / n if effects else None,
                variance=0.01 if effects else None,
                dof=n - 2.0,
            ),
        )
        for row in range(n)
    )
    return PeakEvidence(
        test=test,
        name="largest z, cluster 1 (fdr)",
        voxel=(4, 4, 4),
        xyz=(0.0, -4.0, 2.0),
        combined=Combined(5.0, 0.5 if effects else None, 0.0081 if effects else None, n - 1.0),
        maps=maps,
        tau2=0.09 if variances else None,
        q=12.5 if variances else None,
        q_dof=n - 1 if variances else None,
        q_log10p=1.5 if variances else None,
        i2=61.25 if variances else None,
    )


def with_peaks(results, *peaks):
    first, *others = results.estimators
    return replace(results, estimators=(replace(first, peaks=tuple(peaks)), *others))


def part_of(results) -> str:
    """The page's part on the peaks of the first estimator's first test."""
    result, test = results.estimators[0], results.design.tests[0]
    view = view_evidence(result, results, test, "percent")
    template = '{% import "peaks.html.j2" as peaks %}{{ peaks.evidence(view) }}'
    return environment().from_string(template).render(view=view)


def values_in(text: str) -> list[float]:
    return [float(value) for value in re.findall(r'<data value="([^"]+)"', text)]


@pytest.mark.parametrize("n", [6, 30])
def test_numbers_of_a_peak_are_on_the_page(tmp_path, group_results, n):
    peak = make_peak(n)
    results = with_peaks(group_results(tmp_path, n_maps=n), peak)
    text = part_of(results)
    shown = values_in(text)
    half = stats.t.ppf(0.975, n - 1) * 0.09
    for number in (0.5, 5.0, n - 1.0, 0.09, 0.3, 61.25, 12.5, 0.5 - half, 0.5 + half):
        assert np.isclose(shown, number, rtol=1e-12).any(), number
    assert "p = 0.032" in text, "10 to the -1.5"
    for row in peak.maps:
        half = stats.norm.ppf(0.975) * np.sqrt(row.variance)
        for number in (row.value, row.value - half, row.value + half, row.weight, row.without.effect, row.without.z):
            assert np.isclose(shown, number, rtol=1e-12).any()
    most = max(peak.maps, key=lambda row: abs(row.without.effect - 0.5))
    name = f"study-{most.row + 1:02d}"
    assert f"Leaving out {name} changes most" in text
    assert text.count('class="picture plot forest"') == text.count('class="picture plot funnel"') == 1
    assert "overestimates, and how much maps differ there (τ², I², Q) is underestimated, and no interval allows" in text


def test_squares_and_diamond_are_where_the_numbers_are():
    peak, names = make_peak(5), [f"s{row}" for row in range(5)]
    plot = draw_forest(peak, names, "effect (percent)", one_mean=True)
    ticks = [label for label in plot.labels if label.anchor == "middle" and re.fullmatch(r"[−\d.]+", label.text)]
    row_of_ticks = [label for label in ticks if label.x < plot.width * 0.6]
    at = np.polyfit([float(t.text.replace("−", "-")) for t in row_of_ticks], [t.x for t in row_of_ticks], 1)
    squares = [shape.d for shape in plot.shapes if shape.style == "mark"][::2]  # of each row: map, then without it
    for d, row in zip(squares, peak.maps, strict=True):
        x, size = (float(number) for number in re.match(r"M([-\d.]+) [-\d.]+h([\d.]+)", d).groups())
        # coordinates are written to a tenth of a pixel
        assert x + size / 2 == pytest.approx(np.polyval(at, row.value), abs=0.3)
    (diamond,) = [shape.d for shape in plot.shapes if shape.style == "combined"]
    corners = [float(x) for x in re.findall(r"[ML]([-\d.]+) ", diamond)]
    half = stats.t.ppf(0.975, 4) * 0.09
    assert min(corners) == pytest.approx(np.polyval(at, 0.5 - half), abs=0.3)
    assert max(corners) == pytest.approx(np.polyval(at, 0.5 + half), abs=0.3)


def test_areas_of_squares_tell_weights():
    peak = make_peak(3)
    maps = tuple(replace(row, weight=weight) for row, weight in zip(peak.maps, (10.0, 40.0, 50.0), strict=True))
    plot = draw_forest(replace(peak, maps=maps), ["a", "b", "c"], "effect", one_mean=True)
    sizes = [float(re.search(r"h([\d.]+)", s.d).group(1)) for s in plot.shapes if s.style == "mark"][::2]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


def test_interval_that_dwarfs_all_is_cut_with_an_arrow():
    peak = make_peak(4)
    maps = (replace(peak.maps[0], variance=1e6), *peak.maps[1:])
    plot = draw_forest(replace(peak, maps=maps), list("abcd"), "effect", one_mean=True)
    whiskers = [shape.d for shape in plot.shapes if shape.style == "whisker"]
    assert whiskers[0].count("M") == 3, "a line and two arrowheads"
    assert all(0 <= float(x) <= plot.width for d in whiskers for x in re.findall(r"[ML]([-\d.]+) ", d))


def test_design_with_moderator_shows_predictions_and_residuals(tmp_path, group_results):
    results = group_results(tmp_path, moderator=True)
    test = results.design.tests[1]
    results = with_peaks(results, make_peak(test="age", fitted=True))
    view = view_evidence(results.estimators[0], results, test, "percent")
    (one,) = view.peaks
    styles = [shape.style for shape in one.forest.shapes]
    assert styles.count("fitted") == 6
    assert "combined" not in styles, "a slope is no mean: it is not drawn on the axis of the maps"
    assert "residual" in view.funnel_words
    assert any(label.text == "residual effect (percent)" for label in one.funnel.labels)


def test_effects_alone_have_no_funnel_and_no_weights(tmp_path, group_results):
    results = with_peaks(group_results(tmp_path, estimators=("stouffer-rfx",)),
                         make_peak(effects=False, variances=False))  # fmt: skip
    view = view_evidence(results.estimators[0], results, results.design.tests[0], "percent")
    assert view.peaks[0].funnel is None
    assert "reads z alone" in view.no_funnel
    assert "no map has a weight" in view.forest_words
    assert not [shape for shape in view.peaks[0].forest.shapes if shape.style in ("whisker", "combined")]


def test_of_many_maps_the_page_draws_few(tmp_path, group_results):
    peak = make_peak(2000)
    left = {row.row for row in sorted(peak.maps, key=lambda row: -abs(row.without.effect - 0.5))[:40]}
    maps = tuple(row if row.row in left else replace(row, without=None) for row in peak.maps)
    results = with_peaks(group_results(tmp_path, n_maps=2000), replace(peak, maps=maps))
    text = part_of(results)
    assert len(text) < 150_000
    assert "Of 2,000 maps the 40 are drawn" in text
    (body,) = re.findall(r'class="sortable".*?<tbody>(.*?)</tbody>', text, re.DOTALL)
    assert body.count("<tr>") == 40 < DRAWN_ALL
    (funnel,) = re.findall(r'class="dot small" d="([^"]+)"', text)
    assert funnel.count("M") == 2000, "the funnel has them all"


def test_labels_are_escaped(tmp_path, group_results):
    results = group_results(tmp_path)
    survey = tuple(replace(row, label=f"<script>{row.label}") for row in results.survey)
    results = with_peaks(replace(results, survey=survey), make_peak())
    text = part_of(results)
    assert "<script" not in text
    assert "&lt;script&gt;study-01" in text


def test_page_has_the_peaks_or_no_section(tmp_path, group_results, save):
    results = group_results(tmp_path)
    text = write_analysis_page(results, "group_x.html", save).read_text(encoding="utf-8")
    assert "The maps at the peaks" not in text
    assert "Agreement of the estimators" not in text
    results = with_peaks(results, make_peak())
    text = write_analysis_page(results, "group_x.html", save).read_text(encoding="utf-8")
    assert part_of(results).strip() in text


def test_a_peaks_files_have_its_number(tmp_path, group_results, save):
    """The second peak's funnel plot is called the second's, though the first has none."""
    few = make_peak(2)
    results = with_peaks(group_results(tmp_path, n_maps=6), replace(few, name="first"), make_peak())
    write_analysis_page(results, "group_faces.html", save)
    names = sorted(path.name.partition("_peak-")[2] for path in (tmp_path / "figures").glob("*_peak-*"))
    assert names == ["1_forest.svg", "2_forest.svg", "2_funnel.svg"]


def test_funnel_of_two_maps_is_not_drawn():
    assert draw_funnel(make_peak(2), ("a", "b"), "effect") is None


def test_agreement_is_numpys(tmp_path, group_results, save):
    results = group_results(tmp_path, estimators=("reml", "stouffer-rfx"))
    small = results.grid.mask.copy()
    small[:2] = False  # the second estimator saw fewer voxels
    first, second = results.estimators
    second = replace(second, grid=replace(results.grid, mask=small), survey=results.survey)
    results = replace(results, estimators=(first, second))

    def read(result, kind, inference=""):
        return np.asarray(nibabel.load(result.path(kind, inference=inference)).dataobj, dtype=float)[small]

    one, two = (read(result, "z") for result in (first, second))
    (agreement,) = view_agreement(results, 4)
    (pair,) = agreement.pairs
    assert (pair.first, pair.second, pair.n_voxels) == ("reml", "stouffer-rfx", int(small.sum()))
    assert pair.correlation == pytest.approx(stats.pearsonr(one, two).statistic, rel=1e-12)
    for overlap in pair.overlaps:
        a, b = (read(result, "mask", overlap.inference) > 0 for result in (first, second))
        assert (overlap.both, overlap.first, overlap.second) == ((a & b).sum(), (a & ~b).sum(), (b & ~a).sum())
        assert overlap.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), rel=1e-12)
    text = write_analysis_page(results, "group_x.html", save).read_text(encoding="utf-8")
    part = text.split('<section id="agreement"')[1].split("</section>")[0]
    assert repr(pair.correlation) in part
    assert all(repr(overlap.dice) in part for overlap in pair.overlaps)


def test_writer_and_axis():
    assert [writer([1.234, -0.5])(value) for value in (1.234, -0.5, -0.001)] == ["1.23", "−0.50", "0.00"]
    assert writer([123456.0])(-123456.0) == "−123,456"
    assert writer([1.5e-7])(1.5e-7) == "1.50e−07"
    axis = span_axis([-0.93, 1.02], 0, 100)
    assert axis.ticks(6) == pytest.approx([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert axis.at(axis.low) == 0
    assert Axis(0, 1, 0, 10).clip(7) == 10
    assert span_axis([2.0, 2.0], 0, 1).holds(2.0)
    assert interval(1.0, None) is None


def test_absurd_variance_leaves_the_others_readable():
    peak = make_peak(8)
    maps = (replace(peak.maps[0], variance=1e3), *peak.maps[1:])
    absurd = replace(peak, maps=maps)
    names = tuple("abcdefgh")
    written = [label.text for label in draw_forest(absurd, names, "effect", one_mean=True).labels]
    assert "0.50 [0.29, 0.71]" in written, "digits are those that the others need"
    funnel = draw_funnel(absurd, names, "effect")
    assert "1 map beyond, on the lower edge" in [label.text for label in funnel.labels]
