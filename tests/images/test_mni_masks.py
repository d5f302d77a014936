"""nilearn's MNI152 template and masks, to the last bit."""

import numpy as np
import pytest

from ibma_app.images.mni_masks import mni_brain, mni_template


def test_the_template_is_nilearns():
    datasets = pytest.importorskip("nilearn.datasets")
    expected = datasets.load_mni152_template(resolution=1)
    template = mni_template()
    np.testing.assert_array_equal(template.volume, np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(template.affine, expected.affine)


def test_the_template_comes_from_a_nilearn_that_keeps_it_elsewhere(monkeypatch):
    here = mni_template()
    monkeypatch.setattr("ibma_app.images.mni_masks._TEMPLATE", "nowhere.nii.gz")
    there = mni_template()
    np.testing.assert_array_equal(there.volume, here.volume)
    np.testing.assert_array_equal(there.affine, here.affine)


def test_neither_template_nor_its_mask_import_nilearns_heavy_parts(run_python):
    code = "import sys\nfrom ibma_app.images.mni_masks import mni_brain\nprint(mni_brain(1).mask.sum())\n"
    done = run_python("-c", code + "print('sklearn' in sys.modules)")
    assert done.stdout.split() == [str(mni_brain(1).mask.sum()), "False"]


@pytest.mark.parametrize(("resolution", "files"), [(1, 0), (2, 1)])
def test_the_brain_masks_are_nilearns(resolution, files, tmp_path, monkeypatch):
    """Where nilearn computes them, they are kept, then read; a damaged file is no obstacle."""
    datasets = pytest.importorskip("nilearn.datasets")
    expected = datasets.load_mni152_brain_mask(resolution=resolution)
    folder = tmp_path / "sub" / "folder"
    monkeypatch.setattr("ibma_app.images.mni_masks.cache_folders", lambda: (folder,))
    for state in ("new", "kept", "damaged"):
        for kept in folder.glob("*") if state == "damaged" else ():
            kept.write_bytes(kept.read_bytes()[:100])
        brain = mni_brain(resolution)
        np.testing.assert_array_equal(brain.mask, np.asanyarray(expected.dataobj) != 0)
        np.testing.assert_array_equal(brain.affine, expected.affine)
    assert len(list(folder.glob("*"))) == files


def test_the_brain_mask_comes_where_nothing_can_be_kept(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("ibma_app.images.mni_masks.cache_folders", lambda: (tmp_path / "file" / "below",))
    assert mni_brain(2).mask.any()
