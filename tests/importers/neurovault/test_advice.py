"""What messages on downloads advise is done, and works."""

import json
import re

import numpy as np
import pytest

from ibma_app.importers import fetch

STUDY = ("--study-label", "pain")


def maps_of(out):
    return sorted(path.name for path in out.rglob("*_statmap.nii.gz"))


@pytest.fixture
def pain(vault):
    rng = np.random.default_rng(3)
    vault.add("1425", "pain_t", "T map", rng.normal(1, 1, (5, 6, 4)), statistic_parameters=19.0,
              contrast_definition="pain > rest")  # fmt: skip
    return vault


@pytest.mark.parametrize(("wrong", "fault"), [("1452", None), ("1425", 403), ("1425", 401)])
def test_a_number_that_is_wrong_or_private(wrong, fault, pain, tmp_path, ibma_import):
    pain.faults = [fault] * (fault is not None)
    ran = ibma_import("neurovault", wrong, tmp_path / "out", *STUDY, env={"IBMA_CACHE": str(tmp_path / "cache")})
    assert ran.code == 66, ran.stderr
    assert re.search(r"Is the number right|only public collections", ran.stderr), ran.stderr
    assert maps_of(tmp_path / "out") == []
    ran = ibma_import("neurovault", "1425", tmp_path / "out", *STUDY, env={"IBMA_CACHE": str(tmp_path / "cache")})
    assert ran.code == 0, ran.stderr
    assert maps_of(tmp_path / "out") == ["study-pain_space-MNI152_contrast-painGtRest_stat-t_statmap.nii.gz"]


def test_without_a_network_a_download_is_given(pain, tmp_path, ibma_import):
    """The folder that the message asks for, as nilearn leaves it."""
    folder = tmp_path / "neurovault" / "collection_1425"
    folder.mkdir(parents=True)
    (facts,) = pain.images["1425"]
    (folder / f"image_{facts['id']}.nii.gz").write_bytes(next(iter(pain.files.values())))
    local = {"absolute_path": str(folder / f"image_{facts['id']}.nii.gz")}
    (folder / f"image_{facts['id']}_metadata.json").write_text(json.dumps(facts | local))
    (folder / "collection_metadata.json").write_text(json.dumps({"id": 1425, "name": "pain"}))
    away = {"IBMA_NEUROVAULT_URL": "http://127.0.0.1:9", "IBMA_CACHE": str(tmp_path / "cache")}
    ran = ibma_import("neurovault", "1425", tmp_path / "out", *STUDY, env=away)
    assert ran.code == 66, ran.stderr
    assert f"cannot be fetched after {fetch.ATTEMPTS} attempts" in ran.stderr
    assert "download the collection elsewhere (nilearn's fetch_neurovault_ids) and give its folder" in ran.stderr
    ran = ibma_import("neurovault", folder, tmp_path / "out", *STUDY, env=away)
    assert ran.code == 0, ran.stderr
    assert maps_of(tmp_path / "out") == ["study-pain_space-MNI152_contrast-painGtRest_stat-t_statmap.nii.gz"]
