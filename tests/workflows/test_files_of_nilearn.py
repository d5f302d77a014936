"""What nilearn itself saves of a first level: runs into a subject, by the degrees of freedom of its designs."""

import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from ibma_app.stats.tails import t_to_z

SHAPE, SCANS, RUNS = (6, 6, 6), 40, 2
EVENTS = pd.DataFrame({"onset": [2, 20, 40, 60], "duration": [5] * 4, "trial_type": ["a", "b", "a", "b"]})


def bold(seed):
    values = np.random.default_rng(seed).normal(100, 1, (*SHAPE, SCANS)).astype(np.float32)
    return nib.Nifti1Image(values, np.diag([3.0, 3, 3, 1]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Save two runs one by one, and both as one model, as ``nilearn.glm.save_glm_to_bids`` does; return the folders."""
    from nilearn.glm import first_level

    nilearn = pytest.importorskip("nilearn.glm", reason="save_glm_to_bids is there since nilearn 0.13")
    if not hasattr(nilearn, "save_glm_to_bids"):
        pytest.skip("save_glm_to_bids is there since nilearn 0.13")
    root = tmp_path_factory.mktemp("nilearn")
    mask = nib.Nifti1Image(np.ones(SHAPE, dtype=np.int8), np.diag([3.0, 3, 3, 1]))
    runs = [bold(seed) for seed in range(RUNS)]
    models = {f"sub-01_task-x_run-{run + 1}": [runs[run]] for run in range(RUNS)} | {"sub-01_task-x": runs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prefix, images in models.items():
            model = first_level.FirstLevelModel(t_r=2, mask_img=mask, noise_model="ols", minimize_memory=False)
            model.fit(images, [EVENTS] * len(images))
            out = root / ("one" if len(images) > 1 else "runs")
            nilearn.save_glm_to_bids(model, {"a - b": "a - b"}, out_dir=out, prefix=prefix)
    return root


def read(folder, kind):
    (path,) = folder.rglob(f"*contrast-aMinusB*stat-{kind}_statmap.nii.gz")
    return nib.load(path).get_fdata()


def test_runs_have_the_dof_of_their_designs(saved, tmp_path, cli):
    ran = cli(saved / "runs", tmp_path / "out", "participant", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "degrees of freedom" not in ran.stderr
    found = tmp_path / "out" / "sub-01"
    told = cli(saved / "runs", tmp_path / "told", "participant", "--no-report", "--dof", 30)  # the designs count more
    assert told.code == 0
    np.testing.assert_array_equal(read(found, "z"), read(tmp_path / "told" / "sub-01", "z"))
    (sidecar,) = found.rglob("*stat-effect_statmap.json")
    derived = json.loads(sidecar.read_text())["Derived"]
    assert all("dof from the design matrix (rows less rank)" in texts for texts in derived.values())


def test_a_model_of_several_runs_has_the_sum(saved, tmp_path, cli):
    t, z = read(saved / "one", "t"), read(saved / "one", "z")
    columns = len(next((saved / "one").rglob("*run-1_design.tsv")).read_text().splitlines()[0].split("\t"))
    dof = RUNS * (SCANS - columns)
    np.testing.assert_allclose(t_to_z(t, float(dof)), z, atol=1e-6)
    ran = cli(saved / "one", tmp_path / "out", "participant", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "degrees of freedom" not in ran.stderr
    (sidecar,) = (tmp_path / "out").rglob("*stat-t_statmap.json")
    assert json.loads(sidecar.read_text())["DegreesOfFreedom"] == dof
