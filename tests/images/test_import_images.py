"""Images as they are found in the wild."""

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.grid import Grid
from ibma_app.importers import images
from ibma_app.importers.images import open_image, outside_mni, read_volume, volume_of

VALUES = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


def test_a_last_axis_of_one_is_dropped(tmp_path: Path):
    nib.Nifti1Image(VALUES[..., None, None], AFFINE).to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.data, VALUES)
    assert volume.grid.shape == (4, 5, 6)


def test_several_volumes_need_an_index(tmp_path: Path):
    both = np.stack([VALUES, 2 * VALUES], axis=-1)[:, :, :, None]
    nib.Nifti1Image(both, AFFINE).to_filename(tmp_path / "a.nii")
    with pytest.raises(DataError, match="2 volumes"):
        read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume_of(open_image(tmp_path / "a.nii"), tmp_path, 1).data, 2 * VALUES)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian(tmp_path: Path, kind: type):
    header = kind.header_class(endianness=">")
    kind(VALUES.astype(">f4"), AFFINE, header).to_filename(tmp_path / "a.nii")
    assert int.from_bytes((tmp_path / "a.nii").read_bytes()[:4], "big") in (348, 540)
    data = read_volume(tmp_path / "a.nii").data
    np.testing.assert_array_equal(data, VALUES)
    assert data.dtype == np.dtype("=f4")


def test_int16_with_scale_factors(tmp_path: Path):
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.data.dtype == np.float64
    np.testing.assert_allclose(volume.data, VALUES, atol=np.ptp(VALUES) / 2**16)


def test_content_counts_more_than_the_name(tmp_path: Path):
    nib.Nifti1Image(VALUES, AFFINE).to_filename(tmp_path / "plain.nii")
    (tmp_path / "named.nii.gz").write_bytes((tmp_path / "plain.nii").read_bytes())
    (tmp_path / "packed.nii").write_bytes(gzip.compress((tmp_path / "plain.nii").read_bytes()))
    for name in ("named.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, VALUES)


def test_nan_is_kept_as_it_is(tmp_path: Path):
    holes = np.where(VALUES > 0, VALUES, np.nan)
    nib.Nifti1Image(holes, AFFINE).to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, holes)


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nib.Nifti1Image(VALUES, AFFINE).to_filename(tmp_path / "a.nii")
    whole = (tmp_path / "a.nii").read_bytes()
    for name, content, message in (
        ("half.nii", whole[:500], "truncated"),
        ("half.nii.gz", gzip.compress(whole)[:60], "truncated"),
        ("empty.nii", b"", "empty"),
        ("text.nii", b"x" * 1000, "no image"),
        ("annex.nii.gz", b"/annex/objects/MD5E-s1--0.nii.gz\n", "placeholder"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadWriteError, match=message):
            read_volume(tmp_path / name)
    with pytest.raises(InputError, match="does not exist"):
        read_volume(tmp_path / "nowhere.nii")
    monkeypatch.setattr(images, "LARGEST", 500)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="unpacks"):
        read_volume(tmp_path / "bomb.nii.gz")


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((30000, 30000, 30000), DataError, "would fill"),  # before memory is claimed for it
        ((300, 300, 300), ReadWriteError, "truncated"),
        ((4, -1, 3), DataError, "holds no voxels"),
    ],
)
def test_absurd_shapes_are_refused_by_name(tmp_path: Path, shape: tuple[int, int, int], error: type, message: str):
    nib.Nifti1Image(VALUES.astype(np.float32), AFFINE).to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<8h", raw, 40, 3, *shape, 1, 1, 1, 1)
    for name, content in (("a.nii", bytes(raw)), ("a.nii.gz", gzip.compress(raw))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=f"{name} .*{message}"):
            read_volume(tmp_path / name)
    pair = nib.Nifti1Pair(VALUES.astype(np.float32), AFFINE)
    pair.to_filename(tmp_path / "b.img")
    header = bytearray((tmp_path / "b.hdr").read_bytes())
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    (tmp_path / "b.hdr").write_bytes(header)
    with pytest.raises(error, match=r"b\.img"):
        read_volume(tmp_path / "b.img")


def test_the_box_of_mni_space():
    whole = np.ones((91, 109, 91), dtype=bool)
    mni = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    assert outside_mni(Grid(mni, whole)) == ""
    away = mni.copy()
    away[0, 3] = 500
    assert "along x" in outside_mni(Grid(away, whole))
    assert "origin" in outside_mni(Grid(np.diag([1.0, 1.0, 1.0, 1.0]), np.ones((5, 5, 5), dtype=bool)))
