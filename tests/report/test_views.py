"""Thresholds in all units, nulls and quantiles of p: the numbers are those of the maps."""

import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

from ibma_app.core.inference_facts import ClusterFacts, RandomFieldFacts, Relabelling, ResamplingFacts, ThresholdFacts
from ibma_app.core.results import NullShape, WrittenFile
from ibma_app.inference import find_inference
from ibma_app.report.figures.null_distributions import draw_null
from ibma_app.report.figures.quantiles import draw_quantiles, find_quantiles
from ibma_app.report.maps import ResultMaps
from ibma_app.report.pages import write_analysis_page
from ibma_app.report.text.thresholds import find_thresholds, smoothness_facts
from ibma_app.report.views import view_inference

NULL = NullShape(2.0, 5.0, (1, 4, 90, 3), 4.5, 2, 100, 4.2)


GAUSS = RandomFieldFacts("z", (1.0, np.inf), True, "", (8.0, 12.0, 16.0), (1.0, 2.0, 30.5, 400.0), 9, 70)


@pytest.fixture
def analysis(tmp_path, group_results):
    """Return ``analysis(**kwargs) -> (results, maps of a test)``.

    Findings take ``z``, their threshold, and ``facts`` by inference.
    """

    def make(test=0, z=None, facts=None, dof=None, **kwargs):
        results = group_results(tmp_path, **kwargs)
        result = results.estimators[0]
        if dof is not None:
            path = result.path("dof")
            image = nib.load(path)
            nib.Nifti1Image(np.full(image.shape, dof, np.float32), image.affine).to_filename(path)
        changes = {name: {"z_threshold": height} for name, height in (z or {}).items()}
        changes |= {name: {"z_threshold": None, "facts": told} for name, told in (facts or {}).items()}
        changed = tuple(replace(finding, **changes.get(finding.inference.name, {})) for finding in result.findings)
        result = replace(result, findings=changed)
        results = replace(results, estimators=(result,))
        return results, ResultMaps(result, results.grid, results.design, results.design.tests[test])

    return make


def test_one_height_in_all_units(analysis):
    relabelling = Relabelling(flips=True, of="maps")
    clusters = ClusterFacts(0.001), ResamplingFacts(99, False, relabelling, 0.01, 33.0, "voxels")
    _, maps = analysis(z={"fdr": 3.1}, facts={"bonferroni": clusters}, dof=11)
    found = find_thresholds(maps)
    fdr, cluster = found.rows
    assert found.statistic_name == "t"
    assert fdr.z == 3.1
    # t with 11 dof of the same tail; the effect at the median standard error; two-sided p
    assert fdr.statistic == pytest.approx(stats.t.isf(stats.norm.sf(3.1), 11), rel=1e-9)
    errors = np.sqrt(maps.values("variance"))
    assert fdr.effect == pytest.approx(fdr.statistic * np.median(errors), rel=1e-9)
    assert fdr.p == pytest.approx(2 * stats.norm.sf(3.1), rel=1e-9)
    assert cluster.z == pytest.approx(stats.norm.isf(0.0005), rel=1e-9)
    assert cluster.p == pytest.approx(0.001, rel=1e-9)
    assert (cluster.what, cluster.score) == ("clusters formed beyond it", "above 33 voxels")


def test_dof_that_vary_have_no_one_t_but_a_median_effect(analysis):
    _, maps = analysis(z={"fdr": 3.1})
    row = find_thresholds(maps).rows[0]
    dof, errors = maps.values("dof"), np.sqrt(maps.values("variance"))
    assert row.statistic is None
    assert row.effect == pytest.approx(np.median(stats.t.isf(stats.norm.sf(3.1), dof) * errors), rel=1e-9)


def test_where_nothing_is_significant_the_height_needed_is_told(analysis):
    facts = {"fdr": (ThresholdFacts(None),), "bonferroni": (ThresholdFacts(1e-5),)}
    _, maps = analysis(facts=facts, significant=False)
    fdr, bonferroni = find_thresholds(maps).rows
    assert (fdr.what, fdr.z) == ("no voxel is significant", None)
    assert bonferroni.what.startswith("needed")
    assert bonferroni.z == pytest.approx(stats.norm.isf(0.5e-5), rel=1e-9)
    assert bonferroni.p == pytest.approx(1e-5, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "dof", "height", "z"),
    [
        ("t", (1.0, 29.0), 6.3, stats.norm.isf(stats.t.sf(6.3, 29))),
        ("F", (2.0, 17.0), 19.5, stats.norm.isf(stats.f.sf(19.5, 2, 17))),
        ("z", (1.0, np.inf), 4.9, 4.9),
    ],
)
def test_heights_of_random_fields_become_z(analysis, kind, dof, height, z):
    field = replace(GAUSS, kind=kind, dof=dof, height=height)
    _, maps = analysis(facts={"fdr": (field,)}, significant=False)
    row = find_thresholds(maps).rows[0]
    assert row.what.startswith("needed")
    assert row.z == pytest.approx(z, rel=1e-9)


