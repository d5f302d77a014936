"""Masks: 0 and 1, probabilities, and what is neither."""

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError
from ibma_app.core.grid import Grid
from ibma_app.images.masks import mask_grid, read_mask

AFFINE = np.array([[-4.0, 0, 0, 10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])
SHAPE = (4, 5, 6)


@pytest.fixture
def half(rng):
    return rng.random(SHAPE) < 0.5


def save(path, values, dtype=np.float32):
    nib.Nifti1Image(np.asarray(values).astype(dtype), AFFINE).to_filename(path)
    return path


@pytest.mark.parametrize(("value", "dtype"), [(1, np.uint8), (255, np.uint8), (1, np.float32), (0.99999, np.float32)])
def test_zero_and_one_value_are_a_mask(tmp_path, half, value, dtype):
    mask = read_mask(save(tmp_path / "m.nii", half * value, dtype), "The mask")
    np.testing.assert_array_equal(mask.inside, half)
    assert mask.note == ""


def test_nan_is_outside_and_a_mask_may_be_everywhere(tmp_path, half):
    np.testing.assert_array_equal(read_mask(save(tmp_path / "n.nii", np.where(half, 1, np.nan)), "m").inside, half)
    assert read_mask(save(tmp_path / "all.nii", np.ones(SHAPE)), "m").inside.all()


def test_scale_factors_that_miss_one_by_a_hair_do_no_harm(tmp_path, half, rng):
    mask = read_mask(save(tmp_path / "m.nii", half + rng.uniform(-5e-4, 5e-4, SHAPE)), "The mask")
    np.testing.assert_array_equal(mask.inside, half)
    assert mask.note == ""


def test_probabilities_are_inside_from_one_half_on_and_that_is_told(tmp_path, rng):
    values = rng.random(SHAPE).astype(np.float32)
    values[0, 0, 0], values[0, 0, 1] = 0.5, 0.4999
    mask = read_mask(save(tmp_path / "p.nii", values), "The mask p.nii")
    np.testing.assert_array_equal(mask.inside, values >= 0.5)
    assert mask.note.startswith("The mask p.nii holds values between 0 and 1: taken for probabilities")
    assert f"({(values >= 0.5).sum()} of its 120 voxels)" in mask.note


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda half: half * 0, "is empty"),
        (lambda half: np.where(half, 1, -1), "values run from -1 to 1"),
        (lambda half: half * -1.0, "values run from -1 to 0"),
        (lambda half: half * np.arange(1, 121).reshape(SHAPE) * 10, "is no mask"),  # an anatomical image
        (lambda half: half * 1 + (np.arange(120).reshape(SHAPE) > 60), "values run from 0 to 2"),  # labels
        (lambda half: half * np.linspace(0, 100, 120).reshape(SHAPE), "is no mask"),  # per cent
        (lambda half: half * np.linspace(0.1, 0.4, 120).reshape(SHAPE), "there are none"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(tmp_path, half, make, words):
    with pytest.raises(DataError, match=f"^The mask .*{words}"):
        read_mask(save(tmp_path / "m.nii", make(half)), "The mask m.nii")


def test_a_models_mask_is_put_on_its_grid_where_it_fits(tmp_path, half):
    grid = Grid.whole(AFFINE, SHAPE)
    path = save(tmp_path / "mask.nii", half, np.uint8)
    np.testing.assert_array_equal(mask_grid(grid, path).mask, half)
    hair = AFFINE.copy()
    hair[0, 3] += 0.02
    np.testing.assert_array_equal(mask_grid(Grid.whole(hair, SHAPE), path).mask, half)
    away = AFFINE.copy()
    away[0, 3] += 1
    for other in (Grid.whole(away, SHAPE), Grid.whole(AFFINE, (5, 5, 5))):
        assert mask_grid(other, path).mask.all()
    assert mask_grid(grid, None).mask.all()
    assert mask_grid(grid, tmp_path / "gone.nii").mask.all()
    with pytest.raises(InputError):
        read_mask(tmp_path / "gone.nii", "The mask")
