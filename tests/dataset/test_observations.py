"""Maps of all kinds brought into one row."""

import json
import logging
from pathlib import Path

import pytest

from ibma_app.core.errors import DataError, DatasetError
from ibma_app.core.statmap import Dataset, StatMap
from ibma_app.dataset.observations import observe
from ibma_app.stream.convert import kinds_to_open

DATASET = Dataset("data", Path("data"))


def statmap(kind="effect", metadata=None, extension=".nii.gz", dataset=DATASET, **entities):
    entities = {"sub": "01", "contrast": "a", **entities}
    name = "_".join(f"{key}-{label}" for key, label in entities.items() if key != "node")
    path = dataset.root / entities.get("node", "") / f"{name}_stat-{kind}_statmap{extension}"
    return StatMap(path, kind, dataset, entities, metadata or {})


def test_kinds_come_together():
    maps = [
        statmap("effect", {"Units": "percent"}, node="x"),
        statmap("variance", node="x"),
        statmap("t", {"DegreesOfFreedom": 102, "SampleSize": 20}, node="y"),
        statmap("effect", run="2"),
    ]
    one, two = observe(maps, "sub")
    assert list(one.statmaps) == ["effect", "variance", "t"]
    assert one.entities == {"sub": "01", "contrast": "a"}
    assert (one.unit_label, one.dof, one.dof_source, one.sample_size, one.units) == (
        "01",
        102.0,
        "sidecar",
        20.0,
        "percent",
    )
    assert (two.entities["run"], two.dof, two.dof_source, two.units) == ("2", None, "unknown", "unknown")


@pytest.mark.parametrize(
    ("stated", "dof", "sizes", "expected"),
    [
        (30, 5, {"01": 9}, (30.0, "sidecar")),
        ("30", None, None, (30.0, "sidecar")),
        ([30], None, None, (30.0, "sidecar")),
        ([1, 30], 5, None, (5.0, "--dof")),
        ("voxelwise", None, None, (None, "unknown")),
        ("n/a", 5, None, (5.0, "--dof")),
        (None, 5, {"01": 9}, (5.0, "--dof")),
        (None, None, {"02": 9}, (None, "unknown")),
    ],
)
def test_degrees_of_freedom(stated, dof, sizes, expected, caplog):
    metadata = {} if stated is None else {"DegreesOfFreedom": stated}
    with caplog.at_level(logging.WARNING):
        (one,) = observe(
            [statmap("t", metadata)], "sub", dof=dof, sample_sizes=lambda unit, _: sizes.get(unit) if sizes else None
        )
    assert (one.dof, one.dof_source) == expected
    assert ("DegreesOfFreedom" in caplog.text) == (stated not in (None, "n/a") and expected[1] != "sidecar")


ABSURD = [0, -4, 1e300, True, "²", "many", "NaN", "9" * 5000, {"a": 1}, "1\0"]


@pytest.mark.parametrize("stated", ABSURD, ids=range(len(ABSURD)))
@pytest.mark.parametrize("key", ["DegreesOfFreedom", "SampleSize"])
def test_absurd_values_refuse_the_row_by_file_and_key(tmp_path, key, stated):
    dataset = Dataset("data", tmp_path)
    odd = statmap("t", {key: stated}, dataset=dataset)
    sidecar = odd.path.with_name(odd.path.name.replace(".nii.gz", ".json"))
    sidecar.write_text(json.dumps(odd.metadata))
    one, other = observe([odd, statmap("t", {"DegreesOfFreedom": 12}, dataset=dataset, run="2")], "sub", dof=7)
    assert one.refused.startswith(f"{sidecar}: {key} is ")
    assert (other.refused, other.dof) == ("", 12.0)
    with pytest.raises(DataError, match=key):
        kinds_to_open(one, ("t",))


def test_what_is_not_stated_is_not_refused():
    one, other = observe([statmap("t", {"SampleSize": None}), statmap("t", {"SampleSize": "n/a"}, run="2")], "sub")
    assert (one.refused, one.sample_size, other.refused, other.sample_size) == ("", None, "", None)


def test_dof_map_and_sample_size():
    maps = [statmap("t", {"DegreesOfFreedom": "voxelwise", "SampleSize": 12}), statmap("dof")]
    (one,) = observe(maps, "sub", dof=3, sample_sizes=lambda unit, _: {"01": 99}.get(unit))
    assert (one.dof, one.dof_source, one.sample_size) == (None, "map", 12.0)
    (one,) = observe([statmap("p", {"Tail": "Two-Sided"})], "sub", sample_sizes=lambda unit, _: {"01": 99}.get(unit))
    assert (one.tail, one.sample_size) == ("two-sided", 99.0)


@pytest.mark.parametrize(
    ("twin", "remedy"),
    [
        (statmap(extension=".nii"), '"extension": ".nii.gz"'),
        (statmap(node="runLevel"), '"node": "runLevel"'),
        (statmap(dataset=Dataset("b", Path("b"))), "--derivatives data"),
        (statmap(), "--bids-filter-file"),
    ],
)
def test_two_files_for_one_key(twin, remedy):
    with pytest.raises(DatasetError) as caught:
        observe([statmap(), twin], "sub")
    assert str(statmap().path) in caught.value.message
    assert str(twin.path) in caught.value.message
    assert remedy in caught.value.message


def test_unit_is_needed():
    with pytest.raises(DatasetError, match="which study- it is"):
        observe([statmap()], "study")
