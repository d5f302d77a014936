"""BIDS inheritance of sidecars."""

import json

from ibma_app.dataset.sidecars import SidecarReader

MAP = "sub-01/func/sub-01_task-x_run-1_contrast-a_stat-t_statmap.nii.gz"


def read(root, name=MAP):
    return SidecarReader(root).read(root / name)


def test_most_specific_wins(make_dataset):
    root = make_dataset(
        {
            MAP: "",
            "statmap.json": {"A": 0, "B": 0, "C": 0, "D": 0, "E": 0},
            "task-x_statmap.json": {"A": 1, "B": 1, "C": 1, "D": 1},
            "sub-01/sub-01_statmap.json": {"A": 2, "B": 2, "C": 2},
            "sub-01/func/sub-01_task-x_run-1_contrast-a_statmap.json": {"A": 3, "B": 3},
            "sub-01/func/sub-01_task-x_run-1_contrast-a_stat-t_statmap.json": {"A": 4},
            # none of these applies
            "task-y_statmap.json": {"A": 9},
            "task-x_mask.json": {"A": 9},
            "sub-01/func/sub-01_task-x_run-2_statmap.json": {"A": 9},
            "sub-01/func/sub-01_task-x_run-1_contrast-a_stat-z_statmap.json": {"A": 9},
            "sub-02/statmap.json": {"A": 9},
        }
    )
    assert read(root) == ({"A": 4, "B": 3, "C": 2, "D": 1, "E": 0}, None)


def test_halfpipes_name_counts(make_dataset):
    name = "sub-01/sub-01_taskcontrast-a_stat-t_statmap"
    root = make_dataset({f"{name}.nii.gz": "", f"{name}.json": {"A": 1}})
    assert read(root, f"{name}.nii.gz") == ({"A": 1}, None)


def test_unreadable_concerns_that_map_alone(make_dataset):
    sidecar = MAP.replace(".nii.gz", ".json")
    other = MAP.replace("run-1", "run-2")
    root = make_dataset({MAP: "", other: "", sidecar: "{", "statmap.json": {"A": 1}})
    metadata, error = read(root)
    assert metadata == {"A": 1}
    assert sidecar in error
    assert "not valid JSON" in error
    assert read(root, other) == ({"A": 1}, None)
    (root / sidecar).write_text("[1]")
    assert "not a JSON object" in read(root)[1]
    (root / sidecar).unlink()
    (root / sidecar).symlink_to("nowhere.json")
    assert "datalad get" in read(root)[1]
    (root / sidecar).unlink()
    (root / sidecar).write_bytes(b'{"A": "\xff"}')
    assert "not valid JSON" in read(root)[1]


def test_each_file_is_read_once(make_dataset, tmp_path):
    root = make_dataset({MAP: "", "statmap.json": {"A": 1}})
    reader = SidecarReader(root)
    assert reader.read(root / MAP)[0] == {"A": 1}
    (root / "statmap.json").write_text(json.dumps({"A": 2}))
    assert reader.read(root / MAP.replace("run-1", "run-2"))[0] == {"A": 1}
