"""Files of both hemispheres are one map, and meshes of one density have one label."""

from pathlib import Path

import pytest

from ibma_app.core.errors import DatasetError
from ibma_app.core.statmap import Dataset, StatMap
from ibma_app.dataset.entities import split_name
from ibma_app.dataset.observations import join_hemispheres, name_densities, observe

DATASET = Dataset("made", Path("/data"))


def statmap(name, **metadata):
    parts = split_name(name)
    kind = parts.entities.pop("stat")
    return StatMap(DATASET.root / name, kind, DATASET, parts.entities, metadata)


def test_endings_of_names_are_whole():
    for ending in (".func.gii", ".shape.gii", ".gii", ".dscalar.nii", ".pscalar.nii", ".tsv", ".nii", ".nii.gz"):
        parts = split_name(f"sub-1_hemi-L_stat-z_statmap{ending}")
        assert (parts.suffix, parts.extension, parts.fault) == ("statmap", ending, None)


def test_hemispheres_are_one_map():
    right = statmap("sub-1_hemi-R_contrast-a_stat-z_statmap.func.gii", DegreesOfFreedom=9)
    left = statmap("sub-1_hemi-L_contrast-a_stat-z_statmap.func.gii", SampleSize=10)
    (joined,) = join_hemispheres([right, left])
    assert joined.entities == {"sub": "1", "contrast": "a"}
    assert joined.files == (left.path, right.path)
    assert joined.uris == tuple(f"bids:made:{one.path.name}" for one in (left, right))
    assert joined.metadata == {"DegreesOfFreedom": 9, "SampleSize": 10}


def test_other_formats_subjects_and_volumes_stay_apart():
    names = ["sub-1_hemi-L_stat-z_statmap.func.gii", "sub-1_hemi-R_stat-z_statmap.gii",
             "sub-2_hemi-R_stat-z_statmap.func.gii", "sub-1_hemi-L_stat-z_statmap.nii.gz"]  # fmt: skip
    joined = join_hemispheres([statmap(name) for name in names])
    assert [len(one.files) for one in joined] == [1, 1, 1, 1]
    assert "hemi" not in joined[0].entities
    assert joined[3].entities["hemi"] == "L"


def test_two_files_of_one_hemisphere_are_refused():
    one = statmap("sub-1_hemi-L_stat-z_statmap.gii")
    other = StatMap(Path("/data/more") / one.path.name, "z", DATASET, one.entities)
    with pytest.raises(DatasetError, match="Two z maps for sub-1_hemi-L"):
        join_hemispheres([one, other])


@pytest.mark.parametrize(
    ("sides", "words"), [(["L", "R"], "hemi-L or hemi-R"), (["R"], "rename it with hemi-L"), (["L"], "with hemi-R")]
)
def test_a_name_without_its_hemisphere_is_told(sides, words):
    named = [statmap(f"sub-3_hemi-{side}_stat-effect_statmap.func.gii") for side in sides]
    plain = statmap("sub-3_stat-effect_statmap.func.gii")
    for maps in ([*named, plain], [plain, *named]):
        with pytest.raises(DatasetError, match=words) as refused:
            observe(maps, "sub")
        assert f"The name of {plain.path.name} does not say its hemisphere" in str(refused.value)


def test_maps_in_two_formats_are_told_by_their_endings():
    maps = [statmap(f"sub-1_contrast-a_stat-z_statmap{ending}") for ending in (".dscalar.nii", ".nii.gz")]
    with pytest.raises(DatasetError, match=r'"extension": ".dscalar.nii"'):
        observe(maps, "sub")


@pytest.mark.parametrize(
    ("spaces", "labels"),
    [
        (["space-fsaverage5_den-10k", "space-fsaverage5_den-10242", "space-fsaverage5"], ["10k", "10k", "10k"]),
        (["space-fsaverage5", "space-fsaverage6"], [None, None]),
        (["space-fsLR_den-32492", "space-fsLR"], ["32k", None]),
        (["space-fsLR_den-91k", "space-fsLR_den-unusual"], ["91k", "unusual"]),
    ],
)
def test_one_density_has_one_label(spaces, labels):
    maps = [statmap(f"sub-{number}_{space}_stat-z_statmap.gii") for number, space in enumerate(spaces)]
    assert [one.entities.get("den") for one in name_densities(maps)] == labels
