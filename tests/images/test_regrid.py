"""Other grids: exact where the lattice is shared, fair to edges where it is not."""

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import resample_img, smooth_img
from scipy import ndimage

from ibma_app.core.block import BACKGROUND, COVERED, EDGE, OUTSIDE
from ibma_app.core.grid import Grid
from ibma_app.images.regrid import regrid, regrid_mask, reorient, same_lattice, smooth, tell_apart, voxels_apart

AFFINE = np.array([[3.0, 0, 0, -20], [0, 3.0, 0, -25], [0, 0, 3.0, -15], [0, 0, 0, 1]])
SHAPE = (10, 12, 9)


def flipped(volume, axis):
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, axis] * (volume.shape[axis] - 1)
    affine[:3, axis] *= -1
    return np.flip(volume, axis), Grid.whole(affine, volume.shape)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_lattice_comes_back_exactly(rng, axis):
    volume = rng.normal(size=SHAPE)
    turned, source = flipped(volume, axis)
    grid = Grid.whole(AFFINE, SHAPE)
    assert same_lattice(grid, source)
    assert not grid.matches(source)
    np.testing.assert_array_equal(reorient(turned, source, grid), volume)
    arrays, reasons = regrid({"effect": turned}, np.zeros(SHAPE, np.uint8), source, grid)
    np.testing.assert_array_equal(arrays["effect"], volume)
    assert (reasons == COVERED).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_hair_is_measured_whatever_the_order_of_the_axes(rng, axis):
    volume = rng.normal(size=SHAPE)
    turned, source = flipped(volume, axis)
    grid = Grid.whole(AFFINE, SHAPE)
    for step, apart in ((0.0, 0.0), (0.02, 0.02), (0.14, 0.14), (0.16, np.inf)):  # a twentieth of 3 mm: 0.15 mm
        affine = source.affine.copy()
        affine[(axis + 1) % 3, 3] += step
        other = Grid.whole(affine, source.shape)
        assert voxels_apart(grid, other) == pytest.approx(apart, abs=1e-9)
        assert same_lattice(grid, other) is bool(np.isfinite(apart))
        assert f"up to {step:.3g} mm from there" in tell_apart(grid, other)
        if np.isfinite(apart):
            np.testing.assert_array_equal(reorient(turned, other, grid), volume)


def test_differences_are_told(rng):
    grid = Grid.whole(AFFINE, SHAPE)
    assert tell_apart(grid, Grid.whole(AFFINE, (10, 12, 8))) == "10 x 12 x 8 voxels, not 10 x 12 x 9"
    moved = AFFINE.copy()
    moved[2, 3] += 0.6
    assert tell_apart(grid, Grid.whole(moved, SHAPE)) == "its voxels lie up to 0.6 mm from there, 0.2 of a voxel"


def test_permuted_axes_come_back_exactly(rng):
    volume = rng.normal(size=SHAPE)
    source = Grid.whole(AFFINE[:, [2, 0, 1, 3]], (9, 10, 12))
    np.testing.assert_array_equal(reorient(volume.transpose(2, 0, 1), source, Grid.whole(AFFINE, SHAPE)), volume)


def test_a_cropped_lattice_is_picked_and_the_rest_is_outside(rng):
    volume = rng.normal(size=SHAPE)
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ [2, 0, 1]
    source = Grid.whole(affine, (8, 12, 8))
    grid = Grid.whole(AFFINE, SHAPE)
    assert not same_lattice(grid, source)
    arrays, reasons = regrid({"z": volume[2:, :, 1:]}, np.zeros((8, 12, 8), np.uint8), source, grid)
    np.testing.assert_array_equal(arrays["z"][2:, :, 1:], volume[2:, :, 1:])
    assert (reasons[:2] == OUTSIDE).all()
    assert (reasons[2:, :, 1:] == COVERED).all()


