"""Which datasets hold the maps."""

import logging

import pytest

from ibma_app.core.errors import DatasetError, InputError
from ibma_app.dataset.datasets import find_datasets, find_own_maps, find_table

MAP = "sub-01/sub-01_stat-t_statmap.nii.gz"
RAW = {"Name": "raw", "BIDSVersion": "1.9.0"}


def found(bids_dir, derivatives=None, output="out", level="participant", **settings):
    datasets = find_datasets(bids_dir, derivatives, bids_dir.parent / output, level, **settings)
    return [(one.name, one.root) for one in datasets]


def test_derivative_is_itself(make_dataset):
    root = make_dataset([MAP])
    assert found(root) == [("data", root)]


def test_raw_has_derivatives(make_dataset):
    root = make_dataset(["sub-01/anat/sub-01_T1w.nii.gz"], description=RAW)
    one = make_dataset([MAP], root="data/derivatives/one")
    two = make_dataset([MAP], root="data/derivatives/two (2)")
    make_dataset([MAP], root="data/derivatives/ibma")
    make_dataset(["subjects"], root="data/derivatives/freesurfer", description=None)
    expected = [("one", one), ("two-2-", two)]
    assert found(root, output="data/derivatives/ibma") == expected


def test_named_datasets(make_dataset, tmp_path, monkeypatch):
    root = make_dataset([], description=RAW)
    one = make_dataset([MAP], root="a/first")
    two = make_dataset([MAP], root="b/first")
    assert found(root, [str(one), str(two)]) == [("first", one), ("first-2", two)]
    monkeypatch.chdir(tmp_path)
    assert found(root, ["x=a/first", str(one)]) == [("x", one)]
    with pytest.raises(InputError, match="nowhere does not exist"):
        found(root, ["x=nowhere"])


def test_missing_and_unreadable(make_dataset, tmp_path):
    with pytest.raises(InputError, match=r"BIDS_DIR .*does not exist"):
        found(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        found(tmp_path / "file")
    root = make_dataset([MAP], description=None)
    with pytest.raises(DatasetError, match=r"dataset_description\.json.*DatasetType"):
        found(root)
    assert found(root, skip_validation=True) == [("data", root)]
    (root / "dataset_description.json").write_text("{")
    with pytest.raises(DatasetError, match="not valid JSON"):
        found(root)
    assert found(root, skip_validation=True) == [("data", root)]


def test_evidently_a_derivative(make_dataset, caplog):
    root = make_dataset([MAP], description=RAW)
    with caplog.at_level(logging.WARNING):
        assert found(root) == [("data", root)]
    assert '"DatasetType": "derivative"' in caplog.text


def test_raw_without_maps(make_dataset):
    root = make_dataset(["sub-01/anat/sub-01_T1w.nii.gz"], description=RAW)
    with pytest.raises(DatasetError, match="--derivatives PATH"):
        found(root)


def test_folder_of_studies(make_dataset):
    studies = [make_dataset(["group/stat-t_statmap.nii.gz"], root=f"data/study-{name}") for name in "AB"]
    root = studies[0].parent
    (root / "studies.tsv").write_text("study_id\nA\n")
    expected = [(path.name, path) for path in studies]
    assert found(root, level="group") == expected
    named = find_datasets(make_dataset([], root="b"), [str(root)], root.parent / "out", "group")
    assert [(one.name, one.root) for one in named] == expected
    assert find_table(named, root.parent / "b", "studies.tsv") == root / "studies.tsv"
    assert find_table(named, root, "participants.tsv") is None


def test_collection_is_one_dataset(make_dataset):
    root = make_dataset(["studies.tsv", "study-A/study-A_stat-t_statmap.nii.gz"])
    assert found(root, level="group") == [("data", root)]


def test_own_participant_maps_come_first_at_group_level(make_dataset):
    root = make_dataset([MAP])
    out = make_dataset([MAP], root="out")
    assert found(root) == [("data", root)]
    assert found(root, level="group") == [("", out), ("data", root)]
    assert found(out, level="group", output="out2") == [("out", out)]
    raw = make_dataset([], root="raw", description=RAW)
    assert found(raw, level="group") == [("", out)]
    assert found(root, [str(root)], level="group") == [("data", root)]
    assert find_own_maps(root.parent / "nothing") is None
