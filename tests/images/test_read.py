"""Images as they are found in the wild."""

import gzip
import os
import shutil
import struct
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.images.read import decode_image, read_extension, read_grid, read_header, read_image
from ibma_app.images.write import encode_map, make_header

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
    image, grid = read_image(path), read_grid(path)
    np.testing.assert_array_equal(image.data, volume)
    assert image.data.dtype == np.float32
    assert image.data.dtype.isnative
    np.testing.assert_allclose(grid.affine, nib.load(path).affine, atol=1e-12)
    assert grid.shape == image.grid.shape == SHAPE
    assert grid.mask.all()
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
        assert read_grid(tmp_path / name).shape == SHAPE


@pytest.mark.parametrize("shape", [(5, 6, 7, 1), (5, 6, 7, 1, 1)])
def test_trailing_axes_of_one_are_dropped(tmp_path, volume, shape):
    nib.Nifti1Image(volume.reshape(shape), AFFINE).to_filename(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "map.nii.gz").data, volume)
    assert read_grid(tmp_path / "map.nii.gz").shape == SHAPE


@pytest.mark.parametrize("shape", [(5, 6, 7, 2), (5, 6, 7, 1, 3)])
@pytest.mark.parametrize("read", [read_image, read_grid])
def test_several_volumes_are_refused_by_name(tmp_path, shape, read):
    nib.Nifti1Image(np.ones(shape, np.float32), AFFINE).to_filename(tmp_path / "many.nii.gz")
    with pytest.raises(DataError, match=r"many\.nii\.gz"):
        read(tmp_path / "many.nii.gz")


def test_an_index_chooses_a_volume(tmp_path, volume):
    both = np.stack([volume, 2 * volume, 3 * volume], axis=-1)[:, :, :, None]
    for name in ("many.nii", "many.nii.gz"):
        nib.Nifti1Image(both, AFFINE).to_filename(tmp_path / name)
        assert read_header(tmp_path / name).n_volumes == 3
        for index in range(3):
            np.testing.assert_array_equal(read_image(tmp_path / name, index).data, (index + 1) * volume)
    short = (tmp_path / "many.nii").read_bytes()[: 352 + 2 * volume.nbytes]
    (tmp_path / "many.nii").write_bytes(short)
    np.testing.assert_array_equal(read_image(tmp_path / "many.nii", 1).data, 2 * volume)
    with pytest.raises(ReadWriteError, match="truncated"):
        read_image(tmp_path / "many.nii", 2)


def test_nan_is_kept_as_it_is(tmp_path, volume):
    holes = np.where(volume > 0, volume, np.nan)
    nib.Nifti1Image(holes, AFFINE).to_filename(tmp_path / "map.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "map.nii").data, holes)


def test_images_in_bytes_are_read_alike(tmp_path, volume):
    nib.Nifti1Image(volume, AFFINE).to_filename(tmp_path / "map.nii")
    raw = (tmp_path / "map.nii").read_bytes()
    for content in (raw, gzip.compress(raw)):
        image = decode_image(lambda size, whole=content: whole[:size], Path("pack.zip/map.nii"))
        np.testing.assert_array_equal(image.data, volume)
        np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-6)
        with pytest.raises(ReadWriteError, match=r"pack\.zip/map\.nii is truncated"):
            decode_image(lambda size, whole=content: whole[:-50][:size], Path("pack.zip/map.nii"))
    with pytest.raises(ReadWriteError, match="not a NIfTI"):
        decode_image(lambda size: b"x" * min(size, 1000), Path("pack.zip/map.nii"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image])
def test_extensions_are_found_by_their_code(tmp_path, volume, make, order):
    image = make(volume, AFFINE, make.header_class(endianness=order))
    for code, content in ((6, b"a comment"), (4, b"<AFNI_attributes/>" * 90)):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    for name in ("map.nii", "map.nii.gz"):
        image.to_filename(tmp_path / name)
        assert read_extension(tmp_path / name, 4).rstrip(b"\0") == b"<AFNI_attributes/>" * 90
        assert read_extension(tmp_path / name, 6).rstrip(b"\0") == b"a comment"
        assert read_extension(tmp_path / name, 8) is None
        np.testing.assert_array_equal(read_image(tmp_path / name).data, volume)
    make(volume, AFFINE).to_filename(tmp_path / "bare.nii")
    (tmp_path / "table.tsv").write_text("a\tb\n")
    assert read_extension(tmp_path / "bare.nii", 4) is None
    assert read_extension(tmp_path / "table.tsv", 4) is None


