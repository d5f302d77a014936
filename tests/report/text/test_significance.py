"""What inferences tell: legible on the page, true in the methods text, warnings at the top."""

import re
from dataclasses import replace

import numpy as np
import pytest

from ibma_app.core.estimate import Field, Null, Smoothness
from ibma_app.core.inference_facts import (
    ClusterFacts,
    ExtentFacts,
    Fact,
    LevelFacts,
    RandomFieldFacts,
    Relabelling,
    ResamplingFacts,
    WarningFact,
)
from ibma_app.core.methods import InferenceSettings
from ibma_app.core.results import Finding
from ibma_app.estimators import find_estimator
from ibma_app.inference import INFERENCES, find_inference
from ibma_app.report.inputs import short_labels
from ibma_app.report.text.facts import describe_control, describe_facts, describe_settings
from ibma_app.report.text.methods_section import methods_text
from ibma_app.report.text.notes import notes_of
from ibma_app.report.text.significance import describe_relabelling

RESAMPLED = ("max-stat", "cluster-size", "cluster-mass", "tfce")
SEED = 7
FLIPS = Relabelling(flips=True, of="maps")


@pytest.fixture(scope="module")
def run(grid_maker):
    """Really infer on a small map, and give the finding."""
    grid = grid_maker((8, 8, 8), 3.0)
    z = np.random.default_rng(SEED).normal(size=grid.n_voxels)
    z[:40] += 5.0
    t = Field(
        z=z,
        tail="two-sided",
        estimable=np.ones(z.size, dtype=bool),
        grid=grid,
        log10_p=np.abs(z),  # any will do: only words are looked at
        statistic=z,
        statistic_name="t",
        dof=(1.0, 19.0),
        smoothness=Smoothness((2.0, 2.5, 3.0), grid.n_voxels, 20),
    )

    def infer(
        name, test="", resamples=200, *, exhaustive=False, relabelling=FLIPS, cluster_p=0.001, kinds=None
    ) -> Finding:
        maxima = np.sort(np.random.default_rng(1).gamma(2.0, 3.0, resamples))
        null = Null(
            maxima=dict.fromkeys(RESAMPLED, maxima),
            observed={key: np.abs(z) for key in RESAMPLED},
            exhaustive=exhaustive,
            relabelling=relabelling,
            seed=None if exhaustive else 11,
            kinds=kinds or {},
        )
        inference = find_inference(name)
        found = inference.infer(t, null, InferenceSettings(cluster_p=cluster_p))
        count = int(found.significant.sum())
        return Finding(test, inference, count, found.z_threshold, found.facts)

    return infer


def with_findings(results, *findings):
    return replace(results, estimators=tuple(replace(one, findings=tuple(findings)) for one in results.estimators))


def words(results):
    return " ".join(methods_text(results, "1").paragraphs)


@pytest.mark.parametrize("name", INFERENCES)
def test_every_fact_is_told_in_words(run, name):
    facts = run(name).facts
    told = describe_facts(facts)
    for label, text in told:
        assert not re.search(r"[a-z][A-Z]{1}[a-z]", label), label  # no NameOfAKey
        assert label[0].isupper() or label[0] == "|"
        assert text not in ("True", "False", "None")
        assert "[" not in text
    assert describe_control(facts)
    assert len({label for label, _ in told}) == len(told)


def test_facts_with_units():
    told = dict(
        describe_facts(
            [
                RandomFieldFacts(
                    "z", (1.0, np.inf), two_sided=True, dof_of="", fwhm=(14.21, 14.24, 14.505),
                    resels=(1.0, 33.4, 363.8, 1274.68), n_maps=9, n_voxels=70,
                ),
                ResamplingFacts(5000, False, FLIPS, 2e-4, 58.0, "voxels", 0),
                ClusterFacts(0.001, 3.2905),
                Fact("TrueDiscoveries", 707, "Truly active", "at least {} voxels"),
                Fact("OfTomorrow", True),
                Fact("OfYesterday", None),
                ExtentFacts(3.5, 1.25, 10.0, None),
                WarningFact("look", is_note=True),
            ]
        )
    )  # fmt: skip
    assert told == {
        "Null": "Gaussian field of z, both signs",
        "FWHM": "14.2 × 14.2 × 14.5 mm",
        "Resels of the volume": "1275",
        "Smoothness from": "standardised residuals of 9 map(s), forward differences at 70 voxels",
        "Relabellings": "5,000, drawn at random, seed 0",
        "Relabelled by": "sign flips",
        "Null hypothesis": "effects (residuals, in designs) are independent and symmetric about zero",
        "Smallest p that can be reached": "0.0002",
        "Needed to be significant": "above 58 voxels",
        "Clusters formed at p": "0.001 (|z| > 3.291)",
        "Truly active": "at least 707 voxels",
        "Of tomorrow": "yes",
        "Cluster-forming height": "3.5",
        "Clusters expected by chance": "1.25",
        "Voxels expected in each": "10",
    }
    exhaustive = dict(describe_facts([ResamplingFacts(256, True, FLIPS, 1 / 128, None)]))
    assert exhaustive["Relabellings"] == "256, all distinct ones"
    assert "Needed to be significant" not in exhaustive


