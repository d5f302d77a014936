"""Methods text says what was run, and nothing else."""

from dataclasses import replace

import pytest

from ibma_app.report.methods import (
    DEFAULT_COVERAGE,
    escape_markdown,
    methods_markdown,
    methods_text,
    readme_intro,
    references_markdown,
)


def words(results, version="1.0"):
    return " ".join(methods_text(results, version).paragraphs)


def with_estimator(results, **changes):
    return replace(results, estimators=(replace(results.estimators[0], **changes),))


def test_mixed_model_names_maps_test_and_inference(tmp_path, group_results):
    text = words(group_results(tmp_path))
    for phrase in (
        "effect and variance", "6 studies", "percent", "1/(variance + tau2)", "Knapp and Hartung",
        "75 %", "alpha = 0.05", "fdr", "ibma-app 1.0", "intercept alone",
    ):  # fmt: skip
        assert phrase in text
    assert "automatically" not in text


@pytest.mark.parametrize(
    ("setting", "said", "unsaid"),
    [("z", "normal distribution", "Knapp"), ("t", "Wald", "Knapp"), ("adhoc", "at least one", "normal")],
)
def test_settings_change_the_words(tmp_path, group_results, setting, said, unsaid):
    text = words(with_estimator(group_results(tmp_path), settings={"test": setting}))
    assert said in text
    assert unsaid not in text
    assert "Settings:" not in text  # the words tell it


def test_settings_without_words_are_listed(tmp_path, group_results):
    text = words(with_estimator(group_results(tmp_path), settings={"test": "knha", "tau2_ci": "yes", "depth": "3"}))
    assert "Settings: depth = 3." in text
    assert "95 % interval of tau2 is by the Q profile" in text


def test_reason_of_auto_is_told(tmp_path, group_results):
    text = words(with_estimator(group_results(tmp_path), reason="auto: every map comes with both"))
    assert "chosen automatically (--estimator auto): every map comes with both." in text


def test_design_and_tests_are_written_out(tmp_path, group_results):
    text = words(group_results(tmp_path, moderator=True))
    assert "'1 + age' (6 rows, 2 columns: Intercept, age)" in text
    assert "any (F, upper): Intercept, age" in text


def test_z_family_names_its_question(tmp_path, group_results):
    text = words(group_results(tmp_path, estimators=("stouffer-rfx",)))
    assert "consistent over studies" in text
    assert "Units of the effects played no part" in text
    assert "tau2" not in text


def test_participant_words(tmp_path, participant_results):
    results = participant_results(tmp_path)
    text = words(results)
    assert "2 sets of maps (effect) were combined over run" in text
    assert "sum of the dof" in text
    assert "at least one map covers" in text
    assert "alpha" not in text
    equal = words(with_estimator(results, settings={"weights": "equal"}))
    assert "plain mean" in equal
    assert "inverse of their sampling variances" not in equal


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_coverage": None}, "fewer than 75 %"),
        ({"min_coverage": 0.5}, "fewer than 50 %"),
        ({"min_coverage": 1.0}, "not all maps cover"),
        ({"mask": "auto"}, "nilearn's MNI152 brain mask"),
        ({"mask": "/somewhere/grey.nii.gz"}, "the mask grey.nii.gz"),
        ({"grid": "mni2mm"}, "MNI152 2 mm grid"),
        ({"smoothing": 6.0}, "6 mm FWHM"),
        ({"units_policy": "assume-same"}, "on the word of the user"),
        ({"units_policy": "hedges-g"}, "Hedges' g"),
        ({"min_extent": 10}, "fewer than 10 voxels"),
    ],
)
def test_options_are_in_the_words(tmp_path, group_results, settings, said):
    results = group_results(tmp_path)
    assert said in words(replace(results, settings={**results.settings, **settings}))


def test_default_coverage_is_the_one_that_runs():
    stack = pytest.importorskip("ibma_app.stream.stack")
    assert {unit: stack.MIN_COVERAGE[unit] for unit in DEFAULT_COVERAGE} == DEFAULT_COVERAGE


def test_references_come_once(tmp_path, group_results):
    references = methods_text(group_results(tmp_path), "1").references
    assert len(references) == len(set(references)) == 3
    assert "https://doi.org/10.1000/182" in references[0]


def test_markdown_files(tmp_path, group_results, participant_results):
    assert len(readme_intro("1.0")) > 150
    assert "6 studies" in methods_markdown(group_results(tmp_path), "1.0")
    one, other = (participant_results(tmp_path, label=label) for label in ("01", "02"))
    # jobs in parallel write one README: it must not depend on who was analysed
    assert methods_markdown(one, "1.0") == methods_markdown(other, "1.0")
    assert "<https://doi.org/10.1000/182>" in references_markdown(one)


def test_markdown_is_escaped():
    assert escape_markdown("a_b*c <i> https://x.org/a_b") == r"a\_b\*c \<i\> <https://x.org/a_b>"