def test_a_score_that_is_z_is_a_height(analysis):
    told = ResamplingFacts(99, False, Relabelling(flips=True, of="maps"), 0.01, 4.2)
    results, maps = analysis(facts={"fdr": (told,)}, significant=False)
    for inference, z, score in (("max-stat", 4.2, ""), ("tfce", None, "above 4.2")):
        finding = replace(maps.findings[0], inference=find_inference(inference))
        result = replace(results.estimators[0], findings=(finding,))
        row = find_thresholds(ResultMaps(result, results.grid, results.design, maps.test)).rows[0]
        assert (row.z, row.score) == (z, score)


def test_f_tests_have_no_effect_and_one_tail(analysis):
    _, maps = analysis(test=2, moderator=True, z={"fdr": 3.1}, dof=9)
    row = find_thresholds(maps).rows[0]
    assert row.effect is None
    assert row.p == pytest.approx(stats.norm.sf(3.1), rel=1e-9)


def test_smoothness_is_told_in_mm_voxels_and_resels(analysis):
    _, maps = analysis(facts={"fdr": (GAUSS,)})
    assert dict(smoothness_facts(maps)) == {
        "Smoothness (FWHM)": "8 × 12 × 16 mm",
        "in voxels": "2 × 3 × 4",
        "Voxels per resel": 24.0,
        "Resels: length": 2.0,
        "Resels: surface": 30.5,
        "Resels: volume": 400.0,
    }


def test_quantiles_are_those_of_the_p_map(analysis):
    _, maps = analysis()
    z = maps.values("z")
    log10p = -np.log10(2 * stats.norm.sf(np.abs(z)))
    volume = np.zeros(maps.grid.shape)
    volume[maps.grid.mask] = log10p
    path = maps.path("z").with_name("p_stat-log10p_statmap.nii.gz")
    nib.Nifti1Image(volume, maps.grid.affine).to_filename(path)
    maps.result = replace(maps.result, files=(*maps.result.files, WrittenFile("", "", "log10p", path)))
    found = find_quantiles(maps)
    rank = 17
    point = np.flatnonzero(np.isclose(found.expected, -np.log10((rank - 0.5) / z.size)))[0]
    assert found.observed[point] == pytest.approx(np.sort(log10p)[-rank], rel=1e-6)
    band = stats.beta.ppf([0.975, 0.025], rank, z.size - rank + 1)
    np.testing.assert_allclose([found.low[point], found.high[point]], -np.log10(band), rtol=1e-6)
    assert found.below_05 == np.mean(log10p > -np.log10(0.05))
    assert found.observed[0] == pytest.approx(log10p.max(), rel=1e-6)
    assert f"{100 * found.below_05:.4g} % are below 0.05" in draw_quantiles(found).caption


def test_untested_voxels_are_not_among_the_quantiles(analysis):
    _, maps = analysis()
    z = maps.volume("z")
    z[maps.grid.mask] = np.where(np.arange(maps.grid.n_voxels) % 2, z[maps.grid.mask], 0.0)
    maps.result = replace(maps.result, files=(*maps.result.files, WrittenFile("", "", "log10p", maps.path("z"))))
    assert find_quantiles(maps).n_voxels == maps.grid.n_voxels // 2


def bars_of(d: str) -> np.ndarray:
    return np.array([[float(v) for v in point.split()] for point in d.strip("MZ").split("L")])


def test_bars_are_as_high_as_their_counts(analysis):
    _, maps = analysis()
    finding = replace(maps.findings[0], null=NULL)
    graph = draw_null(finding, two_sided=True)
    corners = bars_of(next(shape.d for shape in graph.shapes if shape.style == "bars"))
    heights = corners[0, 1] - corners[1:-1:2, 1]
    # to a tenth of a pixel
    np.testing.assert_allclose(heights / heights.max(), np.array(NULL.counts) / 90, atol=0.002)
    texts = [label.text for label in graph.labels]
    assert "observed 4.5" in texts
    assert "significant above 4.2" in texts
    assert "2 of 100 relabellings, the unchanged data included" in graph.caption
    assert "corrected p = 0.02. 2 lie beyond the bars." in graph.caption


def test_a_score_far_out_is_drawn_on_a_cut_axis(analysis):
    _, maps = analysis()
    far = draw_null(replace(maps.findings[0], null=replace(NULL, observed=4000.0)), two_sided=True)
    place = {shape.style: shape.d for shape in far.shapes}
    assert float(re.match(r"M(\S+)", place["observed"])[1]) < far.width
    corners = bars_of(place["bars"])
    assert np.ptp(corners[:, 0]) > 0.5 * far.width, "the bars keep their room"


def test_page_shows_them_for_pictured_tests_alone(tmp_path, analysis, save):
    results, maps = analysis(z={"fdr": 3.1}, dof=11, space="T1w")
    result = replace(results.estimators[0], findings=tuple(replace(f, null=NULL) for f in maps.findings))
    page = write_analysis_page(replace(results, estimators=(result,)), "group_x.html", save).read_text(encoding="utf-8")
    row = find_thresholds(maps).rows[0]
    for value in (row.z, row.statistic, row.p, row.effect):
        assert f'<data value="{value}">' in page
    assert page.count("Null distribution of ") == 2
    assert view_inference(maps, pictured=False)["plots"] == []
