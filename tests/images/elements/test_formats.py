"""Maps on elements, as nibabel writes them and as Connectome Workbench reads ours."""

import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Parcels, Surface, Voxels
from ibma_app.core.errors import DataError, DatasetError, InputError, ReadWriteError
from ibma_app.images.elements.formats import encode_files, read_map, read_shape
from ibma_app.images.write import Meaning

RNG = np.random.default_rng(3)
N = 12
needs_workbench = pytest.mark.skipif(shutil.which("wb_command") is None, reason="Connectome Workbench is not here")


@pytest.fixture
def made(maker):
    return maker("made_surfaces")


def save(folder, vector, shape, name, kind="z"):
    files = encode_files(vector, shape, folder / name, meaning=Meaning(kind, (), "words"))
    for path, content in files.items():
        path.write_bytes(content)
    return list(files)


def workbench(*words):
    return subprocess.run(["wb_command", *map(str, words)], capture_output=True, text=True, check=True).stdout


def test_hemispheres_of_unlike_size_are_one_map(made, tmp_path):
    left, right = RNG.normal(size=N), RNG.normal(size=N + 4)
    paths = [
        made.write_gifti(tmp_path / f"sub-1_hemi-{side}_stat-z_statmap.func.gii", values)
        for side, values in (("L", left), ("R", right))
    ]
    read = read_map(paths)
    np.testing.assert_allclose(read.data, np.concatenate([left, right]), rtol=1e-6)
    assert read.data.dtype == np.float32
    assert read.shape.words == "CORTEX_LEFT (12 vertices), CORTEX_RIGHT (16 vertices)"
    assert (read.shape.extension, read.shape.hemispheres) == (".func.gii", ("L", "R"))


def test_what_a_gifti_file_may_say_of_its_side(made, tmp_path):
    by_content = made.write_gifti(tmp_path / "map.gii", np.zeros(N), side="R")
    assert read_shape([by_content]).structures[0].name == "CORTEX_RIGHT"
    neither = made.write_gifti(tmp_path / "other.gii", np.zeros(N))
    with pytest.raises(DatasetError, match="which hemisphere"):
        read_shape([neither])
    both = made.write_gifti(tmp_path / "a_hemi-L_statmap.gii", np.zeros(N), side="R")
    with pytest.raises(DataError, match="CORTEX_LEFT by its name and of CORTEX_RIGHT by its content"):
        read_shape([both])


def test_several_maps_in_one_gifti_file_are_named(made, tmp_path):
    path = made.write_gifti(tmp_path / "a_hemi-L_statmap.gii", np.zeros(N), np.ones(N), names=("faces", "houses"))
    with pytest.raises(DataError, match=r"holds 2 maps \(faces, houses\); a statmap is one"):
        read_map([path])


def test_a_mesh_is_no_map_and_a_map_no_mesh(made, tmp_path):
    path = made.write_mesh(tmp_path / "hemi-L.surf.gii", *made.icosphere(0))
    with pytest.raises(DataError, match="it is a mesh, or empty"):
        read_map([path])


@pytest.mark.parametrize("name", ["a_hemi-L_statmap.gii", "a_statmap.dscalar.nii", "a_statmap.tsv"])
def test_damaged_and_missing_files_are_told(tmp_path, name):
    with pytest.raises(InputError, match="does not exist"):
        read_map([tmp_path / name])
    (tmp_path / name).write_bytes(b"\x00\xff nothing of this kind")
    with pytest.raises((ReadWriteError, DataError), match=name):
        read_map([tmp_path / name])


def test_grayordinates_have_all_vertices_of_their_meshes(made, tmp_path):
    left, right = np.array([7, 2, 5]), np.arange(1, N)  # in an order of its own, the medial wall left out
    axis = made.grayordinates(N, left, right)
    values = RNG.normal(size=len(axis))
    path = made.write_cifti(tmp_path / "a_statmap.dscalar.nii", axis, values, dtype=np.float64)
    read = read_map([path])
    assert read.data.dtype == np.float64
    assert read.data[[7, 2, 5]].tolist() == values[:3].tolist()
    assert np.isnan(read.data[[0, 1, N]]).all()
    assert read.data[2 * N :].tolist() == values[3 + N - 1 :].tolist()
    first, _, nucleus = read.shape.structures
    assert first.listed.tolist() == [2, 5, 7]
    np.testing.assert_array_equal(nucleus.indices, made.NUCLEUS)


def test_several_maps_in_one_cifti_file_are_named(made, tmp_path):
    axis = made.grayordinates(N)
    values = np.zeros(len(axis))
    path = made.write_cifti(tmp_path / "a_statmap.dscalar.nii", axis, values, values, names=("faces", "houses"))
    with pytest.raises(DataError, match=r"holds 2 maps \(faces, houses\); a statmap is one. Split it.*-cifti-merge"):
        read_shape([path])