def test_what_is_kept_below_which_level():
    assert describe_control([LevelFacts(0.05, "false discovery rate", 9)]) == "false discovery rate at most 0.05"
    bound = LevelFacts(0.1, "true-discovery proportion", 9, is_bound=True)
    assert describe_control([Fact("One", 1), bound]) == "true-discovery proportion, confidence 90 %"
    assert describe_control([Fact("One", 1)]) == ""


def test_methods_tell_random_fields_and_clusters(tmp_path, group_results, run):
    results = with_findings(group_results(tmp_path), run("rft-voxel"), run("rft-cluster"), run("cluster-mass"))
    text = words(results)
    assert "t field with 19 degrees of freedom, both signs" in text
    assert "was 6 × 7.5 × 9 mm FWHM" in text  # 2, 2.5 and 3 voxels of 3 mm
    title = find_inference("rft-cluster").title
    formed = "clusters were formed of voxels of one sign at uncorrected p < 0.001 (|z| > 3.291)"
    assert f"For {title}, {formed}" in text
    assert "with 18 neighbours" in text
    assert "with 26 neighbours; their mass is the sum of |z| above that threshold" in text
    assert "200 were used, the unchanged data and others drawn at random with seed 11" in text
    assert "the smallest that can be reached is 0.005" in text


def test_methods_tell_tfce_ari_and_exhaustive_resampling(tmp_path, group_results, run):
    findings = run("tfce", resamples=64, exhaustive=True), run("ari")
    text = words(with_findings(group_results(tmp_path), *findings))
    assert "all 64 distinct ones were used" in text
    assert "seed" not in text
    assert "extent exponent E = 0.5, height exponent H = 2 and 6 neighbours" in text
    assert "confidence 95 %" in text
    assert "symmetric about zero, not" not in text  # reml keeps its question


def test_methods_tell_that_surfaces_and_volumes_were_ranked_apart(tmp_path, group_results, run):
    results = with_findings(group_results(tmp_path), run("max-stat"), run("tfce", kinds={"tfce": 2}))
    text = words(results)
    assert "for threshold-free cluster enhancement by resampling the largest score of surfaces" in text
    assert "the smallest that can be reached is 0.005. " in text  # of 200, in one null
    assert "whatever the other of the two holds is 0.01." in text
    assert text.count("a corrected p is the share") == 1
    assert "ranked" not in words(with_findings(results, run("tfce")))


def test_schemes_that_differ_are_told_for_each_test(tmp_path, group_results, run):
    findings = (
        run("max-stat", "intercept", relabelling=Relabelling(flips=True, of="residuals")),
        run("max-stat", "age", relabelling=Relabelling(flips=False, of="residuals", within=True)),
    )
    text = words(with_findings(group_results(tmp_path, moderator=True), *findings))
    assert "For the test of intercept, relabellings were made by flipping the signs of the residuals" in text
    assert (
        "For the test of age, relabellings were made by permuting the residuals under the null (Freedman and Lane)"
        in text
    )
    assert "Freedman and Lane), within blocks only" in text
    assert text.count("a corrected p is the share") == 1


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (
            "positive",
            ("(one-sided, positive effects)", "Clusters were formed of voxels at uncorrected p < 0.001 (z > "),
        ),
        (
            "negative",
            ("(one-sided, negative effects)", "Clusters were formed of voxels at uncorrected p < 0.001 (z < −"),
        ),
    ],
)
def test_one_sided_tests_are_told_as_such(tmp_path, group_results, run, tail, said):
    results = with_findings(group_results(tmp_path), run("cluster-mass"))
    tests = tuple(replace(test, tail=tail) for test in results.design.tests)
    text = words(replace(results, design=replace(results.design, tests=tests)))
    assert all(phrase in text for phrase in (*said, f"one-sided, for a {tail} mean"))
    assert "F tests" not in text  # there are none
    assert "t and F" not in text
    assert "--" not in text
    assert "[" not in text.partition("]")[2]  # no names of the menu


