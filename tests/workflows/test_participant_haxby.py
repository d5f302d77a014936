"""Participant level on 12 real runs (Haxby 2001, nilearn's statmaps) against the closed form."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

DOF = 102.0  # of each run
CONTRASTS = ("faceGtHouse", "taskGtRest")


@pytest.fixture(scope="module")
def haxby(shared: Path) -> Path:
    return shared / "realdata" / "haxby" / "derivatives_25mm"


def run_maps(root: Path, contrast: str, kind: str) -> np.ndarray:
    paths = sorted(root.glob(f"sub-01/func/*_contrast-{contrast}_stat-{kind}_statmap.nii.gz"))
    assert len(paths) == 12
    return np.stack([nib.load(path).get_fdata() for path in paths])


def combined(root: Path, contrast: str, kind: str) -> np.ndarray:
    return nib.load(
        root / f"sub-01/func/sub-01_task-objectviewing_contrast-{contrast}_stat-{kind}_statmap.nii.gz"
    ).get_fdata()


def closed_form(effect: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    covered = np.isfinite(effect) & np.isfinite(variance) & (effect != 0) & (variance > 0)
    weight = np.where(covered, 1 / np.where(covered, variance, 1), 0)
    total = weight.sum(axis=0)
    some = total > 0
    mean = np.where(some, (weight * np.where(covered, effect, 0)).sum(axis=0) / np.where(some, total, 1), 0)
    share = weight / np.where(some, total, 1)
    meier = 1 + 4 / DOF * (share * (1 - share)).sum(axis=0)  # variances are estimates (Meier 1953)
    var = np.where(some, meier / np.where(some, total, 1), 0)
    dof = np.where(some, DOF / np.where(some, (share**2).sum(axis=0), 1), 0)
    return {"effect": mean, "variance": var, "t": np.where(some, mean / np.sqrt(np.where(some, var, 1)), 0), "dof": dof}


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    # float32 files: 2e-5 relative, plus 1e-6 of the largest value near zero
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6 * np.abs(expected).max())


def test_twelve_runs_equal_the_closed_form(haxby: Path, tmp_path: Path, cli) -> None:
    code, _, err = cli(haxby, tmp_path / "out", "participant")
    assert code == 0, err
    for contrast in CONTRASTS:
        expected = closed_form(run_maps(haxby, contrast, "effect"), run_maps(haxby, contrast, "variance"))
        for kind, values in expected.items():
            assert_same(combined(tmp_path / "out", contrast, kind), values)
        name = f"sub-01/func/sub-01_task-objectviewing_contrast-{contrast}_stat-t_statmap.json"
        sidecar = json.loads((tmp_path / "out" / name).read_text())
        assert sidecar["DegreesOfFreedom"] == "voxelwise"
        assert sidecar["NumberOfMaps"] == 12
    assert (tmp_path / "out" / "sub-01.html").exists()
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("poison", [np.nan, 0.0])
def test_a_half_poisoned_run_costs_only_its_half(haxby: Path, tmp_path: Path, cli, poison: float) -> None:
    data = tmp_path / "data"
    shutil.copytree(haxby, data)
    for kind in ("effect", "variance", "t", "z", "p"):
        path = data / f"sub-01/func/sub-01_task-objectviewing_run-03_contrast-faceGtHouse_stat-{kind}_statmap.nii.gz"
        image = nib.load(path)
        values = image.get_fdata(dtype=np.float32)
        values[:3] = poison
        path.chmod(0o644)
        nib.Nifti1Image(values, image.affine, image.header).to_filename(path)
    code, _, err = cli(data, tmp_path / "out", "participant", "--contrast", "faceGtHouse", "--no-report")
    assert code == 0, err
    effect, variance = run_maps(data, "faceGtHouse", "effect"), run_maps(data, "faceGtHouse", "variance")
    for kind, values in closed_form(effect, variance).items():
        assert_same(combined(tmp_path / "out", "faceGtHouse", kind), values)
    n = combined(tmp_path / "out", "faceGtHouse", "n")
    assert set(np.unique(n[:3])) == {0, 11}
    assert set(np.unique(n[3:])) == {0, 12}
    assert combined(tmp_path / "out", "faceGtHouse", "dof").max() <= 12 * DOF
    sidecar = tmp_path / "out/sub-01/func/sub-01_task-objectviewing_contrast-faceGtHouse_stat-t_statmap.json"
    assert json.loads(sidecar.read_text())["DegreesOfFreedom"] == "voxelwise"
