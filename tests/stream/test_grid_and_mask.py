"""Which grid, and which voxels."""

import builtins

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, DatasetError, InputError
from ibma_app.core.grid import Grid
from ibma_app.stream.grid_and_mask import choose_grid, choose_mask

AFFINE = np.array([[-4.0, 0, 0, 10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])


def test_one_grid_is_kept_with_its_codes(observe):
    grid, notes = choose_grid([observe(str(k), {"effect": np.ones((4, 5, 6))}) for k in range(3)])
    np.testing.assert_array_equal(grid.affine, AFFINE)
    assert grid.shape == (4, 5, 6)
    assert grid.sform_code == 2
    assert notes == ()


def test_a_flipped_lattice_is_the_same_grid(observe):
    flip = AFFINE @ np.array([[-1.0, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    volume = np.ones((4, 5, 6))
    grid, _ = choose_grid([observe("1", {"effect": volume}), observe("2", {"effect": volume}, affine=flip)])
    np.testing.assert_array_equal(grid.affine, AFFINE)


def test_subjects_on_two_grids_are_refused_with_both_named(observe):
    rows = [observe("1", {"effect": np.ones((4, 5, 6))}), observe("2", {"effect": np.ones((4, 5, 7))})]
    with pytest.raises(DatasetError, match="--grid FILE") as caught:
        choose_grid(rows, "common", "subject")
    for words in (str(rows[0].path), str(rows[1].path), "4 x 5 x 6", "4 x 5 x 7"):
        assert words in caught.value.message


def test_kinds_that_are_not_needed_do_not_count(observe):
    rows = [observe("1", {"effect": np.ones((4, 5, 6)), "p": np.ones((3, 3, 3))})]
    grid, _ = choose_grid(rows, needs=["effect"])
    assert grid.shape == (4, 5, 6)
    with pytest.raises(DatasetError):
        choose_grid(rows)


def test_runs_take_the_most_common_grid(observe):
    sizes = [(4, 5, 7), (4, 5, 6), (4, 5, 6)]
    rows = [observe(str(k), {"effect": np.ones(size)}) for k, size in enumerate(sizes)]
    assert choose_grid(rows, "common", "run")[0].shape == (4, 5, 6)


def test_a_file_can_be_the_grid(observe, tmp_path):
    nib.Nifti1Image(np.zeros((7, 7, 7), np.float32), np.eye(4)).to_filename(tmp_path / "grid.nii.gz")
    grid, _ = choose_grid([observe("1", {"effect": np.ones((4, 5, 6))})], tmp_path / "grid.nii.gz")
    assert grid.shape == (7, 7, 7)


def test_studies_on_two_grids_go_to_mni2mm_with_a_note(observe):
    rows = [observe("1", {"z": np.ones((4, 5, 6))}), observe("2", {"z": np.ones((4, 5, 7))})]
    grid, notes = choose_grid(rows, "common", "study")
    assert grid.shape == (99, 117, 95)
    assert "2 mm" in notes[0]
    np.testing.assert_allclose(np.abs(np.diag(grid.affine)), [2, 2, 2, 1])


@pytest.fixture
def grid():
    return Grid(AFFINE, np.ones((4, 5, 6), bool))


def test_a_mask_file_of_another_grid(grid, tmp_path):
    inside = np.zeros((8, 10, 12))
    inside[:4] = [[1.0]]
    inside[0, 0, 0] = np.nan
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1.0])
    nib.Nifti1Image(inside, fine).to_filename(tmp_path / "mask.nii.gz")
    mask, _ = choose_mask(grid, tmp_path / "mask.nii.gz", "subject", [None])
    expected = np.zeros(grid.shape, bool)
    expected[:2] = True
    expected[0, 0, 0] = False
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("fill", "shift", "words"), [(0, 0, "empty"), (1, 500, "no voxel")])
def test_masks_without_voxels_are_refused(grid, tmp_path, fill, shift, words):
    affine = AFFINE.copy()
    affine[0, 3] += shift
    nib.Nifti1Image(np.full((4, 5, 6), fill, np.uint8), affine).to_filename(tmp_path / "mask.nii.gz")
    with pytest.raises(DataError, match=words):
        choose_mask(grid, tmp_path / "mask.nii.gz", "subject", [None])


def test_the_brain_mask_is_for_studies_in_mni_alone(grid):
    assert choose_mask(grid, "auto", "subject", ["MNI152NLin6Asym"])[0].all()
    assert choose_mask(grid, "auto", "study", ["MNI152NLin6Asym", None])[0].all()
    assert choose_mask(grid, "data", "study", ["MNI152NLin6Asym"])[0].all()
    around = Grid(
        np.array([[8.0, 0, 0, -88], [0, 8, 0, -124], [0, 0, 8, -70], [0, 0, 0, 1]]),
        np.ones((23, 28, 22), bool),
    )
    brain, _ = choose_mask(around, "auto", "study", ["MNI152NLin6Asym", "MNI152NLin2009cAsym"])
    litres = brain.sum() * around.voxel_volume / 1e6
    assert 1.5 < litres < 2.2  # the MNI152 brain
    far = Grid(AFFINE + np.array([[0, 0, 0, 900.0]] + [[0] * 4] * 3), np.ones((4, 5, 6), bool))
    with pytest.raises(DataError, match="MNI152 brain"):
        choose_mask(far, "auto", "study", ["MNI152NLin6Asym"])


def test_probabilities_as_mask_are_told(grid, tmp_path, rng):
    values = rng.random((4, 5, 6)).astype(np.float32)
    nib.Nifti1Image(values, AFFINE).to_filename(tmp_path / "label-GM_probseg.nii.gz")
    mask, (note,) = choose_mask(grid, tmp_path / "label-GM_probseg.nii.gz", "subject", [None])
    np.testing.assert_array_equal(mask, values >= 0.5)
    assert "label-GM_probseg.nii.gz (--mask) holds values between 0 and 1: taken for probabilities" in note


def test_what_states_no_place_is_put_nowhere(tmp_path):
    unplaced = Grid.whole(AFFINE, (4, 5, 6), sform_code=0)
    with pytest.raises(DataError, match=r"state no place .* --mask data"):
        choose_mask(unplaced, "auto", "study", ["MNI152NLin6Asym"])
    assert choose_mask(unplaced, "data", "study", ["MNI152NLin6Asym"])[0].all()
    assert choose_mask(unplaced, "auto", "subject", ["MNI152NLin6Asym"])[0].all()
    whole = np.ones((4, 5, 6), np.uint8)
    nib.Nifti1Image(whole, AFFINE).to_filename(tmp_path / "same.nii")
    assert choose_mask(unplaced, tmp_path / "same.nii", "subject", [None])[0].all()
    nib.Nifti1Image(whole, np.diag([3.0, 3, 3, 1])).to_filename(tmp_path / "other.nii")
    with pytest.raises(DataError, match=r"other\.nii \(--mask\) cannot be brought .* the maps state no place"):
        choose_mask(unplaced, tmp_path / "other.nii", "subject", [None])


def test_without_templateflow_the_template_mask_is_an_input_error(grid, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("templateflow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="--mask FILE"):
        choose_mask(grid, "template", "subject", ["MNI152NLin6Asym"])
    with pytest.raises(DataError, match="one known space"):
        choose_mask(grid, "template", "subject", [None])
