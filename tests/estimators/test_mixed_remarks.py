"""Where maps differ less than their own variances allow, mixed models say so."""

import json

import numpy as np
import pytest

from ibma_app.core.block import VoxelBlock
from ibma_app.core.inference_facts import Fact, WarningFact
from ibma_app.designs.build import one_sample_design
from ibma_app.estimators import find_estimator

K, V = 12, 4000
STRONG = 3.2905


@pytest.fixture
def fitted():
    """Return ``fitted(test, spread)``: REML of effects whose spread is that times what their variances say."""

    def fit(test, spread, name="reml"):
        rng = np.random.default_rng(11)
        effect = 0.35 + spread * rng.normal(size=(K, V))
        block = VoxelBlock(covered=np.ones((K, V), dtype=bool), effect=effect, variance=np.ones((K, V)))
        estimator, design = find_estimator(name), one_sample_design(K)
        settings = {**estimator.defaults(design), "test": test}
        return estimator.fit(block, design, **settings), estimator.remark, settings

    return fit


def told(fitted, *args, **kwargs):
    estimate, remark, settings = fitted(*args, **kwargs)
    fact, *warnings = remark(estimate, settings)
    assert isinstance(fact, Fact)
    assert all(isinstance(one, WarningFact) for one in warnings)
    return estimate, fact.value, [one.text for one in warnings]


def test_knapp_hartung_halves_and_adhoc_does_not(fitted):
    estimate, share, (text,) = told(fitted, "knha", 0.5)
    below = (estimate.q < K - 1) & (estimate.tau2 == 0)
    assert share == pytest.approx(below.mean(), abs=1e-6)
    assert share > 0.97
    (knha,) = estimate.tests.values()
    (adhoc,) = fitted("adhoc", 0.5)[0].tests.values()
    np.testing.assert_allclose(adhoc.variance, 1 / K, rtol=1e-6)  # that of fixed effects
    narrow = np.median(np.sqrt(knha.variance / adhoc.variance)[below])
    assert 0.45 < narrow < 0.52
    assert f"{narrow:.2f} times (median) those of fixed effects" in text
    found, kept = ((np.abs(one.z) > STRONG).sum() for one in (knha, adhoc))
    assert found > 5 * kept
    assert f"of {found} voxels with p below 0.001, {kept} would keep it" in text


def test_the_default_says_that_it_did_not_shrink(fitted):
    _, share, (text,) = told(fitted, "adhoc", 0.5)
    assert share > 0.97
    assert "Standard errors there are those of fixed effects (with knha they would be 0.4" in text


@pytest.mark.parametrize(("test", "spread"), [("knha", 1.5), ("adhoc", 1.0), ("adhoc", 2.0)])
def test_maps_that_differ_as_they_should_raise_no_warning(fitted, test, spread):
    _, share, warnings = told(fitted, test, spread)
    assert not warnings
    assert share < 0.7


@pytest.mark.parametrize("test", ["t", "z"])
def test_tests_without_that_scale_say_nothing(fitted, test):
    estimate, remark, settings = fitted(test, 0.5)
    assert remark(estimate, settings) == ()


@pytest.mark.parametrize("name", ["dl", "paule-mandel", "hedges"])
def test_other_estimators_of_tau2_say_it_too(fitted, name):
    assert len(told(fitted, "knha", 0.5, name)[2]) == 1


def test_page_terminal_and_sidecar(tmp_path, write_statmap, describe_dataset, cli):
    rng = np.random.default_rng(3)
    root = describe_dataset(tmp_path / "in")
    shape = (8, 8, 8)
    for row in range(10):
        for kind, values in (
            ("effect", 0.4 + 0.5 * rng.normal(size=shape)),
            ("variance", rng.uniform(0.9, 1.1, shape)),
        ):
            about = {"Units": "percent", "SampleSize": 20}
            write_statmap(root, kind, values, study=f"s{row}", space="T1w", contrast="c", metadata=about)
    (tmp_path / "knha.toml").write_text('[estimator.reml]\ntest = "knha"\n')
    words = ("--estimator", "reml", "--inference", "fdr", "--mask", "data", "--config-file", tmp_path / "knha.toml")
    ran = cli(root, tmp_path / "out", "group", *words)
    assert ran.code == 0, ran.stderr
    sidecar = json.loads(next((tmp_path / "out" / "group").glob("*desc-reml_stat-t_statmap.json")).read_text())
    page = next((tmp_path / "out").glob("group_*.html")).read_text().split('id="notes"')[1]
    for text in (ran.stderr, " ".join(sidecar["Warnings"]), page.split("</section>")[0]):
        assert "Q below its degrees of freedom" in text
    assert sidecar["ShareOfVoxelsWithQBelowDof"] > 0.9
    assert "Voxels where Q is below its dof" in page