def test_levels_that_differ_are_told_apart(tmp_path, group_results, run):
    results = with_findings(group_results(tmp_path), run("fdr"), run("uncorrected"))
    text = words(results)
    assert "alpha = 0.05 by false discovery rate" in text
    assert "at alpha = 0.001 by uncorrected p values" in text


def test_flipping_changes_the_question_of_combined_evidence(tmp_path, group_results, run):
    results = with_findings(group_results(tmp_path), run("max-stat"))
    part = results.estimators[0]
    for name in ("stouffer", "fisher"):
        renamed = replace(results, estimators=(replace(part, estimator=find_estimator(name)),))
        asks = f"{find_estimator(name).title} asks whether the z values of the maps are symmetric about zero"
        assert f"With sign flips, {asks}" in words(renamed)


@pytest.mark.parametrize(
    ("relabelling", "name", "words"),
    [
        (FLIPS, "sign flips", "flipping the signs of the maps"),
        (Relabelling(flips=True, of="regressors"), "sign flips", "tested regressors' rows"),
        (Relabelling(flips=True, of="residuals"), "sign flips of residuals", "signs of the residuals"),
        (Relabelling(flips=True, of="maps", whole="blocks"), "sign flips of whole blocks", "whole exchangeability"),
        (Relabelling(flips=False, of="regressors"), "permutations of the tested regressors", "stayed together"),
        (Relabelling(False, "residuals", within=True), "permutations (Freedman-Lane) within blocks", "s only"),
        (
            Relabelling(False, "residuals", "clusters", within=True),
            "permutations (Freedman-Lane) of whole clusters within blocks",
            "all maps of a participant (or cluster) at a time, within blocks only",
        ),
    ],
)
def test_relabellings_in_words(relabelling, name, words):
    assert relabelling.name == name
    assert words in describe_relabelling(relabelling)


def test_warnings_of_inferences_are_at_the_top(tmp_path, group_results, run):
    few = {"resamples": 8, "exhaustive": True}
    findings = [run(name, test, **few) for test in ("intercept", "age") for name in ("max-stat", "tfce")]
    findings.append(run("rft-cluster", "age", cluster_p=0.01))
    notes = notes_of(with_findings(group_results(tmp_path, moderator=True), *findings))
    sources = {note.source: note.text for note in notes}
    assert "nothing can be significant" in sources["reml, max-stat, tfce, test intercept, age"]
    assert "too many clusters" in sources["reml, rft-cluster, test age"]


def test_settings_in_words():
    told = dict(describe_settings(find_estimator("reml"), {"test": "knha", "tau2_ci": "no", "depth": "3"}))
    assert told == {"Test": "Knapp-Hartung", "Depth": "3"}
    assert dict(describe_settings(find_estimator("reml"), {"tau2_ci": "yes"})) == {
        "95 % interval of tau²": "by Q profile"
    }


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["sub-01_task-x", "sub-02_task-x"], ["sub-01", "sub-02"]),
        (["sub-01_run-1", "sub-01_run-2", "sub-02_run-1"], ["sub-01_run-1", "sub-01_run-2", "sub-02_run-1"]),
        (["a_b", "b_a"], ["a_b", "b_a"]),  # nothing would be left
        (["sub-01_task-x"], ["sub-01_task-x"]),
    ],
)
def test_labels_lose_what_all_share(labels, short):
    assert short_labels(labels) == short


def test_every_kind_of_fact_has_its_words():
    import typing

    from ibma_app.core.inference_facts import Facts
    from ibma_app.report.text.facts import DESCRIBED

    assert set(DESCRIBED) == set(typing.get_args(Facts))


@pytest.mark.parametrize(("tail", "height"), [("two-sided", "|z| > "), ("positive", "z > "), ("negative", "z < −")])
def test_the_forming_height_is_that_of_the_tail(tail, height):
    """z of an F test (its tail is positive) has no direction, and no absolute value."""
    ((_, words),) = describe_facts([ClusterFacts(0.001, 3.09, tail=tail)])
    assert words == f"0.001 ({height}3.09)"
