"""Time series read volume by volume: nibabel's values, and what is wrong with files in words."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.images.series import read_series, read_series_header, read_series_mask, smoother, write_series

SHAPE, T = (5, 4, 3), 37
AFFINE = np.array([[-3.0, 0, 0, 6], [0, 3.0, 0, -6], [0, 0, 3.5, -4], [0, 0, 0, 1]])
MASK = np.random.default_rng(1).random(SHAPE) < 0.6


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(800, 30, (*SHAPE, T)).astype(np.float32)


def _rows(path, first: int = 0, **more) -> np.ndarray:
    header = read_series_header(path)
    rows = np.empty((MASK.sum(), header.n_volumes - first), np.float32)
    read_series(header, MASK, rows, first=first, **more)
    return rows


@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz"])
@pytest.mark.parametrize("kind", ["float32", "int16 with slope", "big-endian", "uint16"])
def test_values_are_nibabels(tmp_path, values, name, kind):
    header = nib.Nifti1Header(endianness=">" if kind == "big-endian" else "<")
    image = nib.Nifti1Image(values, AFFINE, header)
    image.set_data_dtype({"int16 with slope": np.int16, "uint16": np.uint16}.get(kind, np.float32))
    image.header.set_zooms((3, 3, 3.5, 2.5))
    image.to_filename(tmp_path / name)
    np.testing.assert_array_equal(
        _rows(tmp_path / name), nib.load(tmp_path / name).get_fdata()[MASK].astype(np.float32)
    )
    assert read_series_header(tmp_path / name).repetition_time == 2.5


def test_the_first_volumes_are_passed_over(tmp_path, values):
    nib.Nifti1Image(values, AFFINE).to_filename(tmp_path / "bold.nii.gz")
    np.testing.assert_array_equal(_rows(tmp_path / "bold.nii.gz", first=5), values[MASK][:, 5:])


def test_members_of_gzip_follow_each_other(tmp_path, values):
    nib.Nifti1Image(values, AFFINE).to_filename(tmp_path / "bold.nii")
    raw = (tmp_path / "bold.nii").read_bytes()
    (tmp_path / "bold.nii.gz").write_bytes(gzip.compress(raw[:3000]) + gzip.compress(raw[3000:]))
    np.testing.assert_array_equal(_rows(tmp_path / "bold.nii.gz"), values[MASK])


@pytest.mark.parametrize(("unit", "seconds"), [("sec", 2.0), ("msec", 2.0), ("unknown", 2.0)])
def test_units_of_time(tmp_path, values, unit, seconds):
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header.set_zooms((3, 3, 3.5, 2000.0 if unit == "msec" else 2.0))
    image.to_filename(tmp_path / "bold.nii")
    assert read_series_header(tmp_path / "bold.nii").repetition_time == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz"])
def test_truncated(tmp_path, values, name):
    nib.Nifti1Image(values, AFFINE).to_filename(tmp_path / name)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(ReadWriteError, match="is truncated"):
        _rows(tmp_path / name)


def test_missing_and_other_formats(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_series_header(tmp_path / "none.nii.gz")
    (tmp_path / "text.nii").write_text("no image" * 100)
    with pytest.raises(ReadWriteError, match="not a NIfTI"):
        read_series_header(tmp_path / "text.nii")


def test_smoothing_is_nilearns(tmp_path, values):
    from nilearn.image import smooth_img

    image = nib.Nifti1Image(values[..., :3], AFFINE)
    image.to_filename(tmp_path / "bold.nii")
    header = read_series_header(tmp_path / "bold.nii")
    rows = np.empty((MASK.sum(), 3), np.float32)
    read_series(header, MASK, rows, change=smoother(header.grid, 6.0))
    np.testing.assert_allclose(rows, smooth_img(image, 6.0).get_fdata()[MASK], rtol=1e-5)


def test_masks_of_several_volumes(tmp_path):
    grid = _grid(tmp_path)
    several = np.repeat(MASK[..., None], 4, axis=3).astype(np.uint8)
    several[..., 2][np.argwhere(MASK)[0][0]] = 0
    nib.Nifti1Image(several, AFFINE).to_filename(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_series_mask(tmp_path / "mask.nii.gz", grid), several.all(axis=3))
    nib.Nifti1Image(MASK[..., None].astype(np.uint8), AFFINE).to_filename(tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(read_series_mask(tmp_path / "one.nii.gz", grid), MASK)


def _grid(tmp_path):
    nib.Nifti1Image(np.zeros((*SHAPE, 2), np.float32), AFFINE).to_filename(tmp_path / "bold.nii")
    return read_series_header(tmp_path / "bold.nii").grid


def test_masks_that_are_none(tmp_path):
    grid = _grid(tmp_path)
    nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE).to_filename(tmp_path / "empty.nii")
    with pytest.raises(DataError, match="no voxel is inside"):
        read_series_mask(tmp_path / "empty.nii", grid)
    nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), AFFINE).to_filename(tmp_path / "other.nii")
    with pytest.raises(DataError, match="not on one grid"):
        read_series_mask(tmp_path / "other.nii", grid)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_written_series_are_read_by_nibabel(tmp_path, values, dtype):
    grid = Grid.whole(AFFINE, SHAPE, sform_code=4).with_mask(MASK)
    rows = values[MASK]
    for name in ("one.nii.gz", "two.nii.gz"):
        blocks = (rows[:, start : start + 10] for start in range(0, T, 10))
        write_series(tmp_path / name, blocks, grid, T, 0.8, dtype)
    image = nib.load(tmp_path / "one.nii.gz")
    found = np.asanyarray(image.dataobj)
    assert (found.dtype, found.shape) == (dtype, (*SHAPE, T))
    np.testing.assert_array_equal(found[MASK], np.rint(rows) if dtype is np.int16 else rows)
    assert not found[~MASK].any()
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert read_series_header(tmp_path / "one.nii.gz").repetition_time == pytest.approx(0.8)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
