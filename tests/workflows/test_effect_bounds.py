"""Simultaneous bounds and equivalence through the command line: what is written, and that it is right."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

SHAPE, SUBJECTS, SD = (7, 6, 5), 24, 0.5
RUN = ("--estimator", "ols", "--inference", "max-stat", "--permutations", "120", "--mask", "data")


@pytest.fixture(scope="module")
def data(tmp_path_factory, describe_dataset, write_statmap) -> Path:
    """Effects of 3 in one slab, of 0.1 elsewhere."""
    root, rng = describe_dataset(tmp_path_factory.mktemp("sizes") / "data"), np.random.default_rng(8)
    mean = np.full(SHAPE, 0.1)
    mean[:2] = 3.0
    for sub in range(SUBJECTS):
        values = (mean + SD * rng.normal(size=SHAPE)).astype(np.float32)
        for kind in ("effect", "z"):
            write_statmap(root, kind, values, sub=f"{sub:02d}", space="individual", contrast="a")
    rows = [f"sub-{sub:02d}\t{'pq'[sub % 2]}\t{sub}" for sub in range(SUBJECTS)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tgroup\tage", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def out(data, tmp_path_factory, cli) -> Path:
    folder = tmp_path_factory.mktemp("sizes") / "out"
    ran = cli(data, folder, "group", *RUN, "--equivalence", "1.0")
    assert ran.code == 0, ran.stderr
    return folder


def volume(out: Path, ending: str) -> np.ndarray:
    (path,) = (out / "group").glob(f"*_desc-ols_{ending}.nii.gz")
    return nib.load(path).get_fdata()


def sidecar(out: Path, ending: str) -> dict:
    (path,) = (out / "group").glob(f"*_desc-ols_{ending}.json")
    return json.loads(path.read_text())


def test_bounds_are_the_effect_and_its_errors(out: Path) -> None:
    effect, error = volume(out, "stat-effect_statmap"), np.sqrt(volume(out, "stat-variance_statmap"))
    lower, upper = (volume(out, f"corr-maxStat_stat-{kind}_statmap") for kind in ("lower", "upper"))
    told = sidecar(out, "corr-maxStat_stat-lower_statmap")
    width = stats.t.isf(stats.norm.sf(told["Inference"]["BoundsCriticalZ"]), SUBJECTS - 1)
    np.testing.assert_allclose(lower, effect - width * error, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(upper, effect + width * error, rtol=1e-4, atol=1e-5)
    assert "95 % confidence" in told["Description"]
    # as of noise: the null's quantile rises with the effects of the slab, that of the errors does not
    assert 3.0 < told["Inference"]["BoundsCriticalZ"] < 4.3
    assert ((lower < 3.0) & (upper > 3.0))[:2].all()
    assert (lower[:2] > 2.0).all()  # surely more than 2
    text = (out / "README.md").read_text()
    assert "simultaneous 95 % bounds" in text
    assert "Telschow" in (out / "CITATION.md").read_text()


def test_absent_is_where_the_bounds_lie_within(out: Path) -> None:
    lower, upper = (volume(out, f"corr-maxStat_stat-{kind}_statmap") for kind in ("lower", "upper"))
    absent = volume(out, "corr-equivalence_mask") > 0
    np.testing.assert_array_equal(absent, (lower > -1.0) & (upper < 1.0))
    assert absent[2:].mean() > 0.8
    assert not absent[:2].any()
    log10_p = volume(out, "corr-equivalence_stat-log10p_statmap")
    assert (log10_p[absent] >= -np.log10(0.05) - 1e-6).all()
    assert not log10_p[:2].any()
    told = sidecar(out, "corr-equivalence_mask")["Equivalence"]
    assert (told["Bound"], told["BoundUnits"], told["Resamples"]) == (1.0, "unknown", 119)
    page = next(out.glob("group_*.html")).read_text()
    assert "Where the effect is absent" in page
    lower, upper = (volume(out, f"corr-maxStat_stat-{kind}_statmap") for kind in ("lower", "upper"))
    said = re.search(r"is above 0 at (\d+) voxels \(by ([\d.]+) or more at the surest\) and below 0 at (\d+)", page)
    assert (int(said[1]), int(said[3])) == ((lower > 0).sum(), (upper < 0).sum())
    assert float(said[2]) == pytest.approx(lower.max(), rel=1e-3)
    assert "Schuirmann" in page
    for ending in ("corr-maxStat_stat-least", "corr-equivalence_stat-effect"):
        assert list((out / "figures").glob(f"*_{ending}_slices.svg"))


def test_peaks_have_their_g(out: Path) -> None:
    (path,) = (out / "group").glob("*_corr-maxStat_clusters.tsv")
    rows = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))
    assert rows
    for row in rows:
        at = tuple(round(float(row[axis]) / 4 + (size - 1) / 2) for axis, size in zip("xyz", SHAPE, strict=True))
        for column, kind in (("peak_g", "g"), ("peak_g_lower", "glower"), ("peak_g_upper", "gupper")):
            assert float(row[column]) == pytest.approx(volume(out, f"stat-{kind}_statmap")[at], rel=1e-6)
    described = json.loads(path.with_suffix(".json").read_text())
    assert "overestimate" in described["peak_g"]["Description"]
    assert "Peak g" in next(out.glob("group_*.html")).read_text()


def test_bounds_where_maps_are_missing(tmp_path: Path, describe_dataset, write_statmap, cli) -> None:
    """Some maps cover half of the voxels: there the bounds have the dof of the maps that do."""
    root, rng, found = describe_dataset(tmp_path / "in"), np.random.default_rng(9), []
    for sub in range(16):
        values = (0.5 + rng.normal(size=SHAPE)).astype(np.float32)
        if sub < 4:
            values[:3] = 0.0
        found.append(values)
        write_statmap(root, "effect", values, sub=f"{sub:02d}", space="individual", contrast="a")
    ran = cli(root, tmp_path / "out", "group", *RUN, "--min-coverage", "0.7", "--no-report")
    assert ran.code == 0, ran.stderr
    out, maps = tmp_path / "out", np.array(found, dtype=float)
    z = sidecar(out, "corr-maxStat_stat-lower_statmap")["Inference"]["BoundsCriticalZ"]
    for part, rows in ((slice(None, 3), slice(4, None)), (slice(3, None), slice(None))):
        there = maps[rows, part]
        half = stats.t.isf(stats.norm.sf(z), len(there) - 1) * there.std(axis=0, ddof=1) / np.sqrt(len(there))
        for kind, sign in (("lower", -1), ("upper", 1)):
            bound = volume(out, f"corr-maxStat_stat-{kind}_statmap")[part]
            np.testing.assert_allclose(bound, there.mean(axis=0) + sign * half, rtol=1e-4, atol=1e-4)


def test_bounds_of_g_and_of_one_side(data: Path, tmp_path: Path, cli) -> None:
    ran = cli(data, tmp_path, "group", *RUN, "--equivalence", "2.5g", "--tail", "positive", "--no-report")
    assert ran.code == 0, ran.stderr
    assert not list((tmp_path / "group").glob("*corr-maxStat_stat-upper*"))
    absent, g = volume(tmp_path, "corr-equivalence_mask") > 0, volume(tmp_path, "stat-g_statmap")
    told = sidecar(tmp_path, "corr-equivalence_mask")["Equivalence"]
    assert told["BoundUnits"] == "Hedges' g"
    assert absent.any()
    assert np.abs(g[absent]).max() < 2.5
    lower, effect = volume(tmp_path, "corr-maxStat_stat-lower_statmap"), volume(tmp_path, "stat-effect_statmap")
    assert (lower < effect).all()


def test_conjunction_is_where_both_groups_have_it(data: Path, tmp_path: Path, cli) -> None:
    tests = ("--formula", "0 + C(group)", "--test", "p=C(group)[p]", "q=C(group)[q]", "d=C(group)[p]-C(group)[q]")
    ran = cli(data, tmp_path, "group", *RUN[:-4], "fdr", *RUN[-4:], *tests, "--conjunction", "p", "q")
    assert ran.code == 0, ran.stderr
    one, two, both = (volume_of(tmp_path, test, "stat-z_statmap") for test in ("p", "q", "pAndQ"))
    agree = one * two > 0
    np.testing.assert_allclose(both, np.where(agree, np.sign(one) * np.minimum(abs(one), abs(two)), 0), atol=1e-6)
    masks = [volume_of(tmp_path, test, "corr-maxStat_mask") > 0 for test in ("p", "q", "pAndQ")]
    np.testing.assert_array_equal(masks[2], masks[0] & masks[1] & agree)
    assert masks[2][:2].all()
    (table,) = (tmp_path / "group").glob("*_test-pAndQ_*corr-fdr_clusters.tsv")
    assert table.read_text().count("\n") >= 2
    page = next(tmp_path.glob("group_*.html")).read_text()
    assert ">pAndQ<" in page
    assert "conjunction null" in page
    assert not list((tmp_path / "group").glob("*_test-pAndQ_*stat-lower*"))


def volume_of(out: Path, test: str, ending: str) -> np.ndarray:
    return nib.load(next((out / "group").glob(f"*_test-{test}_desc-ols_{ending}.nii.gz"))).get_fdata()


TWO = ("--formula", "0 + C(group)", "--test", "p=C(group)[p]", "q=C(group)[q]", "any=C(group)[p], C(group)[q]")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--equivalence", "0"], "a number above 0"),
        (["--equivalence", "much"], "a number above 0"),
        (["--equivalence", "1", "--estimator", "stouffer-rfx"], "stouffer-rfx combines z, which has no effect"),
        (["--equivalence", "1g", "--estimator", "ols", "--formula", "1 + age"], "no test here is of a mean"),
        (["--equivalence", "1", "--formula", "1 + C(group)", "--test", "any=intercept, C(group)[T.q]"], "F tests"),
        (
            [*TWO, "--conjunction", "p"],
            "a conjunction is of two or more. The t tests here are: p, q",
        ),
        ([*TWO, "--conjunction", "p", "p"], "names one test"),
        ([*TWO, "--conjunction", "p", "z"], "there is no test 'z'"),
        ([*TWO, "--conjunction", "p", "any"], "any is an F test"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(data: Path, tmp_path: Path, cli, more, said) -> None:
    ran = cli(data, tmp_path / "out", "group", *more)
    assert ran.code == 64
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_bounds_can_be_left_out(data: Path, tmp_path: Path, cli) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[inference]\nbounds = false\n")
    ran = cli(data, tmp_path / "out", "group", *RUN, "--config-file", config, "--no-report")
    assert ran.code == 0, ran.stderr
    assert not list((tmp_path / "out" / "group").glob("*stat-lower*"))
    assert "errors of ols" not in ran.stderr
