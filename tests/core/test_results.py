"""What an analysis has written is found by what it is."""

from pathlib import Path

from ibma_app.core.results import EstimatorResult, WrittenFile
from ibma_app.estimators import find_estimator


def test_files_are_found_by_test_inference_and_kind():
    files = tuple(
        WrittenFile(*key, Path("_".join(key)))
        for key in (("", "", "n"), ("age", "", "z"), ("age", "fdr", "z"), ("mean", "fdr", "z"))
    )
    result = EstimatorResult(find_estimator("ols"), {}, "asked for", files)
    assert result.path("n") == Path("__n")
    assert result.path("z", test="age") == Path("age__z")
    assert result.path("z", test="age", inference="fdr") == Path("age_fdr_z")
    assert result.path("z") is None
    assert result.path("n", test="age") is None
