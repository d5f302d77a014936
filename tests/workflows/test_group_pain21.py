"""The 21 real pain studies: units that differ, the Z family, Hedges' g, and effects taken at the user's word."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import optimize

KINDS = {"beta": "effect", "varcope": "variance", "t": "t", "z": "z"}


@pytest.fixture(scope="module")
def pain(shared: Path, tmp_path_factory) -> Path:
    """The studies as a collection, byte for byte, mixed 3-D and 4-D as they were shared."""
    source = shared / "realdata" / "pain21"
    root = tmp_path_factory.mktemp("pain")
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "pain", "BIDSVersion": "1.10.0", "DatasetType": "derivative"})
    )
    pd.read_csv(source / "studies.tsv", sep="\t").to_csv(root / "studies.tsv", sep="\t", index=False)
    for path in (source / "maps").glob("pain_*.nii.gz"):
        match = re.fullmatch(r"pain_(\d\d)_(beta|varcope|t|z)\.nii\.gz", path.name)
        if match:
            label = f"study-pain{match[1]}"
            (root / label).mkdir(exist_ok=True)
            name = f"{label}_space-MNI152NLin6Asym_contrast-pain_stat-{KINDS[match[2]]}_statmap.nii.gz"
            (root / label / name).write_bytes(path.read_bytes())
    return root


def group_map(out: Path, estimator: str, kind: str) -> np.ndarray:
    (path,) = (out / "group").glob(f"*_desc-{estimator}_stat-{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


def restricted_likelihood(tau2: float, y: np.ndarray, v: np.ndarray) -> float:
    w = 1 / (v + tau2)
    mean = np.sum(w * y) / np.sum(w)
    return 0.5 * (np.sum(np.log(w)) - np.log(np.sum(w)) - np.sum(w * (y - mean) ** 2))


def reml(y: np.ndarray, v: np.ndarray) -> tuple[float, float, float]:
    """Effect, Knapp-Hartung t and tau2 of one voxel, by a grid and golden sections: slow and independent."""
    grid = np.concatenate([[0.0], np.geomspace(1e-6, 1e2, 400) * np.var(y)])
    best = int(np.argmax([restricted_likelihood(tau2, y, v) for tau2 in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)]
    found = optimize.minimize_scalar(
        lambda tau2: -restricted_likelihood(tau2, y, v), bounds=(low, high), method="bounded",
        options={"xatol": 1e-12 * max(high, 1e-30)},
    )  # fmt: skip
    tau2 = 0.0 if restricted_likelihood(0.0, y, v) >= -found.fun else float(found.x)
    w = 1 / (v + tau2)
    mean = np.sum(w * y) / np.sum(w)
    scale = np.sum(w * (y - mean) ** 2) / (y.size - 1)
    return mean, mean / np.sqrt(scale / np.sum(w)), tau2


def test_auto_refuses_to_mix_units_and_says_why(pain: Path, tmp_path: Path, cli) -> None:
    ran = cli(pain, tmp_path, "group", "--mask", "data", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "units" in ran.stderr
    assert "pain07" in ran.stderr
    found = {path.name.split("_desc-")[1].split("_")[0] for path in (tmp_path / "group").glob("*.nii.gz")}
    assert found == {"stoufferRfx", "stoufferWeighted"}
    assert cli(pain, tmp_path / "reml", "group", "--estimator", "reml", "--mask", "data").code == 65


def test_assume_same_agrees_per_voxel_and_warns(pain: Path, tmp_path: Path, cli) -> None:
    ran = cli(pain, tmp_path, "group", "--estimator", "reml", "--units", "assume-same", "--mask", "data",
              "--no-report")  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "are all effects in one unit?" in ran.stderr, "variances differ 4,000,000-fold"
    stack = {kind: [] for kind in ("effect", "variance")}
    for kind, maps in stack.items():
        for path in sorted(pain.glob(f"study-*/*stat-{kind}_statmap.nii.gz")):
            maps.append(np.squeeze(nib.load(path).get_fdata()))
    y, v = (np.stack(stack[kind]) for kind in ("effect", "variance"))
    n = group_map(tmp_path, "reml", "n")
    voxels = np.argwhere(n >= 16)[::37][:20]
    assert len(voxels) == 20
    for voxel in map(tuple, voxels):
        own_median = np.array([np.median(m[np.isfinite(m) & (m > 0)]) for m in v])
        covered = np.isfinite(y[:, *voxel]) & (y[:, *voxel] != 0) & (v[:, *voxel] > 1e-10 * own_median)
        assert covered.sum() == n[voxel]
        mean, t, tau2 = reml(y[covered, *voxel], v[covered, *voxel])
        # the optimiser here finds tau2 to about 1e-6 only, which moves the mean by less than 1e-5
        assert group_map(tmp_path, "reml", "effect")[voxel] == pytest.approx(mean, rel=1e-4)
        assert group_map(tmp_path, "reml", "t")[voxel] == pytest.approx(t, rel=1e-4)
        assert group_map(tmp_path, "reml", "tau2")[voxel] == pytest.approx(tau2, rel=1e-3, abs=1e-9)


def test_hedges_g_runs_and_is_in_one_unit(pain: Path, tmp_path: Path, cli) -> None:
    ran = cli(pain, tmp_path, "group", "--units", "hedges-g", "--mask", "data", "--no-report")
    assert ran.code == 0, ran.stderr
    effect = group_map(tmp_path, "reml", "effect")
    assert 0.01 < np.abs(effect[effect != 0]).mean() < 3, "standardised effects of pain"
    sidecar = json.loads(next((tmp_path / "group").glob("*desc-reml_stat-effect_statmap.json")).read_text())
    assert sidecar["Units"] == "Hedges' g"
    assert sidecar["UnitsPolicy"] == "hedges-g"


def test_z_family_runs(pain: Path, tmp_path: Path, cli) -> None:
    names = ("stouffer", "stouffer-weighted", "stouffer-rfx", "fisher", "tippett")
    words = ("--mask", "data", "--inference", "fdr", "bonferroni", "--no-report")
    ran = cli(pain, tmp_path, "group", "--estimator", *names, *words)
    assert ran.code == 0, ran.stderr
    z = group_map(tmp_path, "stouffer", "z")
    maps = [np.squeeze(nib.load(p).get_fdata()) for p in sorted(pain.glob("study-*/*stat-z_statmap.nii.gz"))]
    values = np.stack(maps)
    covered = np.isfinite(values) & (values != 0)
    n = covered.sum(axis=0)
    expected = np.where(covered, values, 0).sum(axis=0) / np.sqrt(np.maximum(n, 1))
    inside = group_map(tmp_path, "stouffer", "n") > 0
    np.testing.assert_allclose(z[inside], expected[inside], rtol=2e-5, atol=1e-6 * np.abs(expected).max())