def test_other_formats_are_read_through_nibabel(tmp_path, volume):
    nib.MGHImage(volume, AFFINE).to_filename(tmp_path / "map.mgz")
    image = read_image(tmp_path / "map.mgz")
    np.testing.assert_array_equal(image.data, volume)
    np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-6)
    content = (tmp_path / "map.mgz").read_bytes()
    (tmp_path / "map.mgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ReadWriteError, match=r"map\.mgz is truncated or damaged"):
        read_image(tmp_path / "map.mgz")


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((30000, 30000, 30000), DataError, "would fill"),  # before memory is claimed for it
        ((300, 300, 300), ReadWriteError, "truncated"),
        ((4, -1, 3), ReadWriteError, "holds no voxels"),
    ],
)
def test_absurd_shapes_are_refused_by_name(tmp_path, volume, shape, error, message):
    for make, name in ((nib.Nifti1Image, "a.nii"), (nib.Nifti1Pair, "b.img"), (nib.Spm2AnalyzeImage, "c.img")):
        make(volume, AFFINE).to_filename(tmp_path / name)
        header = tmp_path / name.replace("img", "hdr")
        raw = bytearray(header.read_bytes())
        struct.pack_into("<8h", raw, 40, 3, *shape, 1, 1, 1, 1)
        header.write_bytes(raw)
        with pytest.raises(error, match=rf"{name} .*{message}"):
            read_image(tmp_path / name)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    with pytest.raises(error, match=rf"a\.nii\.gz .*{message}"):
        read_image(tmp_path / "a.nii.gz")


def test_no_more_is_unpacked_than_the_header_needs(tmp_path, volume):
    nib.Nifti1Image(volume, AFFINE).to_filename(tmp_path / "map.nii")
    whole = (tmp_path / "map.nii").read_bytes() + bytes(2**26)
    for name, content in (("long.nii", whole), ("bomb.nii.gz", gzip.compress(whole))):
        (tmp_path / name).write_bytes(content)
        tracemalloc.start()
        data = read_image(tmp_path / name).data
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(data, volume)
        assert peak < 2**20


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    for path in (tmp_path / "pipe.nii", Path("/dev/zero")):
        for read in (read_image, read_grid):
            with pytest.raises(InputError, match=f"{path} is no regular file"):
                read(path)


@pytest.mark.parametrize(
    "field", [(108, "<f", float("nan")), (108, "<f", 1e30), (70, "<h", 77), (112, "<2f", 1.0, float("nan"))]
)
def test_nonsense_in_a_header_is_told(tmp_path, volume, field):
    nib.Nifti1Image(volume, AFFINE).to_filename(tmp_path / "map.nii")
    raw = bytearray((tmp_path / "map.nii").read_bytes())
    at, form, *values = field
    struct.pack_into(form, raw, at, *values)
    (tmp_path / "map.nii").write_bytes(raw)
    with pytest.raises(ReadWriteError, match=r"map\.nii has (a )?damaged (header|scale factors)"):
        read_image(tmp_path / "map.nii")


def rewrite(path, *fields):
    """Write values into the header of a NIfTI-1 file: (offset, format, value), little-endian."""
    raw = bytearray(path.read_bytes())
    for at, form, value in fields:
        struct.pack_into(f"<{form}", raw, at, value)
    path.write_bytes(raw)


RIGHT_HANDED = np.array([[3.0, 0, 0, -8], [0, 2, 0, -12], [0, 0, 4, -8], [0, 0, 0, 1]])
QFORM_ALONE = (254, "h", 0), (252, "h", 1)


