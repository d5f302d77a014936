"""Atlases from files: labels, names, and what is refused."""

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, UsageError
from ibma_app.images.atlas import atlas_at_hand, read_atlas, read_atlases
from ibma_app.inference.regions import describe_places, name_regions

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def labels(tmp_path):
    volume = np.zeros((4, 4, 4), dtype=np.int16)
    volume[1], volume[2] = 1, 12
    path = tmp_path / "toy_dseg.nii.gz"
    nib.Nifti1Image(volume, AFFINE).to_filename(path)
    return path


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "index\tname\themisphere\n0\tBackground\tboth\n1\tArea 1, left\tL\n12\tArea  two\tR\n"),
        ("a.csv", 'name,index\nBackground,0\n"Area 1, left",1\nArea two,12\n\n'),
        ("b.tsv", "﻿Index\tName\r\n1.0\tArea 1, left\r\n12\tArea two\r\n"),
    ],
)
def test_names_from_tables(labels, tmp_path, name, text):
    atlas = read_atlas("toy", labels, write(tmp_path / name, text))
    assert dict(atlas.names) == {1: "Area 1, left", 12: "Area two"}
    assert atlas.labels.dtype == np.int32
    assert name_regions(atlas, [[2, 0, 0], [4, 0, 0], [6, 0, 0]]) == ["Area 1, left", "Area two", "n/a"]


def test_the_table_beside_the_image_is_taken(labels, tmp_path):
    assert read_atlas("toy", labels).names == {}
    write(tmp_path / "toy_dseg.tsv", "index\tname\n12\tA\n")
    assert read_atlas("toy", labels).names == {12: "A"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id\tregion\n1\tA\n", "columns index and name; its columns: id, region"),
        ("", "its columns: none"),
        ("index\tname\none\tA\n", "line 2"),
        ("index\tname\n1\tA\n2\n", "line 3"),
    ],
)
def test_tables_that_cannot_be_used(labels, tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_atlas("toy", labels, write(tmp_path / "names.tsv", text))


def test_images_that_are_no_labels(tmp_path):
    probabilities = tmp_path / "p.nii.gz"
    nib.Nifti1Image(np.full((3, 3, 3), 0.4, dtype=np.float32), AFFINE).to_filename(probabilities)
    with pytest.raises(DataError, match=r"p\.nii\.gz holds values that are no labels"):
        read_atlas("toy", probabilities)
    nib.Nifti1Image(np.zeros((3, 3, 3, 7), dtype=np.float32), AFFINE).to_filename(probabilities)
    with pytest.raises(DataError, match=r"the 7 volumes of .* are empty"):
        read_atlas("toy", probabilities)


def test_labels_that_lie_nobody_knows_where(labels):
    image = nib.load(labels, mmap=False)
    silent = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    silent.set_sform(image.affine, code=0)
    silent.set_qform(image.affine, code=0)
    silent.to_filename(labels)
    with pytest.raises(DataError, match=r"Atlas toy: .*states no place"):
        read_atlas("toy", labels)


def test_missing_files(labels, tmp_path):
    with pytest.raises(InputError, match=r"nothing\.tsv"):
        read_atlas("toy", labels, tmp_path / "nothing.tsv")
    with pytest.raises(InputError, match=r"nothing\.nii"):
        read_atlas("toy", tmp_path / "nothing.nii.gz")


def test_the_configuration(labels, tmp_path):
    write(tmp_path / "names.tsv", "index\tname\n12\tA\n")
    one, two = read_atlases(
        {"x": {"labels": "toy_dseg.nii.gz", "names": "names.tsv"}, "y": {"labels": str(labels)}}, tmp_path
    )
    assert (one.name, one.names, two.name, two.names) == ("x", {12: "A"}, "y", {})
    for table in ({}, {"labels": 3}, "toy.nii.gz", {"names": "names.tsv"}):
        with pytest.raises(UsageError, match=r"\[atlas\.x\].*does not name its labels"):
            read_atlases({"x": table}, tmp_path)
    with pytest.raises(UsageError, match="no setting 'label'"):
        read_atlases({"x": {"labels": "toy_dseg.nii.gz", "label": "q"}}, tmp_path)


def test_templateflow_at_hand(labels, tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "tf"))
    assert atlas_at_hand(None) is None
    assert atlas_at_hand("MNI152NLin2009cAsym") is None
    folder = tmp_path / "tf" / "tpl-MNI152NLin2009cAsym"
    folder.mkdir(parents=True)
    stem = "tpl-MNI152NLin2009cAsym_res-02_atlas-Schaefer2018_desc-400Parcels7Networks_dseg"
    image, table = folder / f"{stem}.nii.gz", folder / f"{stem.replace('_res-02', '')}.tsv"
    image.touch()  # what TemplateFlow lists before it fetches
    write(table, "index\tname\n12\tA\n")
    assert atlas_at_hand("MNI152NLin2009cAsym") is None
    image.write_bytes(labels.read_bytes())
    atlas = atlas_at_hand("MNI152NLin2009cAsym")
    assert (atlas.name, atlas.names) == ("Schaefer2018400Parcels7Networks", {12: "A"})


@pytest.mark.parametrize("parcels", [100, 400])
def test_schaefer(shared, parcels):
    # the file is called probseg, and is one volume of whole numbers in float32
    folder = shared / "realdata" / "atlas_schaefer" / "tpl-MNI152NLin6Asym" / "anat"
    stem = f"tpl-MNI152NLin6Asym_atlas-Schaefer2018_scale-{parcels}_res-2_desc-7Networks_probseg"
    atlas = read_atlas("schaefer", folder / f"{stem}.nii.gz")
    assert atlas.labels.shape == (91, 109, 91)
    assert len(atlas.names) == parcels == atlas.labels.max()
    # left and right motor cortex, the occipital pole, a ventricle
    left, right, occipital, ventricle = name_regions(atlas, [[-38, -24, 56], [38, -24, 56], [-10, -98, 0], [0, -2, 14]])
    assert left.startswith("7Networks_LH_SomMot")
    assert right.startswith("7Networks_RH_SomMot")
    assert occipital.startswith("7Networks_LH_Vis")
    assert ventricle == "n/a"
    # the nearest voxel of every label's own voxels is itself
    voxels = np.argwhere(atlas.labels == parcels)
    places = voxels @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    assert set(name_regions(atlas, places)) == {atlas.names[parcels]}


def test_probabilities(tmp_path):
    """A volume for each region: the largest counts, in proportions or percent."""
    volumes = np.zeros((3, 3, 3, 2), dtype=np.float32)
    volumes[0, 0, 0], volumes[1, 1, 1], volumes[2, 2, 2] = (0.3, 0.6), (0.5, 0.2), (np.nan, 0.1)
    write(tmp_path / "p.tsv", "index\tname\n1\tA\n2\tB\n")
    for scale in (1, 100):
        nib.Nifti1Image(volumes * scale, AFFINE).to_filename(tmp_path / "p.nii.gz")
        atlas = read_atlas("toy", tmp_path / "p.nii.gz")
        assert describe_places(atlas, [[0, 0, 0], [2, 2, 2], [4, 4, 4], [0, 0, 4]]) == [
            "B (0.60)", "A (0.50)", "B (0.10)", "near A, 3 mm",
        ]  # fmt: skip
    nib.Nifti1Image(volumes - 0.5, AFFINE).to_filename(tmp_path / "p.nii.gz")
    with pytest.raises(DataError, match=r"volume 1 of .*p\.nii\.gz has values from -0\.5"):
        read_atlas("toy", tmp_path / "p.nii.gz")
