"""``--regions`` from the command line: means, their tests and bad input, against numpy, scipy and the estimators."""

import json
import re
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.maskers import NiftiLabelsMasker
from scipy import stats

from ibma_app import group
from ibma_app.core.block import VoxelBlock
from ibma_app.dataset.result_tables import read_result_table
from ibma_app.designs.build import one_sample_design
from ibma_app.estimators import find_estimator

SHAPE, AFFINE = (8, 7, 6), np.diag([3.0, 3.0, 3.0, 1.0])
N, SPACE = 9, "MNI152NLin6Asym"


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 4)
    image.to_filename(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A dataset of 9 subjects with effects and variances (9, X, Y, Z): they are returned too."""
    root, rng = tmp_path_factory.mktemp("regions"), np.random.default_rng(3)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "r", "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    variance = rng.uniform(0.5, 2.0, (N, *SHAPE)).astype(np.float32)
    effect = (0.4 + rng.standard_normal((N, *SHAPE)) + rng.standard_normal((N, 1, 1, 1))).astype(np.float32)
    for row in range(N):
        folder = root / f"sub-{row:02d}"
        folder.mkdir()
        stem = folder / f"sub-{row:02d}_space-{SPACE}_contrast-c_stat"
        save(Path(f"{stem}-effect_statmap.nii"), effect[row])
        save(Path(f"{stem}-variance_statmap.nii"), variance[row])
    rows = [{"participant_id": f"sub-{row:02d}", "age": 20 + row, "effect": row % 2} for row in range(N)]
    pd.DataFrame(rows).to_csv(root / "participants.tsv", sep="\t", index=False)
    return root, effect.astype(float), variance.astype(float)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Labels with names, probabilities, a mask, and what is none of them."""
    folder = tmp_path_factory.mktemp("atlases")
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[:3], labels[3:5, :4], labels[5:, 2:] = 1, 2, 3
    save(folder / "parts_dseg.nii.gz", labels)
    (folder / "parts_dseg.tsv").write_text("index\tname\n1\tA\n2\tA\n3\tC\n7\tgone\n")
    probability = np.random.default_rng(5).uniform(0, 1, (*SHAPE, 2)).astype(np.float32)
    probability[probability < 0.4] = 0.0
    save(folder / "soft.nii.gz", probability)
    save(folder / "roi.nii.gz", (labels == 3).astype(np.uint8))
    save(folder / "empty.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    save(folder / "halves.nii.gz", labels * np.float32(0.5))
    save(folder / "space-T1w_roi.nii.gz", (labels == 3).astype(np.uint8))
    fine = np.repeat(np.repeat(np.repeat(labels, 3, 0), 3, 1), 3, 2)
    there = np.diag([1.0, 1.0, 1.0, 1.0])
    there[:3, 3] = -1.0
    save(folder / "fine.nii.gz", fine, there)
    return folder


@pytest.fixture(scope="module")
def ran(data, images: Path, tmp_path_factory, cli):
    """Two estimators of one kind, two sets of regions: the folder of the output and the log."""
    out = tmp_path_factory.mktemp("out")
    regions = (images / "parts_dseg.nii.gz", images / "soft.nii.gz")
    done = cli(
        data[0], out, "group", "--estimator", "reml", "ols", "--mask", "data", "--inference", "fdr", "--atlas", "none",
        "--no-report", "--regions", *regions,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    return out / "group", done.stderr


def read(folder: Path, ending: str) -> pd.DataFrame:
    (path,) = folder.glob(f"*_{ending}.tsv")
    columns = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    table = read_result_table(path)
    assert all(columns[name]["Description"] for name in table.columns)
    return table


def test_values_are_weighted_means(ran, data, images: Path) -> None:
    values = read(ran[0], "desc-regions_values")
    labels = nib.load(images / "parts_dseg.nii.gz").get_fdata()
    soft = nib.load(images / "soft.nii.gz").get_fdata()
    weights = [*((labels == index).astype(float) for index in (1, 2, 3, 7)), soft[..., 0], soft[..., 1]]
    assert len(values) == N * len(weights)
    assert values["age"].tolist() == [20 + row for row in range(N) for _ in weights]
    assert values["covariate_effect"].tolist() == [row % 2 for row in range(N) for _ in weights]
    assert list(values.columns)[-2:] == ["covariate_effect", "file"]  # a person is no sample of one
    names = values["region"].tolist()[: len(weights)]
    assert names == ["A (1)", "A (2)", "C", "gone", "label 1", "label 2"]
    for number, weight in enumerate(weights):
        rows = values.iloc[number :: len(weights)]
        assert (rows["n_voxels"] == np.count_nonzero(weight)).all()
        if not weight.any():
            assert rows["effect"].isna().all()
            continue
        for kind, maps in (("effect", data[1]), ("variance", data[2])):
            expected = (maps * weight).sum(axis=(1, 2, 3)) / weight.sum()
            np.testing.assert_allclose(rows[kind], expected, rtol=1e-9)  # sums in another order


def test_means_are_those_of_nilearn(ran, data, images: Path) -> None:
    values = read(ran[0], "desc-regions_values")
    named = values[(values["atlas"] == "parts_dseg") & (values["region"] != "gone")]
    masker = NiftiLabelsMasker(str(images / "parts_dseg.nii.gz"), resampling_target=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn looks for the names of labels
        means = masker.fit_transform(nib.Nifti1Image(np.moveaxis(data[1], 0, -1), AFFINE))
    found = named["effect"].to_numpy().reshape(N, 3)
    np.testing.assert_allclose(found, means, rtol=1e-6, atol=1e-8)


def test_texts_say_how_and_by_which_atlas(ran, data) -> None:
    out = ran[0].parent
    text = (out / "README.md").read_text(encoding="utf-8").replace("\\", "")
    assert "Beside voxels, the 4 regions of parts_dseg and the 2 regions of soft were tested as a whole" in text
    assert (
        "covers (weighted by the probabilities of soft); a map that covers less than half of a region, by weight, had"
        in text
    )
    assert "the mean of the variances of its voxels, the most that it can be" in text
    assert "corrected over all 6 regions for the family-wise error rate (Holm 1979)" in text
    cited = (out / "CITATION.md").read_text(encoding="utf-8")
    assert "A simple sequentially rejective multiple test procedure" in cited
    assert "Rolls" not in cited


def test_a_known_atlas_is_cited(tmp_path: Path, describe_dataset, write_statmap, cli) -> None:
    root, rng = describe_dataset(tmp_path / "in"), np.random.default_rng(1)
    for row in range(4):
        write_statmap(root, "effect", rng.normal(size=(20, 24, 20)), sub=f"{row}", contrast="c", space=SPACE)
    ran = cli(root, tmp_path / "out", "group", "--inference", "uncorrected", "--no-report", "--estimator", "ols",
              "--atlas", "none", "--regions", "aal3", "--mask", "data")  # fmt: skip
    assert ran.code == 0, ran.stderr
    cited = (tmp_path / "out" / "CITATION.md").read_text(encoding="utf-8")
    assert "Automated anatomical labelling atlas 3" in cited
    assert "The atlas AAL3 is used free of charge" in cited
    names = read(tmp_path / "out" / "group", "desc-ols_regions")["region"]
    assert "Vermis_6" in set(names)
    assert not names.str.contains(" ").any()


def test_a_region_is_tested_as_a_voxel_is(ran) -> None:
    values = read(ran[0], "desc-regions_values")
    values = values[values["region"] != "gone"]
    effect, variance = (values.pivot_table(values=k, index="participant_id", columns=["atlas", "index"], sort=False)
                        for k in ("effect", "variance"))  # fmt: skip
    table = read(ran[0], "desc-ols_regions")
    gone = table[table["region"] == "gone"].iloc[0]
    assert (gone["n_voxels"], gone["n_covered"], gone["note"]) == (0, 0, "outside the mask")
    assert gone[["effect", "p", "p_holm"]].isna().all()
    table = table[table["region"] != "gone"]
    t = stats.ttest_1samp(effect.to_numpy(), 0.0)
    np.testing.assert_allclose(table["t"], t.statistic, rtol=1e-9)
    np.testing.assert_allclose(table["p"], t.pvalue, rtol=1e-8)
    interval = t.confidence_interval()
    np.testing.assert_allclose(table[["lower", "upper"]].T, [interval.low, interval.high], rtol=1e-8)
    np.testing.assert_allclose(table["p_fdr"], stats.false_discovery_control(t.pvalue), rtol=1e-8)
    order = np.argsort(t.pvalue)
    holm = np.empty(5)
    holm[order] = np.minimum(np.maximum.accumulate(t.pvalue[order] * np.arange(5, 0, -1)), 1.0)
    np.testing.assert_allclose(table["p_holm"], holm, rtol=1e-8)
    d = effect.to_numpy().mean(0) / effect.to_numpy().std(0, ddof=1)
    np.testing.assert_allclose(table["g"], d * 0.9027, rtol=1e-3)  # Hedges' factor of 8 dof
    mixed = read(ran[0], "desc-reml_regions")
    mixed = mixed[mixed["region"] != "gone"]
    block = VoxelBlock(np.ones(effect.shape, dtype=bool), effect.to_numpy(), variance.to_numpy())
    fitted = find_estimator("reml").fit(block, one_sample_design(N))
    (one,) = fitted.tests.values()
    for column, expected in (("effect", one.effect), ("tau2", fitted.tau2), ("i2", fitted.i2), ("q", fitted.q)):
        np.testing.assert_allclose(mixed[column], expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(mixed["se"] ** 2, one.variance, rtol=1e-7)
    assert "Regions of parts_dseg have one name (A)" in ran[1]
    assert "1 region has no voxel in the mask" in ran[1]


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("empty.nii.gz", 65, "is empty"),
        ("halves.nii.gz", 65, "holds values that are no labels"),
        ("space-T1w_roi.nii.gz", 16, "is in the space T1w, the maps are in MNI152NLin6Asym"),
        ("nowhere.nii.gz", 66, "there is no file"),
    ],
)
def test_what_has_no_regions_is_refused(name: str, code: int, words: str, data, images: Path, tmp_path, cli) -> None:
    ran = cli(
        data[0],
        tmp_path,
        "group",
        "--no-report",
        "--estimator",
        "ols",
        "--inference",
        "fdr",
        "--regions",
        images / name,
    )
    assert ran.code == code
    assert words in ran.stderr


def test_names_are_checked(data, images: Path, tmp_path: Path, cli) -> None:
    ran = cli(data[0], tmp_path, "group", "--regions", "AAL")
    assert ran.code == 64
    assert "Choose from: AAL3, HCPex" in ran.stderr
    ran = cli(data[0], tmp_path, "group", "--regions", images / "roi.nii.gz", images / "roi.nii.gz")
    assert ran.code == 64
    assert "names roi twice" in ran.stderr


def test_an_atlas_that_is_not_here_is_told_by_the_option_that_named_it(data, tmp_path: Path, cli, monkeypatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "nothing"))
    ran = cli(data[0], tmp_path / "out", "group", "--inference", "fdr", "--regions", "schaefer2018", "--atlas", "none")
    assert ran.code == 66
    assert "--regions Schaefer2018: TemplateFlow has no Schaefer atlas" in ran.stderr
    assert "--atlas" not in ran.stderr


def test_designs_masks_and_other_grids(data, images: Path, tmp_path: Path, cli) -> None:
    ran = cli(
        data[0], tmp_path, "group", "--estimator", "ols", "--formula", "1 + age", "--tail", "positive", "--no-report",
        "--mask", "data", "--inference", "fdr", "--atlas", "none",
        "--regions", images / "roi.nii.gz", images / "fine.nii.gz",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "fine lies on another grid" in ran.stderr
    table = read(tmp_path / "group", "test-age_desc-ols_regions")
    assert table["region"].tolist() == ["roi", "label 1", "label 2", "label 3"]
    same = table.iloc[[0, 3]].drop(columns=["atlas", "index", "region"])
    assert same.iloc[0].equals(same.iloc[1]) or np.allclose(same["t"].iloc[0], same["t"].iloc[1])
    roi = nib.load(images / "roi.nii.gz").get_fdata() > 0
    fit = stats.linregress(np.arange(N), data[1][:, roi].mean(axis=1), alternative="greater")
    np.testing.assert_allclose(table["effect"].iloc[0], fit.slope, rtol=1e-8)
    np.testing.assert_allclose(table["p"].iloc[0], fit.pvalue, rtol=1e-7)


def test_from_python(data, images: Path) -> None:
    maps = {"effect": list(data[1])}
    found = group(
        maps=[nib.Nifti1Image(one, AFFINE) for one in maps["effect"]], space=SPACE, estimator="ols", inference="fdr",
        mask="data", atlas="none", report=False, regions=[str(images / "roi.nii.gz")],
    )  # fmt: skip
    roi = nib.load(images / "roi.nii.gz").get_fdata() > 0
    means = data[1][:, roi].mean(axis=1)
    assert found.regions["test"].tolist() == ["intercept"]
    np.testing.assert_allclose(found.regions["t"], stats.ttest_1samp(means, 0.0).statistic, rtol=1e-6)
    np.testing.assert_allclose(found.region_values["effect"], means, rtol=1e-6)


def test_the_page_shows_regions(data, images: Path, tmp_path: Path, cli) -> None:
    ran = cli(
        data[0], tmp_path, "group", "--estimator", "ols", "--mask", "data", "--inference", "uncorrected",
        "--atlas", "none", "--regions", images / "parts_dseg.nii.gz",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    page = next(tmp_path.glob("group_*.html")).read_text(encoding="utf-8")
    table = read(tmp_path / "group", "desc-ols_regions").sort_values("p")
    shown = page.split("<summary>Regions</summary>")[1]
    places = [shown.index(f'<th scope="row">{name}</th>') for name in table["region"][:3]]
    assert places == sorted(places)
    assert "3 of 4 regions, by p" in shown
    for link in re.findall(r'href="([^"]+)">(?:Whole table|values of each map)', shown):
        assert (tmp_path / link).is_file()
    assert len(list((tmp_path / "figures").glob("*_region-*.svg"))) == 3


def test_a_second_run_keeps_the_regions_of_the_first(data, images: Path, tmp_path: Path, cli) -> None:
    """Of the same regions, of none, of others: whose values are in the table then."""
    words = ("--mask", "data", "--inference", "uncorrected", "--atlas", "none")
    for estimator, regions in (("ols", "parts_dseg"), ("dl", None), ("hedges", "roi")):
        asked = ("--regions", images / f"{regions}.nii.gz") if regions else ()
        ran = cli(data[0], tmp_path, "group", "--estimator", estimator, *words, *asked)
        assert ran.code == 0, ran.stderr
        page = next(tmp_path.glob("group_*.html")).read_text(encoding="utf-8")
        text = (tmp_path / "README.md").read_text(encoding="utf-8").replace("\\", "")
        assert page.count("<summary>Regions</summary>") == 1
        assert ("the region roi was tested" if regions == "roi" else "the 4 regions of parts_dseg were tested") in text