def test_interpolation_is_nilearns_where_all_is_covered(rng):
    volume = rng.normal(size=SHAPE)
    target = np.array([[-2.0, 0.1, 0, 2], [0, 2.2, 0, -18], [0.1, 0, 1.9, -9], [0, 0, 0, 1]])
    shape = (6, 10, 8)
    arrays, reasons = regrid(
        {"effect": volume}, np.zeros(SHAPE, np.uint8), Grid.whole(AFFINE, SHAPE), Grid.whole(target, shape)
    )
    expected = resample_img(
        nib.Nifti1Image(volume, AFFINE),
        target,
        shape,
        interpolation="linear",
        copy_header=True,
        force_resample=True,
    ).get_fdata()
    assert (reasons == COVERED).mean() > 0.9
    np.testing.assert_allclose(arrays["effect"][reasons == COVERED], expected[reasons == COVERED], rtol=1e-9)


def test_an_edge_neither_halves_an_effect_nor_bleeds(rng):
    reasons = np.zeros(SHAPE, np.uint8)
    reasons[:5] = BACKGROUND
    effect = np.where(reasons == COVERED, 2.0, 0.0)
    target = AFFINE.copy()
    target[0, 3] += 1.2  # 0.4 of a voxel
    arrays, why = regrid({"effect": effect}, reasons, Grid.whole(AFFINE, SHAPE), Grid.whole(target, SHAPE))
    covered = why == COVERED
    # floating point alone: a quotient of two interpolations of constants
    np.testing.assert_allclose(arrays["effect"][covered], 2.0, rtol=1e-12)
    assert covered[5:-1].all()
    assert (why[:4] == BACKGROUND).all()
    assert not covered[4].any()  # 0.4 of it was covered
    assert set(np.unique(why[4])) <= {BACKGROUND, EDGE}
    assert (why[-1] == OUTSIDE).all() or not covered[-1].any()


@pytest.mark.parametrize(
    ("fwhm", "size", "shift", "share"),
    [(2.0, 2.0, 1.0, 0.63), (3.0, 3.0, 0.0, 0.88)],  # half a voxel away; from 3 mm to 2 mm
)
def test_interpolated_variances_overstate(rng, fwhm, size, shift, share):
    """What the methods text says of studies on other grids: 0.63 to 0.88 of the map's variance is left."""
    shape = (48,) * 3
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), fwhm / np.sqrt(8 * np.log(2)), mode="wrap", truncate=6)
    target = np.diag([2.0, 2.0, 2.0, 1.0])
    target[:3, 3] = 2.0 + shift
    arrays = {"effect": noise / noise.std(), "variance": np.ones(shape)}
    source, grid = Grid.whole(np.diag([size, size, size, 1.0]), shape), Grid.whole(target, (44,) * 3)
    found, _ = regrid(arrays, np.zeros(shape, dtype=np.uint8), source, grid)
    np.testing.assert_allclose(found["variance"], 1.0, rtol=1e-12)
    assert found["effect"].var() == pytest.approx(share, abs=0.04)


def test_masks_go_to_the_nearest_voxel(rng):
    mask = rng.random(SHAPE) < 0.4
    target = np.diag([1.5, 1.5, 1.5, 1.0])
    target[:3, 3] = AFFINE[:3, 3] + 0.2
    expected = resample_img(
        nib.Nifti1Image(mask.astype(np.uint8), AFFINE),
        target,
        (15, 18, 12),
        interpolation="nearest",
        copy_header=True,
        force_resample=True,
    ).get_fdata()
    found = regrid_mask(mask, Grid.whole(AFFINE, SHAPE), Grid.whole(target, (15, 18, 12)))
    np.testing.assert_array_equal(found, expected > 0)


def test_smoothing_is_nilearns_inside_and_normalised_at_edges(rng):
    volume = rng.normal(size=(20, 20, 20))
    grid = Grid.whole(np.diag([2.0, 2.0, 3.0, 1.0]), volume.shape)
    whole = np.ones(volume.shape, bool)
    expected = smooth_img(nib.Nifti1Image(volume, grid.affine), 5.0).get_fdata()
    inner = (slice(8, 12),) * 3
    np.testing.assert_allclose(smooth(volume, whole, 5.0, grid)[inner], expected[inner], rtol=1e-6)
    half = whole.copy()
    half[10:] = False
    constant = smooth(np.where(half, 3.0, 99.0), half, 5.0, grid)
    np.testing.assert_allclose(constant[half], 3.0, rtol=1e-12)
    assert not constant[~half].any()
