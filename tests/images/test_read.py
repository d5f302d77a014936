"""Images as they are found in the wild."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.images.read import read_geometry, read_image

AFFINE = np.array([[-2.5, 0, 0.1, 30], [0, 2.0, 0, -12], [0, 0.2, 3.0, -8], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)


@pytest.fixture
def volume(rng):
    return rng.normal(size=SHAPE).astype(np.float32)


@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Spm2AnalyzeImage])
@pytest.mark.parametrize("order", ["<", ">"])
def test_formats_and_byte_orders_read_as_nibabel_reads_them(tmp_path, volume, make, order):
    header = make.header_class(endianness=order)
    header.set_data_dtype(np.float32)
    path = tmp_path / ("map.img" if make in (nib.Nifti1Pair, nib.Spm2AnalyzeImage) else "map.nii")
    make(volume, AFFINE, header).to_filename(path)
    before = sorted(entry.name for entry in tmp_path.iterdir())
    image, geometry = read_image(path), read_geometry(path)
    np.testing.assert_array_equal(image.data, volume)
    assert image.data.dtype == np.float32
    assert image.data.dtype.isnative
    np.testing.assert_allclose(geometry.affine, nib.load(path).affine, atol=1e-12)
    assert geometry.shape == image.geometry.shape == SHAPE
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
def test_scale_factors_are_applied(tmp_path, rng, dtype):
    raw = rng.integers(0, 100, size=SHAPE).astype(dtype)
    image = nib.Nifti1Image(raw, AFFINE)
    image.header.set_slope_inter(0.01, 3.0)
    nib.save(image, tmp_path / "map.nii.gz")
    expected = nib.load(tmp_path / "map.nii.gz").get_fdata()
    found = read_image(tmp_path / "map.nii.gz").data
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_a_name_that_lies_about_compression_is_read(tmp_path, volume):
    nib.Nifti1Image(volume, AFFINE).to_filename(tmp_path / "plain.nii")
    shutil.copy(tmp_path / "plain.nii", tmp_path / "named.nii.gz")
    (tmp_path / "packed.nii").write_bytes(gzip.compress((tmp_path / "plain.nii").read_bytes()))
    for name in ("named.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).data, volume)
        assert read_geometry(tmp_path / name).shape == SHAPE


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1)])
def test_trailing_axes_of_one_are_dropped(tmp_path, volume, shape):
    nib.Nifti1Image(volume.reshape(shape), AFFINE).to_filename(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "map.nii.gz").data, volume)
    assert read_geometry(tmp_path / "map.nii.gz").shape == SHAPE


@pytest.mark.parametrize("shape", [(5, 6, 7, 2), (5, 6, 7, 1, 3)])
@pytest.mark.parametrize("read", [read_image, read_geometry])
def test_several_volumes_are_refused_by_name(tmp_path, shape, read):
    nib.Nifti1Image(np.ones(shape, np.float32), AFFINE).to_filename(tmp_path / "many.nii.gz")
    with pytest.raises(DataError, match=r"many\.nii\.gz"):
        read(tmp_path / "many.nii.gz")


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
def test_truncated_files_are_named(tmp_path, rng, name, keep):
    path = tmp_path / name
    nib.Nifti1Image(rng.normal(size=(12, 12, 12)), AFFINE).to_filename(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ReadWriteError, match=r"map\.nii.*truncated"):
        read_image(path)


def test_damaged_gzip_content_is_named(tmp_path, rng):
    path = tmp_path / "map.nii.gz"
    nib.Nifti1Image(rng.normal(size=SHAPE), AFFINE).to_filename(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ReadWriteError, match=r"map\.nii\.gz"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_geometry])
@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", ReadWriteError, "empty"),
        (b"subject,age\n1,20\n" * 50, ReadWriteError, "not a NIfTI"),
        (b"/annex/objects/SHA256E-s1--ab.nii.gz", ReadWriteError, "datalad get"),
        (b"\x5c\x01\x00\x00short", ReadWriteError, "truncated"),
    ],
)
def test_what_is_no_image_is_told_with_a_remedy(tmp_path, read, content, error, words):
    path = tmp_path / "map.nii.gz"
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        read(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("read", [read_image, read_geometry])
def test_missing_files_are_input_errors(tmp_path, read):
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.nii.gz").mkdir()
    for name, words in (
        ("gone.nii.gz", "not exist"),
        ("link.nii.gz", "datalad"),
        ("folder.nii.gz", "opened"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)
    (tmp_path / "half.img").write_bytes(b"x")
    with pytest.raises(InputError, match=r"half\.hdr is missing"):
        read(tmp_path / "half.img")


def test_header_codes_are_kept(tmp_path, volume):
    image = nib.Nifti1Image(volume, None)
    image.set_sform(AFFINE, code=4)
    image.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "map.nii.gz")
    geometry = read_geometry(tmp_path / "map.nii.gz")
    assert (geometry.sform_code, geometry.qform_code, geometry.xyzt_units) == (4, 1, 2)
    np.testing.assert_allclose(geometry.qform, np.diag([2.0, 2, 2, 1]), atol=1e-6)
    grid = geometry.as_grid()
    assert grid.mask.all()
    assert grid.sform_code == 4


def test_real_maps_read_as_nibabel_reads_them(shared):
    folder = shared / "realdata"
    for path in (
        *sorted((folder / "wager2008/con").glob("*.img"))[:2],
        folder / "pain21/maps/pain_01_beta.nii.gz",
    ):
        image = read_image(path)
        expected = nib.load(path)
        np.testing.assert_array_equal(image.data, expected.get_fdata().reshape(image.data.shape))
        np.testing.assert_allclose(image.geometry.affine, expected.affine)
