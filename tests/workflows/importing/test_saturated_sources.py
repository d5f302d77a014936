"""Infinite statistics in the folders of other software are the strongest voxels, not holes."""

import nibabel as nib
import numpy as np
import pytest

LIMIT = 38.4  # of z in double precision, to which t and z are held
PEAK = (2, 2, 2)


def spoil(path):
    image = nib.load(path, mmap=False)
    values = image.get_fdata().copy()
    values[PEAK] = np.inf
    nib.Nifti1Image(values.astype(np.float32), image.affine, image.header).to_filename(path)


def write_spm(maker, root):
    maker("spm_folder").make_first_level(root)
    spoil(root / "spmT_0001.nii")
    return root


def write_fsl(maker, root):
    made, rng = maker("feat_folder"), np.random.default_rng(0)
    pair = (rng.normal(size=made.SHAPE), rng.uniform(1, 2, made.SHAPE))
    made.make_feat(root, {"a": [1, 0]}, {"1": pair}, code=4)
    spoil(root / "stats" / "tstat1.nii.gz")
    return root


def write_afni(maker, root):
    made = maker("afni_folder")
    effect, t = made.volumes(2)
    t = t.copy()
    t[PEAK] = np.inf
    root.mkdir()
    return made.write_head(root, "s+tlrc", [("a_Coef", None, effect, "f4", 0), ("a_Tstat", (3, 9), t, "f4", 0)])


@pytest.mark.parametrize(("software", "write"), [("spm", write_spm), ("fsl", write_fsl), ("afni", write_afni)])
def test_the_strongest_voxel_stays(software, write, maker, tmp_path, ibma_import):
    source = write(maker, tmp_path / ("a.feat" if software == "fsl" else "a"))
    ran = ibma_import(software, source, tmp_path / "out", "--participant-label", "1")
    assert ran.code == 0, ran.stderr
    assert "t: 1 saturated value(s) (infinite) taken at the limit of the scale" in ran.stderr
    values = [nib.load(path).get_fdata() for path in sorted((tmp_path / "out").rglob("*_stat-t_statmap.nii.gz"))]
    assert all(np.isfinite(one).all() for one in values)
    assert max(one[PEAK] for one in values) == pytest.approx(LIMIT)
    assert sum((one == np.float32(LIMIT)).sum() for one in values) == 1
