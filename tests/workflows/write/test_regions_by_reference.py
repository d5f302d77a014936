"""``--regions`` against R: F tests, clusters, repeated maps, maps that depend.

R's numbers are those that the estimators' own tests hold to (tests/reference): here y and v are the means of a region.
"""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ibma_app.dataset.result_tables import read_result_table

SHAPE, AFFINE = (4, 4, 4), np.diag([3.0, 3.0, 3.0, 1.0])
SPACE = "MNI152NLin6Asym"
WORDS = ("--units", "assume-same", "--mask", "data", "--grid", "common", "--inference", "uncorrected", "--no-report")
REFERENCE = Path(__file__).parents[2] / "reference"


def save(path: Path, values: np.ndarray) -> Path:
    image = nib.Nifti1Image(np.asarray(values, dtype=np.float64), AFFINE)
    image.set_sform(AFFINE, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def case_of(file: str, name: str) -> dict[str, Any]:
    cases = json.loads((REFERENCE / f"{file}.json").read_text(encoding="utf-8"))["cases"]
    return next(one for one in cases if one["name"] == name)


def dataset(root: Path, case: dict[str, Any]) -> tuple[Path, Path]:
    """Studies whose means over a region are a case's y and v, and the image of the region."""
    rng = np.random.default_rng(1)
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[:2] = 3
    inside = labels > 0
    columns = {f"c{number}": list(values) for number, values in enumerate(zip(*case["X"], strict=True))}
    rows = []
    for number, y in enumerate(case["y"]):
        pattern = rng.standard_normal(SHAPE)
        pattern[inside] -= pattern[inside].mean()
        stem = root / f"study-{number:02d}" / f"study-{number:02d}_space-{SPACE}_contrast-x_stat"
        save(Path(f"{stem}-effect_statmap.nii"), y + pattern)
        if "v" in case:
            save(Path(f"{stem}-variance_statmap.nii"), case["v"][number] * (1 + 0.9 * pattern / np.abs(pattern).max()))
        own = case.get("cluster", case.get("unit"))
        rows.append({"study_id": f"{number:02d}", **({"cluster": f"s{own[number]}"} if own else {})})
    pd.DataFrame(rows).assign(**columns).to_csv(root / "studies.tsv", sep="\t", index=False)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "r", "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    return root, save(root.parent / "roi.nii.gz", labels)


def run(cli, tmp_path: Path, case: dict[str, Any], tests: list[list[list[float]]], *words: str) -> list[pd.Series]:
    """Combine a case's maps; the row of the region in the table of each test."""
    root, roi = dataset(tmp_path / "maps", case)
    names = [f"c{number}" for number in range(len(case["X"][0]))]
    named = [[dict(zip(names, row, strict=True)) for row in rows] for rows in tests]
    weights = {f"t{number}": rows[0] if len(rows) == 1 else rows for number, rows in enumerate(named)}
    (tmp_path / "tests.json").write_text(json.dumps(weights))
    done = cli(root, tmp_path / "out", "group", *WORDS, "--formula", f"0 + {' + '.join(names)}", "--contrast-file",
               tmp_path / "tests.json", "--regions", roi, *words)  # fmt: skip
    assert done.code == 0, done.stderr
    tables = [next((tmp_path / "out" / "group").glob(f"*test-t{n}_*_regions.tsv")) for n in range(len(tests))]
    return [read_result_table(path).iloc[0] for path in tables]


# maps are kept as float32 (6e-8), on which R's numbers depend by a factor of a few to some hundreds
CLOSE: dict[str, Any] = {"rel": 2e-5, "abs": 1e-7}


def test_f_tests_of_metafor(tmp_path: Path, cli) -> None:
    case = case_of("metafor", "bcg ablat year")
    (tmp_path / "own.toml").write_text('[estimator.reml]\ntest = "knha"\n')
    rows = run(cli, tmp_path, case, [[[0, 1, 0]], [[0, 1, 0], [0, 0, 1]]], "--estimator", "reml", "--config-file",
               str(tmp_path / "own.toml"))  # fmt: skip
    known = case["methods"]["reml"]
    assert rows[0]["effect"] == pytest.approx(known["tests"]["knha"]["beta"][1], **CLOSE)
    assert rows[0]["se"] == pytest.approx(known["tests"]["knha"]["se"][1], **CLOSE)
    assert rows[1]["F"] == pytest.approx(known["tests"]["knha"]["F"], **CLOSE)
    for column, name in (("tau2", "tau2"), ("q", "Q"), ("i2", "I2"), ("h2", "H2")):
        assert rows[1][column] == pytest.approx(known[name], **CLOSE)
    assert "effect" not in rows[1].index


def test_clusters_of_metafor(tmp_path: Path, cli) -> None:
    case = case_of("multilevel", "twelve clusters as of the pain studies")
    (tmp_path / "own.toml").write_text('[estimator.multilevel]\nerrors = "model"\n')
    (row,) = run(cli, tmp_path, case, [[[1]]], "--estimator", "multilevel", "--config-file", str(tmp_path / "own.toml"))
    assert row["effect"] == pytest.approx(case["beta"][0], **CLOSE)
    assert row["se"] == pytest.approx(case["se"][0], **CLOSE)
    assert row["tau2"] == pytest.approx(case["tau2"], **CLOSE)
    assert row["omega2"] == pytest.approx(case["omega2"], **CLOSE)


@pytest.mark.parametrize(
    ("file", "name", "estimator"),
    [("clubsandwich", "missing, between", "ols"), ("lmertest", "a third missing", "random-intercept")],
)
def test_repeated_maps_of_clubsandwich_and_lmertest(file: str, name: str, estimator: str, tmp_path: Path, cli) -> None:
    case = case_of(file, name)
    rows = run(cli, tmp_path, case, [one["rows"] for one in case["tests"]], "--estimator", estimator)
    for row, known in zip(rows, case["tests"], strict=True):
        for key in ("effect", "se", "t", "F"):
            if key in known:
                assert row[key] == pytest.approx(known[key], rel=2e-5, abs=2e-6)
        assert row["dof"] == pytest.approx(known["dof"], rel=1e-4)


def test_maps_that_depend_as_in_metafor(tmp_path: Path, cli) -> None:
    case = case_of("dependent", "a covariate")
    pairs = [(a, b, r) for a, row in enumerate(case["R"]) for b, r in enumerate(row) if a < b and r]
    table = tmp_path / "pairs.tsv"
    table.write_text("map_a\tmap_b\tcorrelation\n" + "".join(f"{a:02d}\t{b:02d}\t{r}\n" for a, b, r in pairs))
    (tmp_path / "own.toml").write_text('[estimator.reml]\ntest = "z"\n')
    rows = run(cli, tmp_path, case, [[[1, 0]], [[0, 1]]], "--estimator", "reml", "--dependence", str(table),
               "--config-file", str(tmp_path / "own.toml"))  # fmt: skip
    known = case["methods"]["reml"]
    for number, row in enumerate(rows):
        assert row["effect"] == pytest.approx(known["beta"][number], **CLOSE)
        assert row["se"] == pytest.approx(known["se"][number], **CLOSE)
        assert row["tau2"] == pytest.approx(known["tau2"], **CLOSE)
