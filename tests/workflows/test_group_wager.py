"""Group level on 30 real contrast images (Wager 2008) against scipy and numpy."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import special, stats


@pytest.fixture(scope="module")
def wager(shared: Path, tmp_path_factory) -> tuple[Path, np.ndarray, pd.DataFrame]:
    """The images under BIDS names: the dataset, the effects (30, X, Y, Z), the covariates."""
    root = tmp_path_factory.mktemp("wager")
    source = shared / "realdata" / "wager2008"
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "wager", "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    covariates = pd.read_csv(source / "X_Y_data.txt", sep="\t")
    effects, rows = [], []
    for number, path in enumerate(sorted((source / "con").glob("*.img")), start=1):
        image = nib.load(path)
        values = np.squeeze(image.get_fdata(dtype=np.float32))
        func = root / f"sub-{number:02d}" / "func"
        func.mkdir(parents=True)
        name = f"sub-{number:02d}_task-emotion_space-MNI152Lin_contrast-reappraiseGtLook_stat-effect_statmap.nii"
        nib.Nifti1Image(values, image.affine).to_filename(func / name)
        effects.append(values.astype(float))
        rows.append(
            {
                "participant_id": f"sub-{number:02d}",
                "success": covariates["Y_Reappraisal_Success"][number - 1],
            }
        )
    table = pd.DataFrame(rows)
    table.to_csv(root / "participants.tsv", sep="\t", index=False)
    return root, np.stack(effects), table


def group_map(out: Path, kind: str, test: str = "") -> np.ndarray:
    test = f"test-{test}_" if test else ""
    name = f"task-emotion_space-MNI152Lin_contrast-reappraiseGtLook_{test}desc-ols_stat-{kind}_statmap.nii.gz"
    return nib.load(out / "group" / name).get_fdata()


def assert_same(found: np.ndarray, expected: np.ndarray, mask: np.ndarray) -> None:
    # float32 files: 2e-5 relative, plus 1e-6 of the largest value near zero
    largest = np.abs(expected[mask]).max()
    np.testing.assert_allclose(found[mask], expected[mask], rtol=2e-5, atol=1e-6 * largest)
    assert not found[~mask].any()


def test_one_sample_t_equals_scipy(wager, tmp_path: Path, cli) -> None:
    root, effects, _ = wager
    code, _, err = cli(root, tmp_path, "group")
    assert code == 0, err
    mask = (np.isfinite(effects) & (effects != 0)).all(axis=0)
    values = effects[:, mask]
    expected = stats.ttest_1samp(values, 0.0, axis=0)
    for kind, wanted in (
        ("t", expected.statistic),
        ("effect", values.mean(axis=0)),
        ("log10p", -np.log10(expected.pvalue)),
        ("g", expected.statistic / np.sqrt(30) * special.gamma(14.5) / np.sqrt(14.5) / special.gamma(14.0)),
    ):
        whole = np.zeros(mask.shape)
        whole[mask] = wanted
        assert_same(group_map(tmp_path, kind), whole, mask)
    lower, upper = (group_map(tmp_path, kind)[mask][::4000] * np.sqrt(30) for kind in ("glower", "gupper"))
    for limit, p in ((lower, 0.975), (upper, 0.025)):  # of float32 files
        np.testing.assert_allclose(stats.nct.cdf(expected.statistic[::4000], 29, limit), p, atol=1e-6)
    sidecar = next((tmp_path / "group").glob("*desc-ols_stat-t_statmap.json"))
    assert json.loads(sidecar.read_text())["DegreesOfFreedom"] == 29


def test_centred_regressor_equals_least_squares(wager, tmp_path: Path, cli) -> None:
    root, effects, table = wager
    code, _, err = cli(root, tmp_path, "group", "--inference", "fdr", "bonferroni",
                       "--formula", "1 + center(success)", "--test", "success=center(success)",
                       "mean=intercept")  # fmt: skip
    assert code == 0, err
    mask = (np.isfinite(effects) & (effects != 0)).all(axis=0)
    design = np.column_stack([np.ones(30), table["success"] - table["success"].mean()])
    values = effects[:, mask]
    beta, rss, *_ = np.linalg.lstsq(design, values, rcond=None)
    se = np.sqrt(np.outer(np.diag(np.linalg.inv(design.T @ design)), rss / 28))
    for row, test in enumerate(("mean", "success")):
        expected = np.zeros(mask.shape)
        expected[mask] = beta[row] / se[row]
        assert_same(group_map(tmp_path, "t", test), expected, mask)