@pytest.mark.parametrize(
    ("fields", "odd"),
    [
        ([(76, "f", 0.0)], ""),  # pixdim[0] (qfac) of 0, as ITK writes it: the standard takes it for 1
        ([(76, "f", float("nan"))], ""),
        ([(76, "f", 2.0)], ""),
        ([(84, "f", -2.0)], "3 x -2 x 4"),
        ([(80, "f", -3.0), (84, "f", -2.0), (88, "f", -4.0)], "-3 x -2 x -4"),
        ([(88, "f", 0.0)], "3 x 2 x 0"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_impossible_voxel_sizes_are_read_as_nibabel_reads_them(tmp_path, volume, fields, odd, alone):
    image = nib.Nifti1Image(volume, RIGHT_HANDED)
    image.set_qform(RIGHT_HANDED, code=1)
    path = tmp_path / "map.nii"
    image.to_filename(path)
    rewrite(path, *(QFORM_ALONE if alone else ()), *fields)
    grid, read = read_grid(path), read_image(path)
    np.testing.assert_allclose(grid.affine, nib.load(path).affine, atol=1e-6)
    if odd != "3 x 2 x 0" or not alone:  # where a size is missing, its place is made up
        np.testing.assert_allclose(grid.affine, RIGHT_HANDED, atol=1e-6)
    np.testing.assert_array_equal(read.data, volume)
    assert read.odd_sizes == (odd if alone else "")  # with an sform they decide nothing


@pytest.mark.parametrize("field", [(80, "f", np.nan), (84, "f", np.inf), (268, "f", np.nan), (76, "f", np.inf)])
def test_a_damaged_place_beside_a_sound_one_is_not_written(tmp_path, volume, field):
    """The sform says where voxels lie; the qform beside it is no number: it is dropped, and nothing fails later."""
    image = nib.Nifti1Image(volume, RIGHT_HANDED)
    image.set_qform(RIGHT_HANDED, code=1)
    image.set_sform(RIGHT_HANDED, code=4)
    image.to_filename(tmp_path / "map.nii")
    rewrite(tmp_path / "map.nii", field)
    grid = read_grid(tmp_path / "map.nii")
    np.testing.assert_allclose(grid.affine, RIGHT_HANDED)
    header = make_header(grid, np.float32)
    np.testing.assert_allclose(header.get_best_affine(), RIGHT_HANDED)
    assert np.isfinite(header.get_qform()).all()


def test_a_negative_qfac_turns_the_third_axis(tmp_path, volume):
    affine = RIGHT_HANDED @ np.diag([1, 1, -1, 1])
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=1)
    image.to_filename(tmp_path / "map.nii")
    rewrite(tmp_path / "map.nii", *QFORM_ALONE)
    np.testing.assert_allclose(read_grid(tmp_path / "map.nii").affine, affine, atol=1e-6)


def test_a_place_that_no_header_states(tmp_path, volume):
    image = nib.Nifti1Image(volume, AFFINE)
    image.to_filename(tmp_path / "stated.nii")
    image.set_sform(AFFINE, code=0)
    image.set_qform(AFFINE, code=0)
    image.to_filename(tmp_path / "silent.nii")
    assert read_grid(tmp_path / "stated.nii").placed
    silent = read_grid(tmp_path / "silent.nii")
    assert not silent.placed
    np.testing.assert_allclose(silent.affine, nib.load(tmp_path / "silent.nii").affine)


def test_analyze_states_its_place_by_its_origin_or_a_matrix_beside_it(tmp_path, volume):
    nib.Spm99AnalyzeImage(volume, AFFINE).to_filename(tmp_path / "map.img")
    assert (tmp_path / "map.mat").exists()
    assert read_grid(tmp_path / "map.img").placed
    (tmp_path / "map.mat").unlink()
    rewrite(tmp_path / "map.hdr", *((253 + 2 * axis, "h", value) for axis, value in enumerate((3, 4, 2))))
    stated = read_grid(tmp_path / "map.img")
    assert stated.placed
    np.testing.assert_allclose(np.abs(stated.affine @ [2, 3, 1, 1]), [0, 0, 0, 1], atol=1e-6)  # counted from 1
    rewrite(tmp_path / "map.hdr", *((253 + 2 * axis, "h", 0) for axis in range(5)))
    silent = read_grid(tmp_path / "map.img")
    assert not silent.placed
    np.testing.assert_allclose(silent.affine, nib.load(tmp_path / "map.img").affine)


@pytest.mark.parametrize("rest", [b"\r\n<!-- end -->\r\n", bytes(512), b"\x1f", b"x" * 3000], ids=len)
def test_bytes_behind_an_intact_stream_do_no_harm(tmp_path, volume, rest):
    path = tmp_path / "map.nii.gz"
    nib.Nifti1Image(volume, AFFINE).to_filename(path)
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    np.testing.assert_array_equal(read_image(path).data, volume)
    path.write_bytes(whole[:-4] + bytes(4) + rest)  # its length is wrong
    with pytest.raises(ReadWriteError, match="truncated or damaged"):
        read_image(path)


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


@pytest.mark.parametrize("read", [read_image, read_grid])
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


@pytest.mark.parametrize("read", [read_image, read_grid])
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
    grid = read_grid(tmp_path / "map.nii.gz")
    assert (grid.sform_code, grid.qform_code, grid.xyzt_units) == (4, 1, 2)
    np.testing.assert_allclose(grid.qform, np.diag([2.0, 2, 2, 1]), atol=1e-6)


@pytest.mark.parametrize(("code", "taken"), [(9, 2), (5, 5), (-1, 0)])
def test_codes_that_the_standard_does_not_know_are_no_obstacle(tmp_path, volume, code, taken):
    nib.Nifti1Image(volume, AFFINE).to_filename(tmp_path / "map.nii")
    rewrite(tmp_path / "map.nii", (254, "h", code))
    grid = read_grid(tmp_path / "map.nii")
    assert (grid.sform_code, grid.placed) == (taken, taken > 0)
    encode_map(volume.reshape(-1), grid, "out.nii")  # and can be written


def test_real_maps_read_as_nibabel_reads_them(shared):
    folder = shared / "realdata"
    for path in (
        *sorted((folder / "wager2008/con").glob("*.img"))[:2],
        folder / "pain21/maps/pain_01_beta.nii.gz",
    ):
        image = read_image(path)
        expected = nib.load(path)
        np.testing.assert_array_equal(image.data, expected.get_fdata().reshape(image.data.shape))
        np.testing.assert_allclose(image.grid.affine, expected.affine)
