"""Atlases that need no download, and what --atlas takes."""

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.errors import InputError, UsageError
from ibma_app.images.known_atlases import choose_atlases, find_atlases
from ibma_app.inference.regions import describe_places, name_regions

MNI = "MNI152NLin2009cAsym"


@pytest.fixture(autouse=True)
def no_templateflow(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("name", "places", "regions"),
    [
        (
            "AAL3",
            [(-28, -20, -16), (24, -2, -20), (-38, -12, 54), (14, -75, 8), (0, 48, -6)],
            ["Hippocampus_L", "Amygdala_R", "Precentral_L", "Calcarine_R", "Frontal_Med_Orb_L"],
        ),
        ("HCPex", [(-26, -24, -14), (24, -2, -20)], ["Hippocampus_L", "Amygdala_R"]),
    ],
)
def test_places_that_anatomists_know(name, places, regions):
    (atlas,) = find_atlases(choose_atlases([name.upper()], ()), MNI)
    assert name_regions(atlas, places) == regions
    assert atlas.citation.doi.startswith("10.")
    assert "authors" in atlas.licence


def test_nobody_chose():
    assert [atlas.name for atlas in find_atlases(choose_atlases(None, ()), MNI)] == ["AAL3"]
    assert find_atlases(None, "T1w") == find_atlases(None, None) == ()
    assert find_atlases(choose_atlases(["none"], ()), MNI) == ()


def test_outside_of_the_brain():
    (atlas,) = find_atlases(None, MNI)
    near, far = describe_places(atlas, [(-28, -20, 84), (0, 0, 140)])
    assert near.startswith(("near Precentral_L, ", "near Postcentral_L, "))
    assert far == "n/a"


def test_files_and_tables_of_the_configuration(tmp_path):
    labels = np.ones((3, 3, 3), dtype=np.int16)
    nib.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "mine_dseg.nii.gz")
    toy = Atlas("toy", labels.astype(np.int32), np.eye(4), {})
    assert find_atlases(choose_atlases(None, [toy]), MNI) == (toy,)
    chosen = find_atlases(choose_atlases([str(tmp_path / "mine_dseg.nii.gz"), "TOY", "aal3"], [toy]), MNI)
    assert [atlas.name for atlas in chosen] == ["mine_dseg", "toy", "AAL3"]


def test_what_does_not_exist():
    with pytest.raises(
        UsageError, match=r"no atlas or file 'AAL33'\. Did you mean AAL3\? Choose from: AAL3, HCPex, Schaefer2018, none"
    ):
        choose_atlases(["AAL33"], ())
    with pytest.raises(InputError, match=r"no Schaefer atlas of the space MNI152NLin6Asym.*Take AAL3 or HCPex"):
        find_atlases(choose_atlases(["schaefer2018"], ()), "MNI152NLin6Asym")