def test_cut_off_grayordinates_are_truncated(made, tmp_path):
    axis = made.grayordinates(N)
    path = made.write_cifti(tmp_path / "a_statmap.dscalar.nii", axis, np.ones(len(axis)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ReadWriteError, match="truncated"):
        read_map([path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("index\tname\n1\ta\n", "lacks value"),
        ("index,name,value\n1,a,2\n", "lacks index, name, value"),
        ("index\tname\tvalue\n1\ta\t2\n2\ta\t3\n", "the region a stands in several rows"),
        ("index\tname\tvalue\n1\ta\t2,5\n", "the value of a is '2,5', which is no number"),
        ("index\tname\tvalue\none\ta\t2\n", "the index 'one' is no whole number"),
    ],
)
def test_tables_that_are_none_of_regions(tmp_path, text, words):
    path = tmp_path / "a_seg-toy_statmap.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_map([path])


def test_a_table_of_regions(tmp_path):
    path = tmp_path / "a_seg-Toy_stat-z_statmap.tsv"
    path.write_text("index\tname\tvalue\tother\n4\tleft one\t1.5\tx\n9\tright\tn/a\ty\n")
    read = read_map([path])
    np.testing.assert_array_equal(read.data, [1.5, np.nan])
    (table,) = read.shape.structures
    assert (table.name, table.labels, table.numbers.tolist()) == ("Toy", ("left one", "right"), [4, 9])


SHAPES = {
    ".gii": Elements.whole((Surface("CORTEX_LEFT", 6), Surface("CORTEX_RIGHT", 7)), ".gii", ("L", "R")),
    ".shape.gii": Elements.whole((Surface("CORTEX_RIGHT", 7),), ".shape.gii", ("R",)),
    ".tsv": Elements.whole((Parcels("Toy", tuple("abcdefg"), np.arange(3, 10)),), ".tsv"),
    ".dscalar.nii": Elements.whole(
        (
            Surface("CORTEX_LEFT", 6, np.array([1, 4], dtype=np.int32)),
            Voxels("BRAIN_STEM", np.array([[3, 2, 1], [0, 0, 0]], dtype=np.int32), np.eye(4), (4, 4, 4)),
        ),
        ".dscalar.nii",
    ),
}


@pytest.mark.parametrize("extension", SHAPES)
def test_what_is_written_is_read_back(tmp_path, extension):
    shape = SHAPES[extension]
    mask = np.ones(shape.shape, dtype=bool)
    mask[[0, 2]] = False
    shape = shape.with_mask(mask)
    vector = RNG.normal(size=shape.n_voxels).astype(np.float32)
    first = f"{'hemi-' + shape.hemispheres[0] + '_' if shape.hemispheres else ''}seg-Toy_stat-z_statmap{extension}"
    files = save(tmp_path, vector, shape, first)
    read = read_map(files)
    assert read.shape.matches(shape)
    np.testing.assert_array_equal(read.data[mask].astype(np.float32), vector)
    outside = read.data[~mask]
    assert np.isnan(outside).all() if extension in (".tsv", ".dscalar.nii") else (outside == 0).all()
    before = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in save(tmp_path, vector, shape, first)] == before


def test_parcels_of_cifti_keep_what_they_consist_of(made, tmp_path):
    axis = made.parcels(["one", "two", "three"], N)
    path = made.write_cifti(tmp_path / "a_seg-Toy_statmap.pscalar.nii", axis, [1.0, 2.0, 3.0])
    read = read_map([path])
    assert (read.shape.noun, read.shape.structures[0].labels) == ("parcels", ("one", "two", "three"))
    (again,) = save(tmp_path, read.data, read.shape, "b_seg-Toy_stat-z_statmap.pscalar.nii")
    assert nib.load(again).header.get_axis(1) == axis


@needs_workbench
def test_workbench_reads_our_grayordinates(made, tmp_path):
    axis = made.grayordinates(N, np.arange(2, N))
    path = made.write_cifti(tmp_path / "in.dscalar.nii", axis, RNG.normal(size=len(axis)))
    read = read_map([path])
    shape = read.shape.with_mask(np.isfinite(read.data))
    (written,) = save(tmp_path, read.data[shape.mask], shape, "a_stat-z_statmap.dscalar.nii")
    told = workbench("-file-information", written)
    assert "CIFTI - Dense Scalar" in told
    assert "CortexLeft:           10 out of 12 vertices" in told
    workbench("-cifti-separate", written, "COLUMN", "-metric", "CORTEX_LEFT", tmp_path / "left.func.gii",
              "-volume", "THALAMUS_LEFT", tmp_path / "thalamus.nii")  # fmt: skip
    left = nib.load(tmp_path / "left.func.gii").darrays[0].data
    np.testing.assert_array_equal(left[2:], read.data[2:N].astype(np.float32))
    volume = nib.load(tmp_path / "thalamus.nii")
    where = np.rint(nib.affines.apply_affine(np.linalg.inv(volume.affine), made.NUCLEUS * 2.0)).astype(int)
    np.testing.assert_array_equal(volume.get_fdata()[tuple(where.T)], read.data[2 * N :].astype(np.float32))


@needs_workbench
def test_workbench_reads_our_hemispheres(tmp_path):
    shape = Elements.whole((Surface("CORTEX_LEFT", 6), Surface("CORTEX_RIGHT", 7)), ".func.gii", ("L", "R"))
    files = save(tmp_path, np.arange(13.0), shape, "a_hemi-L_stat-t_statmap.func.gii", kind="t")
    told = [workbench("-file-information", path) for path in files]
    assert ["CortexLeft" in told[0], "CortexRight" in told[1]] == [True, True]
    assert "Number of Vertices:       7" in told[1]
